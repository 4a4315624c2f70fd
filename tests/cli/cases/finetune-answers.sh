# Loss on answers only: what counts is said, and the adapter is another one.
model_with_tokenizer m
cat >rows.jsonl <<'END'
{"prompt": "the the the", "response": "the a the"}
{"prompt": "a b c d e f g h", "response": "the b"}
{"prompt": "the x", "response": "a a a a a"}
END
sed 's/.*"prompt": \("[^"]*"\), "response": \("[^"]*"\).*/{"messages": [{"role": "user", "content": \1}, {"role": "assistant", "content": \2}]}/' \
    rows.jsonl >chat.jsonl
finetune() {
    "$drupe" finetune -m m -d json --max_seq_len 24 --strategy line-by-line --max_steps 2 \
        --log_level 1 "$@" >said 2>&1 ||
        { sed -n '/^drupe: no token/p; /^drupe: compl/p' said; return; }
    grep -e '^answers' -e '^beware' -e warning said
}
finetune --data_files rows.jsonl --text_template '{prompt}: {response}' -o all
finetune --data_files rows.jsonl --text_template '{prompt}: {response}' \
    --completion_only_loss -o answers
cmp -s all/adapter/adapter_model.safetensors answers/adapter/adapter_model.safetensors ||
    echo "another adapter"
grep -A 1 completion answers/drupe.json
finetune --data_files rows.jsonl --use_chat_template --completion_only_loss -o pairs
finetune --data_files chat.jsonl --use_chat_template --completion_only_loss -o chat
cmp pairs/adapter/adapter_model.safetensors chat/adapter/adapter_model.safetensors &&
    echo "the same adapter"
finetune --data_files rows.jsonl --text_template '{prompt}: {response}' --max_seq_len 11 \
    --completion_only_loss -o cut
finetune --data_files rows.jsonl --text_template '{prompt}: {response}' --max_seq_len 2 \
    --completion_only_loss -o none
finetune --data_files rows.jsonl --text_field prompt --completion_only_loss -o none
ls -d none 2>/dev/null
echo "- side by side"
finetune --data_files rows.jsonl --text_template '{prompt}: {response}' \
    --completion_only_loss --strategy packing -o packed
grep -e '^blocks' -e '^tokens' said
try finetune -m m -d json --data_files rows.jsonl --text_field prompt --packing -o none
try quantize -m m --algorithm gptq -d json --data_files rows.jsonl --text_field prompt \
    --strategy packing -o none
