/*
 * learner.c - a packed model whose scales are trained (learner_impl.h).
 *
 * On a device with memory of its own all but the original's hidden states lies there.  On
 * the host, products are of 8-bit integers (nn_i8.h) where gradients are taken: a layer's
 * weights are packed once a step, for forwards and, transposed, for backwards.  What the
 * scales are judged by is of floats.
 *
 * Several sequences go through together, so that a layer's weights and gradients are made
 * and read once for all of them: as many as ROWS tokens, whatever the memory, since bytes
 * depend on it.  Weights and activations of all layers are kept when they fit keep_bytes,
 * else one layer's: activations are then computed twice.
 */
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "quant/learner_impl.h"

enum { ROWS = 2048, ROWS_THERE = 8192 };

void quant_learner_close(quant_learner *s)
{
    float *theirs[] = {s->codes, s->scales, s->grad, s->small, s->w,
                       s->dw,    s->packs,  s->x,    s->dx,    s->inputs};

    for (size_t i = 0; s->first != NULL && i < s->first[s->c->layers]; i++)
        dr_qtensor_release(&s->linears[i].q);
    for (size_t i = 0; s->acts != NULL && i < s->acts_count; i++)
        nn_mem_free(s->dev, s->acts[i].x);
    for (size_t i = 0; i < DR_COUNT(theirs); i++)
        nn_mem_free(s->dev, theirs[i]);
    dr_big_free(s->targets);
    free(s->linears);
    free(s->first);
    free(s->layers);
    free(s->acts);
    free(s->fresh);
    nn_decoder_close(s->dec);
    nn_decoder_close(s->teacher);
}

static dr_status floats(quant_learner *s, float **out, size_t a, size_t b, const char *what)
{
    return quant_floats_at(s->dev, out, a, b, what);
}

/* ---- packed linears ---- */

static dr_status read_linears(quant_learner *s)
{
    const hf_model *m = s->site->in;
    const hf_linear *list = NULL;
    size_t n = 0, packed = 0;
    dr_status st = DR_OK;

    for (int i = 0; i < s->c->layers; i++)
        n += hf_layer_linears(m, i, &list);
    s->linears = dr_calloc(n + 1, sizeof(*s->linears));
    s->first = dr_calloc((size_t)s->c->layers + 1, sizeof(*s->first));
    for (int i = 0; i < s->c->layers; i++) {
        size_t count = hf_layer_linears(m, i, &list);
        for (size_t k = 0; k < count; k++) {
            quant_trained *t = &s->linears[packed];
            if (!list[k].packed)
                continue;
            /* counted first, so that a failure releases it */
            for (int later = i + 1; later <= s->c->layers; later++)
                s->first[later]++;
            packed++;
            t->l = &list[k];
            DR_TRYF(hf_linear_packed(m, t->l, &t->q, NULL), "reading %s", t->l->path);
            t->at = s->scale_count;
            t->count = t->q.rows * dr_qtensor_blocks(&t->q);
            s->scale_count += t->count;
        }
    }
    if (packed == 0)
        DR_FAIL(DR_EUSAGE, "%s has no packed linear whose scales could be trained",
                hf_model_path(m));
done:
    return st;
}

/* Floats that hold so many bytes, and an aligned start for what is next. */
static size_t room_for(size_t bytes)
{
    return (bytes + 63) / 64 * 16;
}

/* Codes and zero points in the device's memory, where it has its own. */
static dr_status place_codes(quant_learner *s)
{
    size_t linears = s->first[s->c->layers], at = 0;
    dr_status st = DR_OK;

    for (size_t i = 0; i < linears; i++) {
        const dr_qtensor *q = &s->linears[i].q;
        at += room_for(q->rows * dr_qtensor_row_bytes(q));
        at += q->zeros != NULL ? room_for(q->rows * dr_qtensor_zero_bytes(q)) : 0;
    }
    DR_TRY(floats(s, &s->codes, at, 1, "packed weights"));
    at = 0;
    for (size_t i = 0; i < linears; i++) {
        quant_trained *t = &s->linears[i];
        size_t codes = t->q.rows * dr_qtensor_row_bytes(&t->q);
        size_t zeros = t->q.rows * dr_qtensor_zero_bytes(&t->q);
        t->live.codes = (uint8_t *)(s->codes + at);
        DR_TRY(nn_copy(s->dev, t->live.codes, t->q.codes, codes));
        at += room_for(codes);
        if (t->q.zeros == NULL)
            continue;
        t->live.zeros = (uint8_t *)(s->codes + at);
        DR_TRY(nn_copy(s->dev, t->live.zeros, t->q.zeros, zeros));
        at += room_for(zeros);
    }
done:
    return st;
}

static dr_status open_linears(quant_learner *s)
{
    dr_status st = DR_OK;

    DR_TRY(read_linears(s));
    DR_TRY(floats(s, &s->scales, s->scale_count, 1, "scales"));
    DR_TRY(floats(s, &s->grad, s->scale_count, 1, "gradients of scales"));
    for (size_t i = 0; i < s->first[s->c->layers]; i++) {
        quant_trained *t = &s->linears[i];
        t->live = t->q;
        t->live.owned = false;
        t->live.scales = s->scales + t->at;
    }
    if (nn_mem_apart(s->dev))
        DR_TRY(place_codes(s));
done:
    return st;
}

/* ---- memory ---- */

/* The layer's norms into its own room, which *at is moved behind. */
static dr_status keep_norms(quant_learner *s, int layer, float **at)
{
    const nn_layer *norms = NULL;
    nn_layer *w = &s->layers[layer];
    dr_status st = DR_OK;

    DR_TRY(nn_decoder_norms(s->dec, layer, &norms));
    *w = *norms;
    for (hf_norm k = 0; k < HF_NORM_FINAL; k++) {
        float **both[] = {&w->norm[k], &w->norm_bias[k]};
        for (size_t i = 0; i < DR_COUNT(both); i++) {
            if (*both[i] == NULL)
                continue;
            DR_TRY(nn_copy(s->dev, *at, *both[i], hf_norm_size(s->c, k) * sizeof(**at)));
            *both[i] = *at;
            *at += hf_norm_size(s->c, k);
        }
    }
done:
    return st;
}

/* Likewise biases, by way of room on the host. */
static dr_status keep_biases(quant_learner *s, int layer, float **at, float *room)
{
    const hf_linear *list = NULL;
    size_t linears = hf_layer_linears(s->site->in, layer, &list);
    nn_layer *w = &s->layers[layer];
    dr_status st = DR_OK;

    for (size_t i = 0; i < linears; i++) {
        const hf_linear *l = &list[i];
        if (!l->has_bias)
            continue;
        if (w->bias[l->slot] == NULL) {
            w->bias[l->slot] = *at;
            *at += hf_slot_out(s->c, l->slot);
        }
        DR_TRY(hf_linear_bias(s->site->in, l, room));
        DR_TRY(nn_copy(s->dev, w->bias[l->slot] + l->row0, room, l->n_out * sizeof(*room)));
    }
done:
    return st;
}

static dr_status open_layers(quant_learner *s)
{
    size_t layers = (size_t)s->c->layers, outs = 0, norms = 0;
    float *at = NULL, *room = NULL;
    dr_status st = DR_OK;

    for (hf_norm k = 0; k < HF_NORM_FINAL; k++)
        norms += hf_norm_exists(s->c, k) ? 2 * hf_norm_size(s->c, k) : 0;
    for (hf_slot i = 0; i < HF_SLOT_COUNT; i++)
        outs += hf_slot_out(s->c, i);
    room = dr_calloc(outs, sizeof(*room));
    s->layers = dr_calloc(layers, sizeof(*s->layers));
    DR_TRY(floats(s, &s->small, layers, norms + outs, "norms and biases"));
    at = s->small;
    for (int i = 0; i < s->c->layers; i++) {
        DR_TRY(keep_norms(s, i, &at));
        DR_TRY(keep_biases(s, i, &at, room));
    }
done:
    free(room);
    return st;
}

/* Room for all layers' weights and activations where keep bytes allow, else for one's. */
static dr_status plan(quant_learner *s, size_t batch, size_t keep, bool integers)
{
    const size_t t = s->calib->seq_len, width = (size_t)s->c->hidden;
    const size_t layers = (size_t)s->c->layers, there = nn_mem_room(s->dev);
    const size_t rows = there > 0 ? ROWS_THERE : ROWS;
    dr_status st = DR_OK;

    keep = there > 0 ? there / 10 * 8 : keep;
    s->at_once = rows / t > 0 ? rows / t : 1;
    s->at_once = s->at_once < batch ? s->at_once : batch;
    const size_t acts = nn_acts_bytes(s->c, s->at_once, t, 0), n = s->at_once * t;
    s->layer_floats = hf_layer_weights(s->c);
    s->pack_floats =
        integers && there == 0 ? nn_layer_packed_bytes(s->c) / sizeof(float) : 0;
    const size_t each = s->pack_floats > 0 ? s->pack_floats : s->layer_floats;
    bool keep_acts = acts * layers <= keep / 2;
    keep -= keep_acts ? acts * layers : 0;
    s->keep = each * layers * sizeof(float) <= keep;
    s->acts_count = keep_acts ? layers : 1;
    s->acts = dr_calloc(s->acts_count, sizeof(*s->acts));
    s->fresh = dr_calloc(layers, sizeof(*s->fresh));
    for (size_t i = 0; i < s->acts_count; i++)
        DR_TRY(nn_acts_new_there(&s->acts[i], s->dev, s->c, s->at_once, t, 0));
    if (!keep_acts)
        DR_TRY(floats(s, &s->inputs, layers * n, width, "inputs of all layers"));
    if (s->pack_floats > 0)
        DR_TRY(
            floats(s, &s->packs, s->keep ? layers : 1, s->pack_floats, "packed weights"));
    const size_t kept = s->keep && s->packs == NULL ? layers : 1;
    DR_TRY(floats(s, &s->w, kept, s->layer_floats, "weights"));
    DR_TRY(floats(s, &s->dw, s->layer_floats, 1, "gradients of weights"));
    DR_TRY(floats(s, &s->x, n, width, "residual stream"));
    DR_TRY(floats(s, &s->dx, n, width, "its gradient"));
done:
    return st;
}

/* ---- opening ---- */

/* The original's last hidden states of the whole text; then only its head is asked for. */
static dr_status run_teacher(quant_learner *s, const hf_model *teacher, size_t keep,
                             size_t head)
{
    const size_t t = s->calib->seq_len, row = t * (size_t)s->c->hidden;
    const size_t step = ROWS / t > 0 ? ROWS / t : 1;
    float *x = NULL;
    dr_status st = DR_OK;

    DR_TRY(nn_decoder_open_there(&s->teacher, s->dev, teacher, keep));
    DR_TRY(quant_floats(&s->targets, s->calib->count, row, "hidden states"));
    DR_TRY(floats(s, &x, step, row, "hidden states"));
    for (size_t i = 0; i < s->calib->count; i += step) {
        size_t n = s->calib->count - i < step ? s->calib->count - i : step;
        DR_TRY(dr_cancelled_check());
        DR_TRYF(nn_decoder_hidden(s->teacher, x, s->calib->ids + i * t, n, t),
                "running the original");
        DR_TRY(nn_copy(s->dev, s->targets + i * row, x, n * row * sizeof(*x)));
    }
    nn_decoder_close(s->teacher);
    s->teacher = NULL;
    DR_TRY(nn_decoder_open_there(&s->teacher, s->dev, teacher, head));
done:
    nn_mem_free(s->dev, x);
    return st;
}

dr_status quant_learner_open(quant_learner *s, const quant_site *site,
                             const hf_model *teacher, const quant_calib *calib,
                             size_t batch, size_t keep_bytes, bool integers)
{
    const hf_config *c = hf_model_config(teacher), *own = hf_model_config(site->in);
    const size_t head = (size_t)c->vocab * (size_t)c->hidden * sizeof(float);
    const size_t room = nn_mem_room(site->dev), keep = (room > 0 ? room : keep_bytes) / 4;
    /* every chunk of logits reads the head; of the layers nothing is asked for */
    const size_t keep_head = head <= keep ? SIZE_MAX : 0;
    dr_status st = DR_OK;

    *s = (quant_learner){.site = site, .calib = calib, .c = own, .dev = site->dev};
    if (c->vocab != own->vocab || c->layers != own->layers || c->hidden != own->hidden)
        DR_FAIL(DR_EUSAGE, "%s is not what %s was made from: other sizes",
                hf_model_path(teacher), hf_model_path(site->in));
    if (calib->count == 0 || calib->seq_len == 0)
        DR_FAIL(DR_EUSAGE, "distilling: expected sequences of tokens, found none");
    DR_TRY(open_linears(s));
    DR_TRY(nn_decoder_open_there(&s->dec, s->dev, site->in, keep_head));
    if (integers)
        nn_decoder_integers(s->dec);
    DR_TRY(open_layers(s));
    DR_TRY(run_teacher(s, teacher, keep, keep_head));
    DR_TRY(plan(s, batch, keep_bytes, integers));
done:
    return st;
}

/* ---- a layer's weights ---- */

dr_status quant_learner_set(quant_learner *s, const float *scales)
{
    size_t bytes = s->scale_count * sizeof(*scales);
    dr_status st = DR_OK;

    DR_TRY(nn_copy(s->dev, s->scales, scales, bytes));
    DR_TRY(nn_zero(s->dev, s->grad, bytes));
    memset(s->fresh, 0, (size_t)s->c->layers * sizeof(*s->fresh));
done:
    return st;
}

dr_status quant_learner_gradients(quant_learner *s, float *grad)
{
    return nn_copy(s->dev, grad, s->grad, s->scale_count * sizeof(*grad));
}

/* Linears that are not packed keep their floats. */
static dr_status plain_linears(quant_learner *s, int layer, const nn_layer *w)
{
    const hf_linear *list = NULL;
    size_t linears = hf_layer_linears(s->site->in, layer, &list);
    void *room = NULL;
    dr_status st = DR_OK;

    for (size_t i = 0; i < linears; i++) {
        const hf_linear *l = &list[i];
        size_t n = l->n_out * l->n_in;
        if (l->packed)
            continue;
        DR_TRY(dr_big_alloc(&room, n, sizeof(float), l->path));
        DR_TRY(hf_linear_read(s->site->in, l, room, 0, l->n_out));
        DR_TRY(nn_copy(s->dev, w->w[l->slot] + l->row0 * l->n_in, room, n * sizeof(float)));
        dr_big_free(room);
        room = NULL;
    }
done:
    dr_big_free(room);
    return st;
}

static dr_status float_weights(quant_learner *s, int layer, const nn_layer *w)
{
    dr_status st = DR_OK;

    DR_TRY(plain_linears(s, layer, w));
    for (size_t i = s->first[layer]; i < s->first[layer + 1]; i++) {
        const quant_trained *t = &s->linears[i];
        DR_TRY(nn_unpack(s->dev, w->w[t->l->slot] + t->l->row0 * t->l->n_in, &t->live));
    }
done:
    return st;
}

/* w's packs; the weights are made where these are not fresh. */
static dr_status integer_weights(quant_learner *s, int layer, nn_layer *w)
{
    float *at = s->packs + (s->keep ? (size_t)layer * s->pack_floats : 0);
    bool fresh = s->keep && s->fresh[layer];
    dr_status st = DR_OK;

    if (!fresh)
        DR_TRY(float_weights(s, layer, w));
    /* gradients of weights are room here: they come later */
    DR_TRY(nn_layer_pack(s->dev, w, s->c, at, fresh ? NULL : s->dw));
    s->fresh[layer] = true;
done:
    return st;
}

static dr_status layer_weights(quant_learner *s, int layer, nn_layer *w, bool exact)
{
    bool kept = s->keep && s->packs == NULL;
    float *at = s->w + (kept ? (size_t)layer * s->layer_floats : 0), *dw = s->dw;
    dr_status st = DR_OK;

    *w = s->layers[layer];
    for (hf_slot i = 0; i < HF_SLOT_COUNT; i++) {
        size_t size = hf_slot_out(s->c, i) * hf_slot_in(s->c, i);
        w->w[i] = at;
        w->dw[i] = dw;
        at += size;
        dw += size;
    }
    if (s->packs != NULL && !exact)
        return integer_weights(s, layer, w);
    if (kept && s->fresh[layer])
        goto done;
    DR_TRY(float_weights(s, layer, w));
    s->fresh[layer] = s->fresh[layer] || kept;
done:
    return st;
}

/* ---- sequences ---- */

static nn_acts *acts_of(const quant_learner *s, int layer)
{
    return &s->acts[s->inputs == NULL ? layer : 0];
}

/* Where a layer's inputs are kept; NULL: nowhere, its activations are. */
static float *input_of(const quant_learner *s, int layer)
{
    size_t row = (size_t)s->c->hidden;

    return s->inputs == NULL
               ? NULL
               : s->inputs + (size_t)layer * s->at_once * s->calib->seq_len * row;
}

static dr_status forward(quant_learner *s, int layer, nn_layer *w, nn_acts **acts, size_t n,
                         bool exact)
{
    dr_status st = DR_OK;

    *acts = acts_of(s, layer);
    DR_TRY(layer_weights(s, layer, w, exact));
    DR_TRY(nn_layer_forward(s->dec, w, n, s->calib->seq_len, s->x, *acts, NULL, 0));
done:
    return st;
}

/* Adds the gradients of the layer's scales; that of its output becomes its input's. */
static dr_status backward(quant_learner *s, int layer, size_t n)
{
    const size_t t = s->calib->seq_len, row = (size_t)s->c->hidden;
    nn_layer w = {0};
    const float *input = input_of(s, layer);
    nn_acts *acts = acts_of(s, layer);
    dr_status st = DR_OK;

    if (input != NULL) {
        DR_TRY(nn_copy(s->dev, s->x, input, n * t * row * sizeof(*input)));
        DR_TRY(forward(s, layer, &w, &acts, n, false));
    } else {
        DR_TRY(layer_weights(s, layer, &w, false));
    }
    DR_TRY(nn_layer_backward(s->dec, &w, n, t, s->dx, acts, NULL, 0, true));
    for (size_t i = s->first[layer]; i < s->first[layer + 1]; i++) {
        const quant_trained *l = &s->linears[i];
        DR_TRY(nn_unpack_back(s->dev, s->grad + l->at,
                              w.dw[l->l->slot] + l->l->row0 * l->l->n_in, &l->live));
    }
done:
    return st;
}

/* At most at_once sequences. */
static dr_status run(quant_learner *s, double *kl, size_t from, size_t n, float grad_scale)
{
    const size_t t = s->calib->seq_len, row = (size_t)s->c->hidden, m = n * t;
    const bool learn = grad_scale != 0.0f;
    nn_layer w = {0};
    nn_acts *acts = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_cancelled_check());
    DR_TRY(nn_decoder_embed(s->dec, s->x, s->calib->ids + from * t, m));
    for (int layer = 0; layer < s->c->layers; layer++) {
        float *input = input_of(s, layer);
        if (input != NULL && learn)
            DR_TRY(nn_copy(s->dev, input, s->x, m * row * sizeof(*input)));
        DR_TRY(forward(s, layer, &w, &acts, n, !learn));
    }
    DR_TRY(nn_head_kl(s->dec, s->x, s->teacher, s->targets + from * t * row, m, kl,
                      learn ? s->dx : NULL, grad_scale));
    for (int layer = s->c->layers - 1; learn && layer >= 0; layer--)
        DR_TRY(backward(s, layer, n));
done:
    return st;
}

dr_status quant_learner_run(quant_learner *s, double *kl, size_t from, size_t count,
                            float grad_scale)
{
    dr_status st = DR_OK;

    for (size_t i = 0, n; i < count; i += n) {
        n = count - i < s->at_once ? count - i : s->at_once;
        DR_TRY(run(s, kl, from + i, n, grad_scale));
    }
done:
    return st;
}
