# All adapters of a model, a file each.
ok=$top/tests/golden/adapters
model m
try extract-adapters -m "$ok/lora" -f onnx_adapter -o one
try convert-adapters -a "$ok/lora" -o same
cmp same.onnx_adapter one/default.onnx_adapter
try extract-adapters -m "$ok/lora" -f onnx_adapter -o one --dtype int4
try extract-adapters -m m -a "x=$ok/lora,y=$ok/dora" -f safetensors -o two --dtype float16
try inspect -m two/y.safetensors
tree two
# PEFT keeps further adapters in folders of their own
mkdir -p peft/second
cp "$ok"/lora/adapter_* peft/
cp "$ok"/patterns/adapter_* peft/second/
try extract-adapters -m peft -f numpy -o three
tree three
# what finetune made
model_with_tokenizer t
try finetune -m t -d json --data_files "$top/examples/lab/travel.jsonl" --text_field prompt \
    --max_seq_len 16 --max_steps 1 --max_samples 2 -o ft >/dev/null
try extract-adapters -m ft -f onnx_adapter -o four --json >/dev/null
tree four
# refused
try extract-adapters -m m -f onnx_adapter -o x
try extract-adapters -m nothing -f onnx_adapter -o x
try extract-adapters -m "$ok/dora" -f onnx_adapter -o x
try extract-adapters -m "$ok/lora" -o x
try extract-adapters -m "$ok/lora" -f pt -o x
try extract-adapters -m "$ok/lora" -f onnx_adapter -o peft
try extract-adapters -m "$ok/lora" -f onnx_adapter -o x --cache_dir c
mkdir peft/default
cp "$ok"/lora/adapter_* peft/default/
try extract-adapters -m peft -f numpy -o x
tree .
