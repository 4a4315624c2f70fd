# Text in, ids or pieces out, in all forms.
model_with_tokenizer m
try tokenize -m m --text 'the cat'
try tokenize -m m --text ''
try tokenize -m m --text 'the <|end|>' --pieces
try tokenize -m m --text 'the <|end|>' --json
try tokenize -m m --text 'the <|end|>' --pieces --json
try tokenize -m m --text "line
line" --json
printf 'the\n\ncat' >text.txt
try tokenize -m m --file text.txt
try tokenize -m m --file text.txt --json
printf 'the' | try tokenize -m m --file -
printf '{"text": "a"}\n\n{"text": ""}\r\n"bare"\n{"text": "the", "x": 1}' >rows.jsonl
try tokenize -m m --jsonl rows.jsonl --json
try tokenize -m m --jsonl rows.jsonl --pieces
printf '\357\273\277{"p": "a"}\n' >bom.jsonl
try tokenize -m m --jsonl bom.jsonl --text_field p
try tokenize -m m --jsonl rows.jsonl --text_field p
printf '{"text": "a"}\n{"text": \n' >bad.jsonl
try tokenize -m m --jsonl bad.jsonl --json
printf '{"text": 3}\n' >type.jsonl
try tokenize -m m --jsonl type.jsonl
try tokenize -m m --file none.txt
"$drupe" tokenize -m m/ --text a --log_level 0
yes '{"text": "the the the the"}' | head -n 50000 >many.jsonl
"$drupe" tokenize -m m --jsonl many.jsonl --json | sort | uniq -c
