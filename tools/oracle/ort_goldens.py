#!/usr/bin/env python3
"""What GenAI's own Python package generates from a model folder, for generator_test.

    ort_goldens.py MODEL_DIR [--adapter NAME] [--text TEXT] [--new N]

writes MODEL_DIR/expect.json: the text, its ids, and the new ids of a greedy run (without an
end-of-sequence id).  NAME is a file in MODEL_DIR.  Works with onnxruntime-genai 0.5, where
the prompt is a parameter, and with later ones, where it is appended.

    DRUPE_TEST_GENAI_DIR=MODEL_DIR generator_test
"""
import argparse
import json
import os

import onnxruntime
import onnxruntime_genai as og


def main():
    p = argparse.ArgumentParser()
    p.add_argument("model_dir")
    p.add_argument("--adapter")
    p.add_argument("--text", default="The capital of France is")
    p.add_argument("--new", type=int, default=32)
    a = p.parse_args()

    with open(os.path.join(a.model_dir, "genai_config.json")) as f:
        eos = json.load(f)["model"]["eos_token_id"]
    eos = set(eos if isinstance(eos, list) else [eos])
    model = og.Model(a.model_dir)
    prompt = [int(i) for i in og.Tokenizer(model).encode(a.text)]
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=len(prompt) + a.new, do_sample=False)
    old = not hasattr(og.Generator, "append_tokens")
    if old:
        params.input_ids = prompt
    generator = og.Generator(model, params)
    if a.adapter:
        adapters = og.Adapters(model)
        adapters.load(os.path.join(a.model_dir, a.adapter), "adapter")
        generator.set_active_adapter(adapters, "adapter")
    if not old:
        generator.append_tokens(prompt)
    new = []
    while not generator.is_done():
        if old:
            generator.compute_logits()
        generator.generate_next_token()
        new.append(int(generator.get_next_tokens()[0]))
    if new and new[-1] in eos:
        new.pop()
    golden = {
        "onnxruntime": onnxruntime.__version__,
        "onnxruntime_genai": og.__version__,
        "text": a.text,
        "adapter": a.adapter,
        "prompt": prompt,
        "new": new,
    }
    with open(os.path.join(a.model_dir, "expect.json"), "w") as f:
        json.dump(golden, f, indent=1)
        f.write("\n")
    print(golden)


if __name__ == "__main__":
    main()
