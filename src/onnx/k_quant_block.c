/*
 * k_quant_block.c - a block to codes by weighted least squares, byte for byte as the model
 * builder's "k_quant" on a CPU.  The line is core's; its zero point -m / s is rounded and
 * clamped, and the block is coded on that grid, in double.
 */
#include <math.h>

#include "core/k_quant.h"
#include "onnx/weight_impl.h"

void onnx_k_quant_block(uint8_t *code, float *scale, int *zero, const float *v, size_t n,
                        int bits)
{
    float scratch[DR_K_QUANT_SCRATCH * ONNX_BLOCK_MAX], lo;
    const float top = (float)((1 << bits) - 1);

    dr_k_quant_fit(scale, &lo, v, n, bits, scratch);
    float z = rintf(-lo / *scale);
    *zero = (int)(z > 0.0f ? z < top ? z : top : 0.0f); /* not a number: 0 */
    for (size_t j = 0; j < n; j++) {
        double q = rint((double)v[j] / (double)*scale + *zero);
        code[j] = (uint8_t)(q < 0 ? 0 : q > (double)top ? (double)top : q);
    }
}
