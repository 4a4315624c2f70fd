/*
 * rotate.c - QuaRot: every weight in the bases that R1 and the layers' R2 give, one layer
 * in memory at a time.
 *
 *     embedding           E R1
 *     q, k, v, gate, up   W diag(norm) R1     (v also: R2^T of each head's rows)
 *     o, down             R1^T W              (o also: each head's columns times R2)
 *     head                W diag(final norm) R1
 *
 * What reads the stream sees x R1 normalized, since R1 keeps its length, and undoes R1 by
 * its own; what writes to it writes in the new basis, biases too.  Attention is linear in V
 * and its weights sum to one, so R2 passes through it with v's bias.  q, k and their norms
 * and rotations by position see what they saw, and multipliers are numbers, which commute.
 */
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "quant/quant_impl.h"
#include "quant/rotation_impl.h"

enum { TILE = 32, SLICE = 2048 }; /* SLICE: rows of the embedding at a time */

typedef struct {
    const quant_site *site;
    const hf_config *c; /* borrowed */
    quant_rotate_options o;
    quant_rotation r1, r2; /* owned; r2: of the layer */
    float *w, *t;          /* owned: a slot, and its transpose */
    float *bias, *norm;    /* owned */
} rotation_run;

static dr_status check(const hf_config *c)
{
    const char *why = NULL;
    dr_status st = DR_OK;

    if (c->experts.count > 0)
        why = "experts, which are not rotated yet";
    else if (c->norm_kind == HF_NORM_KIND_LAYER)
        why = "LayerNorm, whose mean a rotation does not keep; QuaRot is for RMSNorm";
    else if (hf_norm_exists(c, HF_NORM_ATTN_OUT) || hf_norm_exists(c, HF_NORM_MLP_OUT))
        why = "norms behind attention and MLP, whose weights a rotation cannot pass";
    if (why != NULL) {
        st = dr_fail(DR_EUNSUPPORTED, "%s has %s", c->arch_name, why);
        dr_hint("the nearest is --algorithm best, which takes it as it is");
    }
    return st;
}

static void tell_unknown(const hf_config *c, const quant_rotate_options *o)
{
    const int sizes[] = {c->hidden, c->head_dim};

    for (size_t i = 0; !o->random && i < DR_COUNT(sizes); i++) {
        if (quant_hadamard_order((size_t)sizes[i]) == 0)
            dr_warn_result("no Hadamard matrix of %d is known here: a random orthogonal "
                           "one takes its place",
                           sizes[i]);
    }
}

/* ---- transposing ---- */

typedef struct {
    float *to;
    const float *from;
    size_t rows, cols;
} turning;

static dr_status turn_rows(void *ctx, size_t task, int worker)
{
    const turning *t = ctx;
    size_t r0 = task * TILE, r1 = r0 + TILE < t->rows ? r0 + TILE : t->rows;

    (void)worker;
    for (size_t c0 = 0; c0 < t->cols; c0 += TILE) {
        size_t c1 = c0 + TILE < t->cols ? c0 + TILE : t->cols;
        for (size_t c = c0; c < c1; c++) {
            for (size_t r = r0; r < r1; r++)
                t->to[c * t->rows + r] = t->from[r * t->cols + c];
        }
    }
    return DR_OK;
}

/* to[cols][rows] = from[rows][cols]. */
static dr_status turn(nn_device *dev, float *to, const float *from, size_t rows,
                      size_t cols)
{
    turning t = {to, from, rows, cols};

    return dr_pool_run(nn_device_pool(dev), (rows + TILE - 1) / TILE, turn_rows, &t);
}

/* w[rows][cols]: R^T of each r->n rows that follow each other. */
static dr_status rotate_outputs(rotation_run *run, const quant_rotation *r, float *w,
                                size_t rows, size_t cols)
{
    nn_device *dev = run->site->dev;
    dr_status st = DR_OK;

    DR_TRY(turn(dev, run->t, w, rows, cols));
    DR_TRY(quant_rotation_rows(r, dev, run->t, cols * (rows / r->n)));
    DR_TRY(turn(dev, w, run->t, cols, rows));
done:
    return st;
}

/* ---- a layer ---- */

/* w[rows][D], which reads the stream: the norm before it goes in, and R1. */
static dr_status rotate_reader(rotation_run *run, hf_norm which, int layer, float *w,
                               size_t rows)
{
    size_t d = (size_t)run->c->hidden;
    dr_status st = DR_OK;

    DR_TRY(hf_norm_read(run->site->in, which, layer, run->norm));
    for (size_t i = 0; i < rows; i++) {
        for (size_t k = 0; k < d; k++)
            w[i * d + k] *= run->norm[k];
    }
    DR_TRY(quant_rotation_rows(&run->r1, run->site->dev, w, rows));
done:
    return st;
}

static dr_status plain_norm(rotation_run *run, hf_norm which, int layer)
{
    for (int i = 0; i < run->c->hidden; i++)
        run->norm[i] = 1;
    return hf_writer_norm(run->site->out, which, layer, run->norm);
}

static dr_status write_slot(rotation_run *run, int layer, hf_slot slot, bool biases)
{
    const quant_site *site = run->site;
    size_t count = 0;
    const hf_linear *l = quant_slot_linears(site->in, layer, slot, &count);
    dr_status st = DR_OK;

    for (size_t i = 0; i < count; i++) {
        DR_TRY(hf_writer_linear(site->out, &l[i], run->w + l[i].row0 * l[i].n_in));
        if (biases && l[i].has_bias)
            DR_TRY(hf_writer_bias(site->out, &l[i], run->bias + l[i].row0));
    }
done:
    return st;
}

static dr_status rotate_qkv(rotation_run *run, int layer)
{
    const quant_site *site = run->site;
    size_t d = (size_t)run->c->hidden, n = hf_slot_out(run->c, HF_SLOT_QKV);
    size_t kv = (size_t)run->c->kv_heads * (size_t)run->c->head_dim;
    dr_status st = DR_OK;

    DR_TRY(quant_slot_read(site, layer, HF_SLOT_QKV, run->w, run->bias));
    DR_TRY(rotate_reader(run, HF_NORM_ATTN, layer, run->w, n));
    DR_TRY(rotate_outputs(run, &run->r2, run->w + (n - kv) * d, kv, d));
    DR_TRY(quant_rotation_rows(&run->r2, site->dev, run->bias + n - kv,
                               (size_t)run->c->kv_heads));
    DR_TRY(write_slot(run, layer, HF_SLOT_QKV, true));
    DR_TRY(plain_norm(run, HF_NORM_ATTN, layer));
done:
    return st;
}

/* O and DOWN, which write to the stream. */
static dr_status rotate_writer(rotation_run *run, int layer, hf_slot slot)
{
    const quant_site *site = run->site;
    size_t d = (size_t)run->c->hidden, k = hf_slot_in(run->c, slot);
    dr_status st = DR_OK;

    DR_TRY(quant_slot_read(site, layer, slot, run->w, run->bias));
    if (slot == HF_SLOT_O)
        DR_TRY(quant_rotation_rows(&run->r2, site->dev, run->w, d * (size_t)run->c->heads));
    DR_TRY(rotate_outputs(run, &run->r1, run->w, d, k));
    DR_TRY(quant_rotation_rows(&run->r1, site->dev, run->bias, 1));
    DR_TRY(write_slot(run, layer, slot, true));
done:
    return st;
}

static dr_status rotate_layer(void *ctx, int layer)
{
    rotation_run *run = ctx;
    const quant_site *site = run->site;
    dr_status st = DR_OK;

    DR_TRY(dr_cancelled_check());
    DR_TRY(quant_rotation_make(&run->r2, nn_device_pool(site->dev),
                               (size_t)run->c->head_dim, run->o.random, run->o.seed,
                               (uint64_t)layer + 1));
    DR_TRY(rotate_qkv(run, layer));
    DR_TRY(rotate_writer(run, layer, HF_SLOT_O));
    DR_TRY(quant_slot_read(site, layer, HF_SLOT_GATE_UP, run->w, NULL));
    DR_TRY(rotate_reader(run, HF_NORM_MLP, layer, run->w,
                         hf_slot_out(run->c, HF_SLOT_GATE_UP)));
    DR_TRY(write_slot(run, layer, HF_SLOT_GATE_UP, false));
    DR_TRY(plain_norm(run, HF_NORM_MLP, layer));
    DR_TRY(rotate_writer(run, layer, HF_SLOT_DOWN));
done:
    quant_rotation_release(&run->r2);
    return st;
}

/* ---- around the layers ---- */

static dr_status rotate_outer(rotation_run *run, hf_outer which)
{
    const quant_site *site = run->site;
    const hf_linear *head = hf_head_linear(site->in);
    size_t vocab = (size_t)run->c->vocab;
    dr_status st = DR_OK;

    for (size_t i = 0; i < vocab; i += SLICE) {
        size_t n = vocab - i < SLICE ? vocab - i : SLICE;
        DR_TRY(dr_cancelled_check());
        if (which == HF_OUTER_HEAD && head != NULL)
            DR_TRY(hf_linear_read(site->in, head, run->w, i, n));
        else
            DR_TRY(hf_embed_read(site->in, run->w, i, n));
        if (which == HF_OUTER_HEAD)
            DR_TRY(rotate_reader(run, HF_NORM_FINAL, 0, run->w, n));
        else
            DR_TRY(quant_rotation_rows(&run->r1, site->dev, run->w, n));
        DR_TRY(hf_writer_outer(site->out, which, run->w, i, n));
    }
done:
    return st;
}

dr_status quant_rotate(const quant_site *site, const quant_rotate_options *o)
{
    const hf_config *c = hf_model_config(site->in);
    const quant_widest widest = quant_widest_slot(c);
    size_t d = (size_t)c->hidden, slice = SLICE * d;
    size_t floats = widest.weights > slice ? widest.weights : slice;
    rotation_run run = {.site = site, .c = c, .o = *o};
    dr_status st = DR_OK;

    DR_TRY(check(c));
    tell_unknown(c, o);
    hf_writer_untie(site->out);
    DR_TRY(
        quant_rotation_make(&run.r1, nn_device_pool(site->dev), d, o->random, o->seed, 0));
    DR_TRY(quant_floats(&run.w, floats, 1, "weights to rotate"));
    DR_TRY(quant_floats(&run.t, widest.weights, 1, "weights to rotate, transposed"));
    DR_TRY(quant_floats(&run.bias, widest.out, 1, "biases to rotate"));
    DR_TRY(quant_floats(&run.norm, d, 1, "norms to fold"));
    DR_TRY(quant_each_layer(site, NULL, 0, rotate_layer, &run));
    DR_TRY(rotate_outer(&run, HF_OUTER_EMBED));
    DR_TRY(rotate_outer(&run, HF_OUTER_HEAD));
    DR_TRY(plain_norm(&run, HF_NORM_FINAL, 0));
done:
    quant_rotation_release(&run.r1);
    dr_big_free(run.w);
    dr_big_free(run.t);
    dr_big_free(run.bias);
    dr_big_free(run.norm);
    return st;
}
