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

dr_status ref_rmsnorm_heads(nn_device *dev, float *x, float *kept, const float *w, size_t m,
                            size_t ld, size_t heads, size_t d, float eps)
{
    (void)dev;
    for (size_t r = 0; r < m * heads; r++) {
        float *at = x + r / heads * ld + r % heads * d;
        double inv = inverse_norm(at, d, eps);
        if (kept != NULL)
            memcpy(kept + r * d, at, d * sizeof(*at));
        for (size_t i = 0; i < d; i++)
            at[i] = (float)((double)at[i] * inv * (double)w[i]);
    }
    return DR_OK;
}

dr_status ref_rmsnorm_heads_back(nn_device *dev, float *dx, const float *kept,
                                 const float *w, size_t m, size_t ld, size_t heads,
                                 size_t d, float eps)
{
    (void)dev;
    for (size_t r = 0; r < m * heads; r++) {
        const float *x = kept + r * d;
        float *g = dx + r / heads * ld + r % heads * d;
        double inv = inverse_norm(x, d, eps), sum = 0.0;
        for (size_t i = 0; i < d; i++)
            sum += (double)g[i] * (double)w[i] * (double)x[i];
        for (size_t i = 0; i < d; i++) {
            double own = (double)x[i] * inv * inv * inv * sum / (double)d;
            g[i] = (float)((double)g[i] * (double)w[i] * inv - own);
        }
    }
    return DR_OK;
}

/* Mean and 1/sqrt(var + eps) of a row. */
static void moments(double *mean, double *inv, const float *x, size_t d, float eps)
{
    double sum = 0.0, squares = 0.0;

    for (size_t i = 0; i < d; i++)
        sum += (double)x[i];
    *mean = sum / (double)d;
    for (size_t i = 0; i < d; i++)
        squares += ((double)x[i] - *mean) * ((double)x[i] - *mean);
    *inv = 1.0 / sqrt(squares / (double)d + (double)eps);
}

dr_status ref_layernorm(nn_device *dev, float *y, const float *x, const float *w,
                        const float *bias, size_t m, size_t d, float eps)
{
    (void)dev;
    for (size_t r = 0; r < m; r++) {
        double mean = 0.0, inv = 0.0;
        moments(&mean, &inv, x + r * d, d, eps);
        for (size_t i = 0; i < d; i++)
            y[r * d + i] = (float)(((double)x[r * d + i] - mean) * inv * (double)w[i] +
                                   (double)bias[i]);
    }
    return DR_OK;
}

dr_status ref_layernorm_back(nn_device *dev, float *dx, const float *dy, const float *x,
                             const float *w, size_t m, size_t d, float eps)
{
    (void)dev;
    for (size_t r = 0; r < m; r++) {
        const float *xr = x + r * d, *gr = dy + r * d;
        double mean = 0.0, inv = 0.0, sum = 0.0, along = 0.0;
        moments(&mean, &inv, xr, d, eps);
        for (size_t i = 0; i < d; i++) {
            double g = (double)gr[i] * (double)w[i];
            sum += g;
            along += g * ((double)xr[i] - mean) * inv;
        }
        for (size_t i = 0; i < d; i++) {
            double g = (double)gr[i] * (double)w[i], n = ((double)xr[i] - mean) * inv;
            double add = inv * (g - sum / (double)d - n * along / (double)d);
            dx[r * d + i] = (float)((double)dx[r * d + i] + add);
        }
    }
    return DR_OK;
}

/* act(x), and its derivative. */
static double act_of(double *slope, double x, hf_act kind)
{
    const double root = 0.79788456080286535588; /* sqrt(2 / pi) */
    double t = 0.0, u = 0.0;

    switch (kind) {
    case HF_ACT_SILU:
        t = 1.0 / (1.0 + exp(-x));
        *slope = t * (1.0 + x * (1.0 - t));
        return x * t;
    case HF_ACT_GELU_TANH:
        u = root * (x + 0.044715 * x * x * x);
        t = 0.5 * (1.0 + tanh(u));
        *slope = t + 2.0 * x * t * (1.0 - t) * root * (1.0 + 3.0 * 0.044715 * x * x);
        return x * t;
    case HF_ACT_GELU:
        t = 0.5 * (1.0 + erf(x * 0.70710678118654752440));
        *slope = t + x * 0.5 * root * exp(-0.5 * x * x);
        return x * t;
    }
    DR_BUG_IF(true);
    return 0.0;
}

dr_status ref_activate(nn_device *dev, float *y, const float *x, size_t m, size_t i,
                       nn_act act)
{
    size_t row = act.gated ? 2 * i : i;
    double slope = 0.0;

    (void)dev;
    for (size_t r = 0; r < m; r++) {
        for (size_t c = 0; c < i; c++) {
            double up = act.gated ? (double)x[r * row + i + c] : 1.0;
            y[r * i + c] = (float)(act_of(&slope, (double)x[r * row + c], act.kind) * up);
        }
    }
    return DR_OK;
}

dr_status ref_activate_back(nn_device *dev, float *dx, const float *dy, const float *x,
                            size_t m, size_t i, nn_act act)
{
    size_t row = act.gated ? 2 * i : i;

    (void)dev;
    for (size_t r = 0; r < m; r++) {
        for (size_t c = 0; c < i; c++) {
            size_t at = r * row + c;
            double slope = 0.0, g = (double)dy[r * i + c];
            double a = act_of(&slope, (double)x[at], act.kind);
            dx[at] = (float)(g * slope * (act.gated ? (double)x[at + i] : 1.0));
            if (act.gated)
                dx[at + i] = (float)(g * a);
        }
    }
    return DR_OK;
}

dr_status ref_rope(nn_device *dev, float *qkv, const nn_attn_shape *s, int sign)
{
    size_t half = s->rotary_dim / 2, row = (s->heads + 2 * s->kv_heads) * s->head_dim;

    (void)dev;
    for (size_t r = 0; r < s->b * s->t; r++) {
        size_t at = (r % s->t - nn_attn_start(s, r / s->t, r % s->t)) * half;
        for (size_t h = 0; h < s->heads + s->kv_heads; h++) {
            float *x = qkv + r * row + h * s->head_dim;
            for (size_t i = 0; i < half; i++) {
                double c = (double)s->cos[at + i];
                double t = sign * (double)s->sin[at + i];
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

dr_status ref_residual(nn_device *dev, float *y, const float *x, size_t count, float scale)
{
    (void)dev;
    for (size_t i = 0; i < count; i++)
        y[i] = (float)((double)x[i] + (double)scale * (double)y[i]);
    return DR_OK;
}

dr_status ref_scale_cap(nn_device *dev, float *x, size_t count, float scale, float cap)
{
    (void)dev;
    for (size_t i = 0; i < count; i++) {
        double v = (double)scale * (double)x[i];
        x[i] = (float)(cap != 0.0f ? (double)cap * tanh(v / (double)cap) : v);
    }
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

/* The sum of exp(x - top), top the largest. */
static double sum_exp(const float *x, size_t v, double *top)
{
    double sum = 0;

    *top = (double)x[0];
    for (size_t i = 1; i < v; i++)
        *top = fmax(*top, (double)x[i]);
    for (size_t i = 0; i < v; i++)
        sum += exp((double)x[i] - *top);
    return sum;
}

dr_status ref_xent(nn_device *dev, double *loss, float *logits, const int32_t *targets,
                   size_t m, size_t v, float grad_scale, float cap, float smoothing)
{
    double most = 1.0 - (double)smoothing, least = (double)smoothing / (double)v;

    (void)dev;
    for (size_t r = 0; r < m; r++) {
        float *x = logits + r * v;
        double top = 0.0, sum = sum_exp(x, v, &top), all = 0.0;
        for (size_t i = 0; i < v; i++)
            all += (double)x[i];
        loss[r] = log(sum) + top - most * (double)x[targets[r]] - least * all;
        for (size_t i = 0; grad_scale != 0.0f && i < v; i++) {
            double p = exp((double)x[i] - top) / sum - least -
                       (i == (size_t)targets[r] ? most : 0.0);
            double t = cap != 0.0f ? (double)x[i] / (double)cap : 0.0;
            x[i] = (float)((double)grad_scale * p * (1.0 - t * t));
        }
    }
    return DR_OK;
}

dr_status ref_kl(nn_device *dev, double *kl, float *s, const float *t, size_t m, size_t v,
                 float grad_scale, float cap)
{
    (void)dev;
    for (size_t r = 0; r < m; r++, s += v, t += v) {
        double top_s = 0, top_t = 0;
        double sum_s = sum_exp(s, v, &top_s), sum_t = sum_exp(t, v, &top_t);
        kl[r] = log(sum_s) - log(sum_t);
        for (size_t i = 0; i < v; i++) {
            double at_s = (double)s[i] - top_s, at_t = (double)t[i] - top_t;
            double p = exp(at_t) / sum_t;
            double slope = cap != 0.0f ? (double)s[i] / (double)cap : 0.0;
            kl[r] += p * (at_t - at_s);
            if (grad_scale != 0.0f)
                s[i] = (float)((double)grad_scale * (exp(at_s) / sum_s - p) *
                               (1.0 - slope * slope));
        }
    }
    return DR_OK;
}

dr_status ref_row_stats(nn_device *dev, nn_row_stat *stats, const float *a,
                        const float *other, const int32_t *targets, size_t m, size_t v)
{
    (void)dev;
    for (size_t r = 0; r < m; r++) {
        const float *x = a + r * v;
        double sum = 0, over = 0;
        size_t at = 0;
        for (size_t i = 1; i < v; i++)
            at = x[i] > x[at] ? i : at;
        for (size_t i = 0; i < v; i++) {
            double e = (double)expf(x[i] - x[at]);
            sum += e;
            if (other != NULL)
                over += e * ((double)x[i] - (double)other[r * v + i]);
        }
        stats[r] = (nn_row_stat){.top = (double)x[at],
                                 .at = (double)at,
                                 .log_sum = log(sum),
                                 .over = over / sum,
                                 .target = targets != NULL ? (double)x[targets[r]] : 0.0};
    }
    return DR_OK;
}

dr_status ref_unpack(nn_device *dev, float *w, const dr_qtensor *q)
{
    (void)dev;
    dr_qtensor_to_f32(w, q, 0, q->rows);
    return DR_OK;
}

dr_status ref_unpack_back(nn_device *dev, float *ds, const float *dw, const dr_qtensor *q)
{
    size_t blocks = dr_qtensor_blocks(q), block = (size_t)q->block;

    (void)dev;
    for (size_t r = 0; r < q->rows; r++) {
        for (size_t b = 0; b < blocks; b++) {
            double sum = (double)ds[r * blocks + b];
            for (size_t i = b * block; i < q->cols && i < (b + 1) * block; i++)
                sum += (double)(dr_qtensor_code(q, r, i) - dr_qtensor_zero(q, r, b)) *
                       (double)dw[r * q->cols + i];
            ds[r * blocks + b] = (float)sum;
        }
    }
    return DR_OK;
}

dr_status ref_take_rows(nn_device *dev, float *y, const float *table, const int32_t *ids,
                        size_t count, size_t d)
{
    (void)dev;
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < d; k++)
            y[i * d + k] = table[(size_t)ids[i] * d + k];
    return DR_OK;
}

dr_status ref_transpose(nn_device *dev, float *y, const float *x, size_t m, size_t n)
{
    (void)dev;
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++)
            y[j * m + i] = x[i * n + j];
    return DR_OK;
}

dr_status ref_squares(nn_device *dev, double *sums, const float *x, size_t parts,
                      size_t count)
{
    (void)dev;
    for (size_t p = 0; p < parts; p++, x += count) {
        sums[p] = 0;
        for (size_t i = 0; i < count; i++)
            sums[p] += (double)x[i] * (double)x[i];
    }
    return DR_OK;
}

dr_status ref_adamw(nn_device *dev, float *param, float *grad, float *m, float *v,
                    size_t count, const nn_adam *s)
{
    (void)dev;
    for (size_t i = 0; i < count; i++) {
        double g = (double)grad[i] * (double)s->grad_scale;
        double first = (double)m[i] + (g - (double)m[i]) * (double)s->rest1;
        double second = (double)v[i] * (double)s->beta2 + g * g * (double)s->rest2;
        double over = sqrt(second) * (double)s->inv_sqrt_c2 + (double)s->eps;
        m[i] = (float)first;
        v[i] = (float)second;
        param[i] = (float)((double)param[i] * (double)s->decay -
                           (double)s->step_size * (first / over));
        grad[i] = 0;
    }
    return DR_OK;
}

#define NN_OP(op, params, args) .op = ref_##op,
const nn_backend nn_backend_ref = {
    .name = "ref",
    .open = open_ref,
    .close = close_ref,
#include "nn/ops.def"
#include "nn/quant_ops.def"
};
#undef NN_OP
