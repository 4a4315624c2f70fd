# benchmark: tasks, size and, where a runtime is, memory and times, alone and in turns.
figures() { # what they are depends on the machine
    sed -E 's/[0-9]+\.[0-9]{4}/N/g; s/(bytes +)[0-9]+/\1N/; s/, [0-9]+ bytes/, N bytes/; s/ +N/ N/g'
}
model_with_tokenizer m
for i in 1 2 3 4; do
    echo '{"context": "the path", "choices": ["is long", "of"], "answer": 1}'
done >t.jsonl
cp t.jsonl u.jsonl
try benchmark -m m --tasks t.jsonl --limit 0.5 | figures
"$drupe" benchmark -m m --tasks t.jsonl u.jsonl --limit 3 --json >j
"$json" keys <j
"$json" get tasks/u.jsonl/questions <j
# the same answers as evaluate's
"$drupe" evaluate -m m --task t.jsonl --json | "$json" get acc_answers >a
"$drupe" benchmark -m m --tasks t.jsonl --json | "$json" get tasks/t.jsonl/acc_answers | cmp - a
# the end of a long question is what counts
try benchmark -m m --tasks t.jsonl --max_length 3 | figures
try benchmark -m m
try benchmark -m nowhere
try benchmark -m m --backend ortgenai
try benchmark -m m --tasks t.jsonl --device gpu 2>&1 | sed -n '/^drupe: /q; 1p'
try benchmark -m m -o x
try benchmark -m m --batch_size 2
[ -e "$DRUPE_LIB_PATH/libonnxruntime-genai.so" ] || skip "no runtime to time models in"
"$drupe" auto-opt -m m --precision int4 --use_ort_genai --no_check -o o >/dev/null 2>err || cat err
fast="--warmup_num 0 --repeat_test_num 3 --prompt_tokens 4 --new_tokens 3 --threads 1"
try benchmark -m o $fast | figures
"$drupe" benchmark -m o --reference_model o $fast --json >j
"$json" keys <j
try benchmark -m o $fast --device gpu
try benchmark -m o --backend ort
try benchmark -m o --new_tokens 1
