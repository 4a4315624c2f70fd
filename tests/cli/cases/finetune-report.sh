# report.html beside an adapter: well-formed, nothing from elsewhere, the same bytes for any
# threads, memory and folder; memory that is too little, and what is no size.
model_with_tokenizer m
cp "$top/examples/lab/travel.jsonl" data.jsonl
finetune() {
    "$drupe" finetune -m m -d json --data_files data.jsonl --text_field prompt --lora_r 4 \
        --max_seq_len 16 --max_samples 16 --max_steps 5 "$@" >said 2>&1 || cat said
}
finetune --train_split 'train[:80%]' --eval_split 'train[80%:]' --eval_steps 2 --threads 1 -o a
tags a/report.html
grep -c -e '<script' -e '://' -e "$PWD" a/report.html
grep -o -e '<h[12]>[^<]*' -e '<td>[a-z][a-z ]*' a/report.html | sed -n '/How good/,$p' | head -n 24
grep -c '<polyline' a/report.html
finetune --train_split 'train[:80%]' --eval_split 'train[80%:]' --eval_steps 2 --threads 2 \
    --memory 16MB -o b
cmp a/report.html b/report.html && echo "the same bytes"
cmp a/adapter/adapter_model.safetensors b/adapter/adapter_model.safetensors &&
    echo "the same adapter"
finetune -o c
tags c/report.html
grep -A 1 'How good' c/report.html
finetune --memory 8MB -o d
finetune --memory much -o d
ls -d d 2>/dev/null
