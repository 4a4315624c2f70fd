/*
 * nn.h - decoder models on a device: forward, backward, and the operations under them.
 *
 * Shape letters mean one thing in drupe:
 *   B sequences in a batch     T tokens of a sequence     M = B*T rows
 *   D hidden size              I intermediate size        V vocabulary
 *   H query heads  G key/value heads  C head size         L layers
 *   K inputs of a linear       N outputs of a linear      R LoRA rank
 *
 * Sequences begin at position 0 and are causal; only nn_sample.h, a part of this door,
 * keeps keys and values (models are run by ONNX Runtime).  Activations and sums are float.
 * So are a layer's weights while it is in use; packed ones are dequantized on the way in.
 *
 * The same input and seed give the same bytes on one kind of device for any number of
 * threads: work is cut into tiles of fixed size, each summed in a fixed order.
 */
#ifndef DRUPE_NN_H
#define DRUPE_NN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/pool.h"
#include "core/ranks.h"
#include "core/status.h"
#include "hf/hf.h"
#include "nn/nn_acts.h"
#include "nn/nn_i8.h"
#include "nn/nn_lora.h"
#include "nn/nn_mem.h"
#include "nn/nn_packed.h"
#include "nn/nn_quant.h"
#include "nn/nn_rough.h"
#include "nn/nn_sample.h"
#include "nn/nn_shapes.h"

/* ---- devices ---- */

typedef struct nn_device nn_device;

/*
 * kind "cpu" (fast: the kernels for what the processor has) or "ref" (plain loops, the
 * oracle); "cpu:avx512", "cpu:avx2" and "cpu:plain" take lesser kernels, "cpu:tiles" those
 * of AMX without AMX, "cpu:apart" has memory of its own, for tests.  "cuda": an Nvidia
 * GPU, products of floats; "cuda:bf16": operands of products are rounded to bf16.
 * threads 0: all.  DR_EUSAGE: an unknown kind.  DR_EUNSUPPORTED: not here, and why.
 */
DR_MUST_USE dr_status nn_device_open(nn_device **out, const char *kind, int threads);
/* The same for one of several processes (core/ranks.h; borrowed; NULL: alone): a GPU is
 * that of its number on its host.  DR_EUNSUPPORTED, too: there are fewer GPUs. */
DR_MUST_USE dr_status nn_device_open_rank(nn_device **out, const char *kind, int threads,
                                          dr_ranks *ranks);
/* After it, by all ranks at once and with the same kind: nn_sum_ranks works. */
DR_MUST_USE dr_status nn_device_join(nn_device *dev);
/* NULL: it is alone. */
dr_ranks *nn_device_ranks(const nn_device *dev);
/* p[count], of either memory, becomes the sum over all ranks, the same bytes on each; alone
 * it stays as it is.  what: for messages.  DR_EDEVICE: a rank is gone. */
DR_MUST_USE dr_status nn_sum_ranks(nn_device *dev, float *p, size_t count,
                                   const char *what);
/* p[edges[k]] to p[edges[k + 1]] of rank k go to all; edges[ranks + 1] grow from 0. */
DR_MUST_USE dr_status nn_share_ranks(nn_device *dev, float *p, const size_t *edges,
                                     const char *what);
void nn_device_close(nn_device *dev);
dr_pool *nn_device_pool(nn_device *dev);
const char *nn_device_describe(const nn_device *dev); /* "cpu, 2 threads, avx512" */

/* ---- operations (nn/ops.def); pointers are row-major floats ---- */

/* Y[M][N] = X[M][K] W[N][K]^T (+ bias[N], may be NULL); acc: Y += instead of Y =. */
DR_MUST_USE dr_status nn_matmul_nt(nn_device *dev, float *y, const float *x, const float *w,
                                   const float *bias, size_t m, size_t n, size_t k,
                                   size_t ldy, bool acc);
/* Y[M][K] = X[M][N] W[N][K] (ldx: stride of X's rows); acc: Y +=. */
DR_MUST_USE dr_status nn_matmul_nn(nn_device *dev, float *y, const float *x, const float *w,
                                   size_t m, size_t k, size_t n, size_t ldx, bool acc);
/* Y[N][K] = A[M][N]^T B[M][K] (lda, ldb: row strides); acc: Y +=. */
DR_MUST_USE dr_status nn_matmul_tn(nn_device *dev, float *y, const float *a, const float *b,
                                   size_t n, size_t k, size_t m, size_t lda, size_t ldb,
                                   bool acc);
/* y = x / sqrt(mean(x^2) + eps) * w, row by row. */
DR_MUST_USE dr_status nn_rmsnorm(nn_device *dev, float *y, const float *x, const float *w,
                                 size_t m, size_t d, float eps);
/* dx += gradient through nn_rmsnorm at x. */
DR_MUST_USE dr_status nn_rmsnorm_back(nn_device *dev, float *dx, const float *dy,
                                      const float *x, const float *w, size_t m, size_t d,
                                      float eps);
/* y = (x - mean(x)) / sqrt(var(x) + eps) * w + bias, row by row. */
DR_MUST_USE dr_status nn_layernorm(nn_device *dev, float *y, const float *x, const float *w,
                                   const float *bias, size_t m, size_t d, float eps);
/* dx += gradient through nn_layernorm at x. */
DR_MUST_USE dr_status nn_layernorm_back(nn_device *dev, float *dx, const float *dy,
                                        const float *x, const float *w, size_t m, size_t d,
                                        float eps);
/* nn_rmsnorm in place on the first heads runs of d values in each of m rows, which are ld
 * apart, with one w[D]; kept[M][heads*D] (may be NULL) gets what they were. */
DR_MUST_USE dr_status nn_rmsnorm_heads(nn_device *dev, float *x, float *kept,
                                       const float *w, size_t m, size_t ld, size_t heads,
                                       size_t d, float eps);
/* dx, the gradient behind nn_rmsnorm_heads, becomes that before it, in place. */
DR_MUST_USE dr_status nn_rmsnorm_heads_back(nn_device *dev, float *dx, const float *kept,
                                            const float *w, size_t m, size_t ld,
                                            size_t heads, size_t d, float eps);

/* y[M][I] = act(gate) * up from x[M][2I] = [gate, up], or act(x) of x[M][I]. */
DR_MUST_USE dr_status nn_activate(nn_device *dev, float *y, const float *x, size_t m,
                                  size_t i, nn_act act);
/* dx (as x, overwritten) from dy[M][I]. */
DR_MUST_USE dr_status nn_activate_back(nn_device *dev, float *dx, const float *dy,
                                       const float *x, size_t m, size_t i, nn_act act);

/* Rotates q and k inside qkv[M][(H+2G)C] in place (halves, as Hugging Face); sign -1 turns
 * back (the backward of the rotation). */
DR_MUST_USE dr_status nn_rope(nn_device *dev, float *qkv, const nn_attn_shape *s, int sign);
/* out[M][H*C] from rotated qkv; lse[B][H][T], log-sum-exp for the backward, or NULL. */
DR_MUST_USE dr_status nn_attention(nn_device *dev, float *out, float *lse, const float *qkv,
                                   const nn_attn_shape *s);
/* dqkv (overwritten) from dout; T x T is never materialised whole. */
DR_MUST_USE dr_status nn_attention_back(nn_device *dev, float *dqkv, const float *dout,
                                        const float *out, const float *lse,
                                        const float *qkv, const nn_attn_shape *s);

/* sums[parts]: the squares of each part of x[parts][count], summed in double. */
DR_MUST_USE dr_status nn_squares(nn_device *dev, double *sums, const float *x, size_t parts,
                                 size_t count);

/* AdamW (Loshchilov and Hutter 2019) as torch computes it in float: g = grad_scale grad,
 * m += (g - m) rest1, v = v beta2 + g^2 rest2,
 * param = param decay - step_size (m / (sqrt(v) inv_sqrt_c2 + eps)). */
typedef struct {
    float grad_scale, rest1, beta2, rest2, decay, step_size, inv_sqrt_c2, eps;
} nn_adam;
/* One step of count parameters; grad is zeroed. */
DR_MUST_USE dr_status nn_adamw(nn_device *dev, float *param, float *grad, float *m,
                               float *v, size_t count, const nn_adam *step);

/* ---- a decoder ---- */

typedef struct nn_decoder nn_decoder;

/*
 * One layer's weights in memory; members of a slot that the model lacks are NULL.  The
 * caller may set in its own copy of the struct: packed, nn_i8_pack of w, or rough,
 * nn_rough_pack of it, which forwards then multiply instead of w; dw, where
 * nn_layer_backward writes a weight's gradient; packed_back, nn_i8_pack of w transposed,
 * for backwards, whose dw is of integers, too.
 */
struct nn_layer {
    int index;                         /* which layer: windows and rotations differ */
    float *norm[HF_NORM_FINAL];        /* [hf_norm_size], NULL where there is none */
    float *norm_bias[HF_NORM_FINAL];   /* likewise, of HF_NORM_KIND_LAYER */
    float *w[HF_SLOT_COUNT];           /* [N][K] of the slot */
    float *bias[HF_SLOT_COUNT];        /* [N] or NULL */
    const void *packed[HF_SLOT_COUNT]; /* borrowed */
    const void *rough[HF_SLOT_COUNT];  /* likewise */
    const void *packed_back[HF_SLOT_COUNT];
    float *dw[HF_SLOT_COUNT]; /* borrowed: [N][K], set and not added to; NULL */
};

/*
 * m and dev are borrowed and outlive the decoder.  keep_bytes: layers stay in memory once
 * loaded while all of them fit in that many bytes; else one is held at a time.
 */
DR_MUST_USE dr_status nn_decoder_open(nn_decoder **out, nn_device *dev, const hf_model *m,
                                      size_t keep_bytes);
/* The same, with weights and scratch in the device's memory, if it has some (nn_mem.h). */
DR_MUST_USE dr_status nn_decoder_open_there(nn_decoder **out, nn_device *dev,
                                            const hf_model *m, size_t keep_bytes);
void nn_decoder_close(nn_decoder *d);
/* keep_bytes that keeps all of m there: layers, head and embeddings. */
size_t nn_decoder_there_bytes(nn_device *dev, const hf_model *m);
/* Of a model that lies there packed: unpacked at one time are the `layers` last used, 1 if
 * nothing is said, NN_UNPACKED_MOST at most.  Who goes up and down through them unpacks
 * those at the turns once.  Before the first layer. */
enum { NN_UNPACKED_MOST = 8 };
void nn_decoder_unpacked(nn_decoder *d, size_t layers);
/* Bytes of each; 0: m does not lie there packed. */
size_t nn_unpacked_bytes(nn_device *dev, const hf_model *m);
/* Before the first layer: are weights there floats, for more than products? */
void nn_decoder_floats(nn_decoder *d, bool on);
/* Before the first layer: the layers' linears are rounded to g when they are loaded. */
void nn_decoder_round(nn_decoder *d, const hf_bnb *g);
const hf_config *nn_decoder_config(const nn_decoder *d);
nn_device *nn_decoder_device(nn_decoder *d);
/* Documents for the forwards and backwards that follow, whose b and t are those of starts
 * (see nn_attn_shape; borrowed; NULL: none); longest: tokens of the longest. */
void nn_decoder_documents(nn_decoder *d, const uint32_t *starts, size_t longest);

/* Before the first layer is loaded: weights are those with this adapter merged (borrowed),
 * which must have been opened with the model. */
void nn_decoder_merge(nn_decoder *d, const hf_adapter *a);

/* The layer's weights, loaded if needed; valid until the next call (or the close, when all
 * are kept). */
DR_MUST_USE dr_status nn_decoder_layer(nn_decoder *d, int layer, const nn_layer **out);

/* The same with norms only: w and bias are NULL, for the caller's own. */
DR_MUST_USE dr_status nn_decoder_norms(nn_decoder *d, int layer, const nn_layer **out);

/* x[count][D] = embeddings of ids, times embed_scale. */
DR_MUST_USE dr_status nn_decoder_embed(nn_decoder *d, float *x, const int32_t *ids,
                                       size_t count);

/*
 * x[M][D] becomes the layer's output.  w: normally from nn_decoder_layer, or the caller's
 * own (a quantizer's).  loras may be NULL.  acts is filled; nn keeps nothing.
 */
DR_MUST_USE dr_status nn_layer_forward(nn_decoder *d, const nn_layer *w, size_t b, size_t t,
                                       float *x, nn_acts *acts, const nn_lora *loras,
                                       size_t lora_count);
/*
 * dx[M][D]: gradient at the output in, gradient at the input out; LoRA gradients are added
 * to.  need_dx false: dx is left undefined (the lowest layer that trains).
 */
DR_MUST_USE dr_status nn_layer_backward(nn_decoder *d, const nn_layer *w, size_t b,
                                        size_t t, float *dx, const nn_acts *acts,
                                        const nn_lora *loras, size_t lora_count,
                                        bool need_dx);

/* The two halves of a layer without norms and residuals, for quantizers that judge a module
 * by its output: out[M][D] from the input of QKV (GATE_UP). */
DR_MUST_USE dr_status nn_attn_block(nn_decoder *d, float *out, const float *norm1,
                                    const nn_layer *w, size_t b, size_t t);
DR_MUST_USE dr_status nn_mlp_block(nn_decoder *d, float *out, const float *norm2,
                                   const nn_layer *w, size_t m);
/* y[M][N] = X[M][K] W^T + bias of one slot; acc: Y += instead of Y =. */
DR_MUST_USE dr_status nn_layer_linear(nn_decoder *d, const nn_layer *w, hf_slot slot,
                                      float *y, const float *x, size_t m, bool acc);

/* y[M][I]: what DOWN reads for GATE_UP's input x; wide: room for GATE_UP's output. */
DR_MUST_USE dr_status nn_layer_up(nn_decoder *d, const nn_layer *w, float *y, float *wide,
                                  const float *x, size_t m);

/*
 * The steps of a layer between its products, for quantizers that change one product after
 * another.  norm: y = the norm of x, or x itself where there is none; y is not x.  attend:
 * out[M][H*C] from QKV's output, which is changed.  residual: x[M][D] += what O or DOWN
 * adds to it for its input in[M][K].
 */
DR_MUST_USE dr_status nn_layer_norm(nn_decoder *d, const nn_layer *w, hf_norm which,
                                    float *y, const float *x, size_t m);
DR_MUST_USE dr_status nn_layer_attend(nn_decoder *d, const nn_layer *w, float *out,
                                      float *qkv, size_t b, size_t t);
DR_MUST_USE dr_status nn_layer_residual(nn_decoder *d, const nn_layer *w, hf_slot slot,
                                        float *x, const float *in, size_t m);
/* Of the model's MLP. */
nn_act nn_layer_act(const nn_decoder *d);

/* What the functions below hold at once: at most so many rows with so many floats of
 * logits, and of a head that is not kept so many floats. */
enum { NN_HEAD_ROWS = 512, NN_HEAD_LOGITS = 3 << 23, NN_HEAD_PIECE = 1 << 22 };
/* Of a kept head in the memory of a device whose products round. */
enum { NN_HEAD_ROWS_THERE = 2048, NN_HEAD_LOGITS_THERE = 1 << 26 };
/* How many of count rows of v logits that is; rounds: of a head as the latter. */
static inline size_t nn_head_rows(size_t v, size_t count, bool rounds)
{
    size_t most = rounds ? NN_HEAD_ROWS_THERE : NN_HEAD_ROWS;
    size_t rows = (rounds ? NN_HEAD_LOGITS_THERE : NN_HEAD_LOGITS) / v;

    rows = rows < 16 ? 16 : rows > most ? most : rows;
    return rows < count ? rows : count;
}

/* y[M][D] = the final norm of the last layer's output x: what the head multiplies. */
DR_MUST_USE dr_status nn_final_norm(nn_decoder *d, float *y, const float *x, size_t m);
/* logits[count][V] from the last layer's output x[count][D] (final norm included). */
DR_MUST_USE dr_status nn_head_logits(nn_decoder *d, float *logits, const float *x,
                                     size_t count);
/*
 * Adds the cross entropy of targets (-100: ignored), of whose probability `smoothing` is
 * spread over the vocabulary, to *loss_sum (a double, summed in row order) and their number
 * to *counted.  dx (may be NULL) [count][D] receives grad_scale * d(sum of losses)/dx.
 * V-sized rows exist for a chunk at a time.
 */
DR_MUST_USE dr_status nn_head_loss(nn_decoder *d, const float *x, const int32_t *targets,
                                   size_t count, double *loss_sum, size_t *counted,
                                   float *dx, float grad_scale, float smoothing);

/*
 * The same for KL(teacher || d), summed over rows: x and teacher_x[count][D] are the last
 * layers' outputs of two models of one vocabulary on one device.  dx receives
 * grad_scale * d(sum)/dx.
 */
DR_MUST_USE dr_status nn_head_kl(nn_decoder *d, const float *x, nn_decoder *teacher,
                                 const float *teacher_x, size_t count, double *kl_sum,
                                 float *dx, float grad_scale);

/*
 * All layers on b x t ids: x[M][D] is the last layer's output (before the final norm).
 * Layers are streamed: each is loaded once for all rows.
 */
DR_MUST_USE dr_status nn_decoder_hidden(nn_decoder *d, float *x, const int32_t *ids,
                                        size_t b, size_t t);

#endif
