#!/usr/bin/env python3
"""Decoding speed of exported folders beside each other, in one runtime and one process.

    decode_speed.py [--prompt N] [--tokens N] [--rounds N] [--threads N] FOLDER...

Each folder gets the same random ids as its prompt, then --tokens greedy tokens; folders take
turns, round after round, so that a busy machine disturbs all of them alike.  Prints the
median milliseconds a token, and tokens a second.
"""
import argparse
import json
import pathlib
import random
import statistics
import time

import onnxruntime_genai as og


def open_model(folder, threads):
    config = og.Config(str(folder))
    if threads:
        config.overlay(json.dumps({"model": {"decoder": {"session_options": {
            "intra_op_num_threads": threads}}}}))
    return og.Model(config)


def decode(model, ids, count):
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=len(ids) + count, min_length=len(ids) + count,
                              do_sample=False)
    generator = og.Generator(model, params)
    generator.append_tokens(ids)
    generator.generate_next_token()
    times = []
    for _ in range(count - 1):
        start = time.perf_counter()
        generator.generate_next_token()
        times.append(1e3 * (time.perf_counter() - start))
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    a = parser.parse_args()
    models = [open_model(f, a.threads) for f in a.folders]
    vocab = min(json.loads((f / "genai_config.json").read_text())["model"]["vocab_size"]
                for f in a.folders)
    ids = [random.Random(1).randrange(3, vocab) for _ in range(a.prompt)]
    times = [[] for _ in models]
    for _ in range(a.rounds):
        for i, model in enumerate(models):
            times[i] += decode(model, ids, a.tokens)
    for folder, t in zip(a.folders, times):
        ms = statistics.median(t)
        print(f"{ms:8.3f} ms a token  {1e3 / ms:7.1f} tokens/s  {folder}")


if __name__ == "__main__":
    main()
