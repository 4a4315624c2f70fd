/* i8_amx.c - integer product kernels compiled for AMX's tile registers, with AVX-512. */
#include <stdint.h>

#include "nn/cpu/amx.h"

#define CPU_I8_KERNELS cpu_i8_amx
#define CPU_I8_TILES
#define LANES 16
#define MR    32
#define NRV   2

typedef int32_t vec_i __attribute__((vector_size(64)));

#include "nn/cpu/i8_body.inc"
