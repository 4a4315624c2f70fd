# quantize: the layouts of a checkpoint, bits, modules; each against the checkpoint that
# other programs have read (tests/unit/hf/layout_test.c), or another than the default's.
hf=$top/tests/golden/hf
mixed='{"re:.*down_proj": {"bits": 8, "symmetric": true}}'
same() { # NAME FLAG...
    name=$1
    shift
    try quantize -m "$hf/packed_f32" --group_size 16 --no_evaluate "$@" -o made |
        grep -v -e '^model ' -e '^not measured' -e '^  *before'
    for file in config.json model.safetensors; do
        cmp "made/model/$file" "$hf/layouts/$name/$file"
    done
}
same awq --format awq
same awq_symmetric --format awq --symmetric
same gptq --format gptq
same gptq
same gptq_8 --precision int8 --symmetric
same olive --format olive
same olive --implementation olive
same olive_symmetric --format olive --symmetric
same olive_mixed --format olive --overrides "$mixed" --modules_to_not_convert v_proj
same olive_head --format olive --lm_head --precision int3
same compressed --format compressed-tensors
same compressed_symmetric --format compressed-tensors --symmetric
same compressed_rows --format compressed-tensors --group_size -1
same compressed_mixed --format compressed-tensors --overrides "$mixed" \
    --modules_to_not_convert v_proj
same compressed_mixed_symmetric --format compressed-tensors --symmetric --overrides "$mixed" \
    --modules_to_not_convert v_proj
same compressed_head --format compressed-tensors --lm_head --precision uint8
same compressed_2 --format compressed-tensors --precision int2
# each option changes the result, with every quantizer
model_with_tokenizer m
for a in rtn hqq kquant awq gptq best; do
    case $a in
    awq | gptq | best) text='--max_samples 2 --max_seq_len 32' ;;
    *) text= ;;
    esac
    hashes=
    for flags in '' '--precision int2' '--precision int3' '--precision int8' --symmetric \
        '--group_size 32' '--group_size -1' '--modules_to_not_convert o_proj re:.*up_proj' \
        '--overrides {"re:.*down_proj":{"bits":8},"re:.*":{"symmetric":true}}' \
        '--format olive' '--format compressed-tensors'; do
        case $flags in *--format*) ;; *) flags="$flags --format gptq" ;; esac
        # shellcheck disable=SC2086
        "$drupe" quantize -m m --algorithm $a --group_size 16 $flags $text --no_evaluate \
            -o out >log 2>&1 || { echo "$a $flags: $?"; cat log; }
        "$drupe" auto-opt -m out -o out-onnx >log 2>&1 || { echo "$a $flags: $?"; cat log; }
        hashes="$hashes $(hash_tree out/model)"
    done
    echo "$a: $(echo "$hashes" | tr ' ' '\n' | grep -c .) runs," \
        "$(echo "$hashes" | tr ' ' '\n' | grep . | sort -u | wc -l | tr -d ' ') results"
done
# what stays plain is not scaled either: with 8 bits for the rest the model stays the same
for a in awq gptq best; do
    for left in q_proj v_proj o_proj gate_proj up_proj down_proj 'q_proj k_proj v_proj' \
        self_attn mlp layers.0; do
        # shellcheck disable=SC2086
        "$drupe" quantize -m m --format gptq --algorithm $a --precision int8 --group_size 16 \
            --max_samples 2 --max_seq_len 32 --modules_to_not_convert $left -o out >log 2>&1 ||
            cat log
        awk -v what="$a without $left" '/^KL/ && $3 + 0 < 0.002 { ok = 1 }
            END { print what ": " (ok ? "close" : "far") }' log
    done
done
# a packed head goes into the graph as it is
for f in gptq olive compressed-tensors; do
    "$drupe" quantize -m "$hf/packed_f32" --group_size 16 --lm_head --format $f --no_evaluate \
        -o head >log 2>&1 || cat log
    "$drupe" auto-opt -m head --no_check -o head-$f >log 2>&1 || cat log
done
[ "$(hash_tree head-gptq/model)" = "$(hash_tree head-olive/model)" ] || echo "other bytes"
[ "$(hash_tree head-gptq/model)" = "$(hash_tree head-compressed-tensors/model)" ] ||
    echo "other bytes"
"$drupe" auto-opt -m "$hf/packed_f32" --algorithm rtn --group_size 16 --lm_head --no_check \
    --no_evaluate -o head-straight >log 2>&1 || cat log
[ "$(hash_tree head-gptq/model)" = "$(hash_tree head-straight/model)" ] || echo "other bytes"
# the head alone in 2 bits: gptq and best read the text for it, so less is lost
for m in phi2 mistral; do
    "$(dirname "$drupe")/tests/tools/family_model" $m $m
    cp "$top"/tests/cli/letters/* $m/
    for a in rtn gptq best; do
        case $a in rtn) text= ;; *) text='--max_samples 8 --max_seq_len 48' ;; esac
        for t in 1 2; do
            # shellcheck disable=SC2086
            "$drupe" quantize -m $m --algorithm $a --precision int2 --group_size 16 --lm_head \
                --modules_to_not_convert layers --format olive $text --threads $t \
                -o $m-$a-$t >$a.log 2>&1 || cat $a.log
        done
        [ "$(hash_tree $m-$a-1/model)" = "$(hash_tree $m-$a-2/model)" ] || echo "other bytes"
    done
    echo "$m: $(for a in rtn gptq best; do sed -n "s/^KL (nats) *\([0-9.]*\).*/\1 $a/p" $a.log
        done | sort -n | cut -d ' ' -f 2 | tr '\n' ' ')"
    rm -rf $m $m-*
done
# the same for any number of threads
for t in 1 2; do
    "$drupe" quantize -m m --algorithm best --group_size 16 --max_samples 2 --max_seq_len 32 \
        --modules_to_not_convert up_proj model.layers.0.self_attn.v_proj \
        --overrides '{"re:.*down_proj":{"bits":8}}' --format compressed-tensors \
        --no_evaluate --threads $t -o threads$t >log 2>&1 || cat log
done
[ "$(hash_tree threads1/model)" = "$(hash_tree threads2/model)" ] || echo "other bytes"
# refused
no() { try quantize -m m --group_size 16 --no_evaluate "$@" -o no; }
no --precision int3 --symmetric
no --precision uint8 --symmetric
no --precision fp4
no --precision int16
no --precision bf16
no --algorithm awq --precision int8
no --format awq --lm_head
no --format awq --overrides '{"re:.*": {"bits": 4}}'
no --format bnb
no --lm_head
no --overrides 8
no --overrides '{"q_proj": {"bit": 8}}'
no --overrides '{"q_proj": 8}'
no --overrides '{"q_proj": {"symmetric": 1}}'
no --overrides '{"q_proj": {"bits": 8}}'
no --overrides '{"re:.*q_proj": {"bits": 5}}'
no --overrides '{"re:.*q_proj": {"group_size": 24}}'
no --overrides '{"re:.*q_proj": {"group_size": 64}}'
no --overrides '{"re:(": {"bits": 8}}'
no --modules_to_not_convert attn2
no --modules_to_not_convert 're:.*[.]proj'
no --implementation nvmo
no --implementation awq
no --implementation olive --algorithm best
no --algorithm lpbq
try quantize -m "$hf/packed_f32" --lm_head --precision int2 --overrides '{"lm_head": {"group_size": 64}}' -o no
ls
