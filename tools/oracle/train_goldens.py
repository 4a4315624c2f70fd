#!/usr/bin/env python3
"""Ten steps of LoRA by PEFT and torch, for tests/unit/train.

train_goldens.py REPO   writes tests/golden/train/:
  ids.safetensors   input_ids [6, 24]
  start/, end/      PEFT folders before and after
  losses.json       loss and gradient norm of each step, versions, settings
The base is tests/golden/tiny/llama in float32; blocks in order, batch 2, two micro-batches a
step, AdamW, gradients clipped at 1; the Trainer's own arithmetic is what this loop spells out.
"""
import json
import pathlib
import sys

import peft
import safetensors.torch
import torch
import transformers

REPO = pathlib.Path(sys.argv[1])
OUT = REPO / "tests/golden/train"
STEPS, BATCH, ACCUMULATION, LR, DECAY = 10, 2, 2, 2e-2, 0.01

torch.manual_seed(7)
base = transformers.AutoModelForCausalLM.from_pretrained(
    REPO / "tests/golden/tiny/llama", dtype=torch.float32, attn_implementation="eager")
ids = torch.randint(0, base.config.vocab_size, (6, 24))
config = peft.LoraConfig(r=4, lora_alpha=6, lora_dropout=0.0,
                         target_modules=["q_proj", "v_proj", "down_proj"],
                         task_type="CAUSAL_LM")
model = peft.get_peft_model(base, config)
for name, p in model.named_parameters():
    if "lora_B" in name:  # zeros hide half of the gradients
        torch.nn.init.normal_(p, std=0.05)
OUT.mkdir(parents=True, exist_ok=True)
model.save_pretrained(OUT / "start")
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
        loss = model(input_ids=batch, labels=batch).loss / len(group)
        loss.backward()
        total += loss.item()
    norm = torch.nn.utils.clip_grad_norm_(trained, 1.0).item()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(total)
    norms.append(norm)
model.save_pretrained(OUT / "end")
for folder in ("start", "end"):
    (OUT / folder / "README.md").unlink(missing_ok=True)
    path = OUT / folder / "adapter_config.json"
    text = json.loads(path.read_text())
    text["base_model_name_or_path"] = "llama"
    text["target_modules"] = sorted(text["target_modules"])
    path.write_text(json.dumps(text, indent=2) + "\n")
safetensors.torch.save_file({"input_ids": ids}, OUT / "ids.safetensors")
(OUT / "losses.json").write_text(json.dumps({
    "losses": losses, "grad_norms": norms, "steps": STEPS, "batch": BATCH,
    "accumulation": ACCUMULATION, "learning_rate": LR, "weight_decay": DECAY,
    "torch": torch.__version__, "peft": peft.__version__,
    "transformers": transformers.__version__}, indent=2) + "\n")
print(losses)
print(norms)
