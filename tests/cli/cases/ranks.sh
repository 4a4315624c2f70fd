# Several processes that share a training (docs/FINETUNE.md), joined by a socket: who writes
# and speaks, what is refused, what is left when one fails.  mpirun's are in ranks-mpi.
model_with_tokenizer m
model_with_tokenizer m2 's/"rms_norm_eps": [^,]*/"rms_norm_eps": 0.5/'
cp "$top/examples/lab/travel.jsonl" data.jsonl
base="finetune -d json --data_files data.jsonl --text_field prompt --max_seq_len 16
    --max_samples 24 --lora_r 4 --max_steps 6 --save_steps 2 --eval_split train --threads 1"
quiet() { sed '/^time /d; /are cut off/d; /both trained on/d'; }
echo "- the first one writes and speaks"
# shellcheck disable=SC2086
shared 2 $base -m m --per_device_train_batch_size 2 -o two | quiet
tree two
ls -d two*
# shellcheck disable=SC2086
"$drupe" $base -m m --per_device_train_batch_size 4 -o one --json >one.json 2>/dev/null
# shellcheck disable=SC2086
shared 2 $base -m m --per_device_train_batch_size 2 -o two --json | grep -v '^drupe' >two.json
near one.json two.json
grep -c '"ranks": 2' two.json
echo "- from a checkpoint, with as many blocks a step"
# shellcheck disable=SC2086
"$drupe" $base -m m --per_device_train_batch_size 4 -o again --json \
    --resume_from_checkpoint two/checkpoint-4 2>/dev/null >again.json
near again.json two.json
# shellcheck disable=SC2086
shared 4 $base -m m --per_device_train_batch_size 1 -o again --json \
    --resume_from_checkpoint two/checkpoint-4 | grep -v '^drupe' >again.json
near again.json two.json
# shellcheck disable=SC2086
shared 2 $base -m m --per_device_train_batch_size 4 -o again \
    --resume_from_checkpoint two/checkpoint-4 | quiet
echo "- a base that is written before it is trained on"
# shellcheck disable=SC2086
shared 2 $base -m m --method loftq --per_device_train_batch_size 2 -o lq | quiet
ls -d lq*
echo "- not the same"
one_differs() {
    for i in 0 1; do
        more=
        [ $i = 0 ] || more=$*
        # shellcheck disable=SC2086
        DRUPE_RANKS=$i/2/$PWD/.socket "$drupe" $base -m m -o other $more >.out-$i 2>&1 &
    done
    wait
    cat .out-0 .out-1 | quiet | sort -u
    rm -f .out-*
    ls -d other* 2>/dev/null
}
one_differs --learning_rate 1e-3
one_differs --max_seq_len 8
one_differs -m m2
one_differs --resume_from_checkpoint true
echo "- verbs and passes for one process"
shared 2 tokenize -m m --text hello
shared 2 quantize -m m -o q
echo "- one that fails, and one that does not come"
# shellcheck disable=SC2086
for i in 0 1; do
    fault=
    [ $i = 0 ] || fault=kill:8
    DR_FAULT=$fault DRUPE_RANKS=$i/2/$PWD/.socket "$drupe" $base -m m -o other >.out-$i 2>&1 &
done
wait
cat .out-0 .out-1 | quiet
ls -d other* 2>/dev/null
# shellcheck disable=SC2086
DRUPE_RANKS_TIMEOUT=1 DRUPE_RANKS=0/2/$PWD/.socket "$drupe" $base -m m -o other 2>&1
DRUPE_RANKS=1:2 "$drupe" $base -m m -o other 2>&1
DRUPE_RANKS=1/2 "$drupe" --version
ls -d other* 2>/dev/null
true
