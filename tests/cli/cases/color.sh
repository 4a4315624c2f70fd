# Colour on a terminal only, and not with NO_COLOR.
command -v script >/dev/null || skip "there is no script(1) to make a terminal"
TERM=xterm script -qec "'$drupe' nonsense" /dev/null >out </dev/null
grep -c "$(printf '\033')\[31m" out
NO_COLOR=1 TERM=xterm script -qec "'$drupe' nonsense" /dev/null >out </dev/null
grep -c "$(printf '\033')" out
"$drupe" nonsense 2>out
grep -c "$(printf '\033')" out
TERM=xterm script -qec "'$drupe' nonsense" /dev/null >/dev/null </dev/null
echo "exit $?"
