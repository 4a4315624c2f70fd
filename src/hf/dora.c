/*
 * dora.c - what a DoRA adapter multiplies the outputs of its modules with.
 *
 * For a row w of the base and the row b of B:  factor = magnitude / |w + scale b A|  (Liu
 * et al. 2024; peft.tuners.lora.dora.DoraLinearLayer.get_weight_norm).  The base may be
 * packed: peft takes the norm of what it unpacks to, and so does this.
 *
 * A row is one worker's: sums are in the same order for any number of threads.  The product
 * is n_out * r * n_in multiply-adds a module, 2 s a billion on one core.
 */
#include "core/log.h"
#include "core/mem.h"
#include "hf/roles_impl.h"

enum { ROWS = 16 }; /* a task's */

typedef struct {
    const hf_model *m;
    const hf_linear *l;
    const hf_lora_module *mod;
    float *factor; /* [n_out] */
    float *rows;   /* [threads][ROWS][n_in] */
} job;

static dr_status rows_task(void *ctx, size_t task, int worker)
{
    const job *j = ctx;
    const hf_lora_module *mod = j->mod;
    float *w = j->rows + (size_t)worker * ROWS * mod->n_in;
    size_t at = task * ROWS, count = mod->n_out - at < ROWS ? mod->n_out - at : ROWS;
    dr_status st = DR_OK;

    DR_TRY(hf_linear_read(j->m, j->l, w, at, count));
    hf_merge_delta(w, mod, at, count);
    for (size_t i = 0; i < count; i++)
        DR_TRY(hf_merged_factor(&j->factor[at + i], w + i * mod->n_in, mod, at + i));
done:
    return st;
}

static dr_status module_factors(hf_adapter *a, hf_lora_module *mod, const hf_model *m,
                                dr_pool *pool)
{
    job j = {.m = m, .l = hf_find_linear(m, mod->module), .mod = mod};
    size_t threads = (size_t)dr_pool_threads(pool);
    void *factor = NULL, *rows = NULL;
    dr_status st = DR_OK;

    DR_BUG_IF(j.l == NULL || j.l->n_out != mod->n_out || j.l->n_in != mod->n_in);
    DR_TRY(dr_arena_big(&a->arena, &factor, mod->n_out, sizeof(float), mod->module));
    DR_TRY(dr_big_alloc(&rows, threads * ROWS, mod->n_in * sizeof(float), mod->module));
    j.factor = factor;
    j.rows = rows;
    DR_TRY(dr_pool_run(pool, (mod->n_out + ROWS - 1) / ROWS, rows_task, &j));
    mod->factor = factor;
done:
    dr_big_free(rows);
    return st;
}

dr_status hf_adapter_factors(hf_adapter *a, const hf_model *m, dr_pool *pool)
{
    dr_status st = DR_OK;

    for (size_t i = 0; i < a->count && a->dora; i++) {
        DR_TRY(dr_cancelled_check());
        DR_TRYF(module_factors(a, &a->modules[i], m, pool), "the adapter %s", a->path);
    }
done:
    return st;
}
