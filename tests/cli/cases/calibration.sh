# Where calibration text comes from: every source and option gives another result, the same
# one for any number of threads.
model_with_tokenizer m
i=0
while [ $i -lt 40 ]; do
    echo "row $i, says \"number $((i * 37 % 101))\" and the like of it"
    i=$((i + 1))
done >t.txt
sed 's/"/""/g; s/^/"/; s/$/"/; 1i text' t.txt >t.csv
sed 's/"/\\"/g; s/^/{"text": "/; s/$/"}/' t.txt >t.jsonl
{ echo '{"text":'; sed 's/"/\\"/g; s/.*/"&"/' t.txt | paste -sd, | sed 's/.*/[&]}/'; } >t.json
{ sed 's/"/\\"/g; s/^/{"text": "/; s/$/"}/' t.txt | paste -sd, | sed 's/.*/[&]/'; } >a.json
q() # NAME options
{
    name=$1
    shift
    "$drupe" quantize -m m --algorithm gptq --group_size 32 --max_samples 4 --max_seq_len 48 \
        --no_evaluate "$@" -o $name >out 2>err || { cat err; return; }
    grep -E 'warning' err | sed 's/about .* on this/about TIME on this/'
    printf '%s %s\n' "$(hash_tree $name/model)" $name >>hashes
}
same() { [ "$(hash_tree $1/model)" = "$(hash_tree $2/model)" ] || echo "$1 and $2 differ"; }
q builtin
q text -d text --data_files t.txt
q csv -d csv --data_files t.csv
q jsonl -d json --data_files t.jsonl
q columns -d json --data_files t.json
q array -d json --data_files a.json
for kind in csv jsonl columns array; do same text $kind; done
rm hashes
q sliding -d text --data_files t.txt --strategy join-sliding-window --stride 8
q random -d text --data_files t.txt --strategy join-random
q seed -d text --data_files t.txt --strategy join-random --random_seed 1
q lines -d text --data_files t.txt --strategy line-by-line
q drawn -d text --data_files t.txt --strategy line-by-line-random
q special -d text --data_files t.txt --add_special_tokens
q self --calibration_source self --threads 1
q self_seed --calibration_source self --random_seed 1
q self_cool --calibration_source self --temperature 0.5
echo "$(wc -l <hashes) results, $(cut -d' ' -f1 hashes | sort -u | wc -l) of them different"
q self2 --calibration_source self --threads 2
same self self2
grep -A12 '"data"' self_cool/drupe.json
printf '\n{"text": ""}\n{"text": ""}\n' >>t.jsonl
q empty -d json --data_files t.jsonl
"$drupe" quantize -m m --algorithm gptq --max_samples 400 --max_seq_len 32 --no_evaluate -d json \
    --data_files t.jsonl --json -o counted 2>/dev/null | grep -A12 '"calibration"'
# Rows of a conversation, in two forms, against the template's text written out.
i=0
while [ $i -lt 20 ]; do
    printf '{"prompt": "where is %d", "response": "it is \\"%d\\""}\n' $i $i >>r.jsonl
    printf '{"messages": [{"role": "user", "content": "where is %d"}, ' $i >>c.jsonl
    printf '{"role": "assistant", "content": "it is \\"%d\\""}]}\n' $i >>c.jsonl
    printf '{"text": "<|user|>\\nwhere is %d<|end|>\\n<|assistant|>\\n' $i >>w.jsonl
    printf 'it is \\"%d\\"<|end|>\\n"}\n' $i >>w.jsonl
    i=$((i + 1))
done
tail -n 1 w.jsonl
q rows -d json --data_files r.jsonl --use_chat_template
q chat -d json --data_files c.jsonl --use_chat_template
q written -d json --data_files w.jsonl
same rows written
same chat written
ft() # NAME options
{
    name=$1
    shift
    "$drupe" finetune -m m -d json --max_steps 2 --max_seq_len 32 --max_samples 8 "$@" \
        -o $name >/dev/null 2>err || { cat err; return; }
    sha256sum <$name/adapter/adapter_model.safetensors >$name.hash
}
ft ft_rows --data_files r.jsonl --use_chat_template
ft ft_written --data_files w.jsonl
ft ft_window --data_files w.jsonl --strategy join-sliding-window --stride 16
ft ft_drawn --data_files w.jsonl --strategy join-random
"$drupe" finetune -m m -d json --data_files t.jsonl --max_steps 1 --max_seq_len 32 --strategy \
    line-by-line -o ft_lines 2>&1 >/dev/null | grep warning
cmp ft_rows.hash ft_written.hash
sort -u ft_*.hash | wc -l
try quantize -m m --algorithm gptq --temperature 0.5 -o no
try quantize -m m --algorithm rtn --calibration_source self -o no
try quantize -m m --algorithm gptq --calibration_source self -d text --data_files t.txt -o no
try quantize -m m --algorithm gptq --strategy join-sliding-window -d text --data_files t.txt -o no
try quantize -m m --algorithm gptq --strategy lines -d text --data_files t.txt -o no
try quantize -m m --algorithm gptq -d parquet --data_files t.txt -o no
printf 'text,n\n"a\nb",1\nc\n' >bad.csv
try quantize -m m --algorithm gptq -d csv --data_files bad.csv -o no
