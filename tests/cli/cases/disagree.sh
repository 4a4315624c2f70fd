# Parts of a folder that disagree: an index that points elsewhere, a shard that is missing,
# a vocabulary of another size.
model a
index() { # FILE: an index that says that it has the embedding
    mkdir -p b
    cp a/config.json b/
    echo "{\"weight_map\": {\"model.embed_tokens.weight\": \"$1\"}}" \
        >b/model.safetensors.index.json
}
for file in ../a/model.safetensors /etc/hostname .. "" model-00001-of-00002.safetensors; do
    index "$file"
    try inspect -m b
    try auto-opt -m b -o none
done
cp -r a c
sed -i 's/"vocab_size": [0-9]*/"vocab_size": 77/' c/config.json
try auto-opt -m c -o none
cp -r a d
cat >d/tokenizer.json <<'JSON'
{"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"},
 "model": {"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "far": 5000}}}
JSON
try quantize -m d --algorithm rtn --no_evaluate -o r
try quantize -m d --algorithm gptq --no_evaluate -o r
ls
