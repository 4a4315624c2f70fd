# Evaluations while training: which rows, when, what is kept; options that fit nothing.
model_with_tokenizer m
cp "$top/examples/lab/travel.jsonl" all.jsonl
head -n 8 all.jsonl >few.jsonl
base="finetune -m m -d json --data_files all.jsonl --text_field prompt --max_seq_len 32
    --per_device_train_batch_size 2 --lora_r 4 --max_steps 6"
# shellcheck disable=SC2086
run() { "$drupe" $base "$@" --json 2>err | tee out.json | "$json" keys >/dev/null; cat err; }
at() { "$json" get "$@" <out.json; }
evaluated() { # steps with an evaluation
    i=0
    while step=$(at evaluations $i step 2>/dev/null); do
        printf '%s ' "$step"
        i=$((i + 1))
    done
    echo
}
run --train_split 'train[:75%]' --eval_split 'train[75%:]' --eval_steps 4 -o a
cp out.json a.json
at rows
at eval_rows
evaluated
run --train_split 'train[:75%]' --eval_split 'train[75%:]' --eval_strategy no -o b
evaluated
cmp a/adapter/adapter_model.safetensors b/adapter/adapter_model.safetensors && echo "the same adapter"
run --eval_data_files few.jsonl --logging_steps 3 --logging_first_step -o c
at rows
evaluated
at log_history 1 step
at log_history 2 step
run --eval_split 'train[50%:]' --eval_data_files few.jsonl -o d
at eval_rows
run --eval_split 'train[90%:]' -o e
# a rate at which nothing gets better
run --eval_data_files few.jsonl --learning_rate 0 --eval_steps 1 --early_stopping_patience 2 \
    --load_best_model_at_end -o f
evaluated
at stopped_early
at adapter_step
# the table for people
# shellcheck disable=SC2086
"$drupe" $base --eval_data_files few.jsonl --learning_rate 0 -o g >said 2>&1
sed -n '/^evaluation/p; s/^\(perplexity [a-z]*\) .*/\1/p' said
echo "- a rate that falls behind evaluations; steps as shares"
# shellcheck disable=SC2086
"$drupe" $base --eval_data_files few.jsonl --learning_rate 1e-3 --eval_steps 0.2 \
    --save_steps 0.4 --logging_steps 0.2 --lr_scheduler_type reduce_lr_on_plateau \
    --lr_scheduler_kwargs '{"patience": 0, "threshold": 99, "threshold_mode": "abs"}' \
    --json -o h >said 2>&1
grep -c '"eval_loss"' said
grep '"learning_rate"' said
ls -d h/checkpoint-*
# what is refused
# shellcheck disable=SC2086
no() { try $base -o no "$@"; }
no --eval_steps 2
no --load_best_model_at_end
no --eval_data_files few.jsonl --eval_strategy epoch --eval_steps 2
no --eval_data_files few.jsonl --eval_strategy no --early_stopping_patience 2
no --eval_data_files few.jsonl --early_stopping_threshold 0.1
no --eval_data_files none.jsonl
no --eval_split validation
no --train_split 'train[:10'
no --eval_split 'train[:1]' --max_seq_len 64
no --logging_strategy epoch --logging_steps 2
no --per_device_eval_batch_size 4
no --eval_strategy never --eval_split train
no --lr_scheduler_type polynomial --lr_scheduler_kwargs '{"pow": 2}'
no --lr_scheduler_type linear --lr_scheduler_kwargs '{"power": 2}'
no --lr_scheduler_type cosine_with_restarts --lr_scheduler_kwargs '{"num_cycles": "two"}'
no --lr_scheduler_type warmup_stable_decay
try quantize -m m -d json --data_files all.jsonl --eval_split train -o no
ls -d no 2>/dev/null
# the plan names both sets
# shellcheck disable=SC2086
"$drupe" $base --train_split 'train[:75%]' --eval_split 'train[75%:]' --dry_run |
    grep -e split -e '"name"' -e data_config
# a saved one runs as a workflow, to the same adapter
# shellcheck disable=SC2086
"$drupe" $base --train_split 'train[:75%]' --eval_split 'train[75%:]' --eval_steps 2 \
    --save_config_file -o saved >said 2>&1 || cat said
sed 's/"output_dir": "[^"]*"/"output_dir": "again"/' saved/config.json >saved.json
"$drupe" run --config saved.json >said 2>&1 || cat said
found=$(find again -name adapter_model.safetensors ! -path '*checkpoint*' | head -n 1)
cmp saved/adapter/adapter_model.safetensors "$found" && echo "the same adapter"
find again -name trainer_state.json -o -name report.html | head -n 1 | xargs grep -c eval >/dev/null
sed 's/"eval_data_config": "eval_data"/"eval_data_config": "nothing"/' saved.json >bad.json
try run --config bad.json
no --lr_scheduler_type reduce_lr_on_plateau
no --lr_scheduler_type reduce_lr_on_plateau --eval_data_files few.jsonl --eval_strategy no
no --lr_scheduler_type reduce_lr_on_plateau --eval_data_files few.jsonl --warmup_steps 2
no --lr_scheduler_type reduce_lr_on_plateau --lr_scheduler_kwargs '{"factor": 2}'
no --lr_scheduler_type reduce_lr_on_plateau --lr_scheduler_kwargs '{"threshold_mode": 1}'
no --save_steps 2.5
no --label_smoothing_factor 1
# what the base was made from, beside it: the same as where that is the base itself
"$drupe" quantize -m m --algorithm rtn --precision int4 --group_size 16 --no_evaluate -o four \
    >/dev/null 2>&1
tuned() {
    "$drupe" finetune -d json --data_files all.jsonl --text_field prompt --max_seq_len 32 \
        --per_device_train_batch_size 2 --lora_r 4 --max_steps 2 --json "$@" 2>&1 >out.json
}
split="--train_split train[:75%] --eval_split train[75%:]"
# shellcheck disable=SC2086
tuned -m four $split --reference_model m -o g
at original_perplexity >original
cmp original - <<P && echo "as a base by itself"
$("$json" get base_perplexity <a.json)
P
grep -o "the base's original" g/report.html
# shellcheck disable=SC2086
tuned -m m $split --method qlora -o h
cmp original - <<P && echo "qlora's plain base, too"
$(at original_perplexity)
P
# shellcheck disable=SC2086
tuned -m four $split --reference_model nothing -o i
tuned -m four --reference_model m -o i
ls -d i 2>/dev/null
