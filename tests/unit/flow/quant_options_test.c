/*
 * quant_options_test.c - every option that a quantizing pass accepts changes the weights
 * that it writes, and so does other text.
 *
 * The options are those of the passes' own tables: one that has no line below fails the
 * test, and so does a line that no pass has.
 */
#include "option_lines.h"

#define QWEN "/tests/golden/tiny/qwen2/"

static dr_arena arena;

/* Behind {"group_size": 16} or the like. */
static line lines[] = {
    {"AutoAWQQuantizer", "bits", "\"format\": \"olive\"", "\"bits\": 8", false},
    {NULL, "bits", "", "\"bits\": 8", false},
    {NULL, "group_size", "", "\"group_size\": -1", false},
    {NULL, "q_group_size", "", "\"q_group_size\": -1", false},
    {"GptqModel", "sym", "", "\"sym\": false", false},
    {NULL, "sym", "", "\"sym\": true", false},
    {NULL, "zero_point", "", "\"zero_point\": false", false},
    {NULL, "format", "", "\"format\": \"olive\"", false},
    {NULL, "lm_head", "\"format\": \"olive\"", "\"lm_head\": true", false},
    {NULL, "embeds", "\"format\": \"olive\"", "\"embeds\": true", false},
    {NULL, "modules_to_not_convert", "", "\"modules_to_not_convert\": \"down_proj\"",
     false},
    {NULL, "overrides", "\"format\": \"olive\"",
     "\"overrides\": {\"re:.*down_proj\": {\"bits\": 8}}", false},
    {NULL, "mixed", "\"format\": \"olive\"", "\"mixed\": \"k_quant_mixed\"", false},
    {NULL, "ratio", "\"format\": \"olive\", \"mixed\": \"snr\"", "\"ratio\": 0.3", false},
    {NULL, "max_size", "\"format\": \"olive\"", "\"max_size\": \"1MB\"", false},
    {NULL, "distill_steps", "\"format\": \"olive\"", "\"distill_steps\": 1", false},
    {NULL, "distill_learning_rate", "\"format\": \"olive\", \"distill_steps\": 2",
     "\"distill_learning_rate\": 0.01", false},
    {"AutoAWQQuantizer", "duo_scaling", "", "\"duo_scaling\": false", false},
    {"AutoAWQQuantizer", "apply_clip", "", "\"apply_clip\": false", false},
    {"AutoAWQQuantizer", "exact", "", "\"exact\": true", false},
    {NULL, "damp_percent", "", "\"damp_percent\": 0.1", false},
    {"GptqQuantizer", "desc_act", "", "\"desc_act\": true", false},
    {NULL, "desc_act", "", "\"desc_act\": false", false},
    {NULL, "static_groups", "", "\"static_groups\": true", false},
    {"Gptq", "prescale", "", "\"prescale\": false", false},
    {"Gptq", "minmax", "", "\"minmax\": true", false},
    {NULL, "bias_correction", "", "\"bias_correction\": false", false},
    {NULL, "upstream", "", "\"upstream\": 0.3", false},
    {"Best", "sweeps", "", "\"sweeps\": 0", false},
    {"AutoClip", "n_grid", "", "\"n_grid\": 7", false},
    {"AutoClip", "max_shrink", "", "\"max_shrink\": 0.9", false},
    {"QuaRot", "seed", "", "\"seed\": 1", false},
    {"QuaRot", "rotate_mode", "", "\"rotate_mode\": \"random\"", false},
    {"SparseGPT", "sparsity", "", "\"sparsity\": 0.3", false},
    {"SparseGPT", "blocksize", "", "\"blocksize\": 8", false},
    {"SparseGPT", "percdamp", "", "\"percdamp\": 0.5", false},
    {"SparseGPT", "min_layer", "", "\"min_layer\": 1", false},
    {"SparseGPT", "max_layer", "", "\"max_layer\": 1", false},
    {"SparseGPT", "layer_name_filter", "", "\"layer_name_filter\": \"down_proj\"", false},
};

/* Biases and a head of its own: every option has something to work on. */
static const char *model(void)
{
    static const char *const from[] = {QWEN "config.json", QWEN "model.safetensors",
                                       "/tests/cli/toy/tokenizer.json",
                                       "/tests/cli/toy/tokenizer_config.json"};
    char *dir = in_tmp(&arena, "qwen2");

    CHECK_OK(dr_make_dirs(dir));
    for (size_t i = 0; i < DR_COUNT(from); i++) {
        const char *source = dr_arena_printf(&arena, "%s%s", DRUPE_SOURCE_DIR, from[i]);
        CHECK_OK(dr_copy_file(dr_path_join(&arena, dir, dr_path_base(source)), source));
    }
    return dir;
}

static bool quantizes(const pass_def *d)
{
    return d->quant_plan != NULL || strcmp(d->name, "SparseGPT") == 0;
}

/* The written weights as a hash, "" after an error; group: the narrowest, unless `with` has
 * its own. */
static const char *weights_of(const pass_def *d, const char *in, const char *without,
                              const char *with, const data_options *data)
{
    const char *group = dr_param_find(d->params, d->params_count, "q_group_size") != NULL
                            ? "\"q_group_size\": 16"
                        : dr_param_find(d->params, d->params_count, "group_size") != NULL
                            ? "\"group_size\": 16"
                            : "";
    const char *parts[] = {strstr(with, "group_size") != NULL ? "" : group, without, with};
    const char *config = "", *out = in_tmp(&arena, "out");
    char hex[DR_SHA256_HEX];

    for (size_t i = 0; i < DR_COUNT(parts); i++)
        config =
            dr_arena_printf(&arena, "%s%s%s", config,
                            *config != '\0' && *parts[i] != '\0' ? ", " : "", parts[i]);
    config = dr_arena_printf(&arena, "{%s}", config);
    flow_spec spec = {.model = in, .output = out, .threads = 1};
    if (data != NULL)
        spec.data = *data;
    else if (d->needs_data)
        spec.data = (data_options){.max_samples = 4, .max_seq_len = 32};
    if (!CHECK_OK(run_pass(d->name, config, spec))) {
        (void)fprintf(stderr, "%s %s\n", d->name, config);
        return "";
    }
    CHECK_OK(dr_sha256_file(hex, dr_path_join(&arena, out, "model/model.safetensors")));
    return dr_arena_strdup(&arena, hex);
}

static void each_option(const pass_def *d, const char *in)
{
    for (size_t i = 0; i < d->params_count; i++) {
        const dr_param *p = &d->params[i];
        if (p->type == DR_PARAM_REFUSED || strcmp(p->name, "true_sequential") == 0)
            continue; /* true alone is accepted */
        line *l = line_of(lines, DR_COUNT(lines), d, p->name);
        if (l == NULL)
            continue;
        l->seen = true;
        const char *a = weights_of(d, in, l->without, "", NULL);
        const char *b = weights_of(d, in, l->without, l->with, NULL);
        if (!CHECK(*a != '\0' && strcmp(a, b) != 0))
            (void)fprintf(stderr, "%s: %s changes nothing\n", d->name, l->with);
    }
}

/* Every way to other text; one of them twice gives the same. */
static void each_text(const pass_def *d, const char *in)
{
    const char *file = in_tmp(&arena, "rows.txt");
    const data_options options[] = {
        {.max_samples = 4, .max_seq_len = 32},
        {.max_samples = 4, .max_seq_len = 32},
        {.max_samples = 3, .max_seq_len = 32},
        {.max_samples = 4, .max_seq_len = 24},
        {.max_samples = 4, .max_seq_len = 32, .strategy = DATA_JOIN_RANDOM},
        {.max_samples = 4,
         .max_seq_len = 32,
         .strategy = DATA_JOIN_RANDOM,
         .random_seed = 1},
        {.max_samples = 4,
         .max_seq_len = 32,
         .strategy = DATA_JOIN_SLIDING_WINDOW,
         .stride = 8},
        {.max_samples = 4, .max_seq_len = 32, .add_special_tokens = true},
        {.max_samples = 4, .max_seq_len = 32, .data_name = "text", .data_files = file},
        {.max_samples = 4, .max_seq_len = 32, .self_written = true, .temperature = 1},
    };
    enum { COUNT = sizeof(options) / sizeof(options[0]) };
    const char *made[COUNT];
    dr_buf b;

    dr_buf_init(&b, 1 << 16);
    for (int i = 0; i < 60; i++)
        CHECK_OK(dr_buf_addf(&b, "row %d is there, and the like of it\n", i * 37 % 101));
    CHECK_OK(dr_write_file(file, b.data, b.len));
    dr_buf_release(&b);
    for (size_t i = 0; i < COUNT; i++) {
        made[i] = weights_of(d, in, "", "", &options[i]);
        for (size_t k = 0; k < i; k++) {
            bool same = strcmp(made[i], made[k]) == 0;
            if (!CHECK_EQ_INT(same, i == 1))
                (void)fprintf(stderr, "%s: texts %zu and %zu\n", d->name, k, i);
        }
    }
}

int main(void)
{
    size_t count = 0;
    const pass_def *const *list = pass_list(&count);
    const char *in = model();

    for (size_t i = 0; i < count; i++) {
        if (!quantizes(list[i]))
            continue;
        each_option(list[i], in);
        if (list[i]->needs_data)
            each_text(list[i], in);
    }
    check_all_seen(lines, DR_COUNT(lines));
    dr_arena_release(&arena);
    return check_done();
}
