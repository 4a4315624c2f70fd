/*
 * autoclip.c - weights clipped for a grid, without scales: the half of AWQ that Olive has
 * as a pass of its own, whose result is a float checkpoint for the next quantizer.
 *
 * Both ends of each group's range shrink by themselves, in steps of 1/n_grid down to
 * 1 - max_shrink; the pair whose rounded weights cost the group's outputs least stays, and
 * among equals the one that shrinks less, its lower end first.  The cost is e G e^T with
 * the group's block of X^T X, from all tokens of the original model: what Olive sums over a
 * sample of tokens.  Q, K and V stay, as there.
 */
#include <float.h>

#include "core/mem.h"
#include "quant/awq_impl.h"

enum { L = QUANT_LANES };

typedef struct {
    const quant_clip_options *o;
    quant_rule rule;
    float *w;           /* [rows][cols], clipped in place */
    const float *grams; /* [cols][gram] */
    size_t rows, cols, block, gram;
    float *scratch; /* owned: per worker a group's tile, clamped, its error */
} clip_job;

static float clamp(float v, float lo, float hi)
{
    v = v > lo ? v : lo;
    return v < hi ? v : hi;
}

static void clamp_tile(float *to, const float *tile, const float *lo, const float *hi,
                       size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (int l = 0; l < L; l++)
            to[i * L + l] = clamp(tile[i * L + l], lo[l], hi[l]);
    }
}

/* loss[lane] of the tile clamped to lo..hi, rounded on its own grid. */
static void clip_loss(float *loss, const clip_job *job, const float *tile, const float *lo,
                      const float *hi, const float *gram, float *clamped)
{
    size_t n = job->block, m = job->gram;
    float *err = clamped + n * L, lo_c[L], hi_c[L];
    quant_lanes g = {{0}, {0}};

    clamp_tile(clamped, tile, lo, hi, n);
    (void)quant_tile_range(lo_c, hi_c, clamped, n);
    quant_rule_fit(&g, &job->rule, lo_c, hi_c);
    quant_tile_error(err, &job->rule, &g, clamped, n);
    for (size_t i = 0; i < n * L; i++)
        err[i] += clamped[i] - tile[i];
    for (int l = 0; l < L; l++)
        loss[l] = 0;
    for (size_t c = 0; c < n; c += m)
        quant_tile_quad(loss, err + c * L, gram + c * m, m, m);
}

static void search(float *lo_best, float *hi_best, const clip_job *job, const float *tile,
                   const float *gram, float *scratch)
{
    int steps = (int)(job->o->max_shrink * job->o->n_grid);
    float lo[L], hi[L], lo_i[L], hi_i[L], loss[L], least[L];

    (void)quant_tile_range(lo, hi, tile, job->block);
    for (int l = 0; l < L; l++) {
        lo_best[l] = lo[l];
        hi_best[l] = hi[l];
        least[l] = FLT_MAX;
    }
    for (int i = 0; i < steps * steps; i++) {
        float keep_hi = (float)(1.0 - (double)(i / steps) / job->o->n_grid);
        float keep_lo = (float)(1.0 - (double)(i % steps) / job->o->n_grid);
        for (int l = 0; l < L; l++) {
            lo_i[l] = lo[l] * keep_lo;
            hi_i[l] = hi[l] * keep_hi;
        }
        clip_loss(loss, job, tile, lo_i, hi_i, gram, scratch);
        for (int l = 0; l < L; l++) {
            if (!(loss[l] < least[l]))
                continue;
            least[l] = loss[l];
            lo_best[l] = lo_i[l];
            hi_best[l] = hi_i[l];
        }
    }
}

static dr_status clip_tile(void *ctx, size_t task, int worker)
{
    const clip_job *job = ctx;
    size_t n = job->block, row0 = task * L;
    size_t rows = job->rows - row0 < L ? job->rows - row0 : L;
    float *tile = job->scratch + (size_t)worker * 3 * n * L, lo[L], hi[L];

    for (size_t c = 0; c < job->cols; c += n) {
        float *w = job->w + row0 * job->cols + c;
        quant_tile_load(tile, w, job->cols, rows, n);
        search(lo, hi, job, tile, job->grams + c * job->gram, tile + n * L);
        clamp_tile(tile, tile, lo, hi, n);
        quant_tile_unload(w, job->cols, rows, tile, n);
    }
    return DR_OK;
}

dr_status quant_clip_weight(nn_device *dev, float *w, const float *grams, size_t rows,
                            size_t cols, size_t block, const quant_rule *rule,
                            const quant_clip_options *o)
{
    clip_job job = {.o = o,
                    .rule = *rule,
                    .w = w,
                    .grams = grams,
                    .rows = rows,
                    .cols = cols,
                    .block = block,
                    .gram = quant_gram_cols(block)};
    dr_pool *pool = nn_device_pool(dev);
    dr_status st = DR_OK;

    DR_TRY(quant_floats(&job.scratch, (size_t)dr_pool_threads(pool), 3 * block * L,
                        "clip scratch"));
    DR_TRY(dr_pool_run(pool, (rows + L - 1) / L, clip_tile, &job));
done:
    dr_big_free(job.scratch);
    return st;
}

static dr_status clip_slot(awq_run *r, int layer, hf_slot s, const quant_clip_options *o)
{
    const quant_site *site = r->s.site;
    awq_slot *slot = &r->slot[s];
    size_t count = 0;
    const hf_linear *l = quant_slot_linears(site->in, layer, s, &count);
    float *w = r->fake;
    dr_status st = DR_OK;

    DR_TRY(dr_cancelled_check());
    DR_TRY(quant_slot_read(site, layer, s, w, NULL));
    DR_TRYF(quant_clip_weight(site->dev, w, slot->grams, slot->n, slot->k, slot->block,
                              &r->rule, o),
            "clipping %s", l->path);
    for (size_t i = 0; i < count; i++)
        DR_TRY(hf_writer_linear(site->out, &l[i], w + l[i].row0 * slot->k));
done:
    return st;
}

typedef struct {
    awq_run run;
    const quant_clip_options *o;
} clip_run;

static dr_status clip_layer(void *ctx, int layer)
{
    clip_run *c = ctx;
    dr_status st = DR_OK;

    DR_TRY(awq_run_layer(&c->run, layer));
    DR_TRY(clip_slot(&c->run, layer, HF_SLOT_O, c->o));
    DR_TRY(clip_slot(&c->run, layer, HF_SLOT_GATE_UP, c->o));
    DR_TRY(clip_slot(&c->run, layer, HF_SLOT_DOWN, c->o));
done:
    return st;
}

dr_status quant_clip(const quant_site *site, const quant_grid *grid,
                     const quant_calib *calib, const quant_clip_options *o)
{
    const quant_awq_options awq = {.clip = true};
    clip_run c = {.o = o};
    dr_status st = DR_OK;

    DR_TRY(awq_run_open(&c.run, site, grid, calib, &awq, NULL));
    DR_TRY(
        quant_each_layer(site, c.run.s.x, quant_stream_floats(&c.run.s), clip_layer, &c));
done:
    awq_run_close(&c.run);
    return st;
}
