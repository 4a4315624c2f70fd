/*
 * lora_options.c - the LoRA pass's parameters as train/ takes them.
 */
#include <string.h>

#include "pass/lora_impl.h"
#include "pass/shared_impl.h"

/* "a,b" to names; all-linear to the model's own; NULL to the family's default. */
static dr_status targets(train_options *o, dr_arena *a, const pass_lora_config *c,
                         const hf_model *m)
{
    const hf_linear *linears = NULL;
    size_t n = 0, count = 0;
    dr_status st = DR_OK;

    if (c->target_modules == NULL)
        return DR_OK;
    char *list = dr_arena_strdup(a, c->target_modules);
    if (strcmp(list, "all-linear") == 0) {
        n = hf_layer_linears(m, 0, &linears);
        const char **names = dr_arena_alloc(a, n, sizeof(char *));
        for (size_t i = 0; i < n; i++)
            names[i] = linears[i].leaf;
        o->targets = names;
        o->target_count = n;
        return DR_OK;
    }
    const char **names = dr_arena_alloc(a, strlen(list) / 2 + 1, sizeof(char *));
    for (char *p = list, *next; p != NULL; p = next) {
        next = strchr(p, ',');
        if (next != NULL)
            *next++ = '\0';
        if (*p == '\0')
            DR_FAIL(DR_EUSAGE, "target_modules: an empty name in \"%s\"",
                    c->target_modules);
        names[count++] = p;
    }
    o->targets = names;
    o->target_count = count;
done:
    return st;
}

/* Targets that are not in the comma list; NULL: all stay. */
static dr_status exclude(train_options *o, dr_arena *a, const char *list)
{
    const char **kept = dr_arena_alloc(a, o->target_count + 1, sizeof(char *));
    size_t words = 0, n = 0;
    const char **out = pass_words(&words, a, list, ",");
    dr_status st = DR_OK;

    for (size_t k = 0; k < words; k++) {
        bool found = false;
        for (size_t i = 0; i < o->target_count; i++)
            found = found || strcmp(o->targets[i], out[k]) == 0;
        if (!found)
            DR_FAIL(DR_EUSAGE, "exclude_modules: %s is not among the target_modules",
                    out[k]);
    }
    for (size_t i = 0; i < o->target_count && words > 0; i++) {
        bool stays = true;
        for (size_t k = 0; k < words; k++)
            stays = stays && strcmp(o->targets[i], out[k]) != 0;
        if (stays)
            kept[n++] = o->targets[i];
    }
    if (words > 0) {
        o->targets = kept;
        o->target_count = n;
    }
done:
    return st;
}

/* What an adapter to start from must be like: options that were given. */
static unsigned asked(const pass_job *job)
{
    static const struct {
        const char *name;
        unsigned bit;
    } rows[] = {{"r", TRAIN_ASKED_R},
                {"alpha", TRAIN_ASKED_ALPHA},
                {"use_rslora", TRAIN_ASKED_RSLORA},
                {"target_modules", TRAIN_ASKED_TARGETS},
                {"exclude_modules", TRAIN_ASKED_TARGETS},
                {"decompose_both", TRAIN_ASKED_BOTH},
                {"decompose_factor", TRAIN_ASKED_FACTOR}};
    const pass_def *d = job->def;
    unsigned bits = 0;

    for (size_t i = 0; i < DR_COUNT(rows); i++)
        if (dr_param_given(d->params, d->params_count, job->given, rows[i].name))
            bits |= rows[i].bit;
    return bits;
}

dr_status pass_lora_options(train_options *o, const pass_job *job, const pass_model *in,
                            const hf_model *m, pass_adapter_kind kind)
{
    const pass_lora_config *c = job->config;
    dr_status st = DR_OK;

    train_options_default(o);
    o->r = c->r;
    o->alpha = c->alpha;
    o->dropout = c->lora_dropout;
    o->rslora = c->use_rslora;
    o->dora = kind == PASS_KIND_DORA;
    o->init = (train_init)c->init_lora_weights;
    o->pissa_niter = c->pissa_niter;
    o->loftq_iter = c->loftq_iter;
    if (kind == PASS_KIND_LOHA || kind == PASS_KIND_LOKR) {
        o->kind = kind == PASS_KIND_LOHA ? HF_ADAPTER_LOHA : HF_ADAPTER_LOKR;
        o->dropout = c->rank_dropout;
        o->module_dropout = c->module_dropout;
        o->random_start = !c->init_weights;
        o->decompose_both = c->decompose_both;
        o->decompose_factor = kind == PASS_KIND_LOKR ? c->decompose_factor : -1;
        o->rank_dropout_scale = c->rank_dropout_scale;
    }
    o->max_steps = c->max_steps > 0 ? (size_t)c->max_steps : 0;
    o->epochs = c->num_train_epochs;
    o->batch = (size_t)c->per_device_train_batch_size;
    o->accumulation = (size_t)c->gradient_accumulation_steps;
    o->learning_rate = c->learning_rate;
    o->schedule = (train_schedule)c->lr_scheduler_type;
    o->warmup_ratio = c->warmup_ratio;
    o->warmup_steps = (size_t)c->warmup_steps;
    o->weight_decay = c->weight_decay;
    o->beta1 = c->adam_beta1;
    o->beta2 = c->adam_beta2;
    o->eps = c->adam_epsilon;
    o->max_grad_norm = c->max_grad_norm;
    o->label_smoothing = c->label_smoothing_factor;
    o->seed = (uint64_t)c->seed;
    o->shuffle = c->shuffle;
    o->keep_bytes = (size_t)(job->memory_given ? job->memory_bytes : job->memory_bytes / 2);
    o->strict = job->memory_given;
    o->integers = strcmp(pass_train_dtypes[c->torch_dtype], "int8") == 0;
    DR_TRY(pass_trainer_options(o, job, c));
    if (in->adapter_count > 1)
        DR_FAIL(DR_EUSAGE, "training starts from one adapter, not from %zu",
                in->adapter_count);
    o->from_adapter = in->adapter_count > 0 ? in->adapters[0].path : NULL;
    o->asked = asked(job);
    if (o->from_adapter != NULL &&
        (kind == PASS_KIND_LOFTQ || o->init != TRAIN_INIT_UNIFORM || o->random_start))
        DR_FAIL(DR_EUSAGE, "%s: an adapter to start from leaves nothing to %s",
                o->from_adapter,
                kind == PASS_KIND_LOFTQ ? "LoftQ"
                : o->random_start       ? "init_weights"
                                        : "init_lora_weights");
    DR_TRY(targets(o, job->arena, c, m));
    DR_TRY(exclude(o, job->arena, c->exclude_modules));
done:
    return st;
}
