/*
 * cpu.c - the fast backend: picks kernels by what the processor has, holds the workspace.
 *
 * "cpu" takes the best; "cpu:avx2" and "cpu:plain" take those, for tests and comparisons,
 * and fail where the processor lacks them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "nn/cpu/cpu_impl.h"

/* Below this many multiply-adds, waking other threads costs more than it gives. */
enum { WORTH_WAKING = 200000 };

typedef struct {
    const cpu_gemm_kernels *gemm;
    const cpu_row_kernels *rows;
    const cpu_i8_kernels *i8;
    bool present;
} variant;

/* Best first. */
static size_t variants(variant out[3])
{
    size_t n = 0;

#ifdef __x86_64__
    __builtin_cpu_init();
    bool fma = __builtin_cpu_supports("fma"), avx2 = __builtin_cpu_supports("avx2");
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq");
    bool vnni = __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw");
    out[n++] = (variant){&cpu_gemm_avx512, &cpu_rows_avx512,
                         vnni ? &cpu_i8_vnni : &cpu_i8_avx2, avx512 && avx2 && fma};
    out[n++] = (variant){&cpu_gemm_avx2, &cpu_rows_avx2, &cpu_i8_avx2, avx2 && fma};
#endif
    out[n++] = (variant){&cpu_gemm_plain, &cpu_rows_plain, &cpu_i8_plain, true};
    return n;
}

/* want NULL: the best that the processor has. */
static dr_status open_as(nn_device *dev, const char *want)
{
    variant all[3];
    size_t count = variants(all), i = 0;

    while (i < count && (!all[i].present || (want && strcmp(all[i].gemm->name, want) != 0)))
        i++;
    if (i == count)
        return dr_fail(DR_EUNSUPPORTED, "this processor has no %s", want);
    cpu_state *state = dr_calloc(1, sizeof(*state));
    state->gemm = all[i].gemm;
    state->rows = all[i].rows;
    state->i8 = all[i].i8;
    dev->state = state;
    size_t len = strlen(dev->text);
    if (want == NULL)
        (void)snprintf(dev->text + len, sizeof(dev->text) - len, ", %s", state->gemm->name);
    return DR_OK;
}

static dr_status open_best(nn_device *dev)
{
    return open_as(dev, NULL);
}

static dr_status open_avx2(nn_device *dev)
{
    return open_as(dev, "avx2");
}

static dr_status open_plain(nn_device *dev)
{
    return open_as(dev, "plain");
}

static void close_cpu(nn_device *dev)
{
    cpu_state *state = dev->state;

    if (state == NULL)
        return;
    dr_big_free(state->work);
    free(state);
}

dr_status cpu_work(nn_device *dev, float **out, size_t floats)
{
    dr_status st = DR_OK;
    cpu_state *state = cpu_of(dev);

    if (floats > state->work_floats) {
        void *p = NULL;
        dr_big_free(state->work);
        state->work = NULL;
        state->work_floats = 0;
        DR_TRY(dr_big_alloc(&p, floats, sizeof(float), "workspace of the cpu"));
        state->work = p;
        state->work_floats = floats;
    }
    *out = state->work;
done:
    return st;
}

dr_status cpu_tasks(nn_device *dev, size_t count, size_t work, dr_task_fn fn, void *ctx)
{
    dr_status st = DR_OK;

    if (work >= WORTH_WAKING)
        return dr_pool_run(dev->pool, count, fn, ctx);
    for (size_t i = 0; i < count && st == DR_OK; i++)
        st = fn(ctx, i, 0);
    return st;
}

#define NN_OP(op, params, args) .op = cpu_##op,
const nn_backend nn_backend_cpu = {
    .name = "cpu",
    .open = open_best,
    .close = close_cpu,
#include "nn/ops.def"
};
const nn_backend nn_backend_cpu_avx2 = {
    .name = "cpu:avx2",
    .open = open_avx2,
    .close = close_cpu,
#include "nn/ops.def"
};
const nn_backend nn_backend_cpu_plain = {
    .name = "cpu:plain",
    .open = open_plain,
    .close = close_cpu,
#include "nn/ops.def"
};
#undef NN_OP
