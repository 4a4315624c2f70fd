/*
 * gemm_pack.c - panels: the order in which a kernel reads its operands.
 */
#include <string.h>

#include "nn/cpu/cpu_impl.h"

void cpu_pack_rows(const cpu_gemm_kernels *k, float *panel, size_t w, const float *src,
                   size_t ld, size_t count, size_t kc, float scale)
{
    if (count < w)
        memset(panel, 0, kc * w * sizeof(*panel));
    k->transpose(panel, w, src, ld, count, kc, scale);
}

void cpu_pack_cols(float *panel, size_t w, const float *src, size_t ld, size_t count,
                   size_t kc)
{
    for (size_t i = 0; i < kc; i++, panel += w, src += ld) {
        memcpy(panel, src, count * sizeof(*panel));
        if (count < w)
            memset(panel + count, 0, (w - count) * sizeof(*panel));
    }
}
