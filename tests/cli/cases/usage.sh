# Options that are wrong, in each way, for each verb; nothing is begun.
for verb in quantize finetune auto-opt capture-onnx-graph inspect; do
    try $verb
done
try tokenize --text x
try generate -p x
try generate -m x
try quantize -m
try quantize -m x --algorithm
try quantize --algorithm -m x
try quantize -m x stray
try quantize -m x --
try quantize -m x -q
try quantize -m x --algoritm awq
try quantize -m x --algorithm spinquant
try quantize -m x --algorithm=agq
try quantize -m x --precision int8
try quantize -m x --group_size many
try quantize -m x --group_size 0
try quantize -m x --group_size 100
try quantize -m x --group_size 2048
try quantize -m x --symmetric=perhaps
try quantize -m x --threads -1
try quantize -m x --log_level 5
try quantize -m x --log_level loud
try quantize -m x --exact
try quantize -m x -o ''
try quantize -m ''
try quantize -m x -a adapter
try quantize -m x --max_samples 4
try quantize -m x -d json
try quantize -m x --algorithm awq -d json
try quantize -m x --algorithm awq -d csv --data_files y.csv
try quantize -m x --algorithm awq -d Salesforce/wikitext
try quantize -m x --algorithm awq --text_field a
try finetune -m x
try finetune -m x -d json --data_files none.jsonl --text_field a
try finetune -m x -d json --data_files 'a*.jsonl'
try finetune -m x -d json --data_files a --method doar
try finetune -m x -d json --data_files a --torch_dtype bfloat16
try finetune -m x -d json --data_files a --lora_r 0
try finetune -m x -d json --data_files a --lora_alpha x
try finetune -m x -d json --data_files a --lora_dropout 1
try finetune -m x -d json --data_files a --lr_scheduler_type step
try finetune -m x -d json --data_files a --learning_rate nan
try finetune -m x -d json --data_files a --max_steps 0
try finetune -m x -d json --data_files a --max_steps 5 --num_train_epochs 1
try finetune -m x -d json --data_files a --warmup_steps 5
try finetune -m x -d json --data_files a --text_field b --text_template '{b}'
try finetune -m x -d json --data_files a --use_chat_template --add_special_tokens
try auto-opt -m x --precision fp16
try auto-opt -m x --device tpu
try auto-opt -m x --device npu
try auto-opt -m x --device gpu --provider cpu
try auto-opt -m x --provider CUDAExecutionProvder
try auto-opt -m x --provider OpenVINOExecutionProvider
try auto-opt -m x --provider cuda --precision fp32
try auto-opt -m x --precision int4 --extra_mb_options block_size=48
try auto-opt -m x --precision int4 --extra_mb_options fuse_qkv=true
try auto-opt -m x --int4_block_size 48
try auto-opt -m x --int4_block_size 512
try auto-opt -m x --int4_accuracy_level 2
try auto-opt -m x --int4_accuracy_level 5
try auto-opt -m x --precision fp32 --int4_accuracy_level 1
try auto-opt -m x --min_ort_version new
try auto-opt -m x --min_ort_version 1.16
try auto-opt -m x --max_length 100
try auto-opt -m x --use_model_builder false
try auto-opt -m x -d json
try auto-opt -m x -a 'a=b,a=c'
try auto-opt -m x -a 'a,b'
try auto-opt -m x -a 'a/b=c'
try auto-opt -m x -a none
try capture-onnx-graph -m x --target_opset 20
try capture-onnx-graph -m x --conversion_device gpu --precision int2
try generate -m x -p y --temperature 0.5
try generate -m x -p y --seed 3
try generate -m x -p y --system z
try generate -m x -p y --top_p 2
try tokenize -m x
try tokenize -m x --text a --file b
try tokenize -m x --text a --text_field b
try doctor now
ls
