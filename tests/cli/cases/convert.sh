# A model in another form: plain safetensors, GGUF; what is refused.
model_with_tokenizer m
try convert -m m --to gguf -o gguf
tree gguf
try inspect -m gguf | grep -E '^\$|made_by|kind|weights|tensors|tied'
try convert -m gguf -o back
tree back
try convert -m m -o half --outtype f16
grep dtype half/model/config.json
try convert -m m --to gguf --outtype q8_0 --gguf_file_name tiny.gguf -o q8
try inspect -m q8/model/tiny.gguf | grep -E '^\$|weights'
# Packed weights keep their codes, or become plain.
try quantize -m m --algorithm rtn --group_size 32 --no_evaluate -o four >/dev/null
try convert -m four --to gguf -o four-gguf
try convert -m four -o four-plain
# The bytes do not change from run to run.
try convert -m m --to gguf -o again >/dev/null
[ "$(hash_tree gguf/model)" = "$(hash_tree again/model)" ] || echo "other bytes"
# Refusals.
try convert -m m --outtype q8_0
try convert -m m --gguf_file_name x.gguf
try convert -m m --to gguf --gguf_file_name ../x.gguf
try convert -m m --to gguf --gguf_file_name model.bin
try convert -m m --to onnx
# An adapter in the weights: plain, as GGUF, on a packed base; of another model.
adapters=$top/tests/golden/adapters
try convert -m m -a "$adapters/lora" -o merged
tree merged
try convert -m m -a "$adapters/dora" --to gguf -o merged-gguf
try convert -m four -a "$adapters/lora" -o four-merged
try convert -m m -a a="$adapters/lora",b="$adapters/dora" -o two
try convert -m m -a "$adapters/dora_phi3" -o other
try convert -m m -a nowhere -o other
try run-pass --pass-name MergeAdapterWeights -m m -o none
model bare
try convert -m bare --to gguf
