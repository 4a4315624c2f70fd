# Every command has help that names its options; lines fit 80 columns.
for verb in quantize finetune auto-opt capture-onnx-graph evaluate generate tokenize inspect doctor; do
    "$drupe" $verb --help >help.txt || exit 1
    head -n 1 help.txt
    grep -c '^  -' help.txt >count
    [ "$(cat count)" -ge 2 ] || echo "only $(cat count) options"
    awk 'length($0) > 80 { print "too long: " $0 }' help.txt
    grep -q -- '--json' help.txt || echo "no --json"
    grep -q -- '--log_level' help.txt || echo "no --log_level"
done
