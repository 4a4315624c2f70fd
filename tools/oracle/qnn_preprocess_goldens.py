#!/usr/bin/env python3
"""Graphs for QNNPreprocess, and what onnxruntime's qnn_preprocess_model makes of them:
tests/golden/qnn-preprocess.

    python3 tools/oracle/qnn_preprocess_goldens.py

gelu/    all forms of a Gelu that is written out, one of which somebody else reads
norms/   LpNormalization and LayerNormalization written out, of opset 13 and 18
space/   SpaceToDepth as seven nodes; images.  onnxruntime 1.32 joins some of them before its
         fusion looks, and finds nothing: the fusion's own word counts, on the graph as it is
cases.json: a graph, parameters, operators of the result by number, and inputs and outputs.
Needs onnx, onnxruntime, numpy.
"""
import collections
import json
import pathlib
import shutil
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.execution_providers.qnn import qnn_preprocess_model
from onnxruntime.quantization.execution_providers.qnn.fusion_spacetodepth import FusionSpaceToDepth
from onnxruntime.quantization.onnx_model import ONNXModel

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "qnn-preprocess"
F = TensorProto.FLOAT


class Graph:
    def __init__(self):
        self.nodes, self.inits = [], {}

    def value(self, array):
        array = np.asarray(array)
        name = f"c{len(self.inits)}"
        self.inits[name] = numpy_helper.from_array(array, name)
        return name

    def number(self, v):
        return self.value(np.float32(v))

    def op(self, kind, *inputs, named=True, **attrs):
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name + "_out"],
                                           name if named else "", **attrs))
        return name + "_out"

    def save(self, folder, opset, inputs, outputs):
        graph = helper.make_graph(self.nodes, folder, inputs,
                                  [helper.make_tensor_value_info(n, F, s) for n, s in outputs],
                                  list(self.inits.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        model.ir_version = 8
        onnx.checker.check_model(model)
        (OUT / folder).mkdir(parents=True)
        onnx.save(model, OUT / folder / "model.onnx")


def erf_part(g, x, by):
    if by == "div":
        at = g.op("Div", x, g.number(np.sqrt(2)))
    elif by == "mul":
        at = g.op("Mul", x, g.number(np.sqrt(0.5)))
    else:
        at = g.op("Div", x, g.op("Sqrt", by))
    return g.op("Add", g.op("Erf", at), g.number(1))


def gelu():
    g = Graph()
    two = "two"
    x, outputs = "x", []
    # x/2 beside; x behind and a half last; a half and then x
    y = g.op("Mul", g.op("Mul", x, g.number(0.5)), erf_part(g, x, "div"))
    y = g.op("Mul", g.op("Mul", y, erf_part(g, y, "div")), g.number(0.5), named=False)
    y = g.op("Mul", y, g.op("Mul", erf_part(g, y, "div"), g.number(0.5)))
    y = g.op("Mul", g.op("Mul", g.number(0.5), erf_part(g, y, "mul")), y)
    # not one: other numbers, or a value inside that is read elsewhere
    z = g.op("Mul", g.op("Mul", g.op("Add", g.op("Erf", g.op("Div", y, g.number(1.5))), g.number(1)),
                         g.number(0.5)), y)
    inner = erf_part(g, z, "div")
    u = g.op("Mul", g.op("Mul", inner, g.number(0.5)), z)
    v = g.op("Relu", inner)
    for n in (u, v):
        outputs.append((n, [2, 4]))
    g.save("gelu", 13, [helper.make_tensor_value_info("x", F, [2, 4])], outputs)


def lp_norm(g, x, axes, least, shape):
    attrs = {"keepdims": 1, **({"axes": axes} if isinstance(axes, list) else {})}
    more = [] if isinstance(axes, list) else [axes]
    r = g.op("ReduceL2", x, *more, **attrs)
    return g.op("Div", x, g.op("Expand", g.op("Clip", r, g.number(least)), g.value(np.array(shape))))


def layer_norm(g, x, square, axes, subs, epsilon=1e-5, width=4):
    attrs = {"keepdims": 1, **({"axes": axes} if isinstance(axes, list) else {})}
    more = [] if isinstance(axes, list) else [axes]
    mean = g.op("ReduceMean", x, *more, **attrs)
    a = g.op("Sub", x, mean)
    b = g.op("Sub", x, mean) if subs == 2 else a
    s = g.op("Pow", a, g.number(2)) if square == "pow" else g.op("Mul", a, a)
    root = g.op("Sqrt", g.op("Add", g.op("ReduceMean", s, *more, **attrs), g.number(epsilon)))
    weight = g.value(np.linspace(0.5, 1.5, width, dtype=np.float32))
    bias = g.value(np.linspace(-1, 1, width, dtype=np.float32))
    return g.op("Add", g.op("Mul", g.op("Div", b, root), weight), bias)


def norms(folder, opset):
    g = Graph()
    axes = [-1] if opset < 18 else g.value(np.array([-1]))
    means = [2] if opset < 18 else axes
    y = lp_norm(g, "x", [2] if opset < 18 else axes, 1e-12, [2, 3, 4])
    y = lp_norm(g, y, axes, 1e-6, [2, 3, 4])
    y = layer_norm(g, y, "pow", means, 1)
    y = layer_norm(g, y, "mul", axes, 1)
    y = layer_norm(g, y, "pow", axes, 2)
    y = layer_norm(g, y, "pow", axes, 1, epsilon=0.01)
    g.save(folder, opset, [helper.make_tensor_value_info("x", F, [2, 3, 4])], [(y, [2, 3, 4])])


def space():
    g = Graph()

    def reshape(x, *shape):
        return g.op("Reshape", x, g.value(np.array(shape)))

    y = g.op("Transpose", reshape("x", 2, 3, 2, 2, 3, 2), perm=[0, 1, 2, 4, 3, 5])
    y = g.op("Transpose", reshape(y, 2, 3, 6, 4), perm=[0, 1, 3, 2])
    y = g.op("Transpose", reshape(y, 2, 3, 4, 2, 3), perm=[0, 2, 1, 3, 4])
    y = reshape(y, 2, 12, 2, 3)
    z = g.op("Relu", y)
    g.save("space", 13, [helper.make_tensor_value_info("x", F, [2, 3, 4, 6])],
           [(y, [2, 12, 2, 3]), (z, [2, 12, 2, 3])])


def ports(values):
    return [f"{v.name} float32[" + ",".join(str(d.dim_value) for d in v.type.tensor_type.shape.dim) + "]"
            for v in values]


def case(graph, **config):
    with tempfile.TemporaryDirectory() as tmp:
        path = pathlib.Path(tmp) / "out.onnx"
        source = OUT / graph / "model.onnx"
        if graph == "space":  # newer runtimes change the pattern before it is looked for
            model = ONNXModel(onnx.shape_inference.infer_shapes(onnx.load(source)))
            FusionSpaceToDepth(model).apply()
            source = pathlib.Path(tmp) / "fused.onnx"
            onnx.save(model.model, source)
        if not qnn_preprocess_model(str(source), str(path), **config):
            path = source
        model = onnx.load(path)
    ops = collections.Counter(
        (n.domain + "." if n.domain not in ("", "ai.onnx") else "") + n.op_type
        for n in model.graph.node if n.op_type != "Constant")
    return {"graph": graph, "config": config, "ops": dict(sorted(ops.items())),
            "inputs": ports(model.graph.input), "outputs": ports(model.graph.output)}


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    gelu()
    norms("norms13", 17)
    norms("norms18", 18)
    space()
    cases = [case("gelu"), case("norms13"), case("norms13", fuse_layernorm=True), case("norms18"),
             case("norms18", fuse_layernorm=True), case("space"),
             case("space", inputs_to_make_channel_last=["x"]),
             case("space", inputs_to_make_channel_last=["x"],
                  outputs_to_make_channel_last=["relu_7_out"]),
             case("space", outputs_to_make_channel_last=["reshape_6_out"])]
    text = ",\n".join(json.dumps(c) for c in cases)
    (OUT / "cases.json").write_text(f"[\n{text}\n]\n")


main()
