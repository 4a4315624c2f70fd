/* rows_plain.c - row kernels for every machine: vectors of 4, as SSE2 and NEON have. */
#define CPU_ROW_KERNELS cpu_rows_plain
#define LANES           4
#include "nn/cpu/rows_body.inc"
