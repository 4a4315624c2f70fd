# Model folders that are broken, each in one way: file, place and value are named.
model truncated
head -c 50000 "$tiny/llama/model.safetensors" >truncated/model.safetensors
model header
head -c 100 "$tiny/llama/model.safetensors" >header/model.safetensors
model nothing
: >nothing/model.safetensors
model absent
rm absent/model.safetensors
model comma 's/"hidden_size": 32,/"hidden_size": 32/'
model nokey '/hidden_size/d'
model text 's/"hidden_size": 32/"hidden_size": "wide"/'
model wide 's/"hidden_size": 32/"hidden_size": 48/'
model negative 's/"num_hidden_layers": 2/"num_hidden_layers": -2/'
model more 's/"num_hidden_layers": 2/"num_hidden_layers": 3/'
model gpt 's/LlamaForCausalLM/GPTNeoXForCausalLM/; s/"llama"/"gpt_neox"/'
model act 's/"silu"/"relu2"/'
model rope 's/"rope_scaling": null/"rope_scaling": {"rope_type": "mrope", "factor": 2.0}/'
model list 's/^{/[{/; s/^}/}]/'
for m in truncated header nothing absent comma nokey text wide negative more gpt act rope list; do
    try inspect -m $m
    try quantize -m $m --no_evaluate >/dev/null
    [ $status = 1 ] || echo "quantize: exit $status"
    try auto-opt -m $m >/dev/null
    [ $status = 1 ] || echo "auto-opt: exit $status"
done
printf 'GGUF\003\0\0\0' >short.gguf
try inspect -m short.gguf
printf 'NOPE' >not.gguf
try auto-opt -m not.gguf
mkdir pickled
cp "$tiny/llama/config.json" pickled/
printf 'PK\003\004' >pickled/pytorch_model.bin
try inspect -m pickled
cp "$tiny/../hf/torch/legacy.bin" pickled/pytorch_model.bin
try inspect -m pickled
ls | LC_ALL=C sort | tr '\n' ' '
