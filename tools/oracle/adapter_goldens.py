#!/usr/bin/env python3
"""Adapters as PEFT makes and runs them: tests/golden/adapters.

    python3 tools/oracle/adapter_goldens.py            makes them anew
    python3 tools/oracle/adapter_goldens.py FILE.npz   prints what NumPy reads from a file

For each case: the adapter as save_pretrained writes it, and expected.safetensors with
    ids, logits     of the tiny model of that family with the adapter, in float32
    module names    lora_A.weight and lora_B.weight as a graph takes them (transposed, B times
                    the scale that peft has), lora_magnitude_vector (peft's factor),
                    q4.NAME... of block 16, symmetric, and q4a.NAME... with zero points, by
                    ONNX Runtime's own quantizer
Needs torch, transformers 5, peft, onnxruntime.
"""
import json
import pathlib
import shutil
import sys

import numpy as np
import onnxruntime
import peft
import torch
import transformers
from onnxruntime.quantization.matmul_nbits_quantizer import quantize_matmul_4bits
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"
OUT = HERE / "adapters"
SEED = 20261125
BLOCK = 16
CASES = {
    "lora": ("llama", dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])),
    "patterns": ("llama", dict(
        r=4, lora_alpha=6, use_rslora=True,
        target_modules=["q_proj", "k_proj", "o_proj", "up_proj", "down_proj"],
        rank_pattern={"down_proj": 2, r"layers\.0\.self_attn\.q_proj": 20},
        alpha_pattern={"o_proj": 3})),
    "dora": ("llama", dict(r=3, lora_alpha=12, use_dora=True,
                           target_modules=["q_proj", "o_proj", "gate_proj", "down_proj"])),
    "dora_phi3": ("phi3", dict(r=4, lora_alpha=8, use_dora=True,
                               target_modules=["qkv_proj", "gate_up_proj"])),
    "dora_qwen2": ("qwen2", dict(r=4, lora_alpha=8, use_dora=True, use_rslora=True,
                                 target_modules=["q_proj", "v_proj", "up_proj"])),
}


def packed(weight, symmetric):
    """[K][N] floats as MatMulNBits' blocks."""
    k, n = weight.shape
    blocks = -(-k // BLOCK)
    padded = np.zeros((blocks * BLOCK, n), np.float32)
    padded[:k] = weight
    codes = np.zeros((n, blocks, BLOCK // 2), np.uint8)
    scale = np.zeros(n * blocks, np.float32)
    zero = np.zeros(n * ((blocks + 1) // 2), np.uint8)
    quantize_matmul_4bits(codes, padded, scale, zero, BLOCK, n, k, symmetric)
    return codes, scale, zero


def one(name, family, options):
    torch.manual_seed(SEED)
    base = transformers.AutoModelForCausalLM.from_pretrained(
        HERE / "tiny" / family, dtype=torch.float32, attn_implementation="eager").eval()
    model = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **options))
    for key, p in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(p, std=0.2)
        if "magnitude" in key:
            p.data *= 1 + 0.3 * torch.rand_like(p)
    model.eval()
    out = OUT / name
    model.save_pretrained(out)
    (out / "README.md").unlink(missing_ok=True)
    config = json.loads((out / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = f"tiny/{family}"
    config["target_modules"].sort()
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    ids = torch.randint(3, base.config.vocab_size, (1, 11))
    with torch.no_grad():
        want = {"ids": ids.numpy()[0].astype(np.int32),
                "logits": model(ids).logits[0].numpy()}
    for path, layer in model.base_model.model.named_modules():
        if not hasattr(layer, "lora_A") or "default" not in getattr(layer, "lora_A"):
            continue
        scale = layer.scaling["default"]
        a = layer.lora_A["default"].weight.detach()
        b = layer.lora_B["default"].weight.detach()
        want[f"{path}.lora_A.weight"] = a.T.numpy().copy()
        want[f"{path}.lora_B.weight"] = (b.T * scale).numpy().copy()
        if options.get("use_dora"):
            dora = layer.lora_magnitude_vector["default"]
            norm = dora.get_weight_norm(layer.base_layer.weight.detach(), b @ a, scale)
            want[f"{path}.lora_magnitude_vector"] = (dora.weight.detach() / norm).numpy()
        for half in ("lora_A", "lora_B") if name == "patterns" else ():
            for kind, symmetric in (("q4", True), ("q4a", False)):
                codes, scales, zero = packed(want[f"{path}.{half}.weight"], symmetric)
                want[f"{kind}.{path}.{half}.quant.weight"] = codes
                want[f"{kind}.{path}.{half}.quant.scale"] = scales
                if not symmetric:
                    want[f"{kind}.{path}.{half}.quant.zero_point"] = zero
    save_file(want, out / "expected.safetensors")
    for f in out.iterdir():
        f.chmod(0o644)


def main():
    if len(sys.argv) > 1:
        with np.load(sys.argv[1]) as archive:
            for name in archive.files:
                v = archive[name]
                print(name, v.dtype, v.shape, v.astype(np.float64).sum())
        return
    transformers.logging.set_verbosity_error()
    shutil.rmtree(OUT, ignore_errors=True)
    for name, (family, options) in CASES.items():
        one(name, family, options)
    versions = {m.__name__: m.__version__ for m in (torch, transformers, peft, np, onnxruntime)}
    (OUT / "manifest.json").write_text(json.dumps(
        {"made_by": "tools/oracle/adapter_goldens.py", "seed": SEED, "versions": versions},
        indent=1) + "\n")


main()
