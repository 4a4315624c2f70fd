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
    dr_big_free(s->start);
    nn_mem_free(s->mem, s->there);
    nn_mem_free(s->mem, s->rounded);
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

static void targets_of(const char *const **targets, size_t *count, const hf_model *m,
                       const train_options *o)
{
    *targets = o->targets;
    *count = o->target_count;
    if (o->targets == NULL)
        train_default_targets(hf_model_config(m), targets, count);
}

/* Names, ranks, scales. */
dr_status train_fresh_modules(hf_adapter *ad, const hf_model *m, const train_options *o)
{
    const char *const *targets = NULL;
    size_t target_count = 0, n = 0;
    int layers = hf_model_config(m)->layers;
    dr_status st = DR_OK;

    targets_of(&targets, &target_count, m, o);
    DR_TRY(check_targets(m, targets, target_count));
    ad->r = o->r;
    ad->alpha = o->alpha;
    ad->dropout = o->dropout;
    ad->rslora = o->rslora;
    ad->dora = o->dora;
    ad->kind = o->kind;
    ad->decompose_both = o->decompose_both;
    ad->decompose_factor = o->decompose_factor;
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
            if (o->kind != HF_ADAPTER_LORA)
                hf_lycoris_shapes(&ad->modules[n - 1], ad);
        }
    }
    ad->count = n;
done:
    return st;
}

static void keep_targets(train_state *s, const hf_model *m, const train_options *o)
{
    const char *const *targets = NULL;

    targets_of(&targets, &s->target_count, m, o);
    s->targets = dr_arena_alloc(&s->arena, s->target_count, sizeof(char *));
    for (size_t i = 0; i < s->target_count; i++)
        s->targets[i] = dr_arena_strdup(&s->arena, targets[i]);
}

/* Fresh modules with the values of o->start, which stays the caller's. */
static dr_status take_start(train_state *s, const hf_model *m, const train_options *o)
{
    hf_adapter *ad = &s->adapter;
    dr_status st = DR_OK;

    DR_TRY(train_fresh_modules(ad, m, o));
    DR_BUG_IF(ad->count != o->start->count);
    for (size_t i = 0; i < ad->count; i++) {
        DR_BUG_IF(strcmp(ad->modules[i].module, o->start->modules[i].module) != 0);
        ad->modules[i].a = o->start->modules[i].a;
        ad->modules[i].b = o->start->modules[i].b;
    }
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

/* A fresh A of one module. */
typedef struct {
    float *a;
    size_t r, n_in, module;
} fresh_a;

typedef struct {
    const fresh_a *all;
    const train_options *o;
} init_job;

/* Uniform in [-1/sqrt(n_in), 1/sqrt(n_in)): kaiming_uniform with a = sqrt(5); or normal. */
static dr_status init_a(void *ctx, size_t task, int worker)
{
    const init_job *j = ctx;
    const fresh_a *f = &j->all[task];
    float bound = (float)(1 / sqrt((double)f->n_in));
    dr_rng rng;

    (void)worker; /* streams of their own: "LoRA" */
    dr_rng_init(&rng, j->o->seed, 0x4c6f5241u + f->module);
    for (size_t i = 0; i < f->r * f->n_in; i++)
        f->a[i] = j->o->init == TRAIN_INIT_GAUSSIAN
                      ? dr_rng_normal(&rng) / (float)f->r
                      : (2 * dr_rng_uniform(&rng) - 1) * bound;
    return DR_OK;
}

/* Parameters of a module. */
typedef struct {
    size_t a, b, magnitude, all; /* LoHa and LoKr: all */
} counts;

static counts counts_of(const train_state *s, const hf_lora_module *mod)
{
    counts c = {.a = (size_t)mod->r * mod->n_in, .b = mod->n_out * (size_t)mod->r};

    c.magnitude = s->adapter.dora ? mod->n_out : 0;
    c.all = c.a + c.b + c.magnitude;
    if (s->adapter.kind != HF_ADAPTER_LORA)
        return (counts){.all = hf_factor_count(mod)};
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

/* One factor's start: bound 1 / sqrt(cols), as kaiming_uniform has it; or zeros. */
static void init_factor(float *v, const hf_factor *f, bool zeros, dr_rng *rng)
{
    float bound = f->cols > 0 ? (float)(1 / sqrt((double)f->cols)) : 0;

    for (size_t i = 0; i < f->rows * f->cols; i++)
        v[i] = zeros ? 0.0f : (2 * dr_rng_uniform(rng) - 1) * bound;
}

/* LoHa's and LoKr's values; one factor begins at zero: w2_b, w1 or w1_a. */
static void fill_factors(hf_lora_module *mod, float *at, const train_options *o,
                         hf_adapter_kind kind, size_t module)
{
    size_t zero = kind == HF_ADAPTER_LOHA ? 3 : 0;
    dr_rng rng;

    dr_rng_init(&rng, o->seed, 0x4c796330u + module); /* streams of their own: "Lyc0" */
    for (size_t k = 0; k < HF_FACTORS; k++) {
        hf_factor *f = &mod->f[k];
        size_t n = f->rows * f->cols;
        if (f->data != NULL)
            memcpy(at, f->data, n * sizeof(float));
        else
            init_factor(at, f, k == zero && !o->random_start, &rng);
        f->data = n > 0 ? at : NULL;
        at += n;
    }
}

/* Values into param; modules point there from now on. */
static dr_status fill(train_state *s, const train_options *o, dr_pool *pool)
{
    fresh_a *fresh = dr_arena_alloc(&s->arena, s->adapter.count, sizeof(*fresh));
    init_job j = {fresh, o};
    size_t at = 0, fresh_count = 0;

    for (size_t i = 0; i < s->adapter.count && s->adapter.kind != HF_ADAPTER_LORA; i++) {
        hf_lora_module *mod = &s->adapter.modules[i];
        fill_factors(mod, s->param + at, o, s->adapter.kind, i);
        at += hf_factor_count(mod);
    }
    if (s->adapter.kind != HF_ADAPTER_LORA)
        return DR_OK;
    for (size_t i = 0; i < s->adapter.count; i++) {
        hf_lora_module *mod = &s->adapter.modules[i];
        const counts c = counts_of(s, mod);
        float *a = s->param + at, *b = a + c.a, *magnitude = b + c.b;
        if (mod->a != NULL) {
            memcpy(a, mod->a, c.a * sizeof(float));
            memcpy(b, mod->b, c.b * sizeof(float));
        } else {
            fresh[fresh_count++] = (fresh_a){a, (size_t)mod->r, mod->n_in, i};
        }
        if (mod->magnitude != NULL)
            memcpy(magnitude, mod->magnitude, c.magnitude * sizeof(float));
        mod->a = a;
        mod->b = b;
        mod->magnitude = c.magnitude > 0 ? magnitude : NULL;
        at += c.all;
    }
    return dr_pool_run(pool, fresh_count, init_a, &j);
}

static train_delta delta_of(train_state *s, const hf_lora_module *mod, const hf_linear *l,
                            size_t at)
{
    return (train_delta){.mod = mod,
                         .slot = l->slot,
                         .row0 = l->row0,
                         .kron = s->adapter.kind == HF_ADAPTER_LOKR,
                         .grad = s->grad + at,
                         .rows = dr_arena_alloc(&s->arena, mod->n_out, sizeof(float))};
}

/* What the base lacks by l's start; returns what it keeps. */
static size_t add_start(const train_state *s, nn_lora *at, const nn_lora *l)
{
    *at = *l;
    at->scale = -l->scale;
    at->a = s->start + (l->a - s->param);
    at->b = s->start + (l->b - s->param);
    at->da = at->db = NULL;
    at->dropout = 0;
    return nn_lora_kept(at);
}

/* The nn_lora of every module, by layer. */
static dr_status by_layer(train_state *s, const hf_model *m, const train_options *o)
{
    int layers = hf_model_config(m)->layers;
    size_t next = 0, at = 0, norms = 0;

    s->layers = dr_arena_alloc(&s->arena, (size_t)layers, sizeof(*s->layers));
    s->layer_counts = dr_arena_alloc(&s->arena, (size_t)layers, sizeof(size_t));
    s->layer_trained = dr_arena_alloc(&s->arena, (size_t)layers, sizeof(size_t));
    if (s->adapter.kind != HF_ADAPTER_LORA)
        s->deltas = dr_arena_alloc(&s->arena, (size_t)layers, sizeof(*s->deltas));
    s->lowest = layers;
    s->layer_count = layers;
    for (int layer = 0; layer < layers; layer++) {
        const hf_linear *linears = NULL;
        size_t count = hf_layer_linears(m, layer, &linears), n = 0, kept = 0;
        s->layers[layer] = dr_arena_alloc(&s->arena, 2 * count, sizeof(nn_lora));
        if (s->deltas != NULL)
            s->deltas[layer] = dr_arena_alloc(&s->arena, count, sizeof(train_delta));
        for (size_t i = 0; i < count && next < s->adapter.count; i++) {
            const hf_lora_module *mod = &s->adapter.modules[next];
            if (strcmp(mod->module, linears[i].path) != 0)
                continue;
            const counts c = counts_of(s, mod);
            size_t from = at;
            next++;
            at += c.all;
            if (s->deltas != NULL) {
                s->deltas[layer][n++] = delta_of(s, mod, &linears[i], from);
                continue;
            }
            nn_lora *l = &s->layers[layer][n++];
            *l = (nn_lora){.slot = linears[i].slot,
                           .row0 = linears[i].row0,
                           .n_out = mod->n_out,
                           .n_in = mod->n_in,
                           .r = (size_t)mod->r,
                           .scale = mod->scale,
                           .a = s->param + from,
                           .b = s->param + from + c.a,
                           .da = s->grad + from,
                           .db = s->grad + from + c.a,
                           .dropout = (float)o->dropout};
            if (c.magnitude > 0) {
                l->magnitude = mod->magnitude;
                l->dmagnitude = s->grad + from + c.a + c.b;
                l->norm = s->norms + norms;
            }
            kept += nn_lora_kept(l);
            norms += c.magnitude;
        }
        s->layer_trained[layer] = n;
        for (size_t i = 0; i < n && s->start != NULL; i++)
            kept += add_start(s, &s->layers[layer][n + i], &s->layers[layer][i]);
        s->layer_counts[layer] = s->deltas != NULL ? 0 : s->start != NULL ? 2 * n : n;
        if (n > 0 && layer < s->lowest)
            s->lowest = layer;
        s->max_kept = kept > s->max_kept ? kept : s->max_kept;
    }
    if (next < s->adapter.count)
        return dr_fail(DR_EFORMAT, "adapter module %s is out of order or twice",
                       s->adapter.modules[next].module);
    return DR_OK;
}

/* A module's places in s->there. */
static void place_module(train_state *s, nn_lora *l)
{
    DR_BUG_IF(l->magnitude != NULL); /* DoRA's steps are the host's */
    if (l->da == NULL) {
        l->a = s->there + 4 * s->count + (l->a - s->start);
        l->b = s->there + 4 * s->count + (l->b - s->start);
        return;
    }
    if (s->rounded != NULL) {
        l->a_rounded = s->rounded + (l->a - s->param);
        l->sb_rounded = s->rounded + (l->b - s->param);
    }
    l->a = s->there + (l->a - s->param);
    l->b = s->there + (l->b - s->param);
    l->da = s->there + s->count + (l->da - s->grad);
    l->db = s->there + s->count + (l->db - s->grad);
}

/* The first `arrays` of the three that are not zero between steps, to where they train or
 * back. */
static dr_status move(train_state *s, bool back, size_t arrays)
{
    float *const here[] = {s->param, s->m, s->v};
    const size_t place[] = {0, 2, 3};
    dr_status st = DR_OK;

    for (size_t i = 0; i < arrays && s->there != NULL; i++) {
        float *there = s->there + place[i] * s->count;
        DR_TRY(nn_copy(s->mem, back ? here[i] : there, back ? there : here[i],
                       s->count * sizeof(float)));
    }
done:
    return st;
}

dr_status train_state_place(train_state *s, nn_device *dev)
{
    float *there = NULL;
    dr_status st = DR_OK;

    DR_TRY(nn_mem_new(dev, &there, (s->start != NULL ? 5 : 4) * s->count, NN_MEM_FLOAT,
                      "the adapter"));
    s->mem = dev;
    s->there = there;
    if (nn_device_rounds(dev))
        DR_TRY(nn_mem_new(dev, &s->rounded, s->count, NN_MEM_BF16, "the adapter"));
    for (int layer = s->lowest; layer < s->layer_count; layer++)
        for (size_t i = 0; i < s->layer_counts[layer]; i++)
            place_module(s, &s->layers[layer][i]);
    if (s->start != NULL)
        DR_TRY(nn_copy(dev, there + 4 * s->count, s->start, s->count * sizeof(float)));
    DR_TRY(move(s, false, 1));
    DR_TRY(nn_zero(dev, there + 2 * s->count, 2 * s->count * sizeof(float)));
done:
    return st;
}

dr_status train_state_round(train_state *s)
{
    dr_status st = DR_OK;

    for (int layer = s->lowest; s->rounded != NULL && layer < s->layer_count; layer++)
        for (size_t i = 0; i < s->layer_trained[layer]; i++)
            DR_TRY(nn_lora_round(s->mem, &s->layers[layer][i]));
done:
    return st;
}

dr_status train_state_params(train_state *s)
{
    return move(s, true, 1);
}

dr_status train_state_pull(train_state *s)
{
    return move(s, true, 3);
}

dr_status train_state_push(train_state *s)
{
    return move(s, false, 3);
}

static const char *kind_name(hf_adapter_kind kind, bool dora)
{
    static const char *const names[] = {"LoRA", "LoHa", "LoKr"};

    return dora ? "DoRA" : names[kind];
}

/* An adapter goes on as what it is. */
static dr_status check_kind(const train_state *s, const train_options *o)
{
    if (s->adapter.dora == o->dora && s->adapter.kind == o->kind)
        return DR_OK;
    return dr_fail(DR_EUSAGE, "%s: a %s adapter does not go on as %s", o->from_adapter,
                   kind_name(s->adapter.kind, s->adapter.dora),
                   kind_name(o->kind, o->dora));
}

static dr_status check_targets_own(const train_state *s, const train_options *o)
{
    bool same = true;
    char list[256] = "";

    for (size_t i = 0; i < s->target_count; i++) {
        size_t used = strlen(list);
        (void)snprintf(list + used, sizeof(list) - used, "%s%s", i ? ", " : "",
                       s->targets[i]);
        same = same && wanted(s->targets[i], o->targets, o->target_count);
    }
    for (size_t i = 0; i < o->target_count; i++)
        same = same && wanted(o->targets[i], s->targets, s->target_count);
    if (same)
        return DR_OK;
    return dr_fail(DR_EUSAGE, "target_modules: the adapter %s is one of %s",
                   o->from_adapter, list);
}

/* What was asked for is what the adapter is: it goes on with its own. */
static dr_status check_asked(const train_state *s, const train_options *o)
{
    const hf_adapter *a = &s->adapter;
    const struct {
        unsigned bit;
        const char *name;
        double asked, own;
    } rows[] = {
        {TRAIN_ASKED_R, "r", o->r, a->r},
        {TRAIN_ASKED_ALPHA, "alpha", o->alpha, a->alpha},
        {TRAIN_ASKED_RSLORA, "use_rslora", o->rslora, a->rslora},
        {TRAIN_ASKED_BOTH, "decompose_both", o->decompose_both, a->decompose_both},
        {TRAIN_ASKED_FACTOR, "decompose_factor", o->decompose_factor, a->decompose_factor}};
    dr_status st = DR_OK;

    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        if ((o->asked & rows[i].bit) == 0 || rows[i].asked == rows[i].own)
            continue;
        st = dr_fail(DR_EUSAGE, "%s: %g was asked for, the adapter %s has %g", rows[i].name,
                     rows[i].asked, o->from_adapter, rows[i].own);
        dr_hint("without it the adapter goes on with its own");
        return st;
    }
    return o->asked & TRAIN_ASKED_TARGETS ? check_targets_own(s, o) : DR_OK;
}

/* The parameters as they are now, for PiSSA's base. */
static dr_status keep_start(train_state *s)
{
    void *p = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_big_alloc(&p, s->count, sizeof(float), "the adapter's start"));
    s->start = memcpy(p, s->param, s->count * sizeof(float));
done:
    return st;
}

dr_status train_state_open(train_state *s, const hf_model *m, const train_options *o,
                           dr_pool *pool)
{
    bool pissa = o->init == TRAIN_INIT_PISSA;
    dr_status st = DR_OK;

    *s = (train_state){0};
    if (o->from_adapter != NULL) {
        DR_TRYF(hf_adapter_open_any(&s->adapter, o->from_adapter, m),
                "the adapter to start from");
        DR_TRY(check_kind(s, o));
        note_targets(s);
        DR_TRY(check_asked(s, o));
    } else if (o->start != NULL) {
        DR_TRY(take_start(s, m, o));
        keep_targets(s, m, o);
    } else {
        DR_TRY(train_fresh_modules(&s->adapter, m, o));
        keep_targets(s, m, o);
        if (pissa)
            DR_TRYF(train_start(&s->adapter, m, o, pool, NULL), "PiSSA");
    }
    DR_BUG_IF(pissa && (o->dora || o->from_adapter != NULL || o->start != NULL));
    if (s->adapter.count == 0)
        DR_FAIL(DR_EUSAGE, "no module to train");
    s->adapter.dropout = o->dropout;
    s->adapter.module_dropout = o->module_dropout;
    s->adapter.rank_dropout_scale = o->rank_dropout_scale;
    DR_TRY(allocate(s));
    DR_TRY(fill(s, o, pool));
    if (pissa)
        DR_TRY(keep_start(s));
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

enum { SEQUENCE_BIT = 20 }; /* of a mask's stream */

void train_state_masks(train_state *s, uint64_t seed, uint64_t step, uint64_t sequence,
                       size_t count)
{
    uint64_t module = 0;

    for (int layer = s->lowest; module < s->adapter.count; layer++) {
        for (size_t i = 0; i < s->layer_trained[layer]; i++, module++) {
            uint64_t stream = (step << 40) ^ (sequence << SEQUENCE_BIT) ^ module;
            if (s->deltas != NULL) {
                train_delta_masks(&s->deltas[layer][i], &s->adapter, seed, stream);
                continue;
            }
            s->layers[layer][i].seed = seed;
            s->layers[layer][i].stream = stream;
            s->layers[layer][i].stream_step = (uint64_t)1 << SEQUENCE_BIT;
            s->layers[layer][i].sequences = count;
        }
    }
}

/* [A; A0] and [B, -B0]: s (B A - B0 A0). */
static dr_status with_start(hf_lora_module *out, dr_arena *a, const hf_lora_module *mod,
                            const float *start)
{
    size_t r = (size_t)mod->r, na = r * mod->n_in, nb = mod->n_out * r;
    void *p = NULL;
    dr_status st = DR_OK;

    *out = *mod;
    out->r = 2 * mod->r;
    DR_TRY(dr_arena_big(a, &p, 2 * (na + nb), sizeof(float), mod->module));
    float *x = p, *y = x + 2 * na;
    memcpy(x, mod->a, na * sizeof(float));
    memcpy(x + na, start, na * sizeof(float));
    for (size_t i = 0; i < mod->n_out; i++) {
        for (size_t k = 0; k < r; k++) {
            y[i * 2 * r + k] = mod->b[i * r + k];
            y[i * 2 * r + r + k] = -start[na + i * r + k];
        }
    }
    out->a = x;
    out->b = y;
done:
    return st;
}

dr_status train_state_write(const train_state *s, const char *dir, const char *base_name)
{
    hf_adapter both = s->adapter;
    dr_arena a = {0};
    dr_status st = DR_OK;

    if (s->start == NULL)
        return hf_adapter_write(&s->adapter, dir, base_name, s->targets, s->target_count);
    both.r = 2 * s->adapter.r;
    both.alpha = s->adapter.alpha * (both.rslora ? sqrt(2) : 2);
    both.modules = dr_arena_alloc(&a, both.count, sizeof(*both.modules));
    for (size_t i = 0; i < both.count; i++) {
        const hf_lora_module *mod = &s->adapter.modules[i];
        DR_TRY(with_start(&both.modules[i], &a, mod, s->start + (mod->a - s->param)));
    }
    DR_TRY(hf_adapter_write(&both, dir, base_name, s->targets, s->target_count));
done:
    dr_arena_release(&a);
    return st;
}
