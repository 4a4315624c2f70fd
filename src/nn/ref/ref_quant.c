/*
 * ref_quant.c - the operations of quantizers (nn_quant.h) in plain loops: weights, codes,
 * grids in float as nn_grid.h has them, sums in double.
 */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "nn/ref/ref_impl.h"

/* ---- groups ---- */

dr_status ref_weight_means(nn_device *dev, float *means, const float *w, const nn_groups *g)
{
    (void)dev;
    for (size_t c0 = 0; c0 < g->k; c0 += g->block) {
        double *sum = dr_calloc(g->block, sizeof(*sum));
        for (size_t r = 0; r < g->n; r++) {
            const float *row = w + r * g->ldw + c0;
            float top = 0.0f;
            for (size_t c = 0; c < g->block; c++)
                top = fabsf(row[c]) > top ? fabsf(row[c]) : top;
            for (size_t c = 0; c < g->block; c++)
                sum[c] += (double)(fabsf(row[c]) / (top + 1e-6f));
        }
        for (size_t c = 0; c < g->block; c++)
            means[c0 + c] = (float)(sum[c] / (double)g->n);
        free(sum);
    }
    return DR_OK;
}

dr_status ref_column_sums(nn_device *dev, double *sum, const float *x, size_t m, size_t k,
                          bool magnitudes, bool first)
{
    (void)dev;
    for (size_t c = 0; c < k; c++) {
        double own = 0;
        for (size_t r = 0; r < m; r++)
            own += (double)(magnitudes ? fabsf(x[r * k + c]) : x[r * k + c]);
        sum[c] = first ? own : sum[c] + own;
    }
    return DR_OK;
}

dr_status ref_gram_blocks(nn_device *dev, float *grams, const float *x, size_t m, size_t n,
                          size_t ldx, size_t block, bool first)
{
    (void)dev;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < block; j++) {
            double sum = first ? 0.0 : (double)grams[i * block + j];
            for (size_t r = 0; r < m; r++)
                sum += (double)x[r * ldx + i] * (double)x[r * ldx + i / block * block + j];
            grams[i * block + j] = (float)sum;
        }
    }
    return DR_OK;
}

static void range_of(float *lo, float *hi, const float *w, size_t n)
{
    *lo = *hi = w[0];
    for (size_t i = 0; i < n; i++) {
        *lo = w[i] < *lo ? w[i] : *lo;
        *hi = w[i] > *hi ? w[i] : *hi;
    }
}

/* err = round(w) - w on the grid; within +-limit first where limit is not 0. */
static void error_of(float *err, const float *w, size_t n, float scale, float zero,
                     float limit, float top)
{
    for (size_t i = 0; i < n; i++) {
        float v = w[i];
        if (limit != 0.0f) {
            v = v > -limit ? v : -limit;
            v = v < limit ? v : limit;
        }
        err[i] = (nn_grid_code(v, scale, zero, top) - zero) * scale - w[i];
    }
}

/* e^T G e over the diagonal blocks. */
static double quad_of(const float *e, const float *grams, size_t n, size_t gram)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < gram; j++)
            sum +=
                (double)e[i] * (double)grams[i * gram + j] * (double)e[i / gram * gram + j];
    }
    return sum;
}

dr_status ref_round_scaled(nn_device *dev, float *out, const float *w, const nn_groups *g,
                           const nn_rule *rule, const float *scale)
{
    float *v = dr_calloc(g->block, sizeof(*v));

    (void)dev;
    for (size_t i = 0; i < g->n * g->k; i += g->block) {
        const float *s = scale + i % g->k, *row = w + i / g->k * g->ldw + i % g->k;
        float lo, hi, step, zero;
        for (size_t c = 0; c < g->block; c++)
            v[c] = row[c] * s[c];
        range_of(&lo, &hi, v, g->block);
        nn_grid_fit(&step, &zero, rule, lo, hi);
        for (size_t c = 0; c < g->block; c++) {
            float code = nn_grid_code(v[c], step, zero, nn_grid_top(rule->bits));
            out[i + c] = (code - zero) * step / s[c];
        }
    }
    free(v);
    return DR_OK;
}

dr_status ref_scaled_errors(nn_device *dev, float *out, const float *w, const nn_groups *g,
                            const nn_rule *rule, const float *scale)
{
    dr_status st = ref_round_scaled(dev, out, w, g, rule, scale);

    for (size_t i = 0; i < g->n * g->k; i++)
        out[i] -= w[i / g->k * g->ldw + i % g->k];
    return st;
}

dr_status ref_activate_change(nn_device *dev, float *y, const float *x, const float *base,
                              size_t m, size_t i, int act, bool gated)
{
    dr_status st = ref_activate(dev, y, x, m, i, (nn_act){(hf_act)act, gated});

    for (size_t k = 0; k < m * i; k++)
        y[k] -= base[k];
    return st;
}

dr_status ref_rank_scales(nn_device *dev, double *loss, const float *w, const nn_groups *g,
                          const nn_rule *rule, const float *scales, size_t count,
                          uint32_t wanted, const float *grams)
{
    float *v = dr_calloc(g->block, sizeof(*v)), *e = dr_calloc(g->block, sizeof(*e));

    (void)dev;
    for (size_t i = 0; i < count; i++) {
        if ((wanted >> i & 1) == 0)
            continue;
        loss[i] = 0;
        for (size_t at = 0; at < g->n * g->k; at += g->block) {
            size_t c0 = at % g->k;
            const float *s = scales + i * g->k + c0, *row = w + at / g->k * g->ldw + c0;
            float lo, hi, step, zero;
            for (size_t c = 0; c < g->block; c++)
                v[c] = row[c] * s[c];
            range_of(&lo, &hi, v, g->block);
            nn_grid_fit(&step, &zero, rule, lo, hi);
            error_of(e, v, g->block, step, zero, 0.0f, nn_grid_top(rule->bits));
            for (size_t c = 0; c < g->block; c++)
                e[c] /= s[c];
            loss[i] += quad_of(e, grams + c0 * g->gram, g->block, g->gram);
        }
    }
    free(v);
    free(e);
    return DR_OK;
}

/* The best of the shrunken ranges for one group. */
static void search(float *scale, float *zero, float *limit, const float *w, size_t n,
                   const nn_rule *rule, const nn_shrink *shrink, const float *grams,
                   size_t gram)
{
    float *e = dr_calloc(n, sizeof(*e)), lo, hi, lo_i, hi_i, s, z;
    double least = 0;

    range_of(&lo, &hi, w, n);
    for (int i = 0; i < shrink->count; i++) {
        float at = nn_grid_shrunken(&lo_i, &hi_i, shrink, i, lo, hi);
        nn_grid_fit(&s, &z, rule, lo_i, hi_i);
        error_of(e, w, n, s, z, shrink->kind == NN_SHRINK_CLIP ? at : 0.0f,
                 nn_grid_top(rule->bits));
        double loss = quad_of(e, grams, n, gram);
        if (i > 0 && !(loss < least))
            continue;
        least = loss;
        *scale = s;
        *zero = z;
        *limit = at;
    }
    free(e);
}

dr_status ref_choose_grids(nn_device *dev, float *scales, float *zeros, float *limits,
                           const float *w, const nn_groups *g, const nn_rule *rule,
                           const nn_shrink *shrink, const float *grams)
{
    (void)dev;
    for (size_t r = 0; r < g->n; r++) {
        for (size_t c = 0; c < g->k; c += g->block) {
            size_t to = r * g->ldg + c / g->block;
            const float *group = w + r * g->ldw + c;
            float lo, hi, limit = 0.0f;
            if (shrink != NULL) {
                search(&scales[to], &zeros[to], &limit, group, g->block, rule, shrink,
                       grams + c * g->gram, g->gram);
            } else {
                range_of(&lo, &hi, group, g->block);
                nn_grid_fit(&scales[to], &zeros[to], rule, lo, hi);
                limit = -lo > hi ? -lo : hi;
            }
            if (limits != NULL)
                limits[to] = limit;
        }
    }
    return DR_OK;
}

dr_status ref_clamp_groups(nn_device *dev, float *w, const nn_groups *g,
                           const float *limits)
{
    (void)dev;
    for (size_t r = 0; r < g->n; r++) {
        for (size_t c = 0; c < g->k; c++) {
            float limit = limits[r * g->ldg + c / g->block], *v = &w[r * g->ldw + c];
            *v = *v > -limit ? *v : -limit;
            *v = *v < limit ? *v : limit;
        }
    }
    return DR_OK;
}

dr_status ref_pack_codes(nn_device *dev, uint8_t *codes, const float *w, const nn_groups *g,
                         const float *scales, const float *zeros, int bits, int stored)
{
    size_t per = 8 / (size_t)stored, row_bytes = g->k / per;

    (void)dev;
    memset(codes, 0, g->n * row_bytes);
    for (size_t r = 0; r < g->n; r++) {
        for (size_t c = 0; c < g->k; c++) {
            size_t b = r * g->ldg + c / g->block;
            float code =
                nn_grid_code(w[r * g->ldw + c], scales[b], zeros[b], nn_grid_top(bits));
            codes[r * row_bytes + c / per] |=
                (uint8_t)((unsigned)(int)code << (c % per * (size_t)stored));
        }
    }
    return DR_OK;
}

dr_status ref_difference(nn_device *dev, double *sums, const float *a, const float *b,
                         size_t parts, size_t count)
{
    (void)dev;
    for (size_t p = 0; p < parts; p++, a += count, b += count) {
        sums[p] = 0;
        for (size_t i = 0; i < count; i++)
            sums[p] += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    }
    return DR_OK;
}

/* ---- matrices ---- */

dr_status ref_scale_matrix(nn_device *dev, float *out, const float *a, size_t rows,
                           size_t cols, const float *col, const float *row, bool divide)
{
    (void)dev;
    for (size_t i = 0; i < rows * cols; i++) {
        float c = col != NULL ? col[i % cols] : 1.0f, r = row != NULL ? row[i / cols] : 1;
        out[i] = divide ? a[i] / (c * r) : a[i] * c / r;
    }
    return DR_OK;
}

dr_status ref_copy_matrix(nn_device *dev, float *dst, size_t ldd, const float *src,
                          size_t lds, size_t rows, size_t cols, float factor)
{
    (void)dev;
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < cols; c++)
            dst[r * ldd + c] = factor * src[r * lds + c];
    }
    return DR_OK;
}

dr_status ref_subtract(nn_device *dev, float *out, const float *a, const float *b,
                       size_t count, float factor)
{
    (void)dev;
    for (size_t i = 0; i < count; i++)
        out[i] = factor * (a[i] - b[i]);
    return DR_OK;
}

dr_status ref_turn_columns(nn_device *dev, float *out, const float *a, const float *b,
                           const float *scale, size_t m, size_t n)
{
    (void)dev;
    for (size_t i = 0; i < n; i++) {
        for (size_t r = 0; r < m; r++) {
            float v = scale != NULL ? a[r * n + i] / scale[i] : a[r * n + i];
            out[i * m + r] = b != NULL ? v - b[r * n + i] : v;
        }
    }
    return DR_OK;
}

dr_status ref_row_dots(nn_device *dev, double *out, const float *a, const float *b,
                       size_t rows, size_t cols)
{
    (void)dev;
    for (size_t r = 0; r < rows; r++) {
        out[r] = 0;
        for (size_t i = r * cols; i < (r + 1) * cols; i++)
            out[r] += (double)a[i] * (double)b[i];
    }
    return DR_OK;
}

dr_status ref_row_quads(nn_device *dev, double *out, const float *a, const float *b,
                        const float *diagonal, size_t rows, size_t cols)
{
    (void)dev;
    for (size_t r = 0; r < rows; r++) {
        const float *p = a + r * cols, *q = b + r * cols;
        out[r] = 0;
        for (size_t i = 0; i < cols; i++)
            out[r] += ((double)p[i] + (double)diagonal[i] * (double)q[i]) * (double)q[i];
    }
    return DR_OK;
}

dr_status ref_choose_rows(nn_device *dev, float *dst, const float *src, size_t rows,
                          size_t cols, const uint32_t *pick, uint32_t which)
{
    (void)dev;
    for (size_t r = 0; r < rows; r++) {
        if (pick[r] == which)
            memcpy(dst + r * cols, src + r * cols, cols * sizeof(*dst));
    }
    return DR_OK;
}

/* ---- GPTQ ---- */

static size_t at(const uint32_t *order, size_t i)
{
    return order != NULL ? order[i] : i;
}

dr_status ref_expand_gram(nn_device *dev, float *h, const float *strips, size_t n,
                          float rest)
{
    (void)dev;
    for (size_t r = 0; r < n; r += NN_GRAM_STRIP) {
        size_t end = n - r < NN_GRAM_STRIP ? n : r + NN_GRAM_STRIP;
        for (size_t i = r; i < end; i++) {
            for (size_t j = 0; j < end; j++, strips++) {
                if (j <= i)
                    h[i * n + j] = h[j * n + i] = i == j ? *strips : *strips * rest;
            }
        }
    }
    return DR_OK;
}

dr_status ref_cut_blocks(nn_device *dev, float *out, const float *h, const uint32_t *order,
                         size_t n, size_t m)
{
    (void)dev;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < m; j++)
            out[i * m + j] = h[at(order, i) * n + at(order, i / m * m + j)];
    }
    return DR_OK;
}

dr_status ref_gather_columns(nn_device *dev, float *out, const float *w,
                             const uint32_t *order, const float *live, size_t rows,
                             size_t n)
{
    (void)dev;
    for (size_t r = 0; r < rows; r++) {
        for (size_t j = 0; j < n; j++) {
            size_t from = at(order, j);
            out[r * n + j] = live[from] > 0.0f ? w[r * n + from] : 0.0f;
        }
    }
    return DR_OK;
}

dr_status ref_fill_factor(nn_device *dev, float *factor, const float *h,
                          const uint32_t *order, size_t n, double mean, double add)
{
    (void)dev;
    for (size_t i = 0; i < n; i++) {
        const float *row = h + at(order, n - 1 - i) * n;
        for (size_t j = 0; j < i; j++)
            factor[i * n + j] = row[at(order, n - 1 - j)];
        double d = (double)row[at(order, n - 1 - i)];
        factor[i * n + i] = (float)((d > 0 ? d : mean) + add);
    }
    return DR_OK;
}

dr_status ref_factor_diagonal(nn_device *dev, float *to, const float *a, size_t ld,
                              size_t nb, float *inv, bool turned)
{
    static const size_t side = NN_FACTOR_MAX;
    double *l = dr_calloc(2 * side * side, sizeof(*l)), *x = l + side * side;

    (void)dev;
    for (size_t i = 0; i < nb; i++) {
        for (size_t j = 0; j <= i; j++) {
            double sum = (double)a[i * ld + j];
            for (size_t k = 0; to != NULL && k < j; k++)
                sum -= l[i * side + k] * l[j * side + k];
            if (to != NULL)
                sum = i == j ? sqrt(sum) : sum / l[j * side + j];
            l[i * side + j] = sum;
            if (to != NULL)
                to[i * ld + j] = (float)sum;
        }
    }
    for (size_t c = 0; c < nb; c++) {
        for (size_t i = c; i < nb; i++) {
            double sum = i == c ? 1 : 0;
            for (size_t k = c; k < i; k++)
                sum -= l[i * side + k] * x[k * side + c];
            x[i * side + c] = sum / l[i * side + i];
        }
    }
    for (size_t i = 0; i < nb; i++) {
        for (size_t j = 0; j < nb; j++) {
            size_t r = turned ? j : i, c = turned ? i : j;
            inv[i * nb + j] = c <= r ? (float)x[r * side + c] : 0.0f;
        }
    }
    free(l);
    return DR_OK;
}

dr_status ref_invert_diagonals(nn_device *dev, float *inv, const float *l, size_t n,
                               bool turned)
{
    const size_t side = NN_FACTOR_MAX;
    dr_status st = DR_OK;

    for (size_t i = 0; i < n; i += side) {
        size_t nb = n - i < side ? n - i : side;
        DR_TRY(
            ref_factor_diagonal(dev, NULL, l + i * n + i, n, nb, inv + i * side, turned));
    }
done:
    return st;
}

dr_status ref_times_square(nn_device *dev, float *b, size_t ldb, size_t rows, size_t nb,
                           const float *square)
{
    double sum[NN_FACTOR_MAX];

    (void)dev;
    for (size_t r = 0; r < rows; r++) {
        for (size_t j = 0; j < nb; j++) {
            sum[j] = 0;
            for (size_t k = 0; k < nb; k++)
                sum[j] += (double)b[r * ldb + k] * (double)square[j * nb + k];
        }
        for (size_t j = 0; j < nb; j++)
            b[r * ldb + j] = (float)sum[j];
    }
    return DR_OK;
}

/* sum[n] = x[K] times the second operand's first n columns. */
static void product_row(double *sum, const nn_product *p, const float *x, size_t n)
{
    memset(sum, 0, n * sizeof(*sum));
    for (size_t j = 0; p->turned && j < n; j++)
        for (size_t k = 0; k < p->k; k++)
            sum[j] += (double)x[k] * (double)p->w[j * p->ldw + k];
    for (size_t k = 0; !p->turned && k < p->k; k++)
        for (size_t j = 0; j < n; j++)
            sum[j] += (double)x[k] * (double)p->w[k * p->ldw + j];
}

dr_status ref_add_product(nn_device *dev, const nn_product *p)
{
    double *sum = dr_calloc(p->n + 1, sizeof(*sum));

    (void)dev;
    for (size_t r = 0; r < p->m; r++) {
        size_t n = p->lower && r < p->n ? r + 1 : p->n;
        product_row(sum, p, p->x + r * p->ldx, n);
        for (size_t j = 0; j < n; j++) {
            float *y = p->y + r * p->ldy + j;
            *y = (float)((p->acc ? (double)*y : 0.0) + (p->minus ? -sum[j] : sum[j]));
        }
    }
    free(sum);
    return DR_OK;
}

dr_status ref_cut_factor(nn_device *dev, float *within, float *pivot, float *spread,
                         const float *factor, size_t n, size_t p0, size_t nb)
{
    size_t last = n - 1 - p0; /* the factor is read backwards */

    (void)dev;
    for (size_t k = 0; k < nb; k++)
        pivot[k] = factor[(last - k) * n + last - k];
    for (size_t i = 0; i < nb; i++) {
        const float *row = factor + (last - i) * n;
        for (size_t k = 0; k < nb; k++)
            within[i * nb + k] = k > i ? row[last - k] / pivot[k] : 0.0f;
        for (size_t k = nb; k <= last; k++) {
            size_t c = last - k;
            spread[i * (last + 1 - nb) + k - nb] = row[c] / factor[c * n + c];
        }
    }
    return DR_OK;
}

dr_status ref_sweep_group(nn_device *dev, const nn_sweep *s)
{
    float cur[NN_FACTOR_MAX];

    (void)dev;
    for (size_t r = 0; r < s->rows; r++) {
        float loss = 0;
        memcpy(cur, s->adj + r * s->ld, s->nb * sizeof(*cur));
        for (size_t k = 0; k < s->nb; k++) {
            float v = cur[k];
            if (s->scales != NULL) {
                float scale = s->scales[r * s->ldg], zero = s->zeros[r * s->ldg];
                v = (nn_grid_code(cur[k], scale, zero, nn_grid_top(s->bits)) - zero) *
                    scale;
            }
            float e = (cur[k] - v) * s->pivot[k], d = s->orig[r * s->ld + k] - v;
            loss += e * e;
            s->values[r * s->ldv + at(s->to, k)] = v;
            if (s->delta != NULL)
                s->delta[r * s->ldd + k] = d;
            for (size_t i = k + 1; i < s->nb; i++)
                cur[i] += d * s->within[k * s->ldw + i];
        }
        if (s->loss != NULL)
            s->loss[r] += (double)loss;
    }
    return DR_OK;
}

/* ---- descent ---- */

/* A row of one group. */
typedef struct {
    const nn_descent *s;
    size_t n;
    double r[NN_FACTOR_MAX], move[NN_FACTOR_MAX];
    float code[NN_FACTOR_MAX], scale, zero;
} group;

/* r += d (H_j + damp) */
static void spread(group *g, double d, size_t j)
{
    for (size_t k = 0; k < g->n; k++)
        g->r[k] += d * (double)g->s->h[j * g->s->ldh + k];
    g->r[j] += d * (double)g->s->damp;
}

/* slope = r v, curve = v (H + damp) v for v = move; true: by lowers the loss. */
static bool lowers(const group *g, double by, double slope, double curve)
{
    (void)g;
    return 2 * by * slope + by * by * curve < 0;
}

static void derivatives(double *slope, double *curve, const group *g)
{
    *slope = *curve = 0;
    for (size_t i = 0; i < g->n; i++) {
        *slope += g->r[i] * g->move[i];
        *curve += (double)g->s->damp * g->move[i] * g->move[i];
        for (size_t j = 0; j < g->n; j++)
            *curve += g->move[i] * (double)g->s->h[i * g->s->ldh + j] * g->move[j];
    }
}

static void move_codes(group *g)
{
    for (size_t j = 0; j < g->n; j++) {
        float pivot = g->s->h[j * g->s->ldh + j] + g->s->damp;
        float c = g->code[j] - nn_grid_round((float)g->r[j] / (pivot * g->scale));
        c = nn_grid_clamp(c, nn_grid_top(g->s->rule.bits));
        spread(g, (double)((c - g->code[j]) * g->scale), j);
        g->code[j] = c;
    }
}

static void spread_all(group *g, double by)
{
    for (size_t j = 0; by != 0 && j < g->n; j++)
        spread(g, by * g->move[j], j);
}

static void move_scale(group *g)
{
    double slope, curve;
    float s, by;

    for (size_t j = 0; j < g->n; j++)
        g->move[j] = (double)(g->code[j] - g->zero);
    derivatives(&slope, &curve, g);
    s = curve > 0 ? g->scale - (float)(slope / curve) : 0.0f;
    s = g->s->rule.fp16_scales && s > 0.0f ? nn_grid_half(s) : s;
    by = s > 0.0f && isfinite(s) ? s - g->scale : 0.0f;
    by = lowers(g, (double)by, slope, curve) ? by : 0.0f;
    g->scale += by;
    spread_all(g, (double)by);
}

static void move_zero(group *g)
{
    double slope, curve;
    float z, by;

    for (size_t j = 0; j < g->n; j++)
        g->move[j] = 1;
    derivatives(&slope, &curve, g);
    z = g->zero +
        (curve > 0 ? nn_grid_round((float)(slope / (curve * (double)g->scale))) : 0.0f);
    z = nn_grid_clamp(z, nn_grid_top(g->s->rule.bits));
    by = (g->zero - z) * g->scale;
    if (!lowers(g, (double)by, slope, curve))
        return;
    g->zero = z;
    spread_all(g, (double)by);
}

dr_status ref_descend_group(nn_device *dev, const nn_descent *s)
{
    group g = {.s = s, .n = s->nb};

    (void)dev;
    for (size_t r = 0; r < s->rows; r++) {
        float *values = s->values + r * s->ldv;
        g.scale = s->scales[r * s->ldg];
        g.zero = s->zeros[r * s->ldg];
        for (size_t k = 0; k < s->nb; k++) {
            g.r[k] =
                (double)s->grad[r * s->ld + k] +
                (double)s->damp * ((double)values[k] - (double)s->orig[r * s->ldo + k]);
            g.code[k] = nn_grid_code(values[k], g.scale, g.zero, nn_grid_top(s->rule.bits));
        }
        move_codes(&g);
        move_scale(&g);
        if (!s->rule.symmetric)
            move_zero(&g);
        for (size_t k = 0; k < s->nb; k++) {
            float v = (g.code[k] - g.zero) * g.scale;
            s->delta[r * s->ldd + k] = v - values[k];
            values[k] = v;
        }
        s->scales[r * s->ldg] = g.scale;
        s->zeros[r * s->ldg] = g.zero;
    }
    return DR_OK;
}
