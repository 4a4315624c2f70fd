# An evaluator's figures: those of accuracy are what drupe evaluate says of the same models,
# times and memory are in order, a program's are what it printed.
[ -e "$DRUPE_LIB_PATH/libonnxruntime-genai.so" ] || skip "no onnxruntime-genai here"
model_with_tokenizer model
cat >t.jsonl <<'T'
{"context": "the cat", "choices": [" sat", " log"], "answer": 0}
{"context": "a dog", "choices": [" the", " mat", " on"], "answer": 2}
{"context": "on the", "choices": [" mat", " cat"], "answer": 1}
T
cat >ask <<'P'
#!/bin/sh
cat >>asked.json
echo '{"x": 3.5, "y": -2}'
P
chmod +x ask
cat >w.yaml <<'Y'
data_configs:
  judge:
    pre_process_data_config: {max_seq_len: 32, max_samples: 3}
evaluators:
  e:
    metrics:
    - name: q
      type: accuracy
      data_config: judge
      sub_types: [{name: perplexity}, {name: kl}, {name: top_1_agreement}]
    - name: task
      type: accuracy
      user_config: {task: t.jsonl}
      sub_types: [{name: accuracy_score, priority: 1}]
    - name: lat
      type: latency
      metric_config: {warmup_num: 1, repeat_test_num: 7}
      user_config: {prompt_tokens: 8}
      sub_types: [{name: min}, {name: p50}, {name: p90}, {name: p999}, {name: max}, {name: avg}]
    - name: thr
      type: throughput
      metric_config: {warmup_num: 1, repeat_test_num: 3}
      user_config: {prompt_tokens: 8, new_tokens: 4}
      sub_types: [{name: min}, {name: avg}, {name: max}, {name: prefill}, {name: decode}]
    - {name: mem, type: peak_memory}
    - {name: size, type: size_on_disk}
    - name: mine
      type: custom
      user_config: {command: ./ask}
      sub_types: [{name: x}, {name: y, higher_is_better: false, goal: {type: threshold, value: -1}}]
evaluator: e
passes:
  b: {type: ModelBuilder, precision: int4, use_ort_genai: true}
Y
"$drupe" run --config w.yaml -m model -o out --json >found 2>said || cat said
figure() { "$json" get candidates 0 figures "$1" <found; }
of_input() { "$json" get "$1" value <out/input_model_metrics.json; }
increasing() { # NAME VALUE...: each at least the one before, the first above zero
    name=$1
    shift
    echo "$*" | awk -v n="$name" '{ ok = $1 > 0; for (i = 2; i <= NF; i++) ok = ok && $i >= $(i-1);
        print n, ok ? "in order" : $0 }'
}
"$drupe" evaluate -m out --reference_model model --max_seq_len 32 --max_samples 3 --json \
    >judged 2>said || cat said
for pair in q-perplexity:perplexity q-kl:kl q-top_1_agreement:top1_agreement; do
    [ "$(figure ${pair%:*})" = "$("$json" get ${pair#*:} <judged)" ] && echo "${pair%:*} same" ||
        echo "${pair%:*} $(figure ${pair%:*}) $("$json" get ${pair#*:} <judged)"
done
"$drupe" evaluate -m out --task t.jsonl --json >judged 2>said || cat said
[ "$(figure task-accuracy_score)" = "$("$json" get acc <judged)" ] && echo "accuracy same"
increasing latency "$(figure lat-min)" "$(figure lat-p50)" "$(figure lat-p90)" \
    "$(figure lat-p999)" "$(figure lat-max)"
increasing average "$(figure lat-min)" "$(figure lat-avg)" "$(figure lat-max)"
increasing throughput "$(figure thr-min)" "$(figure thr-avg)" "$(figure thr-max)"
increasing prefill "$(figure thr-prefill)"
increasing decode "$(figure thr-decode)"
increasing memory "$(figure mem-bytes)"
bytes=$(find out/model -type f -printf '%s\n' | awk '{ n += $1 } END { printf "%.1f", n }')
[ "$(figure size-bytes)" = "$bytes" ] && echo "size same" || echo "$(figure size-bytes) $bytes"
echo "mine $(figure mine-x) $(figure mine-y), goals met: $("$json" get goals_met <found)"
grep -c model_path asked.json
# of the input: no times, no divergence
echo "input: $(of_input lat-min) $(of_input mem-bytes) $(of_input q-kl) $(of_input q-top_1_agreement)"
# what was measured is kept, what a program says is asked again
"$drupe" run --config w.yaml -m model -o out --json >again 2>said || cat said
[ "$("$json" get candidates 0 figures <found)" = "$("$json" get candidates 0 figures <again)" ] &&
    echo "same figures"
grep -c model_path asked.json
sed -i 's/echo .*/echo \x27{"x": "much", "y": 1}\x27/' ask
try run --config w.yaml -m model -o out
sed -i 's/"much"/7/' ask
sed -i 's/use_ort_genai: true/use_ort_genai: false/' w.yaml
"$drupe" run --config w.yaml -m model -o out 2>&1 | sed 's|runs.[0-9a-f]*|runs/KEY|'
