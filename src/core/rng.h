/*
 * rng.h - random numbers by counter: Philox 4x32-10 (Salmon et al. 2011).  A stream is a
 * (seed, stream) pair; the i-th number of a stream does not depend on who asks, so results
 * are the same for any number of threads.
 */
#ifndef DRUPE_CORE_RNG_H
#define DRUPE_CORE_RNG_H

#include <stddef.h>
#include <stdint.h>

/* The i-th block of four numbers of a stream. */
void dr_philox(uint32_t out[4], uint64_t seed, uint64_t stream, uint64_t i);

typedef struct {
    uint64_t seed, stream, at;
    uint32_t have[4];
    int left;
} dr_rng;

void dr_rng_init(dr_rng *r, uint64_t seed, uint64_t stream);
uint32_t dr_rng_u32(dr_rng *r);
uint64_t dr_rng_below(dr_rng *r, uint64_t n); /* unbiased, n > 0 */
float dr_rng_uniform(dr_rng *r);              /* [0, 1), 24 bits */
float dr_rng_normal(dr_rng *r);               /* mean 0, variance 1 (Box-Muller) */

#endif
