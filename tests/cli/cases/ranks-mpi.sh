# The same by Open MPI's mpirun: two processes train what one does, a dead one ends all.
mpirun=$(command -v mpirun) && "$mpirun" --version 2>/dev/null | grep -q 'Open MPI' ||
    skip "oracle: no mpirun of Open MPI here"
model_with_tokenizer m
cp "$top/examples/lab/travel.jsonl" data.jsonl
base="finetune -m m -d json --data_files data.jsonl --text_field prompt --max_seq_len 16
    --max_samples 24 --lora_r 4 --max_steps 6 --eval_split train --threads 1 --json --compute cpu"
share() { "$mpirun" --allow-run-as-root --oversubscribe -n "$@"; }
# shellcheck disable=SC2086
"$drupe" $base --per_device_train_batch_size 6 -o one >one.json 2>/dev/null
for n in 2 3; do
    # shellcheck disable=SC2086
    share $n "$drupe" $base --per_device_train_batch_size $((6 / n)) -o many >many.json 2>/dev/null
    near one.json many.json
    grep '"ranks"' many.json
done
# shellcheck disable=SC2086
share 2 "$drupe" $base --learning_rate oops -o other >out 2>&1
echo "exit $?"
grep '^drupe' out
# shellcheck disable=SC2086
share 1 env "$drupe" $base -o other : -n 1 env DR_FAULT=kill:8 "$drupe" $base -o other >out 2>&1
[ $? = 0 ] || echo "one was killed, and all ended"
ls -d other 2>/dev/null
# shellcheck disable=SC2086
share 1 "$drupe" $base -o other : -n 1 "$drupe" $base -o other --seed 7 >out 2>&1
echo "exit $?"
grep '^drupe: ranks' out
share 2 "$drupe" tokenize -m m --text hello >out 2>&1
echo "exit $?"
grep '^drupe' out
echo "- a calibration: the bytes that a socket gives, too"
small="quantize -m m --algorithm best --group_size 32 --max_samples 5 --max_seq_len 32
    --threads 1 --compute cpu"
# shellcheck disable=SC2086
shared 2 $small -o sockets >/dev/null
# shellcheck disable=SC2086
share 2 "$drupe" $small -o many >/dev/null 2>&1
[ "$(hash_tree many/model)" = "$(hash_tree sockets/model)" ] && echo "the same bytes"
"$drupe" evaluate -m many --reference_model m --threads 1 --compute cpu >one.txt 2>/dev/null
share 2 "$drupe" evaluate -m many --reference_model m --threads 1 --compute cpu 2>/dev/null |
    diff one.txt - && echo "the same figures"
