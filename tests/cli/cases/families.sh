# Every family through quantize rtn and export: what is packed goes into the graph as it is.
[ -e "$DRUPE_LIB_PATH/libonnxruntime.so" ] || skip "no runtime to check exports with"
family_model=$(dirname "$drupe")/tests/tools/family_model
for golden in "$top"/tests/golden/families/*.json; do
    m=$(basename "$golden" .json)
    "$family_model" $m $m || exit 1
    "$drupe" quantize -m $m --algorithm rtn --group_size 16 --no_evaluate -o $m-rtn \
        >out 2>err || cat err
    rounded=$m-rtn
    [ -e $rounded ] || rounded=$m # refused above, by name: the graph rounds it
    "$drupe" capture-onnx-graph -m $rounded --precision int4 --int4_block_size 16 -o $m-onnx \
        >out 2>err || cat err
    echo "$m: $(grep -c 'loaded and run' out)$("$drupe" inspect -m $m-onnx/model/model.onnx |
        grep -oE '[0-9]+ [A-Za-z.]*(MatMulNBits|Attention|Norm|Embedding|Gelu|Tanh|MoE)[a-zA-Z]*' |
        sed 's/com.microsoft.//; s/^/, /' | tr -d '\n')"
    rm -rf $m $m-rtn $m-onnx
done
"$family_model" llama2 unknown
sed -i 's/LlamaForCausalLM/FalconForCausalLM/' unknown/config.json
try capture-onnx-graph -m unknown -o none
