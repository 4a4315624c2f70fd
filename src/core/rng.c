/*
 * rng.c - Philox 4x32-10.
 */
#include "core/rng.h"

#include <math.h>

void dr_philox(uint32_t out[4], uint64_t seed, uint64_t stream, uint64_t i)
{
    uint32_t c[4] = {(uint32_t)i, (uint32_t)(i >> 32), (uint32_t)stream,
                     (uint32_t)(stream >> 32)};
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);

    for (int r = 0; r < 10; r++) {
        uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t n0 = (uint32_t)(b >> 32) ^ c[1] ^ k0, n2 = (uint32_t)(a >> 32) ^ c[3] ^ k1;
        c[0] = n0;
        c[1] = (uint32_t)b;
        c[2] = n2;
        c[3] = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    for (int j = 0; j < 4; j++)
        out[j] = c[j];
}

void dr_rng_init(dr_rng *r, uint64_t seed, uint64_t stream)
{
    *r = (dr_rng){.seed = seed, .stream = stream};
}

uint32_t dr_rng_u32(dr_rng *r)
{
    if (r->left == 0) {
        dr_philox(r->have, r->seed, r->stream, r->at++);
        r->left = 4;
    }
    return r->have[4 - r->left--];
}

uint64_t dr_rng_below(dr_rng *r, uint64_t n)
{
    uint64_t limit = UINT64_MAX - UINT64_MAX % n, v;

    do {
        v = (uint64_t)dr_rng_u32(r) << 32;
        v |= dr_rng_u32(r);
    } while (v >= limit);
    return v % n;
}

float dr_rng_uniform(dr_rng *r)
{
    return (float)(dr_rng_u32(r) >> 8) * 0x1p-24f;
}

float dr_rng_normal(dr_rng *r)
{
    double u = ((double)dr_rng_u32(r) + 1.0) * 0x1p-32, v = (double)dr_rng_u32(r) * 0x1p-32;

    return (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
}
