/*
 * ref.c - the reference device: plain loops, sums in double, one thread.  It is the oracle
 * that the other devices are held to; nothing here is fast.
 */
#include <math.h>
#include <string.h>

#include "core/rng.h"
#include "nn/ref/ref_impl.h"

static dr_status open_ref(nn_device *dev)
{
    (void)dev;
    return DR_OK;
}

static void close_ref(nn_device *dev)
{
    (void)dev;
}

dr_status ref_matmul_nt(nn_device *dev, float *y, const float *x, const float *w,
                        const float *bias, size_t m, size_t n, size_t k, size_t ldy,
                        bool acc)
{
    (void)dev;
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < n; j++) {
            double sum = bias != NULL ? (double)bias[j] : 0.0;
            for (size_t l = 0; l < k; l++)
                sum += (double)x[i * k + l] * (double)w[j * k + l];
            float *to = &y[i * ldy + j];
            *to = (float)(acc ? (double)*to + sum : sum);
        }
    }
    return DR_OK;
}

dr_status ref_matmul_nn(nn_device *dev, float *y, const float *x, const float *w, size_t m,
                        size_t k, size_t n, size_t ldx, bool acc)
{
    (void)dev;
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < k; j++) {
            double sum = acc ? (double)y[i * k + j] : 0.0;
            for (size_t l = 0; l < n; l++)
                sum += (double)x[i * ldx + l] * (double)w[l * k + j];
            y[i * k + j] = (float)sum;
        }
    }
    return DR_OK;
}

dr_status ref_matmul_tn(nn_device *dev, float *y, const float *a, const float *b, size_t n,
                        size_t k, size_t m, size_t lda, size_t ldb, bool acc)
{
    (void)dev;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < k; j++) {
            double sum = acc ? (double)y[i * k + j] : 0.0;
            for (size_t l = 0; l < m; l++)
                sum += (double)a[l * lda + i] * (double)b[l * ldb + j];
            y[i * k + j] = (float)sum;
        }
    }
    return DR_OK;
}

static double inverse_norm(const float *x, size_t d, float eps)
{
    double sum = 0.0;

    for (size_t i = 0; i < d; i++)
        sum += (double)x[i] * (double)x[i];
    return 1.0 / sqrt(sum / (double)d + (double)eps);
}

dr_status ref_rmsnorm(nn_device *dev, float *y, const float *x, const float *w, size_t m,
                      size_t d, float eps)
{
    (void)dev;
    for (size_t r = 0; r < m; r++) {
        double inv = inverse_norm(x + r * d, d, eps);
        for (size_t i = 0; i < d; i++)
            y[r * d + i] = (float)((double)x[r * d + i] * inv * (double)w[i]);
    }
    return DR_OK;
}

dr_status ref_rmsnorm_back(nn_device *dev, float *dx, const float *dy, const float *x,
                           const float *w, size_t m, size_t d, float eps)
{
    (void)dev;
    for (size_t r = 0; r < m; r++) {
        const float *xr = x + r * d, *gr = dy + r * d;
        double inv = inverse_norm(xr, d, eps), sum = 0.0;
        for (size_t i = 0; i < d; i++)
            sum += (double)gr[i] * (double)w[i] * (double)xr[i];
        for (size_t i = 0; i < d; i++) {
            double g = (double)gr[i] * (double)w[i] * inv;
            double own = (double)xr[i] * inv * inv * inv * sum / (double)d;
            dx[r * d + i] = (float)((double)dx[r * d + i] + g - own);
        }
    }
    return DR_OK;
}

static double sigmoid(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

dr_status ref_swiglu(nn_device *dev, float *act, const float *gate_up, size_t m, size_t i)
{
    (void)dev;
    for (size_t r = 0; r < m; r++) {
        for (size_t c = 0; c < i; c++) {
            double g = (double)gate_up[r * 2 * i + c],
                   u = (double)gate_up[r * 2 * i + i + c];
            act[r * i + c] = (float)(g * sigmoid(g) * u);
        }
    }
    return DR_OK;
}

dr_status ref_swiglu_back(nn_device *dev, float *dgate_up, const float *dact,
                          const float *gate_up, size_t m, size_t i)
{
    (void)dev;
    for (size_t r = 0; r < m; r++) {
        for (size_t c = 0; c < i; c++) {
            size_t at = r * 2 * i + c;
            double g = (double)gate_up[at], u = (double)gate_up[at + i];
            double da = (double)dact[r * i + c], s = sigmoid(g);
            dgate_up[at] = (float)(da * u * s * (1.0 + g * (1.0 - s)));
            dgate_up[at + i] = (float)(da * g * s);
        }
    }
    return DR_OK;
}

dr_status ref_rope(nn_device *dev, float *qkv, const nn_attn_shape *s, int sign)
{
    size_t half = s->rotary_dim / 2, row = (s->heads + 2 * s->kv_heads) * s->head_dim;

    (void)dev;
    for (size_t r = 0; r < s->b * s->t; r++) {
        for (size_t h = 0; h < s->heads + s->kv_heads; h++) {
            float *x = qkv + r * row + h * s->head_dim;
            for (size_t i = 0; i < half; i++) {
                double c = (double)s->cos[r % s->t * half + i];
                double t = sign * (double)s->sin[r % s->t * half + i];
                double a = (double)x[i], b = (double)x[half + i];
                x[i] = (float)(a * c - b * t);
                x[half + i] = (float)(b * c + a * t);
            }
        }
    }
    return DR_OK;
}

dr_status ref_add(nn_device *dev, float *y, const float *x, size_t count)
{
    (void)dev;
    for (size_t i = 0; i < count; i++)
        y[i] += x[i];
    return DR_OK;
}

dr_status ref_dropout(nn_device *dev, float *y, const float *x, size_t count,
                      const nn_mask *mask, bool acc)
{
    uint32_t words[4];

    (void)dev;
    for (size_t i = 0; i < count; i++) {
        size_t chunk = i / NN_MASK_CHUNK, at = i % NN_MASK_CHUNK;
        dr_philox(words, mask->seed, mask->stream, chunk * 16 + at % 16);
        uint32_t half = at / 16 % 2 == 0 ? words[at / 32] & 0xffffu : words[at / 32] >> 16;
        float v = x[i] * (half >= mask->threshold ? mask->scale : 0.0f);
        y[i] = acc ? y[i] + v : v;
    }
    return DR_OK;
}

dr_status ref_xent(nn_device *dev, double *loss, float *logits, const int32_t *targets,
                   size_t m, size_t v, float grad_scale)
{
    (void)dev;
    for (size_t r = 0; r < m; r++) {
        float *x = logits + r * v;
        double top = (double)x[0], sum = 0.0;
        for (size_t i = 1; i < v; i++)
            top = fmax(top, (double)x[i]);
        for (size_t i = 0; i < v; i++)
            sum += exp((double)x[i] - top);
        loss[r] = log(sum) + top - (double)x[targets[r]];
        for (size_t i = 0; grad_scale != 0.0f && i < v; i++) {
            double p =
                exp((double)x[i] - top) / sum - (i == (size_t)targets[r] ? 1.0 : 0.0);
            x[i] = (float)((double)grad_scale * p);
        }
    }
    return DR_OK;
}

#define NN_OP(op, params, args) .op = ref_##op,
const nn_backend nn_backend_ref = {
    .name = "ref",
    .open = open_ref,
    .close = close_ref,
#include "nn/ops.def"
};
#undef NN_OP
