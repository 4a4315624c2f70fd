#!/usr/bin/env python3
"""Loss and LoRA gradients of the tiny models of every decoder family without experts.

tests/golden/nn/families_lora.json, by the cases of family_goldens.py:
    loss     cross entropy of `ids` there, the next token being the target
    grads    {module.lora_A | module.lora_B: [p0, p1, p2, norm]}: products of the gradient
             with three fixed directions, and its length

Adapters are on every linear; their values follow by family_goldens' formula from the names
module.lora_A and module.lora_B, the directions from these with .0, .1 and .2 behind.  So a
test needs no weights, and a gradient that is wrong anywhere changes its products.

    python3 tools/oracle/family_lora_goldens.py   (torch, transformers 5, peft)
"""
import json
import pathlib

import numpy as np
import peft
import torch
import transformers

import family_goldens as fam

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "nn" / "families_lora.json"
R, ALPHA, PROBES = 2, 3, 3
SKIPPED = ("qwen3_moe", "gpt_oss")


def values(name, shape, scale=1.0):
    return torch.from_numpy(fam.values(name, tuple(shape), 0.0, np.float32(scale)))


def run(name):
    spec = fam.CASES[name]
    model, _ = fam.build_model(fam.build_config(spec), spec)
    leaves = sorted({n.split(".")[-1] for n, m in model.named_modules()
                     if isinstance(m, torch.nn.Linear) and "lm_head" not in n})
    wrapped = peft.get_peft_model(model, peft.LoraConfig(
        r=R, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=leaves, bias="none",
        task_type="CAUSAL_LM"))
    params = {}
    for n, p in wrapped.named_parameters():
        if p.requires_grad:
            n = n.removeprefix("base_model.model.").removesuffix(".default.weight")
            p.data = values(n, p.shape, 0.25)
            params[n] = p
    ids = torch.tensor([fam.ids_of(fam.LENGTH)])
    logits = wrapped(input_ids=ids, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:])
    loss.backward()
    grads = {}
    for n, p in params.items():
        g = p.grad.double()
        row = [float((g * values(f"{n}.{i}", p.shape).double()).sum()) for i in range(PROBES)]
        grads[n] = fam.rounded(row + [float(g.norm())])
    print(f"{name:18s} loss {loss.item():.4f}  {len(grads)} gradients, least "
          f"{min(v[-1] for v in grads.values()):.2e}")
    return {"loss": fam.rounded([loss.item()])[0], "grads": grads}


torch.set_num_threads(1)
out = {"versions": {"torch": torch.__version__, "transformers": transformers.__version__,
                    "peft": peft.__version__}, "r": R, "alpha": ALPHA,
       "cases": {n: run(n) for n in fam.CASES if n not in SKIPPED}}
text = json.dumps(out, separators=(",", ":")).replace('],"', '],\n"').replace('},"', '},\n"')
OUT.write_text(text + "\n")
print(OUT.stat().st_size, "bytes")
