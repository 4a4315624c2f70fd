/*
 * writer_plan.c - where each tensor of a written folder goes: slots from the source and the
 * formats, cut into files, before the first byte of data.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "hf/roles_impl.h"
#include "hf/writer_impl.h"

size_t hf_writer_index(const hf_writer *w, const hf_linear *l)
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
    size_t li = hf_writer_index(w, l);
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

/* The head that the source has not got, with the embedding's shape. */
static void plan_head(hf_writer *w)
{
    const hf_config *c = &w->m->c;
    const hf_entry *e = hf_linear_parts(w->m, hf_embed_linear(w->m))->weight;
    const int64_t dims[2] = {c->vocab, c->hidden};
    dr_dtype own = w->dtype != DR_DTYPE_COUNT ? w->dtype : c->dtype;

    w->head_slot = w->slot_count;
    w->slots[w->slot_count] = (struct slot){.source = NULL};
    slot_plain(&w->slots[w->slot_count++], "lm_head.weight",
               e != NULL ? entry_dtype(w, e) : own, dims, 2);
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

    w->slots = dr_calloc(m->entry_count + HF_PACKED_PARTS * m->linear_count + 1,
                         sizeof(*w->slots));
    w->slot_of = dr_calloc(m->entry_count + 1, sizeof(*w->slot_of));
    w->first = dr_calloc(m->linear_count, sizeof(*w->first));
    for (size_t i = 0; i < m->linear_count; i++)
        w->first[i] = SIZE_MAX;
    for (size_t i = 0; i < m->entry_count; i++) {
        const hf_entry *e = &m->entries[i];
        w->slot_of[i] = SIZE_MAX;
        if (owner[i] != NULL) {
            if (w->first[hf_writer_index(w, owner[i])] == SIZE_MAX)
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
    if (w->untied)
        plan_head(w);
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
    DR_TRY(dr_big_alloc(&w->chunk, HF_CHUNK_FLOATS, sizeof(float), "write buffer"));
done:
    return st;
}
