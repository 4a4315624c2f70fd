/*
 * onnx_adapter.h - adapters beside a graph: their values, their files, whether they fit.
 * Part of the door (onnx.h).
 *
 * One rule of names everywhere, PEFT's modules without their prefix:
 *     model.layers.0.self_attn.q_proj.lora_A.weight           [K][R]  A transposed
 *     model.layers.0.self_attn.q_proj.lora_B.weight           [R][N]  B transposed, scaled
 *     model.layers.0.self_attn.q_proj.lora_magnitude_vector   [N]     DoRA: the factor
 * With int4 a matrix is three values in the layout of MatMulNBits, as Olive's
 * convert-adapters writes them, each column of a block cut along K (of A) or R (of B):
 *     ....lora_A.quant.weight      U8 [R][K/block][block/2]
 *     ....lora_A.quant.scale       [R * K/block]
 *     ....lora_A.quant.zero_point  U8 [R * ceil(K/block / 2)]; absent: symmetric
 */
#ifndef DRUPE_ONNX_ADAPTER_H
#define DRUPE_ONNX_ADAPTER_H

#include <stdbool.h>
#include <stddef.h>

#include "core/arena.h"
#include "core/file.h"
#include "core/status.h"
#include "core/tensor.h"
#include "hf/hf.h"

/* How values are kept: in a file, and in the inputs of a graph. */
typedef struct {
    dr_dtype dtype; /* F32, F16 or BF16; with int4 that of the scales */
    bool int4;
    int block;      /* int4: 16, 32, 64, 128 or 256 values that share a scale */
    bool symmetric; /* int4: no zero points */
} onnx_adapter_form;

#define ONNX_ADAPTER_FLOATS                                                                \
    ((onnx_adapter_form){.dtype = DR_DTYPE_F32, .block = 32, .symmetric = true})

/*
 * The values of an adapter, module by module; names and data in a.
 * DR_EFORMAT: a value that the form cannot hold.  DR_EUSAGE: a DoRA adapter whose factors
 * were not computed (hf_adapter_factors).
 */
DR_MUST_USE dr_status onnx_adapter_tensors(dr_arena *a, dr_tensor **out, size_t *count,
                                           const hf_adapter *ad,
                                           const onnx_adapter_form *form);

typedef enum { ONNX_ADAPTER_FILE, ONNX_ADAPTER_SAFETENSORS, ONNX_ADAPTER_NPZ } onnx_format;

/* ".onnx_adapter", ".safetensors", ".npz" */
const char *onnx_adapter_suffix(onnx_format format);

/*
 * Writes tensors to path.  ONNX_ADAPTER_FILE is ONNX Runtime's own (FlatBuffers "TORT"),
 * each value at a multiple of 8.
 * DR_EUNSUPPORTED: past what the format can hold (2 GiB; 4 GiB with npz).
 */
DR_MUST_USE dr_status onnx_adapter_save(const char *path, const dr_tensor *tensors,
                                        size_t count, onnx_format format);

/* An .onnx_adapter file, mapped. */
typedef struct {
    dr_tensor *tensors; /* arena; data in the mapping */
    size_t count;
    dr_map map; /* owned */
    dr_arena arena;
} onnx_adapter_file;

/* Everything is checked against the file.  DR_EFORMAT; DR_EUNSUPPORTED: an element type. */
DR_MUST_USE dr_status onnx_adapter_open(onnx_adapter_file *f, const char *path);
void onnx_adapter_close(onnx_adapter_file *f);

/*
 * Whether the file's values are inputs of the graph, of its types and shapes, and no half
 * of a module is missing.  DR_EUSAGE names what differs.
 */
DR_MUST_USE dr_status onnx_adapter_fits(const char *adapter_path, const char *model_path);

/*
 * A model.onnx with LoRA products in it, made elsewhere (traced, or the model builder's):
 * dir/model.onnx takes them as optional inputs, dir/ADAPTER has their values.  External
 * files are not copied; out->files names them (in a).
 * DR_EUSAGE: it has none.  DR_EUNSUPPORTED: products that the graph computes itself.
 */
typedef struct {
    size_t modules, rank_min, rank_max;
    const char **files; /* [file_count] */
    size_t file_count;
} onnx_lifted;
DR_MUST_USE dr_status onnx_lift_adapter(onnx_lifted *out, dr_arena *a, const char *model,
                                        const char *dir, const char *adapter,
                                        onnx_format format);

#endif
