# pass_flows: several ways through the same passes; auto_optimizer_config: ways by device,
# provider and precision.
model_with_tokenizer model
cp -r "$top/tests/golden/rewrite/text" graph
judge='evaluators: {e: {metrics: [{name: size, type: size_on_disk, sub_types: [{name: bytes, priority: 1}]}]}}
evaluator: e
search_strategy: true
output_dir: out'
# two ways, one of them with choices; the pass that both begin with runs once
cat >two.yaml <<END
passes:
  fuse: {type: OnnxPeepholeOptimizer}
  small: {type: OnnxBlockWiseRtnQuantization, block_size: [32, 64]}
  half: [{type: OnnxFloatToFloat16}, {type: OnnxDynamicQuantization}]
  unused: {type: OnnxPeepholeOptimizer}
pass_flows: [[fuse, small], [fuse, half], [half]]
$judge
END
try run --config two.yaml -m graph --dry_run
try run --config two.yaml -m graph
grep -o '"type": "[A-Za-z0-9]*"' out/drupe.json
# the template
cat >auto.yaml <<END
auto_optimizer_config: {precisions: [fp32, fp16, int8, int4]}
$judge
END
plan() { # MODEL SED: what it stands for
    sed "$2" auto.yaml >now.yaml
    "$drupe" run --config now.yaml -m "$1" --dry_run 2>&1 |
        grep -E '^(flow|pass|search|drupe)'
}
gpu='s/^eval.*e$/&\nsystems: {s: {type: LocalSystem, accelerators: [{device: gpu, execution_providers: [CUDAExecutionProvider]}]}}\ntarget: s/'
plan model ''
plan model "$gpu"
plan graph ''
plan graph "$gpu"
plan graph 's/int4]/int4], excluded_passes: OrtTransformersOptimization/'
plan graph 's/$/\n/; s/^search/data_configs: [{name: text, pre_process_data_config: {max_seq_len: 32, max_samples: 2}}]\n&/'
# without precisions: fp32, or all where accuracy may become worse
plan graph 's/precisions.*}/}/'
sed 's/precisions.*}/}/; s/metrics: \[/&{name: q, type: accuracy, sub_types: [{name: kl, goal: {type: max-degradation, value: 1}}]}, /' auto.yaml >now.yaml
"$drupe" run --config now.yaml -m graph --dry_run | grep -c flow
try run --config auto.yaml -m graph -o auto
grep -o '"type": "[A-Za-z0-9]*"' auto/drupe.json
"$drupe" run --config auto.yaml -m model -o built --json 2>said | grep -E '"(flow|goals_met|steps)"'
