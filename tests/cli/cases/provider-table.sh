# Every provider with every family: the table of docs/EXPORT.md, which must say the same.
[ -e "$DRUPE_LIB_PATH/libonnxruntime.so" ] || skip "no runtime to check exports with"
family_model=$(dirname "$drupe")/tests/tools/family_model
words=$(for w in the a of and to in is it that was he for on with as be at by not are but had \
    his they from she which or we an there her were one do been all their; do echo $w; done |
    awk '{ printf ", \"%s\": %d", $1, NR }')
providers="cpu cuda dml webgpu NvTensorRtRtx openvino qnn vitisai"

# What became of an export: run here, made, made and run on the CPU, or - with the reason
# told below the table.
cell() { # FAMILY PROVIDER
    rm -rf o
    if ! "$drupe" auto-opt -m "$1" --provider "$2" -o o >out 2>err; then
        sed -n '1s/^drupe: //p' err >>refused
        echo "-"
    elif grep -q 'not run: provider' out; then
        echo made
    elif grep -q 'not run on' out; then
        grep -q 'loaded and run' out && echo "made, on CPU"
    else
        grep -q 'loaded and run' out && echo run
    fi
}

for golden in "$top"/tests/golden/families/*.json; do
    m=$(basename "$golden" .json)
    "$family_model" $m $m || exit 1
    cat >$m/tokenizer.json <<JSON
{"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"},
 "model": {"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0$words}}}
JSON
    row="| $m |"
    for p in $providers; do
        row="$row $(cell $m $p) |"
    done
    echo "$row"
    rm -rf $m
done >rows
cat rows
LC_ALL=C sort -u refused
docs_table "family | cpu " rows
