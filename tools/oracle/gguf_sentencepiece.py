#!/usr/bin/env python3
"""The SentencePiece model that a GGUF file's vocabulary came from, for gguf_tokenizer_check.

    python3 tools/oracle/gguf_sentencepiece.py FILE.gguf OUT.model

Pieces, scores and types are the file's.  Converters write the blanks of user-defined pieces
as spaces; here they are SentencePiece's again.
"""
import sys

from gguf import GGUFReader
from sentencepiece import sentencepiece_model_pb2 as sp

fields = GGUFReader(sys.argv[1]).fields


def value(name, default=None):
    return fields[name].contents() if name in fields else default


assert value("tokenizer.ggml.model") == "llama"
tokens, scores, types = (value(f"tokenizer.ggml.{k}") for k in ("tokens", "scores", "token_type"))
model = sp.ModelProto()
kinds = {1: "NORMAL", 2: "UNKNOWN", 3: "CONTROL", 4: "USER_DEFINED", 5: "UNUSED", 6: "BYTE"}
unknown = value("tokenizer.ggml.unknown_token_id", 0)
for i, (text, score, kind) in enumerate(zip(tokens, scores, types)):
    kind = 2 if i == unknown else kind
    text = text.replace(" ", "\u2581") if kind == 4 else text
    model.pieces.add(piece=text, score=score,
                     type=getattr(sp.ModelProto.SentencePiece, kinds[kind]))
model.trainer_spec.model_type = sp.TrainerSpec.BPE
model.trainer_spec.byte_fallback = True
model.trainer_spec.vocab_size = len(tokens)
for key in ("unk", "bos", "eos", "pad"):
    name = {"unk": "unknown", "pad": "padding"}.get(key, key)
    setattr(model.trainer_spec, f"{key}_id", value(f"tokenizer.ggml.{name}_token_id", -1))
    if getattr(model.trainer_spec, f"{key}_id") >= 0:
        setattr(model.trainer_spec, f"{key}_piece",
                tokens[getattr(model.trainer_spec, f"{key}_id")])
model.normalizer_spec.name = "identity"
model.normalizer_spec.add_dummy_prefix = value("tokenizer.ggml.add_space_prefix", True)
model.normalizer_spec.remove_extra_whitespaces = False
model.normalizer_spec.escape_whitespaces = True
with open(sys.argv[2], "wb") as out:
    out.write(model.SerializeToString())
