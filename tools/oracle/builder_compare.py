#!/usr/bin/env python3
"""An export against the model builder's of the same checkpoint: bytes of all weights.

    python3 tools/oracle/builder_compare.py EXPORT_TOOL MODEL [CASE ...]

A case is PRECISION[:option...], the options being export_tool's ("int4:asym:block=64:k_quant");
the builder is run with what they mean.  Default: the cases of CASES below.  Needs
onnxruntime_genai 0.18 with its builder (torch, transformers 5, onnx_ir) and onnx.  Each line
is a case: initializers of the same name and bytes, of other bytes, and names on one side only.
Exit 1 when some bytes differ.
"""
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx

CASES = ["fp32", "int4", "int4:block=64", "int4:asym", "int8", "fp16:provider=cuda",
         "bf16:provider=cuda", "int4:provider=cuda", "int4:rtn", "int4:k_quant"]
TMP = pathlib.Path(tempfile.mkdtemp(prefix="builder-compare-"))


def builder_arguments(precision, options):
    provider, extra = "cpu", []
    for o in options:
        key, _, value = o.partition("=")
        if key == "provider":
            provider = value
        elif key == "block":
            extra.append(f"block_size={value}")
        elif key == "asym":
            extra.append("is_symmetric=false")
        elif key == "acc":
            extra.append(f"accuracy_level={value}")
        elif key == "mixed":
            extra.append(f"matmul_mixed_precision={value}")
        elif key == "qdq":
            extra.append("use_qdq=true")
        elif key == "untied":
            extra.append("shared_embeddings=false")
        else:
            extra.append(f"algo_config={key}")
    return ["-p", precision, "-e", provider] + (["--extra_options", *extra] if extra else [])


def build(model, case):
    precision, *options = case.split(":")
    name = case.replace(":", "-").replace("=", "")
    peer, ours = TMP / f"{name}-peer", TMP / f"{name}-ours"
    run = subprocess.run([sys.executable, "-m", "onnxruntime_genai.models.builder", "-i",
                          model, "-o", peer, "-c", TMP / "cache",
                          *builder_arguments(precision, options)],
                         capture_output=True, text=True)
    if run.returncode:
        return None, None, (run.stderr.strip().splitlines() or ["?"])[-1][:90]
    subprocess.run([sys.argv[1], model, ours, precision,
                    *[o for o in options if o != "untied"]], check=True,
                   stdout=subprocess.DEVNULL)
    return peer, ours, ""


def weights(folder):
    """name -> (type, dims, bytes) of every initializer."""
    m = onnx.load(folder / "model.onnx", load_external_data=False)
    out = {}
    for t in m.graph.initializer:
        place = {e.key: e.value for e in t.external_data}
        if not place:
            out[t.name] = t.data_type, tuple(t.dims), t.raw_data
            continue
        with open(folder / place["location"], "rb") as f:
            f.seek(int(place.get("offset", 0)))
            out[t.name] = t.data_type, tuple(t.dims), f.read(int(place["length"]))
    return out


def values(t):
    """A tensor of floats as float32."""
    if t[0] == onnx.TensorProto.BFLOAT16:
        return (np.frombuffer(t[2], np.uint16).astype(np.uint32) << 16).view(np.float32)
    kind = np.float16 if t[0] == onnx.TensorProto.FLOAT16 else np.float32
    return np.frombuffer(t[2], kind).astype(np.float32)


def table_difference(a, b):
    """Cosines and sines may differ in their last bit: torch's are its own."""
    step = {onnx.TensorProto.BFLOAT16: 2.0 ** -8, onnx.TensorProto.FLOAT16: 2.0 ** -11}
    worst = abs(values(a) - values(b)).max()
    return "" if worst <= step.get(a[0], 2.0 ** -24) * 1.01 else f"values by {worst}"


def difference(a, b):
    if a[2] == b[2]:
        return "" if a[0] == b[0] else f"type {a[0]} and {b[0]}"
    if len(a[2]) != len(b[2]):
        return f"{len(a[2])} and {len(b[2])} bytes"
    wrong = np.frombuffer(a[2], np.uint8) != np.frombuffer(b[2], np.uint8)
    return f"{int(wrong.sum())} of {wrong.size} bytes"


def compare(model, case):
    peer, ours, why = build(model, case)
    if peer is None:
        print(f"peer  {case:32s} {why}", flush=True)
        return True
    p, o = weights(peer), weights(ours)
    both = sorted(p.keys() & o.keys())
    bad = [(n, d) for n in both if (d := (table_difference if n.endswith("_cache") else
                                          difference)(p[n], o[n]))]
    print(f"{'FAIL' if bad else 'ok  '}  {case:32s} {len(both) - len(bad)} same, "
          f"{len(bad)} differ; {len(p) - len(both)} only the builder's, "
          f"{len(o) - len(both)} only ours", flush=True)
    for n, d in bad[:4]:
        print(f"      {n}: {d}")
    if os.environ.get("NAMES"):
        print("      builder's:", sorted(p.keys() - o.keys())[:6])
        print("      ours:", sorted(o.keys() - p.keys())[:6])
    return not bad


def main():
    good = [compare(sys.argv[2], c) for c in sys.argv[3:] or CASES]
    sys.exit(0 if all(good) else 1)


main()
