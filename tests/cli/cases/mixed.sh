# quantize: bits by slot, by rules and within a size.
hf=$top/tests/golden/hf
model_with_tokenizer m
data='--max_samples 2 --max_seq_len 32'
for rule in k_quant_down k_quant_mixed snr snr_relative iqe iqe_relative; do
    echo "$rule"
    try quantize -m "$hf/packed_f32" --group_size 16 --no_evaluate --mixed $rule -o $rule |
        grep -E '^mixed|linears|^bytes'
done
# a head of its own gets 8 bits from the rules by place; an embedding cannot
try quantize -m "$hf/packed_f32" --group_size 16 --no_evaluate --mixed k_quant_last -o last |
    grep -E '^mixed|linears|^bytes'
try quantize -m m --no_evaluate --mixed k_quant_last -o no
# never more than asked for, to the byte, in every layout; the more, the closer
size() { awk '/^bytes/ { print $3 }' "$1"; }
for f in gptq olive compressed-tensors; do
    "$drupe" quantize -m m --format $f --group_size 64 --no_evaluate -o base >log 2>&1
    least=$(size log)
    "$drupe" quantize -m m --format $f --group_size 64 --no_evaluate --precision int8 \
        -o base >log 2>&1
    most=$(size log)
    last=9
    for part in 0 25 50 100; do
        limit=$((least + (most - least) * part / 100))
        # shellcheck disable=SC2086
        "$drupe" quantize -m m --format $f --algorithm gptq --group_size 64 \
            --max_size $limit $data -o sized >log 2>&1 || cat log
        made=$(size log)
        [ "$made" -le "$limit" ] || echo "$f: $made bytes for $limit"
        kl=$(awk '/^KL/ { sub(/\+-.*/, "", $3); print $3 }' log)
        awk "BEGIN { exit !($kl < $last) }" || echo "$f: $kl at $part after $last"
        last=$kl
        # the table is of the checkpoint itself
        "$drupe" auto-opt -m sized --no_check -o sized-onnx >log 2>&1 || cat log
    done
    try quantize -m m --format $f --group_size 64 --max_size $((least - 1)) --no_evaluate \
        -o no 2>&1 | sed "s/[0-9][0-9]* bytes are/N bytes are/; s/$least/LEAST/"
    echo "$f done"
done
for t in 1 2; do
    # shellcheck disable=SC2086
    "$drupe" quantize -m m --algorithm rtn --group_size 64 --max_size $((most - 4000)) \
        --no_evaluate --threads $t -o two$t >log 2>&1 || cat log
done
[ "$(hash_tree two1/model)" = "$(hash_tree two2/model)" ] || echo "other bytes"
# what contradicts
for flags in '--max_size 9MB --mixed snr' '--max_size lots' '--max_size 0' '--ratio 0.5' \
    '--mixed k_quant_down --ratio 0.5' '--mixed snr --format awq' \
    '--mixed snr --precision int8' '--max_size 9MB --precision int2' '--mixed best' \
    '--max_size 9MB --overrides {"re:.*":{"bits":8}}'; do
    # shellcheck disable=SC2086
    try quantize -m m $flags -o no
done
