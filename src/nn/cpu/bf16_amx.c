/* bf16_amx.c - kernels of bf16 products compiled for AMX's tile registers, with AVX-512. */
#include "nn/cpu/amx.h"

#define CPU_BF16_KERNELS cpu_bf16_amx

#include "nn/cpu/bf16_body.inc"
