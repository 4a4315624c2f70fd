/*
 * layer_error.c - how far each slot of a quantized model is from the original's output.
 *
 * Every layer gets the original's own input, so that a slot answers for itself alone: its
 * output by the quantized weights against that by the original ones, on the same input.
 * Beside it a second stream goes through all quantized layers: what has added up.
 *
 * Quantizers may have folded scales: into the norm before a slot, which the forward undoes,
 * and into V's and the up rows, whose outputs are then smaller by what the next slot's
 * columns are larger.  How much is read off the weights: of each such row the factor by
 * which it fits the original's (with the norm's change undone) best in least squares.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "quant/quant_impl.h"

typedef struct {
    nn_decoder *dec[2];   /* owned: before, after */
    const nn_layer *w[2]; /* of the layer at hand */
    const hf_config *c;
    nn_acts acts[2]; /* owned */
    float *x, *out;  /* owned: [M][D] the layer's input; its output */
    float *stream;   /* owned: [M][D] through the quantized layers */
    float *scale;    /* owned: factors of the V or up rows */
    float *in, *y;   /* owned: [M][widest input]; [2][M][D] */
    size_t m, t;
} errors;

/* sqrt(sum (b - a)^2 / sum a^2), b's columns from `scaled` on times scale. */
static double relative(const float *a, const float *b, size_t m, size_t n, size_t scaled,
                       const float *scale)
{
    double off = 0, all = 0;

    for (size_t r = 0; r < m; r++) {
        for (size_t i = 0; i < n; i++) {
            double x = (double)a[r * n + i], y = (double)b[r * n + i];
            y = i >= scaled ? y * (double)scale[i - scaled] : y;
            off += (y - x) * (y - x);
            all += x * x;
        }
    }
    return all > 0 ? sqrt(off / all) : 0;
}

/* scale[rows]: what rows row0.. of the slot were divided by. */
static void row_factors(const errors *e, hf_slot slot, hf_norm norm, size_t row0,
                        size_t rows)
{
    const size_t k = hf_slot_in(e->c, slot);
    const float *before = e->w[0]->norm[norm], *after = e->w[1]->norm[norm];

    for (size_t r = 0; r < rows; r++) {
        const float *a = e->w[0]->w[slot] + (row0 + r) * k;
        const float *b = e->w[1]->w[slot] + (row0 + r) * k;
        double ab = 0, bb = 0;
        for (size_t i = 0; i < k; i++) {
            double y = (double)b[i];
            if (before != NULL && before[i] != 0.0f)
                y *= (double)after[i] / (double)before[i];
            ab += (double)a[i] * y;
            bb += y * y;
        }
        e->scale[r] = bb > 0 && ab > 0 ? (float)(ab / bb) : 1.0f;
    }
}

/* The error of a slot that reads `in`, whose column i the quantizer made larger by
 * factor[of(i)]. */
static dr_status next_slot(double *error, errors *e, hf_slot slot, const float *in)
{
    const size_t k = hf_slot_in(e->c, slot), n = hf_slot_out(e->c, slot);
    const size_t hd = (size_t)e->c->head_dim;
    const size_t share = (size_t)(e->c->heads / e->c->kv_heads);
    dr_status st = DR_OK;

    for (size_t r = 0; r < e->m; r++) {
        for (size_t i = 0; i < k; i++) {
            size_t of = slot == HF_SLOT_O ? i / hd / share * hd + i % hd : i;
            e->in[r * k + i] = in[r * k + i] / e->scale[of];
        }
    }
    DR_TRY(nn_layer_linear(e->dec[0], e->w[0], slot, e->y, in, e->m, false));
    DR_TRY(nn_layer_linear(e->dec[1], e->w[1], slot, e->y + e->m * n, e->in, e->m, false));
    *error = relative(e->y, e->y + e->m * n, e->m, n, n, NULL);
done:
    return st;
}

/* A slot and the one that reads what it gives: qkv and o, gate_up and down. */
static dr_status two_slots(double *error, errors *e, hf_slot slot, hf_norm norm,
                           size_t tail, const float *a, const float *b, const float *in)
{
    const size_t n = hf_slot_out(e->c, slot), last = slot + 1;
    dr_status st = DR_OK;

    for (size_t i = 0; i < tail; i++)
        e->scale[i] = 1.0f;
    if (quant_can_fold(e->c, (hf_slot)last))
        row_factors(e, slot, norm, n - tail, tail);
    error[slot] = relative(a, b, e->m, n, n - tail, e->scale);
    DR_TRY(next_slot(&error[last], e, (hf_slot)last, in));
done:
    return st;
}

static dr_status one_layer(quant_layer_error *out, errors *e, int layer)
{
    const size_t kv = (size_t)e->c->kv_heads * (size_t)e->c->head_dim;
    const size_t d = (size_t)e->c->hidden;
    dr_status st = DR_OK;

    DR_TRY(dr_cancelled_check());
    for (int i = 1; i >= 0; i--) { /* the original's output stays */
        DR_TRY(nn_decoder_layer(e->dec[i], layer, &e->w[i]));
        memcpy(e->out, e->x, e->m * d * sizeof(*e->x));
        DR_TRY(nn_layer_forward(e->dec[i], e->w[i], 1, e->t, e->out, &e->acts[i], NULL, 0));
    }
    DR_TRY(two_slots(out->slot, e, HF_SLOT_QKV, HF_NORM_ATTN, kv, e->acts[0].qkv,
                     e->acts[1].qkv, e->acts[0].attn));
    DR_TRY(two_slots(out->slot, e, HF_SLOT_GATE_UP, HF_NORM_MLP, (size_t)e->c->intermediate,
                     e->acts[0].gate_up, e->acts[1].gate_up, e->acts[0].act));
    memcpy(e->x, e->out, e->m * d * sizeof(*e->x));
    DR_TRY(nn_layer_forward(e->dec[1], e->w[1], 1, e->t, e->stream, &e->acts[1], NULL, 0));
    out->stream = relative(e->x, e->stream, e->m, d, d, NULL);
done:
    return st;
}

static dr_status errors_open(errors *e, nn_device *dev, const hf_model *before,
                             const hf_model *after, size_t t)
{
    const hf_config *c = hf_model_config(before);
    const size_t d = (size_t)c->hidden, inner = (size_t)c->intermediate;
    const size_t heads = hf_slot_in(c, HF_SLOT_O);
    dr_status st = DR_OK;

    *e = (errors){.c = c, .m = t, .t = t};
    DR_TRY(nn_decoder_open(&e->dec[0], dev, before, 0));
    DR_TRY(nn_decoder_open(&e->dec[1], dev, after, 0));
    DR_TRY(nn_acts_new(&e->acts[0], c, 1, t, 0));
    DR_TRY(nn_acts_new(&e->acts[1], c, 1, t, 0));
    DR_TRY(quant_floats(&e->x, t, d, "hidden states"));
    DR_TRY(quant_floats(&e->out, t, d, "hidden states"));
    DR_TRY(quant_floats(&e->stream, t, d, "hidden states"));
    DR_TRY(quant_floats(&e->scale, 1, inner > heads ? inner : heads, "factors of rows"));
    DR_TRY(quant_floats(&e->in, t, inner > heads ? inner : heads, "inputs of a slot"));
    DR_TRY(quant_floats(&e->y, 2 * t, d, "outputs of a slot"));
done:
    return st;
}

static void errors_close(errors *e)
{
    for (int i = 0; i < 2; i++) {
        nn_decoder_close(e->dec[i]);
        dr_big_free(e->acts[i].x);
    }
    dr_big_free(e->x);
    dr_big_free(e->out);
    dr_big_free(e->stream);
    dr_big_free(e->scale);
    dr_big_free(e->in);
    dr_big_free(e->y);
}

dr_status quant_layer_errors(quant_layer_error *out, nn_device *dev, const hf_model *before,
                             const hf_model *after, const int32_t *ids, size_t count)
{
    errors e = {0};
    dr_status st = DR_OK;

    DR_TRY(errors_open(&e, dev, before, after, count));
    DR_TRY(nn_decoder_embed(e.dec[0], e.x, ids, count));
    DR_TRY(nn_decoder_embed(e.dec[1], e.stream, ids, count));
    for (int i = 0; i < e.c->layers; i++)
        DR_TRY(one_layer(&out[i], &e, i));
done:
    errors_close(&e);
    return st;
}
