#!/usr/bin/env python3
"""What Olive's MixedPrecisionOverrides makes of a graph whose weights are shared: tests/golden/overrides.

    OLIVE_DISABLE_TELEMETRY=1 python3 tools/oracle/override_goldens.py

olive.json: of each config the overrides, and what each node reads afterwards.  Where nothing is shared by nodes that
differ Olive hands its input back, without the overrides: those are then null.
Needs onnx, onnxruntime, olive-ai 0.13.
"""
import json
import pathlib
import tempfile

import numpy as np
import onnx
from olive.hardware.accelerator import DEFAULT_CPU_ACCELERATOR
from olive.model import ONNXModelHandler
from olive.passes.olive_pass import create_pass_from_dict
from olive.passes.onnx.mixed_precision_overrides import MixedPrecisionOverrides
from onnx import TensorProto, helper, numpy_helper

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "overrides"


def graph():
    rng = np.random.default_rng(3)
    nodes = [
        helper.make_node("Add", ["x", "one"], ["a"], "a"),      # one: read by a, b and c
        helper.make_node("Mul", ["a", "one"], ["b"], "b"),
        helper.make_node("Add", ["b", "one"], ["c"], "c"),
        helper.make_node("Sub", ["two", "c"], ["d"], "d"),      # two: read by d and e
        helper.make_node("Mul", ["d", "two"], ["e"], "e"),
        helper.make_node("Add", ["e", "three"], ["f"], "f"),    # three, four: by one node each
        helper.make_node("Div", ["f", "four"], ["g"], "g"),
        helper.make_node("MatMul", ["g", "square"], ["h"], "h"),
        helper.make_node("Add", ["h", "square"], ["y"], "y"),   # square: a weight of a product, too
    ]
    weights = {n: rng.uniform(0.5, 1.5, (4,)).astype(np.float32) for n in ["one", "two", "three", "four"]}
    weights["square"] = rng.uniform(-1, 1, (4, 4)).astype(np.float32)
    g = helper.make_graph(nodes, "shared", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 4])],
                          [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 4])],
                          [numpy_helper.from_array(w, n) for n, w in weights.items()])
    model = helper.make_model(g, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


CONFIGS = [
    {"overrides_config": {"a": "QUInt16", "c": "QUInt8"}},
    {"overrides_config": {"a": "QUInt16", "b": "QUInt16", "c": "QUInt16"}},
    {"overrides_config": {"d": "QUInt16", "e": "QInt8", "y": "QUInt16"}},
    {"overrides_config": {"c": "QUInt16", "f": "QUInt16"}},
    {"overrides_config": {"a": "QUInt16", "f": "QUInt16"}, "element_wise_binary_ops": ["Mul", "Div"]},
    {"overrides_config": {"f": "QUInt16"}},
    {"overrides_config": {"f": "QInt16"}},
]


def main():
    OUT.mkdir(exist_ok=True)
    path = OUT / "model.onnx"
    onnx.save(graph(), path)
    cases = []
    for config in CONFIGS:
        with tempfile.TemporaryDirectory() as tmp:
            p = create_pass_from_dict(MixedPrecisionOverrides, config, disable_search=True,
                                      accelerator_spec=DEFAULT_CPU_ACCELERATOR)
            made = p.run(ONNXModelHandler(str(path)), str(pathlib.Path(tmp) / "out.onnx"))
            model = made.load_model()
            cases.append({"config": config,
                          "overrides": (made.model_attributes or {}).get("mixed_precision_overrides"),
                          "inputs": {n.name: list(n.input) for n in model.graph.node}})
    (OUT / "olive.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
