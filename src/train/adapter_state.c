/*
 * adapter_state.c - the adapter while it trains.
 *
 * What must hold:
 *   1. modules stand in the order of layers, then of the layer's linears, so that the same
 *      options give the same file;
 *   2. the values of a fresh A depend on seed and place alone: Philox stream = module.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/param.h"
#include "core/rng.h"
#include "train/train_impl.h"

void train_state_release(train_state *s)
{
    hf_adapter_release(&s->adapter);
    dr_big_free(s->param);
    dr_big_free(s->grad);
    dr_big_free(s->m);
    dr_big_free(s->v);
    dr_big_free(s->norms);
    dr_arena_release(&s->arena);
    *s = (train_state){0};
}

static dr_status check_targets(const hf_model *m, const char *const *targets, size_t count)
{
    const hf_linear *linears = NULL;
    size_t n = hf_layer_linears(m, 0, &linears);
    const char *leaves[HF_SLOT_COUNT * 3];
    char list[256] = "";

    for (size_t i = 0; i < n; i++) {
        leaves[i] = linears[i].leaf;
        size_t used = strlen(list);
        (void)snprintf(list + used, sizeof(list) - used, "%s%s", i ? ", " : "", leaves[i]);
    }
    for (size_t t = 0; t < count; t++) {
        bool found = false;
        for (size_t i = 0; i < n; i++)
            found = found || strcmp(leaves[i], targets[t]) == 0;
        if (found)
            continue;
        dr_status st = dr_fail(DR_EUSAGE, "target_modules: this model has no %s; it has %s",
                               targets[t], list);
        const char *near = dr_nearest(targets[t], leaves, n);
        if (near != NULL)
            dr_hint("did you mean %s?", near);
        return st;
    }
    return DR_OK;
}

static bool wanted(const char *leaf, const char *const *targets, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(leaf, targets[i]) == 0)
            return true;
    }
    return false;
}

/* Modules of a fresh adapter: names, ranks, scales. */
static dr_status fresh_modules(train_state *s, const hf_model *m, const train_options *o)
{
    const char *const *targets = o->targets;
    size_t target_count = o->target_count, n = 0;
    hf_adapter *ad = &s->adapter;
    int layers = hf_model_config(m)->layers;
    dr_status st = DR_OK;

    if (targets == NULL)
        train_default_targets(hf_model_config(m), &targets, &target_count);
    DR_TRY(check_targets(m, targets, target_count));
    ad->r = o->r;
    ad->alpha = o->alpha;
    ad->dropout = o->dropout;
    ad->rslora = o->rslora;
    ad->dora = o->dora;
    ad->modules = dr_calloc((size_t)layers * HF_SLOT_COUNT * 3, sizeof(*ad->modules));
    for (int layer = 0; layer < layers; layer++) {
        const hf_linear *linears = NULL;
        size_t count = hf_layer_linears(m, layer, &linears);
        for (size_t i = 0; i < count; i++) {
            if (!wanted(linears[i].leaf, targets, target_count))
                continue;
            double root = o->rslora ? sqrt((double)o->r) : (double)o->r;
            ad->modules[n++] = (hf_lora_module){.module = linears[i].path,
                                                .r = o->r,
                                                .scale = (float)(o->alpha / root),
                                                .n_in = linears[i].n_in,
                                                .n_out = linears[i].n_out};
        }
    }
    ad->count = n;
    s->targets = dr_arena_alloc(&s->arena, target_count, sizeof(char *));
    for (size_t i = 0; i < target_count; i++)
        s->targets[i] = dr_arena_strdup(&s->arena, targets[i]);
    s->target_count = target_count;
done:
    return st;
}

/* Leaf names of an opened adapter, in order of first appearance. */
static void note_targets(train_state *s)
{
    s->targets = dr_arena_alloc(&s->arena, s->adapter.count, sizeof(char *));
    for (size_t i = 0; i < s->adapter.count; i++) {
        const char *dot = strrchr(s->adapter.modules[i].module, '.');
        const char *leaf = dot != NULL ? dot + 1 : s->adapter.modules[i].module;
        if (!wanted(leaf, s->targets, s->target_count))
            s->targets[s->target_count++] = dr_arena_strdup(&s->arena, leaf);
    }
}

/* Uniform in [-1/sqrt(n_in), 1/sqrt(n_in)): kaiming_uniform with a = sqrt(5). */
static void init_a(float *a, size_t r, size_t n_in, uint64_t seed, size_t module)
{
    float bound = (float)(1 / sqrt((double)n_in));
    dr_rng rng;

    dr_rng_init(&rng, seed, 0x4c6f5241u + module); /* streams of their own: "LoRA" */
    for (size_t i = 0; i < r * n_in; i++)
        a[i] = (2 * dr_rng_uniform(&rng) - 1) * bound;
}

/* Parameters of a module. */
typedef struct {
    size_t a, b, magnitude, all;
} counts;

static counts counts_of(const train_state *s, const hf_lora_module *mod)
{
    counts c = {.a = (size_t)mod->r * mod->n_in, .b = mod->n_out * (size_t)mod->r};

    c.magnitude = s->adapter.dora ? mod->n_out : 0;
    c.all = c.a + c.b + c.magnitude;
    return c;
}

static dr_status allocate(train_state *s)
{
    const char *const what[] = {"adapter", "its gradients", "first moments",
                                "second moments"};
    float **const blocks[] = {&s->param, &s->grad, &s->m, &s->v};
    void *p = NULL;
    size_t norms = 0;
    dr_status st = DR_OK;

    for (size_t i = 0; i < s->adapter.count; i++) {
        const counts c = counts_of(s, &s->adapter.modules[i]);
        s->count += c.all;
        norms += c.magnitude;
    }
    DR_TRY(dr_big_alloc(&p, norms, sizeof(float), "norms of weights"));
    s->norms = p;
    for (size_t i = 0; i < DR_COUNT(blocks); i++) {
        DR_TRY(dr_big_alloc(&p, s->count, sizeof(float), what[i]));
        *blocks[i] = p;
    }
done:
    return st;
}

/* Values into param; modules point there from now on. */
static void fill(train_state *s, const train_options *o)
{
    size_t at = 0;

    for (size_t i = 0; i < s->adapter.count; i++) {
        hf_lora_module *mod = &s->adapter.modules[i];
        const counts c = counts_of(s, mod);
        float *a = s->param + at, *b = a + c.a, *magnitude = b + c.b;
        if (mod->a != NULL) {
            memcpy(a, mod->a, c.a * sizeof(float));
            memcpy(b, mod->b, c.b * sizeof(float));
        } else {
            init_a(a, (size_t)mod->r, mod->n_in, o->seed, i);
        }
        if (mod->magnitude != NULL)
            memcpy(magnitude, mod->magnitude, c.magnitude * sizeof(float));
        mod->a = a;
        mod->b = b;
        mod->magnitude = c.magnitude > 0 ? magnitude : NULL;
        at += c.all;
    }
}

/* The nn_lora of every module, by layer. */
static dr_status by_layer(train_state *s, const hf_model *m, const train_options *o)
{
    int layers = hf_model_config(m)->layers;
    size_t next = 0, at = 0, norms = 0;

    s->layers = dr_arena_alloc(&s->arena, (size_t)layers, sizeof(*s->layers));
    s->layer_counts = dr_arena_alloc(&s->arena, (size_t)layers, sizeof(size_t));
    s->lowest = layers;
    for (int layer = 0; layer < layers; layer++) {
        const hf_linear *linears = NULL;
        size_t count = hf_layer_linears(m, layer, &linears), n = 0, kept = 0;
        s->layers[layer] = dr_arena_alloc(&s->arena, count, sizeof(nn_lora));
        for (size_t i = 0; i < count && next < s->adapter.count; i++) {
            const hf_lora_module *mod = &s->adapter.modules[next];
            if (strcmp(mod->module, linears[i].path) != 0)
                continue;
            const counts c = counts_of(s, mod);
            nn_lora *l = &s->layers[layer][n++];
            *l = (nn_lora){.slot = linears[i].slot,
                           .row0 = linears[i].row0,
                           .n_out = mod->n_out,
                           .n_in = mod->n_in,
                           .r = (size_t)mod->r,
                           .scale = mod->scale,
                           .a = s->param + at,
                           .b = s->param + at + c.a,
                           .da = s->grad + at,
                           .db = s->grad + at + c.a,
                           .dropout = (float)o->dropout};
            if (c.magnitude > 0) {
                l->magnitude = mod->magnitude;
                l->dmagnitude = s->grad + at + c.a + c.b;
                l->norm = s->norms + norms;
            }
            kept += nn_lora_kept(l);
            norms += c.magnitude;
            at += c.all;
            next++;
        }
        s->layer_counts[layer] = n;
        if (n > 0 && layer < s->lowest)
            s->lowest = layer;
        s->max_kept = kept > s->max_kept ? kept : s->max_kept;
    }
    if (next < s->adapter.count)
        return dr_fail(DR_EFORMAT, "adapter module %s is out of order or twice",
                       s->adapter.modules[next].module);
    return DR_OK;
}

static const char *kind_name(bool dora)
{
    return dora ? "DoRA" : "LoRA";
}

/* An adapter goes on as what it is. */
static dr_status check_kind(const train_state *s, const train_options *o)
{
    if (s->adapter.dora == o->dora)
        return DR_OK;
    return dr_fail(DR_EUSAGE, "%s: a %s adapter does not go on as %s", o->from_adapter,
                   kind_name(s->adapter.dora), kind_name(o->dora));
}

dr_status train_state_open(train_state *s, const hf_model *m, const train_options *o)
{
    dr_status st = DR_OK;

    *s = (train_state){0};
    if (o->from_adapter != NULL) {
        DR_TRYF(hf_adapter_open(&s->adapter, o->from_adapter, m),
                "the adapter to start from");
        DR_TRY(check_kind(s, o));
        note_targets(s);
    } else {
        DR_TRY(fresh_modules(s, m, o));
    }
    if (s->adapter.count == 0)
        DR_FAIL(DR_EUSAGE, "no module to train");
    s->adapter.dropout = o->dropout;
    DR_TRY(allocate(s));
    fill(s, o);
    DR_TRY(by_layer(s, m, o));
done:
    if (st != DR_OK)
        train_state_release(s);
    return st;
}

dr_status train_state_norms(train_state *s, nn_decoder *d, const nn_layer *w, bool fresh)
{
    nn_lora *loras = s->layers[w->index];
    size_t n = s->layer_counts[w->index];
    dr_status st = DR_OK;

    DR_TRYF(nn_lora_norms(d, w, loras, n), "DoRA");
    for (size_t i = 0; i < n && fresh; i++)
        memcpy(s->param + (loras[i].magnitude - s->param), loras[i].norm,
               loras[i].n_out * sizeof(float));
done:
    return st;
}

void train_state_masks(train_state *s, uint64_t seed, uint64_t step, uint64_t sequence)
{
    uint64_t module = 0;

    for (int layer = s->lowest; module < s->adapter.count; layer++) {
        for (size_t i = 0; i < s->layer_counts[layer]; i++, module++) {
            s->layers[layer][i].seed = seed;
            s->layers[layer][i].stream = (step << 40) ^ (sequence << 20) ^ module;
        }
    }
}
