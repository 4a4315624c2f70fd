#!/usr/bin/env python3
"""What drupe's passes of OpenVINO make, by OpenVINO itself.

    python3 tools/oracle/openvino_check.py DRUPE

conversion   the IR of a graph gives what onnx' reference gives (compress_to_fp16 false)
io update    fixed shapes and names: as openvino.Model.reshape makes them, to the bit
wrapper      the graph of OpenVINOEncapsulation, member by member, beside one that is made
             with onnx.helper of what OpenVINO says of the IR
Runs in an empty folder.  Needs openvino with ovc in PATH, onnx, numpy.
"""
import json
import pathlib
import subprocess
import sys

import numpy as np
import onnx
import openvino
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

GRAPH = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/openvino/plain/model.onnx"
CORE = openvino.Core()
TYPES = {"f32": TensorProto.FLOAT, "i64": TensorProto.INT64}
OPSETS = [("com.microsoft.nchwc", 1), ("", 11), ("ai.onnx.ml", 5), ("com.ms.internal.nhwc", 11),
          ("ai.onnx.training", 1), ("ai.onnx.preview.training", 1),
          ("com.microsoft.experimental", 1), ("com.microsoft", 1), ("org.pytorch.aten", 1)]


def drupe(name, model, out, **config):
    subprocess.run([sys.argv[1], "run-pass", "--pass_name", name, "-m", str(model), "-o", out,
                    "--pass_config", json.dumps(config)], check=True, stdout=subprocess.DEVNULL)


def values(rows, width):
    random = np.random.RandomState(rows)
    return [random.randn(rows, 4).astype(np.float32), random.randn(3).astype(np.float32),
            np.ones((1, width), np.int64)]


def run(model, inputs):
    got = CORE.compile_model(model, "CPU")(inputs)
    return [got[i] for i in range(len(model.outputs))]


def conversion():
    drupe("OpenVINOConversion", GRAPH, "ir", compress_to_fp16=False)
    model = CORE.read_model("ir/model/ov_model.xml")
    reference = ReferenceEvaluator(str(GRAPH))
    for rows, width in ((1, 1), (3, 7)):
        x = values(rows, width)
        want = reference.run(None, dict(zip(reference.input_names, x)))
        for name, a, b in zip(reference.output_names, want, run(model, x)):
            assert a.shape == b.shape and np.allclose(a, b, atol=1e-6), name
    drupe("OpenVINOConversion", GRAPH, "fixed", input_shapes=[[2, 4], [3], [1, -1]])
    shapes = [str(v.get_partial_shape()) for v in CORE.read_model("fixed/model/ov_model.xml").inputs]
    assert shapes == ["[2,4]", "[3]", "[1,?]"], shapes


def io_update():
    names = ["first", 'sec<o>"nd"', "th&ird"]
    drupe("OpenVINOIoUpdate", "ir", "st", static=True, input_shapes=[[2, 4], [3], [1, 9]],
          input_names=names)
    made = CORE.read_model("st/model/ov_model_st.xml")
    want = CORE.read_model("ir/model/ov_model.xml")
    want.reshape({want.input(0): [2, 4], want.input(2): [1, 9]})
    assert [v.get_any_name() for v in made.inputs] == names
    for a, b in zip(made.outputs, want.outputs):
        assert a.get_partial_shape() == b.get_partial_shape() and a.get_names() == b.get_names()
    for a, b in zip(run(made, values(2, 9)), run(want, values(2, 9))):
        assert a.tobytes() == b.tobytes()


def info(value, prefix):
    sizes = [f"{prefix}_{i}" if d.is_dynamic else d.get_length()
             for i, d in enumerate(value.get_partial_shape())]
    return helper.make_tensor_value_info(
        value.get_any_name(), TYPES[value.get_element_type().to_string()], sizes)


def wrapper():
    drupe("OpenVINOEncapsulation", "ir", "onnx", target_device="gpu")
    ir = CORE.read_model("ir/model/ov_model.xml")
    node = helper.make_node("EPContext", [v.get_any_name() for v in ir.inputs],
                            [v.get_any_name() for v in ir.outputs], name="ContextNode",
                            domain="com.microsoft")
    for name, value in (("embed_mode", 0), ("ep_cache_context", "ov_model.xml"),
                        ("ep_sdk_version", openvino.get_version()), ("main_context", 1),
                        ("max_size", 0), ("source", "OpenVINOExecutionProvider"),
                        ("DeviceClass", "GPU")):
        node.attribute.append(helper.make_attribute(name, value))
    graph = helper.make_graph(
        [node], "EP_Context_Model", [info(v, f"input_{i}") for i, v in enumerate(ir.inputs)],
        [info(v, f"output_{i}") for i, v in enumerate(ir.outputs)])
    want = helper.make_model(graph, opset_imports=[helper.make_opsetid(d, v) for d, v in OPSETS])
    want.ir_version = 10
    made = onnx.load("onnx/model/model.onnx")
    made.ClearField("producer_name")
    made.ClearField("producer_version")
    assert made.SerializeToString(deterministic=True) == want.SerializeToString(deterministic=True)


for check in (conversion, io_update, wrapper):
    check()
    print(check.__name__, "as OpenVINO has it")
