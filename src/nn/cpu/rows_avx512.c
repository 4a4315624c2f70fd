/* rows_avx512.c - row kernels compiled for avx512 (CMakeLists.txt). */
#define CPU_ROW_KERNELS cpu_rows_avx512
#define LANES           16
#include "nn/cpu/rows_body.inc"
