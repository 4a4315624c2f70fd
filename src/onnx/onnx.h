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
#include "core/dtype.h"
#include "core/pool.h"
#include "core/status.h"
#include "hf/hf.h"
#include "onnx/onnx_adapter.h"
#include "onnx/onnx_rewrite.h"

/* What weights become: floats of a type, or codes of some bits, rounded here unless the
 * model has packed ones. */
typedef enum {
    ONNX_FP32,
    ONNX_FP16,
    ONNX_BF16,
    ONNX_INT8,
    ONNX_INT4,
    ONNX_INT2,
    ONNX_PRECISION_COUNT
} onnx_precision;
const char *onnx_precision_name(onnx_precision p); /* "int4" */

/* Whose operators the graph is made of. */
typedef enum {
    ONNX_CPU,
    ONNX_CUDA,
    ONNX_DML,
    ONNX_WEBGPU,
    ONNX_TRT_RTX,
    ONNX_PROVIDER_COUNT
} onnx_provider;
const char *onnx_provider_name(onnx_provider p);   /* "CUDAExecutionProvider" */
const char *onnx_provider_short(onnx_provider p);  /* "cuda": the model builder's */
const char *onnx_provider_device(onnx_provider p); /* "gpu" */
/* Either name, in any case.  DR_EUSAGE: there is none, or no graph is made for it, and
 * why. */
DR_MUST_USE dr_status onnx_provider_parse(onnx_provider *out, const char *text);

/* What is made for a provider when nothing is asked. */
onnx_precision onnx_precision_default(onnx_provider p, bool packed);
/* DR_EUSAGE: the provider has no kernels for it; the hint has what it has. */
DR_MUST_USE dr_status onnx_precision_check(onnx_provider p, onnx_precision precision);

/* How weights are rounded, by the model builder's words. */
typedef enum {
    ONNX_ROUND_DEFAULT, /* the value of largest magnitude is exact */
    ONNX_ROUND_RTN,     /* symmetric: as far to both sides */
    ONNX_ROUND_K_QUANT, /* never symmetric; by weighted least squares */
} onnx_rounding;

/* What has 8 bits in an int4 graph. */
typedef enum {
    ONNX_MIX_NONE,
    ONNX_MIX_HEAD,  /* lm_head: "last_matmul:int8" */
    ONNX_MIX_LAYERS /* also qkv (or v) and down_proj of the first and last eighth of the
                     * layers and of every third between: "mixed_layers:int8" */
} onnx_mix;

enum { ONNX_OP_MATMUL = 1, ONNX_OP_GATHER = 2 };

/* An adapter and the name under which its file is written ("adapter_weights", "travel"). */
typedef struct {
    const char *name;
    const hf_adapter *adapter; /* borrowed */
} onnx_named_adapter;

typedef struct {
    onnx_precision precision;
    onnx_provider provider;
    /* rounding; packed weights keep their own grid */
    int block_size;
    bool symmetric;
    onnx_rounding rounding;
    onnx_mix mix;
    int head_bits; /* of lm_head when bits are few: 0 as the rest, 4, 8; tied: both */
    unsigned ops;  /* ONNX_OP_...: what is rounded; 0: products, and a tied embedding */
    const char *const *exclude; /* nodes left as floats: "/lm_head/MatMul"; borrowed */
    size_t exclude_count;
    int accuracy_level; /* MatMulNBits: 0 unset, 1 float, 4 int8 activations */
    /* the form of the graph */
    bool qdq;         /* packed products as DequantizeLinear and MatMul */
    bool webgpu_fp32; /* floats of 32 bits on WebGPU, where they are of 16 */
    bool cuda_bf16;   /* bfloat16 in place of float16 on CUDA and TensorRT RTX */
    bool exclude_embeds, exclude_lm_head, include_hidden_states, prune_lm_head;
    int min_ort_minor; /* 20: onnxruntime 1.20 and later load it; 0: today's */
    /* beside it */
    bool genai;         /* genai_config.json and tokenizer */
    bool cuda_graph;    /* genai_config: capture CUDA graphs */
    int64_t max_length; /* genai_config search.max_length; 0: min(context, 4096) */
    const onnx_named_adapter *adapters;
    size_t adapter_count;
    const onnx_adapter_form *adapter_form; /* NULL: floats of the graph's type */
    const char *splits; /* "model.layers.0=0;...", for SplitModel; NULL: none */
} onnx_options;

typedef struct {
    uint64_t graph_bytes, data_bytes, adapter_bytes;
    size_t nodes, initializers;
    int opset;
    dr_arena notes_arena;
    const char **notes; /* what a user should know: "embedding stays float: ..." */
    size_t note_count;
    const char **values; /* of ONNX_NPU_CALIBRATE: the names that have .min and .max */
    size_t value_count;
} onnx_report;
void onnx_report_release(onnx_report *r);

/*
 * Writes model.onnx, model.onnx.data, one NAME.onnx_adapter an adapter and, with genai,
 * genai_config.json and the tokenizer into dir (which exists).
 * DR_EUNSUPPORTED: a feature of the model or option that the graph cannot hold, by name.
 */
DR_MUST_USE dr_status onnx_build(onnx_report *report, const char *dir, const hf_model *m,
                                 dr_pool *pool, const onnx_options *o);

/* ---- fixed shapes, for NPUs ---- */

/* What the values of a graph are. */
typedef enum {
    ONNX_NPU_FLOAT,     /* floats; weights may be packed (DequantizeLinear) */
    ONNX_NPU_CALIBRATE, /* floats; NAME.min and NAME.max of every value are outputs, too */
    ONNX_NPU_QDQ        /* every value rounded by QuantizeLinear and DequantizeLinear */
} onnx_npu_form;

/* What a value was seen to be. */
typedef struct {
    const char *name;
    float least, largest;
} onnx_range;

typedef struct {
    onnx_npu_form form;
    /* The cache as ORT GenAI's windows have it: bytes (QDQ), keys transposed, and only what
     * is new comes out.  Otherwise past_key_values.i.* and present.i.* are floats
     * [batch, kv_heads, tokens, head_dim], and what comes out is past and new. */
    bool windowed;
    int64_t batch;
    int64_t sequence; /* tokens of the prompt graph; 1: the token graph alone */
    int64_t total;    /* tokens with the past */
    int weight_bits;  /* 32: floats; 8: one scale an output; 4; 0: 4, or as packed */
    int block_size;   /* 4 bits: inputs that share a scale; -1: all of an output */
    int value_bits;   /* QDQ: 16 or 8 */
    const onnx_range *ranges; /* QDQ: sorted by name */
    size_t range_count;
    bool genai;             /* windowed QDQ: genai_config.json and tokenizer beside it */
    const char *provider;   /* for genai_config.json: "QNN"; NULL: none is named */
    const char *quant_type; /* metadata_props as VitisAI has them; NULL: none */
} onnx_npu_options;

/* The files: NAME is "prompt_b1_s64_past448.onnx" or "token_b1_s1_past511.onnx". */
const char *onnx_npu_file(dr_arena *a, const onnx_npu_options *o, bool token);

/*
 * Writes a graph for prompts and one for single tokens (ONNX_NPU_CALIBRATE: the first
 * alone), of operators of the standard domain (opset 21) and of these shapes alone, and
 * their weights, model.onnx.data, into dir.  Inputs: input_ids, position_ids [batch,
 * sequence], attention_mask [batch, total] (1: a token), int64 (windowed: int32), and the
 * cache; what is new stands at its end.
 * DR_EUNSUPPORTED: what the graphs cannot hold, by name; DR_EUSAGE: sizes that do not fit.
 */
DR_MUST_USE dr_status onnx_npu_build(onnx_report *report, const char *dir,
                                     const hf_model *m, dr_pool *pool,
                                     const onnx_npu_options *o);

/* A vendor's model under a graph of one EPContext node (context_graph.c). */
typedef struct {
    const char *name;
    int type; /* TensorProto's number */
    int rank; /* -1: not said */
    const int64_t *dims; /* [rank]; -1: open */
} onnx_context_value;
typedef struct {
    const char *domain;
    int64_t version;
} onnx_context_opset;
typedef struct {
    const char *file;        /* the vendor's, beside the graph */
    const char *source;      /* the provider that runs it */
    const char *sdk_version; /* of the vendor's tools */
    const char *device;      /* "CPU" */
    bool keep_open_sizes;    /* as -1; else they are called input_0_1 */
    const onnx_context_value *inputs, *outputs;
    size_t input_count, output_count;
    const onnx_context_opset *opsets;
    size_t opset_count;
} onnx_context;
DR_MUST_USE dr_status onnx_context_write(const char *path, const onnx_context *c);

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
