# Workflow files: examples run as they are, plans, errors with their places.
ways=$top/examples/workflows
model_with_tokenizer model
# What a plan says of memory and time is this machine's.
plan()
{
    echo "\$ drupe run --config ${1##*/} --dry_run"
    "$drupe" run --config "$1" --dry_run 2>&1 |
        sed -E 's/: [0-9]+ MB of memory, [0-9.]+ s/: N MB of memory, N s/'
}
plan "$ways/quantize.yaml"
try run --config "$ways/quantize.yaml"
tree quantized
plan "$ways/quantize.yaml"
try run --config "$ways/quantize.yaml"
# the same bytes as the commands one after the other
"$drupe" quantize -m model --algorithm gptq --group_size 32 --max_seq_len 64 --max_samples 4 \
    --no_evaluate -o q >said 2>&1 || cat said
"$drupe" capture-onnx-graph -m q --precision int4 --use_ort_genai --no_check -o b >said 2>&1 ||
    cat said
diff -r b/model quantized/model && echo same
# a search: its plan, what it tried, what it left
plan "$ways/search.json"
"$drupe" run --config "$ways/search.json" --json >found 2>said || cat said
grep -c '"model_id"' found
grep -E '"(goals_met|steps|steps_cached|model_path)"' found
tree searched
cut -d '|' -f 4 searched/run_history.txt | grep -c ModelBuilder
"$drupe" run --config "$ways/search.json" --json 2>said | grep '"steps_cached"'
"$drupe" run --config "$ways/search.json" -o again >/dev/null 2>said || cat said
diff -r searched/model again/model && echo same
# what --save_config_file left is a workflow file
"$drupe" quantize -m model --algorithm gptq --group_size 32 --max_seq_len 64 --max_samples 4 \
    --no_evaluate --save_config_file -o saved >said 2>&1 || cat said
"$drupe" run --config saved/config.json -o rerun >said 2>&1 || cat said
diff -r saved/model rerun/model && echo same
"$drupe" quantize -m model --algorithm gptq --calibration_source self --max_seq_len 64 \
    --max_samples 4 --no_evaluate --save_config_file -o saved >said 2>&1 || cat said
"$drupe" run --config saved/config.json -o rerun >said 2>&1 || cat said
diff -r saved/model rerun/model && echo same
# one pass by itself
try run-pass --pass_name rtn --pass_config '{"group_size": 16}' -m model --dry_run
"$drupe" run-pass --pass-name RTN --pass-config '{"group_size": 16}' -m model -o r >said 2>&1 ||
    cat said
tree r
try run-pass --pass_name Rtnn -m model
try run-pass --pass_name Rtn --pass_config '{"bit": 4}' -m model
try run-pass --pass_name Rtn --pass_config '{"bits"' -m model
try run-pass -m model
try run-pass --pass_name Rtn
"$drupe" run-pass --list-passes | cut -c 1-45
"$drupe" run-pass --list-passes --json | grep -c '"takes"'
# errors
cp "$ways/search.json" bad.json
edit() { # SED: the example changed
    sed "$1" "$ways/search.json" >bad.json
    try run --config bad.json
}
edit 's/"sampler": "tpe"/"sampler": "tp"/'
edit 's/"group_size": \[16, 32\] }$/"groupsize": 16 }/'
edit 's/"max_samples": 5/"max_samples": "5"/'
edit 's/"evaluator": "figures"/"evaluator": "figure"/'
edit 's/"kl"/"klx"/'
edit 's/"threshold"/"thresold"/'
edit 's/"output_dir": "searched"/"output_dir": "model"/'
edit 's/"HfModel"/"ONNXModel"/'
edit 's/"evaluators": {/"evaluators": [/'
try run --config nothing.json
try run
try run --config "$ways/quantize.yaml" --list_required_packages
"$drupe" schema >schema
head -n 4 schema
# the cache
"$drupe" cache | sed -n 's/^[0-9a-f]\{16\} .* s  //p' | LC_ALL=C sort
"$drupe" cache --verify | grep -E '^(verified|taken)'
"$drupe" cache --max_size 100K | grep -c '^[0-9a-f]\{16\} '
try cache --cache_dir model
try cache --max_size 10X
try cache --clear
