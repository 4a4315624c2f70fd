/*
 * cuda_kernels.h - what the .cu files have: launchers, C functions that put kernels on a
 * stream and return CUDA's error number (0: launched).  All pointers are the device's,
 * shapes as in nn.h.  No CUDA header is needed to read this one.
 */
#ifndef DRUPE_NN_CUDA_KERNELS_H
#define DRUPE_NN_CUDA_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nn/nn_quant.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct CUstream_st *cu_stream;

/* Floats, or bf16. */
typedef struct {
    void *p;
    bool bf16;
} cu_values;

/* ---- rows.cu ---- */

int cu_rmsnorm(cu_stream s, float *y, const float *x, const float *w, size_t m, size_t d,
               float eps);
int cu_rmsnorm_back(cu_stream s, float *dx, const float *dy, const float *x, const float *w,
                    size_t m, size_t d, float eps);
int cu_rmsnorm_heads(cu_stream s, float *x, float *kept, const float *w, size_t m,
                     size_t ld, size_t heads, size_t d, float eps);
int cu_rmsnorm_heads_back(cu_stream s, float *dx, const float *kept, const float *w,
                          size_t m, size_t ld, size_t heads, size_t d, float eps);
int cu_layernorm(cu_stream s, float *y, const float *x, const float *w, const float *bias,
                 size_t m, size_t d, float eps);
int cu_layernorm_back(cu_stream s, float *dx, const float *dy, const float *x,
                      const float *w, size_t m, size_t d, float eps);
/* act: an hf_act. */
int cu_activate(cu_stream s, float *y, const float *x, size_t m, size_t i, int act,
                bool gated);
int cu_activate_back(cu_stream s, float *dx, const float *dy, const float *x, size_t m,
                     size_t i, int act, bool gated);
/* sums[parts] of x[parts][count]; room[parts][CU_SQUARES] */
enum { CU_SQUARES = 1024 };
int cu_squares(cu_stream s, double *sums, double *room, const float *x, size_t parts,
               size_t count);
/* sums[parts] of room[parts][CU_SQUARES] */
int cu_totals(cu_stream s, double *sums, const double *room, size_t parts);
/* numbers: those of an nn_adam, in its order. */
int cu_adamw(cu_stream s, float *param, float *grad, float *m, float *v, size_t count,
             const float numbers[8]);
int cu_add(cu_stream s, float *y, const float *x, size_t count);
/* y[m][ldy] += bias[n] */
int cu_add_bias(cu_stream s, float *y, const float *bias, size_t m, size_t n, size_t ldy);
int cu_residual(cu_stream s, float *y, const float *x, size_t count, float scale);
int cu_scale_cap(cu_stream s, float *x, size_t count, float scale, float cap);
int cu_dropout(cu_stream s, float *y, const float *x, size_t count, uint64_t seed,
               uint64_t stream, uint32_t threshold, float scale, bool acc);
/* grad may be where the logits are.  Rows of up to CU_HELD_BYTES are read once. */
enum { CU_HELD_BYTES = 200 << 10 };
int cu_xent(cu_stream s, double *loss, cu_values grad, const float *logits,
            const int32_t *targets, size_t m, size_t v, float grad_scale, float cap,
            float smoothing);
int cu_kl(cu_stream s, double *kl, float *student, const float *teacher, size_t m, size_t v,
          float grad_scale, float cap);
/* dst[terms][rows][ldd] = bf16 terms whose sum is src[rows][lds]. */
int cu_to_bf16(cu_stream s, uint16_t *dst, size_t ldd, const float *src, size_t lds,
               size_t rows, size_t cols, int terms);

/* ---- halves.cu: the same where some are bf16 ---- */

/* d, i, n and counts are multiples of 8, pointers of 16 bytes; void pointers: bf16. */
int cu_rmsnorm_halves(cu_stream s, cu_values y, cu_values x, const float *w, size_t m,
                      size_t d, float eps);
int cu_rmsnorm_keep(cu_stream s, void *y, void *kept, const float *x, const float *w,
                    size_t m, size_t d, float eps);
/* kept: NULL, or bf16 of the dx that it leaves. */
int cu_rmsnorm_back_halves(cu_stream s, cu_values dx, void *kept, const void *dy,
                           cu_values x, const float *w, size_t m, size_t d, float eps);
/* Less base[M][I], which may be NULL. */
int cu_activate_halves(cu_stream s, void *y, const void *x, const void *base, size_t m,
                       size_t i, int act, bool gated);
int cu_activate_back_halves(cu_stream s, void *dx, const void *dy, const void *x, size_t m,
                            size_t i, int act, bool gated);
int cu_dropout_halves(cu_stream s, void *y, const void *x, size_t count, uint64_t seed,
                      uint64_t stream, uint32_t threshold, float scale, bool acc);
/* y = scale x */
int cu_scaled_halves(cu_stream s, cu_values y, cu_values x, size_t count, float scale);
/* out = factor (a - b) */
int cu_subtract_halves(cu_stream s, void *out, const void *a, const void *b, size_t count,
                       float factor);
/* out[M][N] = a / scale - b, scale[N] and b.p may be NULL */
int cu_differences(cu_stream s, void *out, cu_values a, cu_values b, const float *scale,
                   size_t m, size_t n);
/* As cu_squares. */
int cu_squares_halves(cu_stream s, double *sums, double *room, const void *x, size_t parts,
                      size_t count);
int cu_add_bias_halves(cu_stream s, void *y, const float *bias, size_t m, size_t n,
                       size_t ldy);
/* dst[rows][ldd] = src[rows][lds], of any shape. */
int cu_narrow(cu_stream s, void *dst, size_t ldd, const float *src, size_t lds, size_t rows,
              size_t cols);
int cu_widen(cu_stream s, float *dst, size_t ldd, const void *src, size_t lds, size_t rows,
             size_t cols);

/* Of any d. */
int cu_take_rows(cu_stream s, cu_values y, cu_values table, const int32_t *ids,
                 size_t count, size_t d);

/* ---- packed.cu ---- */

/* A dr_qtensor in the device's memory. */
typedef struct {
    const uint8_t *codes, *zeros; /* zeros NULL: symmetric */
    const float *scales;
    size_t rows, cols, block, blocks, row_bytes, zero_bytes;
    int bits;
} cu_packed;

int cu_unpack(cu_stream s, float *w, const cu_packed *q);
/* 4 or 8 bits, columns and blocks multiples of 8 (halves.cu). */
int cu_unpack_halves(cu_stream s, void *w, const cu_packed *q);
int cu_unpack_back(cu_stream s, float *ds, const float *dw, const cu_packed *q);
int cu_transpose(cu_stream s, float *y, const float *x, size_t m, size_t n);

/* ---- attention.cu ---- */

typedef struct {
    size_t b, t, heads, kv_heads, head_dim, rotary_dim, window;
    float scale, softcap;
    const float *cos, *sin;
    const uint32_t *starts;
} cu_attn_shape;

enum { CU_HEAD_DIM_MAX = 256 };

int cu_rope(cu_stream s, float *qkv, const cu_attn_shape *a, int sign);
/* qkv in bf16, half of the rotary_dim a multiple of 8 (halves.cu). */
int cu_rope_halves(cu_stream s, void *qkv, const cu_attn_shape *a, int sign);
int cu_attention(cu_stream s, float *out, float *lse, const float *qkv,
                 const cu_attn_shape *a);
/* delta[B][H][T]: room. */
int cu_attention_back(cu_stream s, float *dqkv, float *delta, const float *dout,
                      const float *out, const float *lse, const float *qkv,
                      const cu_attn_shape *a);

/* ---- attention_bf16.cu: the same, all but lse and delta in bf16; delta[B*H*T + 1] ---- */

enum { CU_HEAD_DIM_BF16 = 128 }; /* the most; a multiple of 8 */

int cu_attention_bf16(cu_stream s, void *out, float *lse, const void *qkv,
                      const cu_attn_shape *a);
int cu_attention_back_bf16(cu_stream s, void *dqkv, float *delta, const void *dout,
                           const void *out, const float *lse, const void *qkv,
                           const cu_attn_shape *a);

/* ---- attention_hopper.cu: what of it Hopper's warp groups do ---- */

bool cu_hopper_serves(const cu_attn_shape *a);
int cu_attention_hopper(cu_stream s, void *out, float *lse, const void *qkv,
                        const cu_attn_shape *a);
/* From delta; *counter is 0. */
int cu_attention_back_hopper(cu_stream s, void *dqkv, const float *delta, unsigned *counter,
                             const void *dout, const float *lse, const void *qkv,
                             const cu_attn_shape *a);

/* ---- low_rank.cu ---- */

/* Of sequences of so many rows each. */
typedef struct {
    uint64_t seed, stream, stream_step;
    uint32_t threshold;
    float scale;
    size_t rows;
} cu_mask;

enum { CU_RANK_MAX = 256 };
/* y[M][K] += mask o (x[M][R] w[R][K]), bf16; K a multiple of 128, R of 16. */
int cu_low_rank(cu_stream s, void *y, const void *x, const void *w, size_t m, size_t k,
                size_t r, const cu_mask *mask);
/* R a multiple of 16, at most CU_FACTOR_RANK: u[M][R] = (mask o x[M][K]) w[R][K]^T, bf16;
 * room: CU_MASKED_PARTS times M R. */
enum { CU_FACTOR_RANK = 128, CU_MASKED_PARTS = 8, CU_BLOCKS = 264 };
int cu_low_rank_factor(cu_stream s, void *u, float *room, const void *x, const void *w,
                       size_t m, size_t k, size_t r, const cu_mask *mask);

/* ---- integers.cu ---- */

/*
 * Codes of rows, or of columns, cut along the summed index into blocks of 128: codes[n][ld]
 * (ld a multiple of 4, zeros behind the last), scales[block][wide].
 */
typedef struct {
    int8_t *codes;
    float *scales;
    size_t n, k, ld, wide;
} cu_codes;

int cu_code_rows(cu_stream s, const cu_codes *to, const float *x);
/* x[k][n]: a column is what is cut. */
int cu_code_columns(cu_stream s, const cu_codes *to, const float *x);
/* y[m][ldy] = or += the products as nn_i8.h has them, + bias. */
int cu_code_product(cu_stream s, float *y, const cu_codes *a, const cu_codes *b,
                    const float *bias, size_t ldy, bool acc);
/* The strips of nn_i8_gram. */
int cu_code_gram(cu_stream s, float *strips, const cu_codes *a, bool first);

/* ---- search.cu: what nn_quant.h says; parts and tops: room ---- */

enum { CU_COLUMN_PARTS = 64, CU_GRAM_PARTS = 16 };

/* tops[N][K/block], parts[CU_COLUMN_PARTS][K] */
int cu_weight_means(cu_stream s, float *means, float *tops, double *parts, const float *w,
                    const nn_groups *g);
int cu_column_sums(cu_stream s, double *sum, double *parts, const float *x, size_t m,
                   size_t k, bool magnitudes, bool first);
/* parts[CU_GRAM_PARTS][N][block] */
int cu_gram_blocks(cu_stream s, float *grams, float *parts, const float *x, size_t m,
                   size_t n, size_t ldx, size_t block, bool first);
/* parts[cu_rank_parts][count] */
size_t cu_rank_parts(const nn_groups *g);
int cu_rank_scales(cu_stream s, double *loss, double *parts, const float *w,
                   const nn_groups *g, const nn_rule *rule, const float *scales,
                   size_t count, uint32_t wanted, const float *grams);
int cu_choose_grids(cu_stream s, float *scales, float *zeros, float *limits, const float *w,
                    const nn_groups *g, const nn_rule *rule, const nn_shrink *shrink,
                    const float *grams);
int cu_clamp_groups(cu_stream s, float *w, const nn_groups *g, const float *limits);
int cu_pack_codes(cu_stream s, uint8_t *codes, const float *w, const nn_groups *g,
                  const float *scales, const float *zeros, int bits, int stored);
/* As cu_squares. */
int cu_difference(cu_stream s, double *sums, double *room, const float *a, const float *b,
                  size_t parts, size_t count);
int cu_scale_matrix(cu_stream s, float *out, const float *a, size_t rows, size_t cols,
                    const float *col, const float *row, bool divide);
int cu_copy_matrix(cu_stream s, float *dst, size_t ldd, const float *src, size_t lds,
                   size_t rows, size_t cols, float factor);
int cu_subtract(cu_stream s, float *out, const float *a, const float *b, size_t count,
                float factor);
int cu_turn_columns(cu_stream s, float *out, const float *a, const float *b,
                    const float *scale, size_t m, size_t n);
int cu_row_dots(cu_stream s, double *out, const float *a, const float *b, size_t rows,
                size_t cols);
int cu_choose_rows(cu_stream s, float *dst, const float *src, size_t rows, size_t cols,
                   const uint32_t *pick, uint32_t which);

/* ---- rounding.cu ---- */

/* errors: less w. */
int cu_round_scaled(cu_stream s, cu_values out, cu_values w, const nn_groups *g,
                    const nn_rule *rule, const float *scale, bool errors);
int cu_row_quads(cu_stream s, double *out, const float *a, cu_values b,
                 const float *diagonal, size_t rows, size_t cols);

/* ---- gptq.cu ---- */

int cu_expand_gram(cu_stream s, float *h, const float *strips, size_t n, float rest);
/* Rows r .. r+rows of the triangle's strips = or += those of panel, rows of r+rows values;
 * r is a multiple of a strip's rows. */
int cu_gram_panel(cu_stream s, float *strips, const float *panel, size_t r, size_t rows,
                  size_t n, bool first);
int cu_cut_blocks(cu_stream s, float *out, const float *h, const uint32_t *order, size_t n,
                  size_t m);
int cu_gather_columns(cu_stream s, float *out, const float *w, const uint32_t *order,
                      const float *live, size_t rows, size_t n);
int cu_fill_factor(cu_stream s, float *factor, const float *h, const uint32_t *order,
                   size_t n, double mean, double add);
int cu_cut_factor(cu_stream s, float *within, float *pivot, float *spread,
                  const float *factor, size_t n, size_t p0, size_t nb);
/* The pointers in it are the device's. */
int cu_sweep_group(cu_stream s, const nn_sweep *g);
int cu_descend_group(cu_stream s, const nn_descent *g);

/* ---- shrink.cu ---- */

enum { CU_SHRINK_GRAM = 128 };

/* As nn_choose_grids has them; groups and Gram blocks of CU_SHRINK_GRAM columns. */
typedef struct {
    const float *w, *grams;
    nn_groups g;
    nn_rule rule;
    nn_shrink shrink;
    float *scales, *zeros, *limits;
} cu_shrink;

int cu_shrink_ranges(cu_stream s, const cu_shrink *a);

/* ---- factor.cu ---- */

int cu_factor_diagonal(cu_stream s, float *l, size_t ldl, const float *a, size_t ld,
                       size_t nb, float *inv, bool turned);
int cu_invert_diagonals(cu_stream s, float *inv, const float *l, size_t n, bool turned);
int cu_times_square(cu_stream s, float *b, size_t ldb, size_t rows, size_t nb,
                    const float *square);

/* ---- product.cu ---- */

/* A matrix as `count` planes of its bf16 terms, zeros beyond rows and cols. */
typedef struct {
    size_t lds, rows, cols; /* of the floats */
    size_t high, wide;      /* of a plane, which begins `plane` behind the last */
    size_t ldo, plane;
    int count;
    unsigned terms; /* two bits for each plane: 0 the first term, 1 what it leaves, ... */
} cu_planes;

/* wide is a multiple of 4. */
int cu_split_planes(cu_stream s, uint16_t *out, const cu_planes *p, const float *src);

/* ---- judge.cu ---- */

int cu_row_stats(cu_stream s, nn_row_stat *stats, const float *a, const float *other,
                 const int32_t *targets, size_t m, size_t v);

#ifdef __cplusplus
}
#endif

#endif
