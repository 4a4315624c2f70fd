"""Strings that tokenizers get wrong: for tok_goldens.py and tok_compare.py.

strings(count, seed, specials): prose and code from src/data/text, runs of letters of 40
scripts, emoji joined by ZWJ, control characters, white space, bytes that are no UTF-8
(decoded with errors="replace"), and added tokens inside text with and without space around.
Only characters assigned in Unicode 14 (Python 3.11's unicodedata) are drawn.
"""
import pathlib
import random
import unicodedata

TEXT = pathlib.Path(__file__).resolve().parents[2] / "src/data/text"
SCRIPTS = (  # first and last code point of 44 blocks
    (0x00A0, 0x024F), (0x0370, 0x03FF), (0x0400, 0x04FF), (0x0530, 0x058F), (0x0590, 0x05FF),
    (0x0600, 0x06FF), (0x0700, 0x074F), (0x0780, 0x07BF), (0x07C0, 0x07FF), (0x0900, 0x097F),
    (0x0980, 0x09FF), (0x0A00, 0x0A7F), (0x0A80, 0x0AFF), (0x0B00, 0x0B7F), (0x0B80, 0x0BFF),
    (0x0C00, 0x0C7F), (0x0C80, 0x0CFF), (0x0D00, 0x0D7F), (0x0D80, 0x0DFF), (0x0E00, 0x0E7F),
    (0x0E80, 0x0EFF), (0x0F00, 0x0FFF), (0x1000, 0x109F), (0x10A0, 0x10FF), (0x1100, 0x11FF),
    (0x1200, 0x137F), (0x13A0, 0x13FF), (0x1400, 0x167F), (0x1680, 0x169F), (0x16A0, 0x16FF),
    (0x1780, 0x17FF), (0x1800, 0x18AF), (0x1E00, 0x1EFF), (0x1F00, 0x1FFF), (0x2000, 0x206F),
    (0x2070, 0x218F), (0x2400, 0x24FF), (0x3040, 0x30FF), (0x3130, 0x318F), (0x4E00, 0x9FFF),
    (0xA000, 0xA48F), (0xAC00, 0xD7A3), (0xFB00, 0xFDFF), (0x10300, 0x1034F),
    (0x1D400, 0x1D7FF), (0x1F100, 0x1F1FF),
)
SPACES = (" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", "\u00a0", "\u3000", "\u2003", "\u200b",
          "\u1680", "\u180e", "\u2028", "\x85", "\x0b", "\x0c", "\ufeff", " \n", "\n ", "    ")
EMOJI = ("\U0001F468\u200d\U0001F469\u200d\U0001F467", "\U0001F3F3\ufe0f\u200d\U0001F308",
         "\U0001F44B\U0001F3FD", "\u2764\ufe0f\u200d\U0001F525", "\U0001F1E9\U0001F1EA", "1\ufe0f\u20e3",
         "\U0001F600", "\U0001F9D1\U0001F3FF\u200d\U0001F680", "\u263a", "\U0001FAE0")
WORDS = ("don't", "I'LL", "we'Ve", "it'\u017f", "x86_64", "3.14159", "1,234,567", "0x7fff", "caf\u00e9",
         "cafe\u0301", "na\u00efve", "\u00bd", "\u2168", "\u0663\u0664", "\ufb01n", "\u2460", "A\u030a", "\u212b", "\u1e9e", "STRASSE",
         "\u0130stanbul", "\u0131", "<0x41>", "<unk>", "<s>", "</s>", "\u2581", "\u2581\u2581x", "a\u2581b", "\u0120", "__init__",
         "http://a.b/c?d=e&f#g", "\\n", "{{x}}", "--flag=value", "#include", "\u20ac100", "(a)", "...", "?!")


def assigned(first, last):
    return [chr(c) for c in range(first, last + 1)
            if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]


class Maker:
    def __init__(self, seed, specials):
        self.random = random.Random(seed)
        self.blocks = [assigned(*s) for s in SCRIPTS]
        self.texts = [p.read_text(encoding="utf-8") for p in sorted(TEXT.glob("*.txt"))]
        self.specials = list(specials) or ["<x>"]

    def prose(self):
        text = self.random.choice(self.texts)
        at = self.random.randrange(len(text))
        return text[at:at + self.random.choice((8, 30, 120, 400))]

    def script(self):
        block = self.random.choice(self.blocks)
        n = self.random.randint(1, 24)
        return "".join(self.random.choice(block if self.random.random() < 0.85 else SPACES)
                       for _ in range(n))

    def control(self):
        return "".join(chr(self.random.choice((self.random.randrange(32), 127 + self.random.randrange(34),
                                               self.random.randrange(33, 127))))
                       for _ in range(self.random.randint(1, 12)))

    def broken(self):
        data = self.random.randbytes(self.random.randint(1, 24))
        if self.random.random() < 0.5:  # text cut in the middle of characters
            whole = (self.script() + self.random.choice(EMOJI)).encode()
            at = self.random.randrange(len(whole))
            data = whole[at:] + data[:2] + whole[:at]
        return data.decode("utf-8", errors="replace")

    def special(self):
        around = ("", " ", "  ", "\n", "a", "\u00e9", "_", "\u00a0", ".")
        return (self.random.choice(around) + self.random.choice(self.specials) +
                self.random.choice(around))

    def anywhere(self):
        out = []
        while len(out) < 6:
            c = chr(self.random.randrange(0x110000))
            if unicodedata.category(c) not in ("Cn", "Cs", "Co"):
                out.append(c)
        return "".join(out)

    def piece(self):
        kinds = ((self.prose, 8), (self.script, 6), (self.special, 4), (self.control, 1),
                 (self.broken, 2), (self.anywhere, 1),
                 (lambda: self.random.choice(EMOJI), 2), (lambda: self.random.choice(WORDS), 5),
                 (lambda: self.random.choice(SPACES) * self.random.randint(1, 9), 4))
        return self.random.choices([k for k, _ in kinds], [w for _, w in kinds])[0]()

    def string(self):
        sep = self.random.choice(("", "", " "))
        return sep.join(self.piece() for _ in range(self.random.randint(1, 8)))


FIXED = ["", " ", "a", "  a", "\n", "\0", "\0a\0", "Hello, world!", "x" * 300, " " * 200, "\n" * 70,
         "ab" * 200, "1" * 120, "\u65e5\u672c\u8a9e" * 40, "\u2581" * 60, "don't" * 30, "\ud7a3" * 50, "e\u0301" * 90]


def strings(count, seed, specials):
    """count strings without lone surrogates; the first ones are fixed."""
    maker = Maker(seed, specials)
    fixed = FIXED + [s + " x" for s in specials][:40] + [" " + s for s in specials][:40]
    out = fixed[:count]
    while len(out) < count:
        out.append(maker.string())
    return out
