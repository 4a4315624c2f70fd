/*
 * cpu.c - the fast backend: picks kernels by what the processor has, holds the workspace.
 *
 * "cpu" takes the best; "cpu:avx512", "cpu:avx2" and "cpu:plain" take those, for tests and
 * comparisons, and fail where the processor lacks them.  "cpu:tiles" runs AMX's kernels
 * with its instructions in plain C.
 *
 * AMX (tile registers, one unit a core) needs the processor's word, the system's (XCR0) and
 * the kernel's leave for the whole process, asked for once.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#    include <cpuid.h>
#endif
#if defined(__linux__)
#    include <sys/syscall.h>
#    include <unistd.h>
#endif

#include "core/mem.h"
#include "nn/cpu/cpu_impl.h"

/* Below this many multiply-adds, waking other threads costs more than it gives. */
enum { WORTH_WAKING = 200000 };

typedef struct {
    const char *name;
    const cpu_gemm_kernels *gemm;
    const cpu_row_kernels *rows;
    const cpu_i8_kernels *i8;
    const cpu_bf16_kernels *bf16;
    bool present;
} variant;

enum { VARIANTS = 5 };

#ifdef CPU_AMX
static bool amx_present(void)
{
    enum { TILE = 1 << 24, INT8 = 1 << 25, BF16 = 1 << 22 };
    enum { OSXSAVE = 1 << 27 };
    enum { TILE_STATES = 3 << 17, REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    const unsigned all = TILE | INT8 | BF16;
    unsigned a = 0, b = 0, c = 0, d = 0;

    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & OSXSAVE))
        return false;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & all) != all)
        return false;
    __asm__("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return (a & TILE_STATES) == TILE_STATES &&
           syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}
#endif

/* Best first; the last is for tests.  Not taken, because they are slower: float products
 * from bfloat16 ones, by AVX-512's instructions or AMX's (tools/kernels/gemm.md). */
static size_t variants(variant out[VARIANTS])
{
    size_t n = 0;

#ifdef __x86_64__
    __builtin_cpu_init();
    bool fma = __builtin_cpu_supports("fma"), avx2 = __builtin_cpu_supports("avx2");
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                  avx2 && fma;
    bool vnni = __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw");
#    ifdef CPU_AMX
    bool vl = __builtin_cpu_supports("avx512vl");
    out[n++] =
        (variant){"amx",       &cpu_gemm_avx512, &cpu_rows_avx512,
                  &cpu_i8_amx, &cpu_bf16_amx,    avx512 && vnni && vl && amx_present()};
#    endif
    out[n++] = (variant){"avx512",
                         &cpu_gemm_avx512,
                         &cpu_rows_avx512,
                         vnni ? &cpu_i8_vnni : &cpu_i8_avx2,
                         NULL,
                         avx512};
    out[n++] =
        (variant){"avx2", &cpu_gemm_avx2, &cpu_rows_avx2, &cpu_i8_avx2, NULL, avx2 && fma};
#endif
    out[n++] =
        (variant){"plain", &cpu_gemm_plain, &cpu_rows_plain, &cpu_i8_plain, NULL, true};
    out[n++] = (variant){"tiles",       &cpu_gemm_plain, &cpu_rows_plain,
                         &cpu_i8_tiles, &cpu_bf16_tiles, true};
    return n;
}

/* "cpu" or "cpu:" and a variant's name. */
static dr_status open_cpu(nn_device *dev)
{
    variant all[VARIANTS];
    size_t count = variants(all), i = 0;
    const char *colon = strchr(dev->backend->name, ':');

    while (i < count &&
           (!all[i].present || (colon != NULL && strcmp(all[i].name, colon + 1) != 0)))
        i++;
    if (i == count)
        return dr_fail(DR_EUNSUPPORTED, "this processor has no %s",
                       colon != NULL ? colon + 1 : "kernels");
    cpu_state *state = dr_calloc(1, sizeof(*state));
    state->gemm = all[i].gemm;
    state->rows = all[i].rows;
    state->i8 = all[i].i8;
    state->bf16 = all[i].bf16;
    dev->rough = &cpu_rough_ops;
    dev->rough_close = state->bf16 != NULL ? &cpu_bf16_ops : NULL;
    dev->state = state;
    size_t len = strlen(dev->text);
    if (colon == NULL)
        (void)snprintf(dev->text + len, sizeof(dev->text) - len, ", %s", all[i].name);
    return DR_OK;
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
    cpu_state *state = cpu_of(dev);

    return nn_room(out, &state->work, &state->work_floats, floats, "workspace of the cpu");
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
    .open = open_cpu,
    .close = close_cpu,
#include "nn/ops.def"
};
const nn_backend nn_backend_cpu_avx512 = {
    .name = "cpu:avx512",
    .open = open_cpu,
    .close = close_cpu,
#include "nn/ops.def"
};
const nn_backend nn_backend_cpu_avx2 = {
    .name = "cpu:avx2",
    .open = open_cpu,
    .close = close_cpu,
#include "nn/ops.def"
};
const nn_backend nn_backend_cpu_plain = {
    .name = "cpu:plain",
    .open = open_cpu,
    .close = close_cpu,
#include "nn/ops.def"
};
const nn_backend nn_backend_cpu_tiles = {
    .name = "cpu:tiles",
    .open = open_cpu,
    .close = close_cpu,
#include "nn/ops.def"
};
#undef NN_OP
