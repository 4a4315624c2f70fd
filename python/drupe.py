"""Olive's functions of Python on the program drupe.

    import drupe
    four = drupe.quantize("models/phi", algorithm="awq", precision="int4", output_path="four")
    tuned = drupe.finetune(four.model_path, data_name="json", data_files="rows.jsonl",
                           text_template="{prompt} {response}", max_steps=100)
    onnx = drupe.auto_opt(four.model_path, adapter_path=tuned.adapter_path, use_ort_genai=True)
    print(onnx["model_path"])

A function is the command of that name with dashes; its options are the command's (`drupe
quantize --help`) with underscores, so a program that calls olive-ai's functions of the same
names calls these.  True gives a switch, False and None leave an option out, a list is joined by
commas, a dict becomes JSON.

The result is a dict, what the command's --json prints.  A command that fails raises Error, whose
text is the program's own.  Progress goes to standard error as it comes.

One file, no package beside Python's own (3.8 or later).  The program is found in DRUPE, beside
this file, or on PATH.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile

__all__ = ["Error", "Result", "auto_opt", "benchmark", "capture_onnx_graph", "convert_adapters",
           "evaluate", "extract_adapters", "finetune", "generate_adapter", "optimize", "quantize",
           "run", "run_pass", "tune_session_params"]


class Error(RuntimeError):
    """A command failed; status: its exit status, 2 where it was called wrongly."""

    def __init__(self, text, status):
        super().__init__(text)
        self.status = status


class Result(dict):
    """What a command printed; .model_path, .adapter_path: of what it made, or None."""

    @property
    def model_path(self):
        return self.get("model_path")

    @property
    def adapter_path(self):
        return self.get("adapter_path")

    def has_output_model(self):
        return self.model_path is not None


def program():
    """The path of the program."""
    beside = os.path.join(os.path.dirname(os.path.abspath(__file__)), "drupe")
    for path in (os.environ.get("DRUPE"), beside, shutil.which("drupe")):
        if path and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise Error("drupe: the program is not on PATH; DRUPE names it", 127)


def arguments(options):
    """Options as the program takes them: [("bits", 4)] is ["--bits", "4"]."""
    words = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        words.append("--" + name)
        if value is True:
            continue
        if isinstance(value, dict):
            value = json.dumps(value)
        elif isinstance(value, (list, tuple)):
            value = ",".join(str(v) for v in value)
        words.append(str(value))
    return words


def command(verb, **options):
    """Runs a command; its output as a Result."""
    errors = []
    with tempfile.TemporaryFile("w+", encoding="utf-8") as out:
        with subprocess.Popen([program(), verb, *arguments(options), "--json"], stdout=out,
                              stderr=subprocess.PIPE, text=True) as child:
            for line in child.stderr:
                sys.stderr.write(line)
                if line.startswith("drupe: "):
                    errors = []  # the last of them, with what is indented below it
                errors.append(line)
        if child.returncode != 0:
            raise Error("".join(errors).strip() or "drupe ended with %d" % child.returncode,
                        child.returncode)
        out.seek(0)
        return Result(json.load(out))


def quantize(model_name_or_path, **options):
    return command("quantize", model_name_or_path=model_name_or_path, **options)


def finetune(model_name_or_path, **options):
    return command("finetune", model_name_or_path=model_name_or_path, **options)


def optimize(model_name_or_path, **options):
    return command("optimize", model_name_or_path=model_name_or_path, **options)


def auto_opt(model_name_or_path, **options):
    return command("auto-opt", model_name_or_path=model_name_or_path, **options)


def capture_onnx_graph(model_name_or_path, **options):
    return command("capture-onnx-graph", model_name_or_path=model_name_or_path, **options)


def generate_adapter(model_name_or_path, **options):
    return command("generate-adapter", model_name_or_path=model_name_or_path, **options)


def extract_adapters(model_name_or_path, **options):
    return command("extract-adapters", model_name_or_path=model_name_or_path, **options)


def convert_adapters(adapter_path, **options):
    return command("convert-adapters", adapter_path=adapter_path, **options)


def benchmark(model_name_or_path, **options):
    return command("benchmark", model_name_or_path=model_name_or_path, **options)


def evaluate(model_name_or_path, **options):
    return command("evaluate", model_name_or_path=model_name_or_path, **options)


def run_pass(pass_name, model_name_or_path, pass_config=None, **options):
    return command("run-pass", pass_name=pass_name, model_name_or_path=model_name_or_path,
                   pass_config=pass_config, **options)


def tune_session_params(model_name_or_path, output_path="tuned", **pass_config):
    """The pass OrtSessionParamsTuning, whose parameters the rest are."""
    return run_pass("OrtSessionParamsTuning", model_name_or_path, pass_config,
                    output_path=output_path)


def run(run_config, **options):
    """A workflow: its file, or the same as a dict."""
    if not isinstance(run_config, dict):
        return command("run", config=run_config, **options)
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(run_config, file)
        file.flush()
        return command("run", config=file.name, **options)
