/*
 * nn_check.h - what nn's tests share: devices of every kind at 1, 2 and 3 threads, random
 * arrays, the comparison of an operation on all of them, and safetensors goldens.
 */
#ifndef DRUPE_TESTS_UNIT_NN_NN_CHECK_H
#define DRUPE_TESTS_UNIT_NN_NN_CHECK_H

#include <float.h>

#include "check.h"
#include "core/dtype.h"
#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/rng.h"
#include "nn/nn.h"

enum { NN_KINDS = 6, NN_THREADS = 3, NN_CUDA = 5 };

#define NN_TOL(op, limit) static const double tol_##op __attribute__((unused)) = limit;
#include "nn/tol.def"
#undef NN_TOL

typedef struct {
    nn_device *ref;
    nn_device *dev[NN_KINDS][NN_THREADS]; /* NULL: this processor has no such kind */
} nn_devices;

static const char *const nn_kinds[NN_KINDS] __attribute__((unused)) = {
    "cpu", "cpu:avx512", "cpu:avx2", "cpu:plain", "cpu:tiles", "cuda"};

__attribute__((unused)) static void nn_devices_open(nn_devices *d)
{
    *d = (nn_devices){0};
    CHECK_OK(nn_device_open(&d->ref, "ref", 1));
    for (int k = 0; k < NN_KINDS; k++)
        for (int t = 0; t < NN_THREADS; t++)
            if (nn_device_open(&d->dev[k][t], nn_kinds[k], t + 1) != DR_OK &&
                k == NN_CUDA && t == 0)
                SKIP("gpu: none to use");
}

__attribute__((unused)) static void nn_devices_close(nn_devices *d)
{
    nn_device_close(d->ref);
    for (int k = 0; k < NN_KINDS; k++)
        for (int t = 0; t < NN_THREADS; t++)
            nn_device_close(d->dev[k][t]);
}

/* The same array, writable: for what a test made itself. */
__attribute__((unused)) static float *nn_writable(const float *p)
{
    union {
        const float *in;
        float *out;
    } u = {.in = p};

    return u.out;
}

/* Heap floats, normally distributed. */
__attribute__((unused)) static float *nn_random(size_t count, uint64_t stream, float scale)
{
    float *x = dr_calloc(count + 1, sizeof(*x));
    dr_rng r;

    dr_rng_init(&r, 7, stream);
    for (size_t i = 0; i < count; i++)
        x[i] = scale * dr_rng_normal(&r);
    return x;
}

/* The value that a bf16 has room for: ties to even, as the GPU rounds. */
__attribute__((unused)) static float nn_rounded(float x)
{
    return dr_bf16_to_f32(dr_f32_to_bf16(x));
}

/* Largest difference over the largest value of b; NaN counts as infinitely far. */
__attribute__((unused)) static double nn_far(const float *a, const float *b, size_t count)
{
    double diff = 0.0, top = (double)FLT_MIN;

    for (size_t i = 0; i < count; i++) {
        double e = fabs((double)a[i] - (double)b[i]);
        if (!(e <= DBL_MAX))
            return (double)INFINITY;
        diff = e > diff ? e : diff;
        top = fmax(top, fabs((double)b[i]));
    }
    return diff / top;
}

/*
 * Runs fn on ref and on all devices, the result starting as a copy of init (NULL: NaN, so
 * that what is left unwritten shows).  Every device must be within tol of ref; 1, 2 and 3
 * threads (of cuda: three devices), avx512 and avx2, and a second run must give the same
 * bytes.
 */
typedef dr_status (*nn_case_fn)(nn_device *dev, float *out, const void *ctx);

__attribute__((unused)) static bool nn_check_op(const nn_devices *d, const char *what,
                                                nn_case_fn fn, const void *ctx,
                                                size_t count, const float *init, double tol)
{
    float *want = dr_calloc(count, sizeof(float)), *got = dr_calloc(count, sizeof(float));
    float *first = dr_calloc(count, sizeof(float)),
          *start = dr_calloc(count, sizeof(float));
    size_t failed = check_failed;

    for (size_t i = 0; i < count; i++)
        start[i] = init != NULL ? init[i] : NAN;
    memcpy(want, start, count * sizeof(float));
    CHECK_OK(fn(d->ref, want, ctx));
    for (int k = 0; k < NN_KINDS; k++) {
        for (int t = 0; t < NN_THREADS && d->dev[k][t] != NULL; t++) {
            for (int again = 0; again < (t == 1 ? 2 : 1); again++) {
                memcpy(got, start, count * sizeof(float));
                CHECK_OK(fn(d->dev[k][t], got, ctx));
                if (t > 0 || k == 2)
                    CHECK_MEM(got, first, count * sizeof(float));
            }
            if (t == 0 && k != 2)
                memcpy(first, got, count * sizeof(float));
            if (t == 0)
                CHECK_NEAR(nn_far(got, want, count), 0.0, tol);
        }
    }
    if (check_failed > failed)
        (void)printf("  in: %s\n", what);
    free(want);
    free(got);
    free(first);
    free(start);
    return check_failed == failed;
}

/* fn for heads of each of dims: all keys with half of a head rotated, a window, and that
 * with documents of 70, 30 and 50 tokens and a cap. */
typedef void (*nn_heads_fn)(nn_device *ref, nn_device *dev, nn_attn_shape s);

__attribute__((unused)) static void nn_check_heads(nn_device *ref, nn_device *dev,
                                                   nn_heads_fn fn, const size_t *dims,
                                                   size_t count)
{
    uint32_t starts[2 * 150];

    for (uint32_t i = 0; i < 300; i++)
        starts[i] = i % 150 < 70 ? 0 : i % 150 < 100 ? 70 : 100;
    for (size_t i = 0; i < count; i++) {
        nn_attn_shape s = {.b = 2, .t = 150, .heads = 4, .kv_heads = 2};
        s.head_dim = dims[i];
        s.rotary_dim = dims[i] / 4 * 2;
        fn(ref, dev, s);
        s.window = 40;
        s.rotary_dim = dims[i];
        fn(ref, dev, s);
        s.starts = starts;
        s.softcap = 5.0f;
        fn(ref, dev, s);
    }
}

/* ---- goldens: one safetensors file, float and int32 ---- */

typedef struct {
    dr_map map;
    json_t *header;
    const unsigned char *data;
    bool open;
} nn_golden;

__attribute__((unused)) static void nn_golden_close(nn_golden *g)
{
    if (!g->open)
        return;
    json_decref(g->header);
    dr_map_close(&g->map);
    g->open = false;
}

__attribute__((unused)) static bool nn_golden_open(nn_golden *g, const char *name)
{
    char path[4096];
    uint64_t n = 0;

    *g = (nn_golden){0};
    (void)snprintf(path, sizeof(path), "%s/tests/golden/%s", DRUPE_SOURCE_DIR, name);
    if (!dr_is_file(path)) {
        SKIP(path);
        return false;
    }
    if (!CHECK_OK(dr_map_open(&g->map, path)))
        return false;
    memcpy(&n, g->map.data, sizeof(n));
    if (!CHECK(n < g->map.size) ||
        !CHECK_OK(
            dr_json_parse(&g->header, (const char *)g->map.data + 8, (size_t)n, path))) {
        dr_map_close(&g->map);
        return false;
    }
    g->data = g->map.data + 8 + n;
    g->open = true;
    return true;
}

/* The tensor's bytes and element count; a missing one is a failure and NULL. */
__attribute__((unused)) static const void *nn_golden_get(const nn_golden *g,
                                                         const char *name, size_t *count)
{
    const json_t *t = json_object_get(g->header, name);
    const json_t *at = json_object_get(t, "data_offsets");

    if (!CHECK(t != NULL)) {
        (void)printf("  %s\n", name);
        return NULL;
    }
    size_t from = (size_t)json_integer_value(json_array_get(at, 0));
    size_t to = (size_t)json_integer_value(json_array_get(at, 1));
    *count = (to - from) / 4;
    return g->data + from;
}

#endif
