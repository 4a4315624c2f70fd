/*
 * writer_state.c - what a writer has written so far, and a writer that goes on with it.
 *
 * The state is, for each tensor of the plan, whether it is written and the checksum of its
 * bytes in the file.  The plan follows from the source and the formats, so that a writer
 * with the same ones has the same; its files are taken up when their headers are those of
 * the plan and every written tensor has its checksum.  What was written after the state
 * was saved is written again.
 */
#include <string.h>

#include "core/hash.h"
#include "hf/writer_impl.h"

typedef struct {
    uint64_t written, sum;
} record;

/* Sums of what is new in one file. */
static dr_status sum_shard(hf_writer *w, const struct shard *f)
{
    dr_map map = {0};
    dr_status st = DR_OK;

    DR_TRY(dr_map_open(&map, f->w.path));
    for (size_t i = f->first; i < f->first + f->count; i++) {
        struct slot *s = &w->slots[i];
        if (!s->written || s->summed)
            continue;
        s->sum = dr_checksum(map.data + s->at, s->t.bytes);
        s->summed = true;
    }
done:
    dr_map_close(&map);
    return st;
}

static bool has_news(const hf_writer *w, const struct shard *f)
{
    if (!f->saved)
        return true;
    for (size_t i = f->first; i < f->first + f->count; i++) {
        if (w->slots[i].written && !w->slots[i].summed)
            return true;
    }
    return false;
}

dr_status hf_writer_save(hf_writer *w, dr_buf *state)
{
    uint64_t unfit = UINT64_MAX;
    dr_status st = DR_OK;

    DR_TRY(hf_writer_wait(w));
    for (size_t i = 0; i < w->shard_count; i++) {
        if (!has_news(w, &w->shards[i]))
            continue;
        DR_TRY(dr_writer_sync(&w->shards[i].w));
        DR_TRY(sum_shard(w, &w->shards[i]));
        w->shards[i].saved = true;
    }
    for (size_t i = 0; i < w->slot_count; i++) {
        if (w->unfit == w->slots[i].t.name && w->unfit != NULL)
            unfit = i;
    }
    DR_TRY(dr_buf_add(state, &unfit, sizeof(unfit)));
    for (size_t i = 0; i < w->slot_count; i++) {
        const record r = {w->slots[i].summed, w->slots[i].sum};
        DR_TRY(dr_buf_add(state, &r, sizeof(r)));
    }
done:
    return st;
}

static record record_at(const unsigned char *state, size_t i)
{
    record r;

    memcpy(&r, state + sizeof(uint64_t) + i * sizeof(r), sizeof(r));
    return r;
}

/* Is the file what the state says? */
static bool is_whole(const hf_writer *w, const struct shard *f, const dr_map *map,
                     const unsigned char *state)
{
    if (map->size < f->header.len || memcmp(map->data, f->header.data, f->header.len) != 0)
        return false;
    for (size_t i = f->first; i < f->first + f->count; i++) {
        const struct slot *s = &w->slots[i];
        const record r = record_at(state, i);
        if (r.written == 0)
            continue;
        if (s->at > map->size || s->t.bytes > map->size - s->at ||
            dr_checksum(map->data + s->at, s->t.bytes) != r.sum)
            return false;
    }
    return true;
}

static dr_status check_files(bool *whole, hf_writer *w, const unsigned char *state)
{
    dr_status st = DR_OK;

    *whole = true;
    for (size_t i = 0; *whole && i < w->shard_count; i++) {
        const char *path = hf_writer_shard_path(w, &w->shards[i]);
        dr_map map = {0};
        *whole = dr_file_is_single(path);
        if (!*whole)
            continue;
        DR_TRY(dr_map_open(&map, path));
        *whole = is_whole(w, &w->shards[i], &map, state);
        dr_map_close(&map);
    }
done:
    return st;
}

dr_status hf_writer_resume(hf_writer *w, bool *taken, const void *state, size_t n)
{
    const unsigned char *p = state;
    uint64_t unfit = 0;
    dr_status st = DR_OK;

    DR_BUG_IF(w->keep == NULL);
    DR_TRY(hf_writer_plan(w));
    *taken = n == sizeof(unfit) + w->slot_count * sizeof(record);
    if (*taken)
        DR_TRY(check_files(taken, w, p));
    DR_TRY(hf_writer_open_files(w, *taken));
    if (!*taken)
        goto done;
    memcpy(&unfit, p, sizeof(unfit));
    if (unfit < w->slot_count)
        w->unfit = w->slots[unfit].t.name;
    for (size_t i = 0; i < w->shard_count; i++)
        w->shards[i].saved = true;
    for (size_t i = 0; i < w->slot_count; i++) {
        const record r = record_at(p, i);
        struct slot *s = &w->slots[i];
        s->written = s->summed = r.written != 0;
        s->sum = r.sum;
    }
done:
    return st;
}
