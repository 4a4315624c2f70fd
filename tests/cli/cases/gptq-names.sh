# GptqModel and GptqQuantizer are Gptq without what drupe adds to it: the same weights.
model_with_tokenizer model
data='data_configs: [{name: d, pre_process_data_config: {max_seq_len: 32, max_samples: 4}}]'
quantize() { # OUTPUT PASS
    printf 'passes: {q: {%s, data_config: d}}\n%s\n' "$2" "$data" >q.yaml
    "$drupe" run --config q.yaml -m model -o "$1" >said 2>&1 || cat said
}
plain='prescale: false, minmax: true, bias_correction: false'
quantize a 'type: GptqModel, group_size: 16'
quantize b "type: Gptq, group_size: 16, sym: true, damp_percent: 0.05, $plain"
cmp a/model/model.safetensors b/model/model.safetensors && echo same
quantize c 'type: GptqQuantizer, group_size: 32, bits: 8, true_sequential: true'
quantize d "type: Gptq, group_size: 32, bits: 8, desc_act: false, $plain"
cmp c/model/model.safetensors d/model/model.safetensors && echo same
cmp -s a/model/model.safetensors c/model/model.safetensors || echo another
quantize e 'type: GptqModel, true_sequential: false'
quantize e 'type: GptqModel, rotation: hadamard'
quantize e 'type: GptqQuantizer, layers_block_name: model.layers'
[ -e e ] || echo nothing
