# Rows that a training cannot use, and rows that it cuts: the row, the column, the count.
model_with_tokenizer m
finetune() {
    "$drupe" finetune -m m -d json --data_files rows.jsonl --max_steps 1 --max_seq_len 32 -o out \
        "$@" 2>&1 | grep -e drupe: -e hint -e rows.jsonl -e '^steps'
}
pair() { finetune --text_template '{prompt} {response}' "$@"; }
printf '{"prompt": "a", "response": "x"}\n{"prompt": "b", "answer": "y"}\n' >rows.jsonl
pair
finetune --text_field response
printf '{"prompt": 3, "response": true}\n{"prompt": ["a"], "response": "x"}\n' >rows.jsonl
pair
printf '3\n' >rows.jsonl
pair
printf '["a", "b"]\n' >rows.jsonl
pair
printf '{"messages": [{"role": "user", "content": 3}]}\n' >rows.jsonl
finetune --use_chat_template
printf '{"messages": "a"}\n' >rows.jsonl
finetune --use_chat_template
printf '{"prompt": "a", "response": {"text": "x"}}\n' >rows.jsonl
finetune --use_chat_template
: >rows.jsonl
pair
printf '{"prompt": ""}\n{"prompt": ""}\n' >rows.jsonl
finetune --text_field prompt
echo "- one row of 3,000 tokens"
awk 'BEGIN { printf "{\"prompt\": \""; for (i = 0; i < 1500; i++) printf "a "; print "\"}" }' >rows.jsonl
finetune --text_field prompt
finetune --text_field prompt --strategy line-by-line
finetune --text_field prompt --max_seq_len 4000
ls -d out
