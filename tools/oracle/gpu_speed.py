#!/usr/bin/env python3
"""What LoRA steps take in PEFT and torch on a GPU, for tests/bench/gpu.

    python3 tools/oracle/gpu_speed.py MODEL [BATCH [LENGTH [RANK [STEPS]]]]      (8, 1024, 64, 12)

Prints what a hundred steps take, in seconds: a hundred times the median of STEPS after three
that warm up.  Base and products in bfloat16, attention by torch, gradient checkpointing (as
olive finetune has it), adapters on qkv_proj and o_proj, alpha 16, dropout 0.05, AdamW.
"""
import statistics
import sys
import time

import peft
import torch
import transformers

model_dir = sys.argv[1]
batch, length, rank, steps = (int(sys.argv[i]) if len(sys.argv) > i else d
                              for i, d in ((2, 8), (3, 1024), (4, 64), (5, 12)))
transformers.logging.set_verbosity_error()
torch.manual_seed(0)
model = transformers.AutoModelForCausalLM.from_pretrained(
    model_dir, dtype=torch.bfloat16, attn_implementation="sdpa", device_map="cuda")
model.config.use_cache = False
model.enable_input_require_grads()
model.gradient_checkpointing_enable()
model = peft.get_peft_model(model, peft.LoraConfig(
    r=rank, lora_alpha=16, lora_dropout=0.05, target_modules=["qkv_proj", "o_proj"],
    task_type="CAUSAL_LM"))
trained = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=2e-4)
model.train()
times = []
for _ in range(steps + 3):
    start = time.monotonic()
    ids = torch.randint(3, 32000, (batch, length), device="cuda")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        model(input_ids=ids, labels=ids).loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    torch.cuda.synchronize()
    times.append(time.monotonic() - start)
print(f"{100 * statistics.median(times[3:]):.1f}")
