/*
 * square.h - four rows of four words turned into columns, in vectors of 16 bytes: the step
 * by which matrices are transposed.  Words are moved and not looked at: they may be of any
 * type.
 */
#ifndef DRUPE_CORE_SQUARE_H
#define DRUPE_CORE_SQUARE_H

#include <stddef.h>

typedef float dr_vec4 __attribute__((vector_size(16)));
/* In memory, wherever words may lie. */
typedef float dr_vec4_any __attribute__((vector_size(16), aligned(4), may_alias));

typedef struct {
    dr_vec4 row[4];
} dr_square;

/* The columns of the square at `from`, whose rows are ld words apart. */
static inline __attribute__((always_inline)) dr_square dr_square_turned(const void *from,
                                                                        size_t ld)
{
    const float *f = from;
    dr_vec4 r0 = *(const dr_vec4_any *)f, r1 = *(const dr_vec4_any *)(f + ld);
    dr_vec4 r2 = *(const dr_vec4_any *)(f + 2 * ld),
            r3 = *(const dr_vec4_any *)(f + 3 * ld);
    dr_vec4 a = __builtin_shufflevector(r0, r1, 0, 4, 1, 5);
    dr_vec4 b = __builtin_shufflevector(r2, r3, 0, 4, 1, 5);
    dr_vec4 d = __builtin_shufflevector(r0, r1, 2, 6, 3, 7);
    dr_vec4 e = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);

    return (dr_square){{__builtin_shufflevector(a, b, 0, 1, 4, 5),
                        __builtin_shufflevector(a, b, 2, 3, 6, 7),
                        __builtin_shufflevector(d, e, 0, 1, 4, 5),
                        __builtin_shufflevector(d, e, 2, 3, 6, 7)}};
}

/* The same, written to `to`, whose rows are ldt words apart. */
static inline __attribute__((always_inline)) void
dr_square_turn(void *to, size_t ldt, const void *from, size_t ld)
{
    const dr_square s = dr_square_turned(from, ld);
    float *t = to;

    for (int i = 0; i < 4; i++, t += ldt)
        *(dr_vec4_any *)t = s.row[i];
}

#endif
