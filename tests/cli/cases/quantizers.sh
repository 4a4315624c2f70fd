# Quantizers: what is written, opened, exported; the same bytes for any threads.
model_with_tokenizer m
for a in hqq kquant k_quant; do
    try quantize -m m --algorithm $a --group_size 32 --no_evaluate --threads 1 -o $a
    "$drupe" quantize -m m --algorithm $a --group_size 32 --no_evaluate --threads 2 -o two \
        >/dev/null 2>&1
    [ "$(hash_tree $a/model)" = "$(hash_tree two/model)" ] || echo "other bytes"
    "$drupe" auto-opt -m $a --no_check -o $a-onnx >out 2>err
    echo "auto-opt: $?"
done
[ "$(hash_tree kquant/model)" = "$(hash_tree k_quant/model)" ] || echo "two names, two results"
for t in 1 2; do
    try quantize -m m --algorithm best --group_size 32 --max_samples 4 --max_seq_len 32 \
        --no_evaluate --threads $t -o best$t
done
[ "$(hash_tree best1/model)" = "$(hash_tree best2/model)" ] || echo "other bytes"
"$drupe" auto-opt -m best1 --no_check -o best-onnx >out 2>err
echo "auto-opt: $?"
try inspect -m hqq | grep -E '^\$|made_by|kind|weights'
try quantize -m m --algorithm kquant --dry_run
try quantize -m m --algorithm hqq --exact -o no
try quantize -m m --algorithm best --exact -o no
