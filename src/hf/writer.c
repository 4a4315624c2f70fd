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
enum { CHUNK_FLOATS = 1 << 20 };

/* ---- plan ---- */

static size_t linear_index(const hf_writer *w, const hf_linear *l)
{
    DR_BUG_IF(l < w->m->linears || l >= w->m->linears + w->m->linear_count);
    return (size_t)(l - w->m->linears);
}

static void slot_plain(struct slot *s, const char *name, dr_dtype dtype,
                       const int64_t *dims, int ndim)
{
    size_t n = 1;

    s->t = (dr_tensor){.name = name, .dtype = dtype, .ndim = ndim};
    for (int i = 0; i < ndim; i++) {
        s->t.dims[i] = dims[i];
        n *= (size_t)dims[i]; /* checked when the source was opened */
    }
    s->t.bytes = n * dr_dtype_bytes(dtype);
}

/* The dtype in which an entry of the source is written. */
static dr_dtype entry_dtype(const hf_writer *w, const hf_entry *e)
{
    if (w->dtype != DR_DTYPE_COUNT && e->read != NULL)
        return w->dtype;
    return w->m->gguf ? w->m->c.dtype : e->t.dtype;
}

/* A head that is the embedding again, as older files keep it: not read, not written. */
static bool is_spare_head(const hf_writer *w, const hf_entry *e)
{
    return w->m->c.tied && strcmp(e->t.name, "lm_head.weight") == 0;
}

/* The slots of a linear's weight; *n is where they begin. */
static dr_status plan_linear(hf_writer *w, const hf_linear *l)
{
    size_t li = linear_index(w, l);
    const hf_parts *p = hf_linear_parts(w->m, l);
    const int64_t dims[2] = {(int64_t)l->n_out, (int64_t)l->n_in};
    struct slot *s = &w->slots[w->slot_count];
    dr_status st = DR_OK;

    w->first[li] = w->slot_count;
    if (w->formats[li].method != HF_QUANT_NONE) {
        hf_packed *plan = &w->plans[li];
        DR_TRY(hf_pack_plan(&w->arena, plan, l, &w->formats[li]));
        for (size_t i = 0; i < plan->count; i++)
            s[i] = (struct slot){.t = plan->part[i], .linear = l, .part = i};
        w->slot_count += plan->count;
        goto done;
    }
    if (w->bnb && l->layer >= 0) {
        hf_packed *plan = &w->plans[li];
        hf_bnb_plan(&w->arena, plan, l, &w->bnb_grid);
        for (size_t i = 0; i < plan->count; i++)
            s[i] = (struct slot){.t = plan->part[i], .linear = l, .part = i};
        w->slot_count += plan->count;
        goto done;
    }
    *s = (struct slot){.source = p->weight, .linear = l};
    slot_plain(s, dr_arena_printf(&w->arena, "%s.weight", l->path),
               p->weight != NULL            ? entry_dtype(w, p->weight)
               : w->dtype != DR_DTYPE_COUNT ? w->dtype
                                            : w->m->c.dtype,
               dims, 2);
    w->slot_count++;
done:
    return st;
}

/* owner[i]: the linear whose weight the i-th entry is a part of. */
static const hf_linear **find_owners(const hf_writer *w)
{
    const hf_model *m = w->m;
    const hf_linear **owner = dr_calloc(m->entry_count + 1, sizeof(hf_linear *));

    for (size_t i = 0; i < m->linear_count; i++) {
        const hf_parts *p = &m->parts[i];
        const hf_entry *all[] = {p->weight, p->qweight, p->scales, p->qzeros, p->g_idx};
        for (size_t k = 0; k < DR_COUNT(all); k++) {
            if (all[k] != NULL)
                owner[all[k] - m->entries] = &m->linears[i];
        }
        for (size_t k = 0; k < HF_OTHER_PARTS; k++) {
            if (p->others[k] != NULL)
                owner[p->others[k] - m->entries] = &m->linears[i];
        }
    }
    return owner;
}

static dr_status plan_slots(hf_writer *w)
{
    const hf_model *m = w->m;
    const hf_linear **owner = find_owners(w);
    dr_status st = DR_OK;

    w->slots =
        dr_calloc(m->entry_count + HF_PACKED_PARTS * m->linear_count, sizeof(*w->slots));
    w->slot_of = dr_calloc(m->entry_count + 1, sizeof(*w->slot_of));
    w->first = dr_calloc(m->linear_count, sizeof(*w->first));
    for (size_t i = 0; i < m->linear_count; i++)
        w->first[i] = SIZE_MAX;
    for (size_t i = 0; i < m->entry_count; i++) {
        const hf_entry *e = &m->entries[i];
        w->slot_of[i] = SIZE_MAX;
        if (owner[i] != NULL) {
            if (w->first[linear_index(w, owner[i])] == SIZE_MAX)
                DR_TRY(plan_linear(w, owner[i]));
            continue;
        }
        if (is_spare_head(w, e))
            continue;
        w->slot_of[i] = w->slot_count;
        struct slot *s = &w->slots[w->slot_count++];
        *s = (struct slot){.source = e};
        slot_plain(s, e->t.name, entry_dtype(w, e), e->dims, e->ndim);
    }
done:
    free(owner);
    return st;
}

/* Cuts the slots into files, in order. */
static void plan_shards(hf_writer *w)
{
    uint64_t bytes = 0;

    w->shards = dr_calloc(w->slot_count + 1, sizeof(*w->shards));
    w->shard_count = 1;
    for (size_t i = 0; i < w->slot_count; i++) {
        struct shard *f = &w->shards[w->shard_count - 1];
        if (f->count > 0 && bytes + w->slots[i].t.bytes > w->shard_bytes) {
            f = &w->shards[w->shard_count++];
            f->first = i;
            bytes = 0;
        }
        bytes += w->slots[i].t.bytes;
        w->slots[i].file = w->shard_count - 1;
        f->count++;
    }
    for (size_t i = 0; i < w->shard_count; i++) {
        if (w->shard_count == 1)
            (void)snprintf(w->shards[i].name, HF_SHARD_NAME, "model.safetensors");
        else
            (void)snprintf(w->shards[i].name, HF_SHARD_NAME,
                           "model-%05zu-of-%05zu.safetensors", i + 1, w->shard_count);
    }
}

/* A file's header, and the places of its slots behind it. */
static dr_status place_shard(hf_writer *w, struct shard *f)
{
    dr_tensor *list = dr_calloc(f->count + 1, sizeof(*list));
    dr_status st = DR_OK;

    dr_buf_init(&f->header, HF_ST_HEADER_MAX);
    for (size_t i = 0; i < f->count; i++)
        list[i] = w->slots[f->first + i].t;
    DR_TRYF(hf_st_header(&f->header, list, f->count), "writing %s", f->name);
    uint64_t at = f->header.len;
    for (size_t i = 0; i < f->count; i++) {
        w->slots[f->first + i].at = at;
        at += list[i].bytes;
    }
done:
    free(list);
    return st;
}

const char *hf_writer_shard_path(hf_writer *w, const struct shard *f)
{
    return dr_path_join(&w->arena, w->keep != NULL ? w->keep : w->dir, f->name);
}

dr_status hf_writer_plan(hf_writer *w)
{
    dr_status st = DR_OK;

    DR_BUG_IF(w->planned);
    w->planned = true;
    DR_TRY(plan_slots(w));
    plan_shards(w);
    for (size_t i = 0; i < w->shard_count; i++)
        DR_TRY(place_shard(w, &w->shards[i]));
done:
    return st;
}

dr_status hf_writer_open_files(hf_writer *w, bool kept)
{
    dr_status st = DR_OK;

    for (size_t i = 0; i < w->shard_count; i++) {
        struct shard *f = &w->shards[i];
        const char *path = hf_writer_shard_path(w, f);
        DR_TRY(kept ? dr_writer_reopen(&f->w, path) : dr_writer_open(&f->w, path));
        f->open = true;
        if (!kept)
            DR_TRY(dr_writer_add(&f->w, f->header.data, f->header.len));
        dr_buf_release(&f->header);
    }
    DR_TRY(dr_big_alloc(&w->chunk, CHUNK_FLOATS, sizeof(float), "write buffer"));
done:
    return st;
}

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

void hf_writer_keep(hf_writer *w, const char *keep)
{
    DR_BUG_IF(w->planned);
    w->keep = dr_arena_strdup(&w->arena, keep);
}

void hf_writer_shard_bytes(hf_writer *w, uint64_t limit)
{
    DR_BUG_IF(w->planned);
    w->shard_bytes = limit;
}

dr_status hf_writer_format(hf_writer *w, const hf_linear *l, const hf_quant *q)
{
    hf_quant *f = &w->formats[linear_index(w, l)];
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
    size_t size = dr_dtype_bytes(s->t.dtype), per = CHUNK_FLOATS * sizeof(float) / size;
    dr_status st = DR_OK;

    for (size_t i = 0; i < n; i += per) {
        size_t part = n - i < per ? n - i : per;
        dr_from_f32(w->chunk, v + i, s->t.dtype, part);
        DR_TRY(put(w, s, (first + i) * size, w->chunk, part * size));
    }
done:
    return st;
}

dr_status hf_writer_packed(hf_writer *w, const hf_linear *l, const dr_qtensor *q)
{
    size_t li = linear_index(w, l);
    const hf_quant *format = &w->formats[li];
    void *data = NULL;
    dr_status st = DR_OK;

    DR_TRY(plan(w));
    const hf_packed *parts = &w->plans[li];
    if (parts->count == 0)
        DR_FAIL(DR_EUSAGE, "%s: packed, but to be written plain", l->path);
    DR_TRY(hf_pack_check(l, format, q));
    for (size_t i = 0; i < parts->count; i++) {
        struct slot *s = &w->slots[w->first[li] + i];
        DR_TRY(claim(s));
        DR_TRY(dr_big_alloc(&data, s->t.bytes, 1, s->t.name));
        hf_pack_part(data, parts, i, l, format, q);
        DR_TRY(put(w, s, 0, data, s->t.bytes));
        dr_big_free(data);
        data = NULL;
    }
done:
    dr_big_free(data);
    return st;
}

/* The slot of a linear's weight when it is plain, else an error. */
static dr_status plain_slot(struct slot **out, hf_writer *w, const hf_linear *l)
{
    size_t li = linear_index(w, l);

    if (w->plans[li].count > 0)
        return dr_fail(DR_EUSAGE, "%s: plain, but to be written packed", l->path);
    *out = &w->slots[w->first[li]];
    return DR_OK;
}

/* All rows of a linear, rounded. */
static dr_status put_bnb(hf_writer *w, const hf_linear *l, const float *rows)
{
    size_t li = linear_index(w, l);
    const hf_packed *parts = &w->plans[li];
    hf_bnb_packed packed;
    void *data = NULL;
    dr_status st = DR_OK;

    hf_bnb_pack(&packed, rows, l->n_out * l->n_in, &w->bnb_grid);
    for (size_t i = 0; i < parts->count; i++) {
        struct slot *s = &w->slots[w->first[li] + i];
        DR_TRY(claim(s));
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

    DR_TRY(plan(w));
    if (w->bnb && l->layer >= 0)
        return put_bnb(w, l, rows);
    DR_TRY(plain_slot(&s, w, l));
    DR_TRY(claim(s));
    DR_TRY(put_floats(w, s, 0, rows, l->n_out * l->n_in));
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

static dr_status copy_plain(hf_writer *w, struct slot *s)
{
    void *rows = NULL;
    dr_status st = DR_OK;

    DR_TRY(claim(s));
    if (s->source != NULL && !w->m->gguf && s->source->t.dtype == s->t.dtype) {
        DR_TRY(put(w, s, 0, s->source->t.data, s->t.bytes));
        goto done;
    }
    size_t cols = s->source ? s->source->cols : s->linear->n_in;
    size_t count = s->source ? s->source->rows : s->linear->n_out;
    size_t per = cols < CHUNK_FLOATS ? CHUNK_FLOATS / (cols ? cols : 1) : 1;
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

/* Has the source the very tensors that the plan wants? */
static bool same_layout(const hf_writer *w, const hf_linear *l)
{
    size_t li = linear_index(w, l);
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
    size_t li = linear_index(w, l);
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
        DR_TRY(hf_linear_packed(w->m, l, &q));
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

    DR_TRY(plan(w));
    for (size_t i = 0; i < w->slot_count; i++) {
        struct slot *s = &w->slots[i];
        if (s->written)
            continue;
        if (s->linear != NULL && w->plans[linear_index(w, s->linear)].count > 0)
            DR_TRY(copy_packed(w, s->linear));
        else
            DR_TRY(copy_plain(w, s));
    }
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
