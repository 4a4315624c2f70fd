#!/usr/bin/env python3
"""Greedy tokens of GGUF files in llama.cpp, beside those of a Hugging Face folder.

    python3 tools/oracle/gguf_run.py tokens FILE.gguf...      (llama-cpp-python)
    python3 tools/oracle/gguf_run.py tokens FOLDER            (torch, transformers)

Prints the prompt's ids and the next 24 for each of a few prompts, one line a prompt; equal
lines are equal models as far as these prompts show.
"""
import json
import pathlib
import sys

PROMPTS = ["The capital of France is", "Once upon a time, in a small village by the sea,",
           "def fibonacci(n):\n", "The three states of matter are"]
COUNT = 24


def with_llama(path):
    from llama_cpp import Llama

    model = Llama(path, n_ctx=256, n_threads=1, verbose=False, logits_all=False)
    for prompt in PROMPTS:
        ids = model.tokenize(prompt.encode(), add_bos=True, special=True)
        model.reset()
        out = []
        for token in model.generate(ids, temp=0.0, top_k=1, repeat_penalty=1.0):
            out.append(token)
            if len(out) == COUNT:
                break
        yield ids, out


def with_transformers(path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(path)
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            out = model.generate(ids, max_new_tokens=COUNT, min_new_tokens=COUNT,
                                 do_sample=False, repetition_penalty=1.0)
        yield ids[0].tolist(), out[0, ids.shape[1]:].tolist()


for name in sys.argv[2:]:
    run = with_llama if pathlib.Path(name).suffix == ".gguf" else with_transformers
    print(name)
    for ids, out in run(name):
        print(" ", json.dumps([ids, out]))
