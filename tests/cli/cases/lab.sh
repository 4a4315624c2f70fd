# The lab's four commands on the tiny model: each takes what the one before left.
model_with_tokenizer m
data=$top/examples/lab/travel.jsonl
"$drupe" quantize -m m --algorithm awq -o awq >out 2>err
echo "quantize: $?"
grep -e ^perplexity -e ^KL -e '^same top' out | cut -c 1-14
"$drupe" finetune --method lora -m awq --data_files "$data" --data_name json --text_template \
    '<|user|>\n{prompt}<|end|>\n<|assistant|>\n{response}<|end|>' --max_steps 2 \
    --max_seq_len 64 --output_path ./ft --log_level 1 >out 2>err
echo "finetune: $?"
grep -e ^steps -e '^base model' out
sed -n '/^data /,/^    Lucky/p' err | sed "s|$top|TOP|"
"$drupe" auto-opt -m ft/model --adapter_path ft/adapter --device cpu \
    --provider CPUExecutionProvider --use_ort_genai --no_check -o onnx >out 2>err
echo "auto-opt: $?"
grep -e ^precision -e ^adapters out | cut -d , -f 1
tree awq
tree ft
tree onnx
[ "$(stat -c %i awq/model/model.safetensors)" = "$(stat -c %i ft/model/model.safetensors)" ] ||
    echo "the base was copied"
sed -n 's/.*"base_model_name_or_path": //p' ft/adapter/adapter_config.json
# finetune's own folder stands for its model and its adapter
"$drupe" auto-opt -m ft --no_check -o again >/dev/null 2>err
echo "by its folder: $?"
tree again
try quantize -m ft -o no
try quantize -m awq -o no
# an adapter to start from; two adapters by name
"$drupe" finetune -m awq -a ft -d json --data_files "$data" --text_field prompt --max_steps 1 \
    --max_seq_len 64 -o ft2 >/dev/null 2>err
echo "finetune on: $?"
"$drupe" auto-opt -m awq -a travel=ft,more=ft2/adapter --no_check -o two >/dev/null 2>err
echo "two adapters: $?"
tree two
