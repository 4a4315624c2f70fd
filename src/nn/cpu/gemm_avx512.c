/* gemm_avx512.c - product kernels compiled for avx512 with fused multiply-add. */
#define CPU_GEMM_KERNELS cpu_gemm_avx512
#define CPU_GEMM_NAME    "avx512"
#define LANES            16
#define MR               8
#define NRV              2
#include "nn/cpu/gemm_body.inc"
