/* i16_avx2.c - integer product kernels compiled for AVX2. */
#include <immintrin.h>
#include <stdint.h>

#define CPU_I16_KERNELS cpu_i16_avx2
#define LANES           8
#define MR              4
#define NRV             2

typedef int32_t vec_i __attribute__((vector_size(32)));

static inline vec_i dot2(vec_i sum, int32_t a, vec_i b)
{
    return sum + (vec_i)_mm256_madd_epi16(_mm256_set1_epi32(a), (__m256i)b);
}

#include "nn/cpu/i16_body.inc"
