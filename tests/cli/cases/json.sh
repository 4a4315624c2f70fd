# --json everywhere: one object, and nothing else on stdout.
model_with_tokenizer m
keys() { "$json" keys; }
"$drupe" quantize -m m -o q --json 2>err | keys
"$drupe" finetune -m m -d json --data_files "$top/examples/lab/travel.jsonl" --text_field prompt \
    --max_steps 2 --max_seq_len 32 -o f --json 2>err | keys
"$drupe" auto-opt -m f --no_check -o o --json 2>err | keys
"$drupe" inspect -m m --json | keys
"$drupe" inspect -m o --json | "$json" get adapters 0
"$drupe" inspect -m o/model/adapter_weights.onnx_adapter --json | "$json" get kind
"$drupe" inspect -m q --json | "$json" get made_by 0
"$drupe" doctor --json | keys
"$drupe" tokenize -m m --text 'the' --json | "$json" get ids
"$drupe" quantize -m none --json 2>/dev/null
echo "failed: $?"
