# Standard streams that are closed or full; results are never written into a model's file.
model m
"$drupe" quantize -m m --no_evaluate -o a >&- 2>err
echo "closed stdout: $?"
cat err
ls -d a a.tmp 2>/dev/null
"$drupe" quantize -m m --no_evaluate -o b 2>&- >out
echo "closed stderr: $?"
head -n 1 out
"$drupe" quantize -m m --no_evaluate -o c <&- >out 2>/dev/null
echo "closed stdin: $?"
[ "$(hash_tree b)" = "$(hash_tree c)" ] || echo "other bytes"
if [ -c /dev/full ]; then
    "$drupe" --help >/dev/full 2>err
    echo "full stdout: $?"
    cat err
    "$drupe" inspect -m m --json >/dev/full 2>/dev/null
    echo "full stdout: $?"
fi
("$drupe" inspect -m m; echo "status $?" >status) | : 
sleep 0.1
grep -q -e 'status [01]' status || cat status
# results on stdout alone, people on stderr
"$drupe" quantize -m m --no_evaluate -o d --log_level 0 2>err | grep -c drupe:
grep -q 'drupe: needs about' err || echo "nothing at log level 0"
