# evaluate: texts and questions, Hugging Face and quantized models, limits, what is refused.
figures() { # that depend on the processor's kernels, in their last digits
    sed -E 's/(KL|perplexity) [0-9.e-]+/\1 N/; s/( is) [0-9.]+/\1 N/; s/ +-?[0-9]+\.[0-9]{4}/ N/g'
}
model_with_tokenizer m
"$drupe" quantize -m m --group_size 32 --no_evaluate -o q >/dev/null 2>&1
"$drupe" quantize -m m --algorithm awq --group_size 32 --max_samples 4 --no_evaluate -o awq \
    >/dev/null 2>&1
# two threads or one, the same bytes
try evaluate -m q --reference_model m --threads 1 --max_samples 4 | figures
"$drupe" evaluate -m q --reference_model m --threads 2 --max_samples 4 >two
"$drupe" evaluate -m q --reference_model m --threads 1 --max_samples 4 | cmp - two
try evaluate -m m --max_samples 2 --max_seq_len 32 | figures
# quantize's own table says the same of the same text
"$drupe" quantize -m m --group_size 32 -o q2 >out 2>err
"$drupe" evaluate -m q/model --reference_model m >out2
for row in KL 'same top' '  one by'; do
    [ "$(grep "^$row" out)" = "$(grep "^$row" out2)" ] || echo "other figures: $row"
done
"$drupe" evaluate -m awq --reference_model m --max_samples 1 --json >out.json
"$json" keys <out.json
echo '{"text": "the other path"}' >a.jsonl
echo '{"prompt": "is there"}' >>b.jsonl
try evaluate -m m --data_name json --data_files a.jsonl --max_seq_len 4 | figures
try evaluate -m m --data_name json --data_files b.jsonl --max_seq_len 4
# what is lost of the data
{ echo '{"text": ""}'; echo '{"text": "is"}'; echo '{"text": "the other path is there"}'; } >c.jsonl
for strategy in join line-by-line; do
    try evaluate -m m --data_name json --data_files c.jsonl --max_seq_len 4 --max_samples 9 \
        --strategy $strategy | figures
    "$drupe" evaluate -m m --data_name json --data_files c.jsonl --max_seq_len 4 \
        --strategy $strategy --json 2>err | grep -A 11 '"data": '
done
try evaluate -m m --data_name json --data_files c.jsonl --max_seq_len 64 --strategy line-by-line
# limits
"$drupe" evaluate -m q --reference_model m --max_samples 1 --max_kl 9 --max_perplexity 1e6 |
    grep ^limit | figures
try evaluate -m m --max_samples 2 --max_seq_len 32 --max_perplexity 2 | figures
try evaluate -m m --reference_model m --max_samples 1 --max_kl 1e-9 | grep limit
try quantize -m m --group_size 32 --max_kl 1e-7 -o kept | figures
ls kept/drupe.json
try quantize -m m --group_size 32 --max_kl 9 -o kept | grep limit | cut -c 1-18
try quantize -m m --no_evaluate --max_kl 1 -o no
try quantize -m m --dry_run --max_kl 1 -o no
# questions
cat >t.jsonl <<'END'
{"context": "a", "choices": ["b", "c", "the other one"], "answer": 0}
{"question": "the path", "choices": ["is", "of"], "answer": "B"}
END
try evaluate -m q --reference_model m --task t.jsonl
try evaluate -m m --task t.jsonl --max_samples 1
try evaluate -m m --task t.jsonl --max_seq_len 1
try evaluate -m m --task none.jsonl
echo '{"context": "a", "choices": [], "answer": 0}' >>t.jsonl
try evaluate -m m --task t.jsonl
try evaluate -m m --task t.jsonl --data_files a.jsonl
try evaluate -m m --task t.jsonl --max_perplexity 2
# what is refused
try evaluate -m nothing
try evaluate -m m --reference_model ./nothing
try evaluate
try evaluate -m m --max_kl 0.1
try evaluate -m m --max_kl -1 --reference_model m
model_with_tokenizer other
sed -i 's/"q": 84/"Q1": 84/' other/tokenizer.json
try evaluate -m other --reference_model m
model bare
try evaluate -m bare
try evaluate -m bare --reference_model m --max_samples 1 | tail -n 1
mkdir ad
cp "$top"/tests/golden/adapters/lora/* ad/ 2>/dev/null
try evaluate -m ad
try evaluate -m m --max_new_tokens 4
echo "{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": 1}" >n.jsonl
try evaluate -m m --task n.jsonl --max_new_tokens 4
