# Checkpoints: where they are, what goes on from them, what does not; a disk that is full.
model_with_tokenizer m
model_with_tokenizer m2 's/"rms_norm_eps": [^,]*/"rms_norm_eps": 0.5/'
"$drupe" quantize -m m --no_evaluate --group_size 16 -o q >/dev/null 2>&1
cp "$top/examples/lab/travel.jsonl" data.jsonl
sed 1d data.jsonl >other.jsonl
base="-d json --text_field prompt --max_seq_len 16 --max_samples 24 --lora_r 4
    --max_steps 6 --save_steps 2 --per_device_train_batch_size 4"
# shellcheck disable=SC2086
finetune() { "$drupe" finetune $base "$@" 2>&1 | sed '/^time /d; /are cut off/d; /^loss /d'; }
finetune -m m --data_files data.jsonl -o whole
tree whole
# an error at a step leaves what was written before it
(
    trap '' XFSZ
    ulimit -f 4 # blocks of 512 bytes
    finetune -m m --data_files data.jsonl -o out
) | cat
ls -d out* 2>/dev/null
n=100
while [ ! -d out.checkpoints/checkpoint-4 ] && [ $n -lt 1000 ]; do
    rm -rf out*
    # shellcheck disable=SC2086
    DR_FAULT=io:$n "$drupe" finetune $base -m m --data_files data.jsonl -o out >said 2>&1
    n=$((n + 10))
done
grep -e writing -e hint: said
finetune -m m --data_files data.jsonl -o out
more() { finetune -o out --resume_from_checkpoint true "$@"; }
echo "- other than it was"
more -m m --data_files data.jsonl --learning_rate 1e-3
more -m m --data_files data.jsonl --seed 7
more -m m --data_files other.jsonl
more -m q/model --data_files data.jsonl
more -m m2 --data_files data.jsonl
more -m m --data_files data.jsonl --eval_split train
more -m m --data_files data.jsonl -a whole/adapter
echo "- damaged"
cp -r out.checkpoints kept
last=$(ls -d out.checkpoints/checkpoint-? | tail -n 1)
printf x | dd of="$last/optimizer.safetensors" bs=1 seek=900 conv=notrunc 2>/dev/null
more -m m --data_files data.jsonl
cmp out/adapter/adapter_model.safetensors whole/adapter/adapter_model.safetensors &&
    echo "the same adapter"
ls
echo "- from elsewhere, and for longer"
finetune -m m --data_files data.jsonl -o longer --max_steps 8 \
    --resume_from_checkpoint whole/checkpoint-4 | grep steps
finetune -m m --data_files data.jsonl -o longer --resume_from_checkpoint whole/checkpoint-5
finetune -m m --data_files data.jsonl -o longer --resume_from_checkpoint m
finetune -m m --data_files data.jsonl -o never --save_strategy no --save_total_limit 2
"$drupe" inspect -m whole/checkpoint-4 | grep -v '^bytes'
echo "- loftq, whose base and start are made again"
finetune -m m --method loftq --data_files data.jsonl -o lq
finetune -m m --method loftq --data_files data.jsonl -o again \
    --resume_from_checkpoint lq/checkpoint-4 | grep steps
for f in adapter/adapter_model.safetensors model/model.safetensors; do
    cmp lq/$f again/$f && echo "the same $f"
done
finetune -m m --method loftq --loftq_iter 2 --data_files data.jsonl -o other \
    --resume_from_checkpoint lq/checkpoint-4
finetune -m m --method qlora --data_files data.jsonl -o other \
    --resume_from_checkpoint lq/checkpoint-4
