# Ctrl-C: status 130, and nothing half-made is left.
model_with_tokenizer m
data=$top/examples/lab/travel.jsonl
stop() { # SIGNAL
    "$drupe" finetune -m m -d json --data_files "$data" --text_field prompt \
        --max_steps 1000000 --max_seq_len 64 -o out >said 2>&1 &
    pid=$!
    i=0
    while [ ! -d out.tmp/model ] && [ $i -lt 200 ]; do
        sleep 0.05
        i=$((i + 1))
    done
    sleep 0.1
    kill -s "$1" $pid
    wait $pid
    echo "$1: $?"
    grep -v 'drupe: warning' said
    ls -d out out.tmp 2>/dev/null || echo 'nothing left'
}
stop INT
stop TERM
