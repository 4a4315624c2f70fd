/*
 * gptq.c - GPTQ through a model: each slot is rounded for the inputs that it will see,
 * those from everything before it already rounded, also within its layer.
 *
 * A layer runs in four stages, one for each slot; a stage computes the slot's inputs chunk
 * by chunk, sums their Hessian, then solves:
 *
 *     x -> norm -> H(qkv) -> solve -> qkv -> attention -> H(o) -> solve -> x += o
 *     -> norm -> H(gate_up) -> solve -> gate_up -> silu*up -> H(down) -> solve -> x += down
 *
 * nn's layer_parts.c knows what a family does between its products.  In a parallel layer
 * the MLP's input is attention's, so x + o goes to a copy of x first (mid).
 *
 * So the text passes the layer once, with rounded weights, where running the layer before
 * and again after its rounding passes it twice.  Between two stages the attention's outputs
 * are kept for all tokens, later silu*up for as many sequences as KEEP_BYTES holds; the
 * others are computed again, to the same bytes.
 *
 * With o->upstream the original's text runs beside it, slot by slot (upstream.c).
 *
 * Peak memory: x and attention outputs of all tokens (or KEEP_BYTES, where that is more),
 * one slot's weight twice, its Hessian twice; a chunk's activations and the Hessian's
 * strips are the system's while a slot is solved, weight and Hessian while text goes by.
 * What the text passes through is nn's rough form (nn_rough.h): the layer has been rounded
 * to 4 bits, next to which 8 are as good as exact.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "quant/gptq_impl.h"

#define KEEP_BYTES       ((size_t)1 << 28)
#define KEEP_BYTES_THERE ((size_t)1 << 33)

typedef struct {
    quant_stream s;
    nn_device *mem; /* s.mem: what is owned lies there, unless it is said to be here */
    const quant_grid *base; /* of slots that have no other */
    quant_grid grid;        /* of the slot at hand */
    const quant_gptq_options *o;
    size_t m;       /* rows of a full chunk */
    nn_layer layer; /* norms of the layer, borrowed from s.dec; weights: packed and bias */
    float *h;       /* owned: [m][D], a norm's output */
    float *mid;     /* owned: x + attention of all tokens, in a parallel layer */
    float *wide;    /* owned: [m][max((H+2G)C, 2I)] */
    float *act;     /* owned: [m][I] */
    float *keep; /* owned: attention outputs of all tokens; silu*up of `kept` sequences */
    size_t kept;
    const quant_prune_options *prune; /* zeros instead of codes; NULL: none */
    const hf_model *original;         /* what upstream runs; NULL: the model itself */
    quant_recovery *recovery;         /* adapters instead of codes; NULL: none */
    bool best;                        /* the whole chain, with and without scales */
    float *w;                         /* owned: weights of the slot at hand */
    float *other;                     /* owned: the same for the other scales, with best */
    float *packed[2]; /* owned: rounded, as nn multiplies them; [1]: of down */
    float *bias[2];   /* owned, here */
    double *sum;      /* owned: [K] the sum of the slot's inputs */
    float *more[2];   /* owned, here: [N] what a bias takes back; [1]: of the slot that is
                         held */
    float *strips;    /* owned: the Hessian being summed */
    float *full;      /* owned: [K][K] */
    float *stage;     /* owned, here: a slot's weights on their way to mem */
    float *scale, *row_scale; /* owned, here: [K], [N] with prescale */
    quant_upstream up;        /* owned */
    dr_qtensor held; /* owned: QKV or GATE_UP until the slot after it has its scale */
} gptq_run;

static void run_release(gptq_run *r)
{
    float *all[] = {r->h,      r->wide, r->act,   r->keep,      r->w,        r->mid,
                    r->strips, r->full, r->other, r->packed[0], r->packed[1]};
    float *here[] = {r->bias[0], r->bias[1], r->more[0],  r->more[1],
                     r->scale,   r->stage,   r->row_scale};

    for (size_t i = 0; i < DR_COUNT(all); i++)
        nn_mem_free(r->mem, all[i]);
    for (size_t i = 0; i < DR_COUNT(here); i++)
        dr_big_free(here[i]);
    nn_mem_free(r->mem, r->sum);
    quant_upstream_close(&r->up);
    dr_qtensor_release(&r->held);
    quant_stream_close(&r->s);
}

static size_t most(size_t a, size_t b)
{
    return a > b ? a : b;
}

static dr_status run_init(gptq_run *r, const quant_site *site, const quant_calib *calib)
{
    const hf_config *c = hf_model_config(site->in);
    size_t d = (size_t)c->hidden, inner = (size_t)c->intermediate;
    size_t hc = hf_slot_in(c, HF_SLOT_O), t = calib->seq_len, packed[2] = {0};
    const quant_widest widest = quant_widest_slot(c);
    float *sum = NULL;
    dr_status st = DR_OK;

    if (r->prune == NULL && r->recovery == NULL)
        r->mem = quant_solves_there(site, r->base);
    nn_device *mem = r->mem;

    for (int i = 0; i < HF_SLOT_COUNT; i++) {
        bool down = i == HF_SLOT_DOWN;
        size_t in = hf_slot_in(c, (hf_slot)i), out = hf_slot_out(c, (hf_slot)i);
        packed[down] =
            most(packed[down], nn_rough_bytes(site->dev, out, in) / sizeof(float));
    }
    DR_TRY(quant_stream_open(&r->s, site, calib, mem));
    calib = &r->s.calib; /* this rank's */
    r->m = t * (r->s.step < calib->count ? r->s.step : calib->count);
    r->kept =
        (mem != NULL ? KEEP_BYTES_THERE : KEEP_BYTES) / (inner * quant_act_bytes(mem)) / t;
    r->kept = r->kept < calib->count ? r->kept : calib->count;
    r->kept -= r->kept == calib->count ? 0 : r->kept % r->s.step;
    DR_TRY(quant_acts_at(mem, &r->h, r->m, d, "norm outputs"));
    if (c->parallel)
        DR_TRY(quant_floats_at(mem, &r->mid, calib->count * t, d, "residuals"));
    DR_TRY(quant_acts_at(mem, &r->wide, r->m, widest.out, "activations"));
    DR_TRY(quant_acts_at(mem, &r->act, r->m, inner, "activations"));
    DR_TRY(quant_acts_at(mem, &r->keep, t, most(calib->count * hc, r->kept * inner),
                         "kept activations"));
    DR_TRY(quant_floats_at(mem, &r->w, widest.weights, 1, "a slot's weights"));
    if (r->best)
        DR_TRY(quant_floats_at(mem, &r->other, widest.weights, 1, "a slot's weights"));
    DR_TRY(quant_floats_at(mem, &r->packed[0], packed[0], 1, "a slot's weights"));
    DR_TRY(quant_floats_at(mem, &r->packed[1], packed[1], 1, "a slot's weights"));
    DR_TRY(quant_floats(&r->bias[0], widest.out, 1, "biases"));
    DR_TRY(quant_floats(&r->bias[1], d, 1, "biases"));
    DR_TRY(quant_floats(&r->more[0], widest.out, 1, "biases"));
    DR_TRY(quant_floats(&r->more[1], widest.out, 1, "biases"));
    DR_TRY(quant_floats_at(mem, &sum, widest.in, 2, "sums of inputs"));
    r->sum = (double *)(void *)sum;
    if (mem != NULL)
        DR_TRY(quant_floats(&r->stage, widest.weights, 1, "a slot's weights"));
    DR_TRY(quant_floats_at(mem, &r->strips, nn_gram_floats(widest.in), 1, "Hessian"));
    DR_TRY(quant_floats_at(mem, &r->full, widest.in, widest.in, "Hessian"));
    DR_TRY(quant_floats(&r->scale, widest.in, 1, "scales"));
    DR_TRY(quant_floats(&r->row_scale, widest.out, 1, "scales"));
    DR_TRY(quant_upstream_open(&r->up, &r->s, r->original, r->o->upstream, r->wide));
done:
    return st;
}

/* ---- solving a slot ---- */

/* Scales of such a slot go into a norm; of others into the slot before. */
static bool folds_norm(hf_slot slot)
{
    return slot == HF_SLOT_QKV || slot == HF_SLOT_GATE_UP;
}

static hf_norm norm_before(hf_slot slot)
{
    return slot == HF_SLOT_QKV ? HF_NORM_ATTN : HF_NORM_MLP;
}

/* Folds 1 / scale into what is before the slot: a norm, or the rows of the slot that is
 * held back. */
static dr_status fold_slot(gptq_run *r, int layer, hf_slot slot)
{
    const quant_site *site = r->s.site;
    const hf_config *c = r->s.cfg;
    dr_status st = DR_OK;

    if (folds_norm(slot)) {
        if (quant_folds(site, layer, slot))
            DR_TRY(quant_fold_norm(site, layer, norm_before(slot), r->scale));
    } else {
        hf_slot before = slot == HF_SLOT_O ? HF_SLOT_QKV : HF_SLOT_GATE_UP;
        quant_row_scale(r->row_scale, c, before, r->scale);
        DR_TRY(quant_fold_bias(site, layer, before, r->row_scale, r->more[1]));
        if (r->held.rows == 0) /* all plain */
            goto done;
        quant_fold_rows(&r->held, r->row_scale);
        DR_TRY(quant_slot_write(site, layer, before, &r->held));
    }
done:
    return st;
}

static void no_scale(gptq_run *r, size_t n_in)
{
    for (size_t i = 0; i < n_in; i++)
        r->scale[i] = 1.0f;
}

/* r->scale = the best for the slot, or ones where nothing before it can take them. */
static dr_status find_scale(gptq_run *r, int layer, hf_slot slot, const char *name)
{
    size_t n_out = hf_slot_out(r->s.cfg, slot), n_in = hf_slot_in(r->s.cfg, slot);
    dr_status st = DR_OK;

    no_scale(r, n_in);
    if (quant_folds(r->s.site, layer, slot))
        DR_TRYF(quant_gptq_scale(r->scale, r->s.site->dev, r->w, r->full, n_out, n_in,
                                 &r->grid, slot == HF_SLOT_O ? r->s.cfg : NULL),
                "scaling %s", name);
done:
    return st;
}

/* r->w becomes rounded, r->scale what it was multiplied by on the way. */
static dr_status round_scaled(gptq_run *r, int layer, hf_slot slot, dr_qtensor *q,
                              const char *name)
{
    nn_device *dev = r->s.site->dev;
    size_t n_out = hf_slot_out(r->s.cfg, slot), n_in = hf_slot_in(r->s.cfg, slot);
    const quant_site *site = r->s.site;
    const quant_way all = quant_gptq_way(site);
    quant_contest c = {0};
    dr_status st = DR_OK;

    if (r->o->prescale) {
        DR_TRY(find_scale(r, layer, slot, name));
        DR_TRYF(fold_slot(r, layer, slot), "scaling %s", name);
        DR_TRY(quant_gptq_apply(dev, r->w, r->full, n_out, n_in, r->scale));
    }
    DR_TRYF(quant_solve_own(q, &c, site, all, false, r->w, r->full, n_out, n_in, &r->grid,
                            r->o, name),
            "rounding %s", name);
    DR_TRY(quant_share_solved(site, all, q, r->w));
    dr_log(DR_DEBUG, "%s: %zu x %zu, loss %.6g", name, n_out, n_in, c.loss[0]);
    if (r->o->prescale)
        DR_TRY(quant_gptq_unapply(dev, r->w, n_out, n_in, r->scale));
done:
    return st;
}

/* r->w by the whole chain as it is (way 0) or scaled, if it has not lost before. */
static dr_status solve_way(gptq_run *r, hf_slot slot, size_t way, quant_way by,
                           dr_qtensor *q, quant_contest *c, const char *name)
{
    const quant_site *site = r->s.site;
    size_t n_out = hf_slot_out(r->s.cfg, slot), n_in = hf_slot_in(r->s.cfg, slot);
    dr_status st = DR_OK;

    c->way = way;
    if (way > 0)
        DR_TRY(quant_gptq_apply(site->dev, r->w, r->full, n_out, n_in, r->scale));
    DR_TRYF(quant_solve_own(q, c, site, by, true, r->w, r->full, n_out, n_in, &r->grid,
                            r->o, name),
            "rounding %s", name);
done:
    return st;
}

/* Both ways by all ranks: q and r->w are the one that is taken. */
static dr_status both_ways(gptq_run *r, hf_slot slot, dr_qtensor *q, quant_contest *c,
                           const char *name)
{
    nn_device *dev = r->s.site->dev;
    const quant_way all = {0, 1};
    size_t bytes = hf_slot_out(r->s.cfg, slot) * hf_slot_in(r->s.cfg, slot) * sizeof(float);
    dr_qtensor scaled = {0};
    float *plain = NULL;
    dr_status st = DR_OK;

    DR_TRY(nn_copy(dev, r->other, r->w, bytes));
    DR_TRY(solve_way(r, slot, 0, all, q, c, name));
    plain = r->w; /* the other one is scaled */
    r->w = r->other;
    r->other = plain;
    DR_TRY(solve_way(r, slot, 1, all, &scaled, c, name));
    if (!quant_contest_lost(c)) {
        dr_qtensor_release(q);
        *q = scaled;
        scaled = (dr_qtensor){0};
    } else {
        r->other = r->w;
        r->w = plain;
    }
done:
    dr_qtensor_release(&scaled);
    return st;
}

/* The same by the whole chain, as it is or scaled.  The lesser of GPTQ's losses decides,
 * not of the whole chain's: in SmolLM2's 120 slots it chose another way in 14, which cost
 * 0.1 % of a slot's loss on average and 1.7 at most, and half of the second descents are
 * spared. */
static dr_status round_best(gptq_run *r, int layer, hf_slot slot, dr_qtensor *q,
                            const char *name)
{
    const quant_site *site = r->s.site;
    size_t n_out = hf_slot_out(r->s.cfg, slot), n_in = hf_slot_in(r->s.cfg, slot), way = 0;
    quant_way by = quant_own_way(site);
    quant_contest c = {0};
    dr_status st = DR_OK;

    DR_TRY(find_scale(r, layer, slot, name));
    if (folds_norm(slot) && quant_folds(site, layer, slot))
        DR_TRY(quant_fold_plan(site, layer, norm_before(slot), r->scale));
    DR_TRY(by.ways == 1 ? both_ways(r, slot, q, &c, name)
                        : solve_way(r, slot, by.way, by, q, &c, name));
    way = quant_contest_lost(&c) ? 1 - c.way : c.way;
    dr_log(DR_DEBUG, "%s: %zu x %zu, by GPTQ %.6g, scaled %.6g, loss %.6g", name, n_out,
           n_in, c.gptq[0], c.gptq[1], c.loss[way]);
    bool has = by.ways == 1 || by.way == way; /* else it has other rows, not wanted */
    if (way == 0)
        no_scale(r, n_in);
    else if (has)
        DR_TRY(quant_gptq_unapply(site->dev, r->w, n_out, n_in, r->scale));
    by.way = by.ways == 1 ? 0 : way;
    DR_TRY(quant_share_solved(site, by, q, r->w));
    DR_TRYF(fold_slot(r, layer, slot), "scaling %s", name);
done:
    return st;
}

/* A slot that stays plain: what waits for its scale waits for nothing. */
static dr_status leave_slot(gptq_run *r, int layer, hf_slot slot, const char *name)
{
    dr_status st = DR_OK;

    no_scale(r, hf_slot_in(r->s.cfg, slot));
    if (r->o->prescale)
        DR_TRYF(fold_slot(r, layer, slot), "scaling %s", name);
done:
    return st;
}

static bool mends_bias(const gptq_run *r, int layer, hf_slot slot)
{
    return r->o->bias && quant_slot_linears(r->s.site->in, layer, slot, NULL)->has_bias;
}

/* r->more[0] = the mean output so far (sign 1), less that of r->w (-1). */
static dr_status mean_output(gptq_run *r, int layer, hf_slot slot, int sign)
{
    nn_device *dev = r->s.site->dev;
    size_t n = hf_slot_out(r->s.cfg, slot), k = hf_slot_in(r->s.cfg, slot);
    const float *w = r->mem != NULL ? r->stage : r->w;
    double *sum = NULL;
    dr_status st = DR_OK;

    if (!mends_bias(r, layer, slot))
        return DR_OK;
    sum = dr_calloc(k, sizeof(*sum));
    DR_TRY(nn_copy(dev, sum, r->sum, k * sizeof(*sum)));
    if (r->mem != NULL)
        DR_TRY(nn_copy(dev, r->stage, r->w, n * k * sizeof(*r->w)));
    DR_TRY(quant_mean_output(nn_device_pool(dev), r->more[0], w, sum, n, k, r->s.tokens,
                             sign));
done:
    free(sum);
    return st;
}

/* The bias takes the mean error back: at once for the text, in the file when the slot's
 * rows have their scale. */
static dr_status mend_bias(gptq_run *r, int layer, hf_slot slot, bool held)
{
    size_t n = hf_slot_out(r->s.cfg, slot);
    dr_status st = DR_OK;

    if (held)
        memset(r->more[1], 0, n * sizeof(*r->more[1]));
    if (!mends_bias(r, layer, slot))
        goto done;
    DR_TRY(mean_output(r, layer, slot, -1));
    for (size_t i = 0; i < n; i++)
        r->bias[slot == HF_SLOT_DOWN][i] += r->more[0][i];
    if (held) {
        memcpy(r->more[1], r->more[0], n * sizeof(*r->more[1]));
        goto done;
    }
    for (size_t i = 0; i < n; i++)
        r->row_scale[i] = 1.0f;
    DR_TRY(quant_fold_bias(r->s.site, layer, slot, r->row_scale, r->more[0]));
done:
    return st;
}

/* Zeros into r->w; its linears go to the writer, those that stay excepted. */
static dr_status prune_slot(gptq_run *r, int layer, hf_slot slot, const char *name)
{
    const quant_site *site = r->s.site;
    size_t n_in = hf_slot_in(r->s.cfg, slot), count = 0;
    const hf_linear *l = quant_slot_linears(site->in, layer, slot, &count);
    dr_status st = DR_OK;

    if (layer < r->prune->min_layer ||
        (r->prune->max_layer >= 0 && layer >= r->prune->max_layer))
        goto done;
    DR_TRYF(quant_prune_solve(site->dev, r->w, r->full, hf_slot_out(r->s.cfg, slot), n_in,
                              r->prune, name),
            "pruning %s", name);
    for (size_t i = 0; i < count; i++) {
        if (!quant_is_plain(site, &l[i]))
            DR_TRY(hf_writer_linear(site->out, &l[i], r->w + l[i].row0 * n_in));
    }
done:
    return st;
}

/*
 * Columns of a text of T tokens look more alike than those of any other text; the products
 * of different ones become 1 - 2 K / T of what they are, a half at the least (shrinkage to
 * the diagonal, Ledoit and Wolf 2004, with a fixed weight).
 */
static float shrinkage(const gptq_run *r, size_t k)
{
    double by = 2 * (double)k / (double)r->s.tokens;

    return r->best || r->recovery != NULL ? (float)(1 - (by < 0.5 ? by : 0.5)) : 1.0f;
}

/*
 * Rounds the slot for the Hessian in strips; r->packed[k] is then its rounded weight,
 * unscaled: the text goes on through the layer as if nothing had been folded.
 */
static dr_status solve_slot(gptq_run *r, int layer, hf_slot slot)
{
    const int k = slot == HF_SLOT_DOWN;
    const quant_site *site = r->s.site;
    size_t n_out = hf_slot_out(r->s.cfg, slot), n_in = hf_slot_in(r->s.cfg, slot);
    const hf_linear *l = quant_slot_linears(site->in, layer, slot, NULL);
    dr_qtensor q = {0};
    dr_status st = DR_OK;

    DR_TRY(dr_cancelled_check());
    double time = dr_now_s();
    DR_TRY(quant_gram_expand(site->dev, r->full, r->strips, n_in, shrinkage(r, n_in)));
    nn_mem_idle(r->mem, r->strips, nn_gram_floats(n_in));
    DR_TRY(
        quant_slot_load(site, layer, slot, r->w, r->stage, r->bias[slot == HF_SLOT_DOWN]));
    r->layer.bias[slot] = l->has_bias ? r->bias[k] : NULL;
    r->layer.rough[slot] = r->packed[k];
    if (r->recovery != NULL) {
        DR_TRY(quant_recover_slot(r->recovery, &r->up, r->w, r->full, layer, slot));
        DR_TRY(nn_rough_pack(site->dev, r->packed[k], r->w, n_out, n_in));
        goto done;
    }
    quant_tell_time(&time, "reading");
    DR_TRY(quant_upstream_correct(&r->up, r->w, r->full, slot, l->path));
    quant_tell_time(&time, "upstream");
    DR_TRY(mean_output(r, layer, slot, 1));
    if (r->prune != NULL)
        DR_TRY(prune_slot(r, layer, slot, l->path));
    else if (!quant_slot_grid(&r->grid, site, layer, slot, r->base))
        DR_TRY(leave_slot(r, layer, slot, l->path));
    else if (r->best)
        DR_TRY(round_best(r, layer, slot, &q, l->path));
    else
        DR_TRY(round_scaled(r, layer, slot, &q, l->path));
    DR_TRY(quant_slot_restore(site, layer, slot, r->w, r->stage));
    DR_TRY(nn_rough_pack(site->dev, r->packed[k], r->w, n_out, n_in));
    quant_tell_time(&time, "solving");
    DR_TRY(mend_bias(r, layer, slot, r->o->prescale && folds_norm(slot)));
    if (r->o->prescale && folds_norm(slot)) {
        r->held = q;
        q = (dr_qtensor){0};
    } else if (q.rows > 0) {
        DR_TRY(quant_slot_write(site, layer, slot, &q));
    }
done:
    dr_qtensor_release(&q);
    return st;
}

/* ---- the pieces of a layer, for one chunk of m rows that begins at sequence i ---- */

static float *chunk_x(const gptq_run *r, size_t i)
{
    return r->s.x + i * r->s.calib.seq_len * (size_t)r->s.cfg->hidden;
}

/* r->h = the slot's input for chunk i of x; a parallel layer's MLP reads attention's. */
static dr_status norm_chunk(gptq_run *r, hf_slot slot, size_t i, size_t m)
{
    hf_norm which = slot == HF_SLOT_QKV || r->s.cfg->parallel ? HF_NORM_ATTN : HF_NORM_MLP;

    return nn_layer_norm(r->s.dec, &r->layer, which, r->h, chunk_x(r, i), m);
}

/* y[m][N] = in W^T + bias with the slot's rounded weight. */
static dr_status linear_chunk(const gptq_run *r, float *y, const float *in, hf_slot slot,
                              size_t m)
{
    return nn_layer_linear(r->s.dec, &r->layer, slot, y, in, m, false);
}

static dr_status gram_chunk(gptq_run *r, const float *in, hf_slot slot, size_t i, size_t m)
{
    size_t k = hf_slot_in(r->s.cfg, slot);
    dr_status st = DR_OK;

    if (mends_bias(r, r->layer.index, slot) && r->mem != NULL)
        DR_TRY(nn_column_sums(r->mem, r->sum, in, m, k, false, i == 0));
    else if (mends_bias(r, r->layer.index, slot))
        DR_TRY(quant_inputs_add(nn_device_pool(r->s.site->dev), r->sum, in, m, k, i == 0));
    DR_TRY(quant_upstream_add(&r->up, slot, in, chunk_x(r, i), i, m));
    DR_TRY(nn_rough_gram(r->s.site->dev, r->strips, in, m, k, i == 0));
done:
    return st;
}

/* Chunk i into r->act, or where it is kept. */
static dr_status act_chunk(gptq_run *r, size_t i, size_t m, float **act)
{
    size_t inner = (size_t)r->s.cfg->intermediate;
    dr_status st = DR_OK;

    *act = i < r->kept ? r->keep + i * r->s.calib.seq_len * inner : r->act;
    DR_TRY(norm_chunk(r, HF_SLOT_GATE_UP, i, m));
    DR_TRY(nn_layer_up(r->s.dec, &r->layer, *act, r->wide, r->h, m));
done:
    return st;
}

/* ---- stages ---- */

static dr_status stage_qkv(gptq_run *r, size_t i, size_t m)
{
    dr_status st = DR_OK;

    DR_TRY(norm_chunk(r, HF_SLOT_QKV, i, m));
    DR_TRY(gram_chunk(r, r->h, HF_SLOT_QKV, i, m));
done:
    return st;
}

static dr_status stage_o(gptq_run *r, size_t i, size_t m)
{
    size_t t = r->s.calib.seq_len;
    float *out = r->keep + i * t * hf_slot_in(r->s.cfg, HF_SLOT_O);
    dr_status st = DR_OK;

    DR_TRY(norm_chunk(r, HF_SLOT_QKV, i, m));
    DR_TRY(linear_chunk(r, r->wide, r->h, HF_SLOT_QKV, m));
    DR_TRY(nn_layer_attend(r->s.dec, &r->layer, out, r->wide, m / t, t));
    DR_TRY(gram_chunk(r, out, HF_SLOT_O, i, m));
done:
    return st;
}

static dr_status stage_gate_up(gptq_run *r, size_t i, size_t m)
{
    const float *attn = r->keep + i * r->s.calib.seq_len * hf_slot_in(r->s.cfg, HF_SLOT_O);
    float *x = chunk_x(r, i);
    dr_status st = DR_OK;

    if (r->s.cfg->parallel) {
        size_t d = (size_t)r->s.cfg->hidden;
        DR_TRY(nn_copy(r->s.site->dev, r->mid + (x - r->s.x), x, m * d * sizeof(*x)));
        x = r->mid + (x - r->s.x);
    }
    DR_TRY(nn_layer_residual(r->s.dec, &r->layer, HF_SLOT_O, x, attn, m));
    DR_TRY(norm_chunk(r, HF_SLOT_GATE_UP, i, m));
    DR_TRY(gram_chunk(r, r->h, HF_SLOT_GATE_UP, i, m));
done:
    return st;
}

static dr_status stage_down(gptq_run *r, size_t i, size_t m)
{
    float *act = NULL;
    dr_status st = DR_OK;

    DR_TRY(act_chunk(r, i, m, &act));
    DR_TRY(gram_chunk(r, act, HF_SLOT_DOWN, i, m));
done:
    return st;
}

static dr_status stage_output(gptq_run *r, size_t i, size_t m)
{
    float *act = r->keep + i * r->s.calib.seq_len * (size_t)r->s.cfg->intermediate;
    dr_status st = DR_OK;

    if (i >= r->kept)
        DR_TRY(act_chunk(r, i, m, &act));
    if (r->s.cfg->parallel)
        DR_TRY(nn_copy(r->s.site->dev, chunk_x(r, i), r->mid + (chunk_x(r, i) - r->s.x),
                       m * (size_t)r->s.cfg->hidden * sizeof(float)));
    DR_TRY(nn_layer_residual(r->s.dec, &r->layer, HF_SLOT_DOWN, chunk_x(r, i), act, m));
done:
    return st;
}

static dr_status each_chunk(gptq_run *r, dr_status (*stage)(gptq_run *, size_t, size_t))
{
    dr_status st = DR_OK;

    for (size_t i = 0; i < r->s.calib.count; i += r->s.step) {
        DR_TRY(dr_cancelled_check());
        DR_TRY(stage(r, i, quant_stream_count(&r->s, i) * r->s.calib.seq_len));
    }
done:
    return st;
}

/* What is summed over the text, over all ranks. */
static dr_status sum_ranks(gptq_run *r, int layer, hf_slot slot)
{
    const quant_site *site = r->s.site;
    size_t k = hf_slot_in(r->s.cfg, slot);
    dr_status st = DR_OK;

    if (mends_bias(r, layer, slot))
        DR_TRY(quant_sum_doubles(site, r->sum, k, "sums of inputs"));
    DR_TRY(quant_upstream_sum(&r->up, slot));
    DR_TRY(quant_sum(site, r->strips, nn_gram_floats(k), "Hessians"));
done:
    return st;
}

/* While a slot is solved nothing is in what its text went through. */
static void idle_chunk(gptq_run *r, hf_slot slot)
{
    const hf_config *c = r->s.cfg;
    const quant_widest widest = quant_widest_slot(c);

    nn_mem_idle(r->mem, r->h, r->m * (size_t)c->hidden);
    nn_mem_idle(r->mem, r->wide, r->m * widest.out);
    nn_mem_idle(r->mem, r->act, r->m * (size_t)c->intermediate);
    quant_upstream_idle(&r->up, slot);
}

/* And the other way round. */
static void idle_weights(gptq_run *r, hf_slot slot)
{
    size_t n = hf_slot_out(r->s.cfg, slot), k = hf_slot_in(r->s.cfg, slot);

    nn_mem_idle(r->mem, r->full, k * k);
    nn_mem_idle(r->mem, r->w, n * k);
    if (r->other != NULL)
        nn_mem_idle(r->mem, r->other, n * k);
}

static dr_status run_slot(gptq_run *r, int layer, hf_slot slot,
                          dr_status (*stage)(gptq_run *, size_t, size_t))
{
    double time = dr_now_s();
    dr_status st = DR_OK;

    if (r->recovery != NULL)
        DR_TRY(quant_recover_inputs(r->recovery, &r->up, layer, slot));
    DR_TRY(each_chunk(r, stage));
    DR_TRY(sum_ranks(r, layer, slot));
    if (r->mem != NULL) /* so that times are told apart */
        DR_TRY(nn_copy(r->mem, r->scale, r->strips, sizeof(float)));
    quant_tell_time(&time, "text");
    idle_chunk(r, slot);
    DR_TRY(solve_slot(r, layer, slot));
    idle_weights(r, slot);
    quant_tell_time(&time, "solving and writing");
done:
    return st;
}

static dr_status run_layer(void *ctx, int layer)
{
    gptq_run *r = ctx;
    const nn_layer *norms = NULL;
    dr_status st = DR_OK;

    DR_TRY(nn_decoder_norms(r->s.dec, layer, &norms));
    r->layer = *norms;
    DR_TRY(quant_upstream_layer(&r->up, layer));
    DR_TRY(run_slot(r, layer, HF_SLOT_QKV, stage_qkv));
    DR_TRY(run_slot(r, layer, HF_SLOT_O, stage_o));
    DR_TRY(run_slot(r, layer, HF_SLOT_GATE_UP, stage_gate_up));
    DR_TRY(run_slot(r, layer, HF_SLOT_DOWN, stage_down));
    if (layer + 1 < r->s.cfg->layers || r->s.site->head != NULL)
        DR_TRY(each_chunk(r, stage_output));
done:
    return st;
}

/* A target that takes back differences between two passes wants them exact. */
static void choose_form(const quant_site *site, const quant_gptq_options *o)
{
    nn_rough_take(site->dev, o->upstream > 0 ? NN_ROUGH_CLOSE : NN_ROUGH_OWN);
}

static dr_status run_model(const quant_site *site, const quant_grid *grid,
                           const quant_calib *calib, const quant_gptq_options *o, bool best,
                           const quant_prune_options *prune)
{
    gptq_run r = {.base = grid, .o = o, .best = best, .prune = prune, .original = site->in};
    quant_site own = *site;
    dr_qtensor table = {0};
    dr_status st = DR_OK;

    DR_TRY(quant_grid_check(grid));
    if (!(o->damp_percent >= 0) || o->damp_percent > 10)
        DR_FAIL(DR_EUSAGE, "damp_percent: expected a share from 0 to 10, found %g",
                o->damp_percent);
    DR_TRY(quant_gptq_table(&table, site, calib, o, best));
    own.table = table.rows > 0 ? &table : NULL;
    choose_form(site, o);
    DR_TRY(run_init(&r, &own, calib));
    if (o->prescale)
        quant_tell_unfolded(site->in);
    DR_TRY(quant_each_layer(
        site, r.s.x, quant_stream_floats(&r.s) * (r.up.s != NULL ? 2 : 1), run_layer, &r));
    if (site->head != NULL)
        DR_TRY(quant_gptq_head(&r.s, o, best));
    if (own.table != NULL)
        DR_TRY(hf_writer_packed(site->out, hf_embed_linear(site->in), &table));
done:
    dr_qtensor_release(&table);
    run_release(&r);
    nn_rough_take(site->dev, NN_ROUGH_OWN);
    return st;
}

dr_status quant_gptq(const quant_site *site, const quant_grid *grid,
                     const quant_calib *calib, const quant_gptq_options *o)
{
    return run_model(site, grid, calib, o, false, NULL);
}

dr_status quant_best(const quant_site *site, const quant_grid *grid,
                     const quant_calib *calib, const quant_gptq_options *o)
{
    quant_gptq_options chain = *o;

    chain.prescale = true;
    chain.minmax = false;
    return run_model(site, grid, calib, &chain, true, NULL);
}

dr_status quant_prune(const quant_site *site, const quant_calib *calib,
                      const quant_prune_options *o)
{
    const quant_gptq_options gptq = {.damp_percent = o->damp_percent};
    const quant_grid none = {4, -1, false};

    DR_BUG_IF(o->blocksize < 1 || o->blocksize > QUANT_PRUNE_BLOCK);
    return run_model(site, &none, calib, &gptq, false, o);
}

dr_status quant_recover(hf_adapter *out, const quant_site *site, const hf_model *original,
                        const quant_calib *calib, const quant_recover_options *o)
{
    const quant_gptq_options gptq = {.upstream = o->upstream};
    const quant_site own = {.dev = site->dev, .in = site->in, .progress = site->progress};
    gptq_run r = {.o = &gptq, .original = original};
    dr_status st = DR_OK;

    *out = (hf_adapter){0};
    DR_TRY(quant_recovery_open(&r.recovery, &own, original, o, out));
    choose_form(site, &gptq);
    DR_TRY(run_init(&r, &own, calib));
    DR_TRY(quant_each_layer(&own, NULL, 0, run_layer, &r));
    if (quant_recovery_empty(r.recovery))
        DR_FAIL(DR_EUSAGE, "%s and %s have the same weights: there is nothing to recover",
                hf_model_path(site->in), hf_model_path(original));
done:
    quant_recovery_close(r.recovery);
    run_release(&r);
    nn_rough_take(site->dev, NN_ROUGH_OWN);
    if (st != DR_OK)
        hf_adapter_release(out);
    return st;
}
