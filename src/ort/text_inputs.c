/*
 * text_inputs.c - a text as the inputs of a graph: batch 1, an empty cache.
 *
 * Graphs of any shape whose inputs are input_ids, attention_mask, position_ids,
 * token_type_ids and past_key_values.*; others are refused by the input's name.
 */
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "ort/session_impl.h"
#include "ort/text_inputs_impl.h"

enum { EMPTY_MAX = 1 << 20 }; /* an empty cache has none; a wrong guess would */

static bool is_cache(const char *name)
{
    return strncmp(name, "past", 4) == 0;
}

static bool is_known(const char *name)
{
    return strcmp(name, "input_ids") == 0 || strcmp(name, "attention_mask") == 0 ||
           strcmp(name, "position_ids") == 0 || strcmp(name, "token_type_ids") == 0 ||
           is_cache(name);
}

dr_status text_inputs_read(text_inputs *t, dr_arena *a, const ort_session *s,
                           const char *path)
{
    const size_t all = ort_session_input_count(s);
    bool optional = false, ids = false;
    dr_status st = DR_OK;

    *t = (text_inputs){.path = path, .list = dr_arena_alloc(a, all + 1, sizeof(*t->list))};
    for (size_t i = 0; i < all; i++) {
        ort_value *v = &t->list[t->count];
        DR_TRY(ort_session_input(s, i, v, &optional));
        if (optional) /* an adapter's: zeros by default */
            continue;
        if (!is_known(v->name))
            DR_FAIL(DR_EUNSUPPORTED, "%s: input %s is none of a plain decoder's", path,
                    v->name);
        if (!is_cache(v->name) && (v->ndim != 2 || v->dims[1] >= 0))
            DR_FAIL(DR_EUNSUPPORTED,
                    "%s: input %s has a fixed shape; graphs of any length are evaluated",
                    path, v->name);
        if (!is_cache(v->name) && v->dtype != DR_DTYPE_I64 && v->dtype != DR_DTYPE_I32)
            DR_FAIL(DR_EUNSUPPORTED, "%s: input %s is of type %s", path, v->name,
                    dr_dtype_name(v->dtype));
        ids = ids || strcmp(v->name, "input_ids") == 0;
        for (int d = 0; is_cache(v->name) && d < v->ndim; d++)
            if (v->dims[d] < 0)
                v->dims[d] =
                    session_symbol_dim(v->name, session_input_symbol(s, i, d), d, 0);
        t->count++;
    }
    if (!ids)
        DR_FAIL(DR_EUNSUPPORTED, "%s: it has no input_ids: not a decoder", path);
done:
    return st;
}

static void put(ort_value *v, size_t i, int64_t x)
{
    if (v->dtype == DR_DTYPE_I64)
        ((int64_t *)v->data)[i] = x;
    else
        ((int32_t *)v->data)[i] = (int32_t)x;
}

/* Inputs of one run: the ids, ones, 0 1 2 ..., an empty cache. */
dr_status text_inputs_fill(text_inputs *t, dr_arena *a, const ort_text *text)
{
    dr_status st = DR_OK;

    for (size_t i = 0; i < t->count; i++) {
        ort_value *v = &t->list[i];
        const bool ids = strcmp(v->name, "input_ids") == 0;
        const bool mask = strcmp(v->name, "attention_mask") == 0;
        const bool types = strcmp(v->name, "token_type_ids") == 0;
        if (!is_cache(v->name)) {
            v->dims[0] = 1;
            v->dims[1] = (int64_t)text->count;
        }
        v->bytes = dr_dtype_bytes(v->dtype);
        for (int d = 0; d < v->ndim; d++)
            if (!dr_mul(&v->bytes, v->bytes, (size_t)v->dims[d]))
                DR_FAIL(DR_EFORMAT, "%s: input %s: its size overflows", t->path, v->name);
        if (is_cache(v->name) && v->bytes > EMPTY_MAX)
            DR_FAIL(DR_EUNSUPPORTED, "%s: %s cannot be empty", t->path, v->name);
        DR_TRY(dr_arena_big(a, &v->data, v->bytes, 1, v->name));
        for (size_t k = 0; !is_cache(v->name) && k < text->count; k++)
            put(v, k, ids ? text->ids[k] : mask ? 1 : types ? 0 : (int64_t)k);
    }
done:
    return st;
}

dr_status ort_text_ranges(float *least, float *largest, const char *const *names,
                          size_t count, const char *model, const ort_text *texts,
                          size_t text_count, int threads)
{
    dr_arena kept = {0}, a = {0};
    const char **ports = dr_arena_alloc(&kept, 2 * count, sizeof(*ports));
    ort_value *out = dr_arena_alloc(&kept, 2 * count, sizeof(*out));
    ort_session *s = NULL;
    text_inputs in = {0};
    dr_status st = DR_OK;

    for (size_t i = 0; i < 2 * count; i++)
        ports[i] = dr_arena_printf(&kept, "%s.%s", names[i / 2], i % 2 ? "max" : "min");
    DR_TRY(ort_session_open(&s, model, threads, true));
    DR_TRY(text_inputs_read(&in, &kept, s, model));
    for (size_t t = 0; t < text_count; t++) {
        DR_TRY(dr_cancelled_check());
        DR_TRY(text_inputs_fill(&in, &a, &texts[t]));
        DR_TRY(ort_session_run(s, in.list, in.count, ports, out, 2 * count));
        for (size_t i = 0; i < 2 * count; i++) {
            float v = *(const float *)out[i].data, *kept_v = i % 2 ? largest : least;
            bool better = i % 2 ? v > kept_v[i / 2] : v < kept_v[i / 2];
            if (t == 0 || better)
                kept_v[i / 2] = v;
        }
        ort_values_release(out, 2 * count);
        dr_arena_release(&a);
    }
done:
    ort_session_close(s);
    dr_arena_release(&a);
    dr_arena_release(&kept);
    return st;
}
