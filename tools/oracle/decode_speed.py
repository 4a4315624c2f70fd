#!/usr/bin/env python3
"""Decoding speed of exported folders beside each other, in one runtime and one process.

    decode_speed.py [--prompt N] [--tokens N] [--rounds N] [--threads N] FOLDER[:ADAPTER]...

ADAPTER is a file in the folder, set active for the run.  Each folder gets the same random ids as its prompt, then --tokens greedy tokens; folders take
turns, round after round, so that a busy machine disturbs all of them alike.  Prints the
median milliseconds a token, tokens a second, and milliseconds to the first token.
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


def open_adapter(model, folder, name):
    if not name:
        return None
    adapters = og.Adapters(model)
    adapters.load(str(folder / name), name)
    return adapters


def decode(model, adapters, name, ids, count):
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=len(ids) + count, min_length=len(ids) + count,
                              do_sample=False)
    generator = og.Generator(model, params)
    if adapters:
        generator.set_active_adapter(adapters, name)
    start = time.perf_counter()
    generator.append_tokens(ids)
    generator.generate_next_token()
    first = 1e3 * (time.perf_counter() - start)
    times = []
    for _ in range(count - 1):
        start = time.perf_counter()
        generator.generate_next_token()
        times.append(1e3 * (time.perf_counter() - start))
    return first, times


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    a = parser.parse_args()
    pairs = [f.partition(":") for f in a.folders]
    folders, names = [pathlib.Path(p[0]) for p in pairs], [p[2] for p in pairs]
    opened = {f: open_model(f, a.threads) for f in folders}
    models = [opened[f] for f in folders]
    adapters = [open_adapter(m, f, n) for m, f, n in zip(models, folders, names)]
    vocab = min(json.loads((f / "genai_config.json").read_text())["model"]["vocab_size"]
                for f in folders)
    ids = [random.Random(1).randrange(3, vocab) for _ in range(a.prompt)]
    times, firsts = [[] for _ in models], [[] for _ in models]
    for _ in range(a.rounds):
        for i, model in enumerate(models):
            first, more = decode(model, adapters[i], names[i], ids, a.tokens)
            firsts[i].append(first)
            times[i] += more
    for folder, f, t in zip(a.folders, firsts, times):
        ms = statistics.median(t)
        print(f"{ms:8.3f} ms a token  {1e3 / ms:7.1f} tokens/s  "
              f"prompt {statistics.median(f):8.1f} ms  {folder}")


if __name__ == "__main__":
    main()
