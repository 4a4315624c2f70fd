/* i8_plain.c - integer product kernels for any machine; SSE2 is part of x86-64. */
#include <stdint.h>
#ifdef __SSE2__
#    include <emmintrin.h>
#endif

#define CPU_I8_KERNELS cpu_i8_plain
#define LANES          4
#define MR             4
#define NRV            2

typedef int32_t vec_i __attribute__((vector_size(16)));

static inline vec_i dot4(vec_i sum, int32_t a, vec_i b)
{
#ifdef __SSE2__
    __m128i av = _mm_set1_epi32(a), bv = (__m128i)b;
    __m128i even = _mm_madd_epi16(_mm_srai_epi16(_mm_slli_epi16(av, 8), 8),
                                  _mm_and_si128(bv, _mm_set1_epi16(0xff)));
    __m128i odd = _mm_madd_epi16(_mm_srai_epi16(av, 8), _mm_srli_epi16(bv, 8));

    return sum + (vec_i)even + (vec_i)odd;
#else
    for (int k = 0; k < 32; k += 8)
        sum += (int32_t)(int8_t)(a >> k) * ((b >> k) & 0xff);
    return sum;
#endif
}

#include "nn/cpu/i8_body.inc"
