# Training data that is wrong: the file, the line, the column.
model_with_tokenizer m
run() { try finetune -m m -d json --max_steps 1 --max_seq_len 32 --log_level 4 "$@"; }
printf '{"p": "a"}\n{"p": "b"\n' >line.jsonl
run --data_files line.jsonl --text_field p
printf '{"prompt": "a"}\n' >column.jsonl
run --data_files column.jsonl --text_template '{promt}'
run --data_files column.jsonl --text_field response
run --data_files column.jsonl
run --data_files column.jsonl --text_template '{prompt'
run --data_files column.jsonl --text_template '{prompt!r}'
run --data_files column.jsonl --text_template '\x4'
run --data_files column.jsonl --use_chat_template
run --data_files column.jsonl --text_field prompt
printf 'PAR1xxxxPAR1' >x.parquet
run --data_files x.parquet --text_field p
: >empty.jsonl
run --data_files empty.jsonl --text_field p
run --data_files column.jsonl,,column.jsonl --text_field prompt
run --data_files . --text_field p
try finetune -m m -d text --data_files column.jsonl --text_field prompt
ls
