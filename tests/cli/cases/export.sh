# capture-onnx-graph of each family: fp32 and int4, without a tokenizer.
[ -e "$DRUPE_LIB_PATH/libonnxruntime.so" ] || skip "no runtime to check exports with"
for m in llama qwen2 phi3; do
    for precision in fp32 int4; do
        "$drupe" capture-onnx-graph -m "$tiny/$m" --precision $precision -o $m-$precision \
            >out 2>err
        echo "$m $precision: $?"
        grep -e '^precision' -e '^graph' out | sed 's/ *[0-9]* nodes, /  /; s/, [0-9]* bytes//'
        grep -c 'loaded and run' out
        tree $m-$precision
    done
done
try capture-onnx-graph -m "$tiny/llama" --use_ort_genai -o genai
ls -d genai* 2>/dev/null
"$drupe" capture-onnx-graph -m "$tiny/llama" --precision int4 --no_check -o unchecked 2>/dev/null |
    grep check
# a program that finds no runtime says that it did not look
mkdir bin
cp "$drupe" bin/
DRUPE_LIB_PATH=/none LD_LIBRARY_PATH= bin/drupe capture-onnx-graph -m "$tiny/llama" -o noruntime \
    2>err | grep check | cut -c 1-40
echo "no runtime: $(ls noruntime/model | wc -l) files"
