# Text from an exported model, base and adapter.
[ -e "$DRUPE_LIB_PATH/libonnxruntime-genai.so" ] || skip "no onnxruntime-genai here"
model_with_tokenizer m
"$drupe" auto-opt -m m -a "travel=$top/tests/golden/train/end" --precision int4 \
    --use_ort_genai --no_check -o onnx >/dev/null 2>err || cat err
gen() { "$drupe" generate -m onnx -p 'the cat' --max_new_tokens 8 "$@"; }
gen >base 2>err
echo "base: $? $(wc -l <base)"
gen >again 2>err
cmp base again
gen --json 2>err | sed -n 's/^  "\([a-z_]*\)": .*/\1/p'
gen --json 2>err | sed -n '/"ids"/,/\]/p' | grep -c '^    [0-9]'
gen -a travel --json 2>err | sed -n '/"ids"/,/\]/p' >a
gen -a onnx/model/travel.onnx_adapter --json 2>err | sed -n '/"ids"/,/\]/p' >b
cmp a b
gen --json 2>err | sed -n '/"ids"/,/\]/p' >c
cmp -s a c && echo "the adapter changes nothing"
gen --chat --system 'the' --json 2>err | grep prompt_tokens
gen --chat --json 2>err | grep prompt_tokens
gen --log_level 1 2>&1 >/dev/null | grep -c 'tokens/s'
try generate -m onnx -p x -a nobody
try generate -m m -p x
"$drupe" generate -m onnx/model -p 'the' --max_length 6 --json 2>err | grep new_tokens
"$drupe" generate -m onnx -p 'the' --do_sample --seed 3 --max_new_tokens 8 >s1 2>err
"$drupe" generate -m onnx -p 'the' --do_sample --seed 3 --max_new_tokens 8 >s2 2>err
cmp s1 s2
# a text begins as its tokenizer begins one, once; a chat as its template says
prompt() { "$drupe" generate -m onnx --max_new_tokens 1 --json "$@" 2>err | grep prompt_tokens; }
prompt -p 'the cat'
step='{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}'
begin='{"type": "TemplateProcessing", "single": ['$step'], "pair": ['$step'],'
begin=$begin' "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}'
sed -i "s#\"post_processor\": null#\"post_processor\": $begin#" onnx/model/tokenizer.json
prompt -p 'the cat'
prompt -p '<s>the cat'
prompt --chat -p 'the cat'
