/*
 * dummy.c - inputs for a graph that is only to run.
 *
 * They know the names that exporters give to symbolic dims: a batch of 1, so many tokens,
 * nothing in the cache; masks and floats are ones, positions count up, other integers are
 * zeros (a valid token).
 */
#include <string.h>

#include "core/mem.h"
#include "ort/session_impl.h"

static bool has(const char *text, const char *part)
{
    return strstr(text, part) != NULL;
}

static void fill_ints(ort_value *v, bool count_up, int64_t value)
{
    const size_t n = v->bytes / dr_dtype_bytes(v->dtype);

    for (size_t i = 0; i < n; i++) {
        int64_t x = count_up ? (int64_t)i : value;
        if (v->dtype == DR_DTYPE_I64)
            ((int64_t *)v->data)[i] = x;
        else if (v->dtype == DR_DTYPE_I32)
            ((int32_t *)v->data)[i] = (int32_t)x;
        else if (v->dtype == DR_DTYPE_I16)
            ((int16_t *)v->data)[i] = (int16_t)x;
        else
            ((int8_t *)v->data)[i] = (int8_t)x;
    }
}

static void fill_floats(ort_value *v)
{
    const size_t size = dr_dtype_bytes(v->dtype);
    const float one = 1.0F;
    char *at = v->data;

    for (size_t i = 0; i < v->bytes; i += size)
        dr_from_f32(at + i, &one, v->dtype, 1);
}

dr_status session_dummy(dr_arena *a, ort_value *v, const ort_session *s, size_t i,
                        int64_t tokens)
{
    bool optional = false;
    dr_status st = DR_OK;

    DR_TRY(ort_session_input(s, i, v, &optional));
    v->bytes = dr_dtype_bytes(v->dtype);
    for (int d = 0; d < v->ndim; d++) {
        if (v->dims[d] < 0)
            v->dims[d] =
                session_symbol_dim(v->name, session_input_symbol(s, i, d), d, tokens);
        if (!dr_mul(&v->bytes, v->bytes, (size_t)v->dims[d]))
            DR_FAIL(DR_EFORMAT, "input %s: its size overflows", v->name);
    }
    DR_TRY(dr_arena_big(a, &v->data, v->bytes, 1, v->name));
    if (dr_dtype_is_float(v->dtype))
        fill_floats(v);
    else
        fill_ints(v, has(v->name, "position"), has(v->name, "mask"));
done:
    return st;
}
