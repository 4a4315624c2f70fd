#!/usr/bin/env python3
"""Graphs of others for the passes that change graphs: tests/golden/rewrite.

    python3 tools/oracle/pass_goldens.py

plain/  a small convolution, of opset 12: axes as attributes, a Gemm, and nodes of no effect
        (Identity, Dropout, double ones, transposes that undo each other, Reshape twice)
text/   a small encoder, of opset 17, over input_ids: Gather, MatMul, Add, Erf, LayerNormalization
Each with x.safetensors: inputs, and what ONNX Runtime gives without optimizations.
cases.json: passes and their parameters; for those with "olive" what Olive's pass of that name
gives is in olive.safetensors, as CASE.OUTPUT.  "before" is how far a result may be from what the
graph gave before, "olive" from Olive's: shares of the largest value.
Needs onnx, onnxruntime, safetensors, olive-ai 0.13.
"""
import json
import pathlib
import shutil
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "rewrite"


class Graph:
    def __init__(self, seed):
        self.nodes, self.inits, self.infos, self.rng = [], [], [], np.random.default_rng(seed)

    def weight(self, name, *shape, scale=0.4):
        return self.value(name, self.rng.normal(0, scale, shape).astype(np.float32))

    def value(self, name, array):
        self.inits.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op, inputs, name, outputs=1, domain="", **attrs):
        names = [name + "_out" + (str(i) if i else "") for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name, domain=domain, **attrs))
        return names[0] if outputs == 1 else names

    def save(self, folder, inputs, outputs, opset, feeds, external=False):
        graph = helper.make_graph(self.nodes, folder, inputs, outputs, self.inits, value_info=self.infos)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset),
                                                        helper.make_opsetid("com.microsoft", 1)])
        model.ir_version = 8
        onnx.checker.check_model(model)
        path = OUT / folder / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "weights.bin").unlink(missing_ok=True)
        if external:
            onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=256)
        else:
            onnx.save(model, path)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [o.name for o in session.get_outputs()]
        save_file({**feeds, **dict(zip(names, session.run(names, feeds)))}, path.parent / "x.safetensors")


def plain():
    g = Graph(1)
    x = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])
    y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])
    z = helper.make_tensor_value_info("means", TensorProto.FLOAT, ["batch", 6])
    a = g.node("Conv", ["image", g.weight("conv_w", 6, 3, 3, 3), g.weight("conv_b", 6)], "conv", pads=[1, 1, 1, 1])
    a = g.node("Identity", [g.node("Relu", [a], "relu")], "idle")
    a = g.node("Transpose", [g.node("Transpose", [a], "turn", perm=[0, 2, 3, 1])], "turn_back", perm=[0, 3, 1, 2])
    means = g.node("ReduceMean", [a], "mean", axes=[2, 3], keepdims=0)
    halves = g.node("Split", [a], "halves", outputs=2, axis=1, split=[2, 4])
    both = g.node("Concat", [halves[1], halves[0]], "swap", axis=1)
    flat = g.node("Reshape", [g.node("Reshape", [both, g.value("to3", np.array([0, 6, -1]))], "first"),
                              g.value("to2", np.array([-1, 6 * 64]))], "second")
    h = g.node("Gemm", [flat, g.weight("fc1_w", 32, 6 * 64, scale=0.1), g.weight("fc1_b", 32)], "fc1", transB=1)
    one = g.node("Sigmoid", [h], "gate1")
    two = g.node("Sigmoid", [h], "gate2")
    h = g.node("Add", [g.node("Mul", [h, one], "silu1"), g.node("Mul", [h, two], "silu2")], "sum")
    h = g.node("Squeeze", [g.node("Unsqueeze", [h], "wide", axes=[1])], "narrow", axes=[1])
    c = g.node("Constant", [], "half", value=numpy_helper.from_array(np.float32(0.5), "v"))
    k = g.node("Add", [c, g.value("quarter", np.float32(0.25))], "three_quarters")
    h = g.node("Div", [h, k], "scaled")
    r = g.node("Reciprocal", [g.value("two", np.float32(2))], "reciprocal")
    h = g.node("Mul", [h, r], "halved")
    h = g.node("MatMul", [h, g.weight("fc2_w", 32, 10)], "fc2")
    h = g.node("Add", [h, g.weight("fc2_b", 10)], "fc2_bias")
    g.infos = [helper.make_tensor_value_info("halved_out", TensorProto.FLOAT, ["batch", 32])]
    g.node("Softmax", [g.node("Cast", [g.node("Dropout", [h], "drop")], "same", to=1)], "soft", axis=-1)
    g.nodes[-1].output[0] = "logits"
    g.node("Identity", [means], "out")
    g.nodes[-1].output[0] = "means"
    image = np.random.default_rng(2).normal(0, 1, (2, 3, 8, 8)).astype(np.float32)
    g.save("plain", [x], [y, z], 12, {"image": image})


def text():
    g = Graph(3)
    dims = ["batch_size", "sequence_length"]
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, dims)
    mask = helper.make_tensor_value_info("attention_mask", TensorProto.INT64, dims)
    y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, dims + [64])
    d = 64
    h = g.node("Gather", [g.weight("table", 64, d), "input_ids"], "embed")
    low = g.value("low", np.full((1,), -3.4e38, np.float32))
    m = g.node("Cast", ["attention_mask"], "mask_float", to=1)
    m = g.node("Mul", [g.node("Sub", [g.value("one", np.float32(1)), m], "absent"), low], "mask")
    m = g.node("Unsqueeze", [m, g.value("axis1", np.array([1]))], "mask3")
    for i in range(2):
        p = f"/layers.{i}"
        n = g.node("LayerNormalization", [h, g.value(p + "g", np.ones(d, np.float32)),
                                          g.value(p + "b", np.zeros(d, np.float32))], p + "/norm", axis=-1)
        q, k, v = (g.node("MatMul", [n, g.weight(f"{p}{s}_w", d, d, scale=0.05)], f"{p}/attn/{s}_proj/MatMul")
                   for s in "qkv")
        s = g.node("MatMul", [q, g.node("Transpose", [k], p + "/turn", perm=[0, 2, 1])], p + "/scores")
        s = g.node("Softmax", [g.node("Add", [s, m], p + "/masked")], p + "/soft", axis=-1)
        o = g.node("MatMul", [g.node("MatMul", [s, v], p + "/mixed"), g.weight(p + "o_w", d, d, scale=0.05)],
                   p + "/attn/o_proj/MatMul")
        h = g.node("Add", [h, o], p + "/residual")
        u = g.node("Add", [g.node("MatMul", [h, g.weight(p + "up_w", d, 128, scale=0.05)], p + "/mlp/up_proj/MatMul"),
                           g.weight(p + "up_b", 128)], p + "/up_bias")
        e = g.node("Erf", [g.node("Div", [u, g.value(p + "r2", np.float32(2 ** 0.5))], p + "/over")], p + "/erf")
        e = g.node("Mul", [g.node("Mul", [u, g.node("Add", [e, "one"], p + "/plus")], p + "/times"),
                           g.value(p + "h", np.float32(0.5))], p + "/gelu")
        h = g.node("Add", [h, g.node("MatMul", [e, g.weight(p + "down_w", 128, d, scale=0.05)],
                                     p + "/mlp/down_proj/MatMul")], p + "/residual2")
    head = numpy_helper.to_array(g.inits[0]).T.copy()
    g.node("MatMul", [h, g.value("head_w", head)], "/lm_head/MatMul")
    g.nodes[-1].output[0] = "logits"
    tokens = np.array([[3, 14, 15, 9, 2, 6, 53, 5], [8, 9, 7, 9, 3, 23, 8, 4]])
    g.save("text", [ids, mask], [y], 17, {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}, True)



def tokenizer(folder):
    """A letter an id, for calibration text."""
    import string
    letters = string.ascii_letters + string.digits + " ?"
    (OUT / folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None,
        "decoder": None, "model": {"type": "BPE", "unk_token": "?", "vocab": {c: i for i, c in enumerate(letters)},
                                   "merges": []}}))


CASES = [  # graph, pass, parameters, before, olive
    ("plain", "OnnxFloatToFloat16", {}, 3e-3, 2e-3),
    ("text", "OnnxFloatToFloat16", {}, 6e-3, 5e-3),
    ("text", "OnnxFloatToFloat16", {"keep_io_types": True, "op_block_list": ["Add", "Softmax"]}, 6e-3, 5e-3),
    ("text", "OrtMixedPrecision", {}, 6e-3, None),
    ("plain", "OnnxIODataTypeConverter", {"source_dtype": 1, "target_dtype": 10}, 1e-3, 0),
    ("text", "OnnxIOFloat16ToFloat32", {}, 1e-6, None),
    ("plain", "OnnxOpVersionConversion", {"target_opset": 21}, 1e-6, None),
    ("text", "OnnxOpVersionConversion", {"target_opset": 22}, 1e-6, None),
    ("text", "AddOliveMetadata", {"graph_name": "g", "custom_metadata": {"k": "v"}}, 1e-6, 1e-6),
    ("text", "VitisAIAddMetaData", {"weight_type": "uint8", "config_meta_data_keys": []}, 1e-6, None),
    ("plain", "OnnxPeepholeOptimizer", {}, 1e-6, 1e-6),
    ("plain", "OnnxPeepholeOptimizer", {"onnxscript_optimize": False}, 1e-6, None),
    ("text", "OnnxPeepholeOptimizer", {"cast_chain_elimination": True, "fix_com_microsoft_opset": True}, 1e-6, None),
    ("text", "OrtTransformersOptimization", {}, 1e-5, None),
    ("text", "OrtTransformersOptimization", {"float16": True, "opt_level": 1}, 6e-3, None),
    ("plain", "OnnxQuantizationPreprocess", {}, 1e-6, 1e-6),
    ("plain", "OnnxQuantizationPreprocess", {"skip_optimization": True}, 1e-6, None),
    ("plain", "DynamicToFixedShape", {"dim_param": ["batch"], "dim_value": [2]}, 1e-6, 1e-6),
    ("plain", "DynamicToFixedShape", {"input_name": ["image"], "input_shape": [[2, 3, 8, 8]]}, 1e-6, 1e-6),
    ("plain", "InputNCHWtoNHWC", {"input_names": ["image"]}, 1e-6, None),
    ("text", "OnnxBlockWiseRtnQuantization", {"block_size": 32}, 0.4, 2e-3),
    ("text", "OnnxBlockWiseRtnQuantization", {"block_size": 16, "is_symmetric": False}, 0.4, 2e-3),
    ("text", "OnnxBlockWiseRtnQuantization", {"block_size": 64, "bits": 8}, 0.03, 2e-3),
    ("text", "OnnxBlockWiseRtnQuantization",
     {"block_size": 32, "nodes_to_include": ["/lm_head/MatMul", "/layers.0/attn/q_proj/MatMul"]}, 0.3, 2e-3),
    ("text", "OnnxKQuantQuantization", {}, 0.4, None),
    ("text", "OnnxHqqQuantization", {"block_size": 32}, 0.4, None),
    ("text", "OnnxMatMul4Quantizer", {"is_symmetric": False}, 0.4, None),
    ("text", "OnnxMatMul4Quantizer", {"algorithm": "HQQ"}, 0.4, None),
    ("text", "OnnxMatMul4Quantizer", {"algorithm": "RTN"}, 0.4, None),
    ("text", "OnnxBnb4Quantization", {"precision": "nf4"}, 0.4, 1e-4),
    ("text", "OnnxBnb4Quantization", {"precision": "fp4", "quantized_modules": ["q_proj", "up_proj"]}, 0.4, 1e-4),
    ("text", "OnnxDynamicQuantization", {}, 0.1, 0.02),
    ("text", "OnnxDynamicQuantization", {"precision": "uint8", "per_channel": True}, 0.1, 0.02),
    ("plain", "OnnxDynamicQuantization", {"op_types_to_quantize": ["Gemm"]}, 0.05, 0.01),
    ("text", "OnnxStaticQuantization", {"per_channel": True}, 0.2, None),
    ("text", "OnnxStaticQuantization",
     {"activation_type": "uint16", "precision": "uint8", "per_channel": True, "quant_preprocess": False}, 0.1, None),
    ("text", "OnnxQuantization", {"activation_type": "uint8", "activation_symmetric": True}, 0.3, None),
    ("text", "OnnxQuantization", {"quant_mode": "dynamic"}, 0.1, None),
    ("text8", "MatMulNBitsToQDQ", {}, 1e-2, None),
    ("text8", "MatMulNBitsToQDQ", {"use_signed_int": True, "use_transpose_op": True}, 1e-2, None),
    ("text4", "MatMulNBitsToQDQ", {"use_int4": True, "add_zero_point": True}, 1e-2, 1e-4),
    ("text4", "MatMulNBitsToQDQ", {}, 1e-2, 1e-4),
]
SURGEONS = [  # graph, surgeons, before
    ("plain", ["RemoveShapes", "RemoveInitializerFromInputs", "DeduplicateNodes", "RemoveMemcpy"], 1e-6),
    ("plain", ["GemmToMatMulAdd", "MatMulAddToGemm", "ReciprocalMulToDiv", "DeduplicateSubgraphInitializers"], 1e-6),
    ("plain", ["RemoveAllTensorValueShapes",
               {"surgeon": "RenameInputDims", "input_name": "image", "dim_idx": 0, "dim_name": "n"},
               {"surgeon": "RenameOutputDims", "output_idx": 1, "dim_idx": 0, "dim_name": "n"}], 1e-6),
    ("text", ["ReplaceErfWithTanh", {"surgeon": "ReorderInputs", "permutation": [1, 0]}], 3e-2),
    ("text", ["ReplaceAttentionMaskValue", "TieWordEmbeddings", {"surgeon": "ExposeOutputs", "names": ["embed"]}], 1e-6),
    ("text", [{"surgeon": "AddIntermediateTensorsToOutputs", "intermediate_tensor_to_add": ["/layers.0/gelu_out"]}], 1e-6),
    ("static", ["RemoveQDQ", "RemoveDeqLin"], 3e-2),
    ("static", ["QDQToClip"], 3e-2),
]


def feeds_for(session, x):
    feeds = {}
    for i in session.get_inputs():
        value = x[i.name]
        feeds[i.name] = value.astype(np.float16) if "float16" in i.type else value
    return feeds


def olive_case(name, config, model, folder):
    from olive.model import ONNXModelHandler
    from olive.package_config import OlivePackageConfig
    from olive.passes.olive_pass import create_pass_from_dict
    cls = OlivePackageConfig.load_default_config().import_pass_module(name)
    made = create_pass_from_dict(cls, config, disable_search=True).run(ONNXModelHandler(str(model)), str(folder))
    return onnxruntime.InferenceSession(made.model_path, providers=["CPUExecutionProvider"])


def cases():
    from safetensors.numpy import load_file
    listed, olive = [], {}
    with tempfile.TemporaryDirectory() as tmp:
        tmp = pathlib.Path(tmp)
        for bits in (4, 8):  # what MatMulNBitsToQDQ begins with: Olive's own
            session = olive_case("OnnxBlockWiseRtnQuantization", {"block_size": 32, "bits": bits},
                                 OUT / "text" / "model.onnx", tmp / f"nbits{bits}")
            model = onnx.load(session._model_path)
            path = OUT / f"text{bits}" / "model.onnx"
            path.parent.mkdir(exist_ok=True)
            onnx.save(model, path)
            x = load_file(OUT / "text" / "x.safetensors")  # Olive's pass renames the output
            del x["logits"]
            x[session.get_outputs()[0].name] = session.run(None, feeds_for(session, x))[0]
            save_file(x, path.parent / "x.safetensors")
        for i, (graph, name, config, before, near) in enumerate(CASES):
            listed.append({"graph": graph, "pass": name, "config": config, "before": before, "olive": near})
            if near is None:
                continue
            x = load_file(OUT / graph / "x.safetensors")
            shutil.copytree(OUT / graph, tmp / f"{i}.in")  # Olive makes hard links of what it is given
            session = olive_case(name, config, tmp / f"{i}.in" / "model.onnx", tmp / str(i))
            names = [o.name for o in onnx.load(OUT / graph / "model.onnx", load_external_data=False).graph.output]
            for key, value in zip(names, session.run(None, feeds_for(session, x))):
                olive[f"{i}.{key}"] = value.astype(np.float32)
    for graph, surgeons, before in SURGEONS:
        surgeries = [{"surgeon": s} if isinstance(s, str) else s for s in surgeons]
        listed.append({"graph": graph, "pass": "GraphSurgeries", "config": {"surgeries": surgeries},
                       "before": before, "olive": None})
    save_file(olive, OUT / "olive.safetensors")
    (OUT / "cases.json").write_text("[\n" + ",\n".join(json.dumps(c) for c in listed) + "\n]\n")


def static():
    """The convolution in QDQ form, by ONNX Runtime's quantizer."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from safetensors.numpy import load_file
    x = load_file(OUT / "plain" / "x.safetensors")

    class Reader(CalibrationDataReader):
        rows = iter([{"image": x["image"]}])

        def get_next(self):
            return next(self.rows, None)

    path = OUT / "static" / "model.onnx"
    path.parent.mkdir(exist_ok=True)
    quantize_static(str(OUT / "plain" / "model.onnx"), str(path), Reader(), quant_format=QuantFormat.QDQ,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                    op_types_to_quantize=["Conv", "Gemm", "MatMul"])
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    save_file({"image": x["image"], **dict(zip(names, session.run(names, {"image": x["image"]})))},
              path.parent / "x.safetensors")


if __name__ == "__main__":
    plain()
    text()
    tokenizer("text")
    static()
    cases()
