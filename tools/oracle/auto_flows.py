#!/usr/bin/env python3
"""The flows of Olive 0.8's auto optimizer: tests/golden/workflows-auto.json.

    python3 tools/oracle/auto_flows.py

Of each device, provider and precision: the flows of its template for an ONNX model, by pass types, without passes
that are not in drupe; with and without a data set.  Its own regulation of names and data is applied as far as it
concerns these (regulate_mixins.py there).  Needs olive-ai 0.8 on the path; only its template is loaded.
"""
import importlib.metadata
import importlib.util
import json
import pathlib

HERE = {"OrtTransformersOptimization", "OnnxQuantization", "OnnxMatMul4Quantizer", "OrtMixedPrecision",
        "OrtSessionParamsTuning"}
NEED_DATA = {"OrtSessionParamsTuning"}  # OnnxQuantization is dynamic without
TARGETS = [("cpu", "CPUExecutionProvider"), ("gpu", "CUDAExecutionProvider"), ("gpu", "DmlExecutionProvider"),
           ("npu", "QNNExecutionProvider")]
OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "workflows-auto.json"


def template():
    dist = importlib.metadata.distribution("olive-ai")
    assert dist.version.startswith("0.8"), dist.version
    path = dist.locate_file("olive/auto_optimizer/template_mapping.py")
    spec = importlib.util.spec_from_file_location("template_mapping", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main():
    t = template()
    cases = []
    for device, provider in TARGETS:
        for precision in ["fp32", "fp16", "int8", "int4"]:
            for data in [False, True]:
                flows = set()
                for flow in t.get_pass_flows_by_accelerator_ep_precision(0, device, provider, precision):
                    if set(flow) - HERE - {"OnnxConversion", "ModelBuilder"}:  # another quantizer
                        continue
                    kept = [p for p in flow if p in HERE and (data or p not in NEED_DATA)]
                    if device != "cpu":  # sessions are tuned for the CPU
                        kept = [p for p in kept if p != "OrtSessionParamsTuning"]
                    # the pass that fuses is named apart where it makes halves, too
                    half = precision == "fp16" and provider[:4] in ("CUDA", "DmlE") and "OrtMixedPrecision" not in kept
                    kept = [p + "_fp16" if half and p == "OrtTransformersOptimization" else p for p in kept]
                    if kept:
                        flows.add(tuple(kept))
                cases.append({"device": device, "provider": provider, "precision": precision, "data": data,
                              "flows": sorted(map(list, flows))})
    OUT.write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
