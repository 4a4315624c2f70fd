"""Small tokenizers trained on src/data/text, in the shapes of real ones.

    phi3    SentencePiece BPE with byte fallback as Phi-3's file has it: Prepend and Replace
            normalizers, no pre-tokenizer, added tokens with rstrip, Replace / ByteFallback /
            Fuse / Strip decoder, BOS by template
    llama3  byte level behind Llama 3's regular expression, ignore_merges, NFC, added tokens
            of all flags, a Sequence of post-processors
    meta    Metaspace (prepend_scheme first) over NFKC, Lowercase and Strip, digits and
            punctuation apart, fused unknowns, no byte fallback
    gpt2    plain ByteLevel with add_prefix_space and its regular expression
    bert    WordPiece behind BertNormalizer and BertPreTokenizer, BertProcessing
    t5      Unigram with an unknown piece over a Precompiled charsmap of sentencepiece,
            WhitespaceSplit and Metaspace; ends with </s>
    bytes   Unigram with byte fallback, text as one word: StripAccents, Replace
    words   WordLevel over Whitespace, RobertaProcessing, no decoder

build(name, pieces) is a dict in tokenizer.json's form.
"""
import base64
import io
import json
import tempfile

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from tok_strings import TEXT

LLAMA3 = ("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
          " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")


def added(token_id, content, **flags):
    base = {"id": token_id, "content": content, "single_word": False, "lstrip": False,
            "rstrip": False, "normalized": False, "special": True}
    return base | flags


# Rewritten by the charsmap: one to one, one to many, many to one (a grapheme), to nothing.
RULES = {"\uff21": "A", "\uff22": "B", "\ufb01": "fi", "e\u0301": "\u00e9", "\u00a0": " ", "\t": " ", "\n": " ",
         "\u3000": " ", "\u200b": "", "\x7f": "", "\u2460": "1", "\u00bd": "1/2", "\u0130": "i\u0307", "A\u030a": "\u00c5",
         "\u1100\u1161": "\uac00", "\ufdfa": "\u0635\u0644\u0649"}


def texts():
    return [p.read_text(encoding="utf-8") for p in sorted(TEXT.glob("*.txt"))]


def charsmap(small):
    """RULES as sentencepiece compiles them, or all of its nmt_nfkc, as T5 has it (300 KB)."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2
    made = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as file:
        for rule in RULES.items():
            file.write("{}\t{}\n".format(*(" ".join(f"{ord(c):X}" for c in side) for side in rule)))
        file.flush()
        which = {"normalization_rule_tsv": file.name} if small else {"normalization_rule_name": "nmt_nfkc"}
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["a b"] * 10), model_writer=made, vocab_size=8, minloglevel=2,
            hard_vocab_limit=False, **which)
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(made.getvalue())
    return base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode()


def train(pieces, pre, specials, alphabet, normalizer=None):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=pieces, special_tokens=specials, show_progress=False,
                                  initial_alphabet=alphabet, limit_alphabet=len(alphabet) or 1000)
    tokenizer.train_from_iterator(texts(), trainer)
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


def shorten(vocab):
    """Scores with five digits: small files, and ties, which the first way wins."""
    return [[piece, round(score, 5)] for piece, score in vocab]


def unigram(pieces, pre, specials, normalizer):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre
    tokenizer.normalizer = normalizer
    trainer = trainers.UnigramTrainer(vocab_size=pieces, special_tokens=specials, show_progress=False,
                                      unk_token="<unk>", max_piece_length=8)
    lines = [line for t in texts() for line in t.split("\n")]
    few = [line for line in lines if all(c < "\u007f" or c in "\u00e9\u2014" for c in line)]
    tokenizer.train_from_iterator(lines if pieces > 2000 else few, trainer)
    return json.loads(tokenizer.to_str())["model"]


def bert(pieces):
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=40))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    chars = [chr(c) for c in range(33, 65)] + [chr(c) for c in range(91, 127)] + ["\u00e6", "\u0434", "\u4e00", "\u5b57"]
    tokenizer.train_from_iterator(texts(), trainers.WordPieceTrainer(
        vocab_size=pieces, special_tokens=specials, show_progress=False, initial_alphabet=chars,
        limit_alphabet=len(chars)))
    model = json.loads(tokenizer.to_str())["model"]
    ids = model["vocab"]
    tokens = [added(ids[s], s, lstrip=s == "[MASK]") for s in specials]
    return {"normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                           "strip_accents": None, "lowercase": True},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", ids["[SEP]"]], "cls": ["[CLS]", ids["[CLS]"]]},
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
            "added_tokens": tokens, "model": model}


def t5(pieces, small=True):
    model = unigram(pieces, pre_tokenizers.Metaspace(prepend_scheme="always"), ["<pad>", "</s>", "<unk>"], normalizers.NFKC())
    model["vocab"] = shorten(model["vocab"])
    ids = {piece: i for i, (piece, _) in enumerate(model["vocab"])}
    tokens = [added(ids[s], s) for s in ("<pad>", "</s>", "<unk>")]
    tokens += [added(len(ids) + i, f"<extra_id_{i}>") for i in range(2)]
    mark = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    return {"normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Precompiled", "precompiled_charsmap": charsmap(small)},
                {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, mark]},
            "post_processor": {"type": "TemplateProcessing",
                               "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                               "pair": [], "special_tokens": {"</s>": {"id": "</s>", "ids": [ids["</s>"]], "tokens": ["</s>"]}}},
            "decoder": mark, "added_tokens": tokens, "model": model}


def unigram_bytes(pieces):
    specials = ["<pad>", "<eos>", "<bos>", "<unk>"] + [f"<0x{b:02X}>" for b in range(256)]
    model = unigram(pieces, pre_tokenizers.Metaspace(prepend_scheme="never"), specials, normalizers.StripAccents())
    model["vocab"] = shorten(model["vocab"])
    model["byte_fallback"] = True
    return {"normalizer": {"type": "Sequence", "normalizers": [
                {"type": "StripAccents"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
            "pre_tokenizer": None, "post_processor": template(["<bos>"], [2]),
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"}]},
            "added_tokens": [added(i, s) for i, s in enumerate(specials[:4])], "model": model}


def words(pieces):
    specials = ["<s>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(texts(), trainers.WordLevelTrainer(
        vocab_size=pieces, special_tokens=specials, show_progress=False))
    return {"normalizer": {"type": "BertNormalizer", "clean_text": False, "handle_chinese_chars": True,
                           "strip_accents": True, "lowercase": False},
            "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 1], "cls": ["<s>", 0],
                               "trim_offsets": True, "add_prefix_space": False},
            "decoder": None, "added_tokens": [added(i, s) for i, s in enumerate(specials)],
            "model": json.loads(tokenizer.to_str())["model"]}


def t5_nfkc(pieces):
    return t5(pieces, small=False)


BUILDERS = {"phi3": phi3, "llama3": llama3, "meta": meta, "gpt2": gpt2, "bert": bert, "t5": t5, "bytes": unigram_bytes,
            "words": words, "t5-nfkc": t5_nfkc}


def build(name, pieces):
    made = BUILDERS[name](pieces)
    if made["model"]["type"] == "BPE":
        for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
            made["model"].setdefault(key, None)
    return {"version": "1.0", "truncation": None, "padding": None} | made
