# The embedding in a checkpoint's own grid: of a tied model the head's, too, and the export's.
[ -e "$DRUPE_LIB_PATH/libonnxruntime.so" ] || skip "no runtime to evaluate graphs with"
model_with_tokenizer m
"$drupe" quantize -m m --algorithm best --precision int2 --group_size 16 --embeds \
    --max_samples 16 --max_seq_len 64 --no_evaluate -o best >/dev/null 2>err || cat err
grep -A 10 '"quantization_config"' best/model/config.json
# the graph has one table, as it is packed; the runtime's logits are the checkpoint's
"$drupe" quantize -m m --algorithm gptq --group_size 16 --embeds --no_evaluate -o q >/dev/null 2>err || cat err
"$drupe" auto-opt -m q --int4_accuracy_level 1 --no_check --log_level 1 -o x 2>&1 | grep 'one table'
"$drupe" evaluate -m x --reference_model q --max_samples 4 |
    awk '$1 == "KL" { print ($3 < 1e-5 && $3 > -1e-5 ? "KL 0" : $0) }'
"$drupe" auto-opt -m m --algorithm gptq --group_size 16 --embeds --int4_accuracy_level 1 \
    --no_evaluate --no_check -o y >/dev/null 2>err || cat err
cmp x/model/model.onnx.data y/model/model.onnx.data && echo same
# a grid of its own; and not at all
"$drupe" quantize -m m --group_size 16 --embeds --no_evaluate -o o \
    --overrides '{"model.embed_tokens": {"bits": 8, "group_size": 32}}' >/dev/null 2>err || cat err
grep -A 4 '"overrides"' o/model/config.json
"$drupe" quantize -m m --group_size 16 --embeds --modules_to_not_convert embed_tokens \
    --no_evaluate -o p >/dev/null 2>err || cat err
grep '"embeds"' p/model/config.json
# what does not go
try quantize -m m --algorithm gptq --embeds --format gptq
try quantize -m m --algorithm awq --embeds --format awq
try auto-opt -m q --matmul_mixed_precision last_matmul:int8 -o z
