/*
 * cuda_rough.c - what calibration computes, in bf16 (nn_rough.h): twice the rate of 8-bit
 * integers here, and closer.
 *
 * A packed operand is its rows, rounded, each at a multiple of 16 bytes.
 */
#include <cuda_runtime_api.h>

#include "nn/cuda/cuda_impl.h"

enum { PANEL = 16 * NN_GRAM_STRIP };

static size_t bytes_of(size_t n, size_t k)
{
    return n * cu_padded(k) * sizeof(uint16_t);
}

/* to[n][cu_padded(k)] = x[n][k] */
static void round_rows(cu_call *call, void *to, const float *x, size_t n, size_t k)
{
    size_t row = k * sizeof(uint16_t);

    if (!cu_is_bf16(call->c, x)) {
        const float *x_ = cu_in(call, x, n * k);
        CU_LAUNCH(call, cu_narrow(call->c->stream, to, cu_padded(k), x_, k, n, k));
        return;
    }
    const void *from = cu_at(call, x).p;
    CU_LAUNCH(call,
              (int)cudaMemcpy2DAsync(to, cu_padded(k) * sizeof(uint16_t), from, row, row, n,
                                     cudaMemcpyDeviceToDevice, call->c->stream));
}

static dr_status pack(nn_device *dev, void *packed, const float *w, size_t n, size_t k)
{
    size_t bytes = bytes_of(n, k), ld = bytes;
    cu_call call;

    if (n == 0 || k == 0)
        return DR_OK;
    cu_begin(&call, dev);
    void *to = cu_rows(&call, packed, 1, bytes, &ld, 1, false);
    round_rows(&call, to, w, n, k);
    return cu_end(&call);
}

/* x[m][k], rounded for this call: as it is where it is so already. */
static const void *rounded(cu_call *call, const float *x, size_t m, size_t k)
{
    void *to = NULL;

    if (k % CU_PAD == 0 && cu_halves(call, k, x, NULL, NULL))
        return cu_at(call, x).p;
    to = cu_temp(call, bytes_of(m, k));
    round_rows(call, to, x, m, k);
    return to;
}

static dr_status matmul(nn_device *dev, float *y, const float *x, const void *packed,
                        const float *bias, size_t m, size_t n, size_t k, size_t ldy,
                        bool acc)
{
    cu_gemm g = {.ta = true, .bf16 = true, .acc = acc, .m = n, .n = m, .k = k};
    cu_call call;

    if (m == 0 || n == 0)
        return DR_OK;
    cu_begin(&call, dev);
    g.a = cu_in_bytes(&call, packed, bytes_of(n, k));
    g.b = rounded(&call, x, m, k);
    g.lda = g.ldb = cu_padded(k);
    cu_result(&call, &g, y, m, n, ldy);
    cu_multiply(&call, &g);
    cu_gemm_bias(&call, &g, bias, m, n);
    return cu_end(&call);
}

/* Panels of rows of the triangle; what lies behind it in a panel is not used. */
static dr_status gram(nn_device *dev, float *strips, const float *x, size_t m, size_t n,
                      bool first)
{
    size_t floats = nn_gram_floats(n), high = n < PANEL ? n : PANEL;
    cu_gemm g = {
        .tb = true, .bf16 = true, .k = m, .lda = cu_padded(n), .ldb = cu_padded(n)};
    cu_call call;

    if (n == 0)
        return DR_OK;
    if (m == 0)
        return first ? cu_zero(dev, strips, floats * sizeof(*strips)) : DR_OK;
    cu_begin(&call, dev);
    float *to = first ? cu_out(&call, strips, floats) : cu_inout(&call, strips, floats);
    const uint16_t *x_ = rounded(&call, x, m, n);
    float *panel = cu_temp(&call, high * n * sizeof(*panel));
    for (size_t r = 0; r < n && call.st == DR_OK; r += PANEL) {
        g.n = n - r < PANEL ? n - r : PANEL;
        g.m = g.ldc = r + g.n;
        g.a = x_;
        g.b = x_ + r;
        g.c = panel;
        cu_multiply(&call, &g);
        CU_LAUNCH(&call, cu_gram_panel(call.c->stream, to, panel, r, g.n, n, first));
    }
    return cu_end(&call);
}

static dr_status cross(nn_device *dev, bool *taken, float *sum, const float *a,
                       const float *b, const float *scale, const float *in, size_t m,
                       size_t n, size_t k, bool first)
{
    cu_gemm g = {.tb = true, .bf16 = true, .acc = !first, .m = k, .n = n, .k = m};
    cu_call call;

    cu_begin(&call, dev);
    *taken = m > 0 && n % CU_PAD == 0 && k % CU_PAD == 0 && cu_lies_there(&call, a) &&
             cu_lies_there(&call, b);
    if (!*taken)
        return cu_end(&call);
    const cu_values a_ = cu_at(&call, a);
    const cu_values b_ = b != NULL ? cu_at(&call, b) : (cu_values){0};
    const float *scale_ = cu_in(&call, scale, n);
    uint16_t *x = cu_temp(&call, bytes_of(m, n));
    CU_LAUNCH(&call, cu_differences(call.c->stream, x, a_, b_, scale_, m, n));
    g.a = rounded(&call, in, m, k);
    g.b = x;
    g.lda = k;
    g.ldb = n;
    cu_result(&call, &g, sum, n, k, k);
    cu_multiply(&call, &g);
    return cu_end(&call);
}

static dr_status attention(nn_device *dev, float *out, float *lse, const float *qkv,
                           const nn_attn_shape *s)
{
    bool was = cu_of(dev)->bf16;
    dr_status st = DR_OK;

    cu_of(dev)->bf16 = true;
    st = cuda_attention(dev, out, lse, qkv, s);
    cu_of(dev)->bf16 = was;
    return st;
}

const nn_rough_ops cu_rough_ops = {.kind = NN_MEM_BF16,
                                   .bytes = bytes_of,
                                   .pack = pack,
                                   .matmul = matmul,
                                   .gram = gram,
                                   .cross = cross,
                                   .attention = attention};
