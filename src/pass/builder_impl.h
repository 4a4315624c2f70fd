/*
 * builder_impl.h - what a user may set of the ModelBuilder pass, and what it comes to.
 */
#ifndef DRUPE_PASS_BUILDER_IMPL_H
#define DRUPE_PASS_BUILDER_IMPL_H

#include "onnx/onnx.h"
#include "pass/pass.h"

typedef struct {
    int precision;
    int device;
    const char *provider;
    int int4_block_size;
    bool int4_is_symmetric;
    int int4_accuracy_level;
    int int4_algo_config;
    int matmul_mixed_precision;
    const char *int4_op_types_to_quantize, *int4_nodes_to_exclude;
    bool shared_embeddings;
    bool use_qdq, use_webgpu_fp32, use_cuda_bf16;
    bool include_hidden_states, exclude_embeds, exclude_lm_head, prune_lm_head;
    bool enable_cuda_graph;
    const char *extra_options;
    const char *min_ort_version;
    bool use_ort_genai;
    int max_length;
    int adapter_precision;
    int adapter_int4_block_size;
    bool adapter_int4_is_symmetric;
} builder_config;

enum { BUILDER_ADAPTER_FP32, BUILDER_ADAPTER_FP16, BUILDER_ADAPTER_INT4 };
enum { BUILDER_PARAMS = 41 };
extern const dr_param builder_params[BUILDER_PARAMS];

/*
 * The options of a graph, without those of a model and of adapters; extra_options are taken
 * apart.  packed: the model has packed weights.  genai, max_length and so on are set, too.
 * DR_EUSAGE, DR_EUNSUPPORTED: values that make no sense, alone or together, by name.
 */
DR_MUST_USE dr_status builder_read(onnx_options *out, dr_arena *a,
                                   const builder_config *config, const unsigned char *given,
                                   bool packed);

#endif
