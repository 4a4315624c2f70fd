#!/usr/bin/env python3
"""Checkpoints that drupe wrote, as others read them, for tests/unit/hf/layout_test.c.

tests/golden/hf/layouts/<name>/
    config.json, model.safetensors   made by `drupe quantize --format ...` from packed_f32
    expected.safetensors             the linears' weights in float32, by the format's reader

The readers: compressed-tensors' own decompressor and transformers with that package
(dequantized while loading; symmetric ones also left packed), transformers with Olive's
quantizer class, ORT GenAI's builder for awq and gptq (and for olive again).  Its ORT blocks
are dequantized here as MatMulNBits defines them.

    python3 tools/oracle/layout_goldens.py build/drupe
        (torch, transformers, compressed-tensors, olive-ai, onnxruntime-genai)
"""
import hashlib
import importlib.util
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import types
from importlib import metadata

import torch
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationConfig
from onnxruntime_genai.models.loaders.quant_model import QuantModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, CompressedTensorsConfig
from transformers.quantizers.auto import (AUTO_QUANTIZATION_CONFIG_MAPPING,
                                          AUTO_QUANTIZER_MAPPING)

HF = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "hf"
SOURCE, ROOT = HF / "packed_f32", HF / "layouts"
MIXED = ["--overrides", '{"re:.*down_proj": {"bits": 8, "symmetric": true}}',
         "--modules_to_not_convert", "v_proj"]
# name: format and what else quantize is given (tests/cli/cases/layouts.sh runs them too)
CASES = {
    "awq": ("awq", []),
    "awq_symmetric": ("awq", ["--symmetric"]),
    "gptq": ("gptq", []),
    "gptq_8": ("gptq", ["--precision", "int8", "--symmetric"]),
    "olive": ("olive", []),
    "olive_symmetric": ("olive", ["--symmetric"]),
    "olive_mixed": ("olive", MIXED),
    "olive_head": ("olive", ["--lm_head", "--precision", "int3"]),
    "compressed": ("compressed-tensors", []),
    "compressed_symmetric": ("compressed-tensors", ["--symmetric"]),
    "compressed_rows": ("compressed-tensors", ["--group_size", "-1"]),
    "compressed_mixed": ("compressed-tensors", MIXED),
    "compressed_mixed_symmetric": ("compressed-tensors", ["--symmetric", *MIXED]),
    "compressed_head": ("compressed-tensors", ["--lm_head", "--precision", "int8"]),
    "compressed_2": ("compressed-tensors", ["--precision", "int2"]),
}


def import_olive():
    """Olive's quantizer; its package's own __init__ would ask for telemetry's libraries."""
    spec = importlib.util.find_spec("olive")
    package = types.ModuleType("olive")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["olive"] = package
    import olive.common.quant.hf_utils as utils
    AUTO_QUANTIZATION_CONFIG_MAPPING["olive"] = utils.OliveHfQuantizationConfig
    AUTO_QUANTIZER_MAPPING["olive"] = utils.OliveHfQuantizer


def quantized_names(folder):
    ends = (".qweight", ".weight_packed")
    return [k.rsplit(".", 1)[0] for k in load_file(folder / "model.safetensors")
            if k.endswith(ends)]


def by_transformers(folder, dequantize=False):
    """Weights of the modules as the loaded model multiplies them.  dequantize is for
    compressed-tensors: left packed, transformers 5.24 expects zero points unpacked."""
    more = {}
    if dequantize:
        more["quantization_config"] = CompressedTensorsConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **more)
    model(torch.tensor([[1, 2]]))  # the first call unpacks compressed-tensors
    out = {}
    for name in quantized_names(folder):
        module = model.get_submodule(name)
        eye = torch.eye(model.get_submodule(name).in_features
                        if hasattr(module, "in_features") else module.cols)
        with torch.no_grad():
            out[name] = module(eye).T.contiguous()
    return out


def by_package(folder, dtype=torch.float32):
    """compressed-tensors alone, without transformers; it multiplies in the scales' type."""
    config = QuantizationConfig(**{
        k: v for k, v in
        json.loads((folder / "config.json").read_text())["quantization_config"].items()})
    state, out = load_file(folder / "model.safetensors"), {}
    groups = config.config_groups.values()
    for name in quantized_names(folder):
        scheme = next((g for g in groups if name in g.targets),
                      next(g for g in groups if "Linear" in g.targets))
        parts = {k.rsplit(".", 1)[1]: v for k, v in state.items()
                 if k.startswith(name + ".")}
        parts["weight_scale"] = parts["weight_scale"].to(dtype)
        out[name] = PackedQuantizationCompressor.decompress(parts, scheme)["weight"].float()
    return out


def by_builder(folder):
    config = json.loads((folder / "config.json").read_text())
    quant = config["quantization_config"]
    head = config["head_dim"]
    model = QuantModel.from_pretrained(
        quant["quant_method"], input_path=str(folder),
        quant_attrs={"config": quant, "use_g_idx": False},
        q_size=config["num_attention_heads"] * head,
        kv_size=config["num_key_value_heads"] * head,
        intermediate_size=config["intermediate_size"],
        num_layers=config["num_hidden_layers"])
    out = {}
    for name in quantized_names(folder):
        module = model
        if name == "lm_head":
            module = model.lm_head
        else:
            _, _, layer, *parts = name.split(".")
            module = model.layers[int(layer)]
            for part in parts:
                module = getattr(module, part)
        out[name] = ort_blocks(module)
    return out


def codes(packed, bits):
    per = 8 // bits
    return torch.stack([packed >> (bits * i) & ((1 << bits) - 1) for i in range(per)],
                       -1).reshape(*packed.shape[:-1], -1)


def ort_blocks(m):
    n, blocks = m.qweight.shape[:2]
    q = codes(m.qweight.to(torch.int32), m.bits).reshape(n, blocks, -1).float()
    z = torch.full((n, blocks), float(1 << (m.bits - 1)))
    if m.qzeros is not None and m.qzeros.numel() > 0:
        z = codes(m.qzeros.reshape(n, -1).to(torch.int32), m.bits)[:, :blocks].float()
    s = m.scales.reshape(n, blocks).float()
    return ((q - z[..., None]) * s[..., None]).reshape(n, -1)[:, :m.in_features]


def same(a, b, what):
    assert a.keys() == b.keys(), what
    for k in a:
        assert torch.equal(a[k], b[k]), (what, k, (a[k] - b[k]).abs().max())


def make(drupe, name, layout, flags, work):
    made = pathlib.Path(work) / name
    subprocess.run([drupe, "quantize", "-m", str(SOURCE), "--algorithm", "rtn",
                    "--group_size", "16", "--no_evaluate", "--format", layout, *flags,
                    "-o", str(made)], check=True, stdout=subprocess.DEVNULL)
    folder = ROOT / name
    folder.mkdir()
    for file in ("config.json", "model.safetensors"):
        shutil.copy(made / "model" / file, folder / file)
    readers = {}
    if layout in ("awq", "gptq") or name in ("olive", "olive_symmetric"):
        readers["ORT GenAI's builder"] = by_builder(folder)
    if layout == "olive":
        readers["transformers"] = by_transformers(folder)
    if layout == "compressed-tensors":
        readers["compressed-tensors"] = by_package(folder)
    if layout == "compressed-tensors" and "mixed" not in name:  # it reads one group only
        same(by_transformers(folder, True), by_package(folder, torch.float16), name)
    if layout == "compressed-tensors" and "symmetric" in name:
        readers["transformers"] = by_transformers(folder)
    (first, values), *others = readers.items()
    for other, theirs in others:
        same(values, theirs, f"{name}: {first} and {other}")
    save_file({f"{k}.weight": v.contiguous() for k, v in values.items()},
              folder / "expected.safetensors")
    print(f"{name}: {len(values)} linears by {', '.join(readers)}")


def main():
    import_olive()
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as work:
        for name, (layout, flags) in CASES.items():
            make(sys.argv[1], name, layout, flags, work)
    files = {str(p.relative_to(ROOT)): hashlib.sha256(p.read_bytes()).hexdigest()
             for p in sorted(ROOT.rglob("*")) if p.is_file()}
    versions = {n: metadata.version(n) for n in
                ("torch", "transformers", "compressed-tensors", "olive-ai",
                 "onnxruntime-genai")}
    (ROOT / "manifest.json").write_text(
        json.dumps({"versions": versions, "sha256": files}, indent=1) + "\n")


if __name__ == "__main__":
    main()
