# --dry_run says what would be run, as a workflow file of Olive's form, and touches nothing;
# what can be said no to is.
ok=$top/tests/golden/adapters/lora
data=$top/examples/lab/travel.jsonl
model m
try quantize -m m --algorithm awq --group_size 32 --max_samples 4 --dry_run
try finetune -m m -d json --data_files "$data" --text_template '{prompt} {response}' \
    --max_steps 3 --lora_r 8 --dry_run
try auto-opt -m m -a "a=$ok,b=$ok" --use_ort_genai --precision int4 --dry_run
try capture-onnx-graph -m m --dry_run --json
try capture-onnx-graph -m org/not-fetched --dry_run
try convert -m m --to gguf --dry_run
ls
try quantize -m m --group_size 48 --dry_run
try auto-opt -m m -a none --dry_run
try quantize -m m -d json --data_files none --dry_run
try quantize -m m -o m --dry_run
