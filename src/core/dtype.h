/*
 * dtype.h - element types and their conversion to and from float.
 */
#ifndef DRUPE_CORE_DTYPE_H
#define DRUPE_CORE_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

typedef enum {
#define DR_DTYPE(name, st_name, onnx, bytes) DR_DTYPE_##name,
#include "core/dtype.def"
#undef DR_DTYPE
    DR_DTYPE_COUNT
} dr_dtype;

size_t dr_dtype_bytes(dr_dtype t);
const char *dr_dtype_name(dr_dtype t); /* as safetensors writes it: "BF16" */
int dr_dtype_onnx(dr_dtype t);         /* ONNX TensorProto.DataType */
bool dr_dtype_parse(dr_dtype *out, const char *st_name);
bool dr_dtype_is_float(dr_dtype t); /* F32, F16, BF16, F64 */

/* IEEE half and bfloat16, round to nearest even; NaN stays NaN, overflow goes to Inf. */
float dr_f16_to_f32(uint16_t h);
uint16_t dr_f32_to_f16(float f);
float dr_bf16_to_f32(uint16_t h);
uint16_t dr_f32_to_bf16(float f);

/* n elements of type t at src (any alignment) to float.  t must be a float type. */
void dr_to_f32(float *dst, const void *src, dr_dtype t, size_t n);
void dr_from_f32(void *dst, const float *src, dr_dtype t, size_t n);

/* Is every one of n elements of a float type at src (any alignment) a finite number? */
bool dr_all_finite(const void *src, dr_dtype t, size_t n);

#endif
