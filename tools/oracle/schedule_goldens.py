#!/usr/bin/env python3
"""Learning rates by transformers, for tests/unit/train/schedule_test.c.

schedule_goldens.py REPO   writes tests/golden/train/schedules.json: for each schedule, with
what lr_scheduler_kwargs it had, the rate of steps 0 to 40 of 40, the first 7 being warmup; of
reduce_lr_on_plateau the rates after each of the evaluations in `losses`, the first before all.
"""
import json
import pathlib
import random
import sys

import torch
import transformers

OUT = pathlib.Path(sys.argv[1]) / "tests/golden/train/schedules.json"
RATE, STEPS, WARMUP = 3e-3, 40, 7
CASES = [("constant", {}), ("linear", {}), ("cosine", {}), ("cosine", {"num_cycles": 1.25}),
         ("cosine_with_restarts", {}), ("cosine_with_restarts", {"num_cycles": 3}),
         ("polynomial", {}), ("polynomial", {"power": 2.5, "lr_end": 1e-4}),
         ("constant_with_warmup", {}), ("inverse_sqrt", {}),
         ("inverse_sqrt", {"timescale": 20}), ("cosine_with_min_lr", {"min_lr": 2e-4}),
         ("cosine_with_min_lr", {"min_lr_rate": 0.2}),
         ("warmup_stable_decay", {"num_decay_steps": 12}),
         ("warmup_stable_decay", {"num_decay_steps": 30, "min_lr_ratio": 0.1})]

cases = []
for name, kwargs in CASES:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    scheduler = transformers.get_scheduler(name, optimizer, num_warmup_steps=WARMUP,
                                           num_training_steps=STEPS,
                                           scheduler_specific_kwargs=dict(kwargs))
    rates = []
    for _ in range(STEPS + 1):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    cases.append({"name": name, "kwargs": kwargs, "rates": rates})
rng = random.Random(3)
losses = [2 * 0.93 ** min(i, 12) + 0.02 * rng.random() for i in range(60)]
for kwargs in ({}, {"patience": 2}, {"patience": 1, "factor": 0.5, "cooldown": 3},
               {"patience": 0, "threshold": 0.05, "threshold_mode": "abs", "min_lr": 1e-4},
               {"patience": 0, "factor": 0.2, "eps": 1e-5}):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    scheduler = transformers.get_scheduler("reduce_lr_on_plateau", optimizer,
                                           scheduler_specific_kwargs=dict(kwargs))
    rates = [RATE]
    for loss in losses:
        scheduler.step(loss)
        rates.append(optimizer.param_groups[0]["lr"])
    cases.append({"name": "reduce_lr_on_plateau", "kwargs": kwargs, "rates": rates})
OUT.write_text(json.dumps({"transformers": transformers.__version__,
                           "learning_rate": RATE, "steps": STEPS, "warmup": WARMUP,
                           "losses": losses,
                           "cases": cases}, indent=1) + "\n")
