# Checkpoints of other tools: what inspect says, and what becomes of them.
hf=$top/tests/golden/hf
for f in ct_group ct_channel nf4_double gptq_act; do
    try inspect -m "$hf/formats/$f" | grep -E '^\$|weights|quantization|exit'
done
try auto-opt -m "$hf/formats/gptq_act" --no_check -o act | grep -v '^model  '
try quantize -m "$hf/formats/ct_group" -o again
try quantize -m "$hf/formats/nf4" --algorithm rtn --group_size 16 --no_evaluate -o again | grep -v '^model  '
try inspect -m "$hf/torch" | grep -E '^\$|weights|exit'
try inspect -m "$hf/torch/training.bin"
