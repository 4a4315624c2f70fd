/* rows_avx2.c - row kernels compiled for avx2 (CMakeLists.txt). */
#define CPU_ROW_KERNELS cpu_rows_avx2
#define LANES           8
#include "nn/cpu/rows_body.inc"
