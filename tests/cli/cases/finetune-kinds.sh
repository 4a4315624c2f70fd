# Every kind of adapter: what it leaves, that it goes on from its own result, and not from
# another kind's; a packed base that is not to be rounded again.
model_with_tokenizer m
cp "$top/examples/lab/travel.jsonl" data.jsonl
finetune() {
    "$drupe" finetune -d json --data_files data.jsonl --text_field prompt \
        --max_seq_len 16 --max_samples 16 --max_steps 2 "$@" >said 2>&1
    status=$?
    grep -e '^drupe: [^w]' -e '^  hint' said
    return $status
}
for kind in lora qlora dora loftq loha lokr; do
    echo "== $kind"
    finetune -m m --method $kind --lora_r 4 -o $kind && ls $kind $kind/adapter
    grep -o -e '"peft_type": "[^"]*"' -e '"use_dora": [a-z]*' $kind/adapter/adapter_config.json
    [ $kind = loftq ] || finetune -m m --method $kind -a $kind/adapter -o on && echo "goes on"
done
finetune -m m --method dora -a lora/adapter -o on
finetune -m m --method lora -a dora/adapter -o on
# What is asked for beside -a is what the adapter is, or refused.
finetune -m m -a lora/adapter --lora_r 4 --lora_alpha 16 --target_modules v_proj,q_proj -o on &&
    echo "goes on as asked"
finetune -m m -a lora/adapter --lora_r 8 -o on
finetune -m m -a lora/adapter --lora_alpha 32 -o on
finetune -m m -a lora/adapter --use_rslora -o on
finetune -m m -a lora/adapter --target_modules q_proj -o on
finetune -m m -a lora/adapter --target_modules all-linear -o on
finetune -m m --method loha -a loha/adapter --lora_r 8 -o on
"$drupe" quantize -m m --algorithm rtn --group_size 16 --no_evaluate -o q >said 2>&1 || cat said
finetune -m q/model --method qlora -o on
finetune -m m --method loftq -a lora/adapter -o on
finetune -m loftq/model --method lora -a loftq/adapter -o on && echo "goes on over its own base"
finetune -m m --init_lora_weights pissa --lora_r 4 -o pissa &&
    grep -e '"r"' -e alpha pissa/adapter/adapter_config.json
finetune -m m --method dora --init_lora_weights pissa -o on
finetune -m m --init_lora_weights pissa --pissa_niter 4 --lora_r 4 -o pissa4 &&
    grep -e '"r"' pissa4/adapter/adapter_config.json
finetune -m m --pissa_niter 4 -o on
finetune -m m --loftq_iter 3 -o on
finetune -m q/model --method dora --lora_r 4 -o on && echo "dora on a packed base"
finetune -m m --method loha --use_rslora -o on
"$drupe" inspect -m loha/adapter
"$drupe" inspect -m lokr/adapter
"$drupe" convert -m m -a loha/adapter --to safetensors -o merged >said 2>&1 || cat said
ls merged/model/model.safetensors
"$drupe" convert-adapters -a loha/adapter -o x.onnx_adapter 2>&1
finetune -m m --method doar -o on
