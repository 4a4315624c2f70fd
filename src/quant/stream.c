/*
 * stream.c - calibration text on its way through a model, and a layer's linears by slot.
 *
 * What is kept for all tokens is one row of D floats each, the input of the layer that is
 * being worked on.  Everything else exists for a chunk of sequences at a time.
 */
#include <math.h>
#include <stdlib.h>

#include "core/mem.h"
#include "quant/quant_impl.h"

enum { READ_ROWS = 64, SLOT_LINEARS = 3, CHUNK_FLOATS = 3 << 23 };

dr_status quant_floats(float **out, size_t a, size_t b, const char *what)
{
    void *p = NULL;
    dr_status st = dr_big_alloc(&p, a, b * sizeof(float), what);

    *out = p;
    return st;
}

dr_status quant_room(float **out, size_t a, size_t b, const char *what)
{
    void *p = NULL;
    dr_status st = dr_big_room(&p, a, b * sizeof(float), what);

    *out = p;
    return st;
}

nn_device *quant_there(nn_device *dev)
{
    return nn_quant_ops(dev) ? dev : NULL;
}

static dr_status mem_at(nn_device *mem, float **out, size_t a, size_t b, nn_mem_kind kind,
                        const char *what)
{
    size_t floats = 0;

    *out = NULL;
    if (!dr_mul(&floats, a, b))
        return dr_fail(DR_ENOMEM, "%s: %zu times %zu floats", what, a, b);
    return nn_mem_new(mem, out, floats, kind, what);
}

dr_status quant_floats_at(nn_device *mem, float **out, size_t a, size_t b, const char *what)
{
    return mem_at(mem, out, a, b, NN_MEM_FLOAT, what);
}

static nn_mem_kind act_kind(const nn_device *mem)
{
    return mem != NULL ? nn_rough_kind(mem) : NN_MEM_FLOAT;
}

dr_status quant_acts_at(nn_device *mem, float **out, size_t a, size_t b, const char *what)
{
    return mem_at(mem, out, a, b, act_kind(mem), what);
}

size_t quant_act_bytes(const nn_device *mem)
{
    return act_kind(mem) == NN_MEM_BF16 ? sizeof(uint16_t) : sizeof(float);
}

dr_status quant_decoder_open(nn_decoder **out, nn_device *dev, nn_device *mem,
                             const hf_model *m)
{
    dr_status st = DR_OK;

    if (mem == NULL)
        return nn_decoder_open(out, dev, m, 0);
    DR_TRY(nn_decoder_open_there(out, dev, m, 0));
    nn_decoder_floats(*out, true);
done:
    return st;
}

dr_status quant_stream_embed(const quant_stream *s, nn_decoder *dec, float *x)
{
    size_t t = s->calib.seq_len, d = (size_t)s->cfg->hidden;
    dr_status st = DR_OK;

    for (size_t i = 0; i < s->calib.count; i += s->step) {
        DR_TRY(dr_cancelled_check());
        DR_TRYF(nn_decoder_embed(dec, x + i * t * d, s->calib.ids + i * t,
                                 quant_stream_count(s, i) * t),
                "embedding the calibration text");
    }
done:
    return st;
}

/* The ids are in the vocabulary: the model's own embedding was asked first. */
static dr_status embed_rounded(quant_stream *s)
{
    size_t n = s->calib.count * s->calib.seq_len, d = (size_t)s->cfg->hidden;
    float scale = (float)s->cfg->embed_scale, *x = dr_calloc(d, sizeof(*x));
    dr_status st = DR_OK;

    for (size_t i = 0; i < n; i++) {
        dr_qtensor_to_f32(x, s->site->table, (size_t)s->calib.ids[i], 1);
        for (size_t k = 0; scale != 1.0f && k < d; k++)
            x[k] *= scale;
        DR_TRY(nn_copy(s->site->dev, s->x + i * d, x, d * sizeof(*x)));
    }
done:
    free(x);
    return st;
}

dr_status quant_packed_slots(float *packed[HF_SLOT_COUNT], nn_device *dev, nn_device *mem,
                             const hf_config *c)
{
    dr_status st = DR_OK;

    for (int i = 0; i < HF_SLOT_COUNT; i++) {
        size_t out = hf_slot_out(c, (hf_slot)i), in = hf_slot_in(c, (hf_slot)i);
        DR_TRY(quant_floats_at(mem, &packed[i],
                               nn_rough_bytes(dev, out, in) / sizeof(float), 1,
                               "a layer's weights"));
    }
done:
    return st;
}

dr_status quant_pack_slots(nn_layer *out, float *const packed[HF_SLOT_COUNT],
                           nn_device *dev, const hf_config *c, const nn_layer *w)
{
    dr_status st = DR_OK;

    *out = *w;
    for (int i = 0; i < HF_SLOT_COUNT; i++) {
        DR_TRY(nn_rough_pack(dev, packed[i], w->w[i], hf_slot_out(c, (hf_slot)i),
                             hf_slot_in(c, (hf_slot)i)));
        out->rough[i] = packed[i];
    }
done:
    return st;
}

dr_status quant_stream_open(quant_stream *s, const quant_site *site,
                            const quant_calib *calib, nn_device *mem)
{
    const hf_config *c = hf_model_config(site->in);
    size_t t = calib->seq_len, rows = 0, chunk = mem ? QUANT_CHUNK_THERE : QUANT_CHUNK;
    const dr_ranks *r = quant_ranks(site);
    size_t first = quant_edge(r, dr_ranks_id(r), calib->count);
    size_t end = quant_edge(r, dr_ranks_id(r) + 1, calib->count);
    dr_status st = DR_OK;

    *s = (quant_stream){.site = site,
                        .calib = {calib->ids + first * t, end - first, t},
                        .first = first,
                        .cfg = c,
                        .mem = mem};
    if (calib->count == 0 || t == 0)
        DR_FAIL(DR_EUSAGE, "calibration: expected sequences of tokens, found %zu of %zu",
                calib->count, t);
    if (calib->count < dr_ranks_count(r))
        DR_FAIL(DR_EUSAGE, "calibration: %zu sequences for %zu processes", calib->count,
                dr_ranks_count(r));
    if (!dr_mul(&s->tokens, calib->count, t))
        DR_FAIL(DR_EUSAGE, "calibration: %zu sequences of %zu tokens are too many",
                calib->count, t);
    rows = s->calib.count * t;
    while (mem == NULL && chunk * quant_widest_slot(c).out > CHUNK_FLOATS)
        chunk /= 2; /* a wide model's */
    s->step = t < chunk ? chunk / t : 1;
    DR_TRY(quant_decoder_open(&s->dec, site->dev, mem, site->in));
    DR_TRY(quant_floats_at(mem, &s->x, rows, (size_t)c->hidden, "calibration inputs"));
    DR_TRY(quant_stream_embed(s, s->dec, s->x));
    if (site->table != NULL)
        DR_TRY(embed_rounded(s));
done:
    if (st != DR_OK)
        quant_stream_close(s);
    return st;
}

void quant_stream_close(quant_stream *s)
{
    nn_decoder_close(s->dec);
    nn_mem_free(s->mem, s->x);
    *s = (quant_stream){0};
}

size_t quant_stream_count(const quant_stream *s, size_t i)
{
    size_t left = s->calib.count - i;

    return left < s->step ? left : s->step;
}

size_t quant_stream_floats(const quant_stream *s)
{
    return s->calib.count * s->calib.seq_len * (size_t)s->cfg->hidden;
}

/* ---- linears by slot ---- */

quant_widest quant_widest_slot(const hf_config *c)
{
    quant_widest most = {0};

    for (int i = 0; i < HF_SLOT_COUNT; i++) {
        size_t n = hf_slot_out(c, (hf_slot)i), k = hf_slot_in(c, (hf_slot)i);
        most.weights = n * k > most.weights ? n * k : most.weights;
        most.in = k > most.in ? k : most.in;
        most.out = n > most.out ? n : most.out;
    }
    return most;
}

const hf_linear *quant_slot_linears(const hf_model *m, int layer, hf_slot slot,
                                    size_t *count)
{
    const hf_linear *all = NULL, *first = NULL;
    size_t n = hf_layer_linears(m, layer, &all), k = 0;

    for (size_t i = 0; i < n; i++) {
        if (all[i].slot == slot && k++ == 0)
            first = &all[i];
    }
    DR_BUG_IF(first == NULL);
    if (count != NULL)
        *count = k;
    return first;
}

typedef struct {
    const hf_model *m;
    const hf_linear *l;
    float *w;
} read_job;

static dr_status read_rows(void *ctx, size_t task, int worker)
{
    const read_job *job = ctx;
    size_t row0 = task * READ_ROWS, left = job->l->n_out - row0;
    size_t n = left < READ_ROWS ? left : READ_ROWS;
    float *w = job->w + row0 * job->l->n_in;
    dr_status st = DR_OK;

    (void)worker;
    DR_TRY(hf_linear_read(job->m, job->l, w, row0, n));
    if (!dr_all_finite(w, DR_DTYPE_F32, n * job->l->n_in))
        DR_FAIL(DR_EFORMAT, "rows %zu to %zu hold a weight that is not finite", row0,
                row0 + n - 1);
done:
    return st;
}

static dr_status read_linear(const quant_site *site, const hf_linear *l, float *w)
{
    read_job job = {site->in, l, w};
    dr_status st = DR_OK;

    DR_TRYF(dr_pool_run(nn_device_pool(site->dev), (l->n_out + READ_ROWS - 1) / READ_ROWS,
                        read_rows, &job),
            "reading %s", l->path);
done:
    return st;
}

/* w, of the device's memory where there is a stage, = the linear's weights. */
static dr_status load_linear(const quant_site *site, const hf_linear *l, float *w,
                             float *stage)
{
    const void *as_is = NULL;
    size_t count = l->n_out * l->n_in;
    double sum = 0;
    dr_status st = DR_OK;

    if (stage == NULL)
        return read_linear(site, l, w);
    as_is = hf_linear_bf16(site->in, l);
    if (as_is == NULL) {
        DR_TRY(read_linear(site, l, stage));
        DR_TRY(nn_copy(site->dev, w, stage, count * sizeof(*w)));
        goto done;
    }
    DR_TRY(nn_copy_bf16(site->dev, w, as_is, count));
    DR_TRY(nn_squares(site->dev, &sum, w, 1, count));
    if (!isfinite(sum))
        DR_FAIL(DR_EFORMAT, "reading %s: it holds a weight that is not finite", l->path);
done:
    return st;
}

dr_status quant_slot_read(const quant_site *site, int layer, hf_slot slot, float *w,
                          float *bias)
{
    return quant_slot_load(site, layer, slot, w, NULL, bias);
}

dr_status quant_slot_load(const quant_site *site, int layer, hf_slot slot, float *w,
                          float *stage, float *bias)
{
    size_t count = 0;
    const hf_linear *l = quant_slot_linears(site->in, layer, slot, &count);
    dr_status st = DR_OK;

    for (size_t i = 0; i < count; i++) {
        DR_TRY(load_linear(site, &l[i], w + l[i].row0 * l[i].n_in, stage));
        if (bias != NULL)
            DR_TRY(hf_linear_bias(site->in, &l[i], bias + l[i].row0));
    }
done:
    return st;
}

dr_status quant_slot_restore(const quant_site *site, int layer, hf_slot slot, float *w,
                             float *stage)
{
    size_t count = 0;
    const hf_linear *l = quant_slot_linears(site->in, layer, slot, &count);
    dr_status st = DR_OK;

    for (size_t i = 0; i < count; i++) {
        if (quant_is_plain(site, &l[i]))
            DR_TRY(load_linear(site, &l[i], w + l[i].row0 * l[i].n_in, stage));
    }
done:
    return st;
}

dr_status quant_slot_write(const quant_site *site, int layer, hf_slot slot, dr_qtensor *q)
{
    const hf_linear *rounded[SLOT_LINEARS], *l = NULL;
    size_t count = 0, n = 0;

    l = quant_slot_linears(site->in, layer, slot, &count);
    DR_BUG_IF(count > SLOT_LINEARS);
    for (size_t i = 0; i < count; i++) {
        if (!quant_is_plain(site, &l[i])) /* the writer copies those */
            rounded[n++] = &l[i];
    }
    return hf_writer_rows(site->out, rounded, n, q);
}
