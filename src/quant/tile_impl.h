/*
 * tile_impl.h - arithmetic on one lane that every vectorised loop of the room inlines, and
 * the attribute that compiles such a loop for wider vectors too.
 *
 * The clones compute the same bytes: the build forbids contraction of a*b+c, and no loop
 * here sums across lanes.
 */
#ifndef DRUPE_QUANT_TILE_IMPL_H
#define DRUPE_QUANT_TILE_IMPL_H

#include <stddef.h> /* __GLIBC__ */

#if defined(__has_feature)
#    if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#        define QUANT_NO_CLONES
#    endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#    define QUANT_NO_CLONES /* resolvers run before the sanitizer's start */
#endif
#if defined(__clang__) && __clang_major__ < 16
#    define QUANT_NO_CLONES /* a clone is not visible to other files there */
#endif

#if defined(__x86_64__) && defined(__GLIBC__) && !defined(QUANT_NO_CLONES)
#    define QUANT_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#    define QUANT_CLONES
#endif
#define QUANT_INLINE static inline __attribute__((always_inline))

/* Half to even, as torch.round: adding 1.5 * 2^23 leaves no bits behind the point.
 * Exact for |x| < 2^22; beyond it is clamped, far outside any code. */
QUANT_INLINE float lane_round(float x)
{
    const float far = 65536.0f, magic = 0x1.8p23f;

    x = x > -far ? x : -far;
    x = x < far ? x : far;
    return (x + magic) - magic;
}

/* The code of one weight. */
QUANT_INLINE float lane_code(float w, float scale, float zero, float top)
{
    float c = lane_round(w / scale) + zero;

    c = c > 0.0f ? c : 0.0f;
    return c < top ? c : top;
}

#endif
