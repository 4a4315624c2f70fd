/*
 * adapter_read.c - .onnx_adapter files that anybody may have written (layout:
 * adapter_file.c).
 *
 * FlatBuffers is offsets: every one of them is looked up inside the file only.  A bad
 * offset reads as 0 and is remembered, so that a walk ends and then fails.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "onnx/onnx.h"

typedef struct {
    const unsigned char *data;
    size_t size;
    bool bad;
} flat;

static uint64_t flat_at(flat *f, size_t at, size_t bytes)
{
    uint64_t v = 0;

    if (at > f->size || bytes > f->size - at) {
        f->bad = true;
        return 0;
    }
    for (size_t i = bytes; i-- > 0;)
        v = v << 8 | f->data[at + i];
    return v;
}

/* Where a table's field lies; 0: it is absent. */
static size_t flat_field(flat *f, size_t table, size_t field)
{
    int32_t back = (int32_t)(uint32_t)flat_at(f, table, 4);
    int64_t vtable = (int64_t)table - back;

    if (vtable < 0 || (size_t)vtable > f->size) {
        f->bad = true;
        return 0;
    }
    if (4 + 2 * field + 2 > flat_at(f, (size_t)vtable, 2))
        return 0;
    size_t offset = (size_t)flat_at(f, (size_t)vtable + 4 + 2 * field, 2);
    return offset ? table + offset : 0;
}

/* A vector's first element and its count; the count is checked against the file. */
static size_t flat_vector(flat *f, size_t at, size_t element_bytes, size_t *count)
{
    *count = 0;
    if (at == 0)
        return 0;
    size_t vector = at + (size_t)flat_at(f, at, 4);
    size_t n = (size_t)flat_at(f, vector, 4);
    if (f->bad || n > (f->size - vector - 4) / element_bytes) {
        f->bad = true;
        return 0;
    }
    *count = n;
    return vector + 4;
}

static dr_status outside(const char *path)
{
    return dr_fail(DR_EFORMAT, "%s: an offset leads out of the file", path);
}

static dr_status find_type(dr_dtype *out, int64_t type, const char *path, const char *name)
{
    for (int t = 0; t < DR_DTYPE_COUNT; t++) {
        if (dr_dtype_onnx((dr_dtype)t) == type) {
            *out = (dr_dtype)t;
            return DR_OK;
        }
    }
    return dr_fail(DR_EUNSUPPORTED, "%s: %s has elements of ONNX type %lld", path, name,
                   (long long)type);
}

/* dims, and that raw_data is as long as they say. */
static dr_status read_dims(dr_tensor *t, flat *f, size_t table, const char *path)
{
    size_t count = 0, n = 1, at = flat_vector(f, flat_field(f, table, 1), 8, &count);
    dr_status st = DR_OK;

    if (f->bad)
        return outside(path);
    if (count > DR_TENSOR_DIMS)
        DR_FAIL(DR_EUNSUPPORTED, "%s: %s has %zu dimensions", path, t->name, count);
    t->ndim = (int)count;
    for (size_t i = 0; i < count; i++) {
        t->dims[i] = (int64_t)flat_at(f, at + 8 * i, 8);
        if (t->dims[i] < 0 || !dr_mul(&n, n, (size_t)t->dims[i]))
            DR_FAIL(DR_EFORMAT, "%s: %s: no size: %lld", path, t->name,
                    (long long)t->dims[i]);
    }
    if (!dr_mul(&n, n, dr_dtype_bytes(t->dtype)) || n != t->bytes)
        DR_FAIL(DR_EFORMAT, "%s: %s: %zu bytes of values, its shape needs %zu", path,
                t->name, t->bytes, n);
done:
    return st;
}

/* A parameter: table {0 name, 1 dims, 2 data_type, 3 raw_data}. */
static dr_status read_parameter(onnx_adapter_file *out, dr_tensor *t, flat *f, size_t table,
                                const char *path)
{
    size_t name_bytes = 0, raw = 0;
    size_t name = flat_vector(f, flat_field(f, table, 0), 1, &name_bytes);
    size_t data = flat_vector(f, flat_field(f, table, 3), 1, &raw);
    size_t type_at = flat_field(f, table, 2);
    int64_t type = type_at ? (int64_t)flat_at(f, type_at, 4) : 0;
    dr_status st = DR_OK;

    if (f->bad)
        return outside(path);
    if (name_bytes == 0 || memchr(f->data + name, 0, name_bytes) != NULL)
        DR_FAIL(DR_EFORMAT, "%s: a value has no name, or a name with a zero in it", path);
    t->name = dr_arena_strndup(&out->arena, (const char *)f->data + name, name_bytes);
    t->data = f->data + data;
    t->bytes = raw;
    DR_TRY(find_type(&t->dtype, type, path, t->name));
    DR_TRY(read_dims(t, f, table, path));
done:
    return st;
}

dr_status onnx_adapter_open(onnx_adapter_file *out, const char *path)
{
    size_t count = 0;
    dr_status st = DR_OK;

    *out = (onnx_adapter_file){0};
    DR_TRY(dr_map_open(&out->map, path));
    flat f = {out->map.data, out->map.size, false};
    if (f.size < 8 || memcmp(f.data + 4, "TORT", 4) != 0)
        DR_FAIL(DR_EFORMAT, "%s: not an adapter of ONNX Runtime: no TORT at byte 4", path);
    size_t root = (size_t)flat_at(&f, 0, 4);
    size_t at = flat_vector(&f, flat_field(&f, root, 3), 4, &count);
    if (f.bad)
        DR_TRY(outside(path));
    out->tensors = dr_arena_alloc(&out->arena, count + 1, sizeof(*out->tensors));
    for (size_t i = 0; i < count; i++) {
        size_t entry = at + 4 * i, table = entry + (size_t)flat_at(&f, entry, 4);
        DR_TRY(read_parameter(out, &out->tensors[i], &f, table, path));
        out->count++;
    }
done:
    if (st != DR_OK)
        onnx_adapter_close(out);
    return st;
}

void onnx_adapter_close(onnx_adapter_file *f)
{
    dr_map_close(&f->map);
    dr_arena_release(&f->arena);
    *f = (onnx_adapter_file){0};
}
