/* gemm_avx2.c - product kernels compiled for avx2 with fused multiply-add. */
#define CPU_GEMM_KERNELS cpu_gemm_avx2
#define CPU_GEMM_NAME    "avx2"
#define LANES            8
#define MR               6
#define NRV              2
#include "nn/cpu/gemm_body.inc"
