/*
 * start.c - adapters that begin as a part of the base, as PEFT begins them.
 *
 *     PiSSA (Meng et al. 2024)   W = U S V^T:  A = sqrt(S_r / s) V_r^T
 *                                              B = U_r sqrt(S_r / s)
 *     LoftQ (Li et al. 2023)     Q = round(W - B A);  B A = the best of rank r to W - Q
 *
 * PiSSA's base is what is left, W - s B A.  Here that is not written: the start stands
 * beside the adapter with the scale -s (adapter_state.c), which is the same sum, and the
 * adapter that is shipped has both, so that it fits the base that it was given.
 *
 * LoftQ's base is the last Q.  Its factors do not know the adapter's scale, as in PEFT.
 *
 * A module is one worker's, so that bytes do not depend on the number of threads.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/svd.h"
#include "train/train_impl.h"

static const double TOLERANCE = 1e-10; /* of dr_svd: vectors to compare with LAPACK's */

typedef struct {
    const hf_model *m;
    const train_options *o;
    const hf_linear *linears; /* a layer's */
    hf_lora_module **mods;    /* its modules, by linear; NULL: none */
    float **values;           /* by linear: the module's A, and B behind it */
    float **rest;             /* by linear, for LoftQ's base: W - B A before the last Q */
} job;

/* Largest part of rank r of w[n_out][n_in], each half with the square roots of values over
 * `scale`, into a[r][n_in] and b[n_out][r]. */
static dr_status factors(float *a, float *b, const float *w, const hf_lora_module *mod,
                         double scale, const train_options *o)
{
    size_t r = (size_t)mod->r, m = mod->n_out, n = mod->n_in;
    double *s = dr_calloc(r, sizeof(*s));
    void *u = NULL;
    dr_status st = DR_OK;

    if (r > (m < n ? m : n))
        DR_FAIL(DR_EUSAGE,
                "%s: a rank of %zu, its weights [%zu, %zu] have no more than %zu",
                mod->module, r, m, n, m < n ? m : n);
    DR_TRY(dr_big_alloc(&u, r * m, sizeof(float), "singular vectors"));
    if (o->pissa_niter > 0)
        DR_TRYF(dr_svd_lowrank(s, u, a, w, m, n, r, o->pissa_niter, o->seed), "%s",
                mod->module);
    else
        DR_TRYF(dr_svd(s, u, a, w, m, n, r, TOLERANCE), "%s", mod->module);
    for (size_t i = 0; i < r; i++) {
        float root = (float)sqrt(s[i] / scale);
        for (size_t k = 0; k < n; k++)
            a[i * n + k] *= root;
        for (size_t k = 0; k < m; k++)
            b[k * r + i] = ((const float *)u)[i * m + k] * root;
    }
done:
    dr_big_free(u);
    free(s);
    return st;
}

/* rest = w - B A */
static void less(float *rest, const float *w, const float *a, const float *b,
                 const hf_lora_module *mod)
{
    size_t n = mod->n_in, r = (size_t)mod->r;

    memcpy(rest, w, mod->n_out * n * sizeof(*rest));
    for (size_t i = 0; i < mod->n_out; i++)
        for (size_t j = 0; j < r; j++)
            for (size_t k = 0; k < n; k++)
                rest[i * n + k] -= b[i * r + j] * a[j * n + k];
}

/* What is rounded the last time is left in rest. */
static dr_status loftq(const job *j, float *a, float *b, float *w, float *rest,
                       const hf_lora_module *mod)
{
    size_t count = mod->n_out * mod->n_in;
    const hf_bnb nf4 = {false, false};
    void *error = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_big_alloc(&error, count, sizeof(float), mod->module));
    float *e = error;
    memcpy(rest, w, count * sizeof(*rest));
    for (int i = 0; i < j->o->loftq_iter; i++) {
        if (i > 0)
            less(rest, w, a, b, mod);
        memcpy(e, rest, count * sizeof(*e));
        hf_bnb_round(e, count, &nf4);
        for (size_t k = 0; k < count; k++)
            e[k] = w[k] - e[k];
        DR_TRY(factors(a, b, e, mod, 1, j->o));
    }
done:
    dr_big_free(error);
    return st;
}

static dr_status module_task(void *ctx, size_t task, int worker)
{
    const job *j = ctx;
    const hf_linear *l = &j->linears[task];
    const hf_lora_module *mod = j->mods[task];
    void *w = NULL;
    dr_status st = DR_OK;

    (void)worker;
    if (mod == NULL)
        return DR_OK;
    DR_TRY(dr_big_alloc(&w, l->n_out * l->n_in, sizeof(float), l->path));
    DR_TRY(hf_linear_read(j->m, l, w, 0, l->n_out));
    float *a = j->values[task], *b = a + (size_t)mod->r * mod->n_in;
    if (j->rest != NULL)
        DR_TRY(loftq(j, a, b, w, j->rest[task], mod));
    else
        DR_TRY(factors(a, b, w, mod, (double)mod->scale, j->o));
done:
    dr_big_free(w);
    return st;
}

/* A layer's modules get values; *next: its first one in the adapter. */
static dr_status layer_start(job *j, hf_adapter *ad, size_t *next, int layer, dr_pool *pool,
                             hf_writer *out)
{
    size_t count = hf_layer_linears(j->m, layer, &j->linears);
    dr_arena a = {0};
    dr_status st = DR_OK;

    j->mods = dr_arena_alloc(&a, count, sizeof(hf_lora_module *));
    j->values = dr_arena_alloc(&a, count, sizeof(float *));
    j->rest = out != NULL ? dr_arena_alloc(&a, count, sizeof(float *)) : NULL;
    for (size_t i = 0; i < count && *next < ad->count; i++) {
        hf_lora_module *mod = &ad->modules[*next];
        void *p = NULL;
        if (strcmp(mod->module, j->linears[i].path) != 0)
            continue;
        size_t na = (size_t)mod->r * mod->n_in, nb = mod->n_out * (size_t)mod->r;
        DR_TRY(dr_arena_big(&ad->arena, &p, na + nb, sizeof(float), mod->module));
        j->values[i] = p;
        mod->a = p;
        mod->b = mod->a + na;
        if (out != NULL) {
            DR_TRY(
                dr_arena_big(&a, &p, mod->n_out * mod->n_in, sizeof(float), mod->module));
            j->rest[i] = p;
        }
        j->mods[i] = mod;
        ++*next;
    }
    DR_TRY(dr_pool_run(pool, count, module_task, j));
    for (size_t i = 0; i < count && out != NULL; i++)
        if (j->rest[i] != NULL)
            DR_TRY(hf_writer_linear(out, &j->linears[i], j->rest[i]));
done:
    dr_arena_release(&a);
    return st;
}

dr_status train_start(hf_adapter *ad, const hf_model *m, const train_options *o,
                      dr_pool *pool, hf_writer *out)
{
    int layers = hf_model_config(m)->layers;
    job j = {.m = m, .o = o};
    dr_progress progress;
    size_t next = 0;
    dr_status st = DR_OK;

    dr_progress_begin(&progress, "starting the adapter", "layers", (size_t)layers);
    for (int layer = 0; layer < layers; layer++) {
        DR_TRY(dr_cancelled_check());
        DR_TRY(layer_start(&j, ad, &next, layer, pool, out));
        dr_progress_step(&progress, (size_t)layer + 1, NULL);
    }
    dr_progress_end(&progress);
done:
    return st;
}

dr_status train_loftq(hf_adapter *start, const hf_model *m, const train_options *o,
                      dr_pool *pool, hf_writer *out)
{
    dr_status st = DR_OK;

    *start = (hf_adapter){0};
    DR_TRY(train_fresh_modules(start, m, o));
    DR_TRY(train_start(start, m, o, pool, out));
done:
    if (st != DR_OK)
        hf_adapter_release(start);
    return st;
}
