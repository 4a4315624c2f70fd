/*
 * product.cu - floats as bf16 terms laid side by side, so that one product of the tensor
 * cores has the products of all pairs of terms that count.
 */
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "nn/cuda/cuda_kernels.h"

enum { THREADS = 128, EACH = 4, ROWS_MAX = 32768 };

__global__ static void split_planes(uint16_t *out, cu_planes p, const float *src)
{
    size_t c = ((size_t)blockIdx.x * THREADS + threadIdx.x) * EACH;
    bool wide =
        p.lds % EACH == 0 && (size_t)src % sizeof(float4) == 0 && c + EACH <= p.cols;

    if (c >= p.wide)
        return;
    for (size_t r = blockIdx.y; r < p.high; r += gridDim.y) {
        float v[EACH] = {};
        uint2 term[3];
        const float *from = src + r * p.lds + c;
        if (r < p.rows && wide)
            *(float4 *)v = *(const float4 *)from;
        else
            for (int i = 0; i < EACH; i++)
                v[i] = r < p.rows && c + i < p.cols ? from[i] : 0.0f;
#pragma unroll
        for (int t = 0; t < 3; t++) {
            __nv_bfloat162 lo = __floats2bfloat162_rn(v[0], v[1]),
                           hi = __floats2bfloat162_rn(v[2], v[3]);
            term[t] = make_uint2(*(unsigned *)&lo, *(unsigned *)&hi);
            v[0] -= __bfloat162float(lo.x), v[1] -= __bfloat162float(lo.y);
            v[2] -= __bfloat162float(hi.x), v[3] -= __bfloat162float(hi.y);
        }
        for (int i = 0; i < p.count; i++) {
            int t = p.terms >> 2 * i & 3;
            *(uint2 *)(out + i * p.plane + r * p.ldo + c) = t == 0   ? term[0]
                                                            : t == 1 ? term[1]
                                                                     : term[2];
        }
    }
}

int cu_split_planes(cu_stream s, uint16_t *out, const cu_planes *p, const float *src)
{
    dim3 grid((unsigned)((p->wide / EACH + THREADS - 1) / THREADS),
              (unsigned)(p->high < ROWS_MAX ? p->high : ROWS_MAX));

    split_planes<<<grid, THREADS, 0, s>>>(out, *p, src);
    return cudaGetLastError();
}
