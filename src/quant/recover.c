/*
 * recover.c - adapters from the error of rounding, in closed form.
 *
 * For a linear with the weight Q, the inputs x that reach it in the rounded model, and a
 * target weight W for them (the original's, with what upstream.c adds), B A of rank r with
 * the least sum over tokens of |(W - Q - B A) x|^2 is
 *
 *     B A = U_r U_r^T (W - Q),        (W - Q) L = U S V^T,        L L^T = sum x x^T
 *
 * (algorithm of QERA-exact, Zhang et al. 2025, and EoRA, Liu et al. 2024, with a Cholesky
 * factor for their root: every root has the same minimum).  Only the left vectors are
 * needed, so nothing is solved with L, which a little text leaves badly conditioned.
 *
 * Text is short beside the weights: columns of the sum look more alike than they are, so it
 * is shrunk as best shrinks its Hessian (gptq.c).
 *
 * A rounded model may have scales folded into norms, V rows and up rows, and the inverse
 * in what follows.  Those in norms are their quotient.  Those of rows are what the rounded
 * row is in the original's direction, by the same norm; where all of a layer are within
 * ROW_NEAR of 1 there are none.  The target is scaled likewise.
 */
#include <math.h>
#include <string.h>

#include "core/mem.h"
#include "core/svd.h"
#include "quant/gptq_impl.h"

#define DAMPING   0.01
#define ROW_NEAR  0.1
#define SVD_CLOSE 1e-4

struct quant_recovery {
    const quant_site *site;
    const hf_model *original;
    const quant_recover_options *o;
    hf_adapter *out;
    bool folded;
    float *in_scale;  /* owned: [widest K] original inputs over the rounded model's */
    float *row_scale; /* owned: [widest N] of the rows of the slot at hand, 1 elsewhere */
    float *after;   /* owned: likewise of the slot before: what the next one's inputs are */
    float *norms;   /* owned: 2 [D] */
    float *target;  /* owned: a slot's weights: the target, then its distance */
    float *product; /* owned: that times L */
    float *factor;  /* owned: [K][K] */
};

/* ---- opening ---- */

static dr_status same_models(const hf_model *q, const hf_model *original)
{
    const hf_config *a = hf_model_config(q), *b = hf_model_config(original);
    const hf_linear *la = NULL, *lb = NULL;
    bool same = a->vocab == b->vocab && a->layers == b->layers && a->hidden == b->hidden &&
                a->intermediate == b->intermediate;

    for (int i = 0; same && i < a->layers; i++) {
        size_t n = hf_layer_linears(q, i, &la);
        same = n == hf_layer_linears(original, i, &lb);
        for (size_t k = 0; same && k < n; k++)
            same = strcmp(la[k].path, lb[k].path) == 0 && la[k].n_in == lb[k].n_in &&
                   la[k].n_out == lb[k].n_out;
    }
    if (same)
        return DR_OK;
    return dr_fail(DR_EUSAGE, "%s is not what %s was made from: other sizes or linears",
                   hf_model_path(original), hf_model_path(q));
}

/* scale[D] = the original's norm before the slot over the rounded model's. */
static dr_status norm_scale(quant_recovery *r, float *scale, int layer, hf_norm which)
{
    const hf_config *c = hf_model_config(r->original);
    size_t n = (size_t)c->hidden;
    float *a = r->norms, *b = r->norms + n;
    dr_status st = DR_OK;

    for (size_t i = 0; i < n; i++)
        scale[i] = 1;
    if (!hf_norm_exists(c, which))
        goto done;
    DR_TRY(hf_norm_read(r->original, which, layer, a));
    DR_TRY(hf_norm_read(r->site->in, which, layer, b));
    for (size_t i = 0; i < n; i++)
        scale[i] = b[i] != 0 && isfinite(a[i] / b[i]) ? a[i] / b[i] : 1;
done:
    return st;
}

/* Any norm that is not the original's. */
static dr_status find_folds(quant_recovery *r)
{
    const hf_config *c = hf_model_config(r->original);
    static const hf_norm both[] = {HF_NORM_ATTN, HF_NORM_MLP};
    dr_status st = DR_OK;

    for (int layer = 0; layer < c->layers && !r->folded; layer++) {
        for (size_t k = 0; k < DR_COUNT(both); k++) {
            DR_TRY(norm_scale(r, r->in_scale, layer, both[k]));
            for (int i = 0; i < c->hidden; i++)
                r->folded = r->folded || r->in_scale[i] != 1;
        }
    }
done:
    return st;
}

dr_status quant_recovery_open(quant_recovery **out, const quant_site *site,
                              const hf_model *original, const quant_recover_options *o,
                              hf_adapter *adapter)
{
    const quant_widest widest = quant_widest_slot(hf_model_config(original));
    quant_recovery *r = dr_calloc(1, sizeof(*r));
    size_t linears = (size_t)hf_model_config(original)->layers * QUANT_LAYER_LINEARS;
    dr_status st = DR_OK;

    *out = r;
    *r = (quant_recovery){.site = site, .original = original, .o = o, .out = adapter};
    DR_TRY(same_models(site->in, original));
    adapter->path = dr_strdup(hf_model_path(original));
    adapter->r = o->r;
    adapter->alpha = o->r;
    adapter->modules = dr_calloc(linears, sizeof(*adapter->modules));
    DR_TRY(quant_floats(&r->in_scale, widest.in, 1, "scales"));
    DR_TRY(quant_floats(&r->row_scale, widest.out, 1, "scales"));
    DR_TRY(quant_floats(&r->after, widest.out, 1, "scales"));
    DR_TRY(quant_floats(&r->norms, 2, (size_t)hf_model_config(original)->hidden, "norms"));
    DR_TRY(quant_floats(&r->target, widest.weights, 1, "a slot's weights"));
    DR_TRY(quant_floats(&r->product, widest.weights, 1, "a slot's error"));
    DR_TRY(quant_floats(&r->factor, widest.in, widest.in, "factor of inputs"));
    DR_TRY(find_folds(r));
done:
    return st;
}

void quant_recovery_close(quant_recovery *r)
{
    if (r == NULL)
        return;
    float *all[] = {r->in_scale, r->row_scale, r->after, r->norms,
                    r->target,   r->product,   r->factor};

    for (size_t i = 0; i < DR_COUNT(all); i++)
        dr_big_free(all[i]);
    free(r);
}

/* ---- the target ---- */

/* Rows of the slot that may have been divided: V, and up; *from .. *end. */
static void scaled_rows(const hf_config *c, hf_slot slot, size_t *from, size_t *end)
{
    size_t n = hf_slot_out(c, slot);
    size_t kv = (size_t)c->kv_heads * (size_t)c->head_dim;

    *from = *end = n;
    if (slot == HF_SLOT_QKV)
        *from = n - kv;
    else if (slot == HF_SLOT_GATE_UP && c->gated)
        *from = n / 2;
}

/* in_scale of the slot: of the norm before it, or the inverse of the rows before it. */
static dr_status input_scale(quant_recovery *r, int layer, hf_slot slot)
{
    const hf_config *c = hf_model_config(r->original);
    size_t k = hf_slot_in(c, slot), dim = (size_t)c->head_dim, from = 0, end = 0;
    dr_status st = DR_OK;

    if (slot == HF_SLOT_QKV || slot == HF_SLOT_GATE_UP) {
        bool mlp = slot == HF_SLOT_GATE_UP && !c->parallel;
        DR_TRY(norm_scale(r, r->in_scale, layer, mlp ? HF_NORM_MLP : HF_NORM_ATTN));
        goto done;
    }
    scaled_rows(c, slot == HF_SLOT_O ? HF_SLOT_QKV : HF_SLOT_GATE_UP, &from, &end);
    for (size_t i = 0; i < k; i++) {
        size_t row = i;
        if (slot == HF_SLOT_O) /* query heads share a V head */
            row = i / dim / ((size_t)c->heads / (size_t)c->kv_heads) * dim + i % dim;
        r->in_scale[i] = from < end ? 1 / r->after[from + row] : 1;
    }
done:
    return st;
}

static double dot(const float *a, const float *b, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

/* row_scale: how much of the target's direction the rounded rows have, in the inputs'
 * norm. */
static dr_status find_rows(quant_recovery *r, const float *q, const float *h, hf_slot slot)
{
    const hf_config *c = hf_model_config(r->original);
    size_t n = hf_slot_out(c, slot), k = hf_slot_in(c, slot), from = 0, end = 0;
    bool far = false;
    dr_status st = DR_OK;

    for (size_t i = 0; i < n; i++)
        r->row_scale[i] = 1;
    scaled_rows(c, slot, &from, &end);
    if (!r->folded || from == end)
        goto done;
    DR_TRY(nn_matmul_nn(r->site->dev, r->product, r->target + from * k, h, end - from, k, k,
                        k, false));
    for (size_t i = from; i < end; i++) {
        const float *wh = r->product + (i - from) * k;
        double own = dot(wh, r->target + i * k, k), share = dot(wh, q + i * k, k) / own;
        if (own > 0 && share > 0 && isfinite(share))
            r->row_scale[i] = (float)share;
        far = far || fabs((double)r->row_scale[i] - 1) > ROW_NEAR;
    }
    for (size_t i = from; i < end && !far; i++)
        r->row_scale[i] = 1;
done:
    return st;
}

/* r->target[N][K] = the original's weights as the rounded model's inputs and rows have
 * them. */
static dr_status read_target(quant_recovery *r, const float *q, const float *h, int layer,
                             hf_slot slot)
{
    const quant_site original = {.dev = r->site->dev, .in = r->original};
    const hf_config *c = hf_model_config(r->original);
    size_t n = hf_slot_out(c, slot), k = hf_slot_in(c, slot);
    dr_status st = DR_OK;

    DR_TRY(quant_slot_read(&original, layer, slot, r->target, NULL));
    for (size_t i = 0; i < n * k; i++)
        r->target[i] *= r->in_scale[i % k];
    DR_TRY(find_rows(r, q, h, slot));
    for (size_t i = 0; i < n * k; i++)
        r->target[i] *= r->row_scale[i / k];
    if (slot == HF_SLOT_QKV || slot == HF_SLOT_GATE_UP)
        memcpy(r->after, r->row_scale, n * sizeof(*r->after));
done:
    return st;
}

/* ---- the factors ---- */

/* r->factor = the lower L of h damped, zeros above; *found false: there is none. */
static dr_status factorize(quant_recovery *r, const float *h, size_t n, bool *found)
{
    dr_status st = DR_OK;

    DR_TRY(quant_damped_factor(r->factor, found, r->site->dev, h, n, DAMPING));
    for (size_t i = 0; i < n; i++)
        memset(r->factor + i * n + i + 1, 0, (n - 1 - i) * sizeof(float));
done:
    return st;
}

/* b[N][r], a[r][K]: u_i and u_i^T d, the length of the latter shared by both. */
static void split(float *b, float *a, const float *u, const float *d, size_t n, size_t k,
                  size_t r)
{
    for (size_t i = 0; i < r; i++) {
        float *row = a + i * k;
        for (size_t j = 0; j < n; j++) {
            float f = u[i * n + j];
            for (size_t c = 0; c < k; c++)
                row[c] += f * d[j * k + c];
        }
        double half = sqrt(sqrt(dot(row, row, k)));
        for (size_t c = 0; c < k && half > 0; c++)
            row[c] = (float)((double)row[c] / half);
        for (size_t j = 0; j < n; j++)
            b[j * r + i] = (float)((double)u[i * n + j] * half);
    }
}

typedef struct {
    const quant_recovery *r;
    const hf_linear *linears;
    const hf_lora_module *modules;
    float *a[QUANT_LAYER_LINEARS], *b[QUANT_LAYER_LINEARS]; /* theirs; a zeroed */
    float *q;                                               /* [N][K]: B A is added */
} slot_job;

/* One linear: r->target holds its distance d from q, r->product d L. */
static dr_status linear_task(void *ctx, size_t task, int worker)
{
    const slot_job *j = ctx;
    const hf_linear *l = &j->linears[task];
    const hf_lora_module *mod = &j->modules[task];
    size_t n = l->n_out, k = l->n_in, r = (size_t)mod->r, at = l->row0 * k;
    double *s = dr_calloc(r, sizeof(*s));
    void *u = NULL;
    dr_status st = DR_OK;

    (void)worker;
    DR_TRY(dr_big_alloc(&u, r, n * sizeof(float), "left singular vectors"));
    DR_TRYF(dr_svd(s, u, NULL, j->r->product + at, n, k, r, SVD_CLOSE), "%s", l->path);
    split(j->b[task], j->a[task], u, j->r->target + at, n, k, r);
    DR_TRY(hf_merge_rows(j->q + at, mod, 0, n));
done:
    dr_big_free(u);
    free(s);
    return st;
}

static dr_status new_module(quant_recovery *r, const hf_linear *l, float **to_a,
                            float **to_b)
{
    hf_adapter *out = r->out;
    hf_lora_module *mod = &out->modules[out->count];
    size_t least = l->n_in < l->n_out ? l->n_in : l->n_out;
    void *a = NULL, *b = NULL;
    dr_status st = DR_OK;

    *mod = (hf_lora_module){.module = dr_arena_strdup(&out->arena, l->path),
                            .r = (size_t)r->o->r < least ? r->o->r : (int)least,
                            .scale = 1,
                            .n_in = l->n_in,
                            .n_out = l->n_out};
    DR_TRY(dr_arena_big(&out->arena, &a, (size_t)mod->r * l->n_in, sizeof(float), l->path));
    DR_TRY(
        dr_arena_big(&out->arena, &b, (size_t)mod->r * l->n_out, sizeof(float), l->path));
    memset(a, 0, (size_t)mod->r * l->n_in * sizeof(float));
    mod->a = *to_a = a;
    mod->b = *to_b = b;
    out->count++;
done:
    return st;
}

dr_status quant_recover_inputs(quant_recovery *r, quant_upstream *u, int layer,
                               hf_slot slot)
{
    u->scale = r->folded ? r->in_scale : NULL;
    return input_scale(r, layer, slot);
}

dr_status quant_recover_slot(quant_recovery *r, quant_upstream *u, float *q, const float *h,
                             int layer, hf_slot slot)
{
    size_t count = 0, n = hf_slot_out(hf_model_config(r->original), slot);
    size_t k = hf_slot_in(hf_model_config(r->original), slot);
    const hf_linear *l = quant_slot_linears(r->site->in, layer, slot, &count);
    bool found = false;
    dr_status st = DR_OK;

    DR_TRY(read_target(r, q, h, layer, slot));
    DR_TRY(quant_upstream_correct(u, r->target, h, slot, l->path));
    for (size_t i = 0; i < n * k; i++)
        r->target[i] -= q[i];
    DR_TRY(factorize(r, h, k, &found));
    if (!found) {
        dr_log(DR_INFO, "%s: no adapter: its inputs are 0", l->path);
        goto done;
    }
    DR_TRY(nn_matmul_nn(r->site->dev, r->product, r->target, r->factor, n, k, k, k, false));
    slot_job j = {.r = r, .linears = l, .modules = r->out->modules + r->out->count, .q = q};
    for (size_t i = 0; i < count; i++)
        DR_TRY(new_module(r, &l[i], &j.a[i], &j.b[i]));
    DR_TRY(dr_pool_run(nn_device_pool(r->site->dev), count, linear_task, &j));
done:
    return st;
}

bool quant_recovery_empty(const quant_recovery *r)
{
    for (size_t i = 0; i < r->out->count; i++) {
        const hf_lora_module *mod = &r->out->modules[i];
        if (dot(mod->b, mod->b, mod->n_out * (size_t)mod->r) > 0)
            return false;
    }
    return true;
}
