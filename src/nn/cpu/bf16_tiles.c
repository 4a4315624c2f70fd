/* bf16_tiles.c - the same with AMX's instructions in plain C, so that every machine tests
 * them: "cpu:tiles". */
#include "nn/cpu/amx.h"

#define CPU_BF16_KERNELS cpu_bf16_tiles

#include "nn/cpu/bf16_body.inc"
