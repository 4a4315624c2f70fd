#!/usr/bin/env python3
"""IRs of OpenVINO's and what OpenVINO says of them: tests/golden/openvino.

    python3 tools/oracle/openvino_goldens.py

plain/   a graph of several inputs and outputs, open sizes, and names that XML and IRs escape
loop/    a graph with a Loop, whose body has inputs and outputs of its own
old/     plain's IR as OpenVINO wrote it before a Result had output_names
bare/    an IR whose inputs and outputs have no names
says.json of each: inputs and outputs, by openvino.Core().read_model.
Needs openvino (with ovc in PATH), onnx, numpy.
"""
import json
import pathlib
import re
import shutil
import subprocess

import numpy as np
import onnx
import openvino
from onnx import TensorProto, helper, numpy_helper

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "openvino"


def info(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def save(graph, path, opset=13):
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    onnx.save(model, path)


def plain(path):
    weight = np.random.RandomState(0).randn(4, 3).astype(np.float32)
    odd = "sum, <a>&b"
    nodes = [
        helper.make_node("MatMul", ["zeta", "W"], ["m"]),
        helper.make_node("Add", ["m", "bias"], [odd]),
        helper.make_node("Shape", ["mask"], ["shape"]),
        helper.make_node("Relu", [odd], ["out"]),
        helper.make_node("Identity", ["zeta"], ["same"]),
    ]
    save(
        helper.make_graph(
            nodes,
            "plain",
            [
                info("zeta", TensorProto.FLOAT, ["n", 4]),
                info("bias", TensorProto.FLOAT, [3]),
                info("mask", TensorProto.INT64, [1, "s"]),
            ],
            [
                info("out", TensorProto.FLOAT, ["n", 3]),
                info("shape", TensorProto.INT64, [2]),
                info(odd, TensorProto.FLOAT, ["n", 3]),
                info("same", TensorProto.FLOAT, ["n", 4]),
            ],
            [numpy_helper.from_array(weight, "W")],
        ),
        path,
    )


def loop(path):
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["carried", "step"], ["next"]),
        ],
        "body",
        [
            info("i", TensorProto.INT64, []),
            info("go", TensorProto.BOOL, []),
            info("carried", TensorProto.FLOAT, [2]),
        ],
        [info("go_on", TensorProto.BOOL, []), info("next", TensorProto.FLOAT, [2])],
    )
    save(
        helper.make_graph(
            [helper.make_node("Loop", ["count", "", "x"], ["y"], body=body)],
            "loop",
            [
                info("count", TensorProto.INT64, []),
                info("x", TensorProto.FLOAT, [2]),
                info("step", TensorProto.FLOAT, [2]),
            ],
            [info("y", TensorProto.FLOAT, [2])],
        ),
        path,
    )


def says(xml):
    model = openvino.Core().read_model(xml)

    def one(value):
        shape = value.get_partial_shape()
        sizes = None
        if not shape.rank.is_dynamic:
            sizes = [-1 if d.is_dynamic else d.get_length() for d in shape]
        names = sorted(value.get_names())
        return {
            "name": value.get_any_name() if names else None,
            "type": value.get_element_type().to_string(),
            "shape": sizes,
        }

    return {
        "version": openvino.get_version(),
        "inputs": [one(v) for v in model.inputs],
        "outputs": [one(v) for v in model.outputs],
    }


def write(name, xml_of=None, source=None):
    folder = OUT / name
    folder.mkdir(parents=True)
    xml = folder / "ov_model.xml"
    if xml_of is not None:
        xml_of(folder / "model.onnx")
        subprocess.run(
            ["ovc", str((folder / "model.onnx").resolve()), "--output_model", xml.name,
             "--compress_to_fp16=False"],
            cwd=folder, check=True, stdout=subprocess.DEVNULL)
    else:
        edit, text = source
        shutil.copy(OUT / "plain" / "ov_model.bin", folder)
        xml.write_text(edit(text))
    (folder / "says.json").write_text(json.dumps(says(str(xml)), indent=1) + "\n")


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    write("plain", plain)
    write("loop", loop)
    text = (OUT / "plain" / "ov_model.xml").read_text()
    write("old", source=(lambda t: re.sub(r' output_names="[^"]*"', "", t), text))
    write("bare", source=(lambda t: re.sub(r' (output_)?names="[^"]*"', "", t), text))


main()
