/* i8_vnni.c - integer product kernels compiled for AVX-512 with VNNI. */
#include <immintrin.h>
#include <stdint.h>

#define CPU_I8_KERNELS cpu_i8_vnni
#define LANES          16
#define MR             8
#define NRV            3

typedef int32_t vec_i __attribute__((vector_size(64)));

static inline vec_i dot4(vec_i sum, int32_t a, vec_i b)
{
    return (vec_i)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)b, _mm512_set1_epi32(a));
}

#include "nn/cpu/i8_body.inc"
