# QuaRot: by its verb, before a quantizer in a workflow, and what is refused.
model_with_tokenizer m
try quantize -m m --algorithm quarot --no_evaluate -o rotated
tree rotated
grep -o '"tie_word_embeddings": [a-z]*' m/config.json rotated/model/config.json
try quantize -m m --algorithm quarot --implementation quarot --random_seed 3 --no_evaluate -o third
cmp -s rotated/model/model.safetensors third/model/model.safetensors || echo others
try quantize -m m --algorithm quarot --random_seed 3 --dry_run
# the function is the same: KL to the original is nothing; layers are not compared
try quantize -m m --algorithm quarot --max_kl 0.001 -o judged | grep -E '^(KL|judged|report)'
grep -c 'Error by layer' judged/report.html
# a quantizer on it, in two runs and in one
"$drupe" quantize -m rotated --algorithm rtn --group_size 16 --no_evaluate -o two >said 2>&1 || cat said
cat >flow.json <<'END'
{"input_model": {"type": "HfModel", "model_path": "m"},
 "passes": {"turn": {"type": "QuaRot", "rotate_mode": "hadamard"},
            "round": {"type": "Rtn", "group_size": 16}}, "output_dir": "one"}
END
"$drupe" run --config flow.json >said 2>&1 || cat said
diff -r one/model two/model && echo same
"$drupe" auto-opt -m one --precision int4 --no_check -o graph >said 2>&1 || cat said
tree graph
# refused
try quantize -m m --algorithm quarot --precision int4
try quantize -m m --algorithm quarot --group_size 32
try quantize -m m --algorithm quarot -d text
try quantize -m m --implementation quarot
try quantize -m m --algorithm quarot --implementation olive
try quantize -m two --algorithm quarot -o no
try auto-opt -m m --algorithm quarot --precision int4
try optimize -m m --algorithm quarot --precision int4
try run-pass --pass_name QuaRot --pass_config '{"rotate_mode": "haar"}' -m m
ls
