# auto-opt with targets: the search is its own, and the best model has the evidence beside.
model_with_tokenizer m
try auto-opt -m m --max_size 100K --target_latency 50 --target_throughput 10 --max_memory 1G \
    --search_samples 3 --seed 4 --max_time 60 --dry_run
"$drupe" auto-opt -m m --enable_search exhaustive --precision int8 --dry_run >f.json
grep -A1 '"bits"' f.json | sort -u
grep -c '"type"' f.json
try auto-opt -m m --max_size 1Q
try auto-opt -m m --max_size 1M --precision fp32
try auto-opt -m m --max_size 1M --provider cuda
try auto-opt -m m --seed 3
[ -e "$DRUPE_LIB_PATH/libonnxruntime-genai.so" ] || skip "no runtime to time models in"
# quality has a limit: the fastest wins; all candidates are small enough
"$drupe" auto-opt -m m --max_degradation 900 --max_size 1M --search_samples 3 -o o --json >j 2>err ||
    cat err
"$json" get goals_met <j
ls o
# a model that small is not there: exit 1, and the best of the others is kept
try auto-opt -m m --max_size 1K --search_samples 2 --algorithm rtn --group_size 16 -o p >out 2>&1
tail -n 3 out
ls p/model/model.onnx
# the file that --dry_run prints is what runs: its candidates are in the cache
"$drupe" auto-opt -m m --max_degradation 900 --max_size 1M --search_samples 3 -o q --dry_run >w.json
"$drupe" run --config w.json --json 2>err | "$json" get steps_cached >cached
"$json" get steps <j | cmp - cached
