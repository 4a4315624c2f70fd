/*
 * decoder.c - a model's weights in memory: layers kept or streamed, embeddings.
 *
 * Layers are kept when all of them fit keep_bytes, the head when it fits in what they leave
 * (or alone, when they do not fit).  What is not kept is read again from the mapped file
 * each time it is needed: converting a layer costs about as much as 3 rows of its products,
 * so callers put many rows through a layer once it is loaded.
 *
 * Integers (nn_decoder_integers) are a layer's block instead of its weights.
 *
 * Layers in memory of the device's own are decoder_there.c's.
 */
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "nn/decoder_impl.h"

enum {
    LOAD_ELEMENTS = 1 << 18, /* of a weight, converted by one task */
    EMBED_ROWS = 64,
    LOAD_TASKS_MAX = 4096,
    STREAM_ROWS = 2048, /* activations that go through a layer at once */
    HEAD_SHARE = 8      /* of a device's free memory, a head takes at most that unasked */
};

nn_dims nn_dims_of(const hf_config *c)
{
    nn_dims s = {.d = (size_t)c->hidden,
                 .i = (size_t)c->intermediate,
                 .v = (size_t)c->vocab,
                 .h = (size_t)c->heads,
                 .g = (size_t)c->kv_heads,
                 .c = (size_t)c->head_dim};

    s.qkv = (s.h + 2 * s.g) * s.c;
    s.hc = s.h * s.c;
    s.gu = hf_slot_out(c, HF_SLOT_GATE_UP);
    return s;
}

size_t nn_place(const nn_part *parts, size_t count, float *at)
{
    size_t sum = 0;

    for (size_t i = 0; i < count; i++) {
        if (at != NULL)
            *parts[i].p = at + sum;
        sum += (parts[i].floats + 15) / 16 * 16;
    }
    return sum;
}

static bool has_bias(const hf_config *c, hf_slot slot)
{
    switch (slot) {
    case HF_SLOT_QKV:
        return c->qkv_bias;
    case HF_SLOT_O:
        return c->o_bias;
    case HF_SLOT_GATE_UP:
    case HF_SLOT_DOWN:
        return c->mlp_bias;
    case HF_SLOT_COUNT:
        break;
    }
    DR_BUG_IF(true);
    return false;
}

/* The norms of w, as parts; returns how many. */
static size_t norm_parts(nn_part *parts, nn_layer *w, const hf_config *c)
{
    size_t n = 0;

    for (hf_norm k = 0; k < HF_NORM_FINAL; k++) {
        if (!hf_norm_exists(c, k))
            continue;
        parts[n++] = (nn_part){&w->norm[k], hf_norm_size(c, k)};
        if (c->norm_kind == HF_NORM_KIND_LAYER)
            parts[n++] = (nn_part){&w->norm_bias[k], hf_norm_size(c, k)};
    }
    return n;
}

/* Norms and biases. */
size_t nn_small_parts(nn_part *parts, nn_layer *w, const hf_config *c)
{
    size_t n = norm_parts(parts, w, c);

    for (hf_slot s = 0; s < HF_SLOT_COUNT; s++)
        if (has_bias(c, s))
            parts[n++] = (nn_part){&w->bias[s], hf_slot_out(c, s)};
    return n;
}

size_t nn_weight_parts(nn_part *parts, nn_layer *w, const hf_config *c)
{
    for (hf_slot s = 0; s < HF_SLOT_COUNT; s++)
        parts[s] = (nn_part){&w->w[s], hf_slot_out(c, s) * hf_slot_in(c, s)};
    return HF_SLOT_COUNT;
}

/* Members of w point into the block at `at`; returns its floats. */
size_t nn_layer_place(nn_layer *w, const hf_config *c, float *at)
{
    nn_part parts[NN_SMALL_PARTS + HF_SLOT_COUNT];
    size_t n = nn_small_parts(parts, w, c);

    n += nn_weight_parts(parts + n, w, c);
    return nn_place(parts, n, at);
}

dr_status nn_load_small(const nn_decoder *d, nn_layer *w, int layer)
{
    const hf_linear *linears = NULL;
    size_t count = hf_layer_linears(d->m, layer, &linears);
    dr_status st = DR_OK;

    w->index = layer;
    for (hf_norm k = 0; k < HF_NORM_FINAL; k++) {
        if (w->norm[k] != NULL)
            DR_TRY(hf_norm_read(d->m, k, layer, w->norm[k]));
        if (w->norm_bias[k] != NULL)
            DR_TRY(hf_norm_bias_read(d->m, k, layer, w->norm_bias[k]));
    }
    for (size_t i = 0; i < count; i++) {
        const hf_linear *l = &linears[i];
        if (w->bias[l->slot] != NULL)
            DR_TRY(hf_linear_bias(d->m, l, w->bias[l->slot] + l->row0));
    }
done:
    return st;
}

/* What stands outside of the layers. */
static dr_status load_outer(nn_decoder *d)
{
    dr_status st = DR_OK;

    d->final_norm = dr_calloc(d->dims.d, sizeof(float));
    DR_TRY(hf_norm_read(d->m, HF_NORM_FINAL, 0, d->final_norm));
    if (d->c->norm_kind == HF_NORM_KIND_LAYER) {
        d->final_bias = dr_calloc(d->dims.d, sizeof(float));
        DR_TRY(hf_norm_bias_read(d->m, HF_NORM_FINAL, 0, d->final_bias));
    }
    if (d->c->head_bias) {
        d->head_bias = dr_calloc(d->dims.v, sizeof(float));
        DR_TRY(hf_head_bias(d->m, d->head_bias));
    }
done:
    return st;
}

/* Bytes of a layer as it is kept. */
static size_t kept_bytes(const nn_decoder *d)
{
    if (d->integers)
        return nn_layer_packed_bytes(d->c);
    return d->layer_floats * nn_value_bytes(d->mem, d->m);
}

static void plan_memory(nn_decoder *d)
{
    size_t layers = d->as_floats ? 0 : nn_packed_bytes(d->mem, d->m);
    size_t head = nn_head_bytes(d->mem, d->m), keep = d->keep_bytes;

    d->packed_there = layers > 0;
    d->keep = d->packed_there || dr_mul(&layers, kept_bytes(d), (size_t)d->c->layers);
    d->keep = d->keep && layers <= keep;
    d->keep_head = head <= (d->keep ? keep - layers : keep) ||
                   (keep == 0 && d->mem != NULL && head < nn_mem_room(d->mem) / HEAD_SHARE);
}

static dr_status open_in(nn_decoder **out, nn_device *dev, nn_device *mem,
                         const hf_model *m, size_t keep_bytes)
{
    dr_status st = DR_OK;
    nn_decoder *d = dr_calloc(1, sizeof(*d));
    nn_layer measure = {0};

    d->dev = dev;
    d->mem = mem;
    d->m = m;
    d->c = hf_model_config(m);
    d->dims = nn_dims_of(d->c);
    DR_TRY(nn_refuse(d->c));
    d->streamed = -1;
    d->unpacked_most = 1;
    d->layer_floats = nn_layer_place(&measure, d->c, NULL);
    d->keep_bytes = keep_bytes;
    plan_memory(d);
    size_t count = (size_t)d->c->layers;
    d->layers = dr_calloc(count, sizeof(*d->layers));
    d->blocks = dr_calloc(count, sizeof(*d->blocks));
    d->weights = dr_calloc(count, sizeof(*d->weights));
    d->loaded = dr_calloc(count, sizeof(*d->loaded));
    d->exact = dr_calloc(count, sizeof(*d->exact));
    DR_TRY(load_outer(d));
    *out = d;
    d = NULL;
done:
    nn_decoder_close(d);
    return st;
}

/* Something is done to the weights: packed ones cannot be what is kept. */
static void unpack_all(nn_decoder *d)
{
    d->as_floats = true;
    plan_memory(d);
}

void nn_decoder_floats(nn_decoder *d, bool on)
{
    DR_BUG_IF(d->streamed != -1);
    d->floats = on;
    unpack_all(d);
}

void nn_decoder_round(nn_decoder *d, const hf_bnb *g)
{
    DR_BUG_IF(d->streamed != -1);
    d->rounds = true;
    d->grid = *g;
    unpack_all(d);
}

dr_status nn_decoder_open(nn_decoder **out, nn_device *dev, const hf_model *m,
                          size_t keep_bytes)
{
    return open_in(out, dev, NULL, m, keep_bytes);
}

dr_status nn_decoder_open_there(nn_decoder **out, nn_device *dev, const hf_model *m,
                                size_t keep_bytes)
{
    return open_in(out, dev, nn_mem_apart(dev) ? dev : NULL, m, keep_bytes);
}

void nn_decoder_merge(nn_decoder *d, const hf_adapter *a)
{
    DR_BUG_IF(d->streamed != -1);
    d->merged = a;
    unpack_all(d);
}

void nn_decoder_close(nn_decoder *d)
{
    if (d == NULL)
        return;
    for (size_t i = 0; d->exact != NULL && i < (size_t)d->c->layers; i++) {
        nn_mem_free(d->mem, d->blocks[i]);
        nn_mem_free(d->mem, d->weights[i]);
    }
    nn_packed_free(d);
    free(d->layers);
    free(d->blocks);
    free(d->weights);
    free(d->exact);
    free(d->loaded);
    dr_big_free(d->stage);
    free(d->norm_block);
    free(d->final_norm);
    free(d->final_bias);
    free(d->head_bias);
    nn_mem_free(d->mem, d->head);
    nn_mem_free(d->mem, d->table);
    dr_big_free(d->head_packed);
    dr_big_free(d->head_back);
    nn_rope_release(&d->rope);
    nn_rope_release(&d->rope_local);
    nn_mem_free(d->mem, d->work.p);
    nn_mem_free(d->mem, d->work_rounded.p);
    free(d);
}

void nn_decoder_unpacked(nn_decoder *d, size_t layers)
{
    DR_BUG_IF(d->streamed != -1 || layers == 0 || layers > NN_UNPACKED_MOST);
    d->unpacked_most = layers;
}

void nn_decoder_integers(nn_decoder *d)
{
    DR_BUG_IF(d->streamed != -1);
    d->integers = d->mem == NULL && !nn_mem_apart(d->dev);
    plan_memory(d);
}

const hf_config *nn_decoder_config(const nn_decoder *d)
{
    return d->c;
}

nn_device *nn_decoder_device(nn_decoder *d)
{
    return d->dev;
}

void nn_decoder_documents(nn_decoder *d, const uint32_t *starts, size_t longest)
{
    d->starts = starts;
    d->longest = longest;
}

static dr_status room_of(nn_decoder *d, float **out, nn_work *w, size_t floats,
                         nn_mem_kind kind)
{
    dr_status st = DR_OK;

    if (floats > w->floats) {
        nn_mem_free(d->mem, w->p);
        *w = (nn_work){0};
        DR_TRY(nn_mem_new(d->mem, &w->p, floats, kind, "activations of a layer"));
        w->floats = floats;
    }
    *out = w->p;
done:
    return st;
}

dr_status nn_scratch(nn_decoder *d, float **out, size_t floats)
{
    return room_of(d, out, &d->work, floats, NN_MEM_FLOAT);
}

dr_status nn_scratch_rounded(nn_decoder *d, float **out, size_t floats)
{
    return room_of(d, out, &d->work_rounded, floats,
                   nn_device_rounds(d->mem) ? NN_MEM_BF16 : NN_MEM_FLOAT);
}

dr_status nn_stage(nn_decoder *d, float **out, size_t floats)
{
    return nn_room(out, &d->stage, &d->stage_floats, floats, "weights on their way");
}

/* ---- layers ---- */

/* The linears of a layer cut into runs of rows. */
typedef struct {
    const hf_model *m;
    const hf_linear *linears;
    nn_layer *w;
    const hf_bnb *grid;
    const hf_adapter *merged;
    struct {
        size_t linear, row0, rows;
    } tasks[LOAD_TASKS_MAX];
} load;

static dr_status load_task(void *ctx, size_t task, int worker)
{
    const load *j = ctx;
    const hf_linear *l = &j->linears[j->tasks[task].linear];
    size_t row0 = j->tasks[task].row0;
    float *dst = j->w->w[l->slot] + (l->row0 + row0) * l->n_in;

    (void)worker;
    return hf_linear_read(j->m, l, dst, row0, j->tasks[task].rows);
}

static dr_status round_task(void *ctx, size_t task, int worker)
{
    const load *j = ctx;
    const hf_linear *l = &j->linears[task];

    (void)worker;
    hf_bnb_round(j->w->w[l->slot] + l->row0 * l->n_in, l->n_out * l->n_in, j->grid);
    return DR_OK;
}

/* The module's delta, by runs of rows of what was loaded. */
static dr_status merge_task(void *ctx, size_t task, int worker)
{
    const load *j = ctx;
    const hf_linear *l = &j->linears[j->tasks[task].linear];
    size_t row0 = j->tasks[task].row0;
    float *w = j->w->w[l->slot] + (l->row0 + row0) * l->n_in;

    (void)worker;
    for (size_t i = 0; i < j->merged->count; i++) {
        const hf_lora_module *mod = &j->merged->modules[i];
        if (strcmp(mod->module, l->path) == 0)
            return hf_merge_rows(w, mod, row0, j->tasks[task].rows);
    }
    return DR_OK;
}

dr_status nn_load_weights(nn_decoder *d, nn_layer *w, int layer)
{
    dr_status st = DR_OK;
    load *j = dr_calloc(1, sizeof(*j));
    size_t linears = hf_layer_linears(d->m, layer, &j->linears), tasks = 0;

    j->m = d->m;
    j->w = w;
    for (size_t i = 0; i < linears; i++) {
        const hf_linear *l = &j->linears[i];
        size_t rows = LOAD_ELEMENTS / l->n_in;
        /* a multiple of 8, since packed files hold 8 in a word; few enough for the list */
        rows = rows < 8 ? 8 : rows / 8 * 8;
        while ((l->n_out + rows - 1) / rows > LOAD_TASKS_MAX / linears)
            rows *= 2;
        for (size_t r = 0; r < l->n_out; r += rows, tasks++) {
            j->tasks[tasks].linear = i;
            j->tasks[tasks].row0 = r;
            j->tasks[tasks].rows = r + rows < l->n_out ? rows : l->n_out - r;
        }
    }
    DR_TRY(dr_pool_run(nn_device_pool(d->dev), tasks, load_task, j));
    j->grid = &d->grid;
    if (d->rounds)
        DR_TRY(dr_pool_run(nn_device_pool(d->dev), linears, round_task, j));
    j->merged = d->merged;
    if (d->merged != NULL)
        DR_TRY(dr_pool_run(nn_device_pool(d->dev), tasks, merge_task, j));
    DR_TRY(nn_load_small(d, w, layer));
done:
    free(j);
    return st;
}

static dr_status load_here(nn_decoder *d, size_t at, int layer)
{
    void *block = d->blocks[at];
    dr_status st = DR_OK;

    if (block == NULL)
        DR_TRY(dr_big_alloc(&block, d->layer_floats, sizeof(float), "weights of a layer"));
    (void)nn_layer_place(&d->layers[at], d->c, block);
    st = nn_load_weights(d, &d->layers[at], layer);
    if (st != DR_OK && d->blocks[at] == NULL)
        dr_big_free(block);
    DR_TRY(st);
    d->blocks[at] = block;
done:
    return st;
}

/* ---- layers of integers ---- */

size_t nn_layer_packed_bytes(const hf_config *c)
{
    size_t bytes = 0;

    for (hf_slot s = 0; s < HF_SLOT_COUNT; s++) {
        size_t n = hf_slot_out(c, s), k = hf_slot_in(c, s);
        bytes += nn_i8_packed_bytes(n, k) + nn_i8_packed_bytes(k, n);
    }
    return bytes;
}

dr_status nn_layer_pack(nn_device *dev, nn_layer *w, const hf_config *c, float *at,
                        float *space)
{
    dr_status st = DR_OK;

    for (hf_slot s = 0; s < HF_SLOT_COUNT; s++) {
        size_t n = hf_slot_out(c, s), k = hf_slot_in(c, s);
        float *back = at + nn_i8_packed_bytes(n, k) / sizeof(*at);
        w->packed[s] = at;
        w->packed_back[s] = back;
        if (space != NULL) {
            DR_TRY(nn_i8_pack(dev, at, w->w[s], n, k));
            DR_TRY(nn_transpose(dev, space, w->w[s], n, k));
            DR_TRY(nn_i8_pack(dev, back, space, k, n));
        }
        at = back + nn_i8_packed_bytes(k, n) / sizeof(*at);
    }
done:
    return st;
}

/* Weights become floats on the stage, behind them room to turn one. */
static dr_status load_integers(nn_decoder *d, size_t at, int layer)
{
    nn_layer *w = &d->layers[at], here = {0};
    nn_part small[NN_SMALL_PARTS], small_here[NN_SMALL_PARTS];
    size_t n = nn_small_parts(small, w, d->c), floats = nn_place(small, n, NULL),
           widest = 0;
    size_t packed = nn_layer_packed_bytes(d->c) / sizeof(float);
    float *stage = NULL;
    dr_status st = DR_OK;

    for (hf_slot s = 0; s < HF_SLOT_COUNT; s++) {
        size_t count = hf_slot_out(d->c, s) * hf_slot_in(d->c, s);
        widest = count > widest ? count : widest;
    }
    DR_TRY(nn_stage(d, &stage, d->layer_floats + widest));
    (void)nn_layer_place(&here, d->c, stage);
    DR_TRY(nn_load_weights(d, &here, layer));
    if (d->blocks[at] == NULL)
        DR_TRY(dr_big_alloc(&d->blocks[at], floats + packed, sizeof(float),
                            "weights of a layer"));
    w->index = layer;
    (void)nn_place(small, n, d->blocks[at]);
    (void)nn_small_parts(small_here, &here, d->c);
    DR_TRY(nn_copy_parts(d, small, small_here, n));
    DR_TRY(nn_layer_pack(d->dev, &here, d->c, (float *)d->blocks[at] + floats,
                         stage + d->layer_floats));
    memcpy(w->packed, here.packed, sizeof(w->packed));
    memcpy(w->packed_back, here.packed_back, sizeof(w->packed_back));
done:
    return st;
}

dr_status nn_decoder_layer(nn_decoder *d, int layer, const nn_layer **out)
{
    dr_status st = DR_OK;
    size_t at = d->keep ? (size_t)layer : 0;
    nn_layer *w = &d->layers[at];

    DR_BUG_IF(layer < 0 || layer >= d->c->layers);
    if (d->packed_there) {
        DR_TRYF(nn_packed_layer(d, layer, out), "loading layer %d of %d", layer,
                d->c->layers);
        return DR_OK;
    }
    if (d->keep ? d->loaded[at] : d->streamed == layer) {
        *out = w;
        return DR_OK;
    }
    d->streamed = -1;
    DR_TRYF(d->mem != NULL ? nn_load_there(d, at, layer)
            : d->integers  ? load_integers(d, at, layer)
                           : load_here(d, at, layer),
            "loading layer %d of %d", layer, d->c->layers);
    d->loaded[at] = true;
    d->streamed = layer;
    *out = w;
done:
    return st;
}

dr_status nn_decoder_norms(nn_decoder *d, int layer, const nn_layer **out)
{
    dr_status st = DR_OK;
    nn_part parts[2 * HF_NORM_FINAL];
    size_t n = norm_parts(parts, &d->norms, d->c);

    DR_BUG_IF(layer < 0 || layer >= d->c->layers);
    if (d->norm_block == NULL)
        d->norm_block = dr_calloc(nn_place(parts, n, NULL) + 1, sizeof(float));
    (void)nn_place(parts, n, d->norm_block);
    DR_TRYF(nn_load_small(d, &d->norms, layer), "loading layer %d of %d", layer,
            d->c->layers);
    *out = &d->norms;
done:
    return st;
}

/* ---- embeddings ---- */

typedef struct {
    const nn_decoder *d;
    float *x;
    const int32_t *ids;
    size_t count;
    const char *as_is; /* the table's bf16: rows are gathered as they are; or NULL */
} embed;

static dr_status embed_task(void *ctx, size_t task, int worker)
{
    dr_status st = DR_OK;
    const embed *e = ctx;
    size_t d = e->d->dims.d, row = d * sizeof(uint16_t);
    size_t end = (task + 1) * EMBED_ROWS < e->count ? (task + 1) * EMBED_ROWS : e->count;

    (void)worker;
    for (size_t i = task * EMBED_ROWS; i < end; i++) {
        if (e->as_is != NULL)
            memcpy((char *)e->x + i * row, e->as_is + (size_t)e->ids[i] * row, row);
        else
            DR_TRY(hf_embed_read(e->d->m, e->x + i * d, (size_t)e->ids[i], 1));
    }
done:
    return st;
}

static dr_status check_ids(const nn_decoder *d, const int32_t *ids, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= d->c->vocab)
            return dr_fail(DR_EFORMAT, "token %d is outside of the vocabulary of %d",
                           ids[i], d->c->vocab);
    return DR_OK;
}

/* Rows that the host reads, on their way there. */
static dr_status embed_here(nn_decoder *d, float *x, const int32_t *ids, size_t count)
{
    embed e = {.d = d, .x = x, .ids = ids, .count = count};
    dr_status st = DR_OK;

    e.as_is = d->mem != NULL ? hf_linear_bf16(d->m, hf_embed_linear(d->m)) : NULL;
    if (d->mem != NULL)
        DR_TRY(nn_stage(d, &e.x, count * d->dims.d));
    DR_TRY(dr_pool_run(nn_device_pool(d->dev), (count + EMBED_ROWS - 1) / EMBED_ROWS,
                       embed_task, &e));
    if (e.as_is != NULL)
        DR_TRY(nn_copy_bf16(d->dev, x, e.x, count * d->dims.d));
    else if (d->mem != NULL)
        DR_TRY(nn_copy(d->dev, x, e.x, count * d->dims.d * sizeof(*x)));
done:
    return st;
}

dr_status nn_decoder_embed(nn_decoder *d, float *x, const int32_t *ids, size_t count)
{
    const float *table = NULL;
    dr_status st = DR_OK;

    DR_TRY(check_ids(d, ids, count));
    DR_TRY(nn_embeddings(d, &table));
    if (table != NULL)
        DR_TRY(nn_take_rows(d->dev, x, table, ids, count, d->dims.d));
    else
        DR_TRY(embed_here(d, x, ids, count));
    if (d->c->embed_scale != 1)
        DR_TRY(nn_scale_cap(d->dev, x, count * d->dims.d, (float)d->c->embed_scale, 0.0f));
done:
    return st;
}

/* ---- a whole model ---- */

/* All rows through one layer, `step` sequences at a time. */
static dr_status through_layer(nn_decoder *d, int layer, float *x, size_t b, size_t t,
                               size_t step, nn_acts *acts)
{
    dr_status st = DR_OK;
    const nn_layer *w = NULL;

    DR_TRY(dr_cancelled_check());
    DR_TRY(nn_decoder_layer(d, layer, &w));
    for (size_t i = 0; i < b; i += step) {
        size_t n = b - i < step ? b - i : step;
        DR_TRY(nn_layer_forward(d, w, n, t, x + i * t * d->dims.d, acts, NULL, 0));
    }
done:
    return st;
}

dr_status nn_decoder_hidden(nn_decoder *d, float *x, const int32_t *ids, size_t b, size_t t)
{
    dr_status st = DR_OK;
    nn_acts acts = {0};

    if (b == 0 || t == 0)
        return DR_OK;
    size_t step = t < STREAM_ROWS ? STREAM_ROWS / t : 1;
    step = step < b ? step : b;
    DR_TRY(nn_acts_new_there(&acts, d->mem, d->c, step, t, 0));
    DR_TRY(nn_decoder_embed(d, x, ids, b * t));
    for (int layer = 0; layer < d->c->layers; layer++)
        DR_TRY(through_layer(d, layer, x, b, t, step, &acts));
done:
    nn_acts_free(&acts, d->mem);
    return st;
}
