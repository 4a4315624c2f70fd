#!/usr/bin/env python3
"""The lab's last step against PEFT: greedy tokens of an exported folder, with and without its
adapter, beside transformers + PEFT over the dequantized base.

lab_compare.py QUANTIZED ADAPTER ONNX [--tokens 24] [--runtime-only]
  QUANTIZED  drupe quantize's folder (AWQ or GPTQ layout), ADAPTER  a PEFT folder,
  ONNX       auto-opt's folder, exported with --int4_accuracy_level 0
The linears come from the checkpoint; embedding and head from the ONNX file (auto-opt rounds
them itself).  Runs under onnxruntime-genai 0.18 and, with --runtime-only, prints the tokens
alone, under 0.5 too.
"""
import argparse
import json
import pathlib

import numpy as np

PROMPTS = ["what is the best thing to see in chicago", "where is the best place in london",
           "Best way to get around Tokyo?", "What should I pack for a trip to Australia?",
           "The capital of France is", "How do I", "Tell me about the sea.", "1 + 1 ="]


def template(text):
    return f"<|user|>\n{text}<|end|>\n<|assistant|>\n"


def genai_tokens(folder, adapter, count):
    import onnxruntime_genai as og
    model = og.Model(str(folder))
    tokenizer = og.Tokenizer(model)
    adapters = og.Adapters(model)
    if adapter:
        adapters.load(str(folder / "adapter_weights.onnx_adapter"), "travel")
    out = []
    for prompt in PROMPTS:
        ids = tokenizer.encode(template(prompt))
        params = og.GeneratorParams(model)
        params.set_search_options(max_length=len(ids) + count, do_sample=False,
                                  past_present_share_buffer=False)
        old = not hasattr(og.Generator, "append_tokens")
        if old:
            params.input_ids = ids
        generator = og.Generator(model, params)
        if adapter:
            generator.set_active_adapter(adapters, "travel")
        if not old:
            generator.append_tokens(ids)
        new = []
        while not generator.is_done():
            if old:
                generator.compute_logits()
            generator.generate_next_token()
            new.append(int(generator.get_next_tokens()[0]))
        out.append((list(map(int, ids)), new))
        del generator
    return out


def unpack_awq(qweight, qzeros, scales, group):
    order = [0, 2, 4, 6, 1, 3, 5, 7]

    def columns(words):
        out = np.zeros((words.shape[0], words.shape[1] * 8), dtype=np.int32)
        for i, column in enumerate(order):
            out[:, column::8] = (words >> (4 * i)) & 15
        return out
    codes, zeros = columns(qweight), columns(qzeros)
    k = codes.shape[0]
    which = np.arange(k) // group
    return ((codes - zeros[which]) * scales[which].astype(np.float32)).T


def unpack_gptq(qweight, qzeros, scales, group):
    k = qweight.shape[0] * 8
    codes = np.zeros((k, qweight.shape[1]), dtype=np.int32)
    zeros = np.zeros((qzeros.shape[0], qzeros.shape[1] * 8), dtype=np.int32)
    for i in range(8):
        codes[i::8] = (qweight >> (4 * i)) & 15
        zeros[:, i::8] = (qzeros >> (4 * i)) & 15
    which = np.arange(k) // group
    return ((codes - zeros[which] - 1) * scales[which].astype(np.float32)).T


def head_of(folder):
    """Embedding (or head) as the ONNX file has it, [V, D] float; None when plain."""
    import onnx
    from onnx import numpy_helper
    model = onnx.load(str(folder / "model.onnx"))
    init = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "MatMulNBits" and node.name.startswith("/lm_head"):
            attr = {a.name: a.i for a in node.attribute}
            codes = numpy_helper.to_array(init[node.input[1]])
            scales = numpy_helper.to_array(init[node.input[2]]).reshape(codes.shape[:2])
            low, high = codes & 15, codes >> 4
            q = np.stack([low, high], -1).reshape(*codes.shape[:2], -1).astype(np.float32)
            zero = 8.0
            if len(node.input) > 3 and node.input[3]:
                packed = numpy_helper.to_array(init[node.input[3]]).reshape(codes.shape[0], -1)
                zero = np.stack([packed & 15, packed >> 4], -1).reshape(codes.shape[0], -1)
                zero = zero[:, :codes.shape[1], None].astype(np.float32)
            w = ((q - zero) * scales[..., None]).reshape(codes.shape[0], -1)[:, :attr["K"]]
            tied = any(n.op_type == "GatherBlockQuantized" for n in model.graph.node)
            return w, tied
    return None, False


def torch_tokens(quantized, adapter, onnx_folder, count, prompts):
    import torch
    import transformers
    from safetensors.torch import load_file
    folder = quantized / "model" if (quantized / "model").is_dir() else quantized
    config = transformers.AutoConfig.from_pretrained(folder)
    quant = json.loads((folder / "config.json").read_text())["quantization_config"]
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors.update(load_file(path))
    unpack = {"awq": unpack_awq, "gptq": unpack_gptq}[quant["quant_method"]]
    group = quant.get("group_size")
    state = {}
    for name, t in tensors.items():
        if name.endswith(".qweight"):
            base = name[:-8]
            w = unpack(t.numpy(), tensors[base + ".qzeros"].numpy(),
                       tensors[base + ".scales"].float().numpy(), group)
            state[base + ".weight"] = torch.from_numpy(np.ascontiguousarray(w))
        elif not name.endswith((".qzeros", ".scales", ".g_idx")):
            state[name] = t.float()
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    missing, extra = model.load_state_dict(state, strict=False)
    assert not extra, extra
    assert all("lm_head" in m for m in missing), missing
    head, tied = head_of(onnx_folder)
    if head is not None:
        if tied:
            model.tie_weights()
            model.get_input_embeddings().weight.data = torch.from_numpy(head)
            model.get_output_embeddings().weight = model.get_input_embeddings().weight
        else:
            model.get_output_embeddings().weight = torch.nn.Parameter(torch.from_numpy(head))
    if adapter:
        import peft
        model = peft.PeftModel.from_pretrained(model, adapter)
    model.eval()
    eos = config.eos_token_id
    eos = set(eos if isinstance(eos, list) else [eos])
    out = []
    with torch.no_grad():
        for ids in prompts:
            tokens, past, step = list(ids), None, torch.tensor([ids])
            margins = []
            for _ in range(count):
                got = model(step, past_key_values=past, use_cache=True)
                past, logits = got.past_key_values, got.logits[0, -1]
                top = logits.topk(2).values
                margins.append((top[0] - top[1]).item())
                tokens.append(int(logits.argmax()))
                step = torch.tensor([tokens[-1:]])
                if tokens[-1] in eos:
                    break
            out.append((tokens[len(ids):], margins))
    return out


def main():
    p = argparse.ArgumentParser()
    p.add_argument("quantized", type=pathlib.Path)
    p.add_argument("adapter", type=pathlib.Path)
    p.add_argument("onnx", type=pathlib.Path)
    p.add_argument("--tokens", type=int, default=24)
    p.add_argument("--runtime-only", action="store_true")
    a = p.parse_args()
    folder = a.onnx / "model" if (a.onnx / "model").is_dir() else a.onnx
    bad = 0
    for adapter in (None, a.adapter):
        got = genai_tokens(folder, adapter is not None, a.tokens)
        if a.runtime_only:
            for _, new in got:
                print(json.dumps(new))
            continue
        want = torch_tokens(a.quantized, adapter, folder, a.tokens, [ids for ids, _ in got])
        for prompt, (_, new), (ref, margins) in zip(PROMPTS, got, want):
            same = new[:len(ref)] == ref
            bad += not same
            at = next((i for i, (x, y) in enumerate(zip(new, ref)) if x != y), None)
            print("same" if same else f"DIFFERS at {at}, margin {margins[at] if at is not None else 0:.2e}",
                  "adapter" if adapter else "base", repr(prompt), new[:6])
    print(f"{16 - bad} of 16 same" if not a.runtime_only else "done")
    raise SystemExit(bad > 0)


main()
