# Models in parts: CaptureSplitInfo, ModelBuilder, SplitModel, ComposeOnnxModels.
model_with_tokenizer model
cat >parts.yaml <<END
input_model: {type: HfModel, model_path: model}
passes:
  say: {type: CaptureSplitInfo, num_splits: 2}
  quantizer: {type: Rtn, group_size: 16}
  build: {type: ModelBuilder, use_ort_genai: true}
  cut: {type: SplitModel}
output_dir: parts
END
try run --config parts.yaml
tree parts/model
cat parts/model_config.json
sed 's/^  cut.*/&\n  join: {type: ComposeOnnxModels}/; s/: parts/: joined/' parts.yaml >joined.yaml
try run --config joined.yaml
# what the parts give together is what there was before, and it generates
sed 's/^  cut.*//; s/: parts/: whole/' parts.yaml >whole.yaml
"$drupe" run --config whole.yaml >said 2>&1 || cat said
cmp whole/model/model.onnx.data joined/model/model.onnx.data && echo same weights
"$drupe" generate -m whole --prompt 'a b c' --max_new_tokens 8 >one 2>err || cat err
"$drupe" generate -m joined --prompt 'a b c' --max_new_tokens 8 >two 2>err || cat err
cmp one two && [ -s one ] && echo same text
# by themselves, checked in the runtime
try run-pass --pass_name SplitModel -m whole --pass_config '{"split_assignments": {"model.layers.0": 0, "model.layers.1": 1}}' -o cut
try run-pass --pass_name ComposeOnnxModels -m cut -o again
try run-pass --pass_name SplitModel -m whole -o other --pass_config '{"split_assignments": "lm_head"}'
try run-pass --pass_name SplitModel -m whole -o other --pass_config '{"split_assignments": {"lm_head": "x"}}'
try run-pass --pass_name CaptureSplitInfo -m model -o said2
try run-pass --pass_name CaptureSplitInfo -m model -o said2 --pass_config '{"num_splits": 3}'
try run-pass --pass_name CaptureSplitInfo -m model -o said2 --pass_config '{"num_splits": 2, "block_to_split": "model.block"}'
try run-pass --pass_name CaptureSplitInfo -m model -o said2 --pass_config '{"num_splits": 2, "block_to_split": "model.layers"}'
grep -A 3 split_assignments said2/model_config.json
try run-pass --pass_name ComposeOnnxModels -m whole -o other
# a pass on each part, and what is made of them again; passes that need the whole refuse
sed 's/^  cut.*/&\n  round: {type: OnnxBlockWiseRtnQuantization, block_size: 32}/; s/: parts/: each/
     s/^  quantizer.*//' parts.yaml >each.yaml
try run --config each.yaml
tree each/model
grep -c model_component_names each/model_config.json
try run-pass --pass_name OnnxPeepholeOptimizer -m each -o tidy
sed 's/^  round.*/&\n  tune: {type: OrtSessionParamsTuning}/' each.yaml >bad.yaml
try run --config bad.yaml
# names of parts for the nodes; the first that fits counts, on the way through files too
cat >notes.yaml <<END
input_model: {type: HfModel, model_path: model}
passes:
  note: {type: CaptureLayerAnnotations, layer_annotations: {z: [layers.0], a: [layers, norm]}}
  say: {type: CaptureSplitInfo, num_splits: 2}
  build: {type: ModelBuilder}
output_dir: noted
END
"$drupe" run --config notes.yaml >said 2>&1 || cat said
tr -d ' \n' <noted/model_config.json
echo
grep -ao 'layer_ann' noted/model/model.onnx | wc -l
try run-pass --pass_name CaptureLayerAnnotations -m model -o no --pass_config '{"layer_annotations": {"a": "b"}}'
