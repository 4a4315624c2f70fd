/*
 * onnx.h - decoder models as ONNX graphs, the way ONNX Runtime GenAI runs them.
 *
 * The graph is the model builder's (names, operators, fusions), with three changes that the
 * runtimes accept and that make it smaller or faster: adapters are optional graph inputs of
 * rank 0, longrope needs no If, a tied head and embedding share their bytes.  Weights
 * stream into one external file, each at a multiple of 4096.  The same options give the
 * same bytes for any number of threads.
 */
#ifndef DRUPE_ONNX_H
#define DRUPE_ONNX_H

#include <stdbool.h>
#include <stddef.h>

#include "core/arena.h"
#include "core/pool.h"
#include "core/status.h"
#include "hf/hf.h"
#include "onnx/onnx_adapter.h"

typedef enum { ONNX_FP32, ONNX_INT4 } onnx_precision;

/* An adapter and the name under which its file is written ("adapter_weights", "travel"). */
typedef struct {
    const char *name;
    const hf_adapter *adapter; /* borrowed */
} onnx_named_adapter;

typedef struct {
    onnx_precision precision;
    int block_size; /* of what is quantized here; packed weights keep their own grid */
    bool symmetric; /* likewise */
    int head_bits;  /* of lm_head with ONNX_INT4: 4 (or 0), 8; tied: the embedding too */
    int accuracy_level; /* MatMulNBits: 0 unset, 1 float, 4 int8 activations */
    int min_ort_minor;  /* 20: onnxruntime 1.20 and later load it; 0: today's */
    bool genai;         /* genai_config.json and tokenizer beside it */
    int64_t max_length; /* genai_config search.max_length; 0: min(context, 4096) */
    const onnx_named_adapter *adapters;
    size_t adapter_count;
    const onnx_adapter_form *adapter_form; /* NULL: floats of the graph's type */
} onnx_options;

typedef struct {
    uint64_t graph_bytes, data_bytes, adapter_bytes;
    size_t nodes, initializers;
    int opset;
    dr_arena notes_arena;
    const char **notes; /* what a user should know: "embedding stays float: ..." */
    size_t note_count;
} onnx_report;
void onnx_report_release(onnx_report *r);

/*
 * Writes model.onnx, model.onnx.data, one NAME.onnx_adapter an adapter and, with genai,
 * genai_config.json and the tokenizer into dir (which exists).
 * DR_EUNSUPPORTED: a feature of the model or option that the graph cannot hold, by name.
 */
DR_MUST_USE dr_status onnx_build(onnx_report *report, const char *dir, const hf_model *m,
                                 dr_pool *pool, const onnx_options *o);

/* Inspecting a model.onnx: what `drupe inspect` shows.  The wire format is scanned with
 * limits before protobuf sees it. */
typedef struct {
    int64_t ir_version;
    const char *producer;
    const char **opsets; /* "ai.onnx 21" */
    size_t opset_count;
    const char **inputs; /* "input_ids int64[batch_size,sequence_length]" */
    size_t input_count;
    const char **outputs;
    size_t output_count;
    const char **ops; /* op types, sorted */
    size_t *op_counts;
    size_t op_count;
    size_t initializer_count;
    uint64_t initializer_bytes, external_bytes;
} onnx_info;
DR_MUST_USE dr_status onnx_inspect(dr_arena *a, onnx_info *out, const char *path);

#endif
