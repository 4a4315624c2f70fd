#!/usr/bin/env python3
"""Every family of tests/golden/families in every form of its files, exported and compared.

    python3 tools/oracle/family_table.py DRUPE [fp32 | int4 | llama ...] [CASE ...]

fp32: the model written as sharded safetensors, pytorch_model.bin, the latter in shards (each
with config.json in the spellings 5, 4 and old of the golden), and as F16 GGUF by `convert`
where the family has a form there, with the golden's `half` changes of config.json.
transformers opens the same folder (of a GGUF: the folder it was made from, matrices rounded to
half precision).  Columns: the greatest difference of
all logits of a prompt of so many tokens at once; steps: of all tokens one by one.  The
lengths are 1, window - 1, window, window + 1, or 1, 7, 8, 9.

int4: folders in blocks of 16, generated from by ONNX Runtime GenAI of this interpreter and of
ORACLE_OLD (onnxruntime 1.20.1, onnxruntime-genai 0.5.0), beside the session's own greedy
tokens in the same runtime.

llama: the same files as `convert --to gguf --outtype f32` writes them in llama.cpp, beside
transformers.  ORACLE_LLAMA: a folder for PYTHONPATH with cyllama.

Needs torch, transformers 5, onnxruntime, onnxruntime_genai.  Exit 1: a difference over 1e-4,
a run that failed.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import onnxruntime
import torch
import transformers
from safetensors.torch import save_file

from family_goldens import ROOT, half_matrices, steps as torch_steps, values
from onnx_run import empty, step

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
onnxruntime.set_default_logger_severity(3)
HERE = pathlib.Path(__file__).resolve().parent
BOUND, SHARDS, SPELLINGS = 1e-4, 3, ("5", "4", "old")
NO_GGUF = "is not written as GGUF"  # experts
# As small as a tokenizer can be; GGUF files have one.
TOKENIZER = {"version": "1.0", "added_tokens": [],
             "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
             "decoder": {"type": "ByteLevel"},
             "model": {"type": "BPE", "vocab": {"a": 3, "b": 4, "ab": 5}, "merges": ["a b"]}}


# ---- a model in its forms ----

def tensors_of(golden):
    return {name: torch.from_numpy(values(name, tuple(shape), offset, scale))
            for name, shape, offset, scale in golden["tensors"]}


def write_shards(folder, tensors, stem, suffix, save):
    """In SHARDS files with an index; stem.suffix alone where SHARDS would be one."""
    names = list(tensors)
    cuts = [len(names) * i // SHARDS for i in range(SHARDS + 1)]
    places = {}
    for i, (a, b) in enumerate(zip(cuts, cuts[1:])):
        file = f"{stem}-{i + 1:05d}-of-{SHARDS:05d}.{suffix}"
        save({n: tensors[n] for n in names[a:b]}, folder / file)
        places |= {n: file for n in names[a:b]}
    (folder / f"{stem}.{suffix}.index.json").write_text(
        json.dumps({"metadata": {"total_size": 0}, "weight_map": places}))


def write_model(folder, golden, spelling, source, changes={}):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(golden["configs"][spelling] | changes))
    tensors = tensors_of(golden)
    if source == "safetensors":
        write_shards(folder, tensors, "model", "safetensors",
                     lambda t, p: save_file(t, p, {"format": "pt"}))
    elif source == "bin":
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        write_shards(folder, tensors, "pytorch_model", "bin", torch.save)


def drupe(*words):
    """(ran, what it said)."""
    done = subprocess.run([DRUPE, *map(str, words)], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    return done.returncode == 0, done.stdout.strip()


def export(model, out, *options):
    good, said = drupe("capture-onnx-graph", "-m", model, "-o", out, *options)
    return (out / "model", None) if good else (None, said.splitlines()[0])


# ---- logits ----

def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager").eval()


@torch.no_grad()
def torch_once(model, ids):
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].numpy()


def session(folder):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(folder / "model.onnx"), options,
                                        providers=["CPUExecutionProvider"])


def ort_steps(s, ids):
    past, rows = empty(s), []
    for n, i in enumerate(ids):
        y, past = step(s, None, [i], past, n + 1)
        rows.append(y)
    return np.concatenate(rows)


def lengths(golden):
    config = golden["configs"]["5"]
    window = config.get("sliding_window")
    # Qwen2 has the key without the window.
    if not window or config.get("use_sliding_window") is False:
        return 1, 7, 8, 9
    return 1, window - 1, window, window + 1


def differences(folder, model, golden):
    """Of prompts of every length, then of steps."""
    s, ids = session(folder), golden["ids"]
    row = []
    for n in lengths(golden):
        got = step(s, None, ids[:n], empty(s), n)[0]
        row.append(float(abs(got - torch_once(model, ids[:n])).max()))
    n = max(lengths(golden))
    row.append(float(abs(ort_steps(s, ids[:n]) - torch_steps(model, ids[:n])).max()))
    return row


# ---- the tables ----

def fp32_rows(name, golden, work):
    """(source, spelling, differences or why there are none)."""
    for spelling in SPELLINGS:
        for source in ("safetensors", "bin", "bin shards"):
            folder = work / f"{name}-{spelling}-{source.replace(' ', '-')}"
            write_model(folder, golden, spelling, source)
            out, why = export(folder, work / f"{folder.name}-onnx", "--precision", "fp32")
            yield source, spelling, why or differences(out, load(folder), golden)
        folder = work / f"{name}-{spelling}-half"
        write_model(folder, golden, spelling, "safetensors", golden["half"]["changes"])
        (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
        gguf = work / f"{name}-{spelling}-gguf"
        good, said = drupe("convert", "-m", folder, "--to", "gguf", "--outtype", "f16", "-o",
                           gguf)
        if not good:
            yield "gguf f16", spelling, said.splitlines()[0]
            continue
        out, why = export(gguf / "model" / "model.gguf", work / f"{gguf.name}-onnx",
                          "--precision", "fp32")
        yield "gguf f16", spelling, why or differences(out, half_matrices(load(folder)), golden)


def fp32(goldens, work):
    worst, failed = {}, 0
    for name, golden in goldens.items():
        for source, spelling, found in fp32_rows(name, golden, work):
            label = f"{name:18s} {spelling:4s} {source:12s}"
            if isinstance(found, str):
                if NO_GGUF not in found:
                    failed += 1
                print(label, found, flush=True)
                continue
            cells = [f"{n}: {d:.1e}" for n, d in zip([*lengths(golden), "steps"], found)]
            bad = not max(found) <= BOUND
            print(label, "  ".join(cells), "FAIL" if bad else "", flush=True)
            failed += bad
            key = (source, "steps"), (source, "once")
            worst[key[0]] = max(worst.get(key[0], 0), found[-1])
            worst[key[1]] = max(worst.get(key[1], 0), *found[:-1])
        shutil.rmtree(work)
        work.mkdir()
    for (source, how), d in sorted(worst.items()):
        print(f"greatest of {source}, {how}: {d:.1e}")
    return failed


def int4_cell(python, folder, golden):
    """GenAI's tokens, and whether the same graph in a session gives them, too."""
    ids = golden["ids"][:4]
    got = {}
    with tempfile.TemporaryDirectory() as d:
        for mode in ("greedy:8", "session:8"):
            np.savez(f"{d}/job.npz", ids=np.asarray(ids), model=str(folder), mode=mode,
                     adapter="")
            done = subprocess.run([python, str(HERE / "onnx_run.py"), f"{d}/job.npz",
                                   f"{d}/out.npz"], capture_output=True, text=True)
            if done.returncode != 0:
                lines = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
                return f"{mode}: {lines[-1]}"
            got[mode] = np.load(f"{d}/out.npz")["tokens"].tolist()
    a, b = got.values()
    return "runs" if a and a == b[:len(a)] else f"other tokens: {a} {b}"


def int4(goldens, work):
    runtimes = [("1.32.0, 0.18.0", sys.executable, ["--use_ort_genai", "--no_check"])]
    if "ORACLE_OLD" in os.environ:
        runtimes.append(("1.20.1, 0.5.0", os.environ["ORACLE_OLD"],
                         [*runtimes[0][2], "--min_ort_version", "1.20"]))
    failed = 0
    for name, golden in goldens.items():
        folder = work / name
        write_model(folder, golden, "5", "safetensors")
        for label, python, options in runtimes:
            out, why = export(folder, work / f"{name}-{len(options)}", "--precision", "int4",
                              "--int4_block_size", "16", *options)
            cell = int4_cell(python, out, golden) if out else f"refused: {why}"
            failed += not cell.startswith(("runs", "refused"))
            print(f"{name:18s} {label:16s} {cell}", flush=True)
    return failed


def llama(goldens, work):
    """Its gelu comes from a table in half precision; Phi-3's windows it leaves out."""
    env, failed = os.environ | {"PYTHONPATH": os.environ["ORACLE_LLAMA"]}, 0
    for name, golden in goldens.items():
        # Not the family's name: llama.cpp looks for Phi-3's tokens in a model of that name.
        folder, ids = work / f"m{len(list(work.iterdir()))}", list(map(str, golden["ids"]))
        changes = dict(golden["half"]["changes"])
        if "steps" in golden:  # it chooses the factors by its context: both alike
            rope = golden["configs"]["5"]["rope_parameters"]
            changes["rope_parameters"] = rope | {"short_factor": rope["long_factor"]}
        if golden["configs"]["5"]["model_type"] == "phi3":
            changes["sliding_window"] = None
        write_model(folder, golden, "5", "safetensors", changes)
        (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
        good, said = drupe("convert", "-m", folder, "--to", "gguf", "--outtype", "f32", "-o",
                           work / f"{name}-gguf")
        if not good:
            print(f"{name:18s} {said.splitlines()[0]}", flush=True)
            failed += NO_GGUF not in said
            continue
        done = subprocess.run([sys.executable, str(HERE / "gguf_logits.py"),
                               str(work / f"{name}-gguf" / "model" / "model.gguf"), *ids],
                              env=env, capture_output=True, text=True)
        if done.returncode != 0:
            print(f"{name:18s} llama.cpp: {(done.stderr.strip() or 'no word').splitlines()[-1]}")
            failed += 1
            continue
        got = np.array(json.loads(done.stdout))
        worst = float(abs(got - torch_steps(load(folder), golden["ids"])).max())
        failed += not worst <= 2e-2
        print(f"{name:18s} {worst:.1e}", "" if worst <= 2e-2 else "FAIL", flush=True)
    return failed


def main():
    global DRUPE
    DRUPE, words = sys.argv[1], sys.argv[2:]
    tables = {"fp32": fp32, "int4": int4, "llama": llama}
    parts = [w for w in words if w in tables] or ["fp32", "int4"]
    names = [w for w in words if w not in tables] or \
        sorted(p.stem for p in ROOT.glob("*.json"))
    goldens = {n: json.loads((ROOT / f"{n}.json").read_text()) for n in names}
    failed = 0
    for part in parts:
        with tempfile.TemporaryDirectory() as d:
            failed += tables[part](goldens, pathlib.Path(d))
    print(f"{failed} failed" if failed else "all hold")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
