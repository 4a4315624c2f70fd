# Graphs with LoRA in them: file or folder in, a whole folder out, and what is refused.
lift=$top/tests/golden/lift
try generate-adapter -m "$lift/traced" -o out --no_check
ls out out/model
try generate-adapter -m "$lift/traced/model.onnx" -o out2 --no_check --json
cmp out/model/model.onnx out2/model/model.onnx
cmp out/model/weights.bin out2/model/weights.bin
try generate-adapter -m out -o out3 --no_check
for format in safetensors numpy pt; do
    try generate-adapter -m "$lift/spellings" -o of --no_check --adapter_format $format
    ls of/model 2>/dev/null
done
try generate-adapter -m "$lift/traced" -o out4 --adapter_type dora
try generate-adapter -m "$lift/bad/none.onnx" -o out4
try generate-adapter -m "$lift/bad/missing.onnx" -o out4
try generate-adapter -m "$top/tests/golden/tiny/llama" -o out4
try generate-adapter -m "$lift/traced" -o "$lift/traced"
try generate-adapter -m "$lift/traced" --dry_run
ls
