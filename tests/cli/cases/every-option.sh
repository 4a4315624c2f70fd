# Every option of quantize, as its help lists them, changes the weights, or what is said.
# A new option without a line here fails; so does a line without an option.
cat >options <<'END'
model_name_or_path||-m m2|weights
output_path||-o other|files
task||-t text-generation|accepted
trust_remote_code||--trust_remote_code|accepted
dry_run||--dry_run|said
save_config_file||--save_config_file|files
algorithm||--algorithm best|weights
precision||--precision int8|weights
implementation||--implementation olive|weights
format||--format olive|weights
group_size||--group_size -1|weights
symmetric||--symmetric|weights
exact||--exact|weights
lm_head|--format olive|--lm_head|weights
embeds|--format olive|--embeds|weights
modules_to_not_convert||--modules_to_not_convert down_proj|weights
overrides|--format olive|--overrides {"re:.*down_proj":{"bits":8}}|weights
mixed|--format olive|--mixed k_quant_mixed|weights
ratio|--format olive --mixed snr|--ratio 0.3|weights
max_size|--format olive|--max_size 1MB|weights
distill_steps|--format olive|--distill_steps 1|weights
distill_learning_rate|--format olive --distill_steps 2|--distill_learning_rate 0.01|weights
data_name|--data_files rows.csv --data_name csv|--data_name text|weights
data_files|--data_name text|--data_files t.txt|weights
text_field|--data_name csv --data_files rows.csv|--text_field b|weights
text_template|--data_name csv --data_files rows.csv|--text_template {text}{b}|weights
use_chat_template|--data_name json --data_files chat.jsonl --text_field prompt|--use_chat_template|weights
add_special_tokens||--add_special_tokens|weights
max_seq_len||--max_seq_len 24|weights
max_samples||--max_samples 3|weights
strategy||--strategy join-random|weights
stride|--strategy join-sliding-window --stride 4|--stride 8|weights
random_seed|--strategy join-random|--random_seed 7|weights
calibration_source||--calibration_source self|weights
temperature|--calibration_source self|--temperature 0.5|weights
no_evaluate||--no_evaluate|said
max_kl||--max_kl 1e-9|said
compute||--compute cpu|accepted
threads||--threads 1|accepted
log_level||--log_level 1|said
json||--json|said
END
cp "$top/tests/golden/tiny/qwen2/config.json" "$top/tests/golden/tiny/qwen2/model.safetensors" .
mkdir m
mv config.json model.safetensors m/
cp "$here"/toy/tokenizer.json m/
sed 's/^{/{"chat_template": "{% for m in messages %}{{ m.role }}: {{ m.content }};{% endfor %}",/' \
    "$here/toy/tokenizer_config.json" >m/tokenizer_config.json
model_with_tokenizer m2
i=0
echo 'text,b' >rows.csv
while [ $i -lt 60 ]; do
    echo "row $i is there,the like of $((i * 37 % 101)) and more" >>rows.csv
    echo "{\"prompt\": \"row $i is there\", \"response\": \"the like of it\"}" >>chat.jsonl
    echo "the $i rows and the like of them" >>t.txt
    i=$((i + 1))
done
sed 1d rows.csv >rows.txt

run() { # NAME OPTION...: in a folder of that name
    name=$1
    shift
    rm -rf "$name"
    mkdir "$name"
    # shellcheck disable=SC2086
    (cd "$name" && for f in m m2 rows.csv rows.txt t.txt chat.jsonl; do ln -s ../$f .; done &&
        "$drupe" quantize -m m "$@" >said 2>&1; echo $? >>said)
    weights=$(cat "$name"/*/model/model.safetensors 2>/dev/null | sha256sum)
    files=$(cd "$name" && ls -d -- */*)
    said=$(cat "$name/said")
}

"$drupe" quantize --help | sed -n 's/^  \(-., \)\{0,1\}--\([a-z_]*\).*/\2/p' >listed
cut -d'|' -f1 options | LC_ALL=C sort >known
LC_ALL=C sort listed | diff known - && echo "every option has a line"
while IFS='|' read -r option without with what; do
    base="--algorithm gptq --group_size 16 --max_samples 4 --max_seq_len 32"
    case $option in
    implementation) base="--algorithm rtn --group_size 16" ;;
    algorithm) base="--group_size 16 --max_samples 4 --max_seq_len 32 --algorithm gptq" ;;
    esac
    case $option in
    no_evaluate | max_kl | log_level | json) ;;
    *) base="$base --no_evaluate" ;;
    esac
    [ "$option" != data_files ] || without="$without --data_files rows.txt"
    # the option given again wins
    # shellcheck disable=SC2086
    run a $base $without
    w=$weights f=$files s=$said
    # shellcheck disable=SC2086
    run b $base $without $with
    case $what in
    weights) [ "$w" != "$weights" ] || { echo "$option changes no weights"; cat b/said; } ;;
    said) [ "$s" != "$said" ] || echo "$option changes nothing that is said" ;;
    files) [ "$f" != "$files" ] || echo "$option changes no files" ;;
    accepted) [ "$w" = "$weights" ] || echo "$option changes weights" ;;
    esac
    grep -q '^0$' a/said || { echo "$option: without it:"; cat a/said; }
done <options
