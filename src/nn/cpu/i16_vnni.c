/* i16_vnni.c - integer product kernels compiled for AVX-512 with VNNI. */
#include <immintrin.h>
#include <stdint.h>

#define CPU_I16_KERNELS cpu_i16_vnni
#define LANES           16
#define MR              8
#define NRV             3

typedef int32_t vec_i __attribute__((vector_size(64)));

static inline vec_i dot2(vec_i sum, int32_t a, vec_i b)
{
    return (vec_i)_mm512_dpwssd_epi32((__m512i)sum, _mm512_set1_epi32(a), (__m512i)b);
}

#include "nn/cpu/i16_body.inc"
