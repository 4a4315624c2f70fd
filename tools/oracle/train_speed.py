#!/usr/bin/env python3
"""What a LoRA step takes in PEFT and torch, in float32 on the CPU, for tests/bench/run peft.

    python3 tools/oracle/train_speed.py MODEL [STEPS [BATCH [LENGTH [RANK]]]]    (3, 8, 256, 64)

Prints the seconds of user time of a step (the first, which warms up, is not counted), wall
seconds of one, and the largest resident memory in KiB.  As olive finetune has it: q_proj and
v_proj, alpha 16, dropout 0.05, AdamW; without gradient checkpointing, which is slower.
"""
import os
import resource
import sys
import time

import peft
import torch
import transformers

model_dir = sys.argv[1]
steps, batch, length, rank = (int(sys.argv[i]) if len(sys.argv) > i else d
                              for i, d in ((2, 3), (3, 8), (4, 256), (5, 64)))
transformers.logging.set_verbosity_error()
torch.set_num_threads(len(os.sched_getaffinity(0)))
torch.manual_seed(0)
model = peft.get_peft_model(
    transformers.AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32),
    peft.LoraConfig(r=rank, lora_alpha=16, lora_dropout=0.05, target_modules=["q_proj", "v_proj"],
                    task_type="CAUSAL_LM"))
trained = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=2e-4)
model.train()


def now():
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime, time.monotonic()


for step in range(steps + 1):
    if step == 1:
        user, wall = now()
    ids = torch.randint(3, model.config.vocab_size, (batch, length))
    model(input_ids=ids, labels=ids).loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    optimizer.zero_grad()
end = now()
print(f"{(end[0] - user) / steps:.3f} {(end[1] - wall) / steps:.3f} "
      f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}")
