#!/usr/bin/env python3
"""Blocks of every GGUF tensor type that drupe reads, with the floats they stand for.

tests/golden/hf/gguf_blocks.json
    types: [{name, number, blocks (hex), floats (hex of little-endian float32)}], 512
           elements each: random codes, scales of all kinds (tiny, negative, zero, large)
    models: {file: {tensor: sha256 of its float32 bytes as transformers reads it}}, first
           1024 rows of the embedding; only for the packaged models found below MODELS
    versions, seed

The floats are gguf.quants.dequantize's; drupe must equal them bit for bit.

    python3 tools/oracle/gguf_goldens.py [MODELS]
"""
import hashlib
import json
import pathlib
import sys
from importlib import metadata

import gguf
import numpy as np

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/hf/gguf_blocks.json"
SEED, COUNT = 20240611, 512
# type -> byte offsets of the half-precision scales within a block
SCALES = {
    "F32": (), "F16": (), "BF16": (), "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,),
    "Q5_1": (0, 2), "Q8_0": (0,), "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2),
    "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,), "IQ4_XS": (0,),
}
SPECIAL = [0.0, -0.0, 6e-8, -3e-5, 1.0, -2.5, 0.0123, 60000.0]
TENSORS = {
    "model.embed_tokens.weight": 1024, "model.norm.weight": None,
    "model.layers.0.self_attn.q_proj.weight": None,
    "model.layers.0.self_attn.k_proj.weight": None,
    "model.layers.1.mlp.down_proj.weight": None,
    "model.layers.17.self_attn.v_proj.weight": None,
}
FILES = ("smollm2-135m.gguf", "qwen2.5-coder-0.5b.gguf")


def blocks_of(name, rng):
    kind = gguf.GGMLQuantizationType[name]
    size, width = gguf.GGML_QUANT_SIZES[kind]
    n = COUNT // size
    if name == "F32":
        raw = rng.standard_normal(COUNT).astype(np.float32).view(np.uint8)
    elif name == "F16":
        raw = rng.standard_normal(COUNT).astype(np.float16).view(np.uint8)
    elif name == "BF16":
        raw = (rng.standard_normal(COUNT).astype(np.float32).view(np.uint32) >> 16)
        raw = raw.astype(np.uint16).view(np.uint8)
    else:
        raw = rng.integers(0, 256, (n, width), dtype=np.uint8)
        for at in SCALES[name]:
            d = (rng.standard_normal(n) * 0.02).astype(np.float16)
            d[: min(n, len(SPECIAL))] = np.array(SPECIAL, np.float16)[:n]
            raw[:, at : at + 2] = d.view(np.uint8).reshape(n, 2)
    raw = np.ascontiguousarray(raw).reshape(-1)
    floats = gguf.quants.dequantize(raw.reshape(1, -1), kind)
    return int(kind), raw, np.asarray(floats, np.float32).reshape(-1)


def model_hashes(path):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32)
    state = model.state_dict()
    return {
        name: hashlib.sha256(state[name][:rows].contiguous().numpy().tobytes()).hexdigest()
        for name, rows in TENSORS.items()
    }


def main():
    rng = np.random.default_rng(SEED)
    types = []
    for name in SCALES:
        number, raw, floats = blocks_of(name, rng)
        assert floats.size == COUNT and np.isfinite(floats).all(), name
        types.append({"name": name, "number": number, "blocks": raw.tobytes().hex(),
                      "floats": floats.astype("<f4").tobytes().hex()})
    models = {}
    for name in FILES if len(sys.argv) > 1 else ():
        path = pathlib.Path(sys.argv[1]) / name
        if path.exists():
            models[name] = model_hashes(path)
    versions = {"numpy": np.__version__, "gguf": metadata.version("gguf")}
    if models:
        versions["transformers"] = __import__("transformers").__version__
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(
        {"versions": versions, "seed": SEED, "types": types, "models": models}, indent=1) + "\n")


main()
