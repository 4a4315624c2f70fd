/*
 * upstream.c - what the layers before a slot have done to its inputs, which it takes back.
 *
 * The text runs a second time, through the original weights.  With x the inputs of a slot
 * behind everything that is rounded, x~ those of the original, and d the difference between
 * the two residual streams that O and DOWN add to, the slot should give
 *
 *     W x~ + d        and not        W x.
 *
 * The weight whose outputs for x are closest to that in least squares is
 *
 *     W + (W sum (x~ - x) x^T + sum d x^T) (H + damping)^-1,        H = sum x x^T,
 *
 * and W with a share of that is what gets rounded.  (GPTAQ, Li et al. 2025, has the first
 * of the two sums, column by column within its sweep; a target that stands before the
 * sweep serves the searches behind it, too.)
 *
 * A half of it is better than all: a part of the difference is noise that later layers
 * average out, and what is fitted to little text is that text's.  For the same reason the
 * damping is ten times GPTQ's, and the share smaller by K / T, the numbers that are fitted
 * for each token.  SmolLM2-135M, group 64, gptq on 131,000 tokens of prose, KL on other
 * prose: 0.0655 without, 0.0578 with all of the first sum, 0.0528 with all of both, 0.0479
 * with half of both.
 *
 * d is left out where something stands between the product and the residual stream (a norm,
 * a multiplier), and in a parallel layer, whose two products share one difference.
 */
#include <string.h>

#include "core/mem.h"
#include "quant/gptq_impl.h"

enum { SIDE = 16 };

#define DAMPING 0.1

/* The original's stream lies behind the other in one block: a resuming run reads one. */
static dr_status double_stream(quant_upstream *u, quant_stream *s, size_t floats)
{
    float *both = NULL;
    dr_status st = DR_OK;

    DR_TRY(quant_floats_at(s->mem, &both, 2, floats, "the original's inputs"));
    DR_TRY(nn_copy(s->site->dev, both, s->x, floats * sizeof(*both)));
    nn_mem_free(s->mem, s->x);
    s->x = both;
    u->x = both + floats;
    DR_TRY(quant_stream_embed(s, u->dec, u->x));
done:
    return st;
}

dr_status quant_upstream_open(quant_upstream *u, quant_stream *s, const hf_model *original,
                              double share, float *wide)
{
    const hf_config *c = s->cfg;
    size_t t = s->calib.seq_len, tokens = s->calib.count * t, m = s->step * t;
    size_t d = (size_t)c->hidden;
    const quant_widest widest = quant_widest_slot(c);
    nn_device *mem = s->mem;
    dr_status st = DR_OK;

    *u = (quant_upstream){0};
    if (share <= 0)
        return DR_OK;
    u->s = s;
    u->share = share;
    u->original = original;
    u->wide = wide;
    m = m < tokens ? m : tokens;
    DR_TRY(quant_decoder_open(&u->dec, s->site->dev, mem, original));
    DR_TRY(double_stream(u, s, tokens * d));
    DR_TRY(quant_acts_at(mem, &u->attn, tokens, hf_slot_in(c, HF_SLOT_O),
                         "attention outputs"));
    DR_TRY(quant_acts_at(mem, &u->h, m, d, "norm outputs"));
    DR_TRY(quant_acts_at(mem, &u->act, m, (size_t)c->intermediate, "activations"));
    DR_TRY(quant_floats_at(mem, &u->cross, widest.in, widest.in, "sums of differences"));
    DR_TRY(quant_floats_at(mem, &u->drift, d, widest.in, "sums of differences"));
    DR_TRY(quant_floats_at(mem, &u->rhs, widest.weights, 1, "a slot's correction"));
    DR_TRY(quant_packed_slots(u->packed, s->site->dev, mem, c));
    for (hf_slot k = 0; k < HF_SLOT_COUNT; k++)
        DR_TRY(quant_floats(&u->bias[k], hf_slot_out(c, k), 1, "biases"));
done:
    return st;
}

void quant_upstream_close(quant_upstream *u)
{
    float *all[] = {u->attn, u->h, u->act, u->turned, u->in, u->cross, u->drift, u->rhs};

    nn_device *mem = u->s != NULL ? u->s->mem : NULL;

    for (size_t i = 0; i < DR_COUNT(all); i++)
        nn_mem_free(mem, all[i]);
    for (int i = 0; i < HF_SLOT_COUNT; i++) {
        nn_mem_free(mem, u->packed[i]);
        dr_big_free(u->bias[i]);
    }
    nn_decoder_close(u->dec);
    *u = (quant_upstream){0};
}

/* The slot's weights are about to be multiplied.  The host has no room for a layer as
 * floats, and while a slot is solved none for the original's. */
static dr_status want_slot(quant_upstream *u, hf_slot s)
{
    size_t n = hf_slot_out(u->s->cfg, s), k = hf_slot_in(u->s->cfg, s);
    quant_site site = *u->s->site;
    int layer = u->layer.index;
    dr_status st = DR_OK;

    if (u->s->mem != NULL || u->layer.rough[s] != NULL)
        return DR_OK;
    site.in = u->original;
    DR_TRY(quant_slot_read(&site, layer, s, u->rhs, u->bias[s]));
    DR_TRY(nn_rough_pack(site.dev, u->packed[s], u->rhs, n, k));
    nn_mem_idle(NULL, u->rhs, n * k);
    if (quant_slot_linears(site.in, layer, s, NULL)->has_bias)
        u->layer.bias[s] = u->bias[s];
    u->layer.rough[s] = u->packed[s];
done:
    return st;
}

/* It is not needed again in this layer. */
static void leave_slot(quant_upstream *u, hf_slot s)
{
    size_t n = hf_slot_out(u->s->cfg, s), k = hf_slot_in(u->s->cfg, s);

    if (u->s->mem == NULL && u->layer.rough[s] != NULL)
        nn_mem_idle(NULL, u->packed[s],
                    nn_rough_bytes(u->s->site->dev, n, k) / sizeof(float));
}

dr_status quant_upstream_layer(quant_upstream *u, int layer)
{
    const nn_layer *l = NULL;
    dr_status st = DR_OK;

    if (u->s == NULL)
        return DR_OK;
    if (u->s->mem == NULL) {
        DR_TRY(nn_decoder_norms(u->dec, layer, &l));
        u->layer = *l;
        goto done;
    }
    DR_TRY(nn_decoder_layer(u->dec, layer, &l));
    DR_TRY(quant_pack_slots(&u->layer, u->packed, u->s->site->dev, u->s->cfg, l));
done:
    return st;
}

/* ---- the original, slot by slot ---- */

/* *in = the slot's inputs for m rows of the residual stream x; GATE_UP adds O's outputs to
 * it first. */
static dr_status original_inputs(quant_upstream *u, const float **in, hf_slot slot,
                                 float *x, float *attn, size_t m)
{
    const nn_layer *l = &u->layer;
    size_t t = u->s->calib.seq_len;
    bool parallel = u->s->cfg->parallel,
         mlp = slot == HF_SLOT_GATE_UP || slot == HF_SLOT_DOWN;
    dr_status st = DR_OK;

    if (slot == HF_SLOT_GATE_UP && !parallel) {
        DR_TRY(want_slot(u, HF_SLOT_O));
        DR_TRY(nn_layer_residual(u->dec, l, HF_SLOT_O, x, attn, m));
    }
    DR_TRY(nn_layer_norm(u->dec, l, mlp && !parallel ? HF_NORM_MLP : HF_NORM_ATTN, u->h, x,
                         m));
    *in = u->h;
    if (slot == HF_SLOT_O) {
        DR_TRY(want_slot(u, HF_SLOT_QKV));
        DR_TRY(nn_layer_linear(u->dec, l, HF_SLOT_QKV, u->wide, u->h, m, false));
        DR_TRY(nn_layer_attend(u->dec, l, attn, u->wide, m / t, t));
        *in = attn;
    } else if (slot == HF_SLOT_DOWN) {
        DR_TRY(want_slot(u, HF_SLOT_GATE_UP));
        DR_TRY(nn_layer_up(u->dec, l, u->act, u->wide, u->h, m));
        *in = u->act;
    }
done:
    return st;
}

/* The last slot's inputs are there: the layer ends. */
static dr_status original_output(quant_upstream *u, float *x, const float *attn, size_t m)
{
    dr_status st = DR_OK;

    if (u->s->cfg->parallel) {
        DR_TRY(want_slot(u, HF_SLOT_O));
        DR_TRY(nn_layer_residual(u->dec, &u->layer, HF_SLOT_O, x, attn, m));
    }
    DR_TRY(want_slot(u, HF_SLOT_DOWN));
    DR_TRY(nn_layer_residual(u->dec, &u->layer, HF_SLOT_DOWN, x, u->act, m));
done:
    return st;
}

/* ---- sums ---- */

typedef struct {
    float *out;         /* [n][m] */
    const float *a, *b; /* [m][n]; b may be NULL */
    const float *scale; /* [n] a is divided by; NULL: nothing */
    size_t m, n;
} turn_job;

static float of_both(const turn_job *j, size_t at, size_t column)
{
    float a = j->scale != NULL ? j->a[at] / j->scale[column] : j->a[at];

    return j->b != NULL ? a - j->b[at] : a;
}

/* By squares: columns of a chunk lie a power of two apart, where caches see one line. */
static dr_status turn_columns(void *ctx, size_t task, int worker)
{
    const turn_job *j = ctx;
    size_t from = task * SIDE, cols = j->n - from < SIDE ? j->n - from : SIDE;
    float square[SIDE][SIDE];

    (void)worker;
    for (size_t r = 0; r < j->m; r += SIDE) {
        size_t rows = j->m - r < SIDE ? j->m - r : SIDE;
        for (size_t i = 0; i < rows; i++) {
            size_t at = (r + i) * j->n + from;
            for (size_t k = 0; k < cols; k++)
                square[k][i] = of_both(j, at + k, from + k);
        }
        for (size_t k = 0; k < cols; k++)
            memcpy(j->out + (from + k) * j->m + r, square[k], rows * sizeof(float));
    }
    return DR_OK;
}

/* u->turned[n][m] = (a / scale - b)[m][n]^T */
static dr_status turn(quant_upstream *u, const float *a, const float *b, const float *scale,
                      size_t m, size_t n)
{
    if (u->s->mem != NULL)
        return nn_turn_columns(u->s->mem, u->turned, a, b, scale, m, n);
    return dr_pool_run(nn_device_pool(u->s->site->dev), (n + SIDE - 1) / SIDE, turn_columns,
                       &(turn_job){u->turned, a, b, scale, m, n});
}

/* in[m][k], a chunk's inputs of the slot; packed: they are in u->in, by columns. */
typedef struct {
    const float *in;
    size_t m, k;
    bool packed;
} chunk_inputs;

/* Where inputs are turned and packed, which not every device needs. */
static dr_status turning_room(quant_upstream *u)
{
    const quant_stream *s = u->s;
    const size_t in = quant_widest_slot(s->cfg).in, t = s->calib.seq_len;
    const size_t m = (s->step < s->calib.count ? s->step : s->calib.count) * t;
    dr_status st = DR_OK;

    if (u->in != NULL)
        return DR_OK;
    DR_TRY(quant_floats_at(s->mem, &u->turned, in, m, "inputs by columns"));
    DR_TRY(quant_floats_at(s->mem, &u->in,
                           nn_rough_bytes(s->site->dev, in, m) / sizeof(float), 1,
                           "packed inputs"));
done:
    return st;
}

/* sum[n][k] = or, not first, += (a / scale - b)[m][n]^T times the inputs. */
static dr_status add_product(quant_upstream *u, float *sum, const float *a, const float *b,
                             const float *scale, size_t n, chunk_inputs *c, bool first)
{
    nn_device *dev = u->s->site->dev;
    bool taken = false;
    dr_status st = DR_OK;

    DR_TRY(nn_rough_cross(dev, &taken, sum, a, b, scale, c->in, c->m, n, c->k, first));
    if (taken)
        return DR_OK;
    DR_TRY(turning_room(u));
    if (!c->packed) {
        DR_TRY(turn(u, c->in, NULL, NULL, c->m, c->k));
        DR_TRY(nn_rough_pack(dev, u->in, u->turned, c->k, c->m));
        c->packed = true;
    }
    DR_TRY(turn(u, a, b, scale, c->m, n));
    DR_TRY(nn_rough_matmul(dev, sum, u->turned, u->in, NULL, n, c->k, c->m, c->k, !first));
done:
    return st;
}

/* Is what the slot gives added to the residual stream as it is? */
static bool adds_plainly(const quant_upstream *u, hf_slot slot)
{
    return (slot == HF_SLOT_O || slot == HF_SLOT_DOWN) &&
           u->layer.norm[slot == HF_SLOT_O ? HF_NORM_ATTN_OUT : HF_NORM_MLP_OUT] == NULL &&
           u->s->cfg->residual_scale == 1 && !u->s->cfg->parallel;
}

dr_status quant_upstream_add(quant_upstream *u, hf_slot slot, const float *in,
                             const float *x, size_t i, size_t m)
{
    const float *orig = NULL;
    dr_status st = DR_OK;

    if (u->s == NULL)
        return DR_OK;
    size_t d = (size_t)u->s->cfg->hidden, k = hf_slot_in(u->s->cfg, slot);
    chunk_inputs inputs = {.in = in, .m = m, .k = k};
    size_t row0 = i * u->s->calib.seq_len;
    float *own = u->x + row0 * d, *attn = u->attn + row0 * hf_slot_in(u->s->cfg, HF_SLOT_O);

    DR_TRY(original_inputs(u, &orig, slot, own, attn, m));
    DR_TRY(add_product(u, u->cross, orig, in, u->scale, k, &inputs, i == 0));
    if (adds_plainly(u, slot))
        DR_TRY(add_product(u, u->drift, own, x, NULL, d, &inputs, i == 0));
    if (slot == HF_SLOT_DOWN)
        DR_TRY(original_output(u, own, attn, m));
done:
    return st;
}

dr_status quant_upstream_sum(quant_upstream *u, hf_slot slot)
{
    dr_status st = DR_OK;

    if (u->s == NULL)
        return DR_OK;
    size_t k = hf_slot_in(u->s->cfg, slot), d = (size_t)u->s->cfg->hidden;
    DR_TRY(quant_sum(u->s->site, u->cross, k * k, "sums of differences"));
    if (adds_plainly(u, slot))
        DR_TRY(quant_sum(u->s->site, u->drift, d * k, "sums of differences"));
done:
    return st;
}

void quant_upstream_idle(quant_upstream *u, hf_slot slot)
{
    if (u->s == NULL)
        return;
    nn_device *mem = u->s->mem;
    const hf_config *c = u->s->cfg;
    const quant_widest widest = quant_widest_slot(c);
    size_t t = u->s->calib.seq_len, m = u->s->step * t;

    if (slot == HF_SLOT_O)
        leave_slot(u, HF_SLOT_QKV);
    if (slot == (c->parallel ? HF_SLOT_DOWN : HF_SLOT_GATE_UP))
        leave_slot(u, HF_SLOT_O);
    if (slot == HF_SLOT_DOWN) {
        leave_slot(u, HF_SLOT_GATE_UP);
        leave_slot(u, HF_SLOT_DOWN);
    }
    nn_mem_idle(mem, u->h, m * (size_t)c->hidden);
    nn_mem_idle(mem, u->act, m * (size_t)c->intermediate);
    if (u->turned != NULL)
        nn_mem_idle(mem, u->turned, m * widest.in);
    if (slot == HF_SLOT_DOWN || (slot == HF_SLOT_GATE_UP && !c->parallel))
        nn_mem_idle(mem, u->attn, u->s->calib.count * t * hf_slot_in(c, HF_SLOT_O));
}

/* ---- the target ---- */

dr_status quant_upstream_correct(quant_upstream *u, float *w, const float *h, hf_slot slot,
                                 const char *name)
{
    bool found = false;
    dr_status st = DR_OK;

    if (u->s == NULL)
        return DR_OK;
    nn_device *dev = u->s->site->dev;
    size_t k = hf_slot_in(u->s->cfg, slot), n = hf_slot_out(u->s->cfg, slot);

    const quant_rows own = quant_own_rows(u->s->site, n);
    float *rows = w + own.from * k;
    nn_round_products(dev, NN_ROUND_TWO_TERMS); /* cross is of 8 bits' products */
    if (own.count > 0)
        DR_TRY(nn_matmul_nn(dev, u->rhs, rows, u->cross, own.count, k, k, k, false));
    nn_round_products(dev, NN_ROUND_NONE);
    DR_TRY(quant_damped_factor(u->cross, &found, dev, h, k, DAMPING)); /* in its place */
    if (!found) {
        dr_log(DR_INFO, "%s: the layers before it are not made up for: its inputs are 0",
               name);
        goto done;
    }
    double part = 1 - (double)k / (double)u->s->tokens;
    float share = (float)(part > 0 ? u->share * part : 0);
    if (own.count > 0) {
        if (adds_plainly(u, slot))
            DR_TRY(nn_add(dev, u->rhs, u->drift + own.from * k, own.count * k));
        DR_TRY(quant_chol_solve(dev, u->rhs, own.count, k, u->cross));
        DR_TRY(nn_residual(dev, u->rhs, rows, own.count * k, share));
        DR_TRY(nn_copy(dev, rows, u->rhs, own.count * k * sizeof(*w)));
    }
    DR_TRY(quant_share_rows(u->s->site, w, n, k));
    nn_mem_idle(u->s->mem, u->cross, k * k);
    nn_mem_idle(u->s->mem, u->drift, (size_t)u->s->cfg->hidden * k);
    nn_mem_idle(u->s->mem, u->rhs, n * k);
done:
    nn_round_products(u->s->site->dev, NN_ROUND_NONE); /* after a failure, too */
    return st;
}
