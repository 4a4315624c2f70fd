/*
 * cuda_ops.c - the other operations: operands into the GPU's memory, a launch, results
 * back.
 */
#include "nn/cuda/cuda_impl.h"

_Static_assert(HF_ACT_SILU == 0 && HF_ACT_GELU_TANH == 1 && HF_ACT_GELU == 2,
               "rows.cu has the same numbers");

dr_status cuda_rmsnorm(nn_device *dev, float *y, const float *x, const float *w, size_t m,
                       size_t d, float eps)
{
    cu_call k;

    if (m == 0)
        return DR_OK;
    cu_begin(&k, dev);
    const float *w_ = cu_in(&k, w, d);
    if (cu_halves(&k, d, y, x, NULL)) {
        CU_LAUNCH(
            &k, cu_rmsnorm_halves(k.c->stream, cu_at(&k, y), cu_at(&k, x), w_, m, d, eps));
        return cu_end(&k);
    }
    const float *x_ = cu_in(&k, x, m * d);
    float *y_ = cu_out(&k, y, m * d);
    CU_LAUNCH(&k, cu_rmsnorm(k.c->stream, y_, x_, w_, m, d, eps));
    return cu_end(&k);
}

dr_status cu_norm_keep(nn_device *dev, bool *taken, float *y, float *kept, const float *x,
                       const float *w, size_t m, size_t d, float eps)
{
    cu_call k;

    cu_begin(&k, dev);
    const float *w_ = cu_in(&k, w, d);
    *taken = m > 0 && cu_halves(&k, d, y, kept, x) && cu_is_bf16(k.c, y) &&
             cu_is_bf16(k.c, kept) && !cu_is_bf16(k.c, x);
    if (*taken)
        CU_LAUNCH(&k, cu_rmsnorm_keep(k.c->stream, cu_at(&k, y).p, cu_at(&k, kept).p,
                                      cu_at(&k, x).p, w_, m, d, eps));
    return cu_end(&k);
}

dr_status cuda_rmsnorm_back(nn_device *dev, float *dx, const float *dy, const float *x,
                            const float *w, size_t m, size_t d, float eps)
{
    cu_call k;

    if (m == 0)
        return DR_OK;
    cu_begin(&k, dev);
    const float *w_ = cu_in(&k, w, d);
    if (cu_is_bf16(k.c, dy) && cu_halves(&k, d, dx, dy, x)) {
        CU_LAUNCH(&k, cu_rmsnorm_back_halves(k.c->stream, cu_at(&k, dx), NULL,
                                             cu_at(&k, dy).p, cu_at(&k, x), w_, m, d, eps));
        return cu_end(&k);
    }
    const float *dy_ = cu_in(&k, dy, m * d), *x_ = cu_in(&k, x, m * d);
    float *dx_ = cu_inout(&k, dx, m * d);
    CU_LAUNCH(&k, cu_rmsnorm_back(k.c->stream, dx_, dy_, x_, w_, m, d, eps));
    return cu_end(&k);
}

dr_status cu_norm_back_keep(nn_device *dev, bool *taken, float *dx, float *kept,
                            const float *dy, const float *x, const float *w, size_t m,
                            size_t d, float eps)
{
    cu_call k;

    cu_begin(&k, dev);
    const float *w_ = cu_in(&k, w, d);
    *taken = m > 0 && cu_is_bf16(k.c, kept) && cu_is_bf16(k.c, dy) &&
             !cu_is_bf16(k.c, dx) && cu_halves(&k, d, dx, dy, x) &&
             cu_halves(&k, d, kept, NULL, NULL);
    if (*taken)
        CU_LAUNCH(&k, cu_rmsnorm_back_halves(k.c->stream, cu_at(&k, dx), cu_at(&k, kept).p,
                                             cu_at(&k, dy).p, cu_at(&k, x), w_, m, d, eps));
    return cu_end(&k);
}

dr_status cuda_rmsnorm_heads(nn_device *dev, float *x, float *kept, const float *w,
                             size_t m, size_t ld, size_t heads, size_t d, float eps)
{
    cu_call k;

    if (m == 0)
        return DR_OK;
    cu_begin(&k, dev);
    const float *w_ = cu_in(&k, w, d);
    float *kept_ = cu_out(&k, kept, m * heads * d);
    float *x_ = cu_rows(&k, x, m, heads * d, &ld, sizeof(*x), true);
    CU_LAUNCH(&k, cu_rmsnorm_heads(k.c->stream, x_, kept_, w_, m, ld, heads, d, eps));
    return cu_end(&k);
}

dr_status cuda_rmsnorm_heads_back(nn_device *dev, float *dx, const float *kept,
                                  const float *w, size_t m, size_t ld, size_t heads,
                                  size_t d, float eps)
{
    cu_call k;

    if (m == 0)
        return DR_OK;
    cu_begin(&k, dev);
    const float *w_ = cu_in(&k, w, d), *kept_ = cu_in(&k, kept, m * heads * d);
    float *dx_ = cu_rows(&k, dx, m, heads * d, &ld, sizeof(*dx), true);
    CU_LAUNCH(&k, cu_rmsnorm_heads_back(k.c->stream, dx_, kept_, w_, m, ld, heads, d, eps));
    return cu_end(&k);
}

dr_status cuda_layernorm(nn_device *dev, float *y, const float *x, const float *w,
                         const float *bias, size_t m, size_t d, float eps)
{
    cu_call k;

    if (m == 0)
        return DR_OK;
    cu_begin(&k, dev);
    const float *x_ = cu_in(&k, x, m * d), *w_ = cu_in(&k, w, d);
    const float *bias_ = cu_in(&k, bias, d);
    float *y_ = cu_out(&k, y, m * d);
    CU_LAUNCH(&k, cu_layernorm(k.c->stream, y_, x_, w_, bias_, m, d, eps));
    return cu_end(&k);
}

dr_status cuda_layernorm_back(nn_device *dev, float *dx, const float *dy, const float *x,
                              const float *w, size_t m, size_t d, float eps)
{
    cu_call k;

    if (m == 0)
        return DR_OK;
    cu_begin(&k, dev);
    const float *dy_ = cu_in(&k, dy, m * d), *x_ = cu_in(&k, x, m * d);
    const float *w_ = cu_in(&k, w, d);
    float *dx_ = cu_inout(&k, dx, m * d);
    CU_LAUNCH(&k, cu_layernorm_back(k.c->stream, dx_, dy_, x_, w_, m, d, eps));
    return cu_end(&k);
}

/* Are these all bf16, in rows of eights? */
static bool all_bf16(const cu_call *k, size_t d, const void *a, const void *b,
                     const void *c)
{
    return cu_halves(k, d, a, b, c) && cu_is_bf16(k->c, a) && cu_is_bf16(k->c, b) &&
           (c == NULL || cu_is_bf16(k->c, c));
}

dr_status cuda_activate(nn_device *dev, float *y, const float *x, size_t m, size_t i,
                        nn_act act)
{
    cu_call k;

    if (m == 0)
        return DR_OK;
    cu_begin(&k, dev);
    if (all_bf16(&k, i, y, x, NULL)) {
        CU_LAUNCH(&k, cu_activate_halves(k.c->stream, cu_at(&k, y).p, cu_at(&k, x).p, NULL,
                                         m, i, (int)act.kind, act.gated));
        return cu_end(&k);
    }
    const float *x_ = cu_in(&k, x, m * i * (act.gated ? 2 : 1));
    float *y_ = cu_out(&k, y, m * i);
    CU_LAUNCH(&k, cu_activate(k.c->stream, y_, x_, m, i, (int)act.kind, act.gated));
    return cu_end(&k);
}

dr_status cuda_activate_change(nn_device *dev, float *y, const float *x, const float *base,
                               size_t m, size_t i, int act, bool gated)
{
    cu_call k;

    if (m == 0)
        return DR_OK;
    cu_begin(&k, dev);
    if (all_bf16(&k, i, y, x, base)) {
        CU_LAUNCH(&k, cu_activate_halves(k.c->stream, cu_at(&k, y).p, cu_at(&k, x).p,
                                         cu_at(&k, base).p, m, i, act, gated));
        return cu_end(&k);
    }
    const float *x_ = cu_in(&k, x, m * i * (gated ? 2 : 1));
    const float *base_ = cu_in(&k, base, m * i);
    float *y_ = cu_out(&k, y, m * i);
    CU_LAUNCH(&k, cu_activate(k.c->stream, y_, x_, m, i, act, gated));
    CU_LAUNCH(&k, cu_subtract(k.c->stream, y_, y_, base_, m * i, 1.0f));
    return cu_end(&k);
}

dr_status cuda_activate_back(nn_device *dev, float *dx, const float *dy, const float *x,
                             size_t m, size_t i, nn_act act)
{
    cu_call k;

    if (m == 0)
        return DR_OK;
    cu_begin(&k, dev);
    if (all_bf16(&k, i, dx, dy, x)) {
        CU_LAUNCH(&k,
                  cu_activate_back_halves(k.c->stream, cu_at(&k, dx).p, cu_at(&k, dy).p,
                                          cu_at(&k, x).p, m, i, (int)act.kind, act.gated));
        return cu_end(&k);
    }
    const float *x_ = cu_in(&k, x, m * i * (act.gated ? 2 : 1));
    const float *dy_ = cu_in(&k, dy, m * i);
    float *dx_ = cu_out(&k, dx, m * i * (act.gated ? 2 : 1));
    CU_LAUNCH(&k,
              cu_activate_back(k.c->stream, dx_, dy_, x_, m, i, (int)act.kind, act.gated));
    return cu_end(&k);
}

/* ---- attention ---- */

static size_t row_of(const nn_attn_shape *s)
{
    return (s->heads + 2 * s->kv_heads) * s->head_dim;
}

/* Positions that tables have: of the whole sequence, or of the longest document, which the
 * caller knows; what is asked for is the longest here. */
static size_t positions(const nn_attn_shape *s)
{
    size_t most = 0;

    for (size_t i = 0; i < s->b * s->t; i++) {
        size_t at = i % s->t - nn_attn_start(s, i / s->t, i % s->t) + 1;
        most = at > most ? at : most;
    }
    return most;
}

static void take_shape(cu_call *k, cu_attn_shape *to, const nn_attn_shape *s, bool tables)
{
    size_t half = s->rotary_dim / 2;

    *to = (cu_attn_shape){.b = s->b,
                          .t = s->t,
                          .heads = s->heads,
                          .kv_heads = s->kv_heads,
                          .head_dim = s->head_dim,
                          .rotary_dim = s->rotary_dim,
                          .window = s->window,
                          .scale = s->scale,
                          .softcap = s->softcap};
    to->starts = cu_in_bytes(k, s->starts, s->b * s->t * sizeof(*s->starts));
    if (tables) {
        size_t rows = cu_find(k->c, s->cos) != NULL ? 0 : positions(s);
        to->cos = cu_in(k, s->cos, rows * half);
        to->sin = cu_in(k, s->sin, rows * half);
    }
    if (k->st == DR_OK && s->head_dim > CU_HEAD_DIM_MAX)
        k->st =
            dr_fail(DR_EUNSUPPORTED, "cuda: heads of %zu values; attention has at most %d",
                    s->head_dim, CU_HEAD_DIM_MAX);
}

/* Are attention's operands rounded, and is there a kernel for it? */
static bool rounds(const cu_call *k, const nn_attn_shape *s)
{
    return k->c->bf16 && s->head_dim <= CU_HEAD_DIM_BF16 && s->head_dim % 8 == 0;
}

/* Room for what will be p[count], in bf16: p itself where that is bf16. */
static void *out_bf16(cu_call *k, float *p, size_t count)
{
    return cu_is_bf16(k->c, p) ? cu_at(k, p).p : cu_temp(k, count * sizeof(uint16_t));
}

/* p[count] = what is there. */
static void widen_out(cu_call *k, float *p, const void *from, size_t count)
{
    float *to = NULL;

    if (cu_is_bf16(k->c, p))
        return;
    to = cu_out(k, p, count);
    CU_LAUNCH(k, cu_widen(k->c->stream, to, count, from, count, 1, count));
}

dr_status cuda_rope(nn_device *dev, float *qkv, const nn_attn_shape *s, int sign)
{
    cu_attn_shape a;
    cu_call k;

    if (s->b * s->t == 0 || s->rotary_dim == 0)
        return DR_OK;
    cu_begin(&k, dev);
    take_shape(&k, &a, s, true);
    if (s->rotary_dim % 16 == 0 && cu_halves(&k, s->head_dim, qkv, NULL, NULL)) {
        CU_LAUNCH(&k, cu_rope_halves(k.c->stream, cu_at(&k, qkv).p, &a, sign));
        return cu_end(&k);
    }
    float *qkv_ = cu_inout(&k, qkv, s->b * s->t * row_of(s));
    CU_LAUNCH(&k, cu_rope(k.c->stream, qkv_, &a, sign));
    return cu_end(&k);
}

dr_status cuda_attention(nn_device *dev, float *out, float *lse, const float *qkv,
                         const nn_attn_shape *s)
{
    size_t m = s->b * s->t, wide = m * s->heads * s->head_dim;
    cu_attn_shape a;
    cu_call k;

    if (m == 0)
        return DR_OK;
    cu_begin(&k, dev);
    take_shape(&k, &a, s, false);
    float *lse_ = cu_out(&k, lse, m * s->heads);
    if (rounds(&k, s)) {
        const void *qkv_ = cu_in_bf16(&k, qkv, m * row_of(s));
        void *out_ = out_bf16(&k, out, wide);
        CU_LAUNCH(&k, cu_attention_bf16(k.c->stream, out_, lse_, qkv_, &a));
        widen_out(&k, out, out_, wide);
        return cu_end(&k);
    }
    const float *qkv_ = cu_in(&k, qkv, m * row_of(s));
    float *out_ = cu_out(&k, out, wide);
    CU_LAUNCH(&k, cu_attention(k.c->stream, out_, lse_, qkv_, &a));
    return cu_end(&k);
}

/* The backward by bf16; with a's tables turned back. */
static void back_by_bf16(cu_call *k, float *dqkv, const float *dout, const float *out,
                         const float *lse, const float *qkv, const cu_attn_shape *a)
{
    size_t m = a->b * a->t, wide = m * a->heads * a->head_dim;
    size_t all = m * (a->heads + 2 * a->kv_heads) * a->head_dim;
    float *delta = cu_temp(k, (m * a->heads + 1) * sizeof(*delta));
    const float *lse_ = cu_in(k, lse, m * a->heads);
    const void *dout_ = cu_in_bf16(k, dout, wide), *out_ = cu_in_bf16(k, out, wide);
    const void *qkv_ = cu_in_bf16(k, qkv, all);
    void *dqkv_ = out_bf16(k, dqkv, all);

    CU_LAUNCH(
        k, cu_attention_back_bf16(k->c->stream, dqkv_, delta, dout_, out_, lse_, qkv_, a));
    widen_out(k, dqkv, dqkv_, all);
}

dr_status cu_attention_back_turned(nn_device *dev, bool *taken, float *dqkv,
                                   const float *dout, const float *out, const float *lse,
                                   const float *qkv, const nn_attn_shape *s)
{
    cu_attn_shape a;
    cu_call k;

    cu_begin(&k, dev);
    take_shape(&k, &a, s, true);
    *taken = s->b * s->t > 0 && s->rotary_dim == s->head_dim && rounds(&k, s) &&
             cu_hopper_serves(&a);
    if (*taken)
        back_by_bf16(&k, dqkv, dout, out, lse, qkv, &a);
    return cu_end(&k);
}

dr_status cuda_attention_back(nn_device *dev, float *dqkv, const float *dout,
                              const float *out, const float *lse, const float *qkv,
                              const nn_attn_shape *s)
{
    size_t m = s->b * s->t, wide = m * s->heads * s->head_dim, all = m * row_of(s);
    cu_attn_shape a;
    cu_call k;

    if (m == 0)
        return DR_OK;
    cu_begin(&k, dev);
    take_shape(&k, &a, s, false);
    if (rounds(&k, s)) {
        back_by_bf16(&k, dqkv, dout, out, lse, qkv, &a);
        return cu_end(&k);
    }
    const float *lse_ = cu_in(&k, lse, m * s->heads);
    float *delta = cu_temp(&k, m * s->heads * sizeof(*delta));
    const float *dout_ = cu_in(&k, dout, wide), *out_ = cu_in(&k, out, wide);
    const float *qkv_ = cu_in(&k, qkv, all);
    float *dqkv_ = cu_out(&k, dqkv, all);
    CU_LAUNCH(&k,
              cu_attention_back(k.c->stream, dqkv_, delta, dout_, out_, lse_, qkv_, &a));
    return cu_end(&k);
}

/* ---- integers ---- */

static size_t padded(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static size_t code_blocks(size_t k)
{
    return (k + NN_I8_BLOCK - 1) / NN_I8_BLOCK;
}

/* n rows of k codes at p: scales [blocks][n], then codes, each row a multiple of 4; never
 * more than nn_i8_packed_bytes. */
static cu_codes codes_at(void *p, size_t n, size_t k)
{
    size_t wide = padded(n, 16), ld = padded(k, 4);
    float *scales = p;

    return (cu_codes){(int8_t *)(scales + wide * code_blocks(k)), scales, n, k, ld, wide};
}

static size_t codes_bytes(size_t n, size_t k)
{
    return padded(n, 16) * code_blocks(k) * sizeof(float) + n * padded(k, 4);
}

dr_status cuda_i8_pack(nn_device *dev, void *packed, const float *w, size_t n, size_t k)
{
    size_t bytes = codes_bytes(n, k), ld = bytes;
    cu_call call;

    if (n == 0 || k == 0)
        return DR_OK;
    cu_begin(&call, dev);
    const float *w_ = cu_in(&call, w, n * k);
    void *to = cu_rows(&call, packed, 1, bytes, &ld, 1, false);
    const cu_codes c = codes_at(to, n, k);
    CU_LAUNCH(&call, cu_code_rows(call.c->stream, &c, w_));
    return cu_end(&call);
}

dr_status cuda_i8_matmul(nn_device *dev, float *y, const float *x, const void *packed,
                         const float *bias, size_t m, size_t n, size_t k, size_t ldy,
                         bool acc)
{
    cu_call call;
    union {
        const void *in;
        void *out;
    } its = {0};

    if (m == 0 || n == 0)
        return DR_OK;
    cu_begin(&call, dev);
    its.in = cu_in_bytes(&call, packed, codes_bytes(n, k));
    const cu_codes w = codes_at(its.out, n, k);
    const cu_codes a = codes_at(cu_temp(&call, codes_bytes(m, k)), m, k);
    const float *x_ = cu_in(&call, x, m * k), *bias_ = cu_in(&call, bias, n);
    float *y_ = cu_rows(&call, y, m, n, &ldy, sizeof(*y), acc);
    CU_LAUNCH(&call, cu_code_rows(call.c->stream, &a, x_));
    CU_LAUNCH(&call, cu_code_product(call.c->stream, y_, &a, &w, bias_, ldy, acc));
    return cu_end(&call);
}

dr_status cuda_i8_gram(nn_device *dev, float *strips, const float *x, size_t m, size_t n,
                       bool first)
{
    size_t floats = nn_gram_floats(n);
    cu_call call;

    if (n == 0)
        return DR_OK;
    cu_begin(&call, dev);
    const cu_codes a = codes_at(cu_temp(&call, codes_bytes(n, m)), n, m);
    const float *x_ = cu_in(&call, x, m * n);
    float *to = first ? cu_out(&call, strips, floats) : cu_inout(&call, strips, floats);
    CU_LAUNCH(&call, cu_code_columns(call.c->stream, &a, x_));
    CU_LAUNCH(&call, cu_code_gram(call.c->stream, to, &a, first));
    return cu_end(&call);
}

/* ---- elements ---- */

dr_status cuda_add(nn_device *dev, float *y, const float *x, size_t count)
{
    cu_call k;

    if (count == 0)
        return DR_OK;
    cu_begin(&k, dev);
    const float *x_ = cu_in(&k, x, count);
    float *y_ = cu_inout(&k, y, count);
    CU_LAUNCH(&k, cu_add(k.c->stream, y_, x_, count));
    return cu_end(&k);
}

dr_status cuda_residual(nn_device *dev, float *y, const float *x, size_t count, float scale)
{
    cu_call k;

    if (count == 0)
        return DR_OK;
    cu_begin(&k, dev);
    const float *x_ = cu_in(&k, x, count);
    float *y_ = cu_inout(&k, y, count);
    CU_LAUNCH(&k, cu_residual(k.c->stream, y_, x_, count, scale));
    return cu_end(&k);
}

dr_status cuda_scale_cap(nn_device *dev, float *x, size_t count, float scale, float cap)
{
    cu_call k;

    if (count == 0)
        return DR_OK;
    cu_begin(&k, dev);
    if (cap == 0.0f && cu_halves(&k, count, x, NULL, NULL)) {
        const cu_values v = cu_at(&k, x);
        CU_LAUNCH(&k, cu_scaled_halves(k.c->stream, v, v, count, scale));
        return cu_end(&k);
    }
    float *x_ = cu_inout(&k, x, count);
    CU_LAUNCH(&k, cu_scale_cap(k.c->stream, x_, count, scale, cap));
    return cu_end(&k);
}

dr_status cuda_dropout(nn_device *dev, float *y, const float *x, size_t count,
                       const nn_mask *mask, bool acc)
{
    cu_call k;

    if (count == 0)
        return DR_OK;
    cu_begin(&k, dev);
    if (all_bf16(&k, count, y, x, NULL)) {
        CU_LAUNCH(&k, cu_dropout_halves(k.c->stream, cu_at(&k, y).p, cu_at(&k, x).p, count,
                                        mask->seed, mask->stream, mask->threshold,
                                        mask->scale, acc));
        return cu_end(&k);
    }
    const float *x_ = cu_in(&k, x, count);
    float *y_ = acc ? cu_inout(&k, y, count) : cu_out(&k, y, count);
    CU_LAUNCH(&k, cu_dropout(k.c->stream, y_, x_, count, mask->seed, mask->stream,
                             mask->threshold, mask->scale, acc));
    return cu_end(&k);
}

/* ---- behind a dropout's mask ---- */

static cu_mask mask_of(const nn_mask *mask, size_t m, size_t sequences, uint64_t step)
{
    return (cu_mask){.seed = mask->seed,
                     .stream = mask->stream,
                     .stream_step = step,
                     .threshold = mask->threshold,
                     .scale = mask->scale,
                     .rows = m / sequences};
}

/* Has low_rank.cu a kernel for these?  most: the largest rank. */
static bool masks(const cu_call *k, size_t m, size_t cols, size_t r, size_t most,
                  const float *const operands[3])
{
    return m > 0 && cols % NN_MASK_CHUNK == 0 && r % 16 == 0 && r <= most &&
           all_bf16(k, cols, operands[0], operands[1], operands[2]);
}

dr_status cu_masked_product(nn_device *dev, bool *taken, float *y, const float *x,
                            const float *w, size_t m, size_t k, size_t r,
                            const nn_mask *mask, size_t sequences, uint64_t step)
{
    const cu_mask its = mask_of(mask, m, sequences, step);
    cu_call call;

    cu_begin(&call, dev);
    *taken = masks(&call, m, k, r, CU_RANK_MAX, (const float *[]){y, x, w});
    if (*taken)
        CU_LAUNCH(&call, cu_low_rank(call.c->stream, cu_at(&call, y).p, cu_at(&call, x).p,
                                     cu_at(&call, w).p, m, k, r, &its));
    return cu_end(&call);
}

dr_status cu_masked_factor(nn_device *dev, bool *taken, float *u, const float *x,
                           const float *w, size_t m, size_t k, size_t r,
                           const nn_mask *mask, size_t sequences, uint64_t step)
{
    const cu_mask its = mask_of(mask, m, sequences, step);
    cu_call call;

    cu_begin(&call, dev);
    *taken = masks(&call, m, k, r, CU_FACTOR_RANK, (const float *[]){u, x, w});
    if (*taken) {
        float *room = cu_temp(&call, CU_MASKED_PARTS * m * r * sizeof(*room));
        CU_LAUNCH(&call,
                  cu_low_rank_factor(call.c->stream, cu_at(&call, u).p, room,
                                     cu_at(&call, x).p, cu_at(&call, w).p, m, k, r, &its));
    }
    return cu_end(&call);
}

/* ---- the optimizer and the loss ---- */

dr_status cuda_squares(nn_device *dev, double *sums, const float *x, size_t parts,
                       size_t count)
{
    size_t ld = parts;
    cu_call k;

    cu_begin(&k, dev);
    double *room = cu_temp(&k, parts * CU_SQUARES * sizeof(*room));
    double *sums_ = cu_rows(&k, sums, 1, parts, &ld, sizeof(*sums), false);
    if (cu_halves(&k, count, x, NULL, NULL)) {
        CU_LAUNCH(
            &k, cu_squares_halves(k.c->stream, sums_, room, cu_at(&k, x).p, parts, count));
        return cu_end(&k);
    }
    const float *x_ = cu_in(&k, x, parts * count);
    CU_LAUNCH(&k, cu_squares(k.c->stream, sums_, room, x_, parts, count));
    return cu_end(&k);
}

dr_status cuda_adamw(nn_device *dev, float *param, float *grad, float *m, float *v,
                     size_t count, const nn_adam *s)
{
    const float numbers[] = {s->grad_scale, s->rest1,     s->beta2,       s->rest2,
                             s->decay,      s->step_size, s->inv_sqrt_c2, s->eps};
    cu_call k;

    if (count == 0)
        return DR_OK;
    cu_begin(&k, dev);
    float *param_ = cu_inout(&k, param, count), *grad_ = cu_inout(&k, grad, count);
    float *m_ = cu_inout(&k, m, count), *v_ = cu_inout(&k, v, count);
    CU_LAUNCH(&k, cu_adamw(k.c->stream, param_, grad_, m_, v_, count, numbers));
    return cu_end(&k);
}

dr_status cuda_xent(nn_device *dev, double *loss, float *logits, const int32_t *targets,
                    size_t m, size_t v, float grad_scale, float cap, float smoothing)
{
    size_t ld = m;
    cu_call k;

    if (m == 0)
        return DR_OK;
    cu_begin(&k, dev);
    const int32_t *targets_ = cu_in_bytes(&k, targets, m * sizeof(*targets));
    double *loss_ = cu_rows(&k, loss, 1, m, &ld, sizeof(*loss), false);
    cu_values grad = {NULL, false};
    const float *logits_ = NULL;
    if (grad_scale != 0.0f) {
        grad.p = cu_inout(&k, logits, m * v);
        logits_ = grad.p;
    } else {
        logits_ = cu_in(&k, logits, m * v);
    }
    CU_LAUNCH(&k, cu_xent(k.c->stream, loss_, grad, logits_, targets_, m, v, grad_scale,
                          cap, smoothing));
    return cu_end(&k);
}

dr_status cu_xent_apart(nn_device *dev, bool *taken, double *loss, float *grad,
                        const float *logits, const int32_t *targets, size_t m, size_t v,
                        float grad_scale, float cap, float smoothing)
{
    size_t ld = m;
    cu_call k;

    cu_begin(&k, dev);
    *taken = m > 0 && cu_find(k.c, grad) != NULL && cu_find(k.c, logits) != NULL &&
             !cu_is_bf16(k.c, logits);
    if (!*taken)
        return cu_end(&k);
    const int32_t *targets_ = cu_in_bytes(&k, targets, m * sizeof(*targets));
    double *loss_ = cu_rows(&k, loss, 1, m, &ld, sizeof(*loss), false);
    CU_LAUNCH(&k, cu_xent(k.c->stream, loss_, cu_at(&k, grad), cu_at(&k, logits).p,
                          targets_, m, v, grad_scale, cap, smoothing));
    return cu_end(&k);
}

/* ---- packed weights ---- */

/* Sizes as qtensor.h has them, whose code is not in this library. */
static cu_packed packed_at(cu_call *k, const dr_qtensor *q)
{
    size_t block = (size_t)q->block, bits = (size_t)q->bits;
    size_t blocks = (q->cols + block - 1) / block, row = blocks * block * bits / 8;
    size_t zeros = (blocks * bits + 7) / 8;

    return (cu_packed){.codes = cu_in_bytes(k, q->codes, q->rows * row),
                       .zeros = q->zeros != NULL ? cu_in_bytes(k, q->zeros, q->rows * zeros)
                                                 : NULL,
                       .scales = cu_in(k, q->scales, q->rows * blocks),
                       .rows = q->rows,
                       .cols = q->cols,
                       .block = block,
                       .blocks = blocks,
                       .row_bytes = row,
                       .zero_bytes = zeros,
                       .bits = q->bits};
}

dr_status cuda_unpack(nn_device *dev, float *w, const dr_qtensor *q)
{
    cu_call k;

    cu_begin(&k, dev);
    const cu_packed q_ = packed_at(&k, q);
    if (q->bits != 2 && q->block % 8 == 0 && cu_halves(&k, q->cols, w, NULL, NULL)) {
        CU_LAUNCH(&k, cu_unpack_halves(k.c->stream, cu_at(&k, w).p, &q_));
        return cu_end(&k);
    }
    float *w_ = cu_out(&k, w, q->rows * q->cols);
    CU_LAUNCH(&k, cu_unpack(k.c->stream, w_, &q_));
    return cu_end(&k);
}

dr_status cuda_unpack_back(nn_device *dev, float *ds, const float *dw, const dr_qtensor *q)
{
    cu_call k;

    cu_begin(&k, dev);
    const cu_packed q_ = packed_at(&k, q);
    const float *dw_ = cu_in(&k, dw, q->rows * q->cols);
    float *ds_ = cu_inout(&k, ds, q_.rows * q_.blocks);
    CU_LAUNCH(&k, cu_unpack_back(k.c->stream, ds_, dw_, &q_));
    return cu_end(&k);
}

dr_status cuda_take_rows(nn_device *dev, float *y, const float *table, const int32_t *ids,
                         size_t count, size_t d)
{
    size_t rows = 0;
    cu_values from = {0};
    cu_call k;

    if (count == 0)
        return DR_OK;
    cu_begin(&k, dev);
    for (size_t i = 0; i < count; i++)
        rows = (size_t)ids[i] + 1 > rows ? (size_t)ids[i] + 1 : rows;
    if (cu_find(k.c, table) != NULL)
        from = cu_at(&k, table);
    else
        from.p = (void *)(uintptr_t)cu_in(&k, table, rows * d);
    const int32_t *ids_ = cu_in_bytes(&k, ids, count * sizeof(*ids));
    const cu_values to = {cu_out(&k, y, count * d), false};
    CU_LAUNCH(&k, cu_take_rows(k.c->stream, to, from, ids_, count, d));
    return cu_end(&k);
}

dr_status cuda_transpose(nn_device *dev, float *y, const float *x, size_t m, size_t n)
{
    cu_call k;

    if (m == 0 || n == 0)
        return DR_OK;
    cu_begin(&k, dev);
    const float *x_ = cu_in(&k, x, m * n);
    float *y_ = cu_out(&k, y, m * n);
    CU_LAUNCH(&k, cu_transpose(k.c->stream, y_, x_, m, n));
    return cu_end(&k);
}

dr_status cuda_kl(nn_device *dev, double *kl, float *s, const float *t, size_t m, size_t v,
                  float grad_scale, float cap)
{
    size_t ld = m;
    cu_call k;

    if (m == 0)
        return DR_OK;
    cu_begin(&k, dev);
    const float *t_ = cu_in(&k, t, m * v);
    double *kl_ = cu_rows(&k, kl, 1, m, &ld, sizeof(*kl), false);
    float *s_ = cu_inout(&k, s, m * v);
    CU_LAUNCH(&k, cu_kl(k.c->stream, kl_, s_, t_, m, v, grad_scale, cap));
    return cu_end(&k);
}
