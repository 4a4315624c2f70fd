#!/usr/bin/env python3
"""Where tokenizers' Unicode tables are older than Python's: the lists of tok_unicode.c.

Prints ranges of code points
    forms  that have a combining class or a decomposition which NFD and NFKD there ignore
    punct  that are P* but which Punctuation there does not split off, and the reverse
    nonspacing, marks, controls
           that are Mn, M* or Cc, Cf but which BertNormalizer, StripAccents or clean_text
           there keep; a range may span characters of other classes.  And the reverse
Characters unassigned in Python's Unicode (14 in 3.11, 15 in 3.12) cannot be told.

    python3 tools/oracle/tok_unicode.py
"""
import sys
import unicodedata

import tokenizers
from tokenizers import normalizers, pre_tokenizers

NFD, NFKD, PUNCT = normalizers.NFD(), normalizers.NFKD(), pre_tokenizers.Punctuation()


def ordered(c):
    """Whether canonical ordering moves c: behind class 1 or before class 240."""
    return (NFD.normalize_str(c + "\u0334") == "\u0334" + c or
            NFD.normalize_str("\u0345" + c) == c + "\u0345")


def newer_form(c):
    if any(f.normalize_str(c) != unicodedata.normalize(n, c)
           for n, f in (("NFD", NFD), ("NFKD", NFKD))):
        return True
    if len(NFD.normalize_str(c)) > 1 or NFD.normalize_str(c) != c:
        return False
    return ordered(c) != (unicodedata.combining(c) > 0)


def punct_differs(c):
    split = len(PUNCT.pre_tokenize_str("a" + c + "a")) == 3
    return ord(c) > 127 and split != unicodedata.category(c).startswith("P")


BERT = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
DROPS = {
    "nonspacing": (normalizers.BertNormalizer(**BERT | {"strip_accents": True}), ("Mn",)),
    "marks": (normalizers.StripAccents(), ("Mn", "Mc", "Me")),
    "controls": (normalizers.BertNormalizer(**BERT | {"clean_text": True}), ("Cc", "Cf", "Co"))}


def kept(points, normalizer, categories):
    """Ranges of what is kept though it is of the categories; what is dropped though not."""
    out, dropped, fresh = [], [], True
    for c in points:
        gone = normalizer.normalize_str("a" + c + "a") == "aa"
        if gone and unicodedata.category(c) not in categories:
            dropped.append(ord(c))
        if unicodedata.category(c) not in categories:
            continue
        if gone:
            fresh = True
        elif fresh:
            out.append([ord(c), ord(c)])
            fresh = False
        else:
            out[-1][1] = ord(c)
    return " ".join(f"{a:04X}-{b:04X}" for a, b in out), ranges(dropped)


def ranges(points):
    out = []
    for p in points:
        if out and out[-1][1] == p - 1:
            out[-1][1] = p
        else:
            out.append([p, p])
    return " ".join(f"{a:04X}" if a == b else f"{a:04X}-{b:04X}" for a, b in out)


def main():
    points = [chr(p) for p in range(0x110000) if not 0xD800 <= p < 0xE000]
    points = [c for c in points if unicodedata.category(c) != "Cn"]
    print(f"tokenizers {tokenizers.__version__}, Unicode {unicodedata.unidata_version}")
    print("forms", ranges([ord(c) for c in points if newer_form(c)]))
    print("punct", ranges([ord(c) for c in points if punct_differs(c)]))
    for name, (normalizer, categories) in DROPS.items():
        print(name, *kept(points, normalizer, categories), sep="; ")


if __name__ == "__main__":
    sys.exit(main())
