/* i8_tiles.c - the integer product kernels of AMX with its instructions in plain C, so that
 * every machine tests them: "cpu:tiles". */
#include <stdint.h>

#include "nn/cpu/amx.h"

#define CPU_I8_KERNELS cpu_i8_tiles
#define CPU_I8_TILES
#define LANES 4
#define MR    32
#define NRV   8

typedef int32_t vec_i __attribute__((vector_size(16)));

#include "nn/cpu/i8_body.inc"
