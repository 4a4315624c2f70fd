#!/usr/bin/env python3
"""Greedy tokens of an fp32 export beside transformers' in float32.

greedy_compare.py GGUF ONNX_FOLDER [TOKENS [BEGIN]]

BEGIN: an id before each prompt (Gemma's <bos> is 2; GenAI adds none).  Gemma multiplies its
embedding by sqrt(D) rounded to the model's type, bfloat16, and so does the reference here.
"""
import pathlib
import sys

import onnxruntime_genai as og
import torch
import transformers

PROMPTS = ["The capital of France is Paris. The capital of Germany is", "def fibonacci(n):",
           "Once upon a time", "Water boils at", "List three colours:"]

gguf, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
count = int(sys.argv[3]) if len(sys.argv) > 3 else 24
folder = folder / "model" if (folder / "model").is_dir() else folder
model = og.Model(str(folder))
tokenizer = og.Tokenizer(model)
begin = [int(sys.argv[4])] if len(sys.argv) > 4 else []
prompts = [begin + list(map(int, tokenizer.encode(p))) for p in PROMPTS]
got = []
for ids in prompts:
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=len(ids) + count, do_sample=False)
    generator = og.Generator(model, params)
    generator.append_tokens(ids)
    while not generator.is_done():
        generator.generate_next_token()
    got.append(list(map(int, generator.get_sequence(0)))[len(ids):])
reference = transformers.AutoModelForCausalLM.from_pretrained(
    gguf.parent, gguf_file=gguf.name, dtype=torch.float32).eval()
scale = getattr(reference.model.embed_tokens, "embed_scale", None)
if scale is not None:
    scale.copy_(scale.bfloat16())
bad = 0
for prompt, ids, new in zip(PROMPTS, prompts, got):
    tokens, step, past, want = list(ids), torch.tensor([ids]), None, []
    with torch.no_grad():
        for _ in range(len(new)):
            out = reference(step, past_key_values=past, use_cache=True)
            past = out.past_key_values
            want.append(int(out.logits[0, -1].argmax()))
            step = torch.tensor([want[-1:]])
    bad += want != new
    print("same" if want == new else "DIFFERS", repr(prompt), new, "" if want == new else want)
print(f"{len(PROMPTS) - bad} of {len(PROMPTS)} same")
raise SystemExit(bad > 0)
