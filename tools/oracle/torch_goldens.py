#!/usr/bin/env python3
"""Files of torch.save for tests/unit/hf/torch_file_test.c.

tests/golden/hf/torch/
    config.json             of ../llama, whose weights pytorch_model.bin holds: some as
                            parameters, some transposed in memory, two in one storage; and
                            extra tensors of every type, in dictionaries and out
    pytorch_model.bin
    expected.safetensors    all of its tensors in row order
    legacy.bin              a tensor in the form before torch 1.6
    training.bin            {"state_dict": {...}, "epoch": 3}: a training checkpoint
    shards/                 ../llama in two files with an index
    adapter_model.bin       ../adapter's weights
    manifest.json           versions, sha256

    python3 tools/oracle/torch_goldens.py   (torch, safetensors; after hf_goldens.py)
"""
import collections
import hashlib
import json
import pathlib
import shutil

import torch
from safetensors.torch import load_file, save_file

HF = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "hf"
ROOT = HF / "torch"
SEED = 20240613


def extra():
    """Tensors that lie in their storages in odd ways."""
    base = torch.arange(60, dtype=torch.float32) * 0.5 - 7
    cube = base.reshape(3, 4, 5)
    types = {"f64": torch.float64, "f16": torch.float16, "bf16": torch.bfloat16,
             "u8": torch.uint8, "i8": torch.int8, "i16": torch.int16, "i32": torch.int32,
             "i64": torch.int64, "bool": torch.bool}
    flat = {f"extra.{k}": (base.abs() * 3).to(t) for k, t in types.items()}
    flat["extra.negative"] = torch.tensor([-1, -2**31, 2**31 - 1], dtype=torch.int32)
    flat["extra.scalar"] = torch.tensor(2.5)
    flat["extra.empty"] = torch.zeros(0, 3)
    odd = {"turned": cube.permute(2, 0, 1), "tail": base[13:], "step": base[1::7],
           "inner": cube[1:, 2, 1:4], "column": cube[:, :, 3], "one": cube[:, :1, :]}
    return flat, odd


def flatten(d, path=""):
    for k, v in d.items():
        if isinstance(v, dict):
            yield from flatten(v, f"{path}{k}.")
        elif isinstance(v, torch.Tensor):
            yield path + k, v.detach()


def main():
    shutil.rmtree(ROOT, ignore_errors=True)
    (ROOT / "shards").mkdir(parents=True)
    torch.manual_seed(SEED)
    llama = load_file(HF / "llama" / "model.safetensors")
    state = collections.OrderedDict()
    for i, (name, w) in enumerate(llama.items()):
        if i % 3 == 1 and w.dim() == 2:
            w = w.t().contiguous().t()
        state[name] = torch.nn.Parameter(w) if i % 4 == 2 else w
    names = [n for n in state if n.endswith("layernorm.weight")][:2]
    both = torch.cat([llama[n] for n in names])
    state[names[0]], state[names[1]] = both[: len(both) // 2], both[len(both) // 2 :]
    flat, odd = extra()
    state.update(flat)
    state["nested"] = {"odd": odd, "deeper": collections.OrderedDict(a=torch.ones(2))}
    state["version"] = "text"
    state["steps"] = 12345678901
    state._metadata = collections.OrderedDict({"": {"version": 1}})
    torch.save(state, ROOT / "pytorch_model.bin")
    save_file({k: v.contiguous().clone() for k, v in flatten(state)},
              ROOT / "expected.safetensors")
    shutil.copy(HF / "llama" / "config.json", ROOT / "config.json")
    torch.save({"a": torch.ones(3)}, ROOT / "legacy.bin",
               _use_new_zipfile_serialization=False)
    torch.save({"state_dict": {"model.a": torch.arange(3.0)}, "epoch": 3, "lr": 0.1,
                "other": {"b": torch.ones(1)}}, ROOT / "training.bin")
    half, where = list(llama), {}
    half = [half[::2], half[1::2]]
    for i, part in enumerate(half):
        file = f"pytorch_model-{i + 1:05d}-of-00002.bin"
        torch.save({n: llama[n].clone() for n in part}, ROOT / "shards" / file)
        where |= {n: file for n in part}
    (ROOT / "shards" / "pytorch_model.bin.index.json").write_text(json.dumps(
        {"metadata": {"total_size": sum(w.nbytes for w in llama.values())},
         "weight_map": where}, indent=1) + "\n")
    torch.save(load_file(HF / "adapter" / "adapter_model.safetensors"),
               ROOT / "adapter_model.bin")
    files = {str(p.relative_to(ROOT)): hashlib.sha256(p.read_bytes()).hexdigest()
             for p in sorted(ROOT.rglob("*")) if p.is_file()}
    (ROOT / "manifest.json").write_text(json.dumps(
        {"seed": SEED, "versions": {"torch": torch.__version__}, "sha256": files},
        indent=1) + "\n")


if __name__ == "__main__":
    main()
