/*
 * mma_parts.cuh - the tensor cores' product of bf16 (mma m16n8k16), its operands from
 * shared memory, and how they come there (cp.async).
 */
#ifndef DRUPE_NN_CUDA_MMA_PARTS_CUH
#define DRUPE_NN_CUDA_MMA_PARTS_CUH

#include <cuda_bf16.h>

typedef __nv_bfloat16 half16;

/* Over the four lanes that share a row of a product. */
__device__ [[maybe_unused]] static float across(float v, bool max)
{
    for (int i = 1; i < 4; i *= 2) {
        float o = __shfl_xor_sync(0xffffffffu, v, i);
        v = max ? fmaxf(v, o) : v + o;
    }
    return v;
}

__device__ static unsigned address(const half16 *p)
{
    return (unsigned)__cvta_generic_to_shared(p);
}

/* Of the shared memory at `to` 16 bytes (or 4) from global memory, or zeros. */
__device__ static void send16(unsigned to, const half16 *from, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(from),
                 "r"(there ? 16 : 0));
}

__device__ static void send4(float *to, const float *from, bool there)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;\n" ::"r"(
                     (unsigned)__cvta_generic_to_shared(to)),
                 "l"(from), "r"(there ? 4 : 0));
}

__device__ static void sent(void)
{
    asm volatile("cp.async.commit_group;\n");
}

/* All but the last `behind` that were sent are there, for every thread. */
template <int behind> __device__ static void arrived(void)
{
    asm volatile("cp.async.wait_group %0;\n" ::"n"(behind));
    __syncthreads();
}

__device__ static void multiply(float c[4], const unsigned a[4], unsigned b0, unsigned b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ static void fetch(unsigned v[4], unsigned at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                 : "r"(at));
}

__device__ static void fetch_turned(unsigned v[4], unsigned at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                 : "r"(at));
}

__device__ static unsigned pack(float lo, float hi)
{
    __nv_bfloat162 v = __floats2bfloat162_rn(lo, hi);

    return *(unsigned *)&v;
}

#endif
