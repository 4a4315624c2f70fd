/*
 * grid_parts.cuh - codes on grids (nn_grid.h) where a scale has many weights.
 */
#ifndef DRUPE_NN_CUDA_GRID_PARTS_CUH
#define DRUPE_NN_CUDA_GRID_PARTS_CUH

#include "nn/nn_grid.h"

/* nn_grid_code where by is 1 / scale: the quotient is rounded as a division rounds it. */
__device__ static float code_of(float w, float scale, float by, float zero, float top)
{
    float q = w * by;

    q = fmaf(fmaf(-q, scale, w), by, q);
    return nn_grid_clamp(nn_grid_round(q) + zero, top);
}

#endif
