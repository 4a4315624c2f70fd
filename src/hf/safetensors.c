/*
 * safetensors.c - reading one safetensors file.
 *
 * The file is mapped and the tensors are views into it; nothing is copied.  A header is
 * input from strangers: every number in it is checked against the file before it is used.
 *
 * What must hold of a file, as the reference reader demands it:
 *   1. the header fits the file and is at most 100 MB;
 *   2. each tensor's bytes are its shape times its element size;
 *   3. sorted by offset, each tensor begins where the one before ended, the first at 0 and
 *      the last at the end of the file.
 */
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "core/mem.h"
#include "hf/st_impl.h"

/* A tensor with where its data begins, for the sort. */
struct placed {
    dr_tensor t;
    uint64_t begin, end;
    size_t order;
};

static int by_offset(const void *a, const void *b)
{
    const struct placed *p = a, *q = b;

    if (p->begin != q->begin)
        return p->begin < q->begin ? -1 : 1;
    if (p->end != q->end)
        return p->end < q->end ? -1 : 1; /* empty tensors first */
    return p->order < q->order ? -1 : 1;
}

static dr_status header_size(size_t *out, const dr_map *map, const char *where)
{
    uint64_t n = 0;

    if (map->size < 8)
        return dr_fail(DR_EFORMAT, "%s: %zu bytes are no safetensors file", where,
                       map->size);
    for (int i = 7; i >= 0; i--)
        n = n << 8 | map->data[i];
    if (n > HF_ST_HEADER_MAX)
        return dr_fail(DR_EFORMAT, "%s: header of %llu bytes, more than the %zu allowed",
                       where, (unsigned long long)n, HF_ST_HEADER_MAX);
    if (n > map->size - 8)
        return dr_fail(DR_EFORMAT, "%s: header of %llu bytes in a file of %zu: cut short",
                       where, (unsigned long long)n, map->size);
    *out = (size_t)n;
    return DR_OK;
}

static dr_status parse_shape(dr_tensor *t, const json_t *shape, const char *where)
{
    size_t bytes = dr_dtype_bytes(t->dtype);

    if (!json_is_array(shape))
        return dr_fail(DR_EFORMAT, "%s: %s: shape: expected an array, found %s", where,
                       t->name, dr_json_type(shape));
    if (json_array_size(shape) > DR_TENSOR_DIMS)
        return dr_fail(DR_EUNSUPPORTED, "%s: %s: %zu dimensions, more than %d", where,
                       t->name, json_array_size(shape), DR_TENSOR_DIMS);
    t->ndim = (int)json_array_size(shape);
    for (int i = 0; i < t->ndim; i++) {
        const json_t *v = json_array_get(shape, (size_t)i);
        if (!json_is_integer(v) || json_integer_value(v) < 0)
            return dr_fail(DR_EFORMAT, "%s: %s: shape: dimension %d is no size", where,
                           t->name, i);
        t->dims[i] = json_integer_value(v);
    }
    /* A zero makes the product zero whatever the rest: taken first, so that it cannot hide
     * behind an overflow. */
    for (int i = 0; i < t->ndim; i++)
        bytes = t->dims[i] == 0 ? 0 : bytes;
    for (int i = 0; i < t->ndim && bytes > 0; i++) {
        if (!dr_mul(&bytes, bytes, (size_t)t->dims[i]))
            return dr_fail(DR_EFORMAT, "%s: %s: shape: the size overflows", where, t->name);
    }
    t->bytes = bytes;
    return DR_OK;
}

static dr_status parse_offsets(struct placed *p, const json_t *o, size_t data_bytes,
                               const char *where)
{
    const json_t *list = json_object_get(o, "data_offsets");
    const json_t *b = json_array_get(list, 0), *e = json_array_get(list, 1);

    if (json_array_size(list) != 2 || !json_is_integer(b) || !json_is_integer(e) ||
        json_integer_value(b) < 0 || json_integer_value(e) < json_integer_value(b))
        return dr_fail(DR_EFORMAT, "%s: %s: data_offsets: expected [begin, end]", where,
                       p->t.name);
    p->begin = (uint64_t)json_integer_value(b);
    p->end = (uint64_t)json_integer_value(e);
    if (p->end > data_bytes)
        return dr_fail(DR_EFORMAT, "%s: %s: data ends at %llu, the file has %zu: cut short",
                       where, p->t.name, (unsigned long long)p->end, data_bytes);
    if (p->end - p->begin != p->t.bytes)
        return dr_fail(DR_EFORMAT, "%s: %s: %llu bytes of data for a shape of %zu", where,
                       p->t.name, (unsigned long long)(p->end - p->begin), p->t.bytes);
    return DR_OK;
}

static dr_status parse_tensor(struct placed *p, const json_t *o, size_t data_bytes,
                              const char *where)
{
    const char *dtype = NULL;
    dr_status st = DR_OK;

    if (!json_is_object(o))
        DR_FAIL(DR_EFORMAT, "%s: %s: expected an object, found %s", where, p->t.name,
                dr_json_type(o));
    DR_TRYF(dr_json_str(o, "dtype", &dtype, where), "tensor %s", p->t.name);
    if (dtype == NULL)
        DR_FAIL(DR_EFORMAT, "%s: %s: dtype is missing", where, p->t.name);
    if (!dr_dtype_parse(&p->t.dtype, dtype))
        DR_FAIL(DR_EUNSUPPORTED, "%s: %s: element type %s is not supported", where,
                p->t.name, dtype);
    DR_TRY(parse_shape(&p->t, json_object_get(o, "shape"), where));
    DR_TRY(parse_offsets(p, o, data_bytes, where));
done:
    return st;
}

static dr_status check_cover(const struct placed *p, size_t n, size_t data_bytes,
                             const char *where)
{
    uint64_t at = 0;

    for (size_t i = 0; i < n; i++) {
        if (p[i].begin < at)
            return dr_fail(DR_EFORMAT, "%s: %s: its data overlaps that of %s", where,
                           p[i].t.name, p[i - 1].t.name);
        if (p[i].begin > at)
            return dr_fail(DR_EFORMAT, "%s: %s: a hole of %llu bytes before its data",
                           where, p[i].t.name, (unsigned long long)(p[i].begin - at));
        at = p[i].end;
    }
    if (at != data_bytes)
        return dr_fail(DR_EFORMAT, "%s: %llu bytes after the last tensor", where,
                       (unsigned long long)(data_bytes - at));
    return DR_OK;
}

dr_status hf_st_parse(dr_arena *a, dr_tensor **tensors, size_t *count, const dr_map *map,
                      const char *where)
{
    struct placed *list = NULL;
    json_t *header = NULL;
    json_error_t err;
    const char *name;
    json_t *value;
    size_t header_bytes = 0, n = 0;
    dr_status st = DR_OK;

    DR_TRY(header_size(&header_bytes, map, where));
    const unsigned char *data = map->data + 8 + header_bytes;
    size_t data_bytes = map->size - 8 - header_bytes;
    header =
        json_loadb((const char *)map->data + 8, header_bytes, JSON_REJECT_DUPLICATES, &err);
    if (header == NULL)
        DR_FAIL(DR_EFORMAT, "%s: header: not JSON: %s", where, err.text);
    if (!json_is_object(header))
        DR_FAIL(DR_EFORMAT, "%s: header: expected an object, found %s", where,
                dr_json_type(header));
    list = dr_calloc(json_object_size(header) + 1, sizeof(*list));
    json_object_foreach(header, name, value)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        list[n].t.name = dr_arena_strdup(a, name);
        list[n].order = n;
        DR_TRY(parse_tensor(&list[n], value, data_bytes, where));
        list[n].t.data = data + list[n].begin;
        n++;
    }
    qsort(list, n, sizeof(*list), by_offset);
    DR_TRY(check_cover(list, n, data_bytes, where));
    *tensors = dr_arena_alloc(a, n + 1, sizeof(dr_tensor));
    for (size_t i = 0; i < n; i++)
        (*tensors)[i] = list[i].t;
    *count = n;
done:
    json_decref(header);
    free(list);
    return st;
}
