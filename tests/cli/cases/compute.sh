# Where drupe computes: a GPU that cannot be used is an error when it is named, and only then.
model_with_tokenizer m
mkdir lib
: >lib/libdrupe_cuda.so # no library
DRUPE_LIB_PATH=$PWD/lib
export DRUPE_LIB_PATH
quantize() {
    "$drupe" quantize -m m --algorithm rtn --no_evaluate "$@" >said 2>&1
    echo "exit $?"
    sed -n '/^drupe: /{s/cuda: .*/cuda: why/; p}' said
}
quantize --compute cuda -o none
ls -d none 2>/dev/null
quantize --compute auto -o auto
quantize --compute cpu -o cpu
cmp auto/model/model.safetensors cpu/model/model.safetensors && echo "the same bytes"
grep '"device"' auto/drupe.json
"$drupe" evaluate -m m --compute cuda 2>&1 | sed 's/cuda: .*/cuda: why/'
printf '{"text": "the a the b the"}\n' >rows.jsonl
"$drupe" finetune -m m -d json --data_files rows.jsonl --text_field text --torch_dtype bfloat16 \
    -o none 2>&1
"$drupe" finetune --method dora -m m -d json --data_files rows.jsonl --text_field text \
    --max_seq_len 8 --torch_dtype int8 -o none 2>&1
ls -d none 2>/dev/null
try quantize -m m --algorithm rtn --compute gpu -o none
