# Every flag of Olive 0.7 to 0.13 for these verbs is there, or is refused by its name with a
# reason and the nearest of ours.  A flag that is there is in the table of `drupe docs`.
"$drupe" docs >docs.md || exit 1

flags() { # VERB FLAG...
    verb=$1
    shift
    awk -v v="## $verb" '$0 == v { on = 1; next } /^## / { on = 0 }
        on && /^Options of Olive/ { on = 0 } on' docs.md >known.md
    for flag in "$@"; do
        name=$(echo "${flag#--}" | tr - _)
        if grep -q "\`--$name\`" known.md; then
            echo "$verb $flag"
        else
            "$drupe" "$verb" -m x "$flag" y >out 2>&1
            status=$?
            echo "$verb $flag [$status] $(head -n 1 out | cut -d ' ' -f 3-)"
            sed -n 's/^  hint: /    /p' out
        fi
    done
}

model='--model_name_or_path --task --trust_remote_code --adapter_path --model_variant
    --model_script --script_dir --output_path --test --test_metrics --test_llama_path
    --log_level --save_config_file --dry_run --disable_telemetry --account_name
    --container_name --is_generative_model --resource_group --workspace_name
    --keyvault_name --aml_compute'
data='--data_name --data_files --text_field --text_template --use_chat_template
    --max_seq_len --add_special_tokens --max_samples --batch_size --input_cols'
# shellcheck disable=SC2086
{
    flags quantize $model $data --subset --split --algorithm --precision --act_precision \
        --implementation --use_qdq_encoding --enable-qdq-encoding --quarot_rotate
    flags finetune $model $data --train_subset --train_split --eval_subset --eval_split \
        --method --lora_r --lora_alpha --target_modules --torch_dtype --max_steps \
        --learning_rate --per_device_train_batch_size --gradient_accumulation_steps \
        --num_train_epochs --lr_scheduler_type --warmup_ratio --warmup_steps \
        --weight_decay --adam_beta1 --adam_beta2 --adam_epsilon --max_grad_norm --seed \
        --logging_steps --bf16 --fp16 --optim --gradient_checkpointing --save_steps \
        --save_strategy --eval_strategy --eval_steps --report_to --output_dir \
        --resume_from_checkpoint --dataloader_num_workers --group_by_length \
        --per_device_eval_batch_size --data_seed --label_smoothing_factor --push_to_hub
    flags auto-opt $model --device --provider --providers_list --memory --data_name --split \
        --subset --input_cols --batch_size --precision --use_dynamo_exporter \
        --use_model_builder --use_qdq_encoding --dynamic-to-fixed-shape-dim-param \
        --dynamic-to-fixed-shape-dim-value --num-splits --cost-model \
        --mixed-precision-overrides-config --use_ort_genai --enable_search --seed
    flags capture-onnx-graph $model --conversion_device --use_dynamo_exporter \
        --use_model_builder --use_mobius_builder --fixed_param_dict --past_key_value_name \
        --torch_dtype --target_opset --precision --int4_block_size --int4_accuracy_level \
        --exclude_embeds --exclude_lm_head --enable_cuda_graph --extra_mb_options \
        --use_ort_genai
    flags optimize $model --provider --device --precision --act_precision --num_split \
        --memory --exporter --dim_param --dim_value --use_qdq_format --surgeries \
        --block_size --modality --enable_aot --qnn_env_path --extra_mb_options
    flags convert-adapters --adapter_path --adapter_format --output_path --dtype \
        --quantize_int4 --int4_block_size --int4_quantization_mode --log_level \
        --disable_telemetry
    flags extract-adapters --model --format --output --dtype --cache_dir --quantize_int4 \
        --int4_block_size --int4_quantization_mode --log_level
}
