/*
 * split_info_pass.c - the CaptureSplitInfo pass: which layers of a decoder go where.
 *
 * The weights stay as they are.  What is said of them is in model_config.json, as Olive has
 * it; ModelBuilder writes it into its graph, and SplitModel cuts there.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "hf/hf.h"
#include "pass/attributes_impl.h"
#include "pass/shared_impl.h"

typedef struct {
    int num_splits;
    const char *block_to_split;
    bool unique_embeds_lm_head_splits;
} split_info;

static const dr_param params[] = {
    DR_INT(split_info, num_splits, .dflt = "0", .max = 1023, .required = true,
           .help = "parts that the layers are divided into"),
    DR_STR(split_info, block_to_split, .dflt = "null", .listed = true,
           .help = "modules whose numbered children are divided (the decoder's layers)"),
    DR_BOOL(split_info, unique_embeds_lm_head_splits, .dflt = "false",
            .help = "the embedding and the head are parts of their own"),
    DR_REFUSED("cost_model", "layers of a decoder cost the same", "num_splits"),
};

static dr_status validate(const void *config, const unsigned char *given)
{
    const split_info *c = config;

    if (given != NULL && c->num_splits < 1)
        return dr_fail(DR_EUSAGE, "num_splits is needed: 1 or more");
    return DR_OK;
}

/* How many numbered children a module has: 1 more than the largest number; 0: none. */
static size_t children_of(const hf_model *m, const char *block)
{
    const size_t n = strlen(block);
    size_t count = 0;

    for (size_t i = 0; i < hf_tensor_count(m); i++) {
        const char *name = hf_tensor_at(m, i)->name;
        if (strncmp(name, block, n) != 0 || name[n] != '.' ||
            !isdigit((unsigned char)name[n + 1]))
            continue;
        char *end = NULL;
        size_t k = (size_t)strtoul(name + n + 1, &end, 10) + 1;
        count = *end == '.' && k > count ? k : count;
    }
    return count;
}

/* Names of what is divided, in order. */
static dr_status list_members(const char ***out, size_t *count, dr_arena *a,
                              const split_info *c, const hf_model *m)
{
    const hf_config *config = hf_model_config(m);
    size_t blocks = 0, room = 1;
    const char **names =
        c->block_to_split != NULL ? pass_words(&blocks, a, c->block_to_split, ",") : NULL;

    for (size_t b = 0; b < blocks; b++) {
        if (children_of(m, names[b]) == 0)
            return dr_fail(DR_EUSAGE, "block_to_split: %s has no numbered children",
                           names[b]);
        room += children_of(m, names[b]);
    }
    room += (size_t)config->layers;
    const char **list = dr_arena_alloc(a, room, sizeof(*list));
    *count = 0;
    for (int i = 0; i < config->layers && names == NULL; i++)
        list[(*count)++] = dr_arena_printf(a, "model.layers.%d", i);
    for (size_t b = 0; b < blocks; b++)
        for (size_t i = 0; i < children_of(m, names[b]); i++)
            list[(*count)++] = dr_arena_printf(a, "%s.%zu", names[b], i);
    *out = list;
    return DR_OK;
}

/* As numpy.array_split: the first ones have one more where it does not come out even. */
static json_t *assign(const char *const *members, size_t count, const split_info *c)
{
    const size_t parts = (size_t)c->num_splits;
    const size_t first = c->unique_embeds_lm_head_splits ? 1 : 0;
    json_t *j = json_object();
    size_t at = 0;

    if (first > 0)
        json_object_set_new(j, "model.embed_tokens", json_integer(0));
    for (size_t p = 0; p < parts; p++)
        for (size_t n = count / parts + (p < count % parts); n > 0; n--)
            json_object_set_new(j, members[at++], json_integer((json_int_t)(p + first)));
    if (first > 0)
        json_object_set_new(j, "lm_head", json_integer((json_int_t)(parts + first)));
    return j;
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    const split_info *c = job->config;
    const char **members = NULL;
    json_t *splits = NULL;
    hf_model *m = NULL;
    size_t count = 0;
    dr_status st = DR_OK;

    DR_TRYF(hf_model_open(&m, in->path), "opening the model to split");
    DR_TRY(list_members(&members, &count, job->arena, c, m));
    if ((size_t)c->num_splits > count)
        DR_FAIL(DR_EUSAGE, "num_splits %d, and there are %zu layers", c->num_splits, count);
    splits = assign(members, count, c);
    DR_TRY(pass_same_model(job, out, in));
    DR_TRY(pass_add_attribute(&out->attributes, job->arena, in->attributes,
                              "split_assignments", splits));
    json_object_set(job->report, "split_assignments", splits);
    DR_TRY(dr_buf_addf(job->text, "parts          %d of %zu layers\n",
                       c->num_splits + (c->unique_embeds_lm_head_splits ? 2 : 0), count));
done:
    json_decref(splits);
    hf_model_close(m);
    return st;
}

extern const pass_def pass_split_info; /* PASS(split_info) */
const pass_def pass_split_info = {
    .name = "CaptureSplitInfo",
    .version = 1,
    .summary = "which layers go to which part, for SplitModel",
    .takes = PASS_MODEL_HF,
    .gives = PASS_MODEL_HF,
    .config_size = sizeof(split_info),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = validate,
    .run = run,
};
