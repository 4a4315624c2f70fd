# Adapters that are not there, not whole, or not for this model.
model m
ok=$top/tests/golden/train/end
mkdir noweights noconfig
cp "$ok/adapter_config.json" noweights/
cp "$ok/adapter_model.safetensors" noconfig/
edit() { # NAME SED
    mkdir -p "$1"
    cp "$ok/adapter_model.safetensors" "$1/"
    sed "$2" "$ok/adapter_config.json" >"$1/adapter_config.json"
}
edit dora 's/"use_dora": false/"use_dora": true/'
edit loha 's/"LORA"/"LOHA"/'
edit bias 's/"bias": "none"/"bias": "all"/'
edit saved 's/"modules_to_save": null/"modules_to_save": ["lm_head"]/'
edit rank 's/"r": 4/"r": 8/'
edit json 's/"r": 4,/"r": 4/'
mkdir truncated
cp "$ok/adapter_config.json" truncated/
head -c 3000 "$ok/adapter_model.safetensors" >truncated/adapter_model.safetensors
for a in none noweights noconfig dora loha bias saved rank json truncated; do
    try auto-opt -m m -a $a
done
try inspect -m dora
model other 's/"num_attention_heads": 4/"num_attention_heads": 4/'
try auto-opt -m "$tiny/phi3" -a "$ok"
try auto-opt -m m -a "x=$ok" --precision int4 >/dev/null 2>&1
tree auto-opt-output
