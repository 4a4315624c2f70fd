/*
 * st_golden.h - a safetensors file that another program wrote, by its own small reader: the
 * tensors by name.
 */
#ifndef DRUPE_TESTS_ST_GOLDEN_H
#define DRUPE_TESTS_ST_GOLDEN_H

#include "check.h"
#include "core/file.h"
#include "core/json.h"
#include "core/tensor.h"

typedef struct {
    dr_map map;
    json_t *header;
    const unsigned char *data;
} st_golden;

static inline void st_golden_close(st_golden *g)
{
    json_decref(g->header);
    dr_map_close(&g->map);
    *g = (st_golden){0};
}

static inline bool st_golden_open(st_golden *g, const char *path)
{
    uint64_t n = 0;

    *g = (st_golden){0};
    if (!CHECK_OK(dr_map_open(&g->map, path)))
        return false;
    memcpy(&n, g->map.data, sizeof(n));
    g->data = g->map.data + 8 + n;
    return CHECK(n < g->map.size) &&
           CHECK_OK(dr_json_parse(&g->header, (const char *)g->map.data + 8, n, path));
}

/* The tensor of that name; false: there is none. */
static inline bool st_golden_find(const st_golden *g, const char *name, dr_tensor *out)
{
    const json_t *t = json_object_get(g->header, name), *d;
    const json_t *at = json_object_get(t, "data_offsets");
    size_t i;

    if (t == NULL)
        return false;
    size_t from = (size_t)json_integer_value(json_array_get(at, 0));
    *out = (dr_tensor){.name = name, .data = g->data + from};
    out->bytes = (size_t)json_integer_value(json_array_get(at, 1)) - from;
    CHECK(dr_dtype_parse(&out->dtype, json_string_value(json_object_get(t, "dtype"))));
    json_array_foreach(json_object_get(t, "shape"), i, d)
    {
        out->dims[out->ndim++] = json_integer_value(d);
    }
    return true;
}

/* How many tensors have names that begin so. */
static inline size_t st_golden_count(const st_golden *g, const char *prefix)
{
    const char *name;
    json_t *value;
    size_t n = 0;

    json_object_foreach(g->header, name, value)
    {
        n += strncmp(name, prefix, strlen(prefix)) == 0 && value != NULL;
    }
    return n;
}

#endif
