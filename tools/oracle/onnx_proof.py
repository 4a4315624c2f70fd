#!/usr/bin/env python3
"""Exports against transformers, PEFT and torch, in two versions of ONNX Runtime and GenAI.

    python3 tools/oracle/onnx_proof.py EXPORT_TOOL [part ...]

parts: logits mutation int4 packed adapters genai longrope smollm2 (all by default)
ORACLE_OLD: interpreter with onnxruntime 1.20.1 and onnxruntime-genai 0.5.0
SMOLLM2: a folder of SmolLM2-135M-Instruct

Needs torch, transformers 5, peft, onnxruntime, onnxruntime_genai.  Each line is a proof:
the largest difference, its bound, and which runtimes agreed.  Exit 1 when one fails.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
HERE = pathlib.Path(__file__).resolve().parent
GOLDEN = HERE.parents[1] / "tests" / "golden"
RUNTIMES = {"1.32": sys.executable,
            "1.20": os.environ.get("ORACLE_OLD", "python3")}
SMOLLM2 = os.environ.get("SMOLLM2", "HuggingFaceTB/SmolLM2-135M-Instruct")
TMP = pathlib.Path(tempfile.mkdtemp(prefix="onnx-proof-"))
TOOL = sys.argv[1]
failed = 0
serial = 0


def fresh(name):
    global serial
    serial += 1
    return TMP / f"{serial:03d}-{name}"


def report(what, worst, bound, above=False):
    """worst < bound (or > with above) is a proof."""
    global failed
    good = worst > bound if above else worst < bound
    failed += not good
    sign = ">" if above else "<"
    print(f"{'ok  ' if good else 'FAIL'} {what:58s} {worst:.2e} {sign} {bound:.0e}", flush=True)


def export(model, precision, *options):
    out = fresh(pathlib.Path(model).name)
    subprocess.run([TOOL, str(model), str(out), precision, *options], check=True,
                   stdout=subprocess.DEVNULL)
    return out


def run(runtime, model, ids, mode, adapter=""):
    job, out = fresh("job.npz"), fresh("out.npz")
    np.savez(job, ids=np.asarray(ids), model=str(model), mode=mode, adapter=str(adapter))
    subprocess.run([RUNTIMES[runtime], str(HERE / "onnx_run.py"), str(job), str(out)],
                   check=True)
    return dict(np.load(out))


def load(path):
    m = transformers.AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager")
    return m.eval()


def tokens(model, n, seed=1):
    gen = torch.Generator().manual_seed(seed)
    return torch.randint(3, model.config.vocab_size, (n,), generator=gen).numpy()


@torch.no_grad()
def torch_full(model, ids):
    return model(input_ids=torch.tensor(ids)[None], use_cache=False).logits[0].numpy()


@torch.no_grad()
def torch_steps(model, ids):
    cuts = [0, *range(5, len(ids) + 1)]
    cache, rows = None, []
    for a, b in zip(cuts, cuts[1:]):
        out = model(input_ids=torch.tensor(ids[a:b])[None], past_key_values=cache,
                    use_cache=True)
        cache = out.past_key_values
        rows.append(out.logits[0])
    return torch.cat(rows).numpy()


@torch.no_grad()
def torch_greedy(model, ids, n):
    """By hand: generate() of Phi-3 drops its cache at the longrope switch."""
    cache, x, out = None, torch.tensor(ids)[None], []
    for _ in range(n):
        y = model(input_ids=x, past_key_values=cache, use_cache=True)
        cache = y.past_key_values
        x = y.logits[:, -1:].argmax(-1)
        out.append(int(x))
    return out


def compare(what, folder, model, ids, bound=1e-4, adapter="", runtimes=RUNTIMES):
    full, steps = torch_full(model, ids), torch_steps(model, ids)
    for r in runtimes:
        a = abs(run(r, folder, ids, "full", adapter)["logits"] - full).max()
        b = abs(run(r, folder, ids, "steps", adapter)["logits"] - steps).max()
        report(f"{what}, ort {r}, prompt", a, bound)
        report(f"{what}, ort {r}, step by step", b, bound)


# ---- parts ----

TINY = ["tiny/llama", "tiny/qwen2", "tiny/phi3", "nn/phi3_window", "nn/llama3_rope"]


def part_logits():
    for name in TINY:
        model = load(GOLDEN / name)
        ids = tokens(model, 48)  # phi3 switches above 32
        if model.config.model_type == "phi3" and getattr(model.config, "sliding_window", 0):
            # 1.20 and later do not agree on a window: each is right on its own export
            compare(f"{name} fp32", export(GOLDEN / name, "fp32"), model, ids,
                    runtimes=["1.32"])
            compare(f"{name} fp32 ort=20", export(GOLDEN / name, "fp32", "ort=20"), model,
                    ids, runtimes=["1.20"])
            continue
        compare(f"{name} fp32", export(GOLDEN / name, "fp32"), model, ids)


def mutated(name, change):
    path = fresh("mutated")
    shutil.copytree(GOLDEN / name, path)
    config = json.loads((path / "config.json").read_text())
    change(config)
    (path / "config.json").write_text(json.dumps(config))
    return path


def part_mutation():
    def theta(c):
        c["rope_theta"] *= 1.1

    def eps(c):
        c["rms_norm_eps"] = 1e-2

    def heads(c):
        c["rope_scaling"]["long_factor"] = c["rope_scaling"]["short_factor"]

    for name, change, what in (("tiny/llama", theta, "theta +10 %"),
                               ("tiny/qwen2", eps, "eps 1e-2"),
                               ("tiny/phi3", heads, "short factors in place of long")):
        model = load(GOLDEN / name)
        ids = tokens(model, 48)
        got = run("1.32", export(mutated(name, change), "fp32"), ids, "full")["logits"]
        report(f"{name} with {what} differs", abs(got - torch_full(model, ids)).max(), 1e-2,
               above=True)


def block_round(w, bits, block, symmetric):
    """The formula of genai.md, value by value in numpy: what the codes stand for."""
    n, k = w.shape
    kb = -(-k // block)
    v = np.zeros((n, kb * block), np.float32)
    v[:, :k] = w
    v = v.reshape(n, kb, block)
    lo, hi = v.min(-1), v.max(-1)
    top = np.float32(2 ** bits - 1)
    if symmetric:
        zero = np.full_like(lo, 2 ** (bits - 1))
        scale = np.where(abs(hi) > abs(lo), hi, lo) / -zero
    else:
        lo, hi = np.minimum(lo, 0), np.maximum(hi, 0)
        scale = ((hi - lo) / top).astype(np.float32)
        zero = np.floor(np.clip(-lo / np.where(scale == 0, 1, scale), 0, top) + 0.5)
    inv = np.where(scale != 0, np.float32(1) / np.where(scale == 0, 1, scale), 0)
    x = (v * inv.astype(np.float32)[..., None] + zero[..., None]).astype(np.float32)
    q = np.clip(np.sign(x) * np.floor(abs(x.astype(np.float64)) + 0.5), 0, top)
    y = ((q - zero[..., None]) * scale[..., None]).astype(np.float32)
    return y.reshape(n, -1)[:, :k]


def rounded_model(path, block, symmetric, head_bits, embedding):
    """The torch model with every linear replaced by what its codes stand for."""
    m = load(path)
    for name, lin in m.named_modules():
        if not isinstance(lin, torch.nn.Linear):
            continue
        bits = head_bits if name == "lm_head" else 4
        w = torch.tensor(block_round(lin.weight.detach().numpy(), bits, block, symmetric))
        if name == "lm_head" and m.config.tie_word_embeddings and not embedding:
            lin.weight = torch.nn.Parameter(w)  # untied: the embedding stays float
        else:
            lin.weight.data = w
    return m


def part_int4():
    grids = [("32 symmetric", 32, True, 4), ("32 asymmetric", 32, False, 4),
             ("16 symmetric", 16, True, 4), ("128 asymmetric", 128, False, 4),
             ("32 symmetric head 8", 32, True, 8), ("32 asymmetric head 8", 32, False, 8)]
    for name in ("tiny/llama", "tiny/qwen2", "tiny/phi3"):
        for what, block, sym, head in grids:
            options = ["acc=0", f"block={block}", f"head={head}"] + ([] if sym else ["asym"])
            width = json.loads((GOLDEN / name / "config.json").read_text())["hidden_size"]
            for ort in (0, 20):
                if ort == 20 and head == 8:
                    continue
                shared = width % block == 0 and not (ort and not sym and width // block % 2)
                model = rounded_model(GOLDEN / name, block, sym, head, shared)
                folder = export(GOLDEN / name, "int4", *options, f"ort={ort}")
                compare(f"{name} int4 {what} ort={ort}", folder, model, tokens(model, 40),
                        runtimes=RUNTIMES if ort else ["1.32"])
    mlas_bytes()


def mlas_bytes():
    """Codes, scales and zero points against ONNX Runtime's own quantizer."""
    import onnx
    from onnxruntime.capi._pybind_state import quantize_matmul_4bits

    name = "tiny/qwen2"
    weights = load_file(GOLDEN / name / "model.safetensors")
    for block in (16, 32, 64):
        for sym in (True, False):
            folder = export(GOLDEN / name, "int4", f"block={block}",
                            *([] if sym else ["asym"]))
            inits = {i.name: onnx.numpy_helper.to_array(i, str(folder)) for i in
                     onnx.load(folder / "model.onnx").graph.initializer}
            w = weights["model.layers.0.mlp.down_proj.weight"].numpy()
            n, k = w.shape
            kb = -(-k // block)
            codes = np.zeros((n, kb, block // 2), np.uint8)
            scales = np.zeros(n * kb, np.float32)
            zeros = np.zeros((n, (kb + 1) // 2), np.uint8)
            v = np.ascontiguousarray(np.pad(w, ((0, 0), (0, kb * block - k))).T)
            quantize_matmul_4bits(codes, v, scales, zeros, block, n, kb * block, sym)
            p = "model.layers.0.mlp.down_proj.MatMul.weight"
            bad = (inits[p + "_Q4"] != codes).sum()
            bad += (inits[p + "_scales"].ravel() != scales).sum()
            if not sym:
                bad += (inits[p + "_zero_points"].ravel() != zeros.ravel()).sum()
            report(f"bytes of MlasQuantizeBlockwise, {block}, {'' if sym else 'a'}sym",
                   float(bad), 1)


# ---- packed checkpoints ----

AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def awq_pack(values):
    """[rows, N] codes to int32 [rows, N/8] in AutoAWQ's order of columns."""
    rows, n = values.shape
    v = values.reshape(rows, n // 8, 8)[:, :, AWQ_ORDER].astype(np.uint32)
    return (v << (4 * np.arange(8, dtype=np.uint32))).sum(-1, dtype=np.uint32).view(np.int32)


def gptq_pack(values, axis):
    v = np.moveaxis(values, axis, -1).astype(np.uint32)
    v = v.reshape(*v.shape[:-1], v.shape[-1] // 8, 8)
    p = (v << (4 * np.arange(8, dtype=np.uint32))).sum(-1, dtype=np.uint32).view(np.int32)
    return np.moveaxis(p, -1, axis)


def packed_model(name, method, group):
    """A checkpoint in AWQ's or GPTQ's layout, and the torch model that it stands for."""
    m = load(GOLDEN / name)
    rng = np.random.default_rng(5)
    tensors = {k: v.clone() for k, v in m.state_dict().items()}
    if m.config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    for path, lin in m.named_modules():
        if not isinstance(lin, torch.nn.Linear) or path == "lm_head":
            continue
        w = lin.weight.detach().numpy()
        n, k = w.shape
        g = k // group
        v = w.reshape(n, g, group)
        lo, hi = np.minimum(v.min(-1), 0), np.maximum(v.max(-1), 0)
        scale = ((hi - lo) / 15).astype(np.float16)
        zero = np.clip(np.round(-lo / scale.astype(np.float32)), 1, 15)
        q = np.clip(np.round(v / scale.astype(np.float32)[..., None]) + zero[..., None], 0, 15)
        y = (q - zero[..., None]) * scale.astype(np.float32)[..., None]
        lin.weight.data = torch.tensor(y.reshape(n, k).astype(np.float32))
        tensors.pop(path + ".weight")
        codes, zeros = q.reshape(n, k).T.astype(np.uint8), zero.T.astype(np.uint8)
        if method == "awq":
            tensors[path + ".qweight"] = torch.tensor(awq_pack(codes))
            tensors[path + ".qzeros"] = torch.tensor(awq_pack(zeros))
        else:
            tensors[path + ".qweight"] = torch.tensor(gptq_pack(codes, 0))
            tensors[path + ".qzeros"] = torch.tensor(gptq_pack(zeros - 1, 1))
            tensors[path + ".g_idx"] = torch.arange(k, dtype=torch.int32) // group
        tensors[path + ".scales"] = torch.tensor(scale.T.copy())
    out = fresh(f"{method}-{pathlib.Path(name).name}")
    out.mkdir()
    config = json.loads((GOLDEN / name / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, "bits": 4, "group_size": group}
    config["quantization_config"] |= (
        {"version": "gemm", "zero_point": True} if method == "awq" else
        {"desc_act": False, "sym": False, "checkpoint_format": "gptq"})
    (out / "config.json").write_text(json.dumps(config))
    save_file({k: v.contiguous() for k, v in tensors.items()}, out / "model.safetensors",
              {"format": "pt"})
    return out, m


def part_packed():
    for name in ("tiny/llama", "tiny/qwen2", "tiny/phi3"):
        for method in ("awq", "gptq"):
            path, model = packed_model(name, method, 16)
            ids = tokens(model, 40)
            compare(f"{name} {method} as floats", export(path, "fp32"), model, ids)
            for ort in (0, 20):
                folder = export(path, "int4", "acc=0", f"ort={ort}", "block=16")
                ref = load(GOLDEN / name)
                ref.load_state_dict(model.state_dict())
                w = model.lm_head.weight.detach().numpy()
                sym = torch.tensor(block_round(w, 4, 16, True))
                if model.config.tie_word_embeddings:
                    ref.model.embed_tokens.weight.data = sym
                ref.lm_head.weight.data = sym
                compare(f"{name} {method} ort={ort}", folder, ref, ids,
                        runtimes=RUNTIMES if ort else ["1.32"])


# ---- adapters ----

def make_adapter(name, targets, r, seed, **more):
    """A PEFT folder with random B, and the PEFT model."""
    torch.manual_seed(seed)
    m = load(GOLDEN / name)
    cfg = peft.LoraConfig(r=r, lora_alpha=2 * r, target_modules=targets, lora_dropout=0.0,
                          bias="none", task_type="CAUSAL_LM", **more)
    m = peft.get_peft_model(m, cfg)
    for n, p in m.named_parameters():
        if "lora_" in n:
            p.data = 0.15 * torch.randn(p.shape)
    out = fresh("adapter")
    m.save_pretrained(out)
    return out, m.eval()


def part_adapters():
    cases = [
        ("tiny/llama", {"qv": (["q_proj", "v_proj"], 4)}),
        ("tiny/llama", {"all": ("all-linear", 3), "k": (["k_proj"], 8)}),
        ("tiny/qwen2", {"qv": (["q_proj", "v_proj"], 8),
                        "mixed": (["o_proj", "up_proj"], 2)}),
        ("tiny/phi3", {"all": (["qkv_proj", "o_proj", "gate_up_proj", "down_proj"], 4)}),
        ("tiny/phi3", {"up": (["gate_up_proj"], 16)}),
    ]
    for name, adapters in cases:
        made = {n: make_adapter(name, t, r, i) for i, (n, (t, r)) in
                enumerate(adapters.items())}
        folder = export(GOLDEN / name, "fp32", *(f"{n}={p}" for n, (p, _) in made.items()))
        base = load(GOLDEN / name)
        ids = tokens(base, 44)
        compare(f"{name} base of {'+'.join(made)}", folder, base, ids)
        for n, (_, model) in made.items():
            compare(f"{name} + {n}", folder, model, ids,
                    adapter=folder / f"{n}.onnx_adapter")
            for r in RUNTIMES:
                want = torch_greedy(model, ids[:20], 24)
                got = run(r, folder, ids[:20], "greedy:24", folder / f"{n}.onnx_adapter")
                report(f"{name} + {n}, genai of ort {r}, 24 tokens",
                       wrong(want, got["tokens"], base), 1)
    pattern_case()


def pattern_case():
    """Ranks that differ from module to module, rank-stabilized, on an int4 base."""
    name = "tiny/llama"
    path, model = make_adapter(name, ["q_proj", "o_proj", "down_proj"], 4, 9,
                               rank_pattern={"o_proj": 2, "down_proj": 7}, use_rslora=True)
    for ort in (0, 20):
        folder = export(GOLDEN / name, "int4", "acc=0", f"ort={ort}", f"a={path}")
        ref = rounded_model(GOLDEN / name, 32, True, 4, True).state_dict()
        for n, p in model.base_model.model.named_parameters():
            plain = n.replace(".base_layer", "")
            if "lora_" not in n:
                p.data = ref[plain]
        compare(f"{name} int4 + ranks 4, 2, 7 rslora ort={ort}", folder, model,
                tokens(model, 40), adapter=folder / "a.onnx_adapter",
                runtimes=RUNTIMES if ort else ["1.32"])


# ---- generation ----

def wrong(want, got, model):
    """Tokens that differ before the end, which GenAI 0.5 returns and 0.18 does not."""
    eos = model.config.eos_token_id
    want, got = ([int(t) for t in x] for x in (want, got))
    want, got = (x[:x.index(eos)] if eos in x else x for x in (want, got))
    return float(sum(a != b for a, b in zip(want, got)) + abs(len(want) - len(got)))


def part_genai():
    for name in ("tiny/llama", "tiny/qwen2", "tiny/phi3"):
        model = load(GOLDEN / name)
        folder = export(GOLDEN / name, "fp32")
        for seed in (1, 2, 3):
            ids = tokens(model, 20, seed)
            want = torch_greedy(model, ids, 40)  # phi3: over the switch
            for r in RUNTIMES:
                got = run(r, folder, ids, "greedy:40")["tokens"]
                report(f"{name} fp32 seed {seed}, genai of ort {r}, 40 tokens",
                       wrong(want, got, model), 1)


def part_longrope():
    """Over 4096 tokens GenAI 0.18 starts the cache of a phi3 anew, as generate() does; 0.5
    keeps the keys that were rotated with the short factors."""
    path = fresh("long")
    shutil.copytree(GOLDEN / "tiny/phi3", path)
    config = json.loads((path / "config.json").read_text())
    config |= {"max_position_embeddings": 8192, "original_max_position_embeddings": 4096}
    (path / "config.json").write_text(json.dumps(config))
    model = load(path)
    for n in (4080, 4096, 4097, 4200):
        ids = tokens(model, n, 3)
        again = model.generate(torch.tensor(ids)[None], max_new_tokens=30, do_sample=False,
                               attention_mask=torch.ones(1, n), pad_token_id=0)
        want = {"1.32": again[0, n:].tolist(), "1.20": torch_greedy(model, ids, 30)}
        for r, ort in (("1.32", 0), ("1.20", 20)):
            folder = export(path, "fp32", "max=8192", f"ort={ort}")
            got = run(r, folder, ids, "greedy:30")["tokens"]
            report(f"longrope at {n} of 4096, genai of ort {r}, 30 tokens",
                   wrong(want[r], got, model), 1)


PROMPTS = ["<|user|>\nwhere is the best place in london<|end|>\n<|assistant|>\n",
           "The capital of France is Paris. The capital of Germany is",
           "def fibonacci(n):\n", "Once upon a time, in a village by the sea,",
           "Water boils at a temperature of"]


def part_smollm2():
    tok = transformers.AutoTokenizer.from_pretrained(SMOLLM2)
    model = load(SMOLLM2)
    folder = export(SMOLLM2, "fp32")
    for text in PROMPTS:
        ids = tok(text)["input_ids"]
        want = torch_greedy(model, ids, 24)
        for r in RUNTIMES:
            got = run(r, folder, ids, "greedy:24")["tokens"]
            report(f"smollm2 {text[:24]!r}, genai of ort {r}, 24 tokens",
                   wrong(want, got, model), 1)


def main():
    parts = sys.argv[2:] or ["logits", "mutation", "int4", "packed", "adapters", "genai",
                             "longrope", "smollm2"]
    for part in parts:
        globals()["part_" + part]()
    print(f"{failed} failed" if failed else "all proofs hold")
    shutil.rmtree(TMP)
    sys.exit(failed > 0)


main()
