/*
 * packing.c - rows side by side in blocks, none cut in two: each goes into the first of the
 * last OPEN blocks that has room for it, else into a new one.  So a block holds rows that
 * stand near each other, and what stays empty is small.
 */
#include <stdlib.h>

#include "core/mem.h"
#include "data/row_impl.h"

enum { OPEN = 64 };

size_t data_pack(data_place *out, const size_t *lengths, size_t rows, size_t seq_len,
                 size_t most)
{
    size_t *used = dr_calloc(rows + 1, sizeof(*used)), blocks = 0;

    for (size_t i = 0; i < rows; i++) {
        size_t n = lengths[i] < seq_len ? lengths[i] : seq_len;
        size_t b = blocks > OPEN ? blocks - OPEN : 0;
        out[i] = (data_place){SIZE_MAX, 0};
        if (n == 0)
            continue;
        while (b < blocks && used[b] + n > seq_len)
            b++;
        if (b == blocks && most > 0 && blocks == most)
            continue;
        blocks += b == blocks;
        out[i] = (data_place){b, used[b]};
        used[b] += n;
    }
    free(used);
    return blocks;
}
