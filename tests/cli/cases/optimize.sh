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
try optimize -m m --provider QNNExecutionProvider
try optimize -m m --device npu
try optimize -m m --modality image
for flag in act_precision num_split memory dim_param dim_value use_qdq_format surgeries \
    enable_aot qnn_env_path extra_mb_options; do
    try optimize -m m --$flag x
done
