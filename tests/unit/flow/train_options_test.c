/*
 * train_options_test.c - every option that a training pass accepts changes the adapter that
 * it writes, the base beside it, or what its checkpoints say of the way there.
 *
 * The options are those of the passes' own tables: one that has no line below fails the
 * test, and so does a line that no pass has.
 */
#include "option_lines.h"

static dr_arena arena;

#define EVERY "\"save_steps\": 1"

/* Behind a few steps' options. */
static line lines[] = {
    {NULL, "r", "", "\"r\": 3", false},
    {NULL, "alpha", "", "\"alpha\": 3", false},
    {NULL, "lora_dropout", "", "\"lora_dropout\": 0.3", false},
    {NULL, "use_rslora", "", "\"use_rslora\": true", false},
    {NULL, "target_modules", "", "\"target_modules\": \"q_proj\"", false},
    {NULL, "max_steps", "", "\"max_steps\": 2", false},
    {NULL, "num_train_epochs", "\"max_steps\": -1, \"num_train_epochs\": 1",
     "\"num_train_epochs\": 2", false},
    {NULL, "per_device_train_batch_size", "", "\"per_device_train_batch_size\": 2", false},
    {NULL, "gradient_accumulation_steps", "", "\"gradient_accumulation_steps\": 2", false},
    {NULL, "learning_rate", "", "\"learning_rate\": 1e-3", false},
    {NULL, "lr_scheduler_type", "", "\"lr_scheduler_type\": \"linear\"", false},
    {NULL, "lr_scheduler_kwargs", "\"lr_scheduler_type\": \"cosine\"",
     "\"lr_scheduler_kwargs\": {\"num_cycles\": 2}", false},
    {NULL, "warmup_ratio", "\"lr_scheduler_type\": \"linear\"", "\"warmup_ratio\": 0.9",
     false},
    {NULL, "warmup_steps", "\"lr_scheduler_type\": \"linear\"", "\"warmup_steps\": 2",
     false},
    {NULL, "weight_decay", "", "\"weight_decay\": 0.5", false},
    {NULL, "adam_beta1", "", "\"adam_beta1\": 0.5", false},
    {NULL, "adam_beta2", "", "\"adam_beta2\": 0.5", false},
    {NULL, "adam_epsilon", "", "\"adam_epsilon\": 0.1", false},
    {NULL, "max_grad_norm", "", "\"max_grad_norm\": 1e-9", false},
    {NULL, "label_smoothing_factor", "", "\"label_smoothing_factor\": 0.1", false},
    {NULL, "seed", "", "\"seed\": 3", false},
    {NULL, "shuffle", "", "\"shuffle\": false", false},
    {NULL, "logging_steps", EVERY, "\"logging_steps\": 1", false},
    {NULL, "logging_strategy", EVERY ", \"per_device_train_batch_size\": 4",
     "\"logging_strategy\": \"epoch\"", false},
    {NULL, "logging_first_step", EVERY, "\"logging_first_step\": true", false},
    {NULL, "eval_strategy", EVERY ", \"per_device_train_batch_size\": 4",
     "\"eval_strategy\": \"epoch\"", false},
    {NULL, "eval_steps", EVERY, "\"eval_steps\": 1", false},
    {NULL, "load_best_model_at_end", EVERY ", \"eval_steps\": 1, \"learning_rate\": 0.9",
     "\"load_best_model_at_end\": true", false},
    {NULL, "metric_for_best_model", NULL, NULL, false}, /* its words are one thing */
    {NULL, "early_stopping_patience",
     EVERY ", \"eval_steps\": 1, \"learning_rate\": 0.9, \"max_steps\": 9",
     "\"early_stopping_patience\": 1", false},
    {NULL, "early_stopping_threshold",
     EVERY ", \"eval_steps\": 1, \"max_steps\": 6, \"early_stopping_patience\": 2",
     "\"early_stopping_threshold\": 99", false},
    {NULL, "reference_model", NULL, NULL, false}, /* changes the report (finetune-eval) */
    {"LoRA", "torch_dtype", "", "\"torch_dtype\": \"int8\"", false},
    {NULL, "torch_dtype", NULL, NULL, false}, /* not all train by integers */
    {NULL, "init_lora_weights", "", "\"init_lora_weights\": \"pissa\"", false},
    {NULL, "pissa_niter", "\"init_lora_weights\": \"pissa\"", "\"pissa_niter\": 1", false},
    {NULL, "loftq_iter", "", "\"loftq_iter\": 2", false},
    {NULL, "rank_dropout", "", "\"rank_dropout\": 0.5", false},
    {NULL, "module_dropout", "", "\"module_dropout\": 0.5", false},
    {NULL, "init_weights", "", "\"init_weights\": false", false},
    {NULL, "exclude_modules", "", "\"exclude_modules\": \"down_proj,q_proj\"", false},
    {NULL, "decompose_both", "\"r\": 1", "\"decompose_both\": true", false},
    {NULL, "decompose_factor", "", "\"decompose_factor\": 2", false},
    {NULL, "rank_dropout_scale", "\"rank_dropout\": 0.5", "\"rank_dropout_scale\": true",
     false},
    {NULL, "quant_type", "", "\"quant_type\": \"fp4\"", false},
    {NULL, "double_quant", "", "\"double_quant\": true", false},
    {NULL, "save_quant_config", "", "\"save_quant_config\": false", false},
    {NULL, "save_strategy", "", "\"save_strategy\": \"epoch\"", false},
    {NULL, "save_steps", "", "\"save_steps\": 2", false},
    {NULL, "save_total_limit", EVERY, "\"save_total_limit\": 1", false},
};

static void write_rows(const char *path)
{
    dr_buf b;

    dr_buf_init(&b, 1 << 16);
    for (int i = 0; i < 40; i++)
        CHECK_OK(dr_buf_addf(&b, "{\"text\": \"abc %d xyz %d of it\"}\n", i, i * 37 % 101));
    CHECK_OK(dr_write_file(path, b.data, b.len));
    dr_buf_release(&b);
}

/* The adapter, the base's config and the states of all checkpoints as one hash. */
static const char *result_of(const char *out)
{
    char hex[DR_SHA256_HEX];
    char **names = NULL;
    size_t count = 0;
    dr_buf b;

    dr_buf_init(&b, 1 << 20);
    CHECK_OK(dr_sha256_file(
        hex, dr_path_join(&arena, out, "adapter/adapter_model.safetensors")));
    CHECK_OK(dr_buf_addf(&b, "%s\n", hex));
    CHECK_OK(dr_sha256_file(hex, dr_path_join(&arena, out, "adapter/adapter_config.json")));
    CHECK_OK(dr_buf_addf(&b, "%s\n", hex));
    CHECK_OK(dr_sha256_file(hex, dr_path_join(&arena, out, "model/config.json")));
    CHECK_OK(dr_buf_addf(&b, "%s\n", hex));
    CHECK_OK(dr_list_dir(&arena, out, &names, &count));
    for (size_t i = 0; i < count; i++) {
        const char *state =
            dr_arena_printf(&arena, "%s/%s/trainer_state.json", out, names[i]);
        if (!dr_is_file(state))
            continue;
        CHECK_OK(dr_sha256_file(hex, state));
        CHECK_OK(dr_buf_addf(&b, "%s %s\n", names[i], hex));
    }
    dr_sha256(hex, b.data, b.len);
    dr_buf_release(&b);
    return dr_arena_strdup(&arena, hex);
}

/* A few steps; what is given twice counts as it was given last.  "" after an error. */
static const char *train(const pass_def *d, const char *in, const char *rows,
                         const char *without, const char *with)
{
    json_t *config = json_of("{\"max_steps\": 3, \"r\": 2, \"alpha\": 8, "
                             "\"learning_rate\": 0.01, \"lora_dropout\": 0.05, "
                             "\"per_device_train_batch_size\": 3}");
    const char *more[] = {without, with}, *out = in_tmp(&arena, "out");
    flow_spec spec = {.model = in, .output = out, .threads = 1};

    if (dr_param_find(d->params, d->params_count, "lora_dropout") == NULL)
        (void)json_object_del(config, "lora_dropout");
    for (size_t i = 0; i < DR_COUNT(more); i++) {
        json_t *j = json_of(dr_arena_printf(&arena, "{%s}", more[i]));
        json_object_update(config, j);
        json_decref(j);
    }
    if (json_integer_value(json_object_get(config, "max_steps")) < 0)
        (void)json_object_del(config, "max_steps");
    if (json_object_get(config, "num_train_epochs") != NULL)
        (void)json_object_del(config, "max_steps");
    spec.data = (data_options){.data_name = "json",
                               .data_files = rows,
                               .text_field = "text",
                               .split = "train[:32]",
                               .max_samples = 10,
                               .max_seq_len = 24};
    data_options eval = spec.data;
    eval.split = "train[32:]";
    spec.eval = &eval;
    char *text = json_dumps(config, JSON_COMPACT);
    bool good = CHECK_OK(run_pass(d->name, text, spec));
    if (!good)
        (void)printf("  %s %s\n", d->name, text);
    free(text);
    json_decref(config);
    return good ? result_of(out) : "";
}

static void test_pass(const pass_def *d, const char *in, const char *rows)
{
    for (size_t i = 0; i < d->params_count; i++) {
        const dr_param *p = &d->params[i];
        if (p->type == DR_PARAM_REFUSED)
            continue;
        line *l = line_of(lines, DR_COUNT(lines), d, p->name);
        if (l == NULL)
            continue;
        /* what is the Trainer's is tried with one pass */
        bool shared = l->pass == NULL && l->seen && strcmp(l->name, "r") != 0 &&
                      strcmp(l->name, "alpha") != 0;
        l->seen = true;
        if (l->with == NULL || shared)
            continue;
        const char *a = train(d, in, rows, l->without, "");
        const char *b = train(d, in, rows, l->without, l->with);
        if (!CHECK(strcmp(a, b) != 0))
            (void)printf("  %s of %s changes nothing\n", p->name, d->name);
    }
}

int main(void)
{
    size_t count = 0;
    const pass_def *const *passes = pass_list(&count);
    const char *in = copy_letters(&arena, "in"), *rows = in_tmp(&arena, "rows.jsonl");

    write_rows(rows);
    for (size_t i = 0; i < count; i++)
        if (passes[i]->trains)
            test_pass(passes[i], in, rows);
    check_all_seen(lines, DR_COUNT(lines));
    dr_arena_release(&arena);
    return check_done();
}
