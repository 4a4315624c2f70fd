/*
 * zip_writer.c - an archive of stored entries.
 *
 *     local header, name, [zip64 field], data | ... | central directory | its end
 *
 * A field of 32 bits that is too small is all ones, and the value stands in a zip64 field
 * (id 1) behind the name: sizes in both headers, the entry's place in the central one.  The
 * end of such an archive is a zip64 end, its locator and the plain end.
 *
 * Source: PKWARE, APPNOTE.TXT 6.3, sections 4.3.7, 4.3.12 to 4.3.16 and 4.5.3.
 */
#include "core/zip_writer.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "core/file.h"
#include "core/mem.h"

enum {
    LOCAL = 0x04034b50,
    CENTRAL = 0x02014b50,
    END = 0x06054b50,
    END64 = 0x06064b50,
    LOCATOR64 = 0x07064b50,
    VERSION = 20,
    VERSION64 = 45,
    DAY_ONE = 0x21, /* 1980-01-01 */
    UTF8_NAME = 1 << 11,
    FIELD64 = 1,
    END64_REST = 44, /* bytes of a zip64 end behind its own length */
    COUNT_MAX = 65535,
    HEADERS_MAX = 1 << 30
};

typedef struct {
    char *name; /* owned */
    uint32_t crc;
    uint64_t bytes, offset;
} entry;

struct dr_zip {
    dr_writer w;
    dr_buf head; /* a header that is being made */
    entry *list; /* owned */
    size_t count, room;
};

static bool is_ascii(const char *name)
{
    while (*name != '\0')
        if ((unsigned char)*name++ >= 0x80)
            return false;
    return true;
}

static bool is_wide(uint64_t v)
{
    return v >= UINT32_MAX;
}

static uint64_t narrow(uint64_t v)
{
    return is_wide(v) ? UINT32_MAX : v;
}

static dr_status put(dr_buf *b, uint64_t v, size_t bytes)
{
    unsigned char out[8];

    for (size_t i = 0; i < bytes; i++)
        out[i] = (unsigned char)(v >> (8 * i));
    return dr_buf_add(b, out, bytes);
}

/* A local header, or a row of the central directory. */
static dr_status put_header(dr_buf *b, const entry *e, bool central)
{
    const bool far = central && is_wide(e->offset);
    const size_t wide = (is_wide(e->bytes) ? 16 : 0) + (far ? 8 : 0);
    const uint64_t version = wide > 0 ? VERSION64 : VERSION;
    const struct {
        uint64_t v;
        size_t bytes;
        bool wanted;
    } fields[] = {
        {central ? CENTRAL : LOCAL, 4, true},
        {version, 2, central}, /* made by */
        {version, 2, true},    /* needed */
        {is_ascii(e->name) ? 0 : UTF8_NAME, 2, true},
        {0, 4, true}, /* stored; midnight */
        {DAY_ONE, 2, true},
        {e->crc, 4, true},
        {narrow(e->bytes), 4, true},
        {narrow(e->bytes), 4, true},
        {strlen(e->name), 2, true},
        {wide > 0 ? wide + 4 : 0, 2, true},
        {0, 8, central}, /* comment, disk, attributes inside, half of those outside */
        {0, 2, central},
        {narrow(e->offset), 4, central},
    };
    dr_status st = DR_OK;

    for (size_t i = 0; i < DR_COUNT(fields); i++)
        if (fields[i].wanted)
            DR_TRY(put(b, fields[i].v, fields[i].bytes));
    DR_TRY(dr_buf_adds(b, e->name));
    if (wide == 0)
        goto done;
    DR_TRY(put(b, FIELD64, 2));
    DR_TRY(put(b, wide, 2));
    if (is_wide(e->bytes)) {
        DR_TRY(put(b, e->bytes, 8));
        DR_TRY(put(b, e->bytes, 8));
    }
    if (far)
        DR_TRY(put(b, e->offset, 8));
done:
    return st;
}

/* The end of a directory of `bytes` at `at`. */
static dr_status put_end(dr_buf *b, uint64_t count, uint64_t at, uint64_t bytes)
{
    const uint64_t few = count < COUNT_MAX ? count : COUNT_MAX;
    dr_status st = DR_OK;

    if (count >= COUNT_MAX || is_wide(at) || is_wide(bytes)) {
        DR_TRY(put(b, END64, 4));
        DR_TRY(put(b, END64_REST, 8));
        DR_TRY(put(b, VERSION64, 2));
        DR_TRY(put(b, VERSION64, 2));
        DR_TRY(put(b, 0, 8)); /* this disk, the directory's */
        DR_TRY(put(b, count, 8));
        DR_TRY(put(b, count, 8));
        DR_TRY(put(b, bytes, 8));
        DR_TRY(put(b, at, 8));
        DR_TRY(put(b, LOCATOR64, 4));
        DR_TRY(put(b, 0, 4));
        DR_TRY(put(b, at + bytes, 8));
        DR_TRY(put(b, 1, 4));
    }
    DR_TRY(put(b, END, 4));
    DR_TRY(put(b, 0, 4));
    DR_TRY(put(b, few, 2));
    DR_TRY(put(b, few, 2));
    DR_TRY(put(b, narrow(bytes), 4));
    DR_TRY(put(b, narrow(at), 4));
    DR_TRY(put(b, 0, 2));
done:
    return st;
}

dr_status dr_zip_open(dr_zip **out, const char *path)
{
    dr_zip *z = dr_calloc(1, sizeof(*z));
    dr_status st = DR_OK;

    *out = z;
    z->w.fd = -1;
    dr_buf_init(&z->head, HEADERS_MAX);
    DR_TRY(dr_writer_open(&z->w, path));
done:
    if (st != DR_OK) {
        dr_zip_close(z);
        *out = NULL;
    }
    return st;
}

static uint32_t crc_of(const dr_zip_part *parts, size_t count)
{
    const size_t piece = (size_t)1 << 30;
    uLong crc = crc32(0, NULL, 0);

    for (size_t i = 0; i < count; i++) {
        const Bytef *p = parts[i].data;
        for (size_t left = parts[i].bytes, n; left > 0; left -= n, p += n) {
            n = left < piece ? left : piece;
            crc = crc32(crc, p, (uInt)n);
        }
    }
    return (uint32_t)crc;
}

dr_status dr_zip_add(dr_zip *z, const char *name, const dr_zip_part *parts, size_t count)
{
    dr_status st = DR_OK;

    if (*name == '\0' || strlen(name) > UINT16_MAX)
        return dr_fail(DR_EUSAGE, "a name of %zu bytes in a zip archive", strlen(name));
    if (z->count == z->room) {
        z->room = 2 * z->room + 16;
        z->list = dr_realloc(z->list, z->room, sizeof(*z->list));
    }
    entry *e = &z->list[z->count++];
    *e = (entry){dr_strdup(name), crc_of(parts, count), 0, dr_writer_at(&z->w)};
    for (size_t i = 0; i < count; i++)
        e->bytes += parts[i].bytes;
    dr_buf_reset(&z->head);
    DR_TRY(put_header(&z->head, e, false));
    DR_TRY(dr_writer_add(&z->w, z->head.data, z->head.len));
    for (size_t i = 0; i < count; i++)
        DR_TRY(dr_writer_add(&z->w, parts[i].data, parts[i].bytes));
done:
    return st;
}

dr_status dr_zip_add_text(dr_zip *z, const char *name, const char *text)
{
    return dr_zip_add(z, name, &(dr_zip_part){text, strlen(text)}, 1);
}

dr_status dr_zip_add_file(dr_zip *z, const char *name, const char *path)
{
    dr_map map = {0};
    dr_status st = DR_OK;

    DR_TRY(dr_map_open(&map, path));
    DR_TRY(dr_zip_add(z, name, &(dr_zip_part){map.data, map.size}, 1));
done:
    dr_map_close(&map);
    return st;
}

dr_status dr_zip_add_tree(dr_zip *z, const char *under, const char *dir)
{
    char **names = NULL;
    size_t count = 0;
    dr_arena a = {0};
    dr_status st = DR_OK;

    DR_TRY(dr_list_dir(&a, dir, &names, &count));
    for (size_t i = 0; i < count; i++) {
        const char *from = dr_path_join(&a, dir, names[i]);
        const char *to = dr_path_join(&a, under, names[i]);
        DR_TRY(dr_is_dir(from) ? dr_zip_add_tree(z, to, from)
                               : dr_zip_add_file(z, to, from));
    }
done:
    dr_arena_release(&a);
    return st;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static dr_status check_names(const dr_zip *z)
{
    const char **names = dr_calloc(z->count + 1, sizeof(*names));
    dr_status st = DR_OK;

    for (size_t i = 0; i < z->count; i++)
        names[i] = z->list[i].name;
    qsort(names, z->count, sizeof(*names), by_name);
    for (size_t i = 1; i < z->count; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            DR_FAIL(DR_EUSAGE, "%s: two entries are called %s", z->w.path, names[i]);
done:
    free(names);
    return st;
}

dr_status dr_zip_finish(dr_zip *z)
{
    const uint64_t at = dr_writer_at(&z->w);
    dr_status st = DR_OK;

    DR_TRY(check_names(z));
    dr_buf_reset(&z->head);
    for (size_t i = 0; i < z->count; i++)
        DR_TRY(put_header(&z->head, &z->list[i], true));
    DR_TRY(put_end(&z->head, z->count, at, z->head.len));
    DR_TRY(dr_writer_add(&z->w, z->head.data, z->head.len));
    DR_TRY(dr_writer_finish(&z->w));
done:
    return st;
}

void dr_zip_close(dr_zip *z)
{
    if (z == NULL)
        return;
    dr_writer_close(&z->w);
    dr_buf_release(&z->head);
    for (size_t i = 0; i < z->count; i++)
        free(z->list[i].name);
    free(z->list);
    free(z);
}
