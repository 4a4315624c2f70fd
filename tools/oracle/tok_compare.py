#!/usr/bin/env python3
"""drupe's tokenizer against Hugging Face's on many strings: ids, decoding, streaming.

    tok_compare.py DRIVER [--count 10000] [--seed 1] [--pieces 8000] [FOLDER ...]
    tok_compare.py DRIVER --characters
    tok_compare.py DRIVER --steps N [--seed 1]

DRIVER is build/tests/unit/tok/tok_driver.  FOLDERs hold a tokenizer.json; without any, the
packaged GGUF models of DRUPE_TEST_MODELS are converted by transformers (kept below
/tmp/drupe-tok) and the shapes of tok_models.py are trained with that many pieces.  Each is
compared with and without special tokens.  --characters sends every character of Python's
Unicode, between letters, through each normalizer and pre-tokenizer that has classes.
--steps draws N rows of normalizers and pre-tokenizers, with 700 strings for each.  The exit
code is 1 when anything differs.  Not part of CI: the packaged models are not there.
"""
import argparse
import json
import os
import pathlib
import random
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


def spelled(name, normalizers, pre, space, added):
    """A folder whose pieces are bytes, with nothing merged: ids tell the text that came through."""
    level = {"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": True, "use_regex": False}
    vocab = {c: i for i, c in enumerate(sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()))}
    spec = {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [tok_models.added(len(vocab) + i, *a[:1], **a[1]) for i, a in enumerate(added)],
            "normalizer": {"type": "Sequence", "normalizers": normalizers},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": pre + [level]},
            "post_processor": None, "decoder": level, "model": {"type": "BPE", "vocab": vocab, "merges": []}}
    folder = KEEP / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    return folder


def steps(driver, count, seed):
    draw, failed = random.Random(seed), False
    normal = [{"type": t} for t in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents")] + [
        {"type": "Precompiled", "precompiled_charsmap": tok_models.charsmap(small)} for small in (True, False)] + [
        {"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "Prepend", "prepend": "_"}, CLASSES["bert"][0],
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
        {"type": "Replace", "pattern": {"String": "a"}, "content": "bb"}]
    cuts = ["Isolated", "Removed", "Contiguous", "MergedWithNext", "MergedWithPrevious"]
    split = [{"type": t} for t in ("WhitespaceSplit", "BertPreTokenizer", "Whitespace")] + [
        {"type": "Digits", "individual_digits": True}, {"type": "CharDelimiterSplit", "delimiter": "a"}] + [
        {"type": "Punctuation", "behavior": b} for b in cuts]
    added = [("<S>", {}), ("xA", {"normalized": True, "special": False}), ("<L>", {"lstrip": True}),
             ("\u00e9B", {"normalized": True, "rstrip": True})]
    for i in range(count):
        mark = {"type": "Metaspace", "replacement": "\u2581", "split": draw.random() < 0.7,
                "prepend_scheme": draw.choice(("first", "first", "always", "never"))}
        row = [draw.choice(normal) for _ in range(draw.randint(1, 4))]
        pre = [draw.choice(split) for _ in range(draw.randint(0, 2))]
        pre.insert(draw.randint(0, len(pre)), mark)
        folder = spelled("steps", row, pre, False, added)
        bad = compare(driver, folder, strings(700, seed * 1000 + i, [a[0] for a in added]), False)
        failed |= bool(bad)
        if bad:
            print(f"{len(bad)} differ: {[n['type'] for n in row]}, {pre}\n  {bad[0][:600]}")
    print(f"{count} rows")
    return failed


def characters(driver):
    texts = [f"a{chr(c)}e{chr(c)}" for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs")]
    failed = False
    charsmap = {"type": "Precompiled", "precompiled_charsmap": tok_models.charsmap(False)}
    for name, (normalizer, pre) in (CLASSES | {"charsmap": (charsmap, {"type": "WhitespaceSplit"})}).items():
        folder = spelled(f"class-{name}", [normalizer], [pre], True, [])
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
    args.add_argument("--steps", type=int)
    a = args.parse_intermixed_args()
    if a.steps:
        return steps(a.driver, a.steps, a.seed)
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
