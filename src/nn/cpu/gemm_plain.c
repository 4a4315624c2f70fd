/* gemm_plain.c - product kernels for every machine: vectors of 4, as SSE2 and NEON have;
 * the tile is as large as the registers allow (32 on 64-bit Arm, else 16). */
#define CPU_GEMM_KERNELS cpu_gemm_plain
#define CPU_GEMM_NAME    "plain"
#define LANES            4
#ifdef __aarch64__
#    define MR  8
#    define NRV 3
#else
#    define MR  4
#    define NRV 2
#endif
#include "nn/cpu/gemm_body.inc"
