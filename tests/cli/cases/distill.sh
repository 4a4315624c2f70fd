# Scales trained after rounding: for any quantizer and layout, the same bytes for any number
# of threads, codes as they were; what is refused.
model m
cp "$top"/tests/cli/letters/* m/
try quantize -m m --algorithm rtn --group_size 16 --distill_steps 3 --distill_learning_rate 0.01 -o a
try quantize -m m --algorithm rtn --group_size 16 --distill_steps 3 --distill_learning_rate 0.01 \
    --no_evaluate --threads 2 -o b
cmp a/model/model.safetensors b/model/model.safetensors
ls a
# What calibration computes, and so the figures, depend on the kind of processor.
figures() { sed -E 's/KL [0-9.]+ to [0-9.]+ at step [0-9]+/KL ? to ? at step ?/'; }
for format in gptq olive compressed-tensors; do
    try quantize -m m --algorithm gptq --group_size 16 --max_seq_len 32 --max_samples 8 \
        --no_evaluate --format $format --distill_steps 2 -o $format | figures
    "$drupe" auto-opt -m $format --no_check -o x >/dev/null
    mv x/model/model.onnx.data $format.data
    rm -r x
done
cmp gptq.data olive.data
cmp gptq.data compressed-tensors.data
try quantize -m m --algorithm awq --group_size 16 --max_seq_len 32 --max_samples 8 --no_evaluate \
    --distill_steps 2 -o awq | figures
try quantize -m m --distill_learning_rate 0.1 -o c
try quantize -m m --distill_steps 2 --distill_learning_rate 0 -o c
ls
