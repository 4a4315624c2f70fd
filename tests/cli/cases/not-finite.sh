# Weights that are not numbers: rounding refuses them, what copies floats warns once; both
# name the tensor.
damage() { # MODEL TENSOR: a NaN as its first value
    at=$(head -c 2032 "$1/model.safetensors" | tr '{' '\n' | grep -a -A1 "\"$2\":" | tail -n 1 | LC_ALL=C sed -n 's/.*data_offsets":\[\([0-9]*\),.*/\1/p')
    n=$(od -An -tu8 -N8 "$1/model.safetensors")
    printf '\000\000\300\177' | dd of="$1/model.safetensors" bs=1 seek=$((8 + n + at)) conv=notrunc 2>/dev/null
}
model_with_tokenizer linear
damage linear model.layers.1.mlp.up_proj.weight
model_with_tokenizer norm
damage norm model.layers.0.input_layernorm.weight
damage norm model.norm.weight
for m in linear norm; do
    try quantize -m $m --no_evaluate -o out | grep -v bytes
    try convert -m $m -o out | grep warning
    try convert -m $m --to gguf -o out | grep warning
    try capture-onnx-graph -m $m --no_check -o out | grep warning
    try capture-onnx-graph -m $m --no_check --precision int4 -o out | grep -E 'warning|drupe'
done
for a in awq gptq; do
    for m in linear norm; do
        try quantize -m $m --algorithm $a --max_samples 2 --max_seq_len 16 --no_evaluate -o out
    done
done
