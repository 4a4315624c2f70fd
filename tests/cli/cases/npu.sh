# auto-opt for NPUs: graphs of fixed shapes, what they are called, what is refused.
[ -e "$DRUPE_LIB_PATH/libonnxruntime.so" ] || skip "no runtime to calibrate with"
model_with_tokenizer m
# Numbers of one machine left out.
plain() {
    sed 's/ in [0-9.]* s$/ in N s/; s/dlogit| [0-9.e-]*,/dlogit| X,/; s/float [0-9]*\/256/float N\/256/; s/: there is no lib.*//' |
        sed 's/[0-9]* nodes, /N nodes, /; s/, [0-9]* bytes/, N bytes/; s/[0-9]* bytes/N bytes/'
}
shapes="--dynamic-to-fixed-shape-dim-param batch_size sequence_length total_sequence_length
    --dynamic-to-fixed-shape-dim-value 1 8 32"
for provider in QNN OpenVINO VitisAI; do
    # shellcheck disable=SC2086
    "$drupe" auto-opt -m m --provider ${provider}ExecutionProvider $shapes -o $provider \
        >out 2>err || cat err
    plain <out
    tree $provider
    sed 's/[",]//g' $provider/model_config.json | grep -e type -e onnx_file_name
done
"$drupe" auto-opt -m m --provider OpenVINOExecutionProvider --precision int4 --device cpu \
    --dynamic-to-fixed-shape-dim-param past_sequence_length,sequence_length \
    --dynamic-to-fixed-shape-dim-value 15,1 -o token 2>err | plain
# the same for any number of threads
for threads in 1 2; do
    "$drupe" auto-opt -m m --provider QNNExecutionProvider --no_check --threads $threads \
        -o threads$threads >out 2>&1
done
[ "$(hash_tree threads1/model)" = "$(hash_tree threads2/model)" ] && echo "same bytes"
"$drupe" capture-onnx-graph -m "$tiny/qwen2" --fixed_param_dict batch_size=2,sequence_length=4 \
    -o captured 2>err | plain
"$drupe" auto-opt -m m --provider QNNExecutionProvider --use_ort_genai --no_check -o genai \
    >out 2>&1
tree genai
grep -c -e decoder-pipeline -e '"window_size": 64' -e '"context_length": 128' genai/model/genai_config.json
# what goes nowhere
try auto-opt -m "$tiny/llama" --provider QNNExecutionProvider -o no
try auto-opt -m m --provider QNNExecutionProvider --precision fp32 -o no
try auto-opt -m m --provider QNNExecutionProvider --device cpu -o no
try auto-opt -m m --device npu -o no
try auto-opt -m m --use_qdq_encoding -o no
try auto-opt -m m --provider QNNExecutionProvider --int4_block_size 32 -o no
try auto-opt -m m --provider QNNExecutionProvider --max_length 32 -o no
try auto-opt -m m --provider OpenVINOExecutionProvider --activation_type QUInt8 -o no
try auto-opt -m m --provider VitisAIExecutionProvider --use_ort_genai -o no
try auto-opt -m m --provider OpenVINOExecutionProvider \
    --dynamic-to-fixed-shape-dim-param batch --dynamic-to-fixed-shape-dim-value 1 -o no
try auto-opt -m m --provider OpenVINOExecutionProvider \
    --dynamic-to-fixed-shape-dim-param batch_size -o no
try auto-opt -m m --provider OpenVINOExecutionProvider --dynamic-to-fixed-shape-dim-param \
    sequence_length total_sequence_length --dynamic-to-fixed-shape-dim-value 64 500 -o no
try auto-opt -m m --provider OpenVINOExecutionProvider --dynamic-to-fixed-shape-dim-param \
    sequence_length past_sequence_length total_sequence_length \
    --dynamic-to-fixed-shape-dim-value 8 8 32 -o no
try capture-onnx-graph -m m --fixed_param_dict sequence_length -o no
[ ! -e no ] && echo "nothing was left"
