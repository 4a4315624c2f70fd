/*
 * mix_cost.c - what each slot costs on each grid, from one pass of text through the
 * original model.
 *
 * A slot's error is weighed by what the rest of the model sees of it.  Every later block
 * reads the residual stream through a norm, so what counts is a token's error as a share
 * of the stream's square.  For the block's last linear (O, DOWN) that is its own error,
 * if each token of its Hessian is divided by |x|^2 behind the layer; this also keeps the
 * few tokens with huge activations from deciding alone.  For the linears before it, a
 * relative error of q, k, v, gate or up is taken for one as large of what the block adds:
 *
 *     cost = sum over the slot's linears of (e H e^T / w H w^T) * (|added|^2 / |x|^2)
 *
 * Errors are those of rounding to nearest: better solvers shrink all of them alike.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "quant/quant_impl.h"

enum { PARTS = 3 };

typedef struct {
    quant_stream s;
    nn_acts acts;
    nn_layer layer;
    float *packed[HF_SLOT_COUNT]; /* owned */
    float *strips[HF_SLOT_COUNT]; /* owned: Hessians being summed */
    float *full;                  /* owned: [K][K] */
    float *zero, *values;         /* owned: [N][K] */
    double *losses;               /* owned: [N] */
    double share[2];              /* what attention and MLP add to the stream */
} cost_run;

static void run_close(cost_run *r)
{
    for (int i = 0; i < HF_SLOT_COUNT; i++) {
        dr_big_free(r->packed[i]);
        dr_big_free(r->strips[i]);
    }
    dr_big_free(r->acts.x);
    dr_big_free(r->full);
    dr_big_free(r->zero);
    dr_big_free(r->values);
    free(r->losses);
    quant_stream_close(&r->s);
}

static dr_status run_open(cost_run *r, const quant_site *site, const quant_calib *calib)
{
    const hf_config *c = hf_model_config(site->in);
    const quant_widest widest = quant_widest_slot(c);
    dr_status st = DR_OK;

    DR_TRY(quant_stream_open(&r->s, site, calib, NULL));
    DR_TRY(quant_packed_slots(r->packed, site->dev, NULL, c));
    for (int i = 0; i < HF_SLOT_COUNT; i++) {
        size_t k = hf_slot_in(c, (hf_slot)i);
        DR_TRY(quant_floats(&r->strips[i], nn_gram_floats(k), 1, "Hessian"));
    }
    DR_TRY(quant_floats(&r->full, widest.in, widest.in, "Hessian"));
    DR_TRY(quant_floats(&r->zero, widest.weights, 1, "a slot's weights"));
    DR_TRY(quant_floats(&r->values, widest.weights, 1, "a slot's weights"));
    r->losses = dr_calloc(widest.out, sizeof(*r->losses));
    size_t step = r->s.step < calib->count ? r->s.step : calib->count;
    DR_TRY(nn_acts_new(&r->acts, c, step, calib->seq_len, 0));
done:
    return st;
}

/* ---- statistics ---- */

static double square(const float *v, const float *less, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++) {
        double d = (double)v[i] - (less != NULL ? (double)less[i] : 0);
        sum += d * d;
    }
    return sum;
}

static void divide(float *v, size_t n, double by)
{
    for (size_t i = 0; i < n; i++)
        v[i] = (float)((double)v[i] / by);
}

/* Adds to the shares and divides the inputs of O and DOWN by the stream's length. */
static void weigh_tokens(cost_run *r, const float *x, size_t m)
{
    const hf_config *c = r->s.cfg;
    size_t d = (size_t)c->hidden, hc = hf_slot_in(c, HF_SLOT_O);
    size_t inner = (size_t)c->intermediate;

    for (size_t i = 0; i < m; i++) {
        const float *in = r->acts.x + i * d, *mid = r->acts.mid + i * d, *out = x + i * d;
        double all = square(out, NULL, d);
        all = all > 0 ? all : 1;
        r->share[0] += square(mid, in, d) / all;
        r->share[1] += square(out, mid, d) / all;
        divide(r->acts.attn + i * hc, hc, sqrt(all));
        divide(r->acts.act + i * inner, inner, sqrt(all));
    }
}

static dr_status sum_layer(cost_run *r, int layer)
{
    const hf_config *c = r->s.cfg;
    nn_device *dev = r->s.site->dev;
    size_t t = r->s.calib.seq_len, count = r->s.calib.count;
    const float *const in[] = {r->acts.norm1, r->acts.attn, r->acts.norm2, r->acts.act};
    const nn_layer *w = NULL;
    dr_status st = DR_OK;

    DR_TRY(nn_decoder_layer(r->s.dec, layer, &w));
    DR_TRY(quant_pack_slots(&r->layer, r->packed, dev, c, w));
    r->share[0] = r->share[1] = 0;
    for (size_t i = 0; i < count; i += r->s.step) {
        size_t b = quant_stream_count(&r->s, i), m = b * t;
        float *x = r->s.x + i * t * (size_t)c->hidden;
        DR_TRY(dr_cancelled_check());
        DR_TRY(nn_layer_forward(r->s.dec, &r->layer, b, t, x, &r->acts, NULL, 0));
        weigh_tokens(r, x, m);
        for (int s = 0; s < HF_SLOT_COUNT; s++)
            DR_TRY(nn_rough_gram(dev, r->strips[s], in[s], m, hf_slot_in(c, (hf_slot)s),
                                 i == 0));
    }
    r->share[0] /= (double)(count * t);
    r->share[1] /= (double)(count * t);
done:
    return st;
}

/* ---- costs ---- */

/* Rows of q, k and v, of gate and up, whether the file has them fused or not. */
static size_t slot_parts(size_t rows[PARTS], const hf_config *c, hf_slot s)
{
    size_t hd = (size_t)c->head_dim, n = hf_slot_out(c, s);

    rows[0] = n;
    if (s == HF_SLOT_QKV) {
        rows[0] = (size_t)c->heads * hd;
        rows[1] = rows[2] = (size_t)c->kv_heads * hd;
        return 3;
    }
    if (s == HF_SLOT_GATE_UP && c->gated) {
        rows[0] = rows[1] = n / 2;
        return 2;
    }
    return 1;
}

/* sum[part] = the losses of its rows. */
static void sum_parts(double sum[PARTS], const cost_run *r, hf_slot s)
{
    size_t rows[PARTS] = {0}, n = slot_parts(rows, r->s.cfg, s), row = 0;

    for (size_t p = 0; p < n; p++) {
        sum[p] = 0;
        for (size_t i = 0; i < rows[p]; i++)
            sum[p] += r->losses[row++];
    }
}

static dr_status cost_slot(double *cost, cost_run *r, hf_slot s, const quant_grid *grids,
                           size_t count, const char *name)
{
    const hf_config *c = r->s.cfg;
    nn_device *dev = r->s.site->dev;
    size_t n = hf_slot_out(c, s), k = hf_slot_in(c, s), rows[PARTS] = {0};
    size_t parts = slot_parts(rows, c, s), block = 0;
    double energy[PARTS] = {0}, loss[PARTS] = {0};
    const float *w = r->layer.w[s];
    dr_qtensor q = {0};
    dr_status st = DR_OK;

    DR_TRY(quant_gram_expand(dev, r->full, r->strips[s], k, 1.0f));
    memset(r->zero, 0, n * k * sizeof(*r->zero));
    DR_TRY(quant_row_losses(r->losses, dev, w, r->zero, r->full, n, k));
    sum_parts(energy, r, s);
    for (size_t g = 0; g < count; g++) {
        quant_grid whole = grids[g];
        DR_TRY(quant_grid_block(&block, &whole, k, name));
        whole.group_size = (int)block;
        DR_TRY(quant_pack_rtn(&q, nn_device_pool(dev), w, n, k, &whole, true));
        dr_qtensor_to_f32(r->values, &q, 0, n);
        dr_qtensor_release(&q);
        DR_TRY(quant_row_losses(r->losses, dev, r->values, w, r->full, n, k));
        sum_parts(loss, r, s);
        cost[g] = 0;
        for (size_t p = 0; p < parts; p++)
            cost[g] += energy[p] > 0 ? fmax(loss[p], 0) / energy[p] : 0;
        cost[g] *= r->share[s == HF_SLOT_GATE_UP || s == HF_SLOT_DOWN];
    }
done:
    dr_qtensor_release(&q);
    return st;
}

dr_status quant_mix_costs(double *cost, const quant_site *site, const quant_grid *grids,
                          size_t count, const quant_calib *calib)
{
    int layers = hf_model_config(site->in)->layers;
    cost_run r = {0};
    dr_status st = DR_OK;

    DR_TRY(run_open(&r, site, calib));
    for (int i = 0; i < layers; i++) {
        DR_TRY(sum_layer(&r, i));
        for (int s = 0; s < HF_SLOT_COUNT; s++) {
            const char *name = quant_slot_linears(site->in, i, (hf_slot)s, NULL)->path;
            double *of = cost + ((size_t)i * HF_SLOT_COUNT + (size_t)s) * count;
            DR_TRYF(cost_slot(of, &r, (hf_slot)s, grids, count, name), "weighing %s", name);
            dr_log(DR_DEBUG, "%s: costs %.3g on its coarsest grid", name, of[0]);
        }
        if (site->progress != NULL)
            dr_progress_step(site->progress, (size_t)i + 1, NULL);
    }
done:
    run_close(&r);
    return st;
}
