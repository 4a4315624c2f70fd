/*
 * adapter_npz.c - NumPy's .npz: a zip archive whose members NAME.npy are stored.
 *
 *     local header, name, .npy header, values | ... | central directory | its end
 *
 * A .npy header is "\x93NUMPY", 1, 0, its length, a Python dict as text padded with spaces
 * so that the values begin at a multiple of 64 of the member.  The date is zip's first day:
 * the same values, the same bytes.
 *
 * Source: numpy.lib.format; PKWARE APPNOTE 6.3, sections 4.3.7, 4.3.12 and 4.3.16.
 */
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "core/mem.h"
#include "onnx/adapter_impl.h"

enum {
    LOCAL = 0x04034b50,
    CENTRAL = 0x02014b50,
    END = 0x06054b50,
    VERSION = 20,
    DAY_ONE = 0x21, /* 1980-01-01 */
    MEMBERS_MAX = 65535,
    MAGIC_BYTES = 10 /* of a .npy: magic, version, length of the dict */
};

typedef struct {
    const char *name; /* arena: with .npy */
    const char *header;
    size_t header_bytes;
    uint32_t crc, bytes, offset;
} member;

static dr_status put(dr_buf *b, uint64_t v, size_t bytes)
{
    unsigned char out[8];

    for (size_t i = 0; i < bytes; i++)
        out[i] = (unsigned char)(v >> (8 * i));
    return dr_buf_add(b, out, bytes);
}

static const char *numpy_type(dr_dtype t)
{
    switch (t) {
    case DR_DTYPE_F32:
        return "<f4";
    case DR_DTYPE_F16:
        return "<f2";
    case DR_DTYPE_U8:
        return "|u1";
    case DR_DTYPE_F64:
    case DR_DTYPE_BF16:
    case DR_DTYPE_I8:
    case DR_DTYPE_I16:
    case DR_DTYPE_I32:
    case DR_DTYPE_I64:
    case DR_DTYPE_BOOL:
    case DR_DTYPE_COUNT:
        break;
    }
    return NULL;
}

static dr_status npy_header(dr_arena *a, member *m, const dr_tensor *t, const char *path)
{
    const char *type = numpy_type(t->dtype);
    dr_buf b, dict;
    dr_status st = DR_OK;

    dr_buf_init(&b, 1 << 16);
    dr_buf_init(&dict, 1 << 15);
    if (type == NULL)
        DR_FAIL(DR_EUNSUPPORTED, "%s: NumPy has no type for %s (%s)", path,
                dr_dtype_name(t->dtype), t->name);
    DR_TRY(dr_buf_addf(&dict, "{'descr': '%s', 'fortran_order': False, 'shape': (", type));
    for (int i = 0; i < t->ndim; i++)
        DR_TRY(dr_buf_addf(&dict, "%s%" PRId64, i ? ", " : "", t->dims[i]));
    DR_TRY(dr_buf_adds(&dict, t->ndim == 1 ? ",), }" : "), }"));
    while ((MAGIC_BYTES + dict.len + 1) % 64 != 0)
        DR_TRY(dr_buf_adds(&dict, " "));
    DR_TRY(dr_buf_adds(&dict, "\n"));
    DR_TRY(dr_buf_add(&b, "\x93NUMPY\x01\x00", 8));
    DR_TRY(put(&b, dict.len, 2));
    DR_TRY(dr_buf_add(&b, dict.data, dict.len));
    char *copy = dr_arena_alloc(a, b.len, 1);
    memcpy(copy, b.data, b.len);
    m->header = copy;
    m->header_bytes = b.len;
done:
    dr_buf_release(&b);
    dr_buf_release(&dict);
    return st;
}

static uint32_t crc_of(const member *m, const dr_tensor *t)
{
    uLong crc = crc32(0, (const Bytef *)m->header, (uInt)m->header_bytes);
    const Bytef *p = t->data;

    for (size_t left = t->bytes, n; left > 0; left -= n, p += n) {
        n = left < 1 << 30 ? left : 1 << 30;
        crc = crc32(crc, p, (uInt)n);
    }
    return (uint32_t)crc;
}

/* What a local and a central header have alike, from "version needed" on. */
static dr_status put_common(dr_buf *b, const member *m)
{
    const struct {
        uint64_t v;
        size_t bytes;
    } fields[] = {{VERSION, 2},         {0, 2},      {0, 2},        {0, 2},
                  {DAY_ONE, 2},         {m->crc, 4}, {m->bytes, 4}, {m->bytes, 4},
                  {strlen(m->name), 2}, {0, 2}};
    dr_status st = DR_OK;

    for (size_t i = 0; i < DR_COUNT(fields); i++)
        DR_TRY(put(b, fields[i].v, fields[i].bytes));
done:
    return st;
}

static dr_status put_local(dr_buf *b, const member *m)
{
    dr_status st = DR_OK;

    dr_buf_reset(b);
    DR_TRY(put(b, LOCAL, 4));
    DR_TRY(put_common(b, m));
    DR_TRY(dr_buf_adds(b, m->name));
    DR_TRY(dr_buf_add(b, m->header, m->header_bytes));
done:
    return st;
}

static dr_status put_directory(dr_buf *b, const member *list, size_t count, uint64_t at)
{
    dr_status st = DR_OK;

    dr_buf_reset(b);
    for (size_t i = 0; i < count; i++) {
        DR_TRY(put(b, CENTRAL, 4));
        DR_TRY(put(b, VERSION, 2)); /* made by */
        DR_TRY(put_common(b, &list[i]));
        DR_TRY(put(b, 0, 8)); /* comment's length, disk, both attributes' first half */
        DR_TRY(put(b, 0, 2)); /* the rest of them */
        DR_TRY(put(b, list[i].offset, 4));
        DR_TRY(dr_buf_adds(b, list[i].name));
    }
    size_t bytes = b->len;
    DR_TRY(put(b, END, 4));
    DR_TRY(put(b, 0, 4));
    DR_TRY(put(b, count, 2));
    DR_TRY(put(b, count, 2));
    DR_TRY(put(b, bytes, 4));
    DR_TRY(put(b, at, 4));
    DR_TRY(put(b, 0, 2));
done:
    return st;
}

static dr_status plan(dr_arena *a, member *list, const dr_tensor *tensors, size_t count,
                      const char *path)
{
    uint64_t at = 0;
    dr_status st = DR_OK;

    if (count > MEMBERS_MAX)
        DR_FAIL(DR_EUNSUPPORTED, "%s: %zu values; a zip archive holds %d", path, count,
                MEMBERS_MAX);
    for (size_t i = 0; i < count; i++) {
        member *m = &list[i];
        m->name = dr_arena_printf(a, "%s.npy", tensors[i].name);
        DR_TRY(npy_header(a, m, &tensors[i], path));
        m->offset = (uint32_t)at;
        at += 30 + strlen(m->name) + m->header_bytes + tensors[i].bytes;
        if (at > UINT32_MAX)
            DR_FAIL(DR_EUNSUPPORTED, "%s: past the 4 GiB of a zip archive", path);
        m->bytes = (uint32_t)(m->header_bytes + tensors[i].bytes);
        m->crc = crc_of(m, &tensors[i]);
    }
done:
    return st;
}

dr_status adapter_write_npz(const char *path, const dr_tensor *tensors, size_t count)
{
    dr_arena a = {0};
    dr_writer w = {.fd = -1};
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, (size_t)64 << 20);
    member *list = dr_arena_alloc(&a, count + 1, sizeof(*list));
    DR_TRY(plan(&a, list, tensors, count, path));
    DR_TRY(dr_writer_open(&w, path));
    for (size_t i = 0; i < count; i++) {
        DR_TRY(put_local(&b, &list[i]));
        DR_TRY(dr_writer_add(&w, b.data, b.len));
        DR_TRY(dr_writer_add(&w, tensors[i].data, tensors[i].bytes));
    }
    uint64_t at = dr_writer_at(&w);
    if (at > UINT32_MAX)
        DR_FAIL(DR_EUNSUPPORTED, "%s: past the 4 GiB of a zip archive", path);
    DR_TRY(put_directory(&b, list, count, at));
    DR_TRY(dr_writer_add(&w, b.data, b.len));
    DR_TRY(dr_writer_finish(&w));
done:
    dr_writer_close(&w);
    dr_buf_release(&b);
    dr_arena_release(&a);
    return st;
}
