/*
 * rtn.c - round to nearest on grids that need no data: each group's from its least and
 * greatest weight, or what a chooser (hqq.c, kquant.c) makes of it.
 *
 * One pass, bound by memory: a task reads 16 rows, turns them a group at a time, and packs.
 * Rows are independent, so any number of threads gives the same bytes.
 */
#include "core/mem.h"
#include "quant/quant_impl.h"

enum { L = QUANT_LANES };

typedef struct {
    dr_qtensor *q;
    quant_rule rule;
    quant_chooser choose; /* NULL: min and max */
    const float *w;       /* [rows][cols], or NULL: read from the model */
    const hf_model *m;    /* borrowed */
    const hf_linear *l;   /* borrowed */
    float *scratch;       /* owned: per worker 16 rows, a group's tile, its codes,
                           the chooser's */
    size_t worker_floats;
} rtn_job;

static dr_status pack_rows(void *ctx, size_t task, int worker)
{
    const rtn_job *job = ctx;
    const dr_qtensor *q = job->q;
    size_t row0 = task * L, rows = q->rows - row0 < L ? q->rows - row0 : L;
    size_t block = (size_t)q->block, cols = q->cols;
    float *own = job->scratch + (size_t)worker * job->worker_floats;
    float *tile = own + L * cols, *codes = tile + L * block;
    float lo[L], hi[L];
    const float *w = job->w == NULL ? own : job->w + row0 * cols;
    dr_status st = DR_OK;

    if (job->w == NULL)
        DR_TRY(hf_linear_read(job->m, job->l, own, row0, rows));
    for (size_t c = 0; c < cols; c += block) {
        size_t n = cols - c < block ? cols - c : block;
        quant_lanes g = {{0}, {0}};
        quant_tile_load(tile, w + c, cols, rows, n);
        if (!quant_tile_range(lo, hi, tile, n))
            DR_FAIL(DR_EFORMAT, "rows %zu to %zu hold a weight that is not finite", row0,
                    row0 + rows - 1);
        quant_rule_fit(&g, &job->rule, lo, hi);
        if (job->choose != NULL)
            job->choose(&g, &job->rule, tile, n, codes);
        quant_tile_codes(codes, &job->rule, &g, tile, n);
        quant_tile_pack(job->q, row0, rows, c / block, codes, n, &g);
    }
done:
    return st;
}

static dr_status pack_all(rtn_job *job, dr_pool *pool)
{
    const dr_qtensor *q = job->q;
    dr_status st = DR_OK;
    void *p = NULL;

    size_t tiles = job->choose == NULL ? 2 : 1 + QUANT_CHOOSER_TILES;
    job->worker_floats = L * q->cols + tiles * L * (size_t)q->block;
    DR_TRY(dr_big_alloc(&p, (size_t)dr_pool_threads(pool) * job->worker_floats,
                        sizeof(float), "rounding scratch"));
    job->scratch = p;
    DR_TRY(dr_pool_run(pool, (q->rows + L - 1) / L, pack_rows, job));
done:
    dr_big_free(p);
    return st;
}

static dr_status pack_matrix(dr_qtensor *out, dr_pool *pool, const float *w, size_t rows,
                             size_t cols, const quant_grid *grid, bool fp16_scales,
                             quant_chooser choose)
{
    rtn_job job = {.q = out, .rule = quant_rule_of(grid), .choose = choose, .w = w};
    dr_status st = DR_OK;

    job.rule.fp16_scales = fp16_scales;
    DR_TRY(dr_qtensor_new(out, quant_stored_bits(grid), grid->group_size, rows, cols,
                          grid->symmetric));
    DR_TRY(pack_all(&job, pool));
done:
    if (st != DR_OK)
        dr_qtensor_release(out);
    return st;
}

dr_status quant_pack_rtn(dr_qtensor *out, dr_pool *pool, const float *w, size_t rows,
                         size_t cols, const quant_grid *grid, bool fp16_scales)
{
    return pack_matrix(out, pool, w, rows, cols, grid, fp16_scales, NULL);
}

dr_status quant_pack_hqq(dr_qtensor *out, dr_pool *pool, const float *w, size_t rows,
                         size_t cols, const quant_grid *grid, bool fp16_scales)
{
    return pack_matrix(out, pool, w, rows, cols, grid, fp16_scales, quant_choose_hqq);
}

dr_status quant_round_rows(dr_qtensor *q, const quant_site *site, const quant_grid *grid,
                           quant_chooser choose, const hf_linear *l)
{
    rtn_job job = {
        .q = q, .rule = quant_rule_of(grid), .choose = choose, .m = site->in, .l = l};
    size_t block = 0;
    dr_status st = DR_OK;

    DR_TRY(dr_cancelled_check());
    DR_TRY(quant_grid_block(&block, grid, l->n_in, l->path));
    DR_TRY(dr_qtensor_new(q, quant_stored_bits(grid), (int)block, l->n_out, l->n_in,
                          grid->symmetric));
    DR_TRYF(pack_all(&job, nn_device_pool(site->dev)), "rounding %s", l->path);
done:
    return st;
}

dr_status quant_round_linear(const quant_site *site, const quant_grid *grid,
                             quant_chooser choose, const hf_linear *l)
{
    dr_qtensor q = {0};
    dr_status st = DR_OK;

    DR_TRY(quant_round_rows(&q, site, grid, choose, l));
    DR_TRY(hf_writer_packed(site->out, l, &q));
done:
    dr_qtensor_release(&q);
    return st;
}

dr_status quant_rtn(const quant_site *site, const quant_grid *grid)
{
    return quant_round_model(site, grid, NULL);
}

typedef struct {
    const quant_site *site;
    const quant_grid *grid;
    quant_chooser choose;
} model_job;

static dr_status round_layer(void *ctx, int layer)
{
    const model_job *job = ctx;
    const hf_linear *linears = NULL;
    size_t count = hf_layer_linears(job->site->in, layer, &linears);
    dr_status st = DR_OK;

    for (size_t k = 0; k < count; k++) {
        const quant_grid own = quant_grid_of(job->site, &linears[k], job->grid);
        if (!quant_is_plain(job->site, &linears[k]))
            DR_TRY(quant_round_linear(job->site, &own, job->choose, &linears[k]));
    }
done:
    return st;
}

dr_status quant_round_model(const quant_site *site, const quant_grid *grid,
                            quant_chooser choose)
{
    model_job job = {site, grid, choose};
    dr_status st = DR_OK;

    DR_TRY(quant_grid_check(grid));
    DR_TRY(quant_each_layer(site, NULL, 0, round_layer, &job));
    DR_TRY(quant_round_head(site, choose));
done:
    return st;
}
