/*
 * sparse_gpt_pass.c - the SparseGPT pass: Hugging Face model in, the same with zeros out,
 * in the source's own type.
 */
#include <stdlib.h>
#include <string.h>

#include "pass/quantize_impl.h"

typedef struct {
    const char *sparsity;
    int blocksize;
    double percdamp;
    int min_layer, max_layer;
    const char *layer_name_filter;
} sparse_gpt;

static const dr_param params[] = {
    DR_STR(sparse_gpt, sparsity, .dflt = "0.5", .listed = true,
           .help = "share of zeros, or N,M: N zeros of each M neighbours"),
    DR_INT(sparse_gpt, blocksize, .dflt = "128", .min = 1, .max = QUANT_PRUNE_BLOCK,
           .help = "columns whose zeros are chosen together"),
    DR_FLOAT(sparse_gpt, percdamp, .dflt = "0.01", .min = 0.0001, .max = 1,
             .help = "share of the mean diagonal that is added"),
    DR_INT(sparse_gpt, min_layer, .dflt = "0", .max = 1 << 20,
           .help = "the first layer that is pruned"),
    DR_INT(sparse_gpt, max_layer, .dflt = "-1", .min = -1, .max = 1 << 20,
           .help = "the first layer after them that is not; -1: all are"),
    DR_STR(sparse_gpt, layer_name_filter, .dflt = "null", .listed = true,
           .help = "only linears with one of these in their name"),
    DR_REFUSED("device", "the run has one device", NULL),
    DR_REFUSED("data_config", "data sets by name are those of workflow files", NULL),
};

static dr_status parse_sparsity(quant_prune_options *o, const sparse_gpt *c)
{
    char *end = NULL;
    double first = strtod(c->sparsity, &end), second = 0;
    bool pair = end != c->sparsity && *end == ',';
    dr_status st = DR_OK;

    if (pair) {
        const char *rest = end + 1;
        second = strtod(rest, &end);
        pair = end != rest;
    }
    if (*end != '\0' || end == c->sparsity || !(first > 0) ||
        (pair ? !(first < second && second <= c->blocksize) || first != (int)first ||
                    second != (int)second || c->blocksize % (int)second != 0
              : !(first < 1))) {
        st = dr_fail(DR_EUSAGE, "sparsity: expected a share below 1 or N,M, found \"%s\"",
                     c->sparsity);
        dr_hint("such as 0.5, or 2,4; M divides blocksize");
        return st;
    }
    o->sparsity = pair ? 0 : first;
    o->n = pair ? (int)first : 0;
    o->m = pair ? (int)second : 0;
    return DR_OK;
}

static dr_status validate(const void *config, const unsigned char *given)
{
    const sparse_gpt *c = config;
    quant_prune_options o = {0};
    dr_status st = DR_OK;

    (void)given;
    DR_TRY(parse_sparsity(&o, c));
    if (c->max_layer >= 0 && c->max_layer <= c->min_layer)
        return dr_fail(DR_EUSAGE, "max_layer %d leaves no layer from min_layer %d on",
                       c->max_layer, c->min_layer);
done:
    return st;
}

/* Plain: what the filter does not name.  DR_EUSAGE: it names nothing. */
static dr_status filter(quant_choice *choices, dr_arena *a, const hf_model *m,
                        const char *names)
{
    bool found = false;

    for (int i = 0; i < hf_model_config(m)->layers; i++) {
        const hf_linear *l = NULL;
        size_t n = hf_layer_linears(m, i, &l);
        for (size_t k = 0; k < n; k++) {
            char *rest = dr_arena_strdup(a, names);
            bool hit = false;
            for (char *p = strtok_r(rest, ",", &rest); p != NULL;
                 p = strtok_r(NULL, ",", &rest))
                hit = hit || strstr(l[k].path, p) != NULL;
            choices[(size_t)i * QUANT_LAYER_LINEARS + k].plain = !hit;
            found = found || hit;
        }
    }
    return found ? DR_OK
                 : dr_fail(DR_EUSAGE, "layer_name_filter: no module is called %s", names);
}

static dr_status quantize(const quant_site *site, const quant_grid *grid,
                          const quant_calib *calib, const void *config)
{
    const sparse_gpt *c = config;
    int layers = hf_model_config(site->in)->layers;
    quant_prune_options o = {.blocksize = c->blocksize,
                             .damp_percent = c->percdamp,
                             .min_layer = c->min_layer,
                             .max_layer = c->max_layer};
    quant_site own = *site;
    dr_arena a = {0};
    dr_status st = DR_OK;

    (void)grid;
    DR_TRY(parse_sparsity(&o, c));
    if (c->min_layer >= layers)
        DR_FAIL(DR_EUSAGE, "min_layer %d: the model has layers 0 to %d", c->min_layer,
                layers - 1);
    if (c->layer_name_filter != NULL) {
        quant_choice *choices =
            dr_arena_alloc(&a, (size_t)layers * QUANT_LAYER_LINEARS, sizeof(*choices));
        DR_TRY(filter(choices, &a, site->in, c->layer_name_filter));
        own.choices = choices;
    }
    DR_TRY(quant_prune(&own, calib, &o));
done:
    dr_arena_release(&a);
    return st;
}

static pass_quant_plan quant_plan(const void *config)
{
    static const pass_modules all = {.format = -1, .mixed = -1};

    (void)config;
    return (pass_quant_plan){.layout = HF_QUANT_NONE,
                             .modules = &all,
                             .grid = {8, -1, false}, /* not used: floats stay floats */
                             .calib_samples = 32,
                             .calib_seq_len = 512,
                             .forwards = 2.5,
                             .quantize = quantize};
}

extern const pass_def pass_sparse_gpt; /* PASS(sparse_gpt) in pass/passes.def */
const pass_def pass_sparse_gpt = {
    .name = "SparseGPT",
    .version = 1,
    .summary = "weights that cost least become zero, the others make up for them",
    .takes = PASS_MODEL_HF,
    .gives = PASS_MODEL_HF,
    .needs_data = true,
    .config_size = sizeof(sparse_gpt),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = validate,
    .estimate = pass_quantize_estimate,
    .run = pass_quantize,
    .quant_plan = quant_plan,
};
