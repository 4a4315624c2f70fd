#!/usr/bin/env python3
"""The model builder's graphs of the tiny models, as lists of lines for graph_golden_test.c.

    python3 tools/oracle/graph_goldens.py TOKENIZER_FOLDER [CASE ...]

A case is MODEL:PROVIDER:PRECISION[:option=value...], the options being the builder's
extra_options; the default is all of CASES.  Needs onnxruntime_genai 0.18 with its builder
(torch, transformers 5, onnx_ir) and onnx.  TOKENIZER_FOLDER: any folder with a tokenizer,
which the tiny models have none of.  Writes tests/golden/onnx/NAME.txt; with - before the
first case, prints to stdout instead.
"""
import contextlib
import io
import logging
import os
import pathlib
import shutil
import sys
import tempfile

import onnx

logging.disable(logging.CRITICAL)
ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = ROOT / "tests" / "golden" / "tiny"
OUT = ROOT / "tests" / "golden" / "onnx"
CASES = """
llama:cpu:fp32 llama:cpu:int4 llama:cpu:int8 llama:cuda:fp16 llama:cuda:bf16 llama:cuda:int4
llama:cuda:int8 llama:dml:fp16 llama:dml:int4 llama:webgpu:int4 llama:webgpu:int8
llama:NvTensorRtRtx:fp16
qwen2:cpu:fp32 qwen2:cpu:int4 qwen2:cuda:fp16 qwen2:dml:int4 qwen2:webgpu:int4
qwen2:NvTensorRtRtx:int4 qwen2:NvTensorRtRtx:bf16 qwen2:cpu:int4:is_symmetric=false
llama:cpu:int4:block_size=16:algo_config=rtn:shared_embeddings=false
llama:cpu:int4:block_size=16:algo_config=k_quant_mixed:shared_embeddings=false
llama:cpu:int4:exclude_embeds=true llama:cpu:fp32:exclude_lm_head=true
qwen2:cpu:int4:include_hidden_states=true qwen2:cpu:int4:prune_lm_head=true
qwen2:cpu:int4:matmul_mixed_precision=last_matmul-int8
qwen2:cuda:int4:use_cuda_bf16=true
qwen2:webgpu:int4:use_webgpu_fp32=true qwen2:cpu:int4:use_qdq=true
phi3:cpu:int4 phi3:cuda:int4 phi3:dml:int4 phi3:NvTensorRtRtx:fp16
""".split()
REPLACE = [("/model/layers.", "/L"), ("model.layers.", "L"), ("/output_0", "@"),
           ("/model/attn_mask_reformat/attn_mask_subgraph/", "/AMS/"),
           ("/skip_simplified_layer_norm", "/ssln"), ("/model/constants/", "/C/")]


def short(name):
    for a, b in REPLACE:
        name = name.replace(a, b)
    return name


def type_name(t):
    return onnx.TensorProto.DataType.Name(t)


def value(v):
    t = v.type.tensor_type
    dims = ",".join(d.dim_param or str(d.dim_value) for d in t.shape.dim)
    return f"{short(v.name)} {type_name(t.elem_type)}[{dims}]"


def attribute(a):
    v = onnx.helper.get_attribute_value(a)
    if isinstance(v, float):
        return f"{a.name}={v:.6g}"
    if isinstance(v, bytes):
        return f"{a.name}={v.decode()}"
    if isinstance(v, onnx.GraphProto):
        return f"{a.name}=graph"
    if isinstance(v, onnx.TensorProto):
        return f"{a.name}={type_name(v.data_type)}[{','.join(map(str, v.dims))}]"
    return f"{a.name}={v}".replace(" ", "")


def node(n):
    ins = [short(i) for i in n.input]
    while ins and not ins[-1]:
        ins.pop()
    outs = [short(o) for o in n.output]
    attrs = " ".join(sorted(attribute(a) for a in n.attribute))
    return f"{n.op_type} {short(n.name)}({','.join(ins)})->({','.join(outs)}) {attrs}".rstrip()


def lines(path):
    g = onnx.load(path, load_external_data=False).graph
    out = [f"IN {value(v)}" for v in g.input]
    out += [f"OUT {value(v)}" for v in g.output]
    out += [f"INIT {short(t.name)} {type_name(t.data_type)}[{','.join(map(str, t.dims))}]"
            for t in g.initializer]
    out += [f"NODE {node(n)}" for n in g.node if n.op_type != "Constant"]
    return sorted(out)


def build(tokenizer, case, keep=None):
    from onnxruntime_genai.models import builder

    logging.disable(logging.CRITICAL)
    model, provider, precision, *options = case.split(":")
    with tempfile.TemporaryDirectory() as tmp:
        folder, out = pathlib.Path(tmp) / "model", pathlib.Path(tmp) / "out"
        source = pathlib.Path(model) if os.sep in model else TINY / model
        shutil.copytree(source, folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(pathlib.Path(tokenizer) / name, folder)
        args = dict(o.split("=", 1) for o in options)
        if "matmul_mixed_precision" in args:  # a colon parts the options
            args["matmul_mixed_precision"] = args["matmul_mixed_precision"].replace("-", ":")
        with contextlib.redirect_stdout(io.StringIO()), \
                contextlib.redirect_stderr(io.StringIO()):
            parsed = builder.parse_extra_options(
                "", str(folder), str(out), precision, provider, str(pathlib.Path(tmp) / "c"),
                [f"{k}={v}" for k, v in args.items()])
            builder.create_model("", str(folder), str(out), precision, provider,
                                 str(pathlib.Path(tmp) / "c"), **parsed)
        if keep:
            shutil.copytree(out, keep, dirs_exist_ok=True)
        return lines(out / "model.onnx")


def main():
    tokenizer, cases = sys.argv[1], sys.argv[2:]
    show = cases[:1] == ["-"]
    for case in cases[show:] or CASES:
        try:
            text = "\n".join(build(tokenizer, case)) + "\n"
        except Exception as e:
            print(f"{case}: the builder fails: {type(e).__name__}: {str(e)[:100]}")
            continue
        if show:
            print(text, end="")
            continue
        OUT.mkdir(exist_ok=True)
        name = case.replace(":", "-").replace("=", "-")
        (OUT / f"{name}.txt").write_text(text)
        print(f"{case}: {text.count(chr(10))} lines", flush=True)


if __name__ == "__main__":
    main()
