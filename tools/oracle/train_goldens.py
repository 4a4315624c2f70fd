#!/usr/bin/env python3
"""Ten steps of each kind of adapter by PEFT and torch, for tests/unit/train.

train_goldens.py REPO [CASE ...]   writes tests/golden/train/ (case lora) and
                                   tests/golden/train/CASE/ for the others:
  ids.safetensors   input_ids [6, 24], of all cases
  start/, end/      PEFT folders before and after
  losses.json       loss and gradient norm of each step, versions, settings
  base.safetensors  qlora, loftq: what the base's linears are computed with
  merged.safetensors  loha, lokr: a linear with the trained adapter in it
The base is tests/golden/tiny/FAMILY in float32; blocks in order, batch 2, two micro-batches a
step, AdamW, gradients clipped at 1; the Trainer's own arithmetic is what this loop spells out.

A base of 4 bits is rounded here, in NumPy, to bitsandbytes' table and blocks: bitsandbytes
itself wants a GPU for LoftQ.  pissa's end is what PEFT saves with
path_initial_model_for_weight_conversion.
"""
import copy
import json
import pathlib
import sys

import numpy as np
import peft
import safetensors.torch
import torch
import transformers
from peft.utils.loftq_utils import _low_rank_decomposition
from transformers.trainer_pt_utils import LabelSmoother

REPO = pathlib.Path(sys.argv[1])
OUT = REPO / "tests/golden/train"
STEPS, BATCH, ACCUMULATION, LR, DECAY = 10, 2, 2, 2e-2, 0.01
MODULES = ["q_proj", "v_proj", "down_proj"]
MORE = ["q_proj", "o_proj", "gate_proj", "down_proj"]
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

# bitsandbytes.functional.get_4bit_type("nf4"); create_dynamic_map for absmax of absmax
NF4 = np.array([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0], np.float32)


def dynamic_map():
    """bitsandbytes.functional.create_dynamic_map(): signed, 7 exponent bits, 8 in all."""
    data = []
    for i in range(7):
        fractions = 2 ** i + 1
        bounds = np.linspace(0.1, 1, fractions)
        means = (bounds[:-1] + bounds[1:]) / 2.0
        data += (10 ** (-6 + i) * means).tolist()
        data += (-(10 ** (-6 + i)) * means).tolist()
    data += [0, 1.0]
    return np.array(sorted(data), np.float32)


def nearest(table, x):
    """The closest number of a table that rises; of two the lower one."""
    middles = (table[1:].astype(np.float64) + table[:-1]) / 2
    return np.searchsorted(middles, x.astype(np.float64), side="left")


def over(scales):
    """Reciprocals in float, as the kernels multiply with."""
    return np.float32(1) / np.where(scales == 0, np.float32(np.inf), scales)


def nf4(weight, double=False):
    """As bitsandbytes: blocks of 64 of the weight as one run."""
    flat = weight.numpy().reshape(-1)
    blocks = np.pad(flat, (0, -len(flat) % 64)).reshape(-1, 64)
    absmax = np.abs(blocks).max(1)
    scale = absmax
    codes = nearest(NF4, blocks * over(absmax)[:, None])
    if double:
        offset = np.float32(absmax.mean(dtype=np.float64))
        rest = np.pad(absmax - offset, (0, -len(absmax) % 256)).reshape(-1, 256)
        most = np.abs(rest).max(1)
        table = dynamic_map()
        eights = nearest(table, rest * over(most)[:, None])
        scale = (table[eights] * most[:, None]).reshape(-1)[:len(absmax)] + offset
    out = (NF4[codes] * scale[:, None].astype(np.float32)).reshape(-1)[:len(flat)]
    return torch.from_numpy(out.reshape(weight.shape).astype(np.float32))


def linears(model, names):
    for path, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and path.split(".")[-1] in names:
            yield path, module


def round_base(model, double):
    for _, module in linears(model, ALL):
        module.weight.data = nf4(module.weight.data, double)


def lora(**more):
    return peft.LoraConfig(**{**dict(r=4, lora_alpha=6, lora_dropout=0.0,
                                     target_modules=MODULES, task_type="CAUSAL_LM"), **more})


CASES = {
    "lora": dict(config=lora()),
    "rslora": dict(config=lora(use_rslora=True)),
    "dora": dict(config=lora(use_dora=True, target_modules=MORE)),
    "dora_qwen2": dict(family="qwen2", config=lora(use_dora=True, target_modules=ALL)),
    "smoothed": dict(smoothing=0.1),  # from lora's start, whose folder is not written again
    "qlora": dict(config=lora(target_modules=ALL), four=False),
    "qlora_double": dict(config=lora(target_modules=ALL), four=True),
    "pissa": dict(config=lora(init_lora_weights="pissa")),
    "loftq": dict(config=lora(target_modules=ALL), loftq=1),
    "loftq_3": dict(config=lora(target_modules=ALL), loftq=3),
    "loha": dict(config=peft.LoHaConfig(r=3, alpha=6, target_modules=MODULES,
                                        task_type="CAUSAL_LM")),
    "lokr": dict(config=peft.LoKrConfig(r=3, alpha=6, target_modules=MORE,
                                        task_type="CAUSAL_LM")),
    "lokr_both": dict(config=peft.LoKrConfig(r=2, alpha=3, decompose_both=True,
                                             decompose_factor=8, target_modules=MODULES,
                                             task_type="CAUSAL_LM")),
    "lokr_whole": dict(config=peft.LoKrConfig(r=64, alpha=16, target_modules=MODULES,
                                              task_type="CAUSAL_LM")),
}
ZEROS = ("lora_B", "hada_w2_b", "lokr_w1")


def loftq(model, base, rounds):
    """peft.utils.loftq_utils.loftq_init with nf4 from here."""
    for path, module in linears(base, ALL):
        weight = module.weight.data.clone()
        rest = weight.clone()
        for i in range(rounds):
            rounded = nf4(rest)
            parts = _low_rank_decomposition(weight - rounded, 4)
            rest = weight - parts["L"] @ parts["R"]
        adapted = model.base_model.model.get_submodule(path)
        adapted.base_layer.weight.data = rounded
        adapted.lora_A["default"].weight.data = parts["R"].contiguous()
        adapted.lora_B["default"].weight.data = parts["L"].contiguous()


def save(model, folder, family, **more):
    model.save_pretrained(folder, **more)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    text = json.loads(path.read_text())
    text["base_model_name_or_path"] = family
    text["target_modules"] = sorted(text["target_modules"])
    path.write_text(json.dumps(text, indent=2) + "\n")
    for f in folder.iterdir():
        f.chmod(0o644)


def one(name, ids, family="llama", config=None, four=None, loftq=0, smoothing=0.0):
    out = OUT if name == "lora" else OUT / name
    smoother = LabelSmoother(epsilon=smoothing)
    base = transformers.AutoModelForCausalLM.from_pretrained(
        REPO / "tests/golden/tiny" / family, dtype=torch.float32, attn_implementation="eager")
    if four is not None:
        round_base(base, four)
    ids = ids % base.config.vocab_size
    plain = copy.deepcopy(base)
    if smoothing:
        model = peft.PeftModel.from_pretrained(base, OUT / "start", is_trainable=True)
    else:
        model = peft.get_peft_model(base, config)
    if loftq:
        globals()["loftq"](model, plain, loftq)
    if name not in ("pissa", "loftq", "loftq_3", "smoothed"):
        for key, p in model.named_parameters():
            if any(z in key for z in ZEROS):  # zeros hide half of the gradients
                torch.nn.init.normal_(p, std=0.05)
            if "magnitude" in key:
                p.data *= 1 + 0.1 * torch.rand_like(p)
    out.mkdir(parents=True, exist_ok=True)
    if not smoothing:
        save(model, out / "start", family)
    if four is not None or loftq:
        layer = "model.layers.1.self_attn.k_proj"
        weight = model.base_model.model.get_submodule(layer).base_layer.weight
        safetensors.torch.save_file({layer + ".weight": weight.detach().clone()},
                                    out / "base.safetensors")
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LR, betas=(0.9, 0.999), eps=1e-8,
                                  weight_decay=DECAY)
    model.train()
    losses, norms = [], []
    batches = [ids[i:i + BATCH] for i in range(0, len(ids), BATCH)]
    groups = [batches[i:i + ACCUMULATION] for i in range(0, len(batches), ACCUMULATION)]
    for step in range(STEPS):
        group = groups[step % len(groups)]
        total = 0.0
        for batch in group:
            made = model(input_ids=batch, labels=batch)
            loss = made.loss
            if smoothing:
                loss = smoother(made, batch, shift_labels=True)
            loss = loss / len(group)
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(trained, 1.0).item()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
        norms.append(norm)
    if name.startswith("lo") and name[2:4] in ("ha", "kr"):
        layer = "model.layers.1.self_attn.q_proj"
        module = model.base_model.model.get_submodule(layer)
        merged = module.base_layer.weight + module.get_delta_weight("default")
        safetensors.torch.save_file({layer + ".weight": merged.detach().clone()},
                                    out / "merged.safetensors")
    more = {}
    if name == "pissa":
        more["path_initial_model_for_weight_conversion"] = str(out / "start")
    save(model, out / "end", family, **more)
    (out / "losses.json").write_text(json.dumps({
        "losses": losses, "grad_norms": norms, "steps": STEPS, "batch": BATCH,
        "accumulation": ACCUMULATION, "learning_rate": LR, "weight_decay": DECAY,
        "torch": torch.__version__, "peft": peft.__version__,
        "transformers": transformers.__version__}, indent=2) + "\n")
    print(name, losses[0], losses[-1])


def main():
    for name in sys.argv[2:] or CASES:
        torch.manual_seed(7)
        if name == "lora":
            # the order of draws that the first goldens were made in
            transformers.AutoModelForCausalLM.from_pretrained(
                REPO / "tests/golden/tiny/llama", dtype=torch.float32)
            ids = torch.randint(0, 128, (6, 24))
            safetensors.torch.save_file({"input_ids": ids}, OUT / "ids.safetensors")
        ids = safetensors.torch.load_file(OUT / "ids.safetensors")["input_ids"]
        one(name, ids, **CASES[name])


main()
