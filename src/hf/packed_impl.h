/*
 * packed_impl.h - bit work shared by unpack.c and pack.c.
 *
 * AWQ's "gemm" format puts eight outputs of one input into a word, in the nibble order 0,
 * 2, 4, 6, 1, 3, 5, 7; drupe keeps the inputs of one output together.  Turning one into the
 * other is a transposition of nibbles, done here for 16 inputs x 8 outputs at a time: the
 * words of inputs i and i + 8 lie side by side in x[i], and both 8 x 8 squares of nibbles
 * are transposed at once.  Words are little-endian, as the file formats and every supported
 * machine have them.
 */
#ifndef DRUPE_HF_PACKED_IMPL_H
#define DRUPE_HF_PACKED_IMPL_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Nibble i of an AWQ word is the code of output hf_awq_order[i] of its eight; it is not its
 * own inverse: output c is in nibble hf_awq_nibble[c]. */
static const int hf_awq_order[8] = {0, 2, 4, 6, 1, 3, 5, 7};
static const int hf_awq_nibble[8] = {0, 4, 1, 5, 2, 6, 3, 7};

/* Swaps the bits of mask in a with those `by` higher in b. */
static inline void hf_swap_bits(uint64_t *a, uint64_t *b, int by, uint64_t mask)
{
    uint64_t t = (*a >> by ^ *b) & mask;

    *b ^= t;
    *a ^= t << by;
}

/* In both halves of the words: nibble j of x[i] changes places with nibble i of x[j]. */
static inline void hf_transpose8(uint64_t x[8])
{
    for (int i = 0; i < 4; i++)
        hf_swap_bits(&x[i], &x[i + 4], 16, 0x0000ffff0000ffffu);
    for (int i = 0; i < 8; i += 4) {
        hf_swap_bits(&x[i], &x[i + 2], 8, 0x00ff00ff00ff00ffu);
        hf_swap_bits(&x[i + 1], &x[i + 3], 8, 0x00ff00ff00ff00ffu);
    }
    for (int i = 0; i < 8; i += 2)
        hf_swap_bits(&x[i], &x[i + 1], 4, 0x0f0f0f0f0f0f0f0fu);
}

static inline uint32_t hf_load32(const unsigned char *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

#endif
