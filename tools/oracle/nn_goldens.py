#!/usr/bin/env python3
"""Tiny random decoders with their logits, hidden states, losses and LoRA gradients.

tests/golden/tiny/<name>/   a Hugging Face folder of 120 KB (phi3: 170) in float32, and
    logits.safetensors      {input_ids [1,T], logits [1,T,V]}; T is past phi3's switch
    logits_short.safetensors  (phi3) the same below the switch
tests/golden/nn/<name>/     variants that only nn's tests need, the same files
tests/golden/nn/<name>_lora.safetensors
    input_ids, labels [B,T]; loss []; hidden.<i> [B,T,D]: the input of layer i;
    per module path lora_A, lora_B, grad_A, grad_B
tests/golden/nn/manifest.json  versions, seed, sha256, tolerances

Query and key weights are large, so that attention is peaked: a wrong rotation, scale or
mask then moves the logits far beyond the tolerance.  Eager attention, float32, one thread.

    python3 tools/oracle/nn_goldens.py   (torch, transformers 5, peft)
"""
import hashlib
import json
import math
import pathlib
import shutil

import peft
import torch
import transformers
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"
SEED = 20240611
ADAPTER = {"r": 3, "alpha": 8}
LONG, SHORT = 40, 24  # tokens; phi3 switches above 32

COMMON = {
    "hidden_act": "silu", "rms_norm_eps": 1e-5, "attention_dropout": 0.0,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "use_cache": True,
    "dtype": "float32", "initializer_range": 0.02, "num_hidden_layers": 2,
    "hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 128,
}
LLAMA = COMMON | {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "attention_bias": False, "mlp_bias": False, "rope_theta": 10000.0,
    "rope_scaling": None, "tie_word_embeddings": True,
}
PHI3 = COMMON | {
    "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "vocab_size": 64,
    "hidden_size": 64, "intermediate_size": 32,
    "num_attention_heads": 2, "num_key_value_heads": 1,
    "partial_rotary_factor": 0.5, "rope_theta": 10000.0, "tie_word_embeddings": True,
    "original_max_position_embeddings": 32, "sliding_window": None,
    "embd_pdrop": 0.0, "resid_pdrop": 0.0,
    "rope_scaling": {
        "type": "longrope",
        "short_factor": [1.0, 1.05, 1.1, 1.2, 1.3, 1.45, 1.6, 1.8],
        "long_factor": [1.1, 1.3, 1.7, 2.3, 3.1, 4.2, 5.0, 6.0],
    },
}
# name -> (folder below ROOT, config, LoRA targets)
MODELS = {
    "llama": ("tiny", LLAMA, "all-linear"),
    "qwen2": ("tiny", COMMON | {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 112,
        "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 80,
        "rope_theta": 1000000.0, "sliding_window": None, "use_sliding_window": False,
        "max_window_layers": 2, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    }, ["q_proj", "v_proj"]),
    "phi3": ("tiny", PHI3, ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]),
    "phi3_window": ("nn", PHI3 | {"sliding_window": 12, "rope_scaling": None,
                                  "num_hidden_layers": 1, "hidden_size": 48,
                                  "num_attention_heads": 3, "partial_rotary_factor": 1.0,
                                  "original_max_position_embeddings": 128}, ["qkv_proj"]),
    "llama3_rope": ("nn", LLAMA | {
        "tie_word_embeddings": False, "vocab_size": 64, "attention_bias": True,
        "mlp_bias": True, "num_hidden_layers": 1,
        "rms_norm_eps": 1e-2,  # large enough to be seen when it is wrong
        "rope_scaling": {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 32},
    }, ["q_proj", "v_proj", "down_proj"]),
}
TOLERANCE = {"logits": 1e-4, "hidden": 1e-4, "loss_relative": 1e-5, "grad_relative": 1e-5}


def randomize(model, gen):
    """Weights that make every part of the model matter."""
    for name, p in model.named_parameters():
        if name.endswith("norm.weight"):
            p.data = 1.0 + 0.3 * torch.randn(p.shape, generator=gen)
        elif name.endswith("bias"):
            p.data = 0.3 * torch.randn(p.shape, generator=gen)
        elif "embed" in name:
            std = 0.3 if model.config.tie_word_embeddings else 1.0  # logits of a few units
            p.data = std * torch.randn(p.shape, generator=gen)
        elif "lm_head" in name:
            p.data = torch.randn(p.shape, generator=gen) / math.sqrt(p.shape[1])
        else:
            w = torch.randn(p.shape, generator=gen) / math.sqrt(p.shape[1])
            rows = 0
            if "q_proj" in name or "k_proj" in name:
                rows = p.shape[0]
            elif "qkv_proj" in name:
                c = model.config
                rows = ((c.num_attention_heads + c.num_key_value_heads)
                        * (c.hidden_size // c.num_attention_heads))
            w[:rows] *= 1.8  # scores with a spread of about 3
            p.data = w


def forward(model, ids):
    with torch.no_grad():
        return model(input_ids=ids, output_hidden_states=True, use_cache=False)


def save_logits(model, path, tokens, gen):
    ids = torch.randint(3, model.config.vocab_size, (1, tokens), generator=gen)
    out = forward(model, ids)
    save_file({"input_ids": ids.to(torch.int32), "logits": out.logits.contiguous()}, path)


def save_lora(model, path, targets, gen):
    """Loss and gradients with an adapter whose B is not zero, and targets left out."""
    if targets == "all-linear":
        targets = sorted({n.split(".")[-1] for n, m in model.named_modules()
                          if isinstance(m, torch.nn.Linear) and "lm_head" not in n})
    cfg = peft.LoraConfig(r=ADAPTER["r"], lora_alpha=ADAPTER["alpha"], lora_dropout=0.0,
                          target_modules=targets, bias="none", task_type="CAUSAL_LM")
    wrapped = peft.get_peft_model(model, cfg)
    for name, p in wrapped.named_parameters():
        if "lora_B" in name:
            p.data = 0.1 * torch.randn(p.shape, generator=gen)
        elif "lora_A" in name:
            p.data = torch.randn(p.shape, generator=gen) / math.sqrt(p.shape[1])
    ids = torch.randint(3, model.config.vocab_size, (2, LONG), generator=gen)
    labels = ids.clone()
    labels[0, :9] = -100
    labels[1, LONG - 10 :] = -100
    out = wrapped(input_ids=ids, output_hidden_states=True, use_cache=False)
    # the model's own loss: mean over counted targets, shifted by one
    logits, shifted = out.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    loss = torch.nn.functional.cross_entropy(logits, shifted, ignore_index=-100)
    loss.backward()
    keep = {"input_ids": ids.to(torch.int32), "labels": labels.to(torch.int32),
            "loss": loss.detach()}
    for i, h in enumerate(out.hidden_states[:-1]):  # the last one is after the final norm
        keep[f"hidden.{i}"] = h.detach().contiguous()
    for name, p in wrapped.named_parameters():
        if p.requires_grad:
            module = name.removeprefix("base_model.model.").removesuffix(".default.weight")
            module, which = module.rsplit(".lora_", 1)
            keep[f"{module}.lora_{which}"] = p.detach().contiguous()
            keep[f"{module}.grad_{which}"] = p.grad.contiguous()
    save_file(keep, path)


def make(name):
    room, config, targets = MODELS[name]
    folder = ROOT / room / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # as on the hub: written by hand, so that old and new readers take it
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    gen = torch.Generator().manual_seed(SEED + list(MODELS).index(name))
    cfg = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_config(cfg, attn_implementation="eager")
    randomize(model, gen)
    state = {k: v.detach().clone().contiguous() for k, v in model.state_dict().items()}
    if config["tie_word_embeddings"]:
        del state["lm_head.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32).eval()
    save_logits(model, folder / "logits.safetensors", LONG, gen)
    if name == "phi3":
        save_logits(model, folder / "logits_short.safetensors", SHORT, gen)
    (ROOT / "nn").mkdir(exist_ok=True)
    save_lora(model, ROOT / "nn" / f"{name}_lora.safetensors", targets, gen)
    return folder


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    files = {}
    for name in MODELS:
        folder = make(name)
        for path in [*sorted(folder.iterdir()), ROOT / "nn" / f"{name}_lora.safetensors"]:
            files[str(path.relative_to(ROOT))] = {
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "bytes": path.stat().st_size}
    manifest = {
        "made_by": "tools/oracle/nn_goldens.py", "seed": SEED, "adapter": ADAPTER,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__,
                     "peft": peft.__version__},
        "tolerance": TOLERANCE, "files": files}
    (ROOT / "nn" / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    print(f"{sum(f['bytes'] for f in files.values())} bytes in {len(files)} files")


if __name__ == "__main__":
    main()
