#!/usr/bin/env python3
"""Graphs with LoRA products in them, for generate-adapter: tests/golden/lift.

    python3 tools/oracle/lift_goldens.py

traced/     a tiny Llama with PEFT's adapter by torch's exporter, weights in a file beside it
spellings/  a graph by hand: products named by node (default, default_1) behind a Transpose
            and before a Mul, Gemm with transB, MatMulNBits with and without zero points, and
            a model builder's names
expected.safetensors of each: the input, the output with the adapter (the graph as it is) and
without, both by ONNX Runtime, PEFT having the last word on traced.
bad/        graphs that are refused.
Needs torch, transformers 5, peft, onnx, onnxscript, onnxruntime.
"""
import pathlib
import shutil

import numpy as np
import onnx
import onnxruntime
import peft
import torch
import transformers
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "lift"
K, N, R = 32, 24, 4


def run(path, feeds):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


class Logits(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.m = model

    def forward(self, input_ids):
        return self.m(input_ids=input_ids, use_cache=False).logits


def traced():
    torch.manual_seed(7)
    base = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, vocab_size=20, max_position_embeddings=32, tie_word_embeddings=False))
    model = peft.get_peft_model(base.eval(), peft.LoraConfig(
        r=3, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], rank_pattern={"down_proj": 5})).eval()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.5)
    ids = torch.tensor([[3, 14, 15, 9, 2, 6]])
    path = OUT / "traced" / "model.onnx"
    path.parent.mkdir(parents=True)
    torch.onnx.export(Logits(model), (ids,), str(path), input_names=["input_ids"], output_names=["logits"],
                      dynamo=True, opset_version=18)
    graph = onnx.load(path)
    del graph.metadata_props[:]
    del graph.graph.metadata_props[:]
    for node in graph.graph.node:
        kept = [p for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes" and "lora" in p.value]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
        node.doc_string = ""
    for value in graph.graph.value_info:
        del value.metadata_props[:]
    for old in path.parent.iterdir():
        old.unlink()
    onnx.save(graph, path, save_as_external_data=True, location="weights.bin", size_threshold=200)
    with torch.no_grad():
        expected = {"with": Logits(model)(ids).numpy()}
        with model.disable_adapter():
            expected["without"] = model(input_ids=ids, use_cache=False).logits.numpy()
    assert np.abs(run(path, {"input_ids": ids.numpy()}) - expected["with"]).max() < 1e-5
    save_file({"x": ids.numpy(), **expected}, path.parent / "expected.safetensors")


class Graph:
    def __init__(self):
        self.nodes, self.inits, self.rng = [], [], np.random.default_rng(3)

    def weight(self, name, *shape):
        self.inits.append(numpy_helper.from_array(self.rng.normal(0, 0.4, shape).astype(np.float32), name))
        return name

    def value(self, name, array):
        self.inits.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op, inputs, name, **attrs):
        self.nodes.append(helper.make_node(op, inputs, [name + "_out"], name, **attrs))
        return name + "_out"

    def nbits(self, x, name, weight, k, n, zeros):
        blocks = -(-k // 16)
        self.value(weight, self.rng.integers(0, 256, (n, blocks, 8), dtype=np.uint8))
        inputs = [x, weight, self.value(weight + ".scale", self.rng.uniform(0.02, 0.1, n * blocks).astype(np.float32))]
        if zeros:
            inputs.append(self.value(weight + ".zero", self.rng.integers(
                0, 256, n * (-(-blocks // 2)), dtype=np.uint8)))
        return self.node("MatMulNBits", inputs, name, domain="com.microsoft", K=k, N=n, bits=4, block_size=16)

    def save(self, path, out):
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", K])
        y = helper.make_tensor_value_info(out, TensorProto.FLOAT, ["rows", N])
        graph = helper.make_graph(self.nodes, "g", [x], [y], self.inits)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17),
                                                        helper.make_opsetid("com.microsoft", 1)])
        model.ir_version = 8
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, path)


def spellings():
    g = Graph()
    base = g.node("MatMul", ["x", g.weight("w", K, N)], "/model/layers.0/self_attn/q_proj/MatMul")
    name = "/model/layers.0/self_attn/q_proj/default"
    a = g.node("MatMul", ["x", g.node("Transpose", [g.weight("a0", R, K)], "turn", perm=[1, 0])], name + "/MatMul")
    b = g.node("MatMul", [a, g.weight("b0", R, N)], name + "_1/MatMul")
    g.nodes.append(helper.make_node("Constant", [], ["half"], "half", value=helper.make_tensor(
        "v", TensorProto.FLOAT, [], [0.5])))
    y = g.node("Add", [base, g.node("Mul", ["half", b], name + "/Mul")], "add0")
    up = "model.layers.0.mlp.up_proj."
    a = g.node("Gemm", ["x", g.weight(up + "lora_A.weight", R, K)], "gemm_a", transB=1)
    y = g.node("Add", [y, g.node("Gemm", [a, g.weight(up + "lora_B.weight", N, R)], "gemm_b", transB=1)], "add1")
    k_proj = "model.layers.0.attn.k_proj."
    a = g.nbits("x", "/model/layers.0/attn/k_proj/lora_A/MatMul_Q4", k_proj + "lora_A.MatMul.weight_Q4", K, R, True)
    b = g.nbits(a, "/model/layers.0/attn/k_proj/lora_B/MatMul_Q4", k_proj + "lora_B.MatMul.weight_Q4", R, N, False)
    out = g.node("Add", [y, b], "/model/layers.0/attn/k_proj/lora/Add")
    path = OUT / "spellings" / "model.onnx"
    g.save(path, out)
    x = np.random.default_rng(5).normal(0, 1, (3, K)).astype(np.float32)
    weight = numpy_helper.to_array(g.inits[0])
    save_file({"x": x, "with": run(path, {"x": x}), "without": x @ weight}, path.parent / "expected.safetensors")


def bad():
    def product(g, x, half, k, n, name="q_proj"):
        return g.node("MatMul", [x, g.weight(f"model.layers.0.self_attn.{name}.lora_{half}.weight", k, n)],
                      f"/{name}/lora_{half}/MatMul{len(g.nodes)}")
    g = Graph()
    g.save(OUT / "bad" / "none.onnx", g.node("MatMul", ["x", g.weight("w", K, N)], "plain"))
    g = Graph()
    g.save(OUT / "bad" / "no_b.onnx", product(g, "x", "A", K, N))
    g = Graph()
    g.save(OUT / "bad" / "no_a.onnx", product(g, "x", "B", K, N))
    g = Graph()
    first = product(g, product(g, "x", "A", K, R), "B", R, N)
    g.inits[0].name = g.nodes[0].input[1] = "model.layers.0.self_attn.q_proj.lora_A.one.weight"
    g.inits[1].name = g.nodes[1].input[1] = "model.layers.0.self_attn.q_proj.lora_B.one.weight"
    second = product(g, product(g, "x", "A", K, R), "B", R, N)
    g.save(OUT / "bad" / "two.onnx", g.node("Add", [first, second], "sum"))
    g = Graph()
    doubled = g.node("Add", [g.weight("model.layers.0.self_attn.q_proj.lora_A.weight", K, N)] * 2, "twice")
    g.save(OUT / "bad" / "computed.onnx", g.node("MatMul", ["x", doubled], "/q_proj/lora_A/default/MatMul"))
    g = Graph()
    g.save(OUT / "bad" / "ranks.onnx", product(g, g.node("MatMul", [product(g, "x", "A", K, R),
                                                                   g.weight("m", R, 3)], "mid"), "B", 3, N))
    g = Graph()
    y = product(g, product(g, "x", "A", K, R), "B", R, N)
    for init in g.inits:
        init.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "../weights.bin"), ("offset", "0")):
            init.external_data.add(key=key, value=value)
        init.ClearField("raw_data")
    g.save(OUT / "bad" / "elsewhere.onnx", y)
    for init in g.inits:
        init.external_data[0].value = "short.bin"
    g.save(OUT / "bad" / "short.onnx", y)
    (OUT / "bad" / "short.bin").write_bytes(bytes(40))


if __name__ == "__main__":
    shutil.rmtree(OUT, ignore_errors=True)
    traced()
    spellings()
    bad()
