#!/usr/bin/env python3
"""What Olive makes of the workflow files in tests/golden/workflows: olive.json there.

    OLIVE_DISABLE_TELEMETRY=1 python3 tools/oracle/workflow_goldens.py

Files that begin with an ONNX model are run in olive-ai on tests/golden/rewrite/text.  They judge by size
alone: custom metrics do not survive Olive 0.13's own copying of its configuration.  Of each file: the passes of
the best model with the parameters that the file names, of the second best where it asks for two, and of every
candidate whether its goals are met.
Needs olive-ai 0.13, onnxruntime.
"""
import copy
import json
import pathlib
import tempfile

import onnx
import yaml
from olive import run
from olive.common.config_utils import CaseInsensitiveEnum
from olive.engine.engine import Engine

ROOT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"


def missing(cls, value, found=CaseInsensitiveEnum._missing_.__func__):
    """Today's pydantic asks for the enum member None, which Olive 0.13 does not expect."""
    return found(cls, value) if isinstance(value, str) else None


CaseInsensitiveEnum._missing_ = classmethod(missing)
LIMITS = {}


def resolve_goals(self, *args, compute=Engine.resolve_goals):
    """Footprints of 0.13 say that goals are met whatever they are: its limits are kept, for a look."""
    LIMITS.update(compute(self, *args))
    return LIMITS


Engine.resolve_goals = resolve_goals


def named(workflow):
    """Pass types, lower case, with the parameters that the file names for them."""
    keys = {}
    for entry in workflow["passes"].values():
        for p in entry if isinstance(entry, list) else [entry]:
            keys.setdefault(p["type"].lower(), set()).update({**p, **p.get("config", {})}.keys() - {"type", "config"})
    return keys


def chain(nodes, node, keys):
    steps = []
    while node["parent_model_id"] is not None:
        kind = node["from_pass"].lower()
        config = {k: v for k, v in node["pass_run_config"].items() if k in keys[kind]}
        steps.insert(0, {"type": kind, "config": config})
        node = nodes[node["parent_model_id"]]
    return steps


def one(path, tmp):
    workflow = yaml.safe_load(path.read_text())
    folder = tmp / path.stem
    out = tmp / f"{path.stem}-out"  # not beside the model, whose folder AddOliveMetadata copies
    folder.mkdir()
    onnx.save(onnx.load(ROOT / "rewrite" / "text" / "model.onnx"), folder / "model.onnx")
    config = copy.deepcopy(workflow)
    inner = config["input_model"].get("config", config["input_model"])
    inner["model_path"] = str(folder / "model.onnx")
    engine = config.get("engine", config)
    engine.update(output_dir=str(out), cache_dir=str(tmp / f"{path.stem}-cache"))
    LIMITS.clear()
    output = run(config)
    for metric in workflow.get("evaluators", {}).get("judge", {}).get("metrics", []):
        goal = metric["sub_types"][0].get("goal", {})
        if goal.get("type") == "threshold":  # not among them
            LIMITS["size-bytes"] = goal["value"]
    nodes = json.loads((out / "footprint.json").read_text())
    best = [m.model_id for m in output.get_output_models()]  # the best first
    assert output.get_best_candidate().model_id == best[0]
    keys = named(workflow)
    length = len(workflow["passes"])
    candidates = []
    for node in nodes.values():
        steps = chain(nodes, node, keys)
        if len(steps) == length and node.get("metrics"):
            size = node["metrics"]["value"]["size-bytes"]["value"]
            candidates.append({"passes": steps, "met": size <= LIMITS.get("size-bytes", size), "size": size})
    if "pass-by-pass" in path.read_text():  # there Olive goes on with all, not with the best
        candidates = []
    chains = [chain(nodes, nodes[i], keys) for i in best]
    wanted = config.get("search_strategy", {}).get("output_model_num", 1)
    return {"best": [c for c in chains if len(c) == length][:wanted], "limits": dict(LIMITS), "candidates": candidates}


def main():
    results = {}
    with tempfile.TemporaryDirectory() as tmp:
        for path in sorted((ROOT / "workflows").iterdir()):
            if path.name != "olive.json" and "ONNXModel" in path.read_text():
                results[path.name] = one(path, pathlib.Path(tmp))
                print(path.name, json.dumps(results[path.name])[:400])
    (ROOT / "workflows" / "olive.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
