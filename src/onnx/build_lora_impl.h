/*
 * build_lora_impl.h - what the forms of an adapter's inputs share.
 */
#ifndef DRUPE_ONNX_BUILD_LORA_IMPL_H
#define DRUPE_ONNX_BUILD_LORA_IMPL_H

#include "onnx/build_impl.h"

/* One half of an adapter: a weight that its input is multiplied with. */
typedef struct {
    const char *path; /* of its nodes: "/model/layers.0/attn/q_proj/lora_A" */
    const char *name; /* of its inputs, before .weight */
    const char *r;    /* the name of the rank */
    size_t k, n;      /* numbers that go in and come out; 0: as many as the rank */
} lora_half;

/* The type of the inputs; with int4 of their scales. */
onnx_type lora_type(const onnx_builder *b);
/* An optional input; its default has the same shape with 0 for sizes that have names. */
void lora_input(onnx_builder *b, const char *name, onnx_type type, onnx_shape shape);
/* A value of lora_type as the graph's. */
const char *lora_cast(onnx_builder *b, const char *path, const char *x, onnx_shape shape);
/* A size, 0 being the rank's name. */
onnx_dim lora_size(size_t size, const char *r);
/* [batch_size, sequence_length, n]. */
onnx_shape lora_result(const lora_half *h);

/* x times a half whose inputs are packed. */
const char *lora_int4_half(onnx_builder *b, const lora_half *h, const char *x);

#endif
