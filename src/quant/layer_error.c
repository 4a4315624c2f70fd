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
 *
 * On a device with memory of its own all but the norms stays there.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "quant/quant_impl.h"

typedef struct {
    nn_device *dev, *mem;     /* borrowed; mem: where activations lie, NULL: the host's */
    nn_decoder *dec[2];       /* borrowed: before, after */
    const nn_layer *w[2];     /* of the layer at hand */
    const nn_layer *norms[2]; /* its norms, the host's */
    const hf_config *c;
    nn_acts acts[2]; /* owned, mem's as what follows */
    float *x, *out;  /* owned: [M][D] the layer's input; its output */
    float *stream;   /* owned: [M][D] through the quantized layers */
    float *in, *y;   /* owned: [M][widest input]; [2][M][D] */
    float *turned;   /* owned: a slot's output or rows, scaled; with mem only */
    float *scale;    /* owned, the host's: factors of a slot's rows */
    float *column;   /* owned, the host's: of the columns that a slot reads */
    double *dots;    /* owned, the host's: [2][rows] */
    size_t m, t;
} errors;

/* *out = sqrt(sum (b - a)^2 / sum a^2) of [M][n], b's columns times scale[n] (NULL: 1). */
static dr_status relative(double *out, errors *e, const float *a, const float *b, size_t n,
                          const float *scale)
{
    double off = 0, all = 0;
    dr_status st = DR_OK;

    if (e->mem != NULL) {
        if (scale != NULL)
            DR_TRY(nn_scale_matrix(e->dev, e->turned, b, e->m, n, scale, NULL, false));
        DR_TRY(nn_difference(e->dev, &off, a, scale != NULL ? e->turned : b, 1, e->m * n));
        DR_TRY(nn_squares(e->dev, &all, a, 1, e->m * n));
    }
    for (size_t r = 0; r < e->m && e->mem == NULL; r++) {
        for (size_t i = 0; i < n; i++) {
            double x = (double)a[r * n + i], y = (double)b[r * n + i];
            y = scale != NULL ? y * (double)scale[i] : y;
            off += (y - x) * (y - x);
            all += x * x;
        }
    }
    *out = all > 0 ? sqrt(off / all) : 0;
done:
    return st;
}

/* dots[r] = a_r y_r, dots[rows + r] = y_r y_r of the rows y_r = b_r * column. */
static dr_status dots_there(errors *e, const float *a, const float *b, size_t rows,
                            size_t k)
{
    dr_status st = DR_OK;

    DR_TRY(nn_scale_matrix(e->dev, e->turned, b, rows, k, e->column, NULL, false));
    DR_TRY(nn_row_dots(e->dev, e->dots, a, e->turned, rows, k));
    DR_TRY(nn_row_dots(e->dev, e->dots + rows, e->turned, e->turned, rows, k));
done:
    return st;
}

static void dots_here(errors *e, const float *a, const float *b, size_t rows, size_t k)
{
    for (size_t r = 0; r < rows; r++) {
        double ab = 0, bb = 0;
        for (size_t i = 0; i < k; i++) {
            double y = (double)b[r * k + i] * (double)e->column[i];
            ab += (double)a[r * k + i] * y;
            bb += y * y;
        }
        e->dots[r] = ab;
        e->dots[rows + r] = bb;
    }
}

/* scale[row0 ..]: what rows row0 .. row0 + rows - 1 of the slot were divided by. */
static dr_status row_factors(errors *e, hf_slot slot, hf_norm norm, size_t row0,
                             size_t rows)
{
    const size_t k = hf_slot_in(e->c, slot);
    const float *before = e->norms[0]->norm[norm], *after = e->norms[1]->norm[norm];
    const float *a = e->w[0]->w[slot] + row0 * k, *b = e->w[1]->w[slot] + row0 * k;
    dr_status st = DR_OK;

    for (size_t i = 0; i < k; i++)
        e->column[i] = before != NULL && before[i] != 0.0f ? after[i] / before[i] : 1.0f;
    if (e->mem != NULL)
        DR_TRY(dots_there(e, a, b, rows, k));
    else
        dots_here(e, a, b, rows, k);
    for (size_t r = 0; r < rows; r++) {
        double ab = e->dots[r], bb = e->dots[rows + r];
        e->scale[row0 + r] = bb > 0 && ab > 0 ? (float)(ab / bb) : 1.0f;
    }
done:
    return st;
}

/* The error of a slot that reads `in`, whose column i the quantizer made larger by
 * factor[of(i)]. */
static dr_status next_slot(double *error, errors *e, hf_slot slot, const float *in,
                           const float *factor)
{
    const size_t k = hf_slot_in(e->c, slot), n = hf_slot_out(e->c, slot);
    const size_t hd = (size_t)e->c->head_dim;
    const size_t share = (size_t)(e->c->heads / e->c->kv_heads);
    dr_status st = DR_OK;

    for (size_t i = 0; i < k; i++)
        e->column[i] = factor[slot == HF_SLOT_O ? i / hd / share * hd + i % hd : i];
    if (e->mem != NULL)
        DR_TRY(nn_scale_matrix(e->dev, e->in, in, e->m, k, e->column, NULL, true));
    for (size_t r = 0; r < e->m && e->mem == NULL; r++)
        for (size_t i = 0; i < k; i++)
            e->in[r * k + i] = in[r * k + i] / e->column[i];
    DR_TRY(nn_layer_linear(e->dec[0], e->w[0], slot, e->y, in, e->m, false));
    DR_TRY(nn_layer_linear(e->dec[1], e->w[1], slot, e->y + e->m * n, e->in, e->m, false));
    DR_TRY(relative(error, e, e->y, e->y + e->m * n, n, NULL));
done:
    return st;
}

/* A slot and the one that reads what it gives: qkv and o, gate_up and down. */
static dr_status two_slots(double *error, errors *e, hf_slot slot, hf_norm norm,
                           size_t tail, const float *a, const float *b, const float *in)
{
    const size_t n = hf_slot_out(e->c, slot), last = slot + 1;
    dr_status st = DR_OK;

    for (size_t i = 0; i < n; i++)
        e->scale[i] = 1.0f;
    if (quant_can_fold(e->c, (hf_slot)last))
        DR_TRY(row_factors(e, slot, norm, n - tail, tail));
    DR_TRY(relative(&error[slot], e, a, b, n, e->scale));
    DR_TRY(next_slot(&error[last], e, (hf_slot)last, in, e->scale + n - tail));
done:
    return st;
}

static dr_status one_layer(quant_layer_error *out, errors *e, int layer)
{
    const size_t kv = (size_t)e->c->kv_heads * (size_t)e->c->head_dim;
    const size_t d = (size_t)e->c->hidden, bytes = e->m * d * sizeof(*e->x);
    dr_status st = DR_OK;

    DR_TRY(dr_cancelled_check());
    for (int i = 1; i >= 0; i--) { /* the original's output stays */
        DR_TRY(nn_decoder_norms(e->dec[i], layer, &e->norms[i]));
        DR_TRY(nn_decoder_layer(e->dec[i], layer, &e->w[i]));
        DR_TRY(nn_copy(e->dev, e->out, e->x, bytes));
        DR_TRY(nn_layer_forward(e->dec[i], e->w[i], 1, e->t, e->out, &e->acts[i], NULL, 0));
    }
    DR_TRY(two_slots(out->slot, e, HF_SLOT_QKV, HF_NORM_ATTN, kv, e->acts[0].qkv,
                     e->acts[1].qkv, e->acts[0].attn));
    DR_TRY(two_slots(out->slot, e, HF_SLOT_GATE_UP, HF_NORM_MLP, (size_t)e->c->intermediate,
                     e->acts[0].gate_up, e->acts[1].gate_up, e->acts[0].act));
    DR_TRY(nn_copy(e->dev, e->x, e->out, bytes));
    DR_TRY(nn_layer_forward(e->dec[1], e->w[1], 1, e->t, e->stream, &e->acts[1], NULL, 0));
    DR_TRY(relative(&out->stream, e, e->x, e->stream, d, NULL));
done:
    return st;
}

static dr_status errors_open(errors *e, nn_decoder *const dec[2], size_t t)
{
    const hf_config *c = nn_decoder_config(dec[0]);
    nn_device *dev = nn_decoder_device(dec[0]);
    const size_t d = (size_t)c->hidden, inner = (size_t)c->intermediate;
    const size_t heads = hf_slot_in(c, HF_SLOT_O), widest = inner > heads ? inner : heads;
    const size_t columns = widest > d ? widest : d;
    nn_device *mem = nn_mem_apart(dev) ? dev : NULL;
    size_t rows = 0, turned = 0;
    dr_status st = DR_OK;

    *e = (errors){.dev = dev, .mem = mem, .dec = {dec[0], dec[1]}, .c = c, .m = t, .t = t};
    for (hf_slot s = 0; s < HF_SLOT_COUNT; s++) {
        size_t n = hf_slot_out(c, s), k = hf_slot_in(c, s);
        rows = n > rows ? n : rows;
        turned = n * (k > t ? k : t) > turned ? n * (k > t ? k : t) : turned;
    }
    DR_TRY(nn_acts_new_there(&e->acts[0], mem, c, 1, t, 0));
    DR_TRY(nn_acts_new_there(&e->acts[1], mem, c, 1, t, 0));
    DR_TRY(quant_floats_at(mem, &e->x, t, d, "hidden states"));
    DR_TRY(quant_floats_at(mem, &e->out, t, d, "hidden states"));
    DR_TRY(quant_floats_at(mem, &e->stream, t, d, "hidden states"));
    DR_TRY(quant_floats_at(mem, &e->in, t, widest, "inputs of a slot"));
    DR_TRY(quant_floats_at(mem, &e->y, 2 * t, d, "outputs of a slot"));
    if (mem != NULL)
        DR_TRY(quant_floats_at(mem, &e->turned, turned, 1, "a slot, scaled"));
    DR_TRY(quant_floats(&e->scale, 1, rows, "factors of rows"));
    DR_TRY(quant_floats(&e->column, 1, columns, "factors of columns"));
    e->dots = dr_calloc(2 * rows, sizeof(*e->dots));
done:
    return st;
}

static void errors_close(errors *e)
{
    float *const there[] = {e->x, e->out, e->stream, e->in, e->y, e->turned};

    for (int i = 0; i < 2; i++)
        nn_acts_free(&e->acts[i], e->mem);
    for (size_t i = 0; i < DR_COUNT(there); i++)
        nn_mem_free(e->mem, there[i]);
    dr_big_free(e->scale);
    dr_big_free(e->column);
    free(e->dots);
}

dr_status quant_layer_errors(quant_layer_error *out, nn_decoder *before, nn_decoder *after,
                             const int32_t *ids, size_t count)
{
    nn_decoder *const dec[] = {before, after};
    errors e = {0};
    dr_status st = DR_OK;

    DR_TRY(errors_open(&e, dec, count));
    DR_TRY(nn_decoder_embed(before, e.x, ids, count));
    DR_TRY(nn_decoder_embed(after, e.stream, ids, count));
    for (int i = 0; i < e.c->layers; i++)
        DR_TRY(one_layer(&out[i], &e, i));
done:
    errors_close(&e);
    return st;
}
