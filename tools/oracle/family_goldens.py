#!/usr/bin/env python3
"""Tiny models of every decoder family: their configs in all spellings, and their logits.

tests/golden/families/<case>.json
    configs    "5" and "4": as transformers 5 and 4 save them; "old": 4 without layer_types
    tensors    [name, shape, offset, scale]: weights follow by a formula (see `values`), which
               the test has, too, so that no weights are stored
    ids        tokens; runs: {length: logits of the last token}; logits: of all tokens
    greedy     {"prompt": tokens, "ids": what follows}
    mutations  [path in config "5", factor]: changes that logits must show
    step_from  a prompt of so many tokens, then one by one, gives `logits`
    steps      longrope alone: logits of all tokens one by one from the first, whose keys stay
               as they were rotated
    half       what an F16 GGUF of the model computes: matrices (and Gemma's multiplier of the
               embedding) in half precision, norms and biases not; config.json with `changes`,
               without which the model has no form in GGUF; runs: as above

    python3 tools/oracle/family_goldens.py [case ...]    (torch, transformers 5)

ORACLE_TF4: a folder for PYTHONPATH with transformers 4.57, which writes configs "4" and
whose logits must be the same.  Attention is peaked on purpose, so that rotations, scales and
windows show; greedy ids have a margin.
"""
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "families"
TF4 = transformers.__version__.startswith("4.")
WINDOW, LENGTH, PROMPT, NEW = 6, 12, 4, 8
transformers.logging.set_verbosity_error()

BASE = dict(vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
            bos_token_id=1, eos_token_id=2, pad_token_id=0)
EPS = dict(rms_norm_eps=0.02)
WIDE = dict(rms_norm_eps=0.2)  # where the embedding is multiplied
LN = dict(layer_norm_eps=0.02)


def case(family, rope=None, **kwargs):
    return {"family": family, "rope": rope or {}, "kwargs": BASE | kwargs}


HALF = 24
CASES = {
    "llama2": case("Llama", num_key_value_heads=4, tie_word_embeddings=True, **EPS),
    "llama3": case("Llama", dict(rope_type="llama3", rope_theta=500.0, factor=4.0,
                                 low_freq_factor=1.0, high_freq_factor=4.0,
                                 original_max_position_embeddings=16),
                   head_dim=32, attention_bias=True, mlp_bias=True, eos_token_id=[2, 3], **EPS),
    "llama_linear": case("Llama", dict(rope_type="linear", factor=2.0), head_dim=16, **EPS),
    "llama_yarn": case("Llama", dict(rope_type="yarn", rope_theta=100.0, factor=4.0,
                                     original_max_position_embeddings=16, beta_fast=4.0),
                       head_dim=32, **EPS),
    "smollm3": case("SmolLM3", dict(rope_theta=50.0), num_hidden_layers=3, head_dim=16,
                    no_rope_layer_interval=2, tie_word_embeddings=True, **EPS),
    "smollm3_window": case("SmolLM3", num_hidden_layers=3, head_dim=16, use_sliding_window=True,
                           sliding_window=WINDOW, no_rope_layers=[0, 1, 0],
                           tie_word_embeddings=False, attention_bias=True, **EPS),
    "mistral": case("Mistral", dict(rope_theta=1000.0), head_dim=16, sliding_window=WINDOW,
                    tie_word_embeddings=False, **EPS),
    "qwen2": case("Qwen2", dict(rope_theta=1000.0), hidden_size=64, sliding_window=WINDOW,
                  use_sliding_window=True, max_window_layers=1, **EPS),
    "qwen3": case("Qwen3", dict(rope_theta=1000.0), head_dim=32, tie_word_embeddings=True, **EPS),
    "qwen3_moe": case("Qwen3Moe", dict(rope_theta=1000.0), head_dim=32, moe_intermediate_size=32,
                      num_experts=4, num_experts_per_tok=2, norm_topk_prob=True,
                      decoder_sparse_step=1, mlp_only_layers=[], **EPS),
    "gpt_oss": case("GptOss", dict(rope_type="yarn", rope_theta=100.0, factor=4.0, beta_fast=4.0,
                                   beta_slow=1.0, truncate=False,
                                   original_max_position_embeddings=16),
                    head_dim=32, intermediate_size=32, num_local_experts=4,
                    num_experts_per_tok=2, sliding_window=WINDOW, **EPS),
    "phi3": case("Phi3", hidden_size=64, sliding_window=WINDOW, **EPS),
    "phi4mini": case("Phi3", dict(rope_type="longrope", short_factor=[1 + i / 20 for i in range(HALF)],
                                  long_factor=[1.5 + i / 4 for i in range(HALF)]),
                     hidden_size=128, num_attention_heads=2, num_key_value_heads=1,
                     partial_rotary_factor=0.75, original_max_position_embeddings=8,
                     tie_word_embeddings=True, **EPS),
    "phi2": case("Phi", hidden_size=64, num_attention_heads=2, partial_rotary_factor=0.5,
                 num_key_value_heads=2, **LN),
    "gemma": case("Gemma", num_key_value_heads=1, head_dim=16, **WIDE),
    "gemma2": case("Gemma2", num_hidden_layers=3, head_dim=16, sliding_window=WINDOW,
                   query_pre_attn_scalar=8, attn_logit_softcapping=3.0,
                   final_logit_softcapping=4.0, **WIDE),
    "gemma3": case("Gemma3", {"full_attention": dict(rope_type="linear", factor=2.0, rope_theta=2000.0),
                              "sliding_attention": dict(rope_type="default", rope_theta=100.0)},
                   num_hidden_layers=3, head_dim=16, sliding_window=WINDOW,
                   sliding_window_pattern=3, query_pre_attn_scalar=24, **WIDE),
    "granite": case("Granite", hidden_size=64, embedding_multiplier=3.0, logits_scaling=2.5,
                    residual_multiplier=0.4, attention_multiplier=0.4, attention_bias=True,
                    tie_word_embeddings=True, **EPS),
    "olmo2": case("Olmo2", hidden_size=64, **EPS),
    "stablelm": case("StableLm", hidden_size=256, partial_rotary_factor=0.25, use_qkv_bias=True, **LN),
    "stablelm_parallel": case("StableLm", hidden_size=160, partial_rotary_factor=0.5,
                              use_parallel_residual=True, **LN),
}
PREFIX = {"Gemma3": "Gemma3Text"}  # of the config class


def build_config(spec):
    family, kwargs, rope = spec["family"], dict(spec["kwargs"]), dict(spec["rope"])
    config = getattr(transformers, PREFIX.get(family, family) + "Config")
    if not TF4:
        if "partial_rotary_factor" in kwargs:
            rope = {"rope_type": "default", "rope_theta": 10000.0} | rope
            rope["partial_rotary_factor"] = kwargs["partial_rotary_factor"]
        if rope:
            if "full_attention" not in rope:
                rope = {"rope_type": "default", "rope_theta": 10000.0} | rope
            kwargs["rope_parameters"] = rope
    elif "full_attention" in rope:
        full, local = dict(rope["full_attention"]), rope["sliding_attention"]
        kwargs["rope_theta"] = full.pop("rope_theta")
        kwargs["rope_scaling"] = full
        kwargs["rope_local_base_freq"] = local["rope_theta"]
    elif rope:
        kwargs["rope_theta"] = rope.pop("rope_theta", 10000.0)
        if family == "Phi3":
            rope["type"] = rope.pop("rope_type")
        if len(rope) > 0:
            kwargs["rope_scaling"] = rope
    c = config(**kwargs)
    c.architectures = [family + "ForCausalLM"]
    return c


# ---- weights ----

def fnv(text):
    h = 2166136261
    for byte in text.encode():
        h = (h ^ byte) * 16777619 % 2**32
    return h


def values(name, shape, offset, scale):
    """offset + scale * u, u in [-1, 1) of 12 bits, in float32."""
    n = int(np.prod(shape))
    x = (np.arange(n, dtype=np.uint64) * 0x9E3779B1 + fnv(name)) % 2**32
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> shift)) * factor % 2**32
    x = x ^ (x >> 16)
    u = ((x >> 20).astype(np.int64) - 2048).astype(np.float32) / np.float32(2048)
    return (np.float32(offset) + np.float32(scale) * u).reshape(shape)


def range_of(name, shape, spec):
    """offset and scale of a tensor."""
    family, d = spec["family"], spec["kwargs"]["hidden_size"]
    if name.endswith("bias"):
        return 0.0, 0.25
    if name.endswith("sinks"):
        return 0.0, 2.0
    if "mlp.gate." in name or "mlp.router." in name:
        return 0.0, 4.0 / d**0.5
    if "q_norm" in name or "k_norm" in name:
        return (0.5 if family.startswith("Gemma") else 1.5), 0.5
    if "norm" in name:
        return (0.0 if family.startswith("Gemma") else 1.0), 0.5
    if "embed_tokens" in name:
        return 0.0, {"Granite": 0.5, "Gemma2": 0.2}.get(family, 1.0 if d < 100 else 0.5)
    if "q_proj" in name or "k_proj" in name:
        return 0.0, 3.0 / d**0.5
    if "qkv_proj" in name:
        return 0.0, 2.5 / d**0.5
    if "v_proj" in name or "lm_head" in name:
        return 0.0, 2.0 / d**0.5
    return 0.0, 1.5 / shape[-1]**0.5


def in_file(name, shape):
    """What a file holds of a tensor in memory: transformers 5 stacks Qwen's experts."""
    if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
        return [(name, shape)]
    base, leaf = name.rsplit(".", 1)
    if leaf == "down_proj":
        return [(f"{base}.{e}.down_proj.weight", shape[1:]) for e in range(shape[0])]
    half = (shape[1] // 2, shape[2])
    return [(f"{base}.{e}.{part}_proj.weight", half) for e in range(shape[0])
            for part in ("gate", "up")]


def build_model(config, spec):
    model = getattr(transformers, spec["family"] + "ForCausalLM")._from_config(
        config, attn_implementation="eager").float().eval()
    tensors, state = [], {}
    for name, p in model.state_dict().items():
        if config.tie_word_embeddings and name == "lm_head.weight":
            continue
        stacked = spec["family"] == "Qwen3Moe"
        parts = []
        for part, shape in in_file(name, tuple(p.shape)) if stacked else [(name, p.shape)]:
            offset, scale = (float(np.float32(v)) for v in range_of(part, shape, spec))
            tensors.append([part, list(shape), offset, scale])
            parts.append(torch.from_numpy(values(part, tuple(shape), offset, scale)))
        state[name] = torch.cat(parts).reshape(p.shape)
    missing = model.load_state_dict(state, strict=False).missing_keys
    assert set(missing) <= {"lm_head.weight"}, missing
    model.tie_weights()
    return model, tensors


@torch.no_grad()
def logits(model, ids, attentions=None):
    out = model(input_ids=torch.tensor([ids]), use_cache=False,
                output_attentions=attentions is not None)
    if attentions is not None:
        attentions.extend(out.attentions)
    return out.logits[0].float().numpy()


@torch.no_grad()
def steps(model, ids):
    cache, rows = None, []
    for i in ids:
        out = model(input_ids=torch.tensor([[i]]), past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        rows.append(out.logits[0, -1].float().numpy())
    return np.stack(rows)


# What llama.cpp takes for granted: SmolLM3 rotates all but every fourth layer and has no
# biases; of windows it knows those of Gemma and Phi-3, of attention's scale the head's size.
FULL = dict(use_sliding_window=False, layer_types=None)
ROTATED = dict(no_rope_layers=[1, 1, 1], no_rope_layer_interval=4)
HALF_CHANGES = {"qwen2": FULL, "mistral": dict(sliding_window=None), "smollm3": ROTATED,
                "smollm3_window": FULL | ROTATED | dict(attention_bias=False),
                "gemma2": dict(query_pre_attn_scalar=16),
                "gemma3": dict(query_pre_attn_scalar=16)}


def half_matrices(model):
    for p in model.parameters():
        if p.ndim > 1:
            p.data = p.data.half().float()
    scale = getattr(model.model.embed_tokens, "embed_scale", None)
    if scale is not None:
        scale.copy_(scale.half())
    return model


# ---- one case ----

def rounded(a):
    return [float(f"{v:.7g}") for v in a]


def lengths(name):
    return (1, 7, 8, 9) if name == "phi4mini" else (1, WINDOW - 1, WINDOW, WINDOW + 1)


def config_json(config):
    out = json.loads(config.to_json_string())
    out["dtype" if "torch_dtype" not in out else "torch_dtype"] = "float32"
    return out


def mutations(config):
    out = []

    def walk(o, path):
        for key, v in o.items():
            at = path + [key]
            if isinstance(v, dict):
                walk(v, at)
            elif key in ("rope_theta", "rms_norm_eps", "layer_norm_eps", "query_pre_attn_scalar",
                         "attn_logit_softcapping", "final_logit_softcapping",
                         "embedding_multiplier", "residual_multiplier", "attention_multiplier",
                         "logits_scaling") and v:
                out.append([at, 1.25 if key == "query_pre_attn_scalar" else 1.1])
            elif key == "factor" and o.get("rope_type") != "longrope":
                out.append([at, 1.1])
            elif key == "sliding_window" and v == WINDOW:
                out.append([at, (WINDOW - 1) / WINDOW])
    walk(config, [])
    return out


def mutated(config, path, factor):
    out = json.loads(json.dumps(config))
    o = out
    for key in path[:-1]:
        o = o[key]
    o[path[-1]] = int(round(o[path[-1]] * factor)) if isinstance(o[path[-1]], int) \
        else o[path[-1]] * factor
    return out


def load_config(spec, o):
    cls = getattr(transformers, PREFIX.get(spec["family"], spec["family"]) + "Config")
    return cls.from_dict(json.loads(json.dumps(o)))


def old_spelling(spec, config):
    out = json.loads(json.dumps(config))
    types = out.pop("layer_types", None)
    pattern = out.pop("_sliding_window_pattern", None)
    if pattern is not None:
        out["sliding_window_pattern"] = pattern
    if "dtype" in out:
        out["torch_dtype"] = out.pop("dtype")
    if TF4 and types is not None:
        assert load_config(spec, out).layer_types == types, spec
    return out


def ids_of(n):
    return [3 + (7 * i * i + 5 * i) % 37 for i in range(n)]


def run4(names):
    """Under transformers 4: configs and logits of all cases to stdout."""
    out = {}
    for name in names:
        spec = CASES[name]
        config = build_config(spec)
        saved = config_json(config)
        model, _ = build_model(config, spec)
        ids = ids_of(LENGTH)
        out[name] = {"4": saved, "old": old_spelling(spec, saved),
                     "logits": [rounded(r) for r in logits(model, ids)]}
    print(json.dumps(out))


def greedy(model, ids, n):
    """Ids and the least margin of the best logit over the next."""
    ids, new, margin = list(ids), [], 1e9
    for _ in range(n):
        top = np.sort(logits(model, ids)[-1])[::-1]
        margin = min(margin, float(top[0] - top[1]))
        new.append(int(logits(model, ids)[-1].argmax()))
        ids.append(new[-1])
        if new[-1] == 2:
            break
    return new, margin


def run(name, from4):
    spec = CASES[name]
    config = build_config(spec)
    saved = config_json(config)
    model, tensors = build_model(config, spec)
    ids, maps = ids_of(LENGTH), []
    full = logits(model, ids, maps)
    other = np.array(from4["logits"])
    diff4 = float(abs(full - other).max())
    assert diff4 < 2e-5, (name, diff4)
    again = load_config(spec, saved)
    assert abs(logits(build_model(again, spec)[0], ids) - full).max() < 1e-6, name
    runs = {n: logits(model, ids[:n])[-1] for n in lengths(name)}
    new, margin = greedy(model, ids[:PROMPT], 0 if name == "phi4mini" else NEW)
    assert margin > 2e-3, (name, margin)
    changes = mutations(saved)
    shown = []
    for path, factor in changes:
        m, _ = build_model(load_config(spec, mutated(saved, path, factor)), spec)
        shown.append(float(abs(logits(m, ids) - full).max()))
        assert shown[-1] > 2e-3, (name, path, shown[-1])
    peak = float(np.mean([a[0, :, 4:].amax(-1).mean().item() for a in maps]))
    print(f"{name:18s} |4 - 5| {diff4:.1e}  peak {peak:.2f}  logits {abs(full).max():.1f}  "
          f"margin {margin:.3f}  least change {min(shown):.1e} of {len(shown)}")
    out = {"transformers": [from4_version, transformers.__version__], "torch": torch.__version__,
           "configs": {"5": saved, "4": from4["4"], "old": from4["old"]}, "tensors": tensors,
           "ids": ids, "step_from": 9 if name == "phi4mini" else 3,
           "logits": [rounded(r) for r in full],
           "runs": {str(n): rounded(r) for n, r in runs.items()},
           "greedy": {"prompt": PROMPT, "ids": new}, "mutations": changes}
    ROOT.mkdir(parents=True, exist_ok=True)
    stepped = steps(model, ids)
    if name == "phi4mini":
        out["steps"] = [rounded(r) for r in stepped]
    else:
        assert abs(stepped - full).max() < 2e-5, name
    half = HALF_CHANGES.get(name, {})
    model = half_matrices(build_model(load_config(spec, saved | half), spec)[0])
    out["half"] = {"changes": half, "runs": {str(n): rounded(logits(model, ids[:n])[-1])
                                             for n in lengths(name)}}
    text = json.dumps(out, separators=(",", ":")).replace('],"', '],\n"').replace('},"', '},\n"')
    (ROOT / f"{name}.json").write_text(text + "\n")


def main():
    if TF4:
        run4(sys.argv[1:])
        return
    global from4_version
    names = sys.argv[1:] or list(CASES)
    env = os.environ | {"PYTHONPATH": os.environ["ORACLE_TF4"]}
    got = json.loads(subprocess.run([sys.executable, __file__, *names], env=env, check=True,
                                    stdout=subprocess.PIPE).stdout)
    from4_version = subprocess.run(
        [sys.executable, "-c", "import transformers; print(transformers.__version__)"], env=env,
        check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    for name in names:
        run(name, got[name])


if __name__ == "__main__":
    main()
