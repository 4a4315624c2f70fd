"""The lab's last program, for onnxruntime-genai 0.5.0 (params.input_ids, compute_logits).

    python lab_app_0_5.py [--model FOLDER] [--adapter FILE | --no-adapter] [--ids] [QUESTION]

Streams the answer of the model that `drupe auto-opt --use_ort_genai` wrote, with its
adapter active.  lab_app.py is the same for today's versions; both give the same greedy
tokens where it was exported with --int4_accuracy_level 0.  A model with tied int4
embeddings needs `--min_ort_version 1.20` at the export.
"""
import argparse

import onnxruntime_genai as og

parser = argparse.ArgumentParser()
parser.add_argument("question", nargs="?", default="what is the best thing to see in chicago")
parser.add_argument("--model", default="models/phi/onnx-ao/model")
parser.add_argument("--adapter", help="default: adapter_weights.onnx_adapter of the model")
parser.add_argument("--no-adapter", action="store_true")
parser.add_argument("--ids", action="store_true", help="print token ids instead of text")
args = parser.parse_args()

model = og.Model(args.model)
tokenizer = og.Tokenizer(model)
stream = tokenizer.create_stream()

prompt = f"<|user|>\n{args.question}<|end|>\n<|assistant|>\n"
params = og.GeneratorParams(model)
params.set_search_options(max_length=100, past_present_share_buffer=False)
params.input_ids = tokenizer.encode(prompt)
generator = og.Generator(model, params)
if not args.no_adapter:
    adapters = og.Adapters(model)
    adapters.load(args.adapter or f"{args.model}/adapter_weights.onnx_adapter", "travel")
    generator.set_active_adapter(adapters, "travel")

while not generator.is_done():
    generator.compute_logits()
    generator.generate_next_token()
    token = generator.get_next_tokens()[0]
    print(f"{token} " if args.ids else stream.decode(token), end="", flush=True)
print()
