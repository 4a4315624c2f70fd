# lib.sh - functions for cases (tests/cli/run); sourced, not run.
# shellcheck shell=sh

tiny=$top/tests/golden/tiny

# Runs drupe and writes the transcript: the command, all it says, its status.  Paths of the
# source tree read as TOP.
try() {
    printf '$ drupe'
    for word in "$@"; do
        case $word in
        '' | *[!A-Za-z0-9_./,=:+-]*) printf " '%s'" "$word" ;;
        *) printf ' %s' "$word" ;;
        esac
    done | sed "s|$top|TOP|g"
    echo
    status=0
    "$drupe" "$@" >.out 2>&1 || status=$?
    sed "s|$top|TOP|g" .out
    rm -f .out
    [ $status = 0 ] || echo "[exit $status]"
}

# A tiny Llama of this case's own: model NAME [CONFIG-JSON-EDIT as a sed script].
model() {
    mkdir -p "$1"
    cp "$tiny/llama/model.safetensors" "$1/"
    sed "${2:-}" "$tiny/llama/config.json" >"$1/config.json"
}

# The same with a tokenizer of its 128 ids (see tests/cli/toy).
model_with_tokenizer() {
    model "$@"
    cp "$here/toy/tokenizer.json" "$here/toy/tokenizer_config.json" "$1/"
}

# Files below a folder with their sizes left out, sorted.
tree() {
    (cd "$1" && find . -type f | LC_ALL=C sort | sed 's|^\./|  |')
}

# One hash for all files below a folder.
hash_tree() {
    (cd "$1" && find . -type f | LC_ALL=C sort | xargs -d '\n' sha256sum | sha256sum | cut -c 1-64)
}

# The rows of docs/EXPORT.md's table that begins with "| HEAD" must be those of a file.
docs_table() { # HEAD FILE
    sed -n "/^| $1/,/^\$/p" "$top/docs/EXPORT.md" | grep '^| [a-z]' | sed 1d |
        diff - "$2" >said || { echo "docs/EXPORT.md has another table:"; cat said; }
}

# What an HTML file opens and does not close in its order.
tags() { # FILE
    tr -d '\n' <"$1" | sed 's/<!DOCTYPE html>//; s/</\n</g' | awk '/^</ {
        name = $0; sub(/^<\/?/, "", name); sub(/[ >\/].*/, "", name)
        tag = $0; sub(/>.*/, ">", tag)
        if (tag ~ /\/>$/) next
        if (tag !~ /^<\//) { open[++n] = name; next }
        if (n == 0 || open[n--] != name) { print "unlike: " $0; exit }
    } END { print n + 0 " left open" }'
}

# A program of this case, in bin/.
program() { # NAME SCRIPT
    mkdir -p bin
    printf '#!/bin/sh\n%s\n' "$2" >"bin/$1"
    chmod +x "bin/$1"
}

skip() {
    echo "$*"
    exit 77
}

# COUNT processes that share one run, without mpirun: rank 0's stdout, then all errors and
# each one's status.  shared COUNT ARGS...
shared() {
    n=$1
    shift
    i=$n
    while [ $((i -= 1)) -ge 0 ]; do
        (
            DRUPE_RANKS="$i/$n/$PWD/.socket" "$drupe" "$@" >".out-$i" 2>".err-$i"
            echo $? >".rc-$i"
        ) &
    done
    wait
    i=0
    while [ $i -lt "$n" ]; do
        cat ".out-$i" ".err-$i"
        rc=$(cat ".rc-$i")
        [ "$rc" = 0 ] || echo "[rank $i: exit $rc]"
        i=$((i + 1))
    done | sed "s|$PWD/||g; s|$top|TOP|g"
    rm -f .out-* .err-* .rc-*
}

# Whether two lists of losses are near: near A.json B.json
near() {
    for f in "$1" "$2"; do
        tr -d ' \n' <"$f" | sed 's/.*"losses":\[\([^]]*\)\].*/\1/' | tr , '\n' >"$f.list"
    done
    paste "$1.list" "$2.list" | awk '{ d = $1 - $2; if (d < 0) d = -d; if (d > most) most = d }
        END { print (NR > 1 && most < 1e-6 ? "the same losses" : "other losses: " NR " " most) }'
}
