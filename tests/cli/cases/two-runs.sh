# Two runs on one output do not mix: one at a time, and each leaves a whole result.
model m
mkdir out.tmp
# another run's lock
flock out.tmp sh -c "sleep 0.2; \"$drupe\" quantize -m m --no_evaluate -o out" >said 2>&1
echo "while another run writes: $?"
cat said
"$drupe" quantize -m m --no_evaluate -o out >/dev/null 2>&1
echo "after it died: $?"
whole=$(hash_tree out)
i=0
while [ $i -lt 10 ]; do
    "$drupe" quantize -m m --no_evaluate -o out >/dev/null 2>said1 &
    one=$!
    "$drupe" quantize -m m --no_evaluate -o out >/dev/null 2>said2 &
    two=$!
    wait $one
    a=$?
    wait $two
    b=$?
    case $a$b in
    00 | 01 | 10) ;;
    *) echo "exit $a and $b" ;;
    esac
    for n in 1 2; do
        grep -v -e 'another run writes to out' -e 'hint: wait for it' -e 'warning: group' \
            -e 'opening the output' -e 'putting out into place' -e 'committing out' said$n
    done
    [ "$(hash_tree out)" = "$whole" ] || echo "another result in round $i"
    i=$((i + 1))
done
ls | LC_ALL=C sort | tr '\n' ' '
