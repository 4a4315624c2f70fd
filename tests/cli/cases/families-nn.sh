# Every family through what runs it: quantize awq and gptq with their judging, finetune.
family_model=$(dirname "$drupe")/tests/tools/family_model
data=$top/examples/lab/travel.jsonl
# Another layout, and no checkpoint at all: the same graph.
straight() {
    text='--group_size 16 --max_samples 4 --max_seq_len 48'
    # shellcheck disable=SC2086
    "$drupe" quantize -m $m --algorithm gptq $text --no_evaluate --format compressed-tensors \
        -o $m-ct >out 2>err || cat err
    for from in gptq ct; do
        "$drupe" auto-opt -m $m-$from --no_check -o $m-$from-onnx >out 2>err || cat err
    done
    # shellcheck disable=SC2086
    "$drupe" auto-opt -m $m --algorithm gptq $text --no_evaluate --no_check -o $m-onnx \
        >out 2>err || cat err
    echo "$m straight: $(for d in $m-gptq-onnx $m-ct-onnx $m-onnx; do
        hash_tree $d/model; done | sort -u | wc -l | tr -d ' ') result"
}
for golden in "$top"/tests/golden/families/*.json; do
    m=$(basename "$golden" .json)
    "$family_model" $m $m || exit 1
    cp "$top"/tests/cli/letters/* $m/
    for a in awq gptq; do
        "$drupe" quantize -m $m --algorithm $a --group_size 16 --max_samples 4 --max_seq_len 48 \
            --log_level 1 -o $m-$a >out 2>err
        echo "$m $a: $? $(grep -c '^KL' out) judged$(sed -n 's/.*: no scales for/, no scales for/p' err)"
    done
    [ ! -d $m-gptq ] || straight
    "$drupe" finetune -m $m-awq -d json --data_files "$data" --text_field prompt --max_steps 2 \
        --max_seq_len 48 --target_modules all-linear -o $m-ft >out 2>err
    echo "$m finetune: $? $(grep '^steps' out | grep -o '[0-9] over')"
    rm -rf $m $m-*
done
"$family_model" qwen3_moe experts
cp "$top"/tests/cli/letters/* experts/
try quantize -m experts --algorithm awq -o none
try finetune -m experts -d json --data_files "$data" --text_field prompt -o none
