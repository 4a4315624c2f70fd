#!/usr/bin/env python3
"""drupe's tokenizer against Hugging Face's on many strings: ids, decoding, streaming.

    tok_compare.py DRIVER [--count 10000] [--seed 1] [--pieces 8000] [FOLDER ...]
    tok_compare.py DRIVER --characters

DRIVER is build/tests/unit/tok/tok_driver.  FOLDERs hold a tokenizer.json; without any, the
packaged GGUF models of DRUPE_TEST_MODELS are converted by transformers (kept below
/tmp/drupe-tok) and the shapes of tok_models.py are trained with that many pieces.  Each is
compared with and without special tokens.  --characters sends every character of Python's
Unicode, between letters, through each normalizer and pre-tokenizer that has classes.  The
exit code is 1 when anything differs.  Not part of CI: the packaged models are not there.
"""
import argparse
import json
import os
import pathlib
import struct
import subprocess
import sys
import unicodedata

import tokenizers

import tok_models
from tok_strings import strings

KEEP = pathlib.Path("/tmp/drupe-tok")
GGUF = pathlib.Path(os.environ.get("DRUPE_TEST_MODELS", ".deps/models"))


def folders(pieces):
    """The packaged models' tokenizers and the trained ones, made when they are absent."""
    out = []
    for name in ("smollm2-135m", "qwen2.5-coder-0.5b", "gemma3-270m"):
        folder = KEEP / name
        if not (folder / "tokenizer.json").exists():
            if not (GGUF / f"{name}.gguf").exists():
                print(f"skipped: no {name}.gguf")
                continue
            import transformers
            made = transformers.AutoTokenizer.from_pretrained(GGUF, gguf_file=f"{name}.gguf")
            made.save_pretrained(folder)
        out.append(folder)
    for name in tok_models.BUILDERS:
        folder = KEEP / f"{name}-{pieces}"
        if not (folder / "tokenizer.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            made = tok_models.build(name, pieces)
            (folder / "tokenizer.json").write_text(json.dumps(made, ensure_ascii=False))
        out.append(folder)
    return out


class Records:
    def __init__(self, data):
        self.data, self.at = data, 0

    def number(self):
        self.at += 4
        return struct.unpack_from("=I", self.data, self.at - 4)[0]

    def ids(self):
        n = self.number()
        self.at += 4 * n
        return list(struct.unpack_from(f"={n}i", self.data, self.at - 4 * n))

    def text(self):
        n = self.number()
        self.at += n
        return self.data[self.at - n:self.at].decode("utf-8")


def compare(driver, folder, texts, special):
    hf = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    hf.no_padding()  # as transformers: only what a call asks for counts
    hf.no_truncation()
    data = b"".join(struct.pack("=I", len(t.encode())) + t.encode() for t in texts)
    mode = ["compare", "special"] if special else ["compare"]
    run = subprocess.run([driver, folder, *mode], input=data, stdout=subprocess.PIPE, check=False)
    if run.returncode != 0:
        return [f"the driver failed with {run.returncode}"]
    got, bad = Records(run.stdout), []
    for text in texts:
        want = hf.encode(text, add_special_tokens=special).ids
        ids = got.ids()
        if ids != want:
            bad.append(f"ids of {text!r}:\n    hf    {want}\n    drupe {ids}")
        for skip in (False, True):
            shown, decoded = got.text(), hf.decode(ids, skip_special_tokens=skip)
            if shown != decoded:
                bad.append(f"decoding {ids} (skip {skip}):\n    hf    {decoded!r}\n    drupe {shown!r}")
    return bad


CLASSES = {
    "bert": ({"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": True,
              "lowercase": True}, {"type": "BertPreTokenizer"}),
    "accents": ({"type": "StripAccents"}, {"type": "WhitespaceSplit"}),
    "lower": ({"type": "Lowercase"}, {"type": "Punctuation", "behavior": "Isolated"}),
    "nfkc": ({"type": "NFKC"}, {"type": "Digits", "individual_digits": True}),
    "nfd": ({"type": "NFD"}, {"type": "Whitespace"})}


def characters(driver):
    """Bytes as pieces and nothing merged: ids tell the normalized text."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    texts = [f"a{chr(c)}e{chr(c)}" for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs")]
    failed = False
    charsmap = {"type": "Precompiled", "precompiled_charsmap": tok_models.charsmap(False)}
    for name, (normalizer, pre) in (CLASSES | {"charsmap": (charsmap, {"type": "WhitespaceSplit"})}).items():
        vocab = {c: i for i, c in enumerate(alphabet + ["|"])}
        spec = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": normalizer,
                "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                    pre, {"type": "ByteLevel"} | level | {"add_prefix_space": True}]},
                "post_processor": None, "decoder": level,
                "model": {"type": "BPE", "vocab": vocab, "merges": []}}
        folder = KEEP / f"class-{name}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").write_text(json.dumps(spec))
        bad = compare(driver, folder, texts, False)
        failed |= bool(bad)
        print(f"{name}: {len(bad)} of {len(texts)} differ")
        for line in bad[:40]:
            print("  " + line[:300])
    return failed


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("driver")
    args.add_argument("folders", nargs="*", type=pathlib.Path)
    args.add_argument("--count", type=int, default=10000)
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--pieces", type=int, default=8000)
    args.add_argument("--characters", action="store_true")
    a = args.parse_intermixed_args()
    if a.characters:
        return characters(a.driver)
    failed = False
    print(f"tokenizers {tokenizers.__version__}, {a.count} strings, seed {a.seed}")
    for folder in a.folders or folders(a.pieces):
        spec = json.loads((folder / "tokenizer.json").read_text())
        specials = [t["content"] for t in spec["added_tokens"]]
        texts = strings(a.count, a.seed, specials)
        for special in (False, True):
            bad = compare(a.driver, folder, texts, special)
            failed |= bool(bad)
            print(f"{folder.name}, special tokens {special}: {len(bad)} differ")
            for line in bad[:5]:
                print("  " + line[:1500])
    return failed


if __name__ == "__main__":
    sys.exit(main())
