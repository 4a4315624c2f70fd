#!/usr/bin/env python3
"""Goldens of AWQ's search: AutoAWQ 0.2.9's own functions, in float32 on the CPU.

AutoAWQ's quantizer.py, scale.py, llama.py, qwen2.py and phi3.py are loaded from its sdist
(`pip download --no-deps autoawq==0.2.9`, unpacked); what they import for CUDA, data sets and
packing is replaced by empty modules.  Layer by layer this script does what
AwqQuantizer.quantize() does up to the packing, and writes what was chosen:

    <out>/<case>/config.json, model.safetensors     the model (random; absent with --model)
    <out>/<case>/golden.safetensors                 ids [count][seq]; for each layer L
        L.scale.<slot> [K]      scales of qkv, o, gate_up, down (absent where not scaled)
        L.clip.<module> [N][K/group]                max|w| after clipping
    <out>/<case>/manifest.json                      options, versions, seed, sha256

    quant_awq_goldens.py AUTOAWQ_DIR OUT [--small]          random layers (--small: for CI)
    quant_awq_goldens.py AUTOAWQ_DIR OUT --outliers         20 layers whose inputs have three
        channels at 40 times the rest; no weights are written: manifest.json has config.json
        and tensors [name, shape, offset, scale, rows of 40 times the size], of which they
        follow by the formula of family_goldens.py
    quant_awq_goldens.py AUTOAWQ_DIR OUT --model DIR IDS.bin LAYER...   layers of a real one
"""
import argparse
import hashlib
import importlib
import importlib.util
import json
import os
import sys
import types

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from family_goldens import values
from transformers import AutoModelForCausalLM, LlamaConfig, Phi3Config, Qwen2Config

SEED = 20261123

# name: family, hidden, intermediate, heads, kv_heads, group, bits, zero_point, duo, count, seq
CASES = {
    "llama_mha": ("llama", 64, 128, 4, 4, 32, 4, True, True, 4, 64),
    "qwen2_bias": ("qwen2", 64, 64, 4, 4, 16, 4, True, True, 4, 48),
    "phi3_fused": ("phi3", 64, 64, 4, 4, 32, 4, True, True, 4, 64),
    "llama_gqa": ("llama", 128, 192, 4, 2, 64, 4, True, True, 8, 64),
    "llama_g128": ("llama", 128, 256, 2, 1, 128, 4, True, True, 16, 128),
    "phi3_wide": ("phi3", 128, 256, 4, 4, 64, 4, True, True, 8, 96),
    "llama_plain": ("llama", 128, 256, 4, 4, 64, 4, True, False, 8, 64),
    "llama_sym": ("llama", 128, 256, 4, 4, 64, 4, False, True, 8, 64),
    "llama_2bit": ("llama", 128, 256, 4, 4, 32, 2, True, True, 8, 64),
    "llama_big": ("llama", 256, 512, 8, 4, 64, 4, True, True, 32, 64),
}
# hidden (K of qkv and gate_up), intermediate, heads, kv_heads, head_dim, group
OUTLIERS = [
    (128, 128, 4, 4, 32, 32), (192, 128, 6, 6, 32, 64), (192, 192, 3, 3, 64, 32),
    (256, 128, 4, 4, 64, 128), (128, 256, 2, 1, 64, 64), (256, 192, 2, 1, 64, 64),
    (256, 320, 2, 1, 64, 32), (320, 192, 2, 1, 64, 64), (320, 64, 2, 1, 64, 32),
    (384, 128, 2, 1, 64, 128), (384, 256, 2, 1, 64, 32), (448, 192, 2, 1, 64, 64),
    (448, 320, 2, 1, 64, 32), (512, 256, 2, 1, 64, 128), (512, 320, 2, 1, 64, 64),
    (512, 128, 2, 1, 64, 32), (576, 192, 2, 1, 64, 64), (576, 256, 2, 1, 64, 32),
    (640, 256, 2, 1, 64, 128), (640, 384, 2, 1, 64, 64),
]
FACTOR = 40
SMALL = ("llama_mha", "qwen2_bias", "phi3_fused")


class Stub(types.ModuleType):
    """A module that has whatever is asked of it."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (), {})
        setattr(self, name, made)
        return made


def load_autoawq(root):
    """AwqQuantizer and the family classes, from the unpacked sdist.

    AutoAWQ saves weights and inputs by .cpu(), which copies from a GPU but not from a CPU:
    there the search would restore weights that it has just scaled.  So .cpu() copies here.
    """
    torch.Tensor.cpu = torch.Tensor.clone
    for name in ("awq", "awq.utils", "awq.models", "awq.modules", "awq.modules.fused",
                 "awq.quantize", "awq.utils.calib_data", "awq.utils.fused_utils",
                 "awq.modules.linear", "awq.modules.act", "awq.modules.fused.block",
                 "awq.modules.fused.model", "awq.modules.fused.norm", "awq.utils.utils"):
        sys.modules[name] = Stub(name)
    for name, wanted in (("transformers.models.bloom.modeling_bloom", ("BloomGelu",)),
                         ("transformers.activations", ("NewGELUActivation", "GELUActivation",
                                                       "PytorchGELUTanh"))):
        module = importlib.import_module(name)
        for cls in wanted:  # newer transformers dropped some
            if not hasattr(module, cls):
                setattr(module, cls, type(cls, (), {}))
    sys.modules["awq.utils.utils"].clear_memory = lambda *a, **k: None
    sys.modules["awq.utils.utils"].get_best_device = lambda: "cpu"

    def load(name):
        path = os.path.join(root, *name.split(".")) + ".py"
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    load("awq.utils.module")
    load("awq.quantize.scale")
    quantizer = load("awq.quantize.quantizer")
    base = Stub("awq.models.base")
    base.BaseAWQForCausalLM = object
    sys.modules["awq.models.base"] = base
    return quantizer, {
        "llama": load("awq.models.llama").LlamaAWQForCausalLM,
        "qwen2": load("awq.models.qwen2").Qwen2AWQForCausalLM,
        "phi3": load("awq.models.phi3").Phi3AWQForCausalLM,
    }


def random_model(family, hidden, inter, heads, kv, gen):
    """One layer whose inputs are correlated and have outlier channels; bf16 values."""
    common = dict(hidden_size=hidden, intermediate_size=inter, num_attention_heads=heads,
                  num_key_value_heads=kv, num_hidden_layers=1, vocab_size=64,
                  max_position_embeddings=512, rms_norm_eps=1e-5, tie_word_embeddings=True,
                  pad_token_id=0, bos_token_id=1, eos_token_id=2, rope_theta=10000.0)
    made = {"llama": LlamaConfig, "qwen2": Qwen2Config, "phi3": Phi3Config}[family](**common)
    made.torch_dtype = torch.bfloat16
    made._attn_implementation = "sdpa"
    model = AutoModelForCausalLM.from_config(made).float().eval()

    def normal(*shape):
        return torch.randn(*shape, generator=gen)

    for name, p in model.named_parameters():
        if "embed" in name:
            mix = normal(8, p.shape[1])
            p.data = normal(p.shape[0], 8) @ mix * 0.3 + normal(*p.shape) * 0.3
        elif "norm" in name:
            p.data = torch.exp(normal(*p.shape) * 0.4)
            p.data[torch.randperm(p.numel(), generator=gen)[:3]] *= 6.0
        elif p.dim() == 1:
            p.data = normal(*p.shape) * 0.1
        else:
            p.data = normal(*p.shape) * p.shape[1] ** -0.5
            p.data *= torch.exp(normal(1, p.shape[1]) * 0.3)
            wild = torch.rand(p.shape, generator=gen) < 0.003
            p.data[wild] *= 5.0
        p.data = p.data.bfloat16().float()
    return model


def slot_of(layer_names):
    leaf = layer_names[0].split(".")[-1]
    return {"q_proj": "qkv", "qkv_proj": "qkv", "o_proj": "o", "gate_proj": "gate_up",
            "gate_up_proj": "gate_up", "down_proj": "down"}[leaf]


@torch.no_grad()
def run(quantizer, awq_model, model, ids, layers, group, bits, zero_point, duo):
    """AwqQuantizer.quantize() for each layer, up to the packing."""
    q = object.__new__(quantizer.AwqQuantizer)
    q.awq_model, q.model = awq_model, model
    q.w_bit, q.group_size, q.zero_point, q.duo_scaling = bits, group, zero_point, duo
    q.n_parallel_calib_samples, q.max_chunk_memory = None, 1 << 30
    q.inps = model.model.embed_tokens(ids)
    positions = torch.arange(ids.shape[1])[None]
    q.module_kwargs = dict(position_embeddings=model.model.rotary_emb(q.inps, positions),
                           attention_mask=None, position_ids=positions)
    out = {"ids": ids.to(torch.int32)}
    for i, layer in enumerate(model.model.layers):
        if i > max(layers):
            break
        if i not in layers:
            q.inps = q._module_forward(q.inps, layer, q.module_kwargs)
            continue
        linears = sys.modules["awq.utils.module"].get_named_linears(layer)
        feats = q._get_input_feat(layer, linears)
        found = awq_model.get_layers_for_scaling(layer, feats, dict(q.module_kwargs))
        scales = [q._search_best_scale(layer, **f) for f in found]
        for _, names, s in scales:
            out[f"{i}.scale.{slot_of(names)}"] = s.float().contiguous()
        sys.modules["awq.quantize.scale"].apply_scale(layer, scales, input_feat_dict=feats)
        for name, limit in q._search_best_clip(layer, linears, feats):
            out[f"{i}.clip.{name}"] = limit.squeeze(-1).float().contiguous()
    return out


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def write(folder, found, options):
    path = os.path.join(folder, "golden.safetensors")
    save_file(found, path)
    options |= {"autoawq": "0.2.9", "torch": torch.__version__,
                "transformers": transformers.__version__, "sha256": sha256(path)}
    with open(os.path.join(folder, "manifest.json"), "w") as f:
        json.dump(options, f, indent=2)
        f.write("\n")
    print(folder, {k: tuple(v.shape) for k, v in found.items()})


def random_case(quantizer, families, out, name):
    family, hidden, inter, heads, kv, group, bits, zero, duo, count, seq = CASES[name]
    gen = torch.Generator().manual_seed(SEED + list(CASES).index(name))
    model = random_model(family, hidden, inter, heads, kv, gen)
    ids = torch.randint(3, 64, (count, seq), generator=gen)
    folder = os.path.join(out, name)
    os.makedirs(folder, exist_ok=True)
    weights = {k: v.bfloat16().contiguous() for k, v in model.state_dict().items()
               if k != "lm_head.weight"}
    save_file(weights, os.path.join(folder, "model.safetensors"))
    with open(os.path.join(folder, "config.json"), "w") as f:
        cfg = model.config.to_dict()
        keep = {k: cfg[k] for k in ("hidden_size", "intermediate_size", "num_attention_heads",
                                    "num_key_value_heads", "num_hidden_layers", "vocab_size",
                                    "max_position_embeddings", "rms_norm_eps", "model_type",
                                    "tie_word_embeddings", "hidden_act")}
        keep |= {"architectures": [type(model).__name__], "torch_dtype": "bfloat16",
                 "rope_theta": 10000.0, "bos_token_id": 1, "eos_token_id": 2,
                 "original_max_position_embeddings": 512} | (
                     {"pad_token_id": 0})
        json.dump(keep, f, indent=2)
        f.write("\n")
    found = run(quantizer, families[family], with_type(families[family], family, model), ids,
                [0], group, bits, zero, duo)
    write(folder, found, {"group": group, "bits": bits, "zero_point": zero,
                          "duo_scaling": duo, "seed": SEED})


def outlier_case(quantizer, families, out, index):
    hidden, inter, heads, kv, head_dim, group = OUTLIERS[index]
    config = dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=hidden,
                  intermediate_size=inter, num_attention_heads=heads, num_key_value_heads=kv,
                  head_dim=head_dim, num_hidden_layers=1, vocab_size=64, rms_norm_eps=1e-5,
                  max_position_embeddings=512, tie_word_embeddings=True, rope_theta=10000.0,
                  hidden_act="silu", pad_token_id=0, bos_token_id=1, eos_token_id=2)
    made = LlamaConfig(**config)
    made._attn_implementation = "sdpa"
    model = AutoModelForCausalLM.from_config(made).float().eval()
    tensors = []
    for name, p in model.named_parameters():
        shape, wild = list(p.shape), []
        offset, scale = 0.0, float(np.float32((3 / shape[-1]) ** 0.5))
        if "embed" in name:
            scale = 1.0
        if "norm" in name:
            offset, scale = 1.0, 0.25
        # inputs of qkv and gate_up, of o, of down
        if "layernorm" in name or "v_proj" in name or "up_proj" in name:
            wild = sorted({(17 * (index + 1) + k * 59) % shape[0] for k in range(3)})
        tensors.append([name, shape, offset, scale, wild])
        v = values(name, shape, offset, scale)
        v[wild] *= np.float32(FACTOR)
        p.data = torch.from_numpy(v)
    gen = torch.Generator().manual_seed(SEED + index)
    ids = torch.randint(3, 64, (4, 48), generator=gen)
    folder = os.path.join(out, f"outliers_{index:02}")
    os.makedirs(folder, exist_ok=True)
    found = run(quantizer, families["llama"], with_type(families["llama"], "llama", model),
                ids, [0], group, 4, True, True)
    write(folder, found, {"group": group, "bits": 4, "zero_point": True, "duo_scaling": True,
                          "seed": SEED, "config": config | {"torch_dtype": "float32"},
                          "factor": FACTOR, "tensors": tensors})


def with_type(cls, family, model):
    cls.model_type = family
    return model


def real_case(quantizer, families, out, path, ids_path, layers):
    with open(ids_path, "rb") as f:
        raw = torch.frombuffer(bytearray(f.read()), dtype=torch.int32)
    ids = raw[2:].view(int(raw[0]), int(raw[1])).long()
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32,
                                                 attn_implementation="sdpa").eval()
    family = model.config.model_type
    folder = os.path.join(out, os.path.basename(path.rstrip("/")))
    os.makedirs(folder, exist_ok=True)
    found = run(quantizer, families[family], with_type(families[family], family, model), ids,
                layers, 64, 4, True, True)
    write(folder, found, {"group": 64, "bits": 4, "zero_point": True, "duo_scaling": True,
                          "model": os.path.abspath(path)})


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("autoawq")
    args.add_argument("out")
    args.add_argument("--small", action="store_true")
    args.add_argument("--outliers", action="store_true")
    args.add_argument("--model", nargs="+", metavar="DIR IDS LAYER")
    a = args.parse_args()
    torch.manual_seed(SEED)
    quantizer, families = load_autoawq(a.autoawq)
    if a.model:
        real_case(quantizer, families, a.out, a.model[0], a.model[1],
                  [int(i) for i in a.model[2:]])
        return
    if a.outliers:
        for index in range(len(OUTLIERS)):
            outlier_case(quantizer, families, a.out, index)
        return
    for name in SMALL if a.small else CASES:
        random_case(quantizer, families, a.out, name)


if __name__ == "__main__":
    main()
