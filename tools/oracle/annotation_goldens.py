#!/usr/bin/env python3
"""Annotations of nodes by Olive's own function: tests/golden/annotations.json.

    OLIVE_DISABLE_TELEMETRY=1 python3 tools/oracle/annotation_goldens.py

What annotate_proto_model writes into the nodes of tests/golden/rewrite/text.
Needs onnx, olive-ai 0.13.
"""
import json
import pathlib

import onnx
from olive.passes.onnx.layer_annotation import annotate_proto_model

ROOT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"
CONFIGS = [
    {"first": ["/layers.0/"], "second": ["/layers.1/"]},
    {"attention": ["attn", "scores", "soft"], "mlp": ["mlp", "gelu"], "rest": ["layers"]},
    {"all": ["l"], "none": ["/layers"]},  # the first that fits counts
    {"nothing": ["no such node"]},
]


def main():
    cases = []
    for config in CONFIGS:
        model = onnx.load(ROOT / "rewrite" / "text" / "model.onnx", load_external_data=False)
        annotate_proto_model(model, config)
        found = {n.name: {p.key: p.value for p in n.metadata_props}.get("layer_ann") for n in model.graph.node}
        cases.append({"config": config, "nodes": found})
    (ROOT / "annotations.json").write_text(json.dumps(cases) + "\n")


if __name__ == "__main__":
    main()
