# evaluate through ONNX Runtime: the fp32 graph of a model gives its logits.
[ -e "$DRUPE_LIB_PATH/libonnxruntime.so" ] || skip "no runtime to evaluate graphs with"
small() { # keep a figure when it is not small
    awk '$1 == "KL" { print ($3 < 1e-6 && $3 > -1e-6 ? "KL 0" : $0) }
        /^same/ { print "same", $5 }'
}
model_with_tokenizer m
"$drupe" auto-opt -m m --precision fp32 --use_ort_genai --no_check -o fp32 >/dev/null 2>err
"$drupe" auto-opt -m m --precision int4 --no_check -o int4 >/dev/null 2>err
for onnx in fp32 fp32/model fp32/model/model.onnx; do
    "$drupe" evaluate -m $onnx --reference_model m --max_samples 4 >out 2>err || cat err
    head -n 2 out | sed 's/, [0-9]* bytes//'
    small <out
done
"$drupe" evaluate -m m --reference_model fp32 --max_samples 4 | small
"$drupe" evaluate -m fp32 --reference_model fp32 --max_samples 2 2>&1 | small
"$drupe" evaluate -m int4 --reference_model m --max_samples 4 >out
awk '$1 == "KL" { print ($3 > 0.0001 && $3 < 1 ? "int4: some KL" : $0) }' out
for i in 1 2 3 4 5 6; do
    echo '{"context": "the path", "choices": ["is long", "of", "7"], "answer": 1}'
    echo '{"context": "other", "choices": ["two", "z"], "answer": 0}'
done >t.jsonl
"$drupe" evaluate -m m --task t.jsonl --json >a.json
"$drupe" evaluate -m fp32 --task t.jsonl --json >b.json
"$json" get acc_answers <a.json >a
"$json" get acc_answers <b.json >b
cmp a b && cat a
# answers that are written: GenAI's are drupe's own
for c in 'the path' 'other two' 'weather of'; do
    echo "{\"context\": \"$c\", \"target\": [\"a\", \"b c\"]}"
done >w.jsonl
"$drupe" evaluate -m m --task w.jsonl --max_new_tokens 8 --json >a.json
"$drupe" evaluate -m fp32 --task w.jsonl --max_new_tokens 8 --json >b.json
"$json" get answers <a.json >a
"$json" get answers <b.json >b
[ -s a ] && cmp a b && echo "the same answers"
try evaluate -m int4 --task w.jsonl 2>&1 | cut -c 1-70
# what cannot be evaluated
"$drupe" capture-onnx-graph -m m --extra_mb_options prune_lm_head=true --no_check -o pruned >/dev/null 2>err
try evaluate -m pruned --reference_model m
try evaluate -m fp32/model/model.onnx.data
cp -r fp32/model broken
head -c 100 fp32/model/model.onnx >broken/model.onnx
try evaluate -m broken | cut -c 1-60
rm broken/tokenizer.json
try evaluate -m broken
mkdir bin
cp "$drupe" bin/
DRUPE_LIB_PATH=/none LD_LIBRARY_PATH= bin/drupe evaluate -m fp32 --max_samples 1 2>&1 | cut -c 1-60
# an adapter of the graph; without it the graph is its base
"$drupe" auto-opt -m m -a travel="$top/tests/golden/train/end" --precision fp32 --use_ort_genai \
    --adapter_precision fp32 --no_check -o both >/dev/null 2>err || cat err
"$drupe" evaluate -m both --reference_model m --max_samples 2 | small
"$drupe" evaluate -m both -a travel --reference_model both --max_samples 2 >out
sed -n 's/ (.*adapter/ adapter/p' out | sed 's/, [0-9]* bytes//'
awk '$1 == "KL" { print ($3 > 0.0001 ? "adapter: some KL" : $0) }' out
try evaluate -m both -a nothing
try evaluate -m m -a travel
try evaluate -m fp32 -a both/model/travel.onnx_adapter
DRUPE_MEMORY_LIMIT=1M try evaluate -m both | sed 's/about .*/about N/'
