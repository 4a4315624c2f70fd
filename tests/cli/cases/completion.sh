# Completion through bash itself, and what all three scripts must name.
command -v bash >/dev/null || { echo "no bash"; exit 77; }
try completion
try completion tcsh
for shell in bash zsh fish; do
    "$drupe" completion $shell >script.$shell || echo "no script for $shell"
done
bash -n script.bash || echo "bash does not read its script"

complete() { # words of a command line, the last one is completed
    echo "\$ drupe $*<TAB>"
    bash --norc -c '. ./script.bash
        COMP_WORDS=(drupe "$@")
        COMP_CWORD=$#
        _drupe
        printf "  %s\n" "${COMPREPLY[@]}"' bash "$@"
}
complete quan
complete con
complete quantize --max
complete quantize --algorithm ''
complete quantize --algorithm = g
complete quantize --algorithm =
complete quantize -t text-generation-
complete auto-opt --use-ort
complete doctor ''
complete auto-opt --int4-algo-config k_quant_
complete quantize --data_files x
complete quantize --group_size 1
complete completion ''
complete help do

# Every verb and every option of --help is in each script.
missing=0
"$drupe" --help | sed -n 's/^  \([a-z-]*\)  *.*/\1/p' >verbs
[ "$(wc -l <verbs)" -ge 12 ] || echo "too few verbs"
while read -r verb; do
    "$drupe" "$verb" --help | sed -n 's/^ \{2,6\}\(-[a-z], \)\{0,1\}--\([a-z0-9_]*\).*/\2/p' |
        sort -u >options
    [ -s options ] || echo "$verb: no options"
    while read -r option; do
        grep -q "^    $verb) words=.* --$option[ \"]" script.bash &&
            awk -v v="    $verb) list=" 'index($0, v) == 1 { p = 1; print; next }
                p && /^        / { print; next } { p = 0 }' script.zsh |
            grep -q -e "'--$option:" &&
            grep -q "from $verb' -l $option " script.fish || {
            echo "missing: $verb --$option"
            missing=$((missing + 1))
        }
    done <options
done <verbs
echo "$missing missing"
