# Every family as int4 in both runtimes: the table of docs/EXPORT.md, which must say the same.
new=$DRUPE_LIB_PATH old=$top/.deps/lib-1.20
[ -e "$new/libonnxruntime.so" ] || skip "no runtime to generate with"
[ -e "$old/libonnxruntime.so" ] || skip "no old runtime to generate with"
family_model=$(dirname "$drupe")/tests/tools/family_model

# What became of an export that a runtime generates from.  Its own check is left out: GenAI
# has no tokenizer of so few ids.
cell() { # FAMILY RUNTIME [OPTION ...]
    m=$1
    lib=$2
    shift 2
    rm -rf o
    if ! DRUPE_LIB_PATH=$lib "$drupe" capture-onnx-graph -m "$m" --precision int4 \
        --int4_block_size 16 --use_ort_genai --no_check "$@" -o o >out 2>err; then
        sed -n '1s/^drupe: //p' err >>refused
        echo "-"
    elif DRUPE_LIB_PATH=$lib "$drupe" generate -m o -p "a b" --max_new_tokens 4 >out 2>err; then
        echo runs
    else
        cat out err >&2
        echo fails
    fi
}

# GenAI 0.5 is no library of its own, so it is not run here but by tools/oracle/
# family_table.py: it takes the words that it knows.
word() {
    known=" $(sed -n 's/^ *"type": "\(.*\)",*$/\1/p' o/model/genai_config.json) "
    case " llama mistral gemma gemma2 phi phi3 qwen2 " in
    *"$known"*) echo runs ;;
    *) echo "- ($known)" ;;
    esac
}

for golden in "$top"/tests/golden/families/*.json; do
    m=$(basename "$golden" .json)
    "$family_model" $m $m || exit 1
    cat >$m/tokenizer.json <<JSON
{"version": "1.0", "added_tokens": [], "decoder": {"type": "ByteLevel"},
 "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
 "model": {"type": "BPE", "vocab": {"a": 3, "b": 4, "ab": 5, "Ġ": 6}, "merges": ["a b"]}}
JSON
    echo '{"tokenizer_class": "PreTrainedTokenizerFast"}' >$m/tokenizer_config.json
    first=$(cell $m "$new")
    second=$(cell $m "$old" --min_ort_version 1.20)
    third=-
    [ "$second" != runs ] || third=$(word)
    echo "| $m | $first | $second | $third |"
    rm -rf $m
done >rows
cat rows
LC_ALL=C sort -u refused
docs_table "family | 1.32.0, " rows
