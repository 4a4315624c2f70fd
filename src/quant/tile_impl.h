/*
 * tile_impl.h - the attribute that compiles a loop over lanes for wider vectors too; what
 * it does to one lane is in nn_grid.h.
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

#endif
