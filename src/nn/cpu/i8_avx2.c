/* i8_avx2.c - integer product kernels compiled for AVX2. */
#include <immintrin.h>
#include <stdint.h>

#define CPU_I8_KERNELS cpu_i8_avx2
#define LANES          8
#define MR             4
#define NRV            2

typedef int32_t vec_i __attribute__((vector_size(32)));

/* Bytes 0 and 2 as 16 bits, then 1 and 3: maddubs would saturate. */
static inline vec_i dot4(vec_i sum, int32_t a, vec_i b)
{
    __m256i av = _mm256_set1_epi32(a), bv = (__m256i)b;
    __m256i even = _mm256_madd_epi16(_mm256_srai_epi16(_mm256_slli_epi16(av, 8), 8),
                                     _mm256_and_si256(bv, _mm256_set1_epi16(0xff)));
    __m256i odd = _mm256_madd_epi16(_mm256_srai_epi16(av, 8), _mm256_srli_epi16(bv, 8));

    return sum + (vec_i)even + (vec_i)odd;
}

#include "nn/cpu/i8_body.inc"
