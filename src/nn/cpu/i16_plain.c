/* i16_plain.c - integer product kernels for any machine; SSE2 is part of x86-64. */
#include <stdint.h>
#ifdef __SSE2__
#    include <emmintrin.h>
#endif

#define CPU_I16_KERNELS cpu_i16_plain
#define LANES           4
#define MR              4
#define NRV             2

typedef int32_t vec_i __attribute__((vector_size(16)));

static inline vec_i dot2(vec_i sum, int32_t a, vec_i b)
{
#ifdef __SSE2__
    return sum + (vec_i)_mm_madd_epi16(_mm_set1_epi32(a), (__m128i)b);
#else
    return sum + (int32_t)(int16_t)a * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
#endif
}

#include "nn/cpu/i16_body.inc"
