# Passes that give a Hugging Face model to a vendor's program, or a graph to a provider; those
# of Olive that are not here, and why.  The programs are scripts of this case.
golden=$top/tests/golden/openvino
export golden LOG="$PWD/log"
model_with_tokenizer m
sed -i 's/{/{"architectures": ["LlamaForCausalLM"],/; s/"architectures": \[[^]]*\],\(.*"architectures"\)/\1/' m/config.json
echo '{"eos_token_id": 2}' >m/generation_config.json
here_is() { sed "s|$PWD|HERE|g; s|runs/[0-9a-f]*|runs/KEY|g"; }
lines='for a in "$@"; do echo "<$a>"; o=$a; done >>"$LOG"'
had=$PATH
mkdir nothing

# not installed
PATH=$PWD/nothing
for pass in OpenVINOOptimumConversion QuarkQuantization EPContextBinaryGenerator; do
    in=m
    [ $pass = EPContextBinaryGenerator ] && in=$golden/plain/model.onnx
    DRUPE_LIB_PATH=$PWD/nothing "$drupe" run-pass --pass_name $pass -m "$in" -o no >>.said 2>&1 || echo "exit $?"
done
PATH=$PWD/bin:$had
cat .said

# OpenVINO, by optimum-cli: a generating model, and its tokenizers beside it
write='for n in openvino_model openvino_tokenizer openvino_detokenizer; do cp "$golden/plain/ov_model.xml" "$o/$n.xml"; cp "$golden/plain/ov_model.bin" "$o/$n.bin"; done; cp m/*.json "$o/"; [ -d "$TMPDIR" ] && : >"$TMPDIR/x"'
program optimum-cli "$lines; $write"
cat >ov.yaml <<END
input_model: {type: HfModel, model_path: m}
passes:
  export:
    type: OpenVINOOptimumConversion
    ov_quant_config: {weight_format: int4, group_size: 64, ratio: 0.8, sym: true, awq: false, dataset: wikitext2}
    extra_args: {trust_remote_code: false, disable_stateful: true, model_kwargs: {a: 1}}
  update: {type: OpenVINOIoUpdate, input_names: [input_ids, attention_mask, beam_idx], reuse_cache: true}
  wrap: {type: OpenVINOEncapsulation, genai_config_override: {search: {max_length: 32}}}
output_dir: ov
END
"$drupe" run --config ov.yaml --dry_run 2>&1 | grep program | here_is
"$drupe" run --config ov.yaml >.said 2>&1 || cat .said
here_is <log
tree ov/model
grep -A4 '"inputs"' ov/model/genai_config.json | tr -d ' \n' && echo
grep -o -e '"max_length": [0-9]*' -e '"filename": "[a-z.]*"' -e '"type": "[a-z]*"' ov/model/genai_config.json
rm -f log
"$drupe" run-pass --pass_name openvinooptimumconversion -m m -o plain --pass_config '{"extra_args": {"task": "text-generation"}}' >.said 2>&1 || cat .said
here_is <log
program optimum-cli "$lines; $write; cp \"\$o/openvino_model.xml\" \"\$o/openvino_encoder_model.xml\""
try run-pass --pass_name OpenVINOOptimumConversion -m m -o no
for config in '{"ov_quant_config": {"ratio": 1}}' '{"ov_quant_config": {"weight_format": "int4", "quant_mode": "int8"}}' \
    '{"ov_quant_config": {"weight_format": "int4", "smooth_quant_alpha": 0.5}}' '{"ov_quant_config": {"weight_fromat": "int4"}}' \
    '{"ov_quant_config": {"weight_format": 4}}' '{"extra_args": {"fn_get_submodels": "f"}}' '{"device": "npu"}' '{"components": ["a"]}'; do
    try run-pass --pass_name OpenVINOOptimumConversion -m m -o no --pass_config "$config"
done

# AMD's Quark
rm -f log
program quark-cli "$lines; for a in \"\$@\"; do case \$a in --output_dir=*) o=\${a#*=} ;; esac; done; cp m/config.json m/model.safetensors \"\$o/\""
"$drupe" run-pass --pass_name QuarkQuantization -m m -o quark --pass_config '{"quant_algo": ["awq", "rotation"], "exclude_layers": ["lm_head", "*down_proj"], "layer_quant_scheme": [["*q_proj", "int8"]], "kv_cache_dtype": "fp8"}' >.said 2>&1 || cat .said
here_is <log
tree quark
sed 's/^ *//' quark/model_config.json | tr -d '\n' && echo
program quark-cli 'for a in "$@"; do case $a in --output_dir=*) echo "{}" >"${a#*=}/config.json" ;; esac; done'
try run-pass --pass_name QuarkQuantization -m m -o no
for config in '{"data_type": "bfloat16"}' '{"quant_mode": "static"}' '{"layer_quant_scheme": [["a"]]}' '{"model_export": "onnx"}' '{"num_calib_data": 0}'; do
    try run-pass --pass_name QuarkQuantization -m m -o no --pass_config "$config"
done

# a provider's compiler
for config in '{"provider": "CPUExecutionProvider"}' '{"weight_sharing": true}' '{"session_options": {"ep.context_enable": "0"}}' '{"provider_options": []}' \
    '{"provider_options": {"a": 1.5}}'; do
    try run-pass --pass_name EPContextBinaryGenerator -m "$golden/plain/model.onnx" -o no --pass_config "$config"
done

# of Olive, and not here
for pass in OpenVINOQuantization OpenVINOWeightCompression QairtGenAIBuilder ryzengeneratemodelllm; do
    try run-pass --pass_name $pass -m m -o no
done
sed 's/OpenVINOIoUpdate, .*/OpenVINOWeightCompression}/' ov.yaml >weights.yaml
try run --config weights.yaml
ls -d no no.tmp 2>/dev/null
:
