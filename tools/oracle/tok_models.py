"""Small tokenizers trained on src/data/text, in the shapes of real ones.

    phi3    SentencePiece BPE with byte fallback as Phi-3's file has it: Prepend and Replace
            normalizers, no pre-tokenizer, added tokens with rstrip, Replace / ByteFallback /
            Fuse / Strip decoder, BOS by template
    llama3  byte level behind Llama 3's regular expression, ignore_merges, NFC, added tokens
            of all flags, a Sequence of post-processors
    meta    Metaspace (prepend_scheme first) over NFKC, Lowercase and Strip, digits and
            punctuation apart, fused unknowns, no byte fallback
    gpt2    plain ByteLevel with add_prefix_space and its regular expression

build(name, pieces) is a dict in tokenizer.json's form.
"""
import json

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from tok_strings import TEXT

LLAMA3 = ("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
          " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")


def added(token_id, content, **flags):
    base = {"id": token_id, "content": content, "single_word": False, "lstrip": False,
            "rstrip": False, "normalized": False, "special": True}
    return base | flags


def train(pieces, pre, specials, alphabet, normalizer=None):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=pieces, special_tokens=specials, show_progress=False,
                                  initial_alphabet=alphabet, limit_alphabet=len(alphabet) or 1000)
    texts = [p.read_text(encoding="utf-8") for p in sorted(TEXT.glob("*.txt"))]
    tokenizer.train_from_iterator(texts, trainer)
    return json.loads(tokenizer.to_str())["model"]


def template(before, ids):
    return {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": b, "type_id": 0}} for b in before] +
                      [{"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {b: {"id": b, "ids": [i], "tokens": [b]} for b, i in zip(before, ids)}}


def phi3(pieces):
    specials = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    chars = [chr(c) for c in range(33, 127)] + ["\u2581", "\u00e9", "\u0430", "\u3002"]
    model = train(pieces, pre_tokenizers.Metaspace(prepend_scheme="always"), specials, chars)
    assert "\n" not in model["vocab"]  # a newline is <0x0A>, as in Phi-3
    n = len(model["vocab"])
    model |= {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}
    tokens = [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>", rstrip=True)]
    names = ["<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|system|>", "<|end|>", "<|user|>"]
    tokens += [added(n + i, name, rstrip=name != "<|endoftext|>") for i, name in enumerate(names)]
    return {"normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "\u2581"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
            "pre_tokenizer": None, "post_processor": template(["<s>"], [1]),
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "added_tokens": tokens, "model": model}


def llama3(pieces):
    pre = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    model = train(pieces, pre, [], pre_tokenizers.ByteLevel.alphabet())
    n = len(model["vocab"])
    model |= {"ignore_merges": True, "unk_token": None}
    model["vocab"]["\u0120zebra"] = n  # no merges lead here: only ignore_merges finds it
    n += 1
    tokens = [added(n, "<|begin_of_text|>"), added(n + 1, "<|eot_id|>"),
              added(n + 2, "<left>", lstrip=True), added(n + 3, "<right>", rstrip=True),
              added(n + 4, "<both>", lstrip=True, rstrip=True, special=False),
              added(n + 5, "word", single_word=True, special=False),
              added(n + 6, "caf\u00e9", normalized=True, special=False),
              added(n + 7, "cafe\u0301s", normalized=True, special=True),
              added(n + 8, "<|eot"), added(n + 9, " <b>"), added(n + 10, "\n\n\n", special=False)]
    return {"normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]},
            "post_processor": {"type": "Sequence", "processors": [
                {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
                template(["<|begin_of_text|>"], [n])]},
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "added_tokens": tokens, "model": model}


def meta(pieces):
    normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    pre = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(prepend_scheme="first"),
                                   pre_tokenizers.Digits(individual_digits=True),
                                   pre_tokenizers.Punctuation()])
    chars = [chr(c) for c in range(33, 127)] + ["\u00e9", "\u0394", "\u2581"]
    model = train(pieces, pre, ["<unk>", "<s>"], chars, normalizer)
    n = len(model["vocab"])
    model |= {"unk_token": "<unk>", "fuse_unk": True}
    tokens = [added(0, "<unk>"), added(1, "<s>"), added(n, "<SEP>", normalized=True),
              added(n + 1, "the end", normalized=True, special=False, single_word=True)]
    return {"normalizer": {"type": "Sequence", "normalizers": [
                {"type": "NFKC"}, {"type": "Lowercase"},
                {"type": "Strip", "strip_left": True, "strip_right": True}]},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True},
                {"type": "Digits", "individual_digits": True},
                {"type": "Punctuation", "behavior": "Isolated"}]},
            "post_processor": None,
            "decoder": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True},
            "added_tokens": tokens, "model": model}


def gpt2(pieces):
    pre = pre_tokenizers.ByteLevel(add_prefix_space=True)
    model = train(pieces, pre, ["<|endoftext|>"], pre_tokenizers.ByteLevel.alphabet())
    level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    return {"normalizer": None, "pre_tokenizer": level, "post_processor": level, "decoder": level,
            "added_tokens": [added(0, "<|endoftext|>")], "model": model}


def build(name, pieces):
    made = {"phi3": phi3, "llama3": llama3, "meta": meta, "gpt2": gpt2}[name](pieces)
    for key, value in (("dropout", None), ("continuing_subword_prefix", None), ("end_of_word_suffix", None)):
        made["model"].setdefault(key, value)
    return {"version": "1.0", "truncation": None, "padding": None} | made
