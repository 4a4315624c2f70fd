# Runs that cannot fit are refused at once.
model_with_tokenizer m
data=$top/examples/lab/travel.jsonl
DRUPE_MEMORY_LIMIT=1M try quantize -m m --no_evaluate
DRUPE_DISK_LIMIT=1K try quantize -m m --no_evaluate
DRUPE_MEMORY_LIMIT=2M try finetune -m m -d json --data_files "$data" --text_field prompt
DRUPE_MEMORY_LIMIT=1M try auto-opt -m m
DRUPE_DISK_LIMIT=1M try auto-opt -m m
DRUPE_MEMORY_LIMIT=much try auto-opt -m m
ls
