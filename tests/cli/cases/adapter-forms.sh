# Exports whose adapters are halves or int4: files and inputs are of one form, and the options
# of a form need it.
model m
ok=$top/tests/golden/adapters/lora
dora=$top/tests/golden/adapters/dora
for p in fp32 fp16 int4; do
    try capture-onnx-graph -m m -a "a=$ok" --adapter_precision $p --no_check -o $p
    try inspect -m $p/model/a.onnx_adapter
done
try capture-onnx-graph -m m -a "a=$ok" --adapter_precision int4 --adapter_int4_block_size 16 \
    --adapter_int4_is_symmetric false --no_check -o int4
try inspect -m int4/model/a.onnx_adapter
# DoRA beside LoRA
try capture-onnx-graph -m m -a "a=$ok,b=$dora" --no_check -o both
try inspect -m both/model/b.onnx_adapter
# refused
try capture-onnx-graph -m m --adapter_precision int4 -o x
try capture-onnx-graph -m m -a "$ok" --adapter_int4_block_size 16 -o x
try capture-onnx-graph -m m -a "$ok" --adapter_precision int4 --adapter_int4_block_size 48 -o x
try capture-onnx-graph -m m -a "$ok" --adapter_precision int4 --min_ort_version 1.20 -o x
try capture-onnx-graph -m m -a "$ok" --adapter_precision int8 -o x
