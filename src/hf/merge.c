/*
 * merge.c - adapters folded into the weights of their base, a linear at a time.
 *
 * In float, rounded once to the type that is written: peft rounds the delta first, and
 * adds in the weight's type.  A row is one worker's, so that sums have one order.  The
 * product is n_out * r * n_in multiply-adds a module.
 */
#include <math.h>

#include "core/log.h"
#include "core/mem.h"
#include "hf/peft_impl.h"

enum { ROWS = 16 }; /* a task's */

/* w[n_in] += scale times the row b[r] of B times A. */
static void add_row(float *w, const hf_lora_module *mod, const float *b)
{
    for (int j = 0; j < mod->r; j++) {
        float s = mod->scale * b[j];
        const float *a = mod->a + (size_t)j * mod->n_in;
        for (size_t k = 0; k < mod->n_in; k++)
            w[k] += s * a[k];
    }
}

static double length(const float *w, size_t n)
{
    double sum = 0;

    for (size_t k = 0; k < n; k++)
        sum += (double)w[k] * (double)w[k];
    return sqrt(sum);
}

dr_status hf_merged_factor(float *factor, const float *w, const hf_lora_module *mod,
                           size_t row)
{
    double n = length(w, mod->n_in);

    if (!isfinite(n) || n == 0)
        return dr_fail(DR_EFORMAT,
                       "%s: the weights of output %zu have the norm %g: no DoRA",
                       mod->module, row, n);
    *factor = (float)((double)mod->magnitude[row] / n);
    return DR_OK;
}

void hf_merge_delta(float *w, const hf_lora_module *mod, size_t row0, size_t count)
{
    for (size_t i = 0; i < count && mod->kind != HF_ADAPTER_LORA; i++)
        hf_lycoris_add_row(w + i * mod->n_in, mod, row0 + i);
    for (size_t i = 0; i < count && mod->kind == HF_ADAPTER_LORA; i++)
        add_row(w + i * mod->n_in, mod, mod->b + (row0 + i) * (size_t)mod->r);
}

dr_status hf_merge_rows(float *w, const hf_lora_module *mod, size_t row0, size_t count)
{
    float factor = 1;
    dr_status st = DR_OK;

    DR_BUG_IF(row0 + count > mod->n_out);
    hf_merge_delta(w, mod, row0, count);
    for (size_t i = 0; i < count && mod->magnitude != NULL; i++) {
        float *row = w + i * mod->n_in;
        DR_TRY(hf_merged_factor(&factor, row, mod, row0 + i));
        for (size_t k = 0; k < mod->n_in; k++)
            row[k] *= factor;
    }
done:
    return st;
}

/* ---- a whole adapter ---- */

typedef struct {
    const hf_model *m;
    const hf_linear *l;
    const hf_lora_module *mod;
    float *w; /* [n_out][n_in] */
} job;

static dr_status rows_task(void *ctx, size_t task, int worker)
{
    const job *j = ctx;
    size_t at = task * ROWS, left = j->l->n_out - at, n = left < ROWS ? left : ROWS;
    float *w = j->w + at * j->l->n_in;
    dr_status st = DR_OK;

    (void)worker;
    DR_TRY(hf_linear_read(j->m, j->l, w, at, n));
    DR_TRY(hf_merge_rows(w, j->mod, at, n));
done:
    return st;
}

static dr_status merge_module(hf_writer *out, const hf_lora_module *mod, const hf_model *m,
                              dr_pool *pool)
{
    job j = {.m = m, .l = hf_find_linear(m, mod->module), .mod = mod};
    void *w = NULL;
    dr_status st = DR_OK;

    DR_BUG_IF(j.l == NULL || j.l->n_out != mod->n_out || j.l->n_in != mod->n_in);
    DR_TRY(dr_big_alloc(&w, mod->n_out, mod->n_in * sizeof(float), mod->module));
    j.w = w;
    DR_TRY(dr_pool_run(pool, (mod->n_out + ROWS - 1) / ROWS, rows_task, &j));
    DR_TRY(hf_writer_linear(out, j.l, w));
done:
    dr_big_free(w);
    return st;
}

dr_status hf_merge_adapter(hf_writer *w, const hf_adapter *a, const hf_model *m,
                           dr_pool *pool)
{
    dr_progress progress;
    dr_status st = DR_OK;

    dr_progress_begin(&progress, "merging", "modules", a->count);
    for (size_t i = 0; i < a->count; i++) {
        DR_TRY(dr_cancelled_check());
        DR_TRYF(merge_module(w, &a->modules[i], m, pool), "merging %s into %s", a->path,
                hf_model_path(m));
        dr_progress_step(&progress, i + 1, NULL);
    }
    dr_progress_end(&progress);
done:
    return st;
}
