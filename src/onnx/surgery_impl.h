/*
 * surgery_impl.h - surgeons: single changes of a graph, by Olive's names and arguments.
 *
 * surgeons.def lists them.
 */
#ifndef DRUPE_ONNX_SURGERY_IMPL_H
#define DRUPE_ONNX_SURGERY_IMPL_H

#include "onnx/edit_impl.h"

/* A surgeon's arguments, each known to be one that it has. */
typedef struct {
    const json_t *json;
    const char *name; /* of the surgeon */
} surgery_args;

/* DR_EUSAGE: it is not there, or of another type. */
DR_MUST_USE dr_status surgery_text(const surgery_args *a, const char *key,
                                   const char **out);
DR_MUST_USE dr_status surgery_int(const surgery_args *a, const char *key, int64_t *out);
/* An array of strings (of integers); optional ones: NULL where it is not given. */
DR_MUST_USE dr_status surgery_list(const surgery_args *a, const char *key, bool optional,
                                   const json_t **out);
/* The number, or what it is otherwise. */
DR_MUST_USE dr_status surgery_real(const surgery_args *a, const char *key, double *out);

typedef dr_status (*surgery_fn)(onnx_edit *e, const surgery_args *a);

/* surgery_ports.c: inputs, outputs, what is said of values */
dr_status surgery_rename_inputs(onnx_edit *e, const surgery_args *a);
dr_status surgery_rename_outputs(onnx_edit *e, const surgery_args *a);
dr_status surgery_remove_shapes(onnx_edit *e, const surgery_args *a);
dr_status surgery_remove_value_shapes(onnx_edit *e, const surgery_args *a);
dr_status surgery_remove_initializer_inputs(onnx_edit *e, const surgery_args *a);
dr_status surgery_reorder_inputs(onnx_edit *e, const surgery_args *a);
dr_status surgery_remove_inputs(onnx_edit *e, const surgery_args *a);
dr_status surgery_expose_outputs(onnx_edit *e, const surgery_args *a);
dr_status surgery_add_intermediate(onnx_edit *e, const surgery_args *a);
dr_status surgery_rename_input_dims(onnx_edit *e, const surgery_args *a);
dr_status surgery_rename_output_dims(onnx_edit *e, const surgery_args *a);

/* surgery_nodes.c: operators for others */
dr_status surgery_erf_to_tanh(onnx_edit *e, const surgery_args *a);
dr_status surgery_zero_input(onnx_edit *e, const surgery_args *a);
dr_status surgery_quick_gelu(onnx_edit *e, const surgery_args *a);
dr_status surgery_rms_norm(onnx_edit *e, const surgery_args *a);
dr_status surgery_gemm_to_matmul(onnx_edit *e, const surgery_args *a);
dr_status surgery_matmul_to_gemm(onnx_edit *e, const surgery_args *a);
dr_status surgery_mask_value(onnx_edit *e, const surgery_args *a);
dr_status surgery_reciprocal_mul(onnx_edit *e, const surgery_args *a);
dr_status surgery_memcpy(onnx_edit *e, const surgery_args *a);
dr_status surgery_double_nodes(onnx_edit *e, const surgery_args *a);
dr_status surgery_double_inner(onnx_edit *e, const surgery_args *a);

/* surgery_weights.c: rounded values */
dr_status surgery_group_index(onnx_edit *e, const surgery_args *a);
dr_status surgery_remove_qdq(onnx_edit *e, const surgery_args *a);
dr_status surgery_qdq_to_clip(onnx_edit *e, const surgery_args *a);
dr_status surgery_remove_dequantize(onnx_edit *e, const surgery_args *a);
dr_status surgery_tie_embeddings(onnx_edit *e, const surgery_args *a);

#endif
