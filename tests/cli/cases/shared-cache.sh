# A cache that several machines share, at a folder: used, listed, taken away; errors.
model model
cat >w.yaml <<'Y'
passes:
  q: {type: Rtn}
  b: {type: ModelBuilder}
Y
quick() { # CACHE OUT MORE...
    cache=$1
    out=$2
    shift 2
    "$drupe" run --config w.yaml -m model --cache_dir "$cache" -o "$out" --threads 1 "$@" 2>&1 |
        grep -v -e ' s$' -e '^candidate'
}
quick one out --shared_cache "$PWD/there" | grep '^steps'
quick two again --shared_cache "file://$PWD/there" | grep '^steps'
diff -r out/model again/model && echo same
ls there
# no path of a machine, no time of one
grep -rlE "$PWD|one/runs" there | wc -l
try shared-cache --shared_cache there --json >said
grep -c '"broken": false' said
key=$(grep -m 1 '"key"' said | tr -dc 0-9a-f | cut -c 2-)
try shared-cache --shared_cache there --delete
try shared-cache --shared_cache there --delete --yes
try shared-cache --shared_cache there --all
try shared-cache --shared_cache there --model_hash zz
try shared-cache --shared_cache there --model_hash 00000000
try shared-cache --shared_cache http://127.0.0.1:1/x
try shared-cache --account x
try shared-cache --account x/y --container z
# an entry goes with the contents that no other one has
ls there/content | wc -l >before
"$drupe" shared-cache --shared_cache there --delete -y --model_hash "${key%????????????????}" |
    sed -E 's/^[0-9a-f]{16} .*/ENTRY/; s/, [0-9]+ bytes/, N bytes/'
[ "$(ls there/content | wc -l)" -lt "$(cat before)" ] && ls there/entries | wc -l
quick three out3 --shared_cache there --update_shared_cache false | grep '^steps'
ls there/entries | wc -l
# a machine that has it all sends what is missing, once it is asked to look again
rm -r one/shared
quick one out1 --shared_cache there | grep '^steps'
quick four out4 --shared_cache there | grep '^steps'
"$drupe" shared-cache --shared_cache there --delete --all --yes | tail -n 1 |
    sed 's/[0-9]* contents/N contents/'
find there -type f | wc -l
# the same by a workflow file
cat >>w.yaml <<'Y'
cache_config: {shared_cache: there, update_shared_cache: false}
Y
quick five out5 | grep '^steps'
find there -type f | wc -l
sed -i 's/update_shared_cache: false/enable_shared_cache: true/' w.yaml
quick five out5 | grep '^steps'
quick six out6 | grep '^steps'
bad() { # KEYS OF cache_config
    sed -i '$d' w.yaml
    echo "cache_config: {$1}" >>w.yaml
    try run --config w.yaml -m model -o bad
}
bad 'enable_shared_cache: true'
bad 'account_name: x'
bad 'account_name: x, container_name: "a b"'
bad 'shared_cache: there, account_name: x, container_name: y'
bad 'shared_cache: "ftp://x/y"'
bad 'shared_cache: 1'
bad 'clean_cache: true' >/dev/null 2>&1
try run --config w.yaml -m model -o bad --account_name x
# an adapter names the model beside it: by the folder that it is in on each machine
model_with_tokenizer model
printf '{"text": "abc abc abc abc"}\n{"text": "cba abc cba"}\n' >d.jsonl
cat >w.yaml <<'Y'
passes: {l: {type: LoRA, training_args: {max_steps: 2}, train_data_config: d}}
data_configs:
- {name: d, load_dataset_config: {data_name: json, data_files: d.jsonl}, pre_process_data_config: {max_seq_len: 16}}
Y
quick one out1 --shared_cache there | grep '^steps'
rm -r one
quick "$PWD/four" out4 --shared_cache there | grep '^steps'
grep -rl "$PWD\|one/runs" there | wc -l
grep -h -o '[$]{entry}/model' there/content/*
grep -o '"base_model_name_or_path": "[^"]*' four/runs/*/adapter/adapter_config.json |
    sed -E "s|$PWD|HERE|; s/[0-9a-f]{64}/KEY/"
# in an output it is that of the output
grep -h -o '"base_model_name_or_path": "[^"]*' out1/adapter/adapter_config.json \
    out4/adapter/adapter_config.json
# one that cannot be written, or is not there: a line, and the result
: >nofolder
quick seven out7 --shared_cache nofolder/x | grep -e '^steps' -e 'shared cache' |
    sed -E 's/: [0-9a-f]{16} is/: ENTRY is/'
diff -r out1/model out7/model && echo same
