/*
 * cuda_quant.c - the operations of quantizers (nn_quant.h): operands into the GPU's memory,
 * a launch, results back.
 */
#include "nn/cuda/cuda_impl.h"

static const float *in_weight(cu_call *k, const float *w, const nn_groups *g)
{
    return cu_in(k, w, (g->n - 1) * g->ldw + g->k);
}

/* Numbers of groups: rows of K/block, ldg apart. */
static size_t grid_floats(const nn_groups *g)
{
    return (g->n - 1) * g->ldg + g->k / g->block;
}

dr_status cuda_weight_means(nn_device *dev, float *means, const float *w,
                            const nn_groups *g)
{
    cu_call k;

    cu_begin(&k, dev);
    const float *w_ = in_weight(&k, w, g);
    float *tops = cu_temp(&k, g->n * (g->k / g->block) * sizeof(*tops));
    double *parts = cu_temp(&k, CU_COLUMN_PARTS * g->k * sizeof(*parts));
    float *means_ = cu_out(&k, means, g->k);
    CU_LAUNCH(&k, cu_weight_means(k.c->stream, means_, tops, parts, w_, g));
    return cu_end(&k);
}

dr_status cuda_column_sums(nn_device *dev, double *sum, const float *x, size_t m, size_t k,
                           bool magnitudes, bool first)
{
    size_t ld = k;
    cu_call call;

    cu_begin(&call, dev);
    const float *x_ = cu_in(&call, x, m * k);
    double *parts = cu_temp(&call, CU_COLUMN_PARTS * k * sizeof(*parts));
    double *sum_ = cu_rows(&call, sum, 1, k, &ld, sizeof(*sum), !first);
    CU_LAUNCH(&call,
              cu_column_sums(call.c->stream, sum_, parts, x_, m, k, magnitudes, first));
    return cu_end(&call);
}

/* Blocks that are worth the tensor cores: operands of two terms of bf16, of whose products
 * that of the second ones is below a float's rounding of their sum. */
enum { GRAM_BLOCK = 64, GRAM_TOKENS = 1024 };

static void gram_by_terms(cu_call *k, float *grams, const float *x, size_t m, size_t n,
                          size_t block, bool first)
{
    uint16_t *high = cu_temp(k, 2 * m * n * sizeof(*high)), *low = high + m * n;
    const uint16_t *const pairs[3][2] = {{high, high}, {high, low}, {low, high}};
    cu_gemm g = {.tb = true,
                 .bf16 = true,
                 .m = block,
                 .n = block,
                 .k = m,
                 .lda = n,
                 .ldb = n,
                 .ldc = block,
                 .c = grams,
                 .count = n / block,
                 .next_a = block,
                 .next_b = block,
                 .next_c = block * block};

    CU_LAUNCH(k, cu_to_bf16(k->c->stream, high, n, x, n, m, n, 2));
    for (int i = 0; i < 3 && k->st == DR_OK; i++) {
        g.a = pairs[i][0];
        g.b = pairs[i][1];
        g.acc = i > 0 || !first;
        cu_multiply(k, &g);
    }
}

dr_status cuda_gram_blocks(nn_device *dev, float *grams, const float *x, size_t m, size_t n,
                           size_t ldx, size_t block, bool first)
{
    cu_call k;

    if (m == 0)
        return first ? cu_zero(dev, grams, n * block * sizeof(*grams)) : DR_OK;
    cu_begin(&k, dev);
    const float *x_ = cu_in(&k, x, (m - 1) * ldx + n);
    float *grams_ = first ? cu_out(&k, grams, n * block) : cu_inout(&k, grams, n * block);
    if (block >= GRAM_BLOCK && n % block == 0 && ldx == n && m >= GRAM_TOKENS) {
        gram_by_terms(&k, grams_, x_, m, n, block, first);
        return cu_end(&k);
    }
    float *parts = cu_temp(&k, CU_GRAM_PARTS * n * block * sizeof(*parts));
    CU_LAUNCH(&k, cu_gram_blocks(k.c->stream, grams_, parts, x_, m, n, ldx, block, first));
    return cu_end(&k);
}

/* p[count], of the device's as it is, bf16 too. */
static cu_values in_values(cu_call *k, const float *p, size_t count)
{
    if (cu_is_bf16(k->c, p))
        return cu_at(k, p);
    return (cu_values){(void *)(uintptr_t)cu_in(k, p, count), false};
}

/* Weights of the device's may be bf16, and so may what comes of them. */
static dr_status round_scaled(nn_device *dev, float *out, const float *w,
                              const nn_groups *g, const nn_rule *rule, const float *scale,
                              bool errors)
{
    cu_values to = {0};
    cu_call k;

    cu_begin(&k, dev);
    const cu_values from = in_values(&k, w, (g->n - 1) * g->ldw + g->k);
    if (cu_is_bf16(k.c, out))
        to = cu_at(&k, out);
    else
        to.p = cu_out(&k, out, g->n * g->k);
    const float *scale_ = cu_in(&k, scale, g->k);
    CU_LAUNCH(&k, cu_round_scaled(k.c->stream, to, from, g, rule, scale_, errors));
    return cu_end(&k);
}

dr_status cuda_round_scaled(nn_device *dev, float *out, const float *w, const nn_groups *g,
                            const nn_rule *rule, const float *scale)
{
    return round_scaled(dev, out, w, g, rule, scale, false);
}

dr_status cuda_scaled_errors(nn_device *dev, float *out, const float *w, const nn_groups *g,
                             const nn_rule *rule, const float *scale)
{
    return round_scaled(dev, out, w, g, rule, scale, true);
}

dr_status cuda_rank_scales(nn_device *dev, double *loss, const float *w, const nn_groups *g,
                           const nn_rule *rule, const float *scales, size_t count,
                           uint32_t wanted, const float *grams)
{
    size_t ld = count;
    cu_call k;

    DR_BUG_IF(count > NN_RANK_MAX || g->gram > NN_GRAM_MAX);
    cu_begin(&k, dev);
    const float *w_ = in_weight(&k, w, g), *scales_ = cu_in(&k, scales, count * g->k);
    const float *grams_ = cu_in(&k, grams, g->k * g->gram);
    double *parts = cu_temp(&k, cu_rank_parts(g) * count * sizeof(*parts));
    double *loss_ = cu_rows(&k, loss, 1, count, &ld, sizeof(*loss), true);
    CU_LAUNCH(&k, cu_rank_scales(k.c->stream, loss_, parts, w_, g, rule, scales_, count,
                                 wanted, grams_));
    return cu_end(&k);
}

dr_status cuda_choose_grids(nn_device *dev, float *scales, float *zeros, float *limits,
                            const float *w, const nn_groups *g, const nn_rule *rule,
                            const nn_shrink *shrink, const float *grams)
{
    size_t ld = g->ldg, per = g->k / g->block;
    nn_groups own = *g;
    cu_call k;

    DR_BUG_IF(shrink != NULL && (shrink->count > NN_RANK_MAX || g->gram > NN_GRAM_MAX));
    cu_begin(&k, dev);
    const float *w_ = in_weight(&k, w, g);
    const float *grams_ = shrink != NULL ? cu_in(&k, grams, g->k * g->gram) : NULL;
    float *scales_ = cu_rows(&k, scales, g->n, per, &own.ldg, sizeof(*scales), false);
    float *zeros_ = cu_rows(&k, zeros, g->n, per, &ld, sizeof(*zeros), false);
    DR_BUG_IF(ld != own.ldg); /* both of one side */
    ld = g->ldg;
    float *limits_ = cu_rows(&k, limits, g->n, per, &ld, sizeof(*limits), false);
    DR_BUG_IF(limits_ != NULL && ld != own.ldg);
    CU_LAUNCH(&k, cu_choose_grids(k.c->stream, scales_, zeros_, limits_, w_, &own, rule,
                                  shrink, grams_));
    return cu_end(&k);
}

dr_status cuda_clamp_groups(nn_device *dev, float *w, const nn_groups *g,
                            const float *limits)
{
    nn_groups own = *g;
    cu_call k;

    cu_begin(&k, dev);
    const float *limits_ = cu_in(&k, limits, grid_floats(g));
    float *w_ = cu_rows(&k, w, g->n, g->k, &own.ldw, sizeof(*w), true);
    CU_LAUNCH(&k, cu_clamp_groups(k.c->stream, w_, &own, limits_));
    return cu_end(&k);
}

dr_status cuda_pack_codes(nn_device *dev, uint8_t *codes, const float *w,
                          const nn_groups *g, const float *scales, const float *zeros,
                          int bits, int stored)
{
    size_t bytes = g->n * g->k * (size_t)stored / 8, ld = bytes;
    cu_call k;

    cu_begin(&k, dev);
    const float *w_ = in_weight(&k, w, g), *scales_ = cu_in(&k, scales, grid_floats(g));
    const float *zeros_ = cu_in(&k, zeros, grid_floats(g));
    uint8_t *codes_ = cu_rows(&k, codes, 1, bytes, &ld, 1, false);
    CU_LAUNCH(&k, cu_pack_codes(k.c->stream, codes_, w_, g, scales_, zeros_, bits, stored));
    return cu_end(&k);
}

dr_status cuda_difference(nn_device *dev, double *sums, const float *a, const float *b,
                          size_t parts, size_t count)
{
    size_t ld = parts;
    cu_call k;

    cu_begin(&k, dev);
    const float *a_ = cu_in(&k, a, parts * count), *b_ = cu_in(&k, b, parts * count);
    double *room = cu_temp(&k, parts * CU_SQUARES * sizeof(*room));
    double *sums_ = cu_rows(&k, sums, 1, parts, &ld, sizeof(*sums), false);
    CU_LAUNCH(&k, cu_difference(k.c->stream, sums_, room, a_, b_, parts, count));
    return cu_end(&k);
}

/* ---- matrices ---- */

dr_status cuda_scale_matrix(nn_device *dev, float *out, const float *a, size_t rows,
                            size_t cols, const float *col, const float *row, bool divide)
{
    cu_call k;

    cu_begin(&k, dev);
    const float *a_ = cu_in(&k, a, rows * cols), *col_ = cu_in(&k, col, cols);
    const float *row_ = cu_in(&k, row, rows);
    float *out_ = cu_out(&k, out, rows * cols);
    CU_LAUNCH(&k, cu_scale_matrix(k.c->stream, out_, a_, rows, cols, col_, row_, divide));
    return cu_end(&k);
}

dr_status cuda_copy_matrix(nn_device *dev, float *dst, size_t ldd, const float *src,
                           size_t lds, size_t rows, size_t cols, float factor)
{
    cu_call k;

    if (rows == 0 || cols == 0)
        return DR_OK;
    cu_begin(&k, dev);
    const float *src_ = cu_in(&k, src, (rows - 1) * lds + cols);
    float *dst_ = cu_rows(&k, dst, rows, cols, &ldd, sizeof(*dst), false);
    CU_LAUNCH(&k, cu_copy_matrix(k.c->stream, dst_, ldd, src_, lds, rows, cols, factor));
    return cu_end(&k);
}

dr_status cuda_subtract(nn_device *dev, float *out, const float *a, const float *b,
                        size_t count, float factor)
{
    cu_call k;

    cu_begin(&k, dev);
    if (cu_halves(&k, count, out, a, b) && cu_is_bf16(k.c, out) && cu_is_bf16(k.c, a) &&
        cu_is_bf16(k.c, b)) {
        CU_LAUNCH(&k, cu_subtract_halves(k.c->stream, cu_at(&k, out).p, cu_at(&k, a).p,
                                         cu_at(&k, b).p, count, factor));
        return cu_end(&k);
    }
    const float *a_ = cu_in(&k, a, count), *b_ = cu_in(&k, b, count);
    float *out_ = cu_out(&k, out, count);
    CU_LAUNCH(&k, cu_subtract(k.c->stream, out_, a_, b_, count, factor));
    return cu_end(&k);
}

dr_status cuda_turn_columns(nn_device *dev, float *out, const float *a, const float *b,
                            const float *scale, size_t m, size_t n)
{
    cu_call k;

    cu_begin(&k, dev);
    const float *a_ = cu_in(&k, a, m * n), *b_ = cu_in(&k, b, m * n);
    const float *scale_ = cu_in(&k, scale, n);
    float *out_ = cu_out(&k, out, m * n);
    CU_LAUNCH(&k, cu_turn_columns(k.c->stream, out_, a_, b_, scale_, m, n));
    return cu_end(&k);
}

dr_status cuda_row_dots(nn_device *dev, double *out, const float *a, const float *b,
                        size_t rows, size_t cols)
{
    size_t ld = rows;
    cu_call k;

    cu_begin(&k, dev);
    const float *a_ = cu_in(&k, a, rows * cols), *b_ = cu_in(&k, b, rows * cols);
    double *out_ = cu_rows(&k, out, 1, rows, &ld, sizeof(*out), false);
    CU_LAUNCH(&k, cu_row_dots(k.c->stream, out_, a_, b_, rows, cols));
    return cu_end(&k);
}

dr_status cuda_row_quads(nn_device *dev, double *out, const float *a, const float *b,
                         const float *diagonal, size_t rows, size_t cols)
{
    size_t ld = rows;
    cu_call k;

    cu_begin(&k, dev);
    const float *a_ = cu_in(&k, a, rows * cols), *diagonal_ = cu_in(&k, diagonal, cols);
    const cu_values b_ = in_values(&k, b, rows * cols);
    double *out_ = cu_rows(&k, out, 1, rows, &ld, sizeof(*out), false);
    CU_LAUNCH(&k, cu_row_quads(k.c->stream, out_, a_, b_, diagonal_, rows, cols));
    return cu_end(&k);
}

dr_status cuda_choose_rows(nn_device *dev, float *dst, const float *src, size_t rows,
                           size_t cols, const uint32_t *pick, uint32_t which)
{
    cu_call k;

    cu_begin(&k, dev);
    const float *src_ = cu_in(&k, src, rows * cols);
    const uint32_t *pick_ = cu_in_bytes(&k, pick, rows * sizeof(*pick));
    float *dst_ = cu_inout(&k, dst, rows * cols);
    CU_LAUNCH(&k, cu_choose_rows(k.c->stream, dst_, src_, rows, cols, pick_, which));
    return cu_end(&k);
}

/* ---- GPTQ ---- */

dr_status cuda_expand_gram(nn_device *dev, float *h, const float *strips, size_t n,
                           float rest)
{
    cu_call k;

    cu_begin(&k, dev);
    const float *strips_ = cu_in(&k, strips, nn_gram_floats(n));
    float *h_ = cu_out(&k, h, n * n);
    CU_LAUNCH(&k, cu_expand_gram(k.c->stream, h_, strips_, n, rest));
    return cu_end(&k);
}

static const uint32_t *in_order(cu_call *k, const uint32_t *order, size_t n)
{
    return cu_in_bytes(k, order, n * sizeof(*order));
}

dr_status cuda_cut_blocks(nn_device *dev, float *out, const float *h, const uint32_t *order,
                          size_t n, size_t m)
{
    cu_call k;

    cu_begin(&k, dev);
    const float *h_ = cu_in(&k, h, n * n);
    const uint32_t *order_ = in_order(&k, order, n);
    float *out_ = cu_out(&k, out, n * m);
    CU_LAUNCH(&k, cu_cut_blocks(k.c->stream, out_, h_, order_, n, m));
    return cu_end(&k);
}

dr_status cuda_gather_columns(nn_device *dev, float *out, const float *w,
                              const uint32_t *order, const float *live, size_t rows,
                              size_t n)
{
    cu_call k;

    cu_begin(&k, dev);
    const float *w_ = cu_in(&k, w, rows * n), *live_ = cu_in(&k, live, n);
    const uint32_t *order_ = in_order(&k, order, n);
    float *out_ = cu_out(&k, out, rows * n);
    CU_LAUNCH(&k, cu_gather_columns(k.c->stream, out_, w_, order_, live_, rows, n));
    return cu_end(&k);
}

dr_status cuda_fill_factor(nn_device *dev, float *factor, const float *h,
                           const uint32_t *order, size_t n, double mean, double add)
{
    cu_call k;

    cu_begin(&k, dev);
    const float *h_ = cu_in(&k, h, n * n);
    const uint32_t *order_ = in_order(&k, order, n);
    float *factor_ = cu_inout(&k, factor, n * n);
    CU_LAUNCH(&k, cu_fill_factor(k.c->stream, factor_, h_, order_, n, mean, add));
    return cu_end(&k);
}

dr_status cuda_factor_diagonal(nn_device *dev, float *l, const float *a, size_t ld,
                               size_t nb, float *inv, bool turned)
{
    size_t to = ld;
    cu_call k;

    DR_BUG_IF(nb > NN_FACTOR_MAX);
    cu_begin(&k, dev);
    float *inv_ = cu_out(&k, inv, nb * nb);
    float *l_ = cu_rows(&k, l, nb, nb, &to, sizeof(*l), true);
    const float *a_ = cu_in(&k, a, (nb - 1) * ld + nb);
    CU_LAUNCH(&k, cu_factor_diagonal(k.c->stream, l_, to, a_, ld, nb, inv_, turned));
    return cu_end(&k);
}

dr_status cuda_invert_diagonals(nn_device *dev, float *inv, const float *l, size_t n,
                                bool turned)
{
    size_t last = n % NN_FACTOR_MAX, whole = n - last;
    cu_call k;

    cu_begin(&k, dev);
    const float *l_ = cu_in(&k, l, n * n);
    float *inv_ = cu_out(&k, inv, whole * NN_FACTOR_MAX + last * last);
    CU_LAUNCH(&k, cu_invert_diagonals(k.c->stream, inv_, l_, n, turned));
    return cu_end(&k);
}

dr_status cuda_times_square(nn_device *dev, float *b, size_t ldb, size_t rows, size_t nb,
                            const float *square)
{
    cu_call k;

    DR_BUG_IF(nb > NN_FACTOR_MAX);
    cu_begin(&k, dev);
    const float *square_ = cu_in(&k, square, nb * nb);
    float *b_ = cu_rows(&k, b, rows, nb, &ldb, sizeof(*b), true);
    CU_LAUNCH(&k, cu_times_square(k.c->stream, b_, ldb, rows, nb, square_));
    return cu_end(&k);
}

dr_status cuda_cut_factor(nn_device *dev, float *within, float *pivot, float *spread,
                          const float *factor, size_t n, size_t p0, size_t nb)
{
    cu_call k;

    cu_begin(&k, dev);
    const float *factor_ = cu_in(&k, factor, n * n);
    float *within_ = cu_out(&k, within, nb * nb), *pivot_ = cu_out(&k, pivot, nb);
    float *spread_ = cu_out(&k, spread, (n - p0 - nb) * nb);
    CU_LAUNCH(&k, cu_cut_factor(k.c->stream, within_, pivot_, spread_, factor_, n, p0, nb));
    return cu_end(&k);
}

dr_status cuda_sweep_group(nn_device *dev, const nn_sweep *s)
{
    size_t ld = s->rows, wide = s->to != NULL ? s->ldv : s->nb;
    nn_sweep own = *s;
    cu_call k;

    DR_BUG_IF(s->nb > NN_FACTOR_MAX);
    cu_begin(&k, dev);
    own.adj = cu_in(&k, s->adj, (s->rows - 1) * s->ld + s->nb);
    own.orig = cu_in(&k, s->orig, (s->rows - 1) * s->ld + s->nb);
    own.to = in_order(&k, s->to, s->nb);
    own.within = cu_in(&k, s->within, (s->nb - 1) * s->ldw + s->nb);
    own.pivot = cu_in(&k, s->pivot, s->nb);
    own.scales = cu_in(&k, s->scales, (s->rows - 1) * s->ldg + 1);
    own.zeros = cu_in(&k, s->zeros, (s->rows - 1) * s->ldg + 1);
    own.values = cu_rows(&k, s->values, s->rows, wide, &own.ldv, sizeof(float), true);
    own.delta = cu_rows(&k, s->delta, s->rows, s->nb, &own.ldd, sizeof(float), false);
    own.loss = cu_rows(&k, s->loss, 1, s->rows, &ld, sizeof(double), true);
    CU_LAUNCH(&k, cu_sweep_group(k.c->stream, &own));
    return cu_end(&k);
}

dr_status cuda_descend_group(nn_device *dev, const nn_descent *s)
{
    size_t ldg = s->ldg;
    nn_descent own = *s;
    cu_call k;

    DR_BUG_IF(s->nb > NN_FACTOR_MAX);
    cu_begin(&k, dev);
    own.grad = cu_in(&k, s->grad, (s->rows - 1) * s->ld + s->nb);
    own.orig = cu_in(&k, s->orig, (s->rows - 1) * s->ldo + s->nb);
    own.h = cu_in(&k, s->h, (s->nb - 1) * s->ldh + s->nb);
    own.scales = cu_rows(&k, s->scales, s->rows, 1, &own.ldg, sizeof(float), true);
    own.zeros = cu_rows(&k, s->zeros, s->rows, 1, &ldg, sizeof(float), true);
    DR_BUG_IF(ldg != own.ldg);
    own.delta = cu_rows(&k, s->delta, s->rows, s->nb, &own.ldd, sizeof(float), false);
    own.values = cu_rows(&k, s->values, s->rows, s->nb, &own.ldv, sizeof(float), true);
    CU_LAUNCH(&k, cu_descend_group(k.c->stream, &own));
    return cu_end(&k);
}

/* ---- judging ---- */

dr_status cuda_row_stats(nn_device *dev, nn_row_stat *stats, const float *a,
                         const float *other, const int32_t *targets, size_t m, size_t v)
{
    size_t ld = m;
    cu_call k;

    if (m == 0)
        return DR_OK;
    cu_begin(&k, dev);
    const float *a_ = cu_in(&k, a, m * v), *other_ = cu_in(&k, other, m * v);
    const int32_t *targets_ = cu_in_bytes(&k, targets, m * sizeof(*targets));
    nn_row_stat *stats_ = cu_rows(&k, stats, 1, m, &ld, sizeof(*stats), false);
    CU_LAUNCH(&k, cu_row_stats(k.c->stream, stats_, a_, other_, targets_, m, v));
    return cu_end(&k);
}
