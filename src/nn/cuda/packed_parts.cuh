/*
 * packed_parts.cuh - what packed.cu and halves.cu share.
 */
#ifndef DRUPE_NN_CUDA_PACKED_PARTS_CUH
#define DRUPE_NN_CUDA_PACKED_PARTS_CUH

#include "nn/cuda/cuda_kernels.h"

/* The zero point of a block of row. */
__device__ static int cu_zero_of(const cu_packed *q, size_t row, size_t block)
{
    size_t bit = block * (size_t)q->bits;

    if (q->zeros == NULL)
        return 1 << (q->bits - 1);
    return q->zeros[row * q->zero_bytes + bit / 8] >> bit % 8 & ((1 << q->bits) - 1);
}

#endif
