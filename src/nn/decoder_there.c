/*
 * decoder_there.c - layers in memory of a device's own: as the file has them, through
 * floats, or packed.
 *
 * A layer has two blocks: norms and biases, and weights, in bf16 where that holds all that
 * the file has (or all that the device's products take).  bf16 of a file goes there as it
 * is.  Packed weights go there packed and stay so, whatever room there is: one block of
 * weights, or a few, are for all layers, and a layer is unpacked into the one that was not
 * used for longest.  Without room for all packed ones a layer's are let go once it is
 * unpacked.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "nn/decoder_impl.h"

enum {
    EXACT_ELEMENTS = 1 << 18, /* looked at by one task */
    STORED_PARTS = 16,        /* linears of a layer, at most */
    READ_LAYERS = 8,          /* packed ones that are read at once */
    ALIGN = 64                /* bytes: of parts of a packed layer */
};

/* ---- sizes ---- */

/* Bytes of a weight's value in the memory of mem. */
size_t nn_value_bytes(nn_device *mem, const hf_model *m)
{
    const hf_linear *linears = NULL;

    (void)hf_layer_linears(m, 0, &linears);
    if (mem == NULL)
        return sizeof(float);
    return nn_device_rounds(mem) ||
                   (hf_model_config(m)->dtype == DR_DTYPE_BF16 && !linears[0].packed)
               ? sizeof(uint16_t)
               : sizeof(float);
}

/* Of the embeddings, where they lie beside the head in mem: bf16, as they are looked up. */
static size_t table_bytes(nn_device *mem, const hf_model *m)
{
    const hf_config *c = hf_model_config(m);

    return nn_device_rounds(mem) && hf_head_linear(m) != NULL
               ? (size_t)c->vocab * (size_t)c->hidden * sizeof(uint16_t)
               : 0;
}

size_t nn_head_bytes(nn_device *mem, const hf_model *m)
{
    const hf_config *c = hf_model_config(m);

    return (size_t)c->vocab * (size_t)c->hidden *
               (nn_device_rounds(mem) ? sizeof(uint16_t) : sizeof(float)) +
           table_bytes(mem, m);
}

size_t nn_decoder_there_bytes(nn_device *dev, const hf_model *m)
{
    const hf_config *c = hf_model_config(m);
    nn_layer measure = {0};
    size_t layers = nn_packed_bytes(dev, m);

    if (layers == 0)
        layers =
            nn_layer_place(&measure, c, NULL) * nn_value_bytes(dev, m) * (size_t)c->layers;
    return layers + nn_head_bytes(dev, m);
}

/* ---- through floats, or as they are ---- */

typedef struct {
    const float *x;
    size_t count;
    bool *inexact; /* [tasks] */
} exact_job;

static dr_status exact_task(void *ctx, size_t task, int worker)
{
    const exact_job *j = ctx;
    size_t from = task * EXACT_ELEMENTS, left = j->count - from;
    const float *x = j->x + from;
    uint32_t low = 0, bits = 0;

    (void)worker;
    for (size_t i = 0; i < (left < EXACT_ELEMENTS ? left : EXACT_ELEMENTS); i++) {
        memcpy(&bits, x + i, sizeof(bits));
        low |= bits & 0xffffu;
    }
    j->inexact[task] = low != 0;
    return DR_OK;
}

/* Has bf16 room for all that x[count] has? */
static dr_status holds(nn_decoder *d, bool *yes, const float *x, size_t count)
{
    size_t tasks = (count + EXACT_ELEMENTS - 1) / EXACT_ELEMENTS;
    exact_job j = {x, count, dr_calloc(tasks, sizeof(bool))};
    dr_status st = DR_OK;

    DR_TRY(dr_pool_run(nn_device_pool(d->dev), tasks, exact_task, &j));
    for (size_t i = 0; i < tasks; i++)
        *yes = *yes && !j.inexact[i];
done:
    free(j.inexact);
    return st;
}

dr_status nn_copy_parts(nn_decoder *d, const nn_part *to, const nn_part *from, size_t n)
{
    dr_status st = DR_OK;

    for (size_t i = 0; i < n; i++)
        DR_TRY(nn_copy(d->dev, *to[i].p, *from[i].p, to[i].floats * sizeof(float)));
done:
    return st;
}

/* The rows of layer's linears as the file has them, if all are bf16 there and nothing is to
 * be done to them; returns how many, 0: they are not. */
static size_t stored_parts(const nn_decoder *d, nn_stored *parts, const nn_layer *w,
                           int layer)
{
    const hf_linear *linears = NULL;
    size_t n = hf_layer_linears(d->m, layer, &linears);

    if (d->rounds || d->merged != NULL || n > STORED_PARTS)
        return 0;
    for (size_t i = 0; i < n; i++) {
        const hf_linear *l = &linears[i];
        parts[i].src = hf_linear_bf16(d->m, l);
        parts[i].count = l->n_out * l->n_in;
        parts[i].dst = w->w[l->slot] + l->row0 * l->n_in;
        if (parts[i].src == NULL)
            return 0;
    }
    return n;
}

/* Room for norms and biases of the layer at place `at`. */
static dr_status make_small(nn_decoder *d, size_t at)
{
    nn_part parts[NN_SMALL_PARTS];
    size_t n = nn_small_parts(parts, &d->layers[at], d->c);
    float *p = NULL;
    dr_status st = DR_OK;

    if (d->blocks[at] == NULL) {
        DR_TRY(nn_mem_new(d->mem, &p, nn_place(parts, n, NULL), NN_MEM_FLOAT,
                          "norms of a layer"));
        d->blocks[at] = p;
    }
    (void)nn_place(parts, n, d->blocks[at]);
done:
    return st;
}

/* Room for all of it, weights of the right kind. */
static dr_status make_blocks(nn_decoder *d, size_t at, bool exact)
{
    nn_part parts[HF_SLOT_COUNT];
    size_t n = nn_weight_parts(parts, &d->layers[at], d->c);
    float *p = NULL;
    dr_status st = DR_OK;

    DR_TRY(make_small(d, at));
    if (d->weights[at] == NULL || d->exact[at] != exact) {
        nn_mem_free(d->mem, d->weights[at]);
        d->weights[at] = NULL;
        d->exact[at] = exact;
        DR_TRY(nn_mem_new(d->mem, &p, nn_place(parts, n, NULL),
                          exact ? NN_MEM_BF16 : NN_MEM_FLOAT, "weights of a layer"));
        d->weights[at] = p;
    }
    (void)nn_place(parts, n, d->weights[at]);
done:
    return st;
}

/* Norms and biases of a layer, whose weights are there. */
static dr_status load_small(nn_decoder *d, nn_layer *w, int layer)
{
    nn_part parts[NN_SMALL_PARTS], parts_here[NN_SMALL_PARTS];
    nn_layer here = {0};
    size_t n = nn_small_parts(parts, w, d->c), floats = nn_place(parts, n, NULL);
    float *stage = NULL;
    dr_status st = DR_OK;

    DR_TRY(nn_stage(d, &stage, floats));
    (void)nn_small_parts(parts_here, &here, d->c);
    (void)nn_place(parts_here, n, stage);
    DR_TRY(nn_load_small(d, &here, layer));
    DR_TRY(nn_copy_parts(d, parts, parts_here, n));
done:
    return st;
}

/* The layer as the file has it; *done false: it cannot be taken so. */
static dr_status load_stored(nn_decoder *d, size_t at, int layer, bool *done_)
{
    nn_layer *w = &d->layers[at];
    nn_stored parts[STORED_PARTS];
    dr_status st = DR_OK;

    *done_ = d->mem->backend->load != NULL && stored_parts(d, parts, w, layer) > 0;
    if (!*done_)
        return DR_OK;
    DR_TRY(make_blocks(d, at, !d->floats));
    w->index = layer;
    DR_TRY(load_small(d, w, layer));
    size_t linears = stored_parts(d, parts, w, layer);
    for (size_t i = 0; d->floats && i < linears; i++)
        DR_TRY(nn_copy_bf16(d->mem, parts[i].dst, parts[i].src, parts[i].count));
    if (!d->floats)
        DR_TRY(d->mem->backend->load(d->mem, parts, linears));
done:
    return st;
}

dr_status nn_load_there(nn_decoder *d, size_t at, int layer)
{
    const hf_config *c = d->c;
    nn_layer *w = &d->layers[at], here = {0};
    nn_part small[NN_SMALL_PARTS], small_here[NN_SMALL_PARTS];
    nn_part weights[HF_SLOT_COUNT], weights_here[HF_SLOT_COUNT];
    size_t n = nn_small_parts(small, w, c), count = nn_weight_parts(weights, w, c);
    bool exact = !d->floats, stored = false;
    float *stage = NULL;
    dr_status st = DR_OK;

    DR_TRY(load_stored(d, at, layer, &stored));
    if (stored)
        return DR_OK;
    DR_TRY(nn_stage(d, &stage, d->layer_floats));
    (void)nn_layer_place(&here, c, stage);
    DR_TRY(nn_load_weights(d, &here, layer));
    (void)nn_small_parts(small_here, &here, c);
    (void)nn_weight_parts(weights_here, &here, c);
    for (size_t i = 0; i < count && exact && !nn_device_rounds(d->mem); i++)
        DR_TRY(holds(d, &exact, *weights_here[i].p, weights_here[i].floats));
    DR_TRY(make_blocks(d, at, exact));
    w->index = layer;
    DR_TRY(nn_copy_parts(d, small, small_here, n));
    DR_TRY(nn_copy_parts(d, weights, weights_here, count));
done:
    return st;
}

/* ---- packed ---- */

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

/* Bytes of codes, scales or zeros of a packed linear. */
static size_t used_bytes(const dr_qtensor *q, int part)
{
    const size_t bytes[] = {dr_qtensor_row_bytes(q), dr_qtensor_blocks(q) * sizeof(float),
                            dr_qtensor_zero_bytes(q)};

    return q->rows * bytes[part];
}

/* Of each with what aligns it. */
static void part_bytes(size_t bytes[3], const dr_qtensor *q, bool symmetric)
{
    for (int k = 0; k < 3; k++)
        bytes[k] = k == 2 && symmetric ? 0 : aligned(used_bytes(q, k));
}

/* Of a layer's linears in one block; 0: not all are packed. */
static size_t packed_layer_bytes(const hf_model *m, int layer)
{
    const hf_linear *l = NULL;
    size_t n = hf_layer_linears(m, layer, &l), sum = 0, bytes[3];

    for (size_t i = 0; i < n; i++) {
        dr_qtensor q = {0};
        bool symmetric = false;
        if (!l[i].packed)
            return 0;
        hf_linear_packed_shape(m, &l[i], &q, &symmetric);
        part_bytes(bytes, &q, symmetric);
        sum += bytes[0] + bytes[1] + bytes[2];
    }
    return sum;
}

static size_t unpacked_bytes(nn_device *mem, const hf_config *c)
{
    nn_layer measure = {0};

    return nn_layer_place(&measure, c, NULL) *
           (nn_device_rounds(mem) ? sizeof(uint16_t) : sizeof(float));
}

size_t nn_unpacked_bytes(nn_device *dev, const hf_model *m)
{
    return nn_packed_bytes(dev, m) > 0 ? unpacked_bytes(dev, hf_model_config(m)) : 0;
}

size_t nn_packed_bytes(nn_device *mem, const hf_model *m)
{
    const hf_config *c = hf_model_config(m);
    size_t sum = 0;

    for (int layer = 0; mem != NULL && layer < c->layers; layer++) {
        size_t bytes = packed_layer_bytes(m, layer);
        if (bytes == 0)
            return 0;
        sum += bytes;
    }
    return sum > 0 ? sum + unpacked_bytes(mem, c) : 0;
}

static void let_go(nn_decoder *d, int layer)
{
    nn_mem_free(d->mem, d->packed[layer].block);
    free(d->packed[layer].q);
    d->packed[layer] = (nn_packed_weights){0};
}

void nn_packed_free(nn_decoder *d)
{
    for (int i = 0; d->packed != NULL && i < d->c->layers; i++)
        let_go(d, i);
    free(d->packed);
    for (size_t i = 0; i < d->unpacked_count; i++)
        nn_mem_free(d->mem, d->unpacked[i].p);
}

/* Linears of several layers, each read by a task. */
typedef struct {
    const hf_model *m;
    const hf_linear **l;
    dr_qtensor *q;
} read_job;

static dr_status read_task(void *ctx, size_t task, int worker)
{
    const read_job *j = ctx;

    (void)worker;
    return hf_linear_packed(j->m, j->l[task], &j->q[task], NULL);
}

/* The layer's linears, which are the host's, to one block there. */
static dr_status place_packed(nn_decoder *d, int layer, const dr_qtensor *q, size_t n)
{
    nn_packed_weights *w = &d->packed[layer];
    size_t floats = packed_layer_bytes(d->m, layer) / sizeof(float), bytes[3];
    char *at = NULL;
    dr_status st = DR_OK;

    DR_TRY(nn_mem_new(d->mem, &w->block, floats, NN_MEM_FLOAT, "packed weights"));
    w->q = dr_calloc(n, sizeof(*w->q));
    at = (char *)w->block;
    for (size_t i = 0; i < n; i++) {
        const void *const from[] = {q[i].codes, q[i].scales, q[i].zeros};
        void *to[3] = {NULL};
        part_bytes(bytes, &q[i], q[i].zeros == NULL);
        for (int k = 0; k < 3; at += bytes[k++]) {
            if (bytes[k] == 0)
                continue;
            to[k] = at;
            DR_TRY(nn_copy(d->dev, at, from[k], used_bytes(&q[i], k)));
        }
        w->q[i] = q[i];
        w->q[i].codes = to[0];
        w->q[i].scales = to[1];
        w->q[i].zeros = to[2];
        w->q[i].owned = false;
    }
done:
    return st;
}

/* Packed weights and norms of layer and some behind it. */
static dr_status read_packed(nn_decoder *d, int layer)
{
    int end = layer + READ_LAYERS < d->c->layers ? layer + READ_LAYERS : d->c->layers;
    const hf_linear *linears = NULL;
    size_t n = 0, most = hf_layer_linears(d->m, layer, &linears) * 2 * READ_LAYERS;
    read_job j = {d->m, dr_calloc(most, sizeof(*j.l)), dr_calloc(most, sizeof(*j.q))};
    dr_status st = DR_OK;

    for (int i = layer; i < end; i++) {
        size_t count = hf_layer_linears(d->m, i, &linears);
        DR_BUG_IF(n + count > most);
        for (size_t k = 0; k < count; k++)
            j.l[n++] = &linears[k];
    }
    DR_TRY(dr_pool_run(nn_device_pool(d->dev), n, read_task, &j));
    n = 0;
    for (int i = layer; i < end; i++) {
        size_t count = hf_layer_linears(d->m, i, &linears);
        if (!d->loaded[i]) {
            DR_TRY(place_packed(d, i, j.q + n, count));
            DR_TRY(make_small(d, (size_t)i));
            DR_TRY(load_small(d, &d->layers[i], i));
            d->loaded[i] = true;
        }
        n += count;
    }
done:
    for (size_t i = 0; i < most; i++)
        dr_qtensor_release(&j.q[i]);
    free(j.q);
    free(j.l);
    return st;
}

/* The first of d->unpacked becomes that of the layer, or else a new one or what was not
 * used for longest. */
static dr_status bring_forward(nn_decoder *d, int layer, size_t floats)
{
    nn_unpacked_weights *u = d->unpacked, found = {.layer = -1};
    size_t i = 0;
    dr_status st = DR_OK;

    while (i < d->unpacked_count && u[i].layer != layer)
        i++;
    if (i == d->unpacked_count && i < d->unpacked_most) {
        DR_TRY(nn_mem_new(d->mem, &u[i].p, floats,
                          nn_device_rounds(d->mem) ? NN_MEM_BF16 : NN_MEM_FLOAT,
                          "weights of a layer"));
        u[i].layer = -1;
        d->unpacked_count++;
    } else if (i == d->unpacked_count) {
        i--;
    }
    found = u[i];
    memmove(u + 1, u, i * sizeof(*u));
    u[0] = found;
done:
    return st;
}

dr_status nn_packed_layer(nn_decoder *d, int layer, const nn_layer **out)
{
    nn_layer *w = &d->layers[layer];
    nn_part parts[HF_SLOT_COUNT];
    size_t n = nn_weight_parts(parts, w, d->c);
    const hf_linear *l = NULL;
    size_t count = hf_layer_linears(d->m, layer, &l);
    dr_status st = DR_OK;

    if (d->packed == NULL)
        d->packed = dr_calloc((size_t)d->c->layers, sizeof(*d->packed));
    DR_TRY(bring_forward(d, layer, nn_place(parts, n, NULL)));
    *out = w;
    if (d->unpacked[0].layer == layer)
        return DR_OK;
    if (!d->loaded[layer])
        DR_TRY(read_packed(d, layer));
    d->unpacked[0].layer = -1;
    w->index = layer;
    (void)nn_place(parts, n, d->unpacked[0].p);
    for (size_t i = 0; i < count; i++)
        DR_TRY(nn_unpack(d->dev, w->w[l[i].slot] + l[i].row0 * l[i].n_in,
                         &d->packed[layer].q[i]));
    if (!d->keep) {
        let_go(d, layer);
        d->loaded[layer] = false;
    }
    d->unpacked[0].layer = layer;
    d->streamed = layer;
done:
    return st;
}
