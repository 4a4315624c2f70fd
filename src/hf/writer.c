/*
 * writer.c - writes a model folder, tensor by tensor, while the next ones are computed.
 *
 * A safetensors header gives every tensor's place, so all names, types and shapes must be
 * known before the first byte of data.  They follow from the source and the formats chosen
 * for the linears, so the writer plans first (at the first tensor) and then puts each
 * tensor at its place when it arrives, in any order.  Nothing is held back: the peak is the
 * packed form of one linear.
 *
 *     open -- format, shard_bytes --> (first tensor: plan) -- tensors --> finish: copies
 *     what was not given, config.json, side files, index; closes the files.
 *
 * What is copied from safetensors is copied byte for byte; from a GGUF everything is
 * written in the config's dtype.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "hf/roles_impl.h"
#include "hf/writer_impl.h"

#define SHARD_BYTES 5000000000u

/* ---- plan ---- */

static dr_status plan(hf_writer *w)
{
    dr_status st = DR_OK;

    if (w->planned)
        goto done;
    DR_TRY(hf_writer_plan(w));
    DR_TRY(hf_writer_open_files(w, false));
done:
    return st;
}

/* ---- open and settings ---- */

dr_status hf_writer_open(hf_writer **out, const char *dir, const hf_model *source,
                         const hf_quant *quant)
{
    hf_writer *w = dr_calloc(1, sizeof(*w));
    dr_status st = DR_OK;

    *out = NULL;
    w->m = source;
    w->dir = dr_arena_strdup(&w->arena, dir);
    w->shard_bytes = SHARD_BYTES;
    w->dtype = DR_DTYPE_COUNT;
    w->formats = dr_calloc(source->linear_count, sizeof(*w->formats));
    w->plans = dr_calloc(source->linear_count, sizeof(*w->plans));
    if (quant != NULL && quant->method != HF_QUANT_NONE) {
        DR_TRYF(hf_quant_check(quant, "quantization"), "writing %s", dir);
        w->quant = *quant;
    }
    for (size_t i = 0; i < source->linear_count; i++) {
        if (source->linears[i].layer >= 0)
            w->formats[i] = w->quant;
    }
    DR_TRY(dr_make_dirs(dir));
    *out = w;
    w = NULL;
done:
    hf_writer_close(w);
    return st;
}

void hf_writer_dtype(hf_writer *w, dr_dtype dtype)
{
    DR_BUG_IF(w->planned || !dr_dtype_is_float(dtype));
    w->dtype = dtype;
}

void hf_writer_bnb(hf_writer *w, const hf_bnb *g)
{
    DR_BUG_IF(w->planned || w->quant.method != HF_QUANT_NONE);
    w->bnb = true;
    w->bnb_grid = *g;
}

void hf_writer_untie(hf_writer *w)
{
    DR_BUG_IF(w->planned);
    w->untied = w->m->c.tied;
}

void hf_writer_keep(hf_writer *w, const char *keep)
{
    DR_BUG_IF(w->planned);
    w->keep = dr_arena_strdup(&w->arena, keep);
}

void hf_writer_mute(hf_writer *w)
{
    DR_BUG_IF(w->planned);
    w->mute = true;
}

void hf_writer_shard_bytes(hf_writer *w, uint64_t limit)
{
    DR_BUG_IF(w->planned);
    w->shard_bytes = limit;
}

dr_status hf_writer_format(hf_writer *w, const hf_linear *l, const hf_quant *q)
{
    hf_quant *f = &w->formats[hf_writer_index(w, l)];
    dr_status st = DR_OK;

    DR_BUG_IF(w->planned);
    if (q == NULL || q->method == HF_QUANT_NONE) {
        *f = (hf_quant){.method = HF_QUANT_NONE};
        goto done;
    }
    DR_TRY(hf_quant_check(q, l->path));
    if (q->method != w->quant.method)
        DR_FAIL(DR_EUSAGE, "%s: its format is not that of the rest of the model", l->path);
    if (q->method == HF_QUANT_AWQ &&
        (l->layer < 0 || q->group != w->quant.group || q->symmetric != w->quant.symmetric))
        DR_FAIL(DR_EUNSUPPORTED,
                "%s: the awq format has one setting for all linears of the "
                "layers and none for the head",
                l->path);
    if (q->method != HF_QUANT_OLIVE && l == hf_embed_linear(w->m)) {
        st = dr_fail(DR_EUNSUPPORTED, "%s: this format has no place for a packed embedding",
                     l->path);
        dr_hint("the olive layout has");
        goto done;
    }
    *f = *q;
done:
    return st;
}

/* ---- putting ---- */

static dr_status claim(struct slot *s)
{
    if (s->written)
        return dr_fail(DR_EUSAGE, "tensor %s was written already", s->t.name);
    s->written = true;
    return DR_OK;
}

static dr_status put(hf_writer *w, const struct slot *s, uint64_t offset, const void *data,
                     size_t n)
{
    dr_writer *f = &w->shards[s->file].w;
    dr_status st = DR_OK;

    DR_BUG_IF(offset > s->t.bytes || n > s->t.bytes - offset);
    if (w->unfit == NULL && dr_dtype_is_float(s->t.dtype) &&
        !dr_all_finite(data, s->t.dtype, n / dr_dtype_bytes(s->t.dtype)))
        w->unfit = s->t.name;
    DR_TRY(dr_writer_seek(f, s->at + offset));
    DR_TRY(dr_writer_add(f, data, n));
done:
    return st;
}

/* Floats from the first-th element on, in the slot's dtype. */
static dr_status put_floats(hf_writer *w, const struct slot *s, size_t first,
                            const float *v, size_t n)
{
    size_t size = dr_dtype_bytes(s->t.dtype), per = HF_CHUNK_FLOATS * sizeof(float) / size;
    dr_status st = DR_OK;

    for (size_t i = 0; i < n; i += per) {
        size_t part = n - i < per ? n - i : per;
        dr_from_f32(w->chunk, v + i, s->t.dtype, part);
        DR_TRY(put(w, s, (first + i) * size, w->chunk, part * size));
    }
done:
    return st;
}

static dr_status claim_parts(hf_writer *w, const hf_linear *l)
{
    size_t li = hf_writer_index(w, l);
    dr_status st = DR_OK;

    for (size_t i = 0; i < w->plans[li].count; i++)
        DR_TRY(claim(&w->slots[w->first[li] + i]));
done:
    return st;
}

/* The parts of a linear that is packed in its format, checked; from any thread. */
static dr_status put_packed(const hf_writer *w, const hf_linear *l, const dr_qtensor *q)
{
    size_t li = hf_writer_index(w, l);
    const hf_packed *parts = &w->plans[li];
    void *data = NULL;
    dr_status st = DR_OK;

    for (size_t i = 0; i < parts->count; i++) {
        const struct slot *s = &w->slots[w->first[li] + i];
        DR_TRY(dr_big_alloc(&data, s->t.bytes, 1, s->t.name));
        hf_pack_part(data, parts, i, l, &w->formats[li], q);
        DR_TRY(dr_writer_put(&w->shards[s->file].w, s->at, data, s->t.bytes));
        dr_big_free(data);
        data = NULL;
    }
done:
    dr_big_free(data);
    return st;
}

/* May the linear be written packed, as it is in q?  Its tensors are then as good as
 * written. */
static dr_status take_packed(hf_writer *w, const hf_linear *l, const dr_qtensor *q)
{
    size_t li = hf_writer_index(w, l);
    dr_status st = DR_OK;

    DR_TRY(plan(w));
    if (w->plans[li].count == 0)
        DR_FAIL(DR_EUSAGE, "%s: packed, but to be written plain", l->path);
    DR_TRY(hf_pack_check(l, &w->formats[li], q));
    DR_TRY(claim_parts(w, l));
done:
    return st;
}

dr_status hf_writer_packed(hf_writer *w, const hf_linear *l, const dr_qtensor *q)
{
    dr_status st = DR_OK;

    if (w->mute)
        return DR_OK;
    DR_TRY(take_packed(w, l, q));
    DR_TRY(put_packed(w, l, q));
done:
    return st;
}

/* ---- behind the caller ---- */

enum { CREW_ROOM = 512 << 20 };

dr_status hf_writer_behind(hf_writer *w, int threads)
{
    DR_BUG_IF(w->planned || w->crew != NULL);
    return dr_crew_open(&w->crew, threads, CREW_ROOM);
}

dr_status hf_writer_wait(hf_writer *w)
{
    return w->crew != NULL ? dr_crew_wait(w->crew) : DR_OK;
}

/* Some linears of one packed weight, to be written. */
typedef struct {
    const hf_writer *w; /* borrowed */
    dr_qtensor q;       /* owned */
    size_t count;
    struct {
        const hf_linear *l; /* borrowed */
        dr_qtensor rows;    /* borrowed from q */
    } part[];
} rows_job;

static void rows_drop(void *ctx)
{
    rows_job *j = ctx;

    dr_qtensor_release(&j->q);
    free(j);
}

static dr_status rows_run(void *ctx)
{
    const rows_job *j = ctx;
    dr_status st = DR_OK;

    for (size_t i = 0; i < j->count; i++)
        DR_TRY(put_packed(j->w, j->part[i].l, &j->part[i].rows));
done:
    return st;
}

dr_status hf_writer_rows(hf_writer *w, const hf_linear *const *l, size_t count,
                         dr_qtensor *q)
{
    rows_job *j = dr_calloc(1, sizeof(*j) + count * sizeof(j->part[0]));
    size_t bytes = 2 * q->rows * dr_qtensor_row_bytes(q); /* its own, and as in the file */
    dr_status st = DR_OK;

    *j = (rows_job){.w = w, .q = *q, .count = count};
    *q = (dr_qtensor){0};
    if (w->mute)
        goto done;
    for (size_t i = 0; i < count; i++) {
        j->part[i].l = l[i];
        j->part[i].rows = dr_qtensor_rows(&j->q, l[i]->row0, l[i]->n_out);
        DR_TRY(take_packed(w, l[i], &j->part[i].rows));
    }
    if (w->crew != NULL) {
        st = dr_crew_give(w->crew, rows_run, rows_drop, j, bytes);
        j = NULL;
        goto done;
    }
    DR_TRY(rows_run(j));
done:
    if (j != NULL)
        rows_drop(j);
    return st;
}

/* The slot of a linear's weight when it is plain, else an error. */
static dr_status plain_slot(struct slot **out, hf_writer *w, const hf_linear *l)
{
    size_t li = hf_writer_index(w, l);

    if (w->plans[li].count > 0)
        return dr_fail(DR_EUSAGE, "%s: plain, but to be written packed", l->path);
    *out = &w->slots[w->first[li]];
    return DR_OK;
}

/* All rows of a linear, rounded. */
static dr_status put_bnb(hf_writer *w, const hf_linear *l, const float *rows)
{
    size_t li = hf_writer_index(w, l);
    const hf_packed *parts = &w->plans[li];
    hf_bnb_packed packed;
    void *data = NULL;
    dr_status st = DR_OK;

    hf_bnb_pack(&packed, rows, l->n_out * l->n_in, &w->bnb_grid);
    DR_TRY(claim_parts(w, l));
    for (size_t i = 0; i < parts->count; i++) {
        const struct slot *s = &w->slots[w->first[li] + i];
        DR_TRY(dr_big_alloc(&data, s->t.bytes, 1, s->t.name));
        hf_bnb_part(data, parts, i, l, &w->bnb_grid, &packed);
        DR_TRY(put(w, s, 0, data, s->t.bytes));
        dr_big_free(data);
        data = NULL;
    }
done:
    dr_big_free(data);
    hf_bnb_packed_release(&packed);
    return st;
}

dr_status hf_writer_linear(hf_writer *w, const hf_linear *l, const float *rows)
{
    struct slot *s = NULL;
    dr_status st = DR_OK;

    if (w->mute)
        return DR_OK;
    DR_TRY(plan(w));
    if (w->bnb && l->layer >= 0)
        return put_bnb(w, l, rows);
    DR_TRY(plain_slot(&s, w, l));
    DR_TRY(claim(s));
    DR_TRY(put_floats(w, s, 0, rows, l->n_out * l->n_in));
done:
    return st;
}

dr_status hf_writer_outer(hf_writer *w, hf_outer which, const float *rows, size_t row0,
                          size_t count)
{
    const hf_linear *l =
        which == HF_OUTER_EMBED ? hf_embed_linear(w->m) : hf_head_linear(w->m);
    size_t cols = (size_t)w->m->c.hidden, all = (size_t)w->m->c.vocab;
    struct slot *s = NULL;
    dr_status st = DR_OK;

    if (w->mute)
        return DR_OK;
    if (l == NULL && !w->untied)
        DR_FAIL(DR_EUSAGE, "lm_head.weight: the head of a tied model is its embedding");
    DR_TRY(plan(w));
    if (l != NULL)
        DR_TRY(plain_slot(&s, w, l));
    else
        s = &w->slots[w->head_slot];
    bool last = row0 + count == all;
    if (s->written || last)
        DR_TRY(claim(s));
    DR_BUG_IF(row0 != s->rows || count > all - row0);
    DR_TRY(put_floats(w, s, row0 * cols, rows, count * cols));
    s->rows = last ? 0 : s->rows + count;
done:
    return st;
}

static dr_status put_vector(hf_writer *w, const hf_entry *e, const float *v)
{
    struct slot *s = &w->slots[w->slot_of[e - w->m->entries]];
    dr_status st = DR_OK;

    DR_TRY(claim(s));
    DR_TRY(put_floats(w, s, 0, v, e->cols));
done:
    return st;
}

dr_status hf_writer_bias(hf_writer *w, const hf_linear *l, const float *bias)
{
    const hf_entry *e = hf_linear_parts(w->m, l)->bias;
    dr_status st = DR_OK;

    if (w->mute)
        return DR_OK;
    if (e == NULL)
        DR_FAIL(DR_EUSAGE, "%s has no bias", l->path);
    DR_TRY(plan(w));
    DR_TRY(put_vector(w, e, bias));
done:
    return st;
}

dr_status hf_writer_norm(hf_writer *w, hf_norm which, int layer, const float *v)
{
    float offset = hf_norm_offset(&w->m->c);
    size_t n = hf_norm_size(&w->m->c, which);
    char name[HF_NAME_MAX];
    float *less = NULL;
    dr_status st = DR_OK;

    if (w->mute)
        return DR_OK;
    hf_norm_name(name, &w->m->c, which, layer, "weight");
    DR_TRY(plan(w));
    if (offset != 0.0f) {
        less = dr_calloc(n, sizeof(*less));
        for (size_t i = 0; i < n; i++)
            less[i] = v[i] - offset;
    }
    DR_TRY(put_vector(w, hf_entry_find(w->m, name), less != NULL ? less : v));
done:
    free(less);
    return st;
}

dr_status hf_writer_norm_bias(hf_writer *w, hf_norm which, int layer, const float *v)
{
    char name[HF_NAME_MAX];
    dr_status st = DR_OK;

    if (w->mute)
        return DR_OK;
    DR_BUG_IF(w->m->c.norm_kind != HF_NORM_KIND_LAYER);
    hf_norm_name(name, &w->m->c, which, layer, "bias");
    DR_TRY(plan(w));
    DR_TRY(put_vector(w, hf_entry_find(w->m, name), v));
done:
    return st;
}

/* ---- copying ---- */

/* Rows of an entry or of a linear that is packed in the source, as floats. */
static dr_status read_rows(const hf_writer *w, const struct slot *s, float *dst,
                           size_t row0, size_t count)
{
    if (s->source != NULL)
        return hf_entry_read(w->m, s->source, dst, row0, count);
    return hf_linear_read(w->m, s->linear, dst, row0, count);
}

/* A piece of a tensor that is copied byte by byte. */
typedef struct {
    const hf_writer *w; /* borrowed */
    struct slot *s;     /* borrowed */
    size_t from, bytes;
} piece_job;

enum { PIECE_BYTES = 16 << 20 };

static dr_status piece_run(void *ctx)
{
    const piece_job *j = ctx;
    struct slot *s = j->s;
    const char *from = (const char *)s->source->t.data + j->from;

    if (dr_dtype_is_float(s->t.dtype) &&
        !dr_all_finite(from, s->t.dtype, j->bytes / dr_dtype_bytes(s->t.dtype)))
        atomic_store(&s->unfit, true);
    return dr_writer_put(&j->w->shards[s->file].w, s->at + j->from, from, j->bytes);
}

static dr_status copy_bytes(hf_writer *w, struct slot *s)
{
    dr_status st = DR_OK;

    if (w->crew == NULL || s->t.bytes < PIECE_BYTES)
        return put(w, s, 0, s->source->t.data, s->t.bytes);
    for (size_t at = 0; at < s->t.bytes; at += PIECE_BYTES) {
        size_t left = s->t.bytes - at, n = left < PIECE_BYTES ? left : PIECE_BYTES;
        piece_job *j = dr_calloc(1, sizeof(*j));
        *j = (piece_job){.w = w, .s = s, .from = at, .bytes = n};
        DR_TRY(dr_crew_give(w->crew, piece_run, free, j, 0));
    }
done:
    return st;
}

static dr_status copy_plain(hf_writer *w, struct slot *s)
{
    void *rows = NULL;
    dr_status st = DR_OK;

    if (s->rows > 0)
        DR_FAIL(DR_EUSAGE, "%s: %zu of its rows were given", s->t.name, s->rows);
    if (s->source == NULL && s->linear == NULL)
        DR_FAIL(DR_EUSAGE, "%s was not given, and is not in the source", s->t.name);
    DR_TRY(claim(s));
    if (s->source != NULL && !w->m->gguf && s->source->t.dtype == s->t.dtype) {
        DR_TRY(copy_bytes(w, s));
        goto done;
    }
    size_t cols = s->source ? s->source->cols : s->linear->n_in;
    size_t count = s->source ? s->source->rows : s->linear->n_out;
    size_t per = cols < HF_CHUNK_FLOATS ? HF_CHUNK_FLOATS / (cols ? cols : 1) : 1;
    DR_TRY(dr_big_alloc(&rows, per * cols, sizeof(float), s->t.name));
    for (size_t r = 0; r < count; r += per) {
        size_t n = count - r < per ? count - r : per;
        DR_TRY(read_rows(w, s, rows, r, n));
        DR_TRY(put_floats(w, s, r * cols, rows, n * cols));
    }
done:
    dr_big_free(rows);
    return st;
}

dr_status hf_writer_stays(hf_writer *w, const hf_linear *l)
{
    struct slot *s = NULL;
    dr_status st = DR_OK;

    if (w->mute)
        return DR_OK;
    DR_TRY(plan(w));
    DR_TRY(plain_slot(&s, w, l));
    if (!s->written)
        DR_TRY(copy_plain(w, s));
done:
    return st;
}

/* Has the source the very tensors that the plan wants? */
static bool same_layout(const hf_writer *w, const hf_linear *l)
{
    size_t li = hf_writer_index(w, l);
    const hf_packed *plan = &w->plans[li];
    const hf_quant *from = &hf_linear_parts(w->m, l)->quant, *to = &w->formats[li];
    bool same = l->packed && from->method == to->method && from->bits == to->bits &&
                from->group == to->group && from->symmetric == to->symmetric &&
                !w->m->gptq_v2;

    for (size_t i = 0; same && i < plan->count; i++) {
        const dr_tensor *t = &plan->part[i];
        const hf_entry *e = hf_entry_find(w->m, t->name);
        same = e != NULL && e->t.dtype == t->dtype && e->t.bytes == t->bytes;
    }
    return same;
}

static dr_status copy_packed(hf_writer *w, const hf_linear *l)
{
    size_t li = hf_writer_index(w, l);
    dr_qtensor q = {0};
    void *rows = NULL;
    dr_status st = DR_OK;

    if (w->bnb) {
        DR_TRY(dr_big_alloc(&rows, l->n_out * l->n_in, sizeof(float), l->path));
        DR_TRY(hf_linear_read(w->m, l, rows, 0, l->n_out));
        DR_TRY(put_bnb(w, l, rows));
        goto done;
    }
    if (!l->packed)
        DR_FAIL(DR_EUSAGE, "%s was not given, and is not packed in the source", l->path);
    if (!same_layout(w, l)) {
        DR_TRY(hf_linear_packed(w->m, l, &q, NULL));
        DR_TRYF(hf_writer_packed(w, l, &q), "converting %s", l->path);
        goto done;
    }
    for (size_t i = 0; i < w->plans[li].count; i++) {
        struct slot *s = &w->slots[w->first[li] + i];
        DR_TRY(claim(s));
        DR_TRY(put(w, s, 0, hf_entry_find(w->m, s->t.name)->t.data, s->t.bytes));
    }
done:
    dr_big_free(rows);
    dr_qtensor_release(&q);
    return st;
}

/* ---- the end ---- */

static const char *torch_name(dr_dtype t)
{
    return t == DR_DTYPE_F32    ? "float32"
           : t == DR_DTYPE_F16  ? "float16"
           : t == DR_DTYPE_BF16 ? "bfloat16"
                                : "float64";
}

static dr_status write_config(hf_writer *w)
{
    json_t *config = json_deep_copy(w->m->config);
    dr_status st = DR_OK;

    DR_BUG_IF(config == NULL);
    json_object_del(config, "quantization_config");
    json_object_del(config, "auto_map"); /* names code, which is not copied */
    if (w->untied)
        json_object_set_new(config, "tie_word_embeddings", json_false());
    if (w->dtype != DR_DTYPE_COUNT)
        json_object_set_new(
            config, json_object_get(config, "dtype") != NULL ? "dtype" : "torch_dtype",
            json_string(torch_name(w->dtype)));
    if (w->quant.method != HF_QUANT_NONE)
        json_object_set_new(config, "quantization_config",
                            hf_quant_json(w->m, &w->quant, w->formats));
    if (w->bnb)
        json_object_set_new(config, "quantization_config", hf_bnb_json(&w->bnb_grid));
    DR_TRY(dr_json_write(dr_path_join(&w->arena, w->dir, "config.json"), config));
done:
    json_decref(config);
    return st;
}

static dr_status write_index(hf_writer *w)
{
    json_t *map = json_object(), *index = NULL;
    json_int_t bytes = 0;
    dr_status st = DR_OK;

    for (size_t i = 0; i < w->slot_count; i++) {
        const struct slot *s = &w->slots[i];
        bytes += (json_int_t)s->t.bytes;
        json_object_set_new(map, s->t.name, json_string(w->shards[s->file].name));
    }
    index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", bytes, "weight_map", map);
    DR_TRY(dr_json_write(dr_path_join(&w->arena, w->dir, "model.safetensors.index.json"),
                         index));
done:
    json_decref(index);
    return st;
}

dr_status hf_writer_finish(hf_writer *w)
{
    dr_status st = DR_OK;

    if (w->mute)
        return DR_OK;
    DR_TRY(plan(w));
    for (size_t i = 0; i < w->slot_count; i++) {
        struct slot *s = &w->slots[i];
        if (s->written)
            continue;
        if (s->linear != NULL && w->plans[hf_writer_index(w, s->linear)].count > 0)
            DR_TRY(copy_packed(w, s->linear));
        else
            DR_TRY(copy_plain(w, s));
    }
    DR_TRY(hf_writer_wait(w));
    for (size_t i = 0; i < w->slot_count && w->unfit == NULL; i++)
        w->unfit = atomic_load(&w->slots[i].unfit) ? w->slots[i].t.name : NULL;
    for (size_t i = 0; i < w->shard_count; i++) {
        struct shard *f = &w->shards[i];
        f->open = false;
        DR_TRY(dr_writer_finish(&f->w));
        if (w->keep != NULL)
            DR_TRY(dr_place_file(dr_path_join(&w->arena, w->dir, f->name),
                                 hf_writer_shard_path(w, f), NULL));
    }
    if (w->shard_count > 1)
        DR_TRY(write_index(w));
    DR_TRY(write_config(w));
    DR_TRY(hf_model_copy_side_files(w->m, w->dir));
    if (w->unfit != NULL)
        dr_warn_result("%s: %s is written with values that are not finite numbers",
                       w->m->path, w->unfit);
done:
    return st;
}

void hf_writer_close(hf_writer *w)
{
    if (w == NULL)
        return;
    dr_crew_close(w->crew);
    for (size_t i = 0; i < w->shard_count; i++) {
        if (w->shards[i].open)
            dr_writer_close(&w->shards[i].w);
        dr_buf_release(&w->shards[i].header);
    }
    dr_big_free(w->chunk);
    free(w->formats);
    free(w->plans);
    free(w->first);
    free(w->slots);
    free(w->slot_of);
    free(w->shards);
    dr_arena_release(&w->arena);
    free(w);
}

dr_status hf_write_model_config(const char *dir, const char *model_path,
                                const char *adapter_path)
{
    dr_arena a = {0};
    json_t *config = NULL;
    dr_status st = DR_OK;

    config = json_pack("{s:s, s:{s:s, s:s, s:s*}}", "type", "HfModel", "config",
                       "model_path", model_path, "task", "text-generation-with-past",
                       "adapter_path", adapter_path);
    if (config == NULL)
        DR_FAIL(DR_EFORMAT, "%s: a path that is not UTF-8 cannot go into model_config.json",
                model_path);
    DR_TRY(dr_make_dirs(dir));
    DR_TRY(dr_json_write(dr_path_join(&a, dir, "model_config.json"), config));
done:
    json_decref(config);
    dr_arena_release(&a);
    return st;
}
