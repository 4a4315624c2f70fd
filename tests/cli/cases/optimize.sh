# optimize: its steps by precision and input, and each of Olive's options.
model_with_tokenizer m
ok=$top/tests/golden/adapters/lora
steps() { sed -n 's/^ *"type": "\([A-Z][A-Za-z]*\)",*$/    \1/p' "$1/drupe.json"; }
try optimize -m m --no_check -o plain
steps plain
try optimize -m m --no_check --no_evaluate --precision int4 --block_size 16 -o int4 |
    grep -v '^bytes'
steps int4
grep -A 3 -e group_size -e '"sym"' int4/drupe.json | grep -e group_size -e '"sym"'
# packed already: the export alone
try quantize -m m --algorithm rtn --group_size 16 --no_evaluate -o rtn >/dev/null
try optimize -m rtn --no_check --precision int4 --log_level 1 -o packed |
    grep -v -e 'needs about' -e ' layers in '
steps packed
# with an adapter: the base stays as it was trained on
try optimize -m m -a "$ok" --no_check --precision uint4 --block_size 64 --log_level 1 -o ad |
    grep -v -e 'needs about' -e ' layers in '
steps ad
grep -e int4_block -e int4_is ad/drupe.json
# the plan, and the plan beside the result
try optimize -m m --precision int4 --block_size -1 --dry_run -o dry
try optimize -m m --no_check --save_config_file -o saved >/dev/null
cat saved/config.json
try optimize -m m -o dry --dry_run --json
ls
# refused
try optimize -m m --exporter dynamo_exporter
try optimize -m m --block_size 64
try optimize -m m --precision int4 --block_size 48
try optimize -m m --precision int9
try optimize -m m --modality image
for flag in num_split memory surgeries enable_aot qnn_env_path; do
    try optimize -m m --$flag x
done
# precisions and providers: the plan of each
plan() {
    echo "\$ plan $*"
    "$drupe" optimize -m m --dry_run -o dry "$@" >plan.json 2>plan.err || echo "[exit $?]"
    sed 's/^/    /' plan.err
    sed -n '/"passes"/,/^  }/p' plan.json
}
for precision in fp16 bf16 int8 uint8 int16 uint16 int32 uint32 fp8 fp4 nf4; do
    plan --precision $precision
done
for provider in CPU CUDA Dml WebGpu NvTensorRTRTX QNN OpenVINO VitisAI; do
    plan --provider ${provider}ExecutionProvider
    plan --provider $provider --precision int4 >short
    plan --provider ${provider}ExecutionProvider --precision int4 | sed 1d >long
    sed 1d short | diff - long | grep '^[<>]'
done
plan --provider Nonsense
plan --device gpu
plan --provider qnn --device gpu
plan --provider qnn --precision int4
plan --provider qnn --precision int4 --block_size 32
plan --provider qnn --precision fp16
plan --provider qnn --precision fp32
plan --provider openvino --precision bf16
plan --provider openvino --precision int4 --block_size 64
plan --provider vitisai --precision uint4
plan --provider qnn --precision int8 --act_precision uint8 --dim_param batch_size,sequence_length \
    --dim_value 1,32
plan --provider openvino --use_qdq_format --precision int8 --act_precision uint16
plan --provider openvino --act_precision uint16
plan --provider qnn --act_precision int8
plan --provider qnn --extra_mb_options block_size=64
plan --act_precision uint8
plan --dim_param batch_size --dim_value 1
plan --precision int4 --use_qdq_format --extra_mb_options is_symmetric=false
plan --precision int4 --use_qdq_format --extra_mb_options prune_lm_head=true
plan --extra_mb_options nonsense=1
# and the graphs
try optimize -m m --no_check --precision fp16 --provider cuda -o fp16 | grep -v '^bytes'
try optimize -m m --no_check --no_evaluate --precision int4 --provider qnn \
    --dim_param batch_size,sequence_length,total_sequence_length --dim_value 1,8,32 -o qnn |
    grep -v '^bytes'
steps qnn
