#!/usr/bin/env python3
"""Runs an exported model folder; needs numpy, onnxruntime, onnxruntime_genai alone.

Started by onnx_proof.py with the interpreter of each runtime version:

    onnx_run.py JOB.npz OUT.npz      ids [T], text fields: model, mode, adapter

mode  full      logits [T, V] of one run over all ids
      steps     logits [T, V]: the first 5 ids at once, then one at a time with the cache
      greedy:N  tokens [N] by ONNX Runtime GenAI, either API (0.5 or 0.18)
      session:N the same tokens without GenAI: by the session, the best logit of each
      time:N    N tokens one at a time after the ids: milliseconds each
adapter         path of an .onnx_adapter, or ""
"""
import sys
import time

import numpy as np


def session(job):
    import onnxruntime as ort

    ort.set_default_logger_severity(3)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    s = ort.InferenceSession(job["model"] + "/model.onnx", options)
    run = ort.RunOptions()
    adapter = None
    if job["adapter"]:
        adapter = ort.LoraAdapter()
        adapter.Load(job["adapter"])
        run.add_active_adapter(adapter)
    return s, run, adapter


def step(s, run, ids, past, total):
    feed = {"input_ids": np.array([ids], np.int64),
            "attention_mask": np.ones((1, total), np.int64), **past}
    names = [o.name for o in s.get_outputs()]
    out = dict(zip(names, s.run(names, feed, run)))
    past = {n.replace("present", "past_key_values"): v
            for n, v in out.items() if n != "logits"}
    return out["logits"][0], past


def empty(s):
    past = {}
    for i in s.get_inputs():
        if i.name.startswith("past_key_values"):
            past[i.name] = np.zeros((1, i.shape[1], 0, i.shape[3]), np.float32)
    return past


def logits(job, cuts):
    s, run, keep = session(job)
    past, rows, ids = empty(s), [], job["ids"]
    for a, b in zip(cuts, cuts[1:]):
        y, past = step(s, run, ids[a:b], past, b)
        rows.append(y)
    return {"logits": np.concatenate(rows)}


def timed(job, n):
    s, run, keep = session(job)
    ids = job["ids"]
    _, past = step(s, run, ids, empty(s), len(ids))
    times = []
    for i in range(n):
        t = time.perf_counter()
        _, past = step(s, run, ids[:1], past, len(ids) + i + 1)
        times.append(time.perf_counter() - t)
    return {"ms": np.array(times) * 1000}


def greedy(job, n):
    import onnxruntime_genai as og

    model = og.Model(job["model"])
    ids = [int(i) for i in job["ids"]]
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=len(ids) + n, do_sample=False)
    adapters = None
    if job["adapter"]:
        adapters = og.Adapters(model)
        adapters.load(job["adapter"], "a")
    old = not hasattr(og.Generator, "append_tokens")
    if old:
        params.input_ids = np.array([ids], np.int32)
    g = og.Generator(model, params)
    if adapters:
        g.set_active_adapter(adapters, "a")
    if not old:
        g.append_tokens(ids)
    while not g.is_done():
        if old:
            g.compute_logits()
        g.generate_next_token()
    return {"tokens": np.array(g.get_sequence(0)[len(ids):], np.int64)}


def session_greedy(job, n):
    s, run, keep = session(job)
    ids, tokens = list(job["ids"]), []
    y, past = step(s, run, ids, empty(s), len(ids))
    for i in range(n):
        tokens.append(int(y[-1].argmax()))
        y, past = step(s, run, tokens[-1:], past, len(ids) + i + 1)
    return {"tokens": np.array(tokens, np.int64)}


def main():
    job = dict(np.load(sys.argv[1]))
    job = {k: v if k == "ids" else str(v) for k, v in job.items()}
    mode, _, n = job["mode"].partition(":")
    count = len(job["ids"])
    if mode == "full":
        out = logits(job, [0, count])
    elif mode == "steps":
        out = logits(job, [0, *range(min(5, count), count + 1)])
    elif mode == "greedy":
        out = greedy(job, int(n))
    elif mode == "session":
        out = session_greedy(job, int(n))
    else:
        out = timed(job, int(n))
    np.savez(sys.argv[2], **out)


if __name__ == "__main__":
    main()
