/*
 * rough.c - which form a device's rough products have (nn_rough.h).
 */
#include "core/dtype.h"
#include "nn/nn_impl.h"

/* ---- in floats, on a processor ---- */

enum { SLICE = 512 }; /* rows of a weight that are floats at once */

/* Weights are kept as bf16, which most files have; a multiple of a float's bytes. */
static size_t float_bytes(size_t n, size_t k)
{
    return (n * k * sizeof(uint16_t) + sizeof(float) - 1) / sizeof(float) * sizeof(float);
}

typedef struct {
    const float *in;
    uint16_t *out;
    size_t k;
} round_job;

static dr_status round_row(void *ctx, size_t row, int worker)
{
    const round_job *j = ctx;

    (void)worker;
    dr_from_f32(j->out + row * j->k, j->in + row * j->k, DR_DTYPE_BF16, j->k);
    return DR_OK;
}

static dr_status float_pack(nn_device *dev, void *packed, const float *w, size_t n,
                            size_t k)
{
    return dr_pool_run(dev->pool, n, round_row, &(round_job){w, packed, k});
}

typedef struct {
    const uint16_t *in;
    float *out;
    size_t k;
} widen_job;

static dr_status widen_row(void *ctx, size_t row, int worker)
{
    const widen_job *j = ctx;

    (void)worker;
    dr_to_f32(j->out + row * j->k, j->in + row * j->k, DR_DTYPE_BF16, j->k);
    return DR_OK;
}

static dr_status float_matmul(nn_device *dev, float *y, const float *x, const void *packed,
                              const float *bias, size_t m, size_t n, size_t k, size_t ldy,
                              bool acc)
{
    widen_job j = {packed, NULL, k};
    dr_status st = DR_OK;

    DR_TRY(nn_room(&j.out, &dev->slice, &dev->slice_floats, SLICE * k, "rows of a weight"));
    for (size_t at = 0; at < n; at += SLICE) {
        size_t rows = n - at < SLICE ? n - at : SLICE;
        DR_TRY(dr_pool_run(dev->pool, rows, widen_row, &j));
        DR_TRY(nn_matmul_nt(dev, y + at, x, j.out, bias != NULL ? bias + at : NULL, m, rows,
                            k, ldy, acc));
        j.in += rows * k;
    }
done:
    return st;
}

static dr_status float_gram(nn_device *dev, float *strips, const float *x, size_t m,
                            size_t n, bool first)
{
    dr_status st = DR_OK;

    for (size_t r = 0; r < n; r += NN_GRAM_STRIP) {
        size_t high = n - r < NN_GRAM_STRIP ? n - r : NN_GRAM_STRIP, end = r + high;
        DR_TRY(nn_matmul_tn(dev, strips, x + r, x, high, end, m, n, n, !first));
        strips += high * end;
    }
done:
    return st;
}

static const nn_rough_ops floats = {.bytes = float_bytes,
                                    .pack = float_pack,
                                    .matmul = float_matmul,
                                    .gram = float_gram,
                                    .attention = nn_attention};

/* ---- which form ---- */

void nn_rough_common(nn_device *dev)
{
    dev->rough_own = NULL;
    dev->rough = NULL;
}

void nn_rough_take(nn_device *dev, nn_rough_form form)
{
    const nn_rough_ops *own = dev->rough_own;
    bool integers = own != NULL && own->kind == NN_MEM_FLOAT;
    const nn_rough_ops *close = dev->rough_close != NULL ? dev->rough_close : &floats;

    dev->rough = form == NN_ROUGH_COMMON              ? NULL
                 : form == NN_ROUGH_CLOSE && integers ? close
                                                      : own;
}

nn_mem_kind nn_rough_kind(const nn_device *dev)
{
    return dev->rough != NULL ? dev->rough->kind : NN_MEM_FLOAT;
}

size_t nn_rough_bytes(const nn_device *dev, size_t n, size_t k)
{
    return dev->rough != NULL ? dev->rough->bytes(n, k) : nn_i8_packed_bytes(n, k);
}

dr_status nn_rough_pack(nn_device *dev, void *packed, const float *w, size_t n, size_t k)
{
    if (dev->rough != NULL)
        return dev->rough->pack(dev, packed, w, n, k);
    return nn_i8_pack(dev, packed, w, n, k);
}

dr_status nn_rough_matmul(nn_device *dev, float *y, const float *x, const void *packed,
                          const float *bias, size_t m, size_t n, size_t k, size_t ldy,
                          bool acc)
{
    if (dev->rough != NULL)
        return dev->rough->matmul(dev, y, x, packed, bias, m, n, k, ldy, acc);
    return nn_i8_matmul(dev, y, x, packed, bias, m, n, k, ldy, acc);
}

dr_status nn_rough_gram(nn_device *dev, float *strips, const float *x, size_t m, size_t n,
                        bool first)
{
    if (dev->rough != NULL)
        return dev->rough->gram(dev, strips, x, m, n, first);
    return nn_i8_gram(dev, strips, x, m, n, first);
}

dr_status nn_rough_cross(nn_device *dev, bool *taken, float *sum, const float *a,
                         const float *b, const float *scale, const float *in, size_t m,
                         size_t n, size_t k, bool first)
{
    *taken = false;
    if (dev->rough == NULL || dev->rough->cross == NULL)
        return DR_OK;
    return dev->rough->cross(dev, taken, sum, a, b, scale, in, m, n, k, first);
}

dr_status nn_rough_act(nn_device *dev, float *y, float *wide, const float *x,
                       const void *packed, const float *bias, size_t m, size_t i, size_t k,
                       nn_act act)
{
    size_t n = (act.gated ? 2 : 1) * i;
    bool taken = false;
    dr_status st = DR_OK;

    if (dev->rough != NULL && dev->rough->gated != NULL)
        DR_TRY(dev->rough->gated(dev, &taken, y, x, packed, bias, m, i, k, act));
    if (taken)
        goto done;
    DR_TRY(nn_rough_matmul(dev, wide, x, packed, bias, m, n, k, n, false));
    DR_TRY(nn_activate(dev, y, wide, m, i, act));
done:
    return st;
}

dr_status nn_rough_attention(nn_device *dev, float *out, float *lse, const float *qkv,
                             const nn_attn_shape *s)
{
    if (dev->rough != NULL)
        return dev->rough->attention(dev, out, lse, qkv, s);
    return nn_attention(dev, out, lse, qkv, s);
}
