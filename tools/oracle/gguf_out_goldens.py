#!/usr/bin/env python3
"""Floats and the blocks that they are quantized to, for tests/unit/hf/gguf_out_test.c; and
a look at a GGUF file that drupe wrote.

tests/golden/hf/gguf_quantized.json
    floats: hex of little-endian float32, 512 of them: normal ones of several sizes, rows
            of zeros and of one value, ties
    types:  {name: hex of the blocks that gguf.quants.quantize makes of them}

    python3 tools/oracle/gguf_out_goldens.py
    python3 tools/oracle/gguf_out_goldens.py FILE.gguf SOURCE
        reads FILE with the package gguf and SOURCE (a folder of safetensors, or a GGUF of
        the same family) with transformers, and compares all tensors and the tokens
"""
import json
import pathlib
import sys
from importlib import metadata

import gguf
import numpy as np

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/hf/gguf_quantized.json"
SEED, COUNT = 20240615, 512


def golden():
    rng = np.random.default_rng(SEED)
    x = rng.standard_normal(COUNT).astype(np.float32)
    x[64:128] *= 1e-3
    x[128:192] *= 300
    x[192:224] = 0
    x[224:256] = 0.75
    x[256:288] = -0.75
    x[288:320] = np.arange(32, dtype=np.float32) - 16
    x[320:352] = (np.arange(32, dtype=np.float32) - 15) / 2
    x[352] = 100.0
    types = {}
    for name in ("F16", "BF16", "Q8_0", "Q4_0", "Q4_1"):
        kind = gguf.GGMLQuantizationType[name]
        types[name] = gguf.quants.quantize(x.reshape(1, -1), kind).tobytes().hex()
    OUT.write_text(json.dumps(
        {"versions": {"numpy": np.__version__, "gguf": metadata.version("gguf")},
         "seed": SEED, "floats": x.astype("<f4").tobytes().hex(), "types": types},
        indent=1) + "\n")


def check(path, source):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    reader = gguf.GGUFReader(path)
    for key in sorted(reader.fields):
        field = reader.fields[key]
        value = field.contents() if len(field.data) < 16 else f"[{len(field.data)}]"
        print(f"  {key} = {str(value)[:70]!r}")
    source = pathlib.Path(source)
    kwargs = {"gguf_file": source.name} if source.suffix == ".gguf" else {}
    folder = source.parent if kwargs else source
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **kwargs)
    state, config = model.state_dict(), model.config
    arch = reader.fields["general.architecture"].contents()
    names = gguf.get_tensor_name_map(
        {v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[arch], config.num_hidden_layers)
    worst, seen = {}, 0
    for t in reader.tensors:
        if t.name.startswith("rope_"):
            continue
        seen += 1
        got = gguf.quants.dequantize(t.data, t.tensor_type)
        hf = next(n for n in state if names.get_name(n, (".weight", ".bias")) == t.name)
        want = state[hf].numpy()
        if arch == "llama" and (".attn_q." in t.name or ".attn_k." in t.name):
            heads = (config.num_attention_heads if ".attn_q." in t.name
                     else config.num_key_value_heads)
            want = want.reshape(heads, 2, want.shape[0] // heads // 2,
                                *want.shape[1:]).swapaxes(1, 2).reshape(want.shape)
        error = float(np.abs(got.reshape(want.shape) - want).max())
        kind = t.tensor_type.name
        worst[kind] = max(worst.get(kind, 0.0), error / float(np.abs(want).max() + 1e-9))
    print(f"{seen} tensors; largest error over largest value by type: {worst}")
    tied = config.tie_word_embeddings
    wanted = sum(1 for n in state if not (tied and n == "lm_head.weight"))
    assert seen == wanted, (seen, wanted)
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    tokenizer = AutoTokenizer.from_pretrained(folder, **kwargs)
    vocab = {i: t for t, i in tokenizer.get_vocab().items()}
    bad = [i for i, t in enumerate(tokens) if i in vocab and vocab[i] != t]
    assert not bad, bad[:5]
    print(f"{len(tokens)} tokens as transformers has them")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        check(*sys.argv[1:3])
    else:
        golden()
