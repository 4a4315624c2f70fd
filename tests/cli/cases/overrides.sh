# MixedPrecisionOverrides: values of 16 bits, the weights beside them, and what a quantizer
# after it makes of that.
cp -r "$top/tests/golden/overrides" graph
echo '{"d": "QUInt16", "y": "QUInt16"}' >types.json
try run-pass --pass_name MixedPrecisionOverrides -m graph -o wide --pass_config '{"overrides_config": "types.json"}'
cat wide/model_config.json
try run-pass --pass_name MixedPrecisionOverrides -m graph -o no --pass_config '{"overrides_config": "none.json"}'
try run-pass --pass_name MixedPrecisionOverrides -m graph -o no --pass_config '{"overrides_config": {"d": 16}}'
try run-pass --pass_name MixedPrecisionOverrides -m graph -o no
cp -r "$top/tests/golden/rewrite/text" text
cat >two.yaml <<END
input_model: {type: ONNXModel, model_path: text}
passes:
  wide: {type: MixedPrecisionOverrides, overrides_config: {/layers.0/norm_out: QUInt16}}
  int8: {type: OnnxStaticQuantization, quant_preprocess: false, activation_type: uint8}
output_dir: mixed
END
"$drupe" run --config two.yaml >said 2>&1 || cat said
grep -ao '/layers.0/norm_out_zero_point' mixed/model/model.onnx | sort -u
# a file that is named counts by what is in it
sed 's/{.layers.0.norm_out: QUInt16}/values.json/; s/: mixed/: again/' two.yaml >named.yaml
echo '{"/layers.0/norm_out": "QUInt16"}' >values.json
"$drupe" run --config named.yaml >said 2>&1 || cat said
cmp mixed/model/model.onnx again/model/model.onnx && echo same
echo '{"/layers.0/norm_out": "QUInt8"}' >values.json
"$drupe" run --config named.yaml >said 2>&1 || cat said
cmp -s mixed/model/model.onnx again/model/model.onnx || echo another graph
sed '/wide/d; s/: mixed/: plain/' two.yaml >one.yaml
"$drupe" run --config one.yaml >said 2>&1 || cat said
cmp -s mixed/model/model.onnx plain/model/model.onnx || echo another graph
"$drupe" evaluate -m mixed --max_seq_len 16 --max_samples 2 --json 2>err | grep -c perplexity
