# A PEFT adapter as a file: the suffix is added, every format and type, what is refused.
ok=$top/tests/golden/adapters/lora
dora=$top/tests/golden/adapters/dora
try convert-adapters -a "$ok" -o a
try convert-adapters -a "$ok" -o b.onnx_adapter --dtype float16
try convert-adapters -a "$ok" -o c --quantize_int4 --int4_block_size 16 \
    --int4_quantization_mode asymmetric
try convert-adapters -a "$ok" -o d --adapter_format safetensors
try convert-adapters -a "$ok" -o e --adapter_format numpy --json
try inspect -m a.onnx_adapter
try inspect -m c.onnx_adapter
tree .
# what is there is replaced, whole
cp a.onnx_adapter old.onnx_adapter
try convert-adapters -a "$ok" -o b
cmp a.onnx_adapter b.onnx_adapter
# DoRA needs its base
try convert-adapters -a "$dora" -o f
model m
try convert-adapters -a "$dora" -m m -o f --threads 1
cp f.onnx_adapter f1
try convert-adapters -a "$dora" -m m -o f --threads 3
cmp f1 f.onnx_adapter
# refused
try convert-adapters -a "$ok" -o x --adapter_format pt
try convert-adapters -a "$ok" -o x --adapter_format bin
try convert-adapters -a "$ok"
try convert-adapters -o x
try convert-adapters -a none -o x
try convert-adapters -a "$ok" -o x --int4_block_size 64
try convert-adapters -a "$ok" -o x --quantize_int4 --int4_block_size 48
try convert-adapters -a "$ok" -o x --dtype bfloat16
try convert-adapters -a "$dora" -m "$tiny/phi3" -o x
mkdir copy x.onnx_adapter
cp "$ok"/adapter_* copy/
try convert-adapters -a copy -o copy/adapter_model --adapter_format safetensors
try convert-adapters -a copy -o x
ls
