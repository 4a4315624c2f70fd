/*
 * npu_fixture.h - graphs of fixed shapes in tests: a plain second runner, apart from
 * src/ort/fixed_child.c, and the goldens of transformers that its logits are held against.
 */
#ifndef DRUPE_TESTS_NPU_FIXTURE_H
#define DRUPE_TESTS_NPU_FIXTURE_H

#include "check.h"
#include "core/file.h"
#include "core/json.h"
#include "hf/hf.h"
#include "onnx/onnx.h"
#include "ort/ort.h"

#define GOLDEN DRUPE_SOURCE_DIR "/tests/golden/"

/* input_ids and logits of a golden, borrowed from the mapping. */
typedef struct {
    dr_map map;
    const int32_t *ids;
    const float *logits;
    size_t tokens, vocab;
} npu_golden;

static inline const void *golden_at(const npu_golden *g, const json_t *header, size_t base,
                                    const char *name, size_t *count)
{
    const json_t *at = json_object_get(json_object_get(header, name), "data_offsets");
    size_t from = (size_t)json_integer_value(json_array_get(at, 0));
    size_t to = (size_t)json_integer_value(json_array_get(at, 1));

    *count = (to - from) / 4;
    return g->map.data + base + from;
}

static inline bool golden_open(npu_golden *g, dr_arena *a, const char *name)
{
    const char *path = dr_arena_printf(a, GOLDEN "%s.safetensors", name);
    json_t *header = NULL;
    uint64_t n = 0;
    size_t count = 0;

    *g = (npu_golden){0};
    if (!CHECK_OK(dr_map_open(&g->map, path)))
        return false;
    memcpy(&n, g->map.data, sizeof(n));
    if (!CHECK_OK(dr_json_parse(&header, (const char *)g->map.data + 8, (size_t)n, path)))
        return false;
    g->ids = golden_at(g, header, 8 + (size_t)n, "input_ids", &g->tokens);
    g->logits = golden_at(g, header, 8 + (size_t)n, "logits", &count);
    g->vocab = count / g->tokens;
    json_decref(header);
    return true;
}

/* ---- a runner ---- */

/* The value of a cache input after a run: its last tokens are those of the output's. */
static inline void push_cache(ort_value *in, const ort_value *out)
{
    const bool bytes = in->dtype == DR_DTYPE_U8;
    const int axis = bytes && strstr(in->name, ".key") != NULL ? 3 : 2;
    const size_t size = bytes ? 1 : 4;
    size_t outer = 1, inner = size;

    for (int d = 0; d < axis; d++)
        outer *= (size_t)in->dims[d];
    for (int d = axis + 1; d < 4; d++)
        inner *= (size_t)in->dims[d];
    const size_t tokens = (size_t)in->dims[axis], new_tokens = (size_t)out->dims[axis];
    unsigned char *past = in->data;
    for (size_t o = 0; o < outer; o++) {
        for (size_t t = 0; t < tokens; t++) {
            /* token t of the past is token t + new of past and new */
            size_t from = bytes ? t + new_tokens : new_tokens - tokens + t;
            const unsigned char *src =
                bytes && from < tokens
                    ? past + (o * tokens + from) * inner
                    : (const unsigned char *)out->data +
                          (o * new_tokens + (bytes ? from - tokens : from)) * inner;
            memmove(past + (o * tokens + t) * inner, src, inner);
        }
    }
}

/* Logits [count][vocab] of a graph, window after window; false: something failed. */
static inline bool fixed_logits(dr_arena *a, float *logits, const char *path,
                                const int32_t *ids, size_t count, size_t vocab)
{
    static const char *const names[] = {"input_ids", "attention_mask", "position_ids"};
    ort_session *s = NULL;
    bool optional = false, ok = true;

    if (!CHECK_OK(ort_session_open(&s, path, 1, false)))
        return false;
    const size_t n = ort_session_input_count(s);
    ort_value *in = dr_arena_alloc(a, n, sizeof(*in));
    ort_value *out = dr_arena_alloc(a, n, sizeof(*out));
    const char **out_names = dr_arena_alloc(a, n, sizeof(*out_names));
    out_names[0] = "logits";
    for (size_t i = 0; i < n; i++) {
        ok = ok && CHECK_OK(ort_session_input(s, i, &in[i], &optional));
        in[i].bytes = dr_dtype_bytes(in[i].dtype);
        for (int d = 0; d < in[i].ndim; d++)
            in[i].bytes *= (size_t)in[i].dims[d];
        in[i].data = dr_arena_alloc(a, in[i].bytes, 1);
        if (i < 3)
            ok = ok && CHECK_STR(in[i].name, names[i]);
        else
            out_names[i - 2] =
                dr_arena_printf(a, "present%s", in[i].name + strlen("past_key_values"));
    }
    const size_t seq = (size_t)in[0].dims[1], total = (size_t)in[1].dims[1];
    for (size_t at = 0; ok && at < count; at += seq) {
        for (size_t i = 0; i < total; i++) {
            int64_t mask = i + at + seq >= total,
                    values[3] = {i < seq ? ids[at + i] : 0, mask, (int64_t)(at + i)};
            for (size_t k = 0; k < 3; k++) {
                if (k != 1 && i >= seq)
                    continue;
                if (in[k].dtype == DR_DTYPE_I64)
                    ((int64_t *)in[k].data)[i] = values[k];
                else
                    ((int32_t *)in[k].data)[i] = (int32_t)values[k];
            }
        }
        ok = CHECK_OK(ort_session_run(s, in, n, out_names, out, n - 2));
        if (!ok)
            break;
        memcpy(logits + at * vocab, out[0].data, seq * vocab * sizeof(float));
        for (size_t i = 3; i < n; i++)
            push_cache(&in[i], &out[i - 2]);
        ort_values_release(out, n - 2);
    }
    ort_session_close(s);
    return ok;
}

static inline double farthest(const float *a, const float *b, size_t n)
{
    double worst = 0;

    for (size_t i = 0; i < n; i++)
        worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
    return worst;
}

/* Root mean square of the difference, as a part of b's own. */
static inline double off(const float *a, const float *b, size_t n)
{
    double d = 0, all = 0;

    for (size_t i = 0; i < n; i++) {
        d += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        all += (double)b[i] * (double)b[i];
    }
    return sqrt(d / all);
}

#endif
