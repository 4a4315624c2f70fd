/*
 * build_impl.h - a decoder as a graph, part by part.
 *
 *   build_model.c      the files of a model folder        build_attention.c  q, k, v to o
 *   build_decoder.c    inputs, mask, layers               build_mlp.c        gate, up, down
 *   build_moe.c        router and experts
 *   build_embedding.c  token ids to rows                  build_head.c       logits
 *   build_rope.c       cos and sin                        build_norm.c       norms
 *   build_linear.c     one product: weight and bias       build_lora*.c      adapters' part
 *   choose.c           what is rounded                    target.c           providers
 *
 * Nodes and weights are made in one pass over the model: when a part returns, its weights
 * are in the file.  A part is named by its node path ("/model/layers.0/attn/qkv_proj"); its
 * initializers have the same name with dots ("model.layers.0.attn.qkv_proj.MatMul.weight").
 */
#ifndef DRUPE_ONNX_BUILD_IMPL_H
#define DRUPE_ONNX_BUILD_IMPL_H

#include "onnx/data_impl.h"
#include "onnx/graph_impl.h"
#include "onnx/onnx.h"
#include "onnx/weight_impl.h"

/* The tables of a rotation. */
typedef struct {
    const char *cos, *sin;
} onnx_rope_names;

/* What the graphs of a provider have; the rows are in target.c. */
typedef struct {
    const char *name, *short_name, *device;
    const char *option, *option_value; /* genai_config.json's for it; NULL: none */
    unsigned precisions;               /* bits 1 << onnx_precision */
    bool accuracy;                     /* MatMulNBits has accuracy_level */
    bool split_qkv;    /* three products, RotaryEmbedding nodes, position_ids */
    bool split_norm;   /* norms of plain operators */
    bool qdq;          /* packed products as DequantizeLinear and MatMul */
    bool whole_tables; /* longrope: small and large rows joined, none cut out */
    bool fused_matmul; /* FusedMatMul, for a tied float head */
    bool any_table;    /* GatherBlockQuantized of 8 bits and of zero points */
    bool experts;      /* MoE and QMoE as they are made here */
    bool own_gelu;     /* com.microsoft's, where ONNX' takes opset 20 */
} onnx_target;
const onnx_target *onnx_target_of(onnx_provider p);
int onnx_precision_bits(onnx_precision p); /* 0: floats */
onnx_type onnx_float_type(const onnx_options *o);

/* A module that some adapter changes. */
typedef struct {
    const char *path;
    bool dora;
} onnx_slot;

typedef struct {
    dr_arena *arena; /* borrowed: names and graph */
    onnx_graph g;
    onnx_data data;
    const hf_model *m;
    const hf_config *c;
    const onnx_options *o;
    const onnx_target *target;
    onnx_report *report;
    bool *excluded;        /* o->exclude[i] was met */
    const char **products; /* nodes that could be excluded */
    size_t product_count;
    onnx_type float_type;  /* of activations, caches and weights that are not packed */
    onnx_type logits_type; /* float where float_type is bfloat16 */
    onnx_slot *lora;       /* modules that some adapter changes, sorted */
    size_t lora_count;
    onnx_adapter_form form; /* of their inputs */
    onnx_packed_init tied;  /* the head's weight, when the embedding is cut from it */
    onnx_grid tied_grid;
    const char *tied_node;  /* of the head's product */
    const onnx_init *table; /* the float embedding, where it is there */
    bool head_is_table;     /* the head's product reads it */
    bool told_packed, told_split;
    /* values that all layers use */
    const char *lengths, *total;
    const char *positions; /* [batch, sequence]; NULL: GroupQueryAttention rotates */
    onnx_rope_names rope, rope_local; /* cos NULL: no layer uses it */
} onnx_builder;

/*
 * A version of onnxruntime before 1.minor is to load it.  What changed on the CPU, seen
 * to run or fail in 1.20.1, 1.21.1, 1.22.1, 1.23.2, 1.24.1, 1.25.0, 1.26.0 and 1.32.0:
 */
enum {
    ONNX_SINCE_BYTES = 23,  /* 8-bit MatMulNBits; GatherBlockQuantized of bytes, `bits` */
    ONNX_SINCE_2BIT = 24,   /* 2-bit MatMulNBits */
    ONNX_SINCE_MOE = 32,    /* swiglu experts, attention sinks: not tried before */
    ONNX_SINCE_WINDOW = 24, /* local_window_size counts the current token */
    ONNX_SINCE_WORDS = 24   /* GenAI of that time knows the families of today by name */
};
bool onnx_before(const onnx_builder *b, int minor);
/* What the user should know. */
void onnx_note(onnx_report *r, const char *fmt, ...) DR_PRINTF(2, 3);

DR_MUST_USE dr_status onnx_build_decoder(onnx_builder *b);

/* Sets b->rope, rope_local and positions; mask_shape: the shape of attention_mask. */
DR_MUST_USE dr_status onnx_build_rope(onnx_builder *b, const char *mask_shape);
/* q or k rotated by a node of its own: used when b->positions is set. */
const char *onnx_build_rotated(onnx_builder *b, const char *path, const char *x,
                               const hf_rope *rope, int heads);
const onnx_rope_names *onnx_build_rope_names(const onnx_builder *b, const hf_rope *rope);
/* The second size of what this shape is of, int64: as a scalar, or as [1]. */
const char *onnx_build_length(onnx_builder *b, const char *path, const char *shape,
                              bool scalar);

/*
 * x and what it is added to; the sum comes back in *residual, the norm of it in *x.
 * residual NULL: a norm alone; *residual NULL: nothing is added yet.  A norm that the model
 * does not have: *x is the sum.
 */
DR_MUST_USE dr_status onnx_build_norm(onnx_builder *b, const char *path, hf_norm which,
                                      int layer, onnx_shape shape, const char **residual,
                                      const char **x);
/* Whether residuals and norms are float in a graph of float16. */
bool onnx_build_wide(const onnx_builder *b);
/* *x times a number, which all nodes of this name share; nothing is made for 1. */
DR_MUST_USE dr_status onnx_build_scale(onnx_builder *b, const char **x, const char *path,
                                       const char *name, double value, size_t width);

/* Token ids to [batch, sequence, D]; the last hidden state to logits. */
DR_MUST_USE dr_status onnx_build_embedding(onnx_builder *b, const char **out);
DR_MUST_USE dr_status onnx_build_head(onnx_builder *b, const char *x);

/* path: "/model/layers.0/attn", "/model/layers.0/mlp"; x is the normed input. */
DR_MUST_USE dr_status onnx_build_attention(onnx_builder *b, const char **out, int layer,
                                           const char *path, const char *x);
DR_MUST_USE dr_status onnx_build_mlp(onnx_builder *b, const char **out, int layer,
                                     const char *path, const char *x);

/* Router and experts instead. */
DR_MUST_USE dr_status onnx_build_moe(onnx_builder *b, const char **out, int layer,
                                     const char *path, const char *x);

/* ---- one product ---- */

/* Some rows of a source. */
typedef struct {
    const onnx_source *s; /* borrowed */
    size_t row0, count;
} onnx_rows;

/* x times the transpose of these rows, plus their bias. */
DR_MUST_USE dr_status onnx_build_linear(onnx_builder *b, const char **out, const char *path,
                                        onnx_rows rows, const char *x);
/* Without bias; float rows are rounded to `bits`, 0: stay floats.  result (may be NULL) is
 * the name of the output. */
DR_MUST_USE dr_status onnx_build_weight(onnx_builder *b, const char **out, const char *path,
                                        onnx_rows rows, int bits, const char *result,
                                        const char *x);
/* Whether these rows can be one product: all floats, or all packed on one grid. */
bool onnx_one_product(const onnx_builder *b, onnx_rows rows);
/* The MatMulNBits node of a packed weight; its output is `out`. */
const char *onnx_build_packed(onnx_builder *b, const char *node, const char *out,
                              const onnx_packed_init *w, const onnx_grid *grid, size_t cols,
                              size_t n_out, const char *x);
/* The initializers' names for rows that are rounded here, of "/lm_head" to 8 bits:
 * "lm_head.MatMul.weight_Q8", ..._scales, ..._zero_points. */
void onnx_build_packed_names(onnx_builder *b, const char *names[3], const char *path,
                             const onnx_grid *grid);
/* Bits that the product of a path is rounded to, by precision, mix, ops and exclusions (one
 * that names it counts as met); 0: it stays float. */
int onnx_choose_bits(onnx_builder *b, const char *path);
/* Likewise of the embedding's own table; tied: there is a head that it could share. */
int onnx_choose_embedding(onnx_builder *b, bool tied);
/* DR_EUSAGE: an exclusion that no node was named by. */
DR_MUST_USE dr_status onnx_choose_check(const onnx_builder *b);
/* Whether products are DequantizeLinear and MatMul. */
bool onnx_uses_qdq(const onnx_builder *b);
/* DR_EUNSUPPORTED: the runtime, or the form of the graph, does not take such weights. */
DR_MUST_USE dr_status onnx_check_grid(const onnx_builder *b, const char *module,
                                      const onnx_grid *grid);
/* The grid of what is rounded here. */
onnx_grid onnx_build_grid(const onnx_builder *b, int bits);

/* ---- adapters ---- */

/* Fills b->lora and b->form from the options; writes the files of the adapters. */
DR_MUST_USE dr_status onnx_join_adapters(onnx_builder *b);
DR_MUST_USE dr_status onnx_write_adapters(onnx_builder *b, const char *dir);

/* What adapters make of a product y: (y + add) * factor, without its bias; NULL: nothing.
 * */
typedef struct {
    const char *add, *factor;
} onnx_lora;

/* Of a module whose input is x, with its inputs; nothing when no adapter changes it. */
DR_MUST_USE dr_status onnx_build_lora(onnx_builder *b, onnx_lora *out, const char *path,
                                      const hf_linear *l, const char *x);
/* y is the product of `path`, with its bias. */
const char *onnx_lora_apply(onnx_builder *b, const char *path, const onnx_lora *lora,
                            const char *y, size_t n_out);
/* Both for all modules of a source side by side; *y has all its rows. */
DR_MUST_USE dr_status onnx_build_lora_add(onnx_builder *b, const char **y, const char *path,
                                          const onnx_source *s, const char *x);

/* ---- names ---- */

/* "model.layers.0.attn.qkv_proj" of "/model/layers.0/attn/qkv_proj", and what follows. */
const char *onnx_build_name(onnx_builder *b, const char *path, const char *rest);
/* "PATH/NAME". */
const char *onnx_build_path(onnx_builder *b, const char *path, const char *name);

/* ---- beside the graph ---- */

DR_MUST_USE dr_status onnx_genai_write(const hf_model *m, const char *dir,
                                       const onnx_options *o, onnx_report *report);

#endif
