#!/usr/bin/env python3
"""Quantized checkpoints of other tools for tests/unit/hf/quant_format_test.c.

tests/golden/hf/formats/<name>/
    config.json, model.safetensors   a one-layer Llama, its linears quantized
    expected.safetensors             the linears' weights in float32

    ct_group, ct_zeros, ct_channel, ct_mixed   compressed-tensors, packed by that package:
                                     groups of 16; with zero points; a whole row; two config
                                     groups (down_proj in 8 bits) and an ignored module
    nf4, nf4_double, fp4             bitsandbytes, quantized by that package
    gptq_act                         GPTQ with desc_act, packed here by AutoGPTQ's formulas

    python3 tools/oracle/quant_format_goldens.py
        (torch, compressed-tensors, bitsandbytes; after hf_goldens.py)
"""
import hashlib
import json
import pathlib
import shutil
from importlib import metadata

import bitsandbytes.functional as bnb
import numpy as np
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig
from compressed_tensors.quantization import QuantizationScheme
from safetensors.torch import load_file, save_file

HF = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "hf"
ROOT = HF / "formats"
SEED = 20240614


def linears(state):
    return [k for k in state if "_proj.weight" in k]


def write(name, state, expected, quant):
    (ROOT / name).mkdir()
    config = json.loads((HF / "packed_f32" / "config.json").read_text())
    config |= {"dtype": "bfloat16", "quantization_config": quant}
    (ROOT / name / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_file(state, ROOT / name / "model.safetensors", metadata={"format": "pt"})
    save_file(expected, ROOT / name / "expected.safetensors")


def grid(rng, n, k, bits, group, zeros, dtype):
    """Codes with a sign, as compressed-tensors has them, and what they stand for."""
    g = 1 if group == -1 else k // group
    half = 1 << (bits - 1)
    q = rng.integers(-half, half, (n, k), dtype=np.int8)
    z = rng.integers(-half, half, (n, g), dtype=np.int8) if zeros else np.zeros((n, g), np.int8)
    s = torch.tensor(rng.random((n, g)) * 0.02 + 0.001).to(dtype)
    wide = k // g
    value = ((q.astype(np.float32) - np.repeat(z, wide, 1).astype(np.float32))
             * np.repeat(s.float().numpy(), wide, 1))
    return torch.tensor(q), torch.tensor(z), s, torch.tensor(value)


def compressed(name, plain, rng, schemes, ignore, scale_dtype):
    """schemes: {substring of a module: (bits, group, zeros)}, the first that fits."""
    state, expected = {}, {}
    for key, w in plain.items():
        if "_proj.weight" not in key or any(i in key for i in ignore):
            state[key] = w
            continue
        bits, group, zeros = next(v for k, v in schemes.items() if k in key)
        q, z, s, value = grid(rng, *w.shape, bits, group, zeros, scale_dtype)
        state[key + "_packed"] = pack_to_int32(q, bits)
        state[key + "_scale"] = s
        state[key + "_shape"] = torch.tensor(w.shape)
        if zeros:
            state[key + "_zero_point"] = pack_to_int32(z, bits, packed_dim=0).contiguous()
        expected[key] = value
    groups = {}
    for i, (part, (bits, group, zeros)) in enumerate(schemes.items()):
        args = QuantizationArgs(
            num_bits=bits, symmetric=not zeros, group_size=None if group == -1 else group,
            strategy="channel" if group == -1 else "group")
        target = "Linear" if part == "" else f"re:.*{part}$"
        groups[f"group_{i}"] = QuantizationScheme(targets=[target], weights=args)
    quant = QuantizationConfig(config_groups=groups, format="pack-quantized", ignore=ignore,
                               quantization_status="compressed").to_dict()
    write(name, state, expected, json.loads(json.dumps(quant, default=str)))


def dequantized(q, state):
    """What the bytes mean.  The package's own dequantize_4bit is not asked for the goldens:
    on CPU (0.50.2) it takes wrong scales where a row is shorter than a block."""
    absmax = state.absmax
    if state.nested:
        outer = state.state2
        absmax = (outer.code[absmax.long()]
                  * outer.absmax.repeat_interleave(outer.blocksize)[:absmax.numel()]
                  + state.offset)
    flat = q.reshape(-1)
    codes = torch.stack([flat >> 4, flat & 15], 1).reshape(-1).long()
    scale = absmax.repeat_interleave(state.blocksize)[:codes.numel()]
    return (state.code[codes] * scale).reshape(state.shape)


def check_dequantized():
    for kind in ("nf4", "fp4"):
        for double in (False, True):
            q, s = bnb.quantize_4bit(torch.randn(64, 256), quant_type=kind,
                                     compress_statistics=double)
            assert torch.equal(dequantized(q, s), bnb.dequantize_4bit(q, s)), (kind, double)


def bits_and_bytes(name, plain, kind, double):
    state, expected = {}, {}
    for key, w in plain.items():
        if "_proj.weight" not in key:
            state[key] = w
            continue
        q, s = bnb.quantize_4bit(w.float(), quant_type=kind, compress_statistics=double)
        state[key] = q
        for part, value in s.as_dict(packed=True).items():
            state[f"{key}.{part}"] = value
        expected[key] = dequantized(q, s)
    write(name, state, expected, {
        "quant_method": "bitsandbytes", "_load_in_4bit": True, "_load_in_8bit": False,
        "bnb_4bit_compute_dtype": "bfloat16", "bnb_4bit_quant_storage": "uint8",
        "bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": double,
        "load_in_4bit": True, "load_in_8bit": False, "llm_int8_skip_modules": None})


def words(values, bits):
    """[n, m] codes into [n, m * bits / 32] int32, lowest first."""
    per = 32 // bits
    out = np.zeros((values.shape[0], values.shape[1] // per), np.uint32)
    for i in range(per):
        out |= values[:, i::per].astype(np.uint32) << np.uint32(bits * i)
    return out.view(np.int32)


def desc_act(name, plain, rng):
    """Groups of 16 of the inputs in the order of their activations, as desc_act makes."""
    state, expected = {}, {}
    for key, w in plain.items():
        if "_proj.weight" not in key:
            state[key] = w
            continue
        n, k = w.shape
        perm = rng.permutation(k)
        g_idx = np.empty(k, np.int32)
        g_idx[perm] = np.arange(k) // 16
        if "o_proj" in key:
            g_idx = (np.arange(k) // 16).astype(np.int32)
        q = rng.integers(0, 16, (n, k), dtype=np.uint8)
        z = rng.integers(0, 16, (n, k // 16), dtype=np.uint8)
        s = (rng.random((n, k // 16)) * 0.02 + 0.001).astype(np.float16)
        base = key.removesuffix("weight")
        stored = (z.astype(np.int64) - 1) & 15
        for part, v in {"qweight": words(q, 4).T,
                        "qzeros": words(stored.T, 4), "scales": s.T,
                        "g_idx": g_idx}.items():
            state[base + part] = torch.tensor(np.ascontiguousarray(v))
        expected[key] = torch.tensor(
            (q.astype(np.float32) - z[:, g_idx].astype(np.float32))
            * s.astype(np.float32)[:, g_idx])
    write(name, state, expected, {
        "quant_method": "gptq", "bits": 4, "group_size": 16, "sym": False,
        "desc_act": True, "damp_percent": 0.1, "checkpoint_format": "gptq"})


def main():
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir(parents=True)
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    plain = {k: v.bfloat16() for k, v in
             load_file(HF / "packed_f32" / "model.safetensors").items()}
    bf16, f16 = torch.bfloat16, torch.float16
    compressed("ct_group", plain, rng, {"": (4, 16, False)}, ["lm_head"], bf16)
    compressed("ct_zeros", plain, rng, {"": (4, 16, True)}, ["lm_head"], f16)
    compressed("ct_channel", plain, rng, {"": (4, -1, True)}, ["lm_head"], bf16)
    compressed("ct_mixed", plain, rng, {"down_proj": (8, 16, True), "": (4, 16, False)},
               ["lm_head", "model.layers.0.self_attn.v_proj"], bf16)
    check_dequantized()
    bits_and_bytes("nf4", plain, "nf4", False)
    bits_and_bytes("nf4_double", plain, "nf4", True)
    bits_and_bytes("fp4", plain, "fp4", False)
    desc_act("gptq_act", plain, rng)
    files = {str(p.relative_to(ROOT)): hashlib.sha256(p.read_bytes()).hexdigest()
             for p in sorted(ROOT.rglob("*")) if p.is_file()}
    versions = {n: metadata.version(n) for n in ("torch", "compressed-tensors",
                                                 "bitsandbytes", "numpy")}
    (ROOT / "manifest.json").write_text(json.dumps(
        {"seed": SEED, "versions": versions, "sha256": files}, indent=1) + "\n")


if __name__ == "__main__":
    main()
