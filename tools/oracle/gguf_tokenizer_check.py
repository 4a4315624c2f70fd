#!/usr/bin/env python3
"""Compares the tokenizer that drupe rebuilt from a GGUF file with four others.

FOLDER holds tokenizer.json and tokenizer_config.json as drupe wrote them.  Ids on 3000
texts (WikiText lines, code, scripts, spaces, random characters) are compared with
  gguf    transformers' own conversion of FILE
  auto    AutoTokenizer on FOLDER, what users of FOLDER get: must be 0
  sp      (--sp MODEL) the SentencePiece model that FILE was made from: must be 0
  genai   (--genai MODEL) ONNX Runtime GenAI, in a model folder of the same vocabulary,
          whose tokenizer files are replaced

Known and expected, of transformers 5.23: its conversion has no Digits step ("smollm"), no
NFC normalizer ("qwen2"), and no prefix before a leading space (SentencePiece).  Of GenAI
0.18: no NFC, Digits for Nd alone (not for fractions and circled numbers).

    python3 tools/oracle/gguf_tokenizer_check.py FILE FOLDER
"""
import argparse
import pathlib
import random
import shutil
import sys

from tokenizers import Tokenizer

TEXTS = [
    "", " ", "  ", "hello", " hello", "Hello world", "  two  spaces", "tab\ttab",
    "a\nb\n\nc\r\nd", "12345 67 8.90", "don't can't I'll we've HE'S I'M",
    "na\u00efve caf\u00e9", "e\u0301 combining", "\u00c5 A\u030a \ufb01 \u00bd \u2460",
    "\u65e5\u672c\u8a9e \u4e2d\u6587 \ud55c\uad6d\uc5b4", "\u0645\u0631\u062d\u0628\u0627",
    "\u0939\u093f\u0928\u094d\u0926\u0940", "\U0001f642\U0001f468\u200d\U0001f469",
    "def f(x):\n    return x + 1\n\n\n    # comment\n", "<|endoftext|>", "a<|im_end|>b",
    "<|im_start|>user\nhi<|im_end|>\n", "<tool_call>\n{}\n</tool_call>", " <|im_start|> x",
    "http://example.com/a?b=c&d=e#f", "!!!???...---___***", "\u00a0nbsp\u2003em\u200bzw",
    "\ufeffbom", "007", "\u0661\u0662", "\u00b2\u00b3", "\x01\x02\x7f", "   \n   \n",
    "\t\t\t\t", "word" * 50, "[PAD151700]", "\u2581", "a \u2581 b", "\u0120", "\u2028line",
]
RANGES = [(32, 127), (0xA0, 0x250), (0x370, 0x3FF), (0x400, 0x460), (0x4E00, 0x4F00),
          (0x3040, 0x30FF), (0x1F600, 0x1F632)]


def texts(wiki):
    pool = [chr(c) for low, high in RANGES for c in range(low, high)]
    pool += list("\t\n\r    \u0300\u0301\u3000\u2009")
    rng = random.Random(1)
    drawn = ["".join(rng.choice(pool) for _ in range(rng.randint(1, 60)))
             for _ in range(1500)]
    lines = wiki.read_text("utf-8").split("\n")[:1500] if wiki.exists() else []
    return TEXTS + lines + drawn


def compare(name, ours, theirs, all_texts):
    shown = differ = 0
    for text in all_texts:
        a, b = ours(text), theirs(text)
        if a == b:
            continue
        differ += 1
        if shown < 5:
            shown += 1
            print(f"  {name}: {text[:50]!r}\n    drupe {a[:16]}\n    {name} {b[:16]}")
    print(f"{name}: {differ} of {len(all_texts)} texts differ")
    return differ


def genai_encoder(model, folder):
    import onnxruntime_genai as og

    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, model / name)
    tokenizer = og.Tokenizer(og.Model(str(model)))
    return lambda t: [int(i) for i in tokenizer.encode(t)] if t else []


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--sp", type=pathlib.Path)
    parser.add_argument("--genai", type=pathlib.Path)
    parser.add_argument("--wiki", type=pathlib.Path, required=True)
    args = parser.parse_args()
    from transformers import AutoTokenizer

    ours = Tokenizer.from_file(str(args.folder / "tokenizer.json"))
    plain = lambda t: ours.encode(t, add_special_tokens=False).ids
    full = lambda t: ours.encode(t).ids
    all_texts = texts(args.wiki)
    theirs = AutoTokenizer.from_pretrained(args.file.parent, gguf_file=args.file.name)
    compare("gguf", full, lambda t: theirs(t)["input_ids"], all_texts)
    auto = AutoTokenizer.from_pretrained(args.folder)
    bad = compare("auto", full, lambda t: auto(t)["input_ids"], all_texts)
    if args.sp:
        import sentencepiece

        sp = sentencepiece.SentencePieceProcessor(model_file=str(args.sp))
        plain_texts = [t for t in all_texts if "<unk>" not in t]  # no special tokens there
        bad += compare("sp", plain, sp.encode, plain_texts)
    if args.genai:
        compare("genai", plain, genai_encoder(args.genai, args.folder), all_texts)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
