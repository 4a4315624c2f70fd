# Several processes that share a calibration (docs/QUANTIZE.md) or an evaluation, joined by
# a socket: what it is next to one process's, who writes, what is refused.
model_with_tokenizer m
echo "{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": 0}" >t.jsonl
small="--max_samples 5 --max_seq_len 32 --threads 1"
figures() { tr -d ' \n' <"$1" | grep -o "\"$2\":[^,}]*" | head -n 1; }
# KL of two reports, within what codes of so small a model move it.
like() {
    a=$(figures "$1" kl) b=$(figures "$2" kl)
    echo "${a#*:} ${b#*:}" | awk '{ d = $1 - $2; if (d < 0) d = -d
        print ($1 > 0 && d < 0.08 * $1 ? "the same KL" : "other KL: " $1 " " $2) }'
}
for a in "awq" "awq --exact" "gptq" "best --embeds"; do
    echo "- $a"
    # shellcheck disable=SC2086
    "$drupe" quantize -m m --algorithm $a --group_size 32 $small -o one --json \
        >one.json 2>/dev/null
    # shellcheck disable=SC2086
    shared 2 quantize -m m --algorithm $a --group_size 32 $small -o two --json >two.json
    like one.json two.json
    (cd two && find . -type f | LC_ALL=C sort) >two.list
    (cd one && find . -type f | LC_ALL=C sort) | diff - two.list
    hash=$(hash_tree two/model)
    # shellcheck disable=SC2086
    shared 2 quantize -m m --algorithm $a --group_size 32 $small -o two >out
    [ "$(hash_tree two/model)" = "$hash" ] || echo "other bytes"
    # shellcheck disable=SC2086
    shared 3 quantize -m m --algorithm $a --group_size 32 $small -o two --json >two.json
    like one.json two.json
    ls -d two*
done
echo "- judged by several: the same figures"
"$drupe" evaluate -m two --reference_model m --max_samples 5 --threads 1 >one.txt 2>/dev/null
shared 3 evaluate -m two --reference_model m --max_samples 5 --threads 1 >three.txt
diff one.txt three.txt && echo the same
"$drupe" evaluate -m two --max_samples 5 --threads 1 >one.txt 2>/dev/null
shared 2 evaluate -m two --max_samples 5 --threads 1 | diff one.txt - && echo the same
echo "- what is refused"
shared 3 evaluate -m two --max_samples 2 --threads 1
shared 2 evaluate -m two --task t.jsonl
# shellcheck disable=SC2086
shared 3 quantize -m m --algorithm awq --group_size 32 --max_samples 2 --max_seq_len 32 -o no
shared 2 quantize -m m --algorithm rtn -o no
# shellcheck disable=SC2086
shared 2 quantize -m m --algorithm best --group_size 32 $small --distill_steps 2 -o no
# shellcheck disable=SC2086
shared 2 quantize -m m --algorithm best --group_size 32 --max_kl 0.00001 $small -o two |
    grep -A 9 '^judged' | sed 's/KL [is ]*[0-9.]*/KL K/'
echo "- one that is killed, and what it leaves"
for i in 0 1; do
    fault=
    [ $i = 0 ] || fault=kill:3
    # shellcheck disable=SC2086
    DR_FAULT=$fault DRUPE_RANKS=$i/2/$PWD/.socket "$drupe" quantize -m m --algorithm gptq \
        --group_size 32 $small -o no >.out-$i 2>&1 &
done
wait
cat .out-0 .out-1
ls -d no* 2>/dev/null
mkdir -p no.tmp/resume
# shellcheck disable=SC2086
shared 2 quantize -m m --algorithm gptq --group_size 32 $small -o no | grep -A 9 '^judged'
ls -d no*
