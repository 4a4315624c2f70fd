/*
 * zip.c - the entries of a zip archive, as torch.save writes it: stored, not compressed, so
 * that they are read where they lie in the mapping.
 *
 *   entry:      "PK\3\4" ... name length at 26, extra length at 28, name, extra, data
 *   directory:  for each entry "PK\1\2", flags at 8, method at 10, sizes at 20 and 24,
 *               lengths of name, extra, comment at 28, 30, 32, the entry's place at 42
 *   end:        "PK\5\6" entries at 10, directory's size at 12 and place at 16, comment
 *
 * Fields of 32 bits that are all ones stand in a zip64 extra field (id 1), those of the end
 * in a zip64 end ("PK\6\6"), which a locator ("PK\6\7") before the end points to.
 * Source: PKWARE, APPNOTE.TXT 6.3.9.
 *
 * The directory decides; an entry's own header must have the same name.  Checksums are not
 * looked at: that would read every byte of the weights.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "hf/pickled_impl.h"

enum {
    END_BYTES = 22,
    LOCATOR_BYTES = 20,
    END64_BYTES = 56,
    ROW_BYTES = 46,
    HEAD_BYTES = 30,
    COMMENT_MAX = 65535,
    FLAG_ENCRYPTED = 1,
};

/* The directory, as the end says. */
struct directory {
    uint64_t count, at, bytes;
};

static uint64_t number(const unsigned char *p, int n)
{
    uint64_t v = 0;

    while (n-- > 0)
        v = v << 8 | p[n];
    return v;
}

static bool is_mark(const unsigned char *p, int a, int b)
{
    return p[0] == 'P' && p[1] == 'K' && p[2] == a && p[3] == b;
}

/* The end record: the last one whose comment reaches the file's end.  NULL: none. */
static const unsigned char *find_end(const dr_map *map)
{
    for (size_t back = END_BYTES;
         back <= map->size && back <= (size_t)END_BYTES + COMMENT_MAX; back++) {
        const unsigned char *p = map->data + map->size - back;
        if (is_mark(p, 5, 6) && number(p + 20, 2) == back - END_BYTES)
            return p;
    }
    return NULL;
}

static dr_status read_end(struct directory *d, const dr_map *map, const char *where)
{
    const unsigned char *p = find_end(map);

    if (p == NULL)
        return dr_fail(DR_EFORMAT, "%s: no zip directory at its end: cut short", where);
    *d = (struct directory){number(p + 10, 2), number(p + 16, 4), number(p + 12, 4)};
    uint64_t disks = number(p + 4, 2);
    size_t end = (size_t)(p - map->data);
    if (end >= LOCATOR_BYTES && is_mark(p - LOCATOR_BYTES, 6, 7)) {
        uint64_t at = number(p - LOCATOR_BYTES + 8, 8);
        if (at > end || end - at < END64_BYTES || !is_mark(map->data + at, 6, 6))
            return dr_fail(DR_EFORMAT, "%s: the zip64 end is not at %llu", where,
                           (unsigned long long)at);
        p = map->data + at;
        *d = (struct directory){number(p + 32, 8), number(p + 48, 8), number(p + 40, 8)};
        disks = number(p + 16, 4);
        end = (size_t)at;
    }
    if (disks != 0)
        return dr_fail(DR_EUNSUPPORTED, "%s: part %llu of a zip archive on several disks",
                       where, (unsigned long long)disks + 1);
    if (d->at > end || d->bytes > end - d->at || d->count > d->bytes / ROW_BYTES)
        return dr_fail(DR_EFORMAT,
                       "%s: a zip directory of %llu entries in %llu bytes at "
                       "%llu of %zu",
                       where, (unsigned long long)d->count, (unsigned long long)d->bytes,
                       (unsigned long long)d->at, map->size);
    return DR_OK;
}

/* A row of the directory. */
struct row {
    const char *name;
    size_t name_bytes, extra_bytes;
    const unsigned char *extra;
    uint64_t flags, method, stored, size, at;
};

/* Takes from the zip64 field what the row has no room for; false: it is not there. */
static bool widen(struct row *r)
{
    uint64_t *const fields[] = {&r->size, &r->stored, &r->at};
    const unsigned char *p = r->extra, *end = r->extra + r->extra_bytes;
    bool wide = r->size == UINT32_MAX || r->stored == UINT32_MAX || r->at == UINT32_MAX;

    while (wide && end - p >= 4) {
        size_t n = (size_t)number(p + 2, 2);
        bool hit = number(p, 2) == 1;
        p += 4;
        if (n > (size_t)(end - p))
            return false;
        if (!hit) {
            p += n;
            continue;
        }
        for (size_t i = 0; i < DR_COUNT(fields); i++) {
            if (*fields[i] != UINT32_MAX)
                continue;
            if (n < 8)
                return false;
            *fields[i] = number(p, 8);
            p += 8;
            n -= 8;
        }
        return true;
    }
    return !wide;
}

/* The row at *p, which is moved behind it; end: of the directory. */
static dr_status read_row(struct row *r, dr_arena *a, const unsigned char **p,
                          const unsigned char *end, const char *where)
{
    const unsigned char *q = *p;

    if (end - q < ROW_BYTES || !is_mark(q, 1, 2))
        return dr_fail(DR_EFORMAT, "%s: the zip directory is damaged", where);
    size_t name = (size_t)number(q + 28, 2), extra = (size_t)number(q + 30, 2);
    size_t all = ROW_BYTES + name + extra + (size_t)number(q + 32, 2);
    if (all > (size_t)(end - q))
        return dr_fail(DR_EFORMAT, "%s: the zip directory is damaged", where);
    const char *text = (const char *)q + ROW_BYTES;
    if (name == 0 || memchr(text, '\0', name) != NULL)
        return dr_fail(DR_EFORMAT, "%s: an entry with a name of %zu bytes", where, name);
    *r = (struct row){
        .name = dr_arena_strndup(a, text, name),
        .name_bytes = name,
        .extra_bytes = extra,
        .extra = q + ROW_BYTES + name,
        .flags = number(q + 8, 2),
        .method = number(q + 10, 2),
        .stored = number(q + 20, 4),
        .size = number(q + 24, 4),
        .at = number(q + 42, 4),
    };
    *p += all;
    if (!widen(r))
        return dr_fail(DR_EFORMAT, "%s: %s: its zip64 field is damaged", where, r->name);
    return DR_OK;
}

static dr_status check_row(const struct row *r, const char *where)
{
    dr_status st = DR_OK;

    if ((r->flags & FLAG_ENCRYPTED) != 0)
        return dr_fail(DR_EUNSUPPORTED, "%s: %s: encrypted entries are not supported",
                       where, r->name);
    if (r->method != 0) {
        st = dr_fail(DR_EUNSUPPORTED,
                     "%s: %s: compressed entries (method %llu) are not supported", where,
                     r->name, (unsigned long long)r->method);
        dr_hint("torch.save stores them; load the file with torch and save it again");
        return st;
    }
    if (r->stored != r->size)
        return dr_fail(DR_EFORMAT, "%s: %s: %llu bytes stored for %llu", where, r->name,
                       (unsigned long long)r->stored, (unsigned long long)r->size);
    return DR_OK;
}

/* The entry's data; limit: where the directory begins. */
static dr_status locate(hf_zip_entry *e, const struct row *r, const dr_map *map,
                        uint64_t limit, const char *where)
{
    if (r->at > limit || limit - r->at < HEAD_BYTES || !is_mark(map->data + r->at, 3, 4))
        return dr_fail(DR_EFORMAT, "%s: %s: no entry at %llu", where, r->name,
                       (unsigned long long)r->at);
    const unsigned char *p = map->data + r->at;
    uint64_t room = limit - r->at - HEAD_BYTES, name = number(p + 26, 2);
    uint64_t before = name + number(p + 28, 2);
    if (before > room || name != r->name_bytes ||
        memcmp(p + HEAD_BYTES, r->name, r->name_bytes) != 0)
        return dr_fail(DR_EFORMAT, "%s: %s: its own header has another name", where,
                       r->name);
    if (r->size > room - before)
        return dr_fail(DR_EFORMAT, "%s: %s: %llu bytes at %llu pass the directory", where,
                       r->name, (unsigned long long)r->size, (unsigned long long)r->at);
    *e = (hf_zip_entry){r->name, p + HEAD_BYTES + before, (size_t)r->size};
    return DR_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const hf_zip_entry *)a)->name, ((const hf_zip_entry *)b)->name);
}

dr_status hf_zip_read(dr_arena *a, hf_zip *out, const dr_map *map, const char *where)
{
    struct directory d = {0};
    struct row r = {0};
    void *list = NULL;
    dr_status st = DR_OK;

    *out = (hf_zip){0};
    DR_TRY(read_end(&d, map, where));
    DR_TRY(dr_arena_big(a, &list, (size_t)d.count, sizeof(hf_zip_entry), "zip entries"));
    out->entries = list;
    const unsigned char *p = map->data + d.at, *end = p + d.bytes;
    for (uint64_t i = 0; i < d.count; i++) {
        DR_TRY(read_row(&r, a, &p, end, where));
        DR_TRY(check_row(&r, where));
        DR_TRY(locate(&out->entries[out->count++], &r, map, d.at, where));
    }
    qsort(out->entries, out->count, sizeof(hf_zip_entry), by_name);
    for (size_t i = 1; i < out->count; i++)
        if (by_name(&out->entries[i - 1], &out->entries[i]) == 0)
            DR_FAIL(DR_EFORMAT, "%s: %s: the entry is there twice", where,
                    out->entries[i].name);
done:
    return st;
}

const hf_zip_entry *hf_zip_find(const hf_zip *z, const char *name)
{
    const hf_zip_entry want = {.name = name};

    if (z->count == 0)
        return NULL;
    return bsearch(&want, z->entries, z->count, sizeof(want), by_name);
}
