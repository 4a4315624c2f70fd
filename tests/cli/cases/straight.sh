# auto-opt and optimize with a quantizer: what quantize and then auto-opt leave, in one run.
model_with_tokenizer m
text='--max_samples 2 --max_seq_len 32'
pair() { # quantizer's flags, -- export's flags
    flags=
    while [ "$1" != -- ]; do
        flags="$flags $1"
        shift
    done
    shift
    # shellcheck disable=SC2086
    "$drupe" quantize -m m --format gptq $flags --no_evaluate -o packed >log 2>&1 || cat log
    "$drupe" auto-opt -m packed "$@" --use_ort_genai --no_check -o two >log 2>&1 || cat log
    # shellcheck disable=SC2086
    "$drupe" auto-opt -m m $flags "$@" --use_ort_genai --no_check --no_evaluate -o one >log 2>&1 ||
        cat log
    if [ "$(hash_tree one/model)" = "$(hash_tree two/model)" ]; then
        echo "$flags $*: the same"
    else
        echo "$flags $*: others"
    fi
}
for a in rtn hqq kquant; do
    pair --algorithm $a --group_size 16 --
done
for a in awq gptq best; do
    # shellcheck disable=SC2086
    pair --algorithm $a --group_size 16 $text --
done
pair --algorithm rtn --group_size -1 --precision int8 -- --precision int8
pair --algorithm rtn --group_size 16 --symmetric --precision int2 -- --precision int2
pair --algorithm kquant --modules_to_not_convert o_proj --overrides '{"re:.*down_proj":{"bits":8}}' \
    -- --int4_block_size 16 --provider cuda
# shellcheck disable=SC2086
pair --algorithm awq --exact $text --precision int4 --
tree one
grep -c '"type"' one/drupe.json
# measured, and checked in the runtime
try auto-opt -m m --algorithm hqq --group_size 16 -o out | sed 's/run in .*/run/'
# optimize: its own symmetric grid
try optimize -m m --precision int4 --algorithm best --max_samples 2 --max_seq_len 32 --no_check \
    --no_evaluate --block_size 16 -o out
try optimize -m m --precision uint4 --algorithm awq --dry_run -o out
try auto-opt -m m --algorithm gptq --provider qnn --group_size -1 --max_samples 9 --dry_run -o out
# refused
try auto-opt -m m --group_size 32
try auto-opt -m m --overrides '{}'
try auto-opt -m m --no_evaluate
try auto-opt -m m -d text --data_files m/tokenizer.json
try auto-opt -m m --algorithm rtn -d text --data_files m/tokenizer.json -o no
try auto-opt -m m --algorithm gptq --precision fp16
try auto-opt -m m --algorithm quarot
try auto-opt -m m --algorithm rtn --exact
try auto-opt -m m --algorithm rtn --provider qnn --group_size 32
try auto-opt -m packed --algorithm rtn -o no
try auto-opt -m m -a "$top/tests/golden/adapters/lora" --algorithm rtn --group_size 16 -o no
try optimize -m m --algorithm best
try optimize -m m --max_samples 3
try optimize -m packed --precision int4 --algorithm best -o no
ls
