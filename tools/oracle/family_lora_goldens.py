#!/usr/bin/env python3
"""Loss and adapters' gradients of the tiny models of every decoder family without experts.

tests/golden/nn/families_lora.json, by the cases of family_goldens.py:
    loss     cross entropy of `ids` there, the next token being the target
    grads    {module.lora_A | module.lora_B: [p0, p1, p2, norm]}: products of the gradient
             with three fixed directions, and its length

Adapters are on every linear; their values follow by family_goldens' formula from the names
module.lora_A and module.lora_B, the directions from these with .0, .1 and .2 behind.  So a
test needs no weights, and a gradient that is wrong anywhere changes its products.

tests/golden/train/families_kinds.json, of DoRA, LoHa and LoKr:
    kind.case: {"loss": as above, "grads": {leaf.part: [p, norm]}}: p the sum over layers of
             products with the direction .0, norm the length over all layers
DoRA's magnitudes are their start times 1 + 0.25 u, u the formula's number.

    python3 tools/oracle/family_lora_goldens.py [kinds]   (torch, transformers 5, peft)
"""
import json
import pathlib
import sys

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


KINDS = {
    "dora": lambda leaves: peft.LoraConfig(
        r=R, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=leaves, use_dora=True,
        task_type="CAUSAL_LM"),
    "loha": lambda leaves: peft.LoHaConfig(r=R, alpha=ALPHA, target_modules=leaves,
                                           task_type="CAUSAL_LM"),
    "lokr": lambda leaves: peft.LoKrConfig(r=R, alpha=ALPHA, target_modules=leaves,
                                           task_type="CAUSAL_LM"),
    "lora": lambda leaves: peft.LoraConfig(
        r=R, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=leaves, bias="none",
        task_type="CAUSAL_LM"),
}


def gradients(name, kind):
    """The loss, and parameters by name with their gradients."""
    spec = fam.CASES[name]
    model, _ = fam.build_model(fam.build_config(spec), spec)
    leaves = sorted({n.split(".")[-1] for n, m in model.named_modules()
                     if isinstance(m, torch.nn.Linear) and "lm_head" not in n})
    wrapped = peft.get_peft_model(model, KINDS[kind](leaves))
    params = {}
    for n, p in wrapped.named_parameters():
        if p.requires_grad:
            n = n.removeprefix("base_model.model.").removesuffix(".weight")
            n = n.removesuffix(".default")
            u = values(n, p.shape, 0.25)
            p.data = p.data * (1 + u) if "magnitude" in n else u
            params[n] = p
    ids = torch.tensor([fam.ids_of(fam.LENGTH)])
    logits = wrapped(input_ids=ids, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:])
    loss.backward()
    return fam.rounded([loss.item()])[0], params


def run(name):
    loss, params = gradients(name, "lora")
    grads = {}
    for n, p in params.items():
        g = p.grad.double()
        row = [float((g * values(f"{n}.{i}", p.shape).double()).sum()) for i in range(PROBES)]
        grads[n] = fam.rounded(row + [float(g.norm())])
    print(f"{name:18s} loss {loss:.4f}  {len(grads)} gradients, least "
          f"{min(v[-1] for v in grads.values()):.2e}")
    return {"loss": loss, "grads": grads}


def run_kind(name, kind):
    loss, params = gradients(name, kind)
    sums = {}
    for n, p in params.items():
        g = p.grad.double()
        row = sums.setdefault(".".join(n.split(".")[-2:]), [0.0, 0.0])
        row[0] += float((g * values(f"{n}.0", p.shape).double()).sum())
        row[1] += float((g * g).sum())
    grads = {k: fam.rounded([p, square ** 0.5]) for k, (p, square) in sums.items()}
    print(f"{kind} {name:18s} loss {loss:.4f}  {len(grads)} gradients, least "
          f"{min(v[1] for v in grads.values()):.2e}")
    return {"loss": loss, "grads": grads}


def write(path, cases):
    out = {"versions": {"torch": torch.__version__, "transformers": transformers.__version__,
                        "peft": peft.__version__}, "r": R, "alpha": ALPHA, "cases": cases}
    text = json.dumps(out, separators=(",", ":"))
    path.write_text(text.replace('],"', '],\n"').replace('},"', '},\n"') + "\n")
    print(path.stat().st_size, "bytes")


torch.set_num_threads(1)
names = [n for n in fam.CASES if n not in SKIPPED]
if "kinds" not in sys.argv:
    write(OUT, {n: run(n) for n in names})
write(OUT.parents[1] / "train" / "families_kinds.json",
      {f"{k}.{n}": run_kind(n, k) for k in KINDS if k != "lora" for n in names})
