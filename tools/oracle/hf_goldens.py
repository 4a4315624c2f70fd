#!/usr/bin/env python3
"""Small model folders, packed checkpoints, rotary tables and adapters for tests/unit/hf.

tests/golden/hf/
    llama/ qwen2/ phi3/     tiny random models as transformers 5 saves them (bf16, f16, bf16);
    llama_f32/ ...          the same weights after rounding, in float32
    llama_shards/           llama/ in several files with an index
    awq/ gptq/ gptq_v2/ olive/   one quantized model in four layouts, packed here by the
    packed_f32/             formulas of AutoAWQ, AutoGPTQ and Olive; and dequantized
    rope/<case>.json        config.json of a model with that rotary embedding
    rope/<case>.bin         int32 positions, half, long; int32 position[]; float cos, sin
    adapter/                a PEFT adapter of llama/ with rank_pattern, alpha_pattern, rsLoRA
    adapter_scales.json     {module: scaling} as peft computes it
    manifest.json           versions, seed, sha256

    python3 tools/oracle/hf_goldens.py   (torch, transformers 5, peft)
"""
import hashlib
import json
import pathlib
import shutil
import struct

import numpy as np
import peft
import torch
import transformers
from safetensors.numpy import save_file as save_numpy

ROOT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "hf"
SEED = 20240612
OURS = ["llama", "llama_f32", "llama_shards", "qwen2", "qwen2_f32", "phi3", "phi3_f32",
        "awq", "gptq", "gptq_v2", "olive", "packed_f32", "rope", "adapter"]

SIZES = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 24,
         "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2,
         "pad_token_id": 0}


def family(name, **more):
    kinds = {"llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
             "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
             "phi3": (transformers.Phi3Config, transformers.Phi3ForCausalLM)}
    config, model = kinds[name]
    return config(**(SIZES | more)), model


def save(model, path, dtype, **kwargs):
    model.to(dtype).save_pretrained(path, **kwargs)


def save_models():
    half = [1.0 + 0.25 * i for i in range(2)]
    models = {
        "llama": (torch.bfloat16, {"attention_bias": True, "mlp_bias": True}),
        "qwen2": (torch.float16, {"tie_word_embeddings": True, "rope_theta": 1e6}),
        "phi3": (torch.bfloat16, {
            "original_max_position_embeddings": 32,
            "rope_scaling": {"rope_type": "longrope", "short_factor": half,
                             "long_factor": [4 * f for f in half]}}),
    }
    for name, (dtype, more) in models.items():
        config, kind = family(name, **more)
        model = kind(config)
        for p in model.parameters():
            torch.nn.init.normal_(p)
        save(model, ROOT / name, dtype)
        if name == "llama":
            save(model, ROOT / "llama_shards", dtype, max_shard_size="4KB")
        save(model, ROOT / f"{name}_f32", torch.float32)


# ---- packed ----

ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def words(values, bits):
    """[n, m] codes into [n, m * bits / 32] int32, lowest first."""
    per = 32 // bits
    out = np.zeros((values.shape[0], values.shape[1] // per), np.uint32)
    for i in range(per):
        out |= values[:, i::per].astype(np.uint32) << np.uint32(bits * i)
    return out.view(np.int32)


def awq_words(values):
    n, m = values.shape
    order = values.reshape(n, m // 8, 8)[:, :, ORDER].reshape(n, m)
    return words(order, 4)


def bytes_of(values, bits):
    per = 8 // bits
    pad = -values.shape[1] % per
    values = np.pad(values, ((0, 0), (0, pad)))
    out = np.zeros((values.shape[0], values.shape[1] // per), np.uint8)
    for i in range(per):
        out |= (values[:, i::per] << (bits * i)).astype(np.uint8)
    return out


def pack(name, q, z, s, group):
    """q [N, K] codes, z, s [N, G]."""
    k = q.shape[1]
    g_idx = (np.arange(k) // group).astype(np.int32)
    if name == "awq":
        return {"qweight": awq_words(q.T), "qzeros": awq_words(z.T), "scales": s.T}
    if name.startswith("gptq"):
        stored = z if name == "gptq_v2" else (z.astype(np.int64) - 1) & 15
        return {"qweight": words(q, 4).T, "qzeros": words(stored.T, 4), "scales": s.T,
                "g_idx": g_idx}
    return {"qweight": bytes_of(q, 4), "qzeros": bytes_of(z, 4), "scales": s}


CONFIGS = {
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 16, "zero_point": True,
            "version": "gemm", "modules_to_not_convert": None},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 16, "sym": False,
             "desc_act": False, "damp_percent": 0.1, "checkpoint_format": "gptq"},
    "gptq_v2": {"quant_method": "gptq", "bits": 4, "group_size": 16, "sym": False,
                "desc_act": False, "damp_percent": 0.1, "checkpoint_format": "gptq_v2"},
    "olive": {"quant_method": "olive", "bits": 4, "group_size": 16, "symmetric": False,
              "lm_head": False, "embeds": False, "modules_to_not_convert": None,
              "overrides": None, "tie_word_embeddings": False},
}


def save_packed(rng):
    config, kind = family("llama", hidden_size=32, intermediate_size=48, vocab_size=16,
                          num_hidden_layers=1, dtype="float16")
    plain = {k: v.detach().half().float().numpy()
             for k, v in kind(config).state_dict().items()}
    packed = {name: {} for name in CONFIGS}
    for key, w in list(plain.items()):
        if "_proj" not in key:
            for out in packed.values():
                out[key] = w.astype(np.float16)
            continue
        n, k = w.shape
        q = rng.integers(0, 16, (n, k), dtype=np.uint8)
        z = rng.integers(0, 16, (n, k // 16), dtype=np.uint8)
        s = (rng.random((n, k // 16)) * 0.02 + 0.001).astype(np.float16)
        plain[key] = ((q.astype(np.float32) - np.repeat(z, 16, 1).astype(np.float32))
                      * np.repeat(s.astype(np.float32), 16, 1))
        for name, out in packed.items():
            for part, value in pack(name, q, z, s, 16).items():
                out[key.removesuffix("weight") + part] = np.ascontiguousarray(value)
    text = config.to_dict() | {"architectures": ["LlamaForCausalLM"]}
    for name, tensors in [("packed_f32", plain)] + list(packed.items()):
        (ROOT / name).mkdir()
        save_numpy({k: np.ascontiguousarray(v) for k, v in tensors.items()},
                   ROOT / name / "model.safetensors", metadata={"format": "pt"})
        quant = {"quantization_config": CONFIGS[name]} if name in CONFIGS else {}
        dtype = "float16" if quant else "float32"
        (ROOT / name / "config.json").write_text(
            json.dumps(text | quant | {"dtype": dtype}, indent=2) + "\n")


# ---- rotary tables ----

POSITIONS = [0, 1, 2, 3, 7, 31, 100, 1000, 4095, 4096, 8191]


def rope_cases():
    lists = {"short_factor": [1.0 + 0.07 * i for i in range(24)],
             "long_factor": [1.0 + 1.3 * i for i in range(24)]}
    heads = {"hidden_size": 192, "num_attention_heads": 2, "num_key_value_heads": 2,
             "num_hidden_layers": 1, "max_position_embeddings": 131072}
    return {
        "default": family("llama", **heads | {"rope_theta": 500000.0}),
        "linear": family("llama", **heads | {
            "rope_scaling": {"type": "linear", "factor": 3.0}}),
        "llama3": family("llama", **heads | {"rope_theta": 500000.0, "rope_scaling": {
            "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}}),
        "longrope": family("phi3", **heads | {
            "partial_rotary_factor": 0.5, "original_max_position_embeddings": 4096,
            "rope_scaling": {"type": "longrope"} | lists}),
        "longrope_given": family("phi3", **heads | {
            "partial_rotary_factor": 0.5, "original_max_position_embeddings": 4096,
            "rope_scaling": {"type": "su", "attention_factor": 1.25,
                             "original_max_position_embeddings": 4096} | lists}),
    }


def rope_module(model):
    kind = {"LlamaForCausalLM": transformers.models.llama.modeling_llama.LlamaRotaryEmbedding,
            "Phi3ForCausalLM": transformers.models.phi3.modeling_phi3.Phi3RotaryEmbedding}
    return kind[model.__name__]


def save_rope():
    (ROOT / "rope").mkdir()
    for name, (config, kind) in rope_cases().items():
        config.architectures = [kind.__name__]
        (ROOT / "rope" / f"{name}.json").write_text(config.to_json_string())
        long_name = [(name, max(POSITIONS) < 4096)]
        if name.startswith("longrope"):
            long_name = [(name + "_short", False), (name + "_long", True)]
        for out, long in long_name:
            positions = [p for p in POSITIONS if long or p < 4096 or "rope" not in out]
            rope = rope_module(kind)(config)
            # The factor list follows the largest position of the call.
            ids = torch.tensor([positions + ([5000] if long else [])])
            cos, sin = rope(torch.zeros(1, dtype=torch.float32), ids)
            half = cos.shape[-1] // 2
            cos = cos[0, :len(positions), :half].contiguous().numpy()
            sin = sin[0, :len(positions), :half].contiguous().numpy()
            with open(ROOT / "rope" / f"{out}.bin", "wb") as f:
                f.write(struct.pack("<3i", len(positions), half, int(long)))
                f.write(struct.pack(f"<{len(positions)}i", *positions))
                f.write(cos.astype("<f4").tobytes() + sin.astype("<f4").tobytes())


# ---- adapter ----

def save_adapter():
    model = transformers.AutoModelForCausalLM.from_pretrained(ROOT / "llama_f32")
    config = peft.LoraConfig(
        r=4, lora_alpha=6, lora_dropout=0.05, task_type="CAUSAL_LM", use_rslora=True,
        target_modules=["q_proj", "v_proj", "down_proj"],
        rank_pattern={"down_proj": 2, "layers.0.self_attn.q_proj": 3},
        alpha_pattern={r"layers\.1\.self_attn\.(q|v)_proj": 10})
    model = peft.get_peft_model(model, config)
    scales = {}
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and "default" in module.lora_A:
            torch.nn.init.normal_(module.lora_B["default"].weight)
            scales[name.removeprefix("base_model.model.")] = module.scaling["default"]
    model.peft_config["default"].base_model_name_or_path = "tiny"
    model.save_pretrained(ROOT / "adapter")
    (ROOT / "adapter" / "README.md").unlink(missing_ok=True)
    (ROOT / "adapter_scales.json").write_text(json.dumps(scales, indent=2) + "\n")


def main():
    for name in OURS:
        shutil.rmtree(ROOT / name, ignore_errors=True)
    ROOT.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    save_models()
    save_packed(np.random.default_rng(SEED))
    save_rope()
    save_adapter()
    files = {str(p.relative_to(ROOT)): hashlib.sha256(p.read_bytes()).hexdigest()
             for name in OURS for p in sorted((ROOT / name).rglob("*")) if p.is_file()}
    versions = {m.__name__: m.__version__ for m in (torch, transformers, peft, np)}
    (ROOT / "manifest.json").write_text(json.dumps(
        {"seed": SEED, "versions": versions, "sha256": files}, indent=2) + "\n")


if __name__ == "__main__":
    main()
