# An adapter from what quantizing did: at full rank all of it, whatever was folded into norms
# and rows; at a low rank a part.
model_with_tokenizer m
small="--max_seq_len 32 --max_samples 8"
kl() { # of the last run, below 1e-5 or as it is
    awk '/^KL after/ { print ($4 < 1e-5 ? "KL after: none" : "KL after: some") }' out
}
for how in rtn awq gptq best; do
    text=$small
    [ $how = rtn ] && text=
    # shellcheck disable=SC2086
    "$drupe" quantize -m m --algorithm $how --group_size 16 $text --no_evaluate -o $how \
        >out 2>&1 || cat out
    # shellcheck disable=SC2086
    "$drupe" recover -m $how --reference_model m --rank 4096 --upstream 0 $small -o full-$how \
        >out 2>&1 || cat out
    echo "$how"
    kl
done
# shellcheck disable=SC2086
"$drupe" recover -m rtn --reference_model m --rank 4 $small -o four >out 2>&1 || cat out
kl
awk '/^won back/ { print ($3 > 20 ? "a part is won back" : $0) }' out
tree four
"$drupe" evaluate -m four --reference_model m >whole 2>&1 || cat whole
"$drupe" evaluate -m rtn -a four/adapter --reference_model m >apart 2>&1 || cat apart
[ "$(grep ^KL whole)" = "$(grep ^KL apart)" ] || cat whole apart
[ "$(awk '/^KL/ { print $3 }' whole)" = "$(awk '/^KL after/ { print $4 }' out)" ] || cat whole out
# Merged it is the same model.
"$drupe" convert -m rtn -a four/adapter -o merged >out 2>&1 || cat out
"$drupe" evaluate -m merged --reference_model m | awk '/^KL/ { print $3 }' >a
awk '/^KL/ { print $3 }' whole | paste - a |
    awk '{ print ($1 - $2 < 1e-4 && $2 - $1 < 1e-4 ? "merged: the same KL" : $0) }'
# Training goes on from it, here towards the original.
# shellcheck disable=SC2086
"$drupe" recover -m rtn --reference_model m --rank 4 $small --steps 3 -o steps >out 2>&1 ||
    cat out
# Every option changes the adapter, the same options do not.
hash() { # FOLDER
    sha256sum <"$1/adapter/adapter_model.safetensors"
}
# shellcheck disable=SC2086
for more in "" "--rank 3" "--upstream 0" "--steps 3" "--steps 3 --learning_rate 0.01" \
    "--max_samples 4" "--threads 1"; do
    "$drupe" recover -m rtn --reference_model m --rank 4 $small $more --no_evaluate -o x \
        >out 2>&1 || cat out
    hash x
done | sort | uniq -c | awk '{ print $1 }' | sort | tr '\n' ' '
echo
# Refusals.
try recover -m rtn
try recover -m m --reference_model m --max_samples 2 --max_seq_len 16
try recover -m rtn --reference_model "$tiny/phi3" --max_samples 2 --max_seq_len 16
try recover -m rtn --reference_model m -a x
try recover -m rtn --reference_model m --learning_rate 0.1
try recover -m rtn --reference_model m --no_evaluate --max_kl 1
try recover -m rtn --reference_model m --rank 0
try evaluate -m rtn -a "$top/tests/golden/adapters/dora_phi3"
