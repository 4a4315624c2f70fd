/*
 * cpu_impl.h - inside of the cpu backend: kernel tables, workspace, task ranges.
 *
 * Kernels come in one table for each instruction set, compiled from the same body with its
 * own flags (gemm_body.inc, rows_body.inc), and are picked once when the device opens:
 *
 *   tile rows x columns   avx512 8 x 32    avx2 6 x 16    Arm 8 x 12    else 4 x 8
 *
 * Products use fused multiply-add where the machine has it; avx2 and avx512 then give the
 * same bytes, since both add the same terms in the same order.  Row kernels never fuse and
 * sum in 16 lanes everywhere.
 */
#ifndef DRUPE_NN_CPU_CPU_IMPL_H
#define DRUPE_NN_CPU_CPU_IMPL_H

#include "nn/nn_impl.h"

/* ---- kernels ---- */

typedef struct {
    const char *name;
    size_t mr, nr; /* the register tile */
    /* c[mr][nr] (rows ldc apart) = or += the sum over k < kc of a[k][mr] b[k][nr].
     * b lies on a 64-byte boundary, or on one of its own rows from there. */
    void (*tile)(float *c, size_t ldc, const float *a, const float *b, size_t kc, bool acc);
    /* The same with a[mr][kc] as it lies in memory, rows lda apart. */
    void (*tile_rows)(float *c, size_t ldc, const float *a, size_t lda, const float *b,
                      size_t kc, bool acc);
    /* dst[c][r] = scale * src[r][c]; rows of dst ldd apart, of src lds apart. */
    void (*transpose)(float *dst, size_t ldd, const float *src, size_t lds, size_t rows,
                      size_t cols, float scale);
} cpu_gemm_kernels;

/* A block of attention scores, keys down, queries across (nr of them). */
typedef struct {
    float *s; /* [keys][nr] scores in, exp(score - max) out */
    size_t keys, nr;
    float *max, *sum; /* [nr] running */
    float *o;         /* [o_rows][nr] running output, rescaled when max grows */
    size_t o_rows;
    bool first; /* nothing before: max, sum and o are not read */
} cpu_softmax;

typedef struct {
    void (*rmsnorm)(float *y, const float *x, const float *w, size_t m, size_t d,
                    float eps);
    void (*rmsnorm_back)(float *dx, const float *dy, const float *x, const float *w,
                         size_t m, size_t d, float eps);
    /* One row of heads. */
    void (*rmsnorm_heads)(float *x, float *kept, const float *w, size_t heads, size_t d,
                          float eps);
    void (*rmsnorm_heads_back)(float *dx, const float *kept, const float *w, size_t heads,
                               size_t d, float eps);
    void (*layernorm)(float *y, const float *x, const float *w, const float *bias, size_t m,
                      size_t d, float eps);
    void (*layernorm_back)(float *dx, const float *dy, const float *x, const float *w,
                           size_t m, size_t d, float eps);
    void (*activate)(float *y, const float *x, size_t m, size_t i, nn_act act);
    void (*activate_back)(float *dx, const float *dy, const float *x, size_t m, size_t i,
                          nn_act act);
    /* One head of one row: pairs (x[i], x[i + half]) turned by cos, sin. */
    void (*rope)(float *x, const float *cos, const float *sin, size_t half, float sign);
    void (*add)(float *y, const float *x, size_t count);
    void (*residual)(float *y, const float *x, size_t count, float scale);
    void (*scale_cap)(float *x, size_t count, float scale, float cap);
    /* Elements first .. first + count - 1 of the mask; first is a multiple of
     * NN_MASK_CHUNK. */
    void (*dropout)(float *y, const float *x, size_t first, size_t count,
                    const nn_mask *mask, bool acc);
    double (*kl)(float *s, const float *t, size_t v, float grad_scale, float cap);
    double (*xent)(float *logits, size_t v, size_t target, float grad_scale, float cap,
                   float smoothing);
    void (*softmax)(const cpu_softmax *s);
    /* p[keys][nr] = exp(p - lse); ds = p * (ds - delta); lse, delta [nr]. */
    void (*softmax_back)(float *p, float *ds, size_t keys, size_t nr, const float *lse,
                         const float *delta);
    /* The same with p capped scores: ds times the slope of the cap. */
    void (*softmax_back_capped)(float *p, float *ds, size_t keys, size_t nr,
                                const float *lse, const float *delta, float cap);
    /* x[rows][nr] *= f[nr] */
    void (*scale_lanes)(float *x, size_t rows, size_t nr, const float *f);
    float (*dot)(const float *a, const float *b, size_t n);
} cpu_row_kernels;

/*
 * What a register tile reads: words of four codes, A's as they are, B's plus 128 where the
 * instructions want them so.  Word p of block k of row i of A is
 * a[k * a_block + i * a_row + p * a_word], word p of all of column j of B b[p * nr + j];
 * scales of block k are sa[k * sa_block + i] and sb[k * sb_block + j], and
 * less[k * sa_block + i] is what the 128s add to a sum, negated: -128 times the sum of A's
 * codes.
 */
typedef struct {
    const int32_t *a, *b, *less;
    const float *sa, *sb;
    size_t a_row, a_word, a_block, sa_block, sb_block;
    size_t words; /* a multiple of 16; of block_words but for the last of all */
    size_t block_words;
} cpu_i8_tile;

typedef struct {
    size_t mr, nr; /* the register tile; nr is a multiple of mr */
    int32_t shift; /* CPU_I8_SHIFT, or 0: B's codes as they are */
    bool a_rows;   /* quantize_columns lays A down as rows */
    /* Before a thread's first tile and after its last; NULL: nothing to do. */
    void (*enter)(void);
    void (*leave)(void);
    /* c[mr][nr] = or += the product, as nn.h defines it. */
    void (*tile)(float *c, size_t ldc, const cpu_i8_tile *t, bool acc);
    /* count <= CPU_I8_BLOCK_MAX values; codes are padded with zeros to a multiple of 64. */
    void (*quantize)(int8_t *codes, float *scale, int32_t *less, const float *x,
                     size_t count);
    /* tokens, a block of them at most, of `count` <= nr columns, rows ldx apart, each
     * column a block: words as A wants them ([words][nr], or a_rows: [nr][block_words])
     * and as B does ([words][nr]), with zeros to a multiple of 16 words; scale[nr],
     * less[nr]. */
    void (*quantize_columns)(int32_t *a, int32_t *b, float *scale, int32_t *less,
                             const float *x, size_t ldx, size_t tokens, size_t count,
                             size_t block_words);
} cpu_i8_kernels;

/*
 * Products of bf16, by words of two values.  A panel is 32 rows of A or columns of B, in
 * steps of 32 of k: two tiles of [16 rows][16 words of k], or of [16 words of k][16
 * columns].  What is missing of a panel is zeros.
 */
enum { CPU_BF16_SIDE = 32, CPU_BF16_STEP = 512 };

typedef struct {
    /* As in cpu_i8_kernels. */
    void (*enter)(void);
    void (*leave)(void);
    /* c[32][32], rows ldc apart, = or += a panel of A times one of B, so many steps. */
    void (*tile)(float *c, size_t ldc, const uint32_t *a, const uint32_t *b, size_t steps,
                 bool acc);
    /* A panel of A from rows of k values, ldx apart. */
    void (*pack_rows)(uint32_t *a, const float *x, size_t ldx, size_t rows, size_t k);
    /* One step of both from tokens <= 32 rows of count <= 32 columns; a may be NULL. */
    void (*pack_columns)(uint32_t *a, uint32_t *b, const float *x, size_t ldx,
                         size_t tokens, size_t count);
    /* A panel of either from the other one's form. */
    void (*turn)(uint32_t *to, const uint32_t *from, size_t steps);
} cpu_bf16_kernels;

/*
 * Products in parts of C, a task each (parts.c): CPU_PART_M rows by CPU_PART_N columns, of
 * a matrix or of a Gram matrix's strips (nn_i8.h).  A part: rows row .. row_end - 1 by
 * columns col .. col_end - 1 of c, rows ldc apart; row and col begin parts.
 */
enum { CPU_PART_M = NN_GRAM_STRIP, CPU_PART_N = 192 };
typedef void (*cpu_part_fn)(const void *product, float *c, size_t ldc, size_t row,
                            size_t row_end, size_t col, size_t col_end);
/* C[M][N] of depth k; bias[N], which is added, may be NULL. */
dr_status cpu_matmul_parts(nn_device *dev, cpu_part_fn part, const void *product, float *c,
                           size_t ldc, const float *bias, size_t m, size_t n, size_t k);
/* The strips of X[M][N]^T X. */
dr_status cpu_gram_parts(nn_device *dev, cpu_part_fn part, const void *product,
                         float *strips, size_t m, size_t n);
void cpu_copy_rows(float *to, size_t ldt, const float *from, size_t ldf, size_t rows,
                   size_t cols);

/* A block's values at most, and what adds 128 to each of a word's four codes. */
enum { CPU_I8_BLOCK_MAX = NN_ROUGH_BLOCK };
enum { CPU_I8_SHIFT = -0x7f7f7f80 };

extern const cpu_i8_kernels cpu_i8_plain, cpu_i8_avx2, cpu_i8_vnni, cpu_i8_amx,
    cpu_i8_tiles;
extern const cpu_bf16_kernels cpu_bf16_amx, cpu_bf16_tiles;
extern const nn_rough_ops cpu_rough_ops, cpu_bf16_ops;
dr_status cpu_bf16_attention(nn_device *dev, float *out, float *lse, const float *qkv,
                             const nn_attn_shape *s);
extern const cpu_gemm_kernels cpu_gemm_plain, cpu_gemm_avx2, cpu_gemm_avx512;
extern const cpu_row_kernels cpu_rows_plain, cpu_rows_avx2, cpu_rows_avx512;

/* ---- the device's state ---- */

typedef struct {
    const cpu_gemm_kernels *gemm;
    const cpu_row_kernels *rows;
    const cpu_i8_kernels *i8;
    const cpu_bf16_kernels *bf16; /* or NULL */
    float *work;                  /* owned: grows to the largest operation's need */
    size_t work_floats;
} cpu_state;

static inline cpu_state *cpu_of(const nn_device *dev)
{
    return dev->state;
}

/* At least this many floats, 64-byte aligned, contents undefined; valid until the next
 * call.  DR_ENOMEM. */
DR_MUST_USE dr_status cpu_work(nn_device *dev, float **out, size_t floats);

/* Tasks on the pool, or one after another in this thread when the work is too small to
 * wake others for (work: rough count of multiply-adds; it decides nothing but that). */
DR_MUST_USE dr_status cpu_tasks(nn_device *dev, size_t count, size_t work, dr_task_fn fn,
                                void *ctx);

static inline size_t cpu_ceil(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

static inline size_t cpu_round(size_t a, size_t b)
{
    return cpu_ceil(a, b) * b;
}

static inline size_t cpu_min(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* ---- packing (gemm_pack.c) ---- */

/* One panel [kc][w] from `count` <= w rows of src that run along k (ld apart); the lanes
 * past count are zero. */
void cpu_pack_rows(const cpu_gemm_kernels *k, float *panel, size_t w, const float *src,
                   size_t ld, size_t count, size_t kc, float scale);
/* The same from kc rows of src that run across the panel. */
void cpu_pack_cols(float *panel, size_t w, const float *src, size_t ld, size_t count,
                   size_t kc);

/* ---- operations, by file ---- */

#define NN_OP(op, params, args) dr_status cpu_##op params;
#include "nn/ops.def"
#undef NN_OP

#endif
