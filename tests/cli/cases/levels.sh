# --log_level is Olive's; a warning that changes the result is shown whatever it says.
model m
for level in 0 1 2 3 4; do
    "$drupe" quantize -m m --no_evaluate -o out --log_level $level >/dev/null 2>err
    echo "$level: $? $(grep -c 'warning: group size 128' err) $(grep -c 'needs about' err)"
done
"$drupe" quantize -m m --no_evaluate -o out --trust_remote_code --log_level 1 2>&1 >/dev/null |
    grep trust_remote_code
"$drupe" quantize -m m --no_evaluate -o out --disable_telemetry --group_size 32
echo "quiet: $?"
