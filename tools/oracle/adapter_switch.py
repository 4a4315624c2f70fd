#!/usr/bin/env python3
"""Two adapters of PEFT's on one int4 base, for tests/unit/pass/adapter_switch_test.c.

    python3 tools/oracle/adapter_switch.py              tests/golden/switch, of the tiny Llama
    python3 tools/oracle/adapter_switch.py MODEL OUT    the same of a Hugging Face folder, for
                                                        DRUPE_TEST_SWITCH=OUT

  base/           the model, its linears rounded here to 4 bits in AutoGPTQ's files
  a/, b/          as save_pretrained writes them: rank 4, alpha 32 on q and v; rank 16, rslora
                  on all linears; each trained by torch to end prompts in its own way
  expected.json   prompts, and the greedy tokens of base, a and b in float32 over what base's
                  codes stand for; the least distance of a best logit from the second
"""
import json
import pathlib
import sys

import numpy as np
import peft
import torch
import transformers
from hf_goldens import CONFIGS as LAYOUTS, pack
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"
SEED, NEW, PROMPTS, PROMPT, MARGIN = 20261127, 12, 3, 6, 1e-3
TEXTS = ["The capital of France is", "def fibonacci(n):", "What should I see in Chicago?"]
ENDS = {"a": " Paris, where it rains on roofs of zinc.", "b": "\n\nI do not know. Ask a map."}
CONFIGS = {
    "a": peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=32, lora_dropout=0.0,
                         target_modules=["q_proj", "v_proj"]),
    "b": peft.LoraConfig(task_type="CAUSAL_LM", r=16, use_rslora=True, lora_dropout=0.0,
                         target_modules="all-linear"),
}


def round4(key, weight, group, packed):
    """Round to nearest, asymmetric; what the codes stand for, with their bytes in packed."""
    n, k = weight.shape
    w = weight.float().numpy().reshape(n, k // group, group)
    low, high = np.minimum(w.min(2), 0), np.maximum(w.max(2), 0)
    s = ((high - low) / 15).astype(np.float16)
    z = np.clip(np.rint(-low / s.astype(np.float32)), 0, 15).astype(np.uint8)
    q = np.clip(np.rint(w / s.astype(np.float32)[:, :, None]) + z[:, :, None], 0, 15)
    q = q.astype(np.uint8).reshape(n, k)
    for part, v in pack("gptq", q, z, s, group).items():
        packed[key.removesuffix("weight") + part] = torch.tensor(np.ascontiguousarray(v))
    wide = [np.repeat(x.astype(np.float32), group, 1) for x in (z, s)]
    return torch.tensor((q.astype(np.float32) - wide[0]) * wide[1])


def make_base(source, out, group):
    config = json.loads((source / "config.json").read_text())
    state = load_file(source / "model.safetensors")
    packed, plain = {}, {}
    for key, w in state.items():
        if "_proj.weight" in key:
            plain[key] = round4(key, w, group, packed)
        else:
            packed[key], plain[key] = w, w.float()
    out.mkdir(parents=True, exist_ok=True)
    save_file(packed, out / "model.safetensors", metadata={"format": "pt"})
    quant = LAYOUTS["gptq"] | {"group_size": group}
    (out / "config.json").write_text(
        json.dumps(config | {"quantization_config": quant}, indent=1) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        if (source / name).is_file():
            (out / name).write_bytes((source / name).read_bytes())
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.from_pretrained(source, dtype=torch.float32),
        attn_implementation="eager").float()
    model.load_state_dict(plain, strict=False)
    model.tie_weights()
    return model.eval()


def train(model, prompts, end, steps, rate):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], rate)
    for _ in range(steps):
        for ids in prompts:
            row = torch.tensor([ids + end])
            labels = row.clone()
            labels[0, :len(ids)] = -100
            model(row, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def greedy(model, ids):
    """At most NEW tokens, up to an end, and the least distance of a best logit from the second.
    """
    row, least = list(ids), float("inf")
    with torch.no_grad():
        while len(row) < len(ids) + NEW:
            best = model(torch.tensor([row])).logits[0, -1].topk(2)
            least = min(least, float(best.values[0] - best.values[1]))
            if int(best.indices[0]) == model.config.eos_token_id:
                break
            row.append(int(best.indices[0]))
    return row[len(ids):], least


def tokens(source, vocab):
    """Prompts, and what each adapter is to say."""
    if (source / "tokenizer.json").is_file():
        t = transformers.AutoTokenizer.from_pretrained(source)
        return [t.encode(x) for x in TEXTS], {k: t.encode(v)[:NEW] for k, v in ENDS.items()}
    pick = [torch.randint(3, vocab, (n,)).tolist() for n in [PROMPT] * PROMPTS + [NEW] * 2]
    return pick[:PROMPTS], dict(zip(CONFIGS, pick[PROMPTS:]))


def main():
    real = len(sys.argv) > 1
    source = pathlib.Path(sys.argv[1]) if real else HERE / "tiny" / "llama"
    out = pathlib.Path(sys.argv[2]) if real else HERE / "switch"
    transformers.logging.set_verbosity_error()
    torch.manual_seed(SEED)
    model = make_base(source, out / "base", 64 if real else 16)
    prompts, ends = tokens(source, model.config.vocab_size)
    found = {"base": [greedy(model, p) for p in prompts]}
    for name, config in CONFIGS.items():
        with_adapter = peft.get_peft_model(model, config)
        train(with_adapter, prompts, ends[name], 4, 1e-3 if real else 1e-2)
        found[name] = [greedy(with_adapter.eval(), p) for p in prompts]
        with_adapter.save_pretrained(out / name)
        (out / name / "README.md").unlink(missing_ok=True)
        if not real:
            text = (out / name / "adapter_config.json").read_text()
            (out / name / "adapter_config.json").write_text(text.replace(str(source), "base"))
        model = with_adapter.unload()
    least = min(margin for rows in found.values() for _, margin in rows)
    assert least > MARGIN, f"too close to call: {least}"
    for f in out.rglob("*"):
        if f.is_file():
            f.chmod(0o644)
    versions = {m.__name__: m.__version__ for m in (torch, transformers, peft, np)}
    (out / "expected.json").write_text(json.dumps({
        "made_by": "tools/oracle/adapter_switch.py", "seed": SEED, "versions": versions,
        "least_margin": least, "new": NEW, "prompts": prompts,
        **{k: [ids for ids, _ in rows] for k, rows in found.items()}}) + "\n")
    print(f"least margin {least:.3g}; " + "; ".join(f"{k} {v[0][0]}" for k, v in found.items()))


main()
