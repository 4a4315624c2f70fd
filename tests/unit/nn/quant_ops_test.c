/*
 * quant_ops_test.c - the operations of quantizers on devices that have them, against ref:
 * random weights, shapes off the tile sizes, outputs that begin as NaN, pointers of the
 * host's and of the device's.
 */
#include "nn_check.h"

typedef struct {
    nn_device *dev;
    bool there; /* operands lie in the device's memory */
    void *mine[64];
    size_t count;
} place;

/* values[count] where the device shall find them. */
static void *put(place *p, const void *values, size_t bytes)
{
    float *at = NULL;

    CHECK_OK(nn_mem_new(p->there ? p->dev : NULL, &at, bytes / sizeof(float) + 1,
                        NN_MEM_FLOAT, "a test's operand"));
    CHECK_OK(nn_copy(p->dev, at, values, bytes));
    DR_BUG_IF(p->count == DR_COUNT(p->mine));
    p->mine[p->count++] = at;
    return at;
}

static float *put_floats(place *p, const float *values, size_t count)
{
    return put(p, values, count * sizeof(*values));
}

/* Room that begins as NaN. */
static float *blank(place *p, size_t count)
{
    float *nan = dr_calloc(count, sizeof(*nan)), *at = NULL;

    for (size_t i = 0; i < count; i++)
        nan[i] = NAN;
    at = put_floats(p, nan, count);
    free(nan);
    return at;
}

static float *get(const place *p, const void *at, size_t bytes)
{
    float *out = dr_calloc(bytes / sizeof(float) + 1, sizeof(*out));

    CHECK_OK(nn_copy(p->dev, out, at, bytes));
    return out;
}

static void clear(place *p)
{
    while (p->count > 0)
        nn_mem_free(p->there ? p->dev : NULL, p->mine[--p->count]);
}

/* ---- cases: each returns floats to compare ---- */

typedef struct {
    nn_groups g;
    nn_rule rule;
    size_t m;
    const float *w, *x, *scales, *grams, *sym; /* sym[K][K]: positive definite */
    const uint32_t *order, *pick;
} inputs;

typedef size_t (*case_fn)(place *p, float **out, const inputs *in);

static size_t finish(place *p, float **out, const float *at, size_t floats)
{
    *out = get(p, at, floats * sizeof(float));
    return floats;
}

static size_t finish_doubles(place *p, float **out, const void *at, size_t count)
{
    double *values = (double *)get(p, at, count * sizeof(double));
    float *as = dr_calloc(count, sizeof(*as));

    for (size_t i = 0; i < count; i++)
        as[i] = (float)values[i];
    free(values);
    *out = as;
    return count;
}

static float *put_w(place *p, const inputs *in)
{
    return put_floats(p, in->w, in->g.n * in->g.k);
}

static size_t weight_means(place *p, float **out, const inputs *in)
{
    float *to = blank(p, in->g.k);

    CHECK_OK(nn_weight_means(p->dev, to, put_w(p, in), &in->g));
    return finish(p, out, to, in->g.k);
}

static size_t column_sums(place *p, float **out, const inputs *in)
{
    double *to = (double *)(void *)blank(p, 2 * in->g.k);
    float *x = put_floats(p, in->x, in->m * in->g.k);

    CHECK_OK(nn_column_sums(p->dev, to, x, in->m, in->g.k, true, true));
    CHECK_OK(nn_column_sums(p->dev, to, x, in->m / 2, in->g.k, false, false));
    return finish_doubles(p, out, to, in->g.k);
}

/* W's rows as logits beside X's; one row has two greatest. */
static size_t row_stats(place *p, float **out, const inputs *in)
{
    size_t k = in->g.k, m = in->g.n < in->m ? in->g.n : in->m, each = 5;
    double *to = (double *)(void *)blank(p, 2 * each * m);
    float *logits = dr_calloc(m * k, sizeof(*logits));
    int32_t *targets = dr_calloc(m, sizeof(*targets));

    memcpy(logits, in->w, m * k * sizeof(*logits));
    logits[k / 2] = logits[k - 1] = 9;
    for (size_t i = 0; i < m; i++)
        targets[i] = (int32_t)(i * 7 % k);
    CHECK(sizeof(nn_row_stat) == each * sizeof(double));
    CHECK_OK(nn_row_stats(p->dev, (nn_row_stat *)to, put_floats(p, logits, m * k),
                          put_floats(p, in->x, m * k),
                          put(p, targets, m * sizeof(*targets)), m, k));
    free(logits);
    free(targets);
    return finish_doubles(p, out, to, each * m);
}

static size_t gram_blocks(place *p, float **out, const inputs *in)
{
    size_t k = in->g.k, gram = in->g.gram;
    float *to = blank(p, k * gram), *x = put_floats(p, in->x, in->m * k);

    CHECK_OK(nn_gram_blocks(p->dev, to, x, in->m, k, k, gram, true));
    CHECK_OK(nn_gram_blocks(p->dev, to, x + k, in->m / 3, k, 2 * k, gram, false));
    return finish(p, out, to, k * gram);
}

static size_t round_scaled(place *p, float **out, const inputs *in)
{
    float *to = blank(p, in->g.n * in->g.k);

    CHECK_OK(nn_round_scaled(p->dev, to, put_w(p, in), &in->g, &in->rule,
                             put_floats(p, in->scales, in->g.k)));
    return finish(p, out, to, in->g.n * in->g.k);
}

static size_t scaled_errors(place *p, float **out, const inputs *in)
{
    float *to = blank(p, in->g.n * in->g.k);

    CHECK_OK(nn_scaled_errors(p->dev, to, put_w(p, in), &in->g, &in->rule,
                              put_floats(p, in->scales, in->g.k)));
    return finish(p, out, to, in->g.n * in->g.k);
}

/* X's rows as gates and what they gate. */
static size_t activate_change(place *p, float **out, const inputs *in)
{
    size_t m = in->g.n, k = in->g.k;
    float *to = blank(p, m * k / 2), *x = put_floats(p, in->x, m * k);

    CHECK_OK(nn_activate_change(p->dev, to, x, put_floats(p, in->w, m * k / 2), m, k / 2,
                                HF_ACT_SILU, true));
    return finish(p, out, to, m * k / 2);
}

enum { SCALES = 5 };

static size_t rank_scales(place *p, float **out, const inputs *in)
{
    double loss[SCALES] = {0, -1, 0, 0, -1};

    CHECK_OK(nn_rank_scales(p->dev, loss, put_w(p, in), &in->g, &in->rule,
                            put_floats(p, in->scales, SCALES * in->g.k), SCALES, 0xd,
                            put_floats(p, in->grams, in->g.k * in->g.gram)));
    CHECK(loss[1] == -1 && loss[4] == -1);
    *out = dr_calloc(SCALES, sizeof(float));
    for (size_t i = 0; i < SCALES; i++)
        (*out)[i] = (float)loss[i];
    return SCALES;
}

static size_t grids(place *p, float **out, const inputs *in, const nn_shrink *shrink)
{
    size_t count = in->g.n * in->g.ldg;
    float *scales = blank(p, count), *zeros = blank(p, count), *limits = blank(p, count);
    float *w = put_w(p, in), *part[3], *all = dr_calloc(3 * count, sizeof(*all));

    CHECK_OK(nn_choose_grids(p->dev, scales, zeros, limits, w, &in->g, &in->rule, shrink,
                             put_floats(p, in->grams, in->g.k * in->g.gram)));
    part[0] = get(p, scales, count * sizeof(float));
    part[1] = get(p, zeros, count * sizeof(float));
    part[2] = get(p, limits, count * sizeof(float));
    for (size_t i = 0; i < 3; i++) {
        memcpy(all + i * count, part[i], count * sizeof(float));
        free(part[i]);
    }
    *out = all;
    return 3 * count;
}

static size_t choose_grids(place *p, float **out, const inputs *in)
{
    return grids(p, out, in, NULL);
}

static size_t shrink_both(place *p, float **out, const inputs *in)
{
    return grids(p, out, in, &(nn_shrink){NN_SHRINK_BOTH, 17, 36});
}

static size_t shrink_clip(place *p, float **out, const inputs *in)
{
    return grids(p, out, in, &(nn_shrink){NN_SHRINK_CLIP, 10, 20});
}

static size_t clamp_groups(place *p, float **out, const inputs *in)
{
    size_t count = in->g.n * in->g.ldg;
    float *w = put_w(p, in), *limits = dr_calloc(count, sizeof(*limits));

    for (size_t i = 0; i < count; i++)
        limits[i] = 0.01f * (float)(i % 7 + 1);
    CHECK_OK(nn_clamp_groups(p->dev, w, &in->g, put_floats(p, limits, count)));
    free(limits);
    return finish(p, out, w, in->g.n * in->g.k);
}

static size_t pack_codes(place *p, float **out, const inputs *in)
{
    size_t count = in->g.n * in->g.ldg, bytes = in->g.n * in->g.k / 2;
    float *scales = blank(p, count), *zeros = blank(p, count), *w = put_w(p, in), *got;
    uint8_t *codes = (uint8_t *)blank(p, bytes / 4 + 1);

    CHECK_OK(
        nn_choose_grids(p->dev, scales, zeros, NULL, w, &in->g, &in->rule, NULL, NULL));
    CHECK_OK(nn_pack_codes(p->dev, codes, w, &in->g, scales, zeros, in->rule.bits, 4));
    got = get(p, codes, bytes);
    *out = dr_calloc(bytes, sizeof(float));
    for (size_t i = 0; i < bytes; i++)
        (*out)[i] = ((unsigned char *)got)[i];
    free(got);
    return bytes;
}

static size_t difference(place *p, float **out, const inputs *in)
{
    size_t count = in->m * in->g.k;
    float *x = put_floats(p, in->x, count), *y = put_floats(p, in->x + 1, count - 1);
    double sums[4] = {(double)NAN, (double)NAN, (double)NAN, (double)NAN};

    CHECK_OK(nn_difference(p->dev, sums, x, y, 1, count - 1));
    CHECK_OK(nn_difference(p->dev, sums + 1, x, y, 3, (count - 1) / 3));
    *out = dr_calloc(4, sizeof(float));
    for (size_t i = 0; i < 4; i++)
        (*out)[i] = (float)sums[i];
    return 4;
}

static size_t scale_matrix(place *p, float **out, const inputs *in)
{
    size_t count = in->g.n * in->g.k;
    float *to = blank(p, 2 * count), *w = put_w(p, in);
    float *col = put_floats(p, in->scales, in->g.k);
    float *row = put_floats(p, in->scales, in->g.n);

    CHECK_OK(nn_scale_matrix(p->dev, to, w, in->g.n, in->g.k, col, row, false));
    CHECK_OK(nn_scale_matrix(p->dev, to + count, w, in->g.n, in->g.k, col, NULL, true));
    return finish(p, out, to, 2 * count);
}

static size_t copy_matrix(place *p, float **out, const inputs *in)
{
    size_t n = in->g.n, k = in->g.k;
    float *to = put_floats(p, in->x, n * (k + 3));

    CHECK_OK(nn_copy_matrix(p->dev, to + 1, k + 3, put_w(p, in), k, n, k - 2, -1.0f));
    return finish(p, out, to, n * (k + 3));
}

static size_t subtract(place *p, float **out, const inputs *in)
{
    size_t count = in->g.n * in->g.k;
    float *to = blank(p, count), *w = put_w(p, in);

    CHECK_OK(nn_subtract(p->dev, to, w, put_floats(p, in->x, count), count, 0.3f));
    return finish(p, out, to, count);
}

static size_t turn_columns(place *p, float **out, const inputs *in)
{
    size_t count = in->g.n * in->g.k;
    float *to = blank(p, 2 * count), *w = put_w(p, in), *x = put_floats(p, in->x, count);

    CHECK_OK(nn_turn_columns(p->dev, to, w, x, put_floats(p, in->scales, in->g.k), in->g.n,
                             in->g.k));
    CHECK_OK(nn_turn_columns(p->dev, to + count, w, NULL, NULL, in->g.n, in->g.k));
    return finish(p, out, to, 2 * count);
}

static size_t row_dots(place *p, float **out, const inputs *in)
{
    double *to = (double *)(void *)blank(p, 2 * in->g.n);
    float *x = put_floats(p, in->x, in->g.n * in->g.k);

    CHECK_OK(nn_row_dots(p->dev, to, put_w(p, in), x, in->g.n, in->g.k));
    return finish_doubles(p, out, to, in->g.n);
}

static size_t row_quads(place *p, float **out, const inputs *in)
{
    double *to = (double *)(void *)blank(p, 2 * in->g.n);
    float *x = put_floats(p, in->x, in->g.n * in->g.k);

    CHECK_OK(nn_row_quads(p->dev, to, x, put_w(p, in), put_floats(p, in->scales, in->g.k),
                          in->g.n, in->g.k));
    return finish_doubles(p, out, to, in->g.n);
}

static size_t choose_rows(place *p, float **out, const inputs *in)
{
    size_t count = in->g.n * in->g.k;
    float *w = put_w(p, in);

    CHECK_OK(nn_choose_rows(p->dev, w, put_floats(p, in->x, count), in->g.n, in->g.k,
                            put(p, in->pick, in->g.n * sizeof(*in->pick)), 1));
    return finish(p, out, w, count);
}

static size_t expand_gram(place *p, float **out, const inputs *in)
{
    size_t k = in->g.k, floats = 0;
    float *to = blank(p, k * k);

    for (size_t r = 0; r < k; r++) {
        size_t end = r / NN_GRAM_STRIP * NN_GRAM_STRIP + NN_GRAM_STRIP;
        floats += end < k ? end : k;
    }
    CHECK_OK(nn_expand_gram(p->dev, to, put_floats(p, in->sym, floats), k, 0.75f));
    return finish(p, out, to, k * k);
}

static const uint32_t *put_order(place *p, const inputs *in)
{
    return put(p, in->order, in->g.k * sizeof(*in->order));
}

static size_t cut_blocks(place *p, float **out, const inputs *in)
{
    size_t k = in->g.k, m = in->g.gram;
    float *to = blank(p, k * (m + 1)), *h = put_floats(p, in->sym, k * k);

    CHECK_OK(nn_cut_blocks(p->dev, to, h, put_order(p, in), k, m));
    CHECK_OK(nn_cut_blocks(p->dev, to + k * m, h, NULL, k, 1));
    return finish(p, out, to, k * (m + 1));
}

static size_t gather_columns(place *p, float **out, const inputs *in)
{
    size_t count = in->g.n * in->g.k;
    float *to = blank(p, count);

    CHECK_OK(nn_gather_columns(p->dev, to, put_w(p, in), put_order(p, in),
                               put_floats(p, in->x, in->g.k), in->g.n, in->g.k));
    return finish(p, out, to, count);
}

/* The factor of sym as GPTQ has it, block by block; only its diagonal blocks are. */
static float *factor_of(place *p, const inputs *in, float *inv)
{
    size_t k = in->g.k, nb = in->g.gram;
    float *f = put_floats(p, in->sym, k * k), *h = put_floats(p, in->sym, k * k);

    CHECK_OK(nn_fill_factor(p->dev, f, h, put_order(p, in), k, 1.0, 0.5));
    for (size_t i = 0; i + nb <= k; i += nb)
        CHECK_OK(nn_factor_diagonal(p->dev, f + i * k + i, f + i * k + i, k, nb,
                                    inv + i * nb, i / nb % 2 == 1));
    return f;
}

static size_t fill_factor(place *p, float **out, const inputs *in)
{
    size_t k = in->g.k;
    float *f = put_floats(p, in->sym, k * k), *h = put_floats(p, in->sym, k * k);

    CHECK_OK(nn_fill_factor(p->dev, f, h, put_order(p, in), k, 1.0, 0.5));
    return finish(p, out, f, k * k);
}

static size_t factor_diagonal(place *p, float **out, const inputs *in)
{
    float *inv = blank(p, in->g.k * in->g.gram);

    return finish(p, out, factor_of(p, in, inv), in->g.k * in->g.k);
}

static size_t factor_inverse(place *p, float **out, const inputs *in)
{
    size_t k = in->g.k, nb = in->g.gram, whole = k / nb * nb;
    float *inv = blank(p, (k + nb) * nb), *f = factor_of(p, in, inv);

    CHECK_OK(nn_factor_diagonal(p->dev, NULL, f, k, nb, inv + whole * nb, true));
    return finish(p, out, inv, (whole + nb) * nb);
}

static size_t invert_diagonals(place *p, float **out, const inputs *in)
{
    size_t k = in->g.k, last = k % NN_FACTOR_MAX, whole = k - last;
    size_t count = whole * NN_FACTOR_MAX + last * last;
    float *l = put_floats(p, in->sym, k * k), *inv = blank(p, 2 * count);

    CHECK_OK(nn_invert_diagonals(p->dev, inv, l, k, false));
    CHECK_OK(nn_invert_diagonals(p->dev, inv + count, l, k, true));
    return finish(p, out, inv, 2 * count);
}

static size_t times_square(place *p, float **out, const inputs *in)
{
    size_t n = in->g.n, k = in->g.k, nb = in->g.gram;
    float *b = put_floats(p, in->w, n * k);

    CHECK_OK(
        nn_times_square(p->dev, b + k - nb, k, n, nb, put_floats(p, in->grams, nb * nb)));
    return finish(p, out, b, n * k);
}

/* y of odd shapes, by every form of the second operand and number of terms. */
static size_t products(place *p, float **out, const inputs *in, int terms)
{
    size_t n = in->g.n, k = in->g.k, wide = k - 5, count = n * k;
    float *y = put_floats(p, in->x, 3 * count), *w = put_w(p, in);
    float *sym = put_floats(p, in->sym, k * k);
    nn_product a = {.y = y,
                    .x = w + 1,
                    .w = sym + 2,
                    .m = n,
                    .n = wide,
                    .k = wide - 2,
                    .ldy = k,
                    .ldx = k,
                    .ldw = k,
                    .acc = true,
                    .terms = terms};

    CHECK_OK(nn_add_product(p->dev, &a));
    a.y = y + count;
    a.turned = a.minus = true;
    CHECK_OK(nn_add_product(p->dev, &a));
    a.y = y + 2 * count;
    a.acc = a.minus = false;
    CHECK_OK(nn_add_product(p->dev, &a));
    return finish(p, out, y, 3 * count);
}

static size_t product_floats(place *p, float **out, const inputs *in)
{
    return products(p, out, in, 0);
}

static size_t product_three(place *p, float **out, const inputs *in)
{
    return products(p, out, in, 3);
}

static size_t product_two(place *p, float **out, const inputs *in)
{
    return products(p, out, in, 2);
}

/* The lower triangle alone; what is above it is not looked at. */
static size_t product_lower(place *p, float **out, const inputs *in)
{
    size_t k = in->g.k, n = k - 3;
    float *y = put_floats(p, in->sym, k * k), *x = put_floats(p, in->sym, k * k);
    const nn_product a = {.y = y,
                          .x = x,
                          .w = x,
                          .m = n,
                          .n = n,
                          .k = in->g.gram,
                          .ldy = k,
                          .ldx = k,
                          .ldw = k,
                          .turned = true,
                          .acc = true,
                          .minus = true,
                          .lower = true,
                          .terms = 3};

    CHECK_OK(nn_add_product(p->dev, &a));
    size_t count = finish(p, out, y, k * k);
    for (size_t i = 0; i < n; i++)
        for (size_t j = i + 1; j < n; j++)
            (*out)[i * k + j] = 0;
    return count;
}

static size_t cut_factor(place *p, float **out, const inputs *in)
{
    size_t k = in->g.k, nb = in->g.gram, p0 = k > nb ? nb : 0;
    float *to = blank(p, k * nb + nb * nb + nb), *pivot = to + nb * nb;

    CHECK_OK(nn_cut_factor(p->dev, to, pivot, pivot + nb, put_floats(p, in->sym, k * k), k,
                           p0, nb));
    return finish(p, out, to, nb * nb + nb + (k - p0 - nb) * nb);
}

/* values, delta and losses of a group, rounded or not. */
static size_t sweep(place *p, float **out, const inputs *in, bool rounded)
{
    size_t n = in->g.n, k = in->g.k, nb = in->g.gram, losses = 2 * n;
    float *to = put_floats(p, in->x, n * k + n * nb + losses + 1);
    float *scales = blank(p, n), *zeros = blank(p, n), *w = put_w(p, in), *loss = NULL;
    double *sums = dr_calloc(n, sizeof(*sums));
    uint32_t to_column[NN_FACTOR_MAX];
    const nn_groups one = {n, nb, nb, nb, k, 1};

    for (size_t i = 0; i < nb; i++)
        to_column[i] = (uint32_t)(nb - 1 - i);
    loss = put(p, sums, n * sizeof(*sums));
    CHECK_OK(nn_choose_grids(p->dev, scales, zeros, NULL, w, &one, &in->rule, NULL, NULL));
    const nn_sweep s = {.rows = n,
                        .nb = nb,
                        .adj = put_floats(p, in->x, n * k),
                        .orig = w,
                        .ld = k,
                        .values = to,
                        .ldv = k,
                        .to = rounded ? put(p, to_column, nb * sizeof(*to_column)) : NULL,
                        .delta = to + n * k,
                        .ldd = nb,
                        .ldw = nb,
                        .within = put_floats(p, in->grams, nb * nb),
                        .pivot = put_floats(p, in->scales, nb),
                        .scales = rounded ? scales : NULL,
                        .zeros = rounded ? zeros : NULL,
                        .ldg = 1,
                        .bits = in->rule.bits,
                        .loss = (double *)(void *)loss};
    CHECK_OK(nn_sweep_group(p->dev, &s));
    CHECK_OK(nn_copy(p->dev, sums, loss, n * sizeof(*sums)));
    size_t count = finish(p, out, to, n * k + n * nb + losses);
    for (size_t i = 0; i < losses; i++)
        (*out)[n * k + n * nb + i] = i < n ? (float)sums[i] : 0.0f;
    free(sums);
    return count;
}

static size_t sweep_group(place *p, float **out, const inputs *in)
{
    return sweep(p, out, in, true);
}

static size_t sweep_plain(place *p, float **out, const inputs *in)
{
    return sweep(p, out, in, false);
}

static size_t descend_group(place *p, float **out, const inputs *in)
{
    size_t n = in->g.n, k = in->g.k, nb = in->g.gram;
    float *values = put_w(p, in), *delta = blank(p, n * nb);
    float *scales = blank(p, n), *zeros = blank(p, n), *grids_of = NULL;
    const nn_groups one = {n, nb, nb, nb, k, 1};
    const nn_descent s = {.rows = n,
                          .nb = nb,
                          .ld = k,
                          .ldv = k,
                          .ldo = k,
                          .ldh = k,
                          .ldg = 1,
                          .ldd = nb,
                          .orig = put_floats(p, in->w, n * k),
                          .grad = put_floats(p, in->x, n * k),
                          .values = values,
                          .h = put_floats(p, in->sym, k * k),
                          .damp = 0.5f,
                          .scales = scales,
                          .zeros = zeros,
                          .delta = delta,
                          .rule = in->rule};

    CHECK_OK(
        nn_choose_grids(p->dev, scales, zeros, NULL, values, &one, &in->rule, NULL, NULL));
    CHECK_OK(nn_descend_group(p->dev, &s));
    size_t count = finish(p, out, values, n * k);
    grids_of = get(p, scales, n * sizeof(float));
    memcpy(*out, grids_of, n * sizeof(float)); /* in place of row 0: k is more than n */
    free(grids_of);
    return count;
}

/* ---- all of them ---- */

static const struct {
    const char *name;
    case_fn fn;
    double tol, share; /* share of values that may differ: where near ties are decided */
} cases[] = {
#define CASE(op, fn, share)                                                                \
    {                                                                                      \
#        fn, fn, tol_##op, share                                                           \
    }
    CASE(weight_means, weight_means, 0),
    CASE(column_sums, column_sums, 0),
    CASE(gram_blocks, gram_blocks, 0),
    CASE(round_scaled, round_scaled, 0),
    CASE(scaled_errors, scaled_errors, 0),
    CASE(activate_change, activate_change, 0),
    CASE(rank_scales, rank_scales, 0),
    CASE(choose_grids, choose_grids, 0),
    CASE(choose_grids, shrink_both, 0.01),
    CASE(choose_grids, shrink_clip, 0.01),
    CASE(clamp_groups, clamp_groups, 0),
    CASE(pack_codes, pack_codes, 0),
    CASE(difference, difference, 0),
    CASE(scale_matrix, scale_matrix, 0),
    CASE(copy_matrix, copy_matrix, 0),
    CASE(subtract, subtract, 0),
    CASE(turn_columns, turn_columns, 0),
    CASE(row_dots, row_dots, 0),
    CASE(row_quads, row_quads, 0),
    CASE(choose_rows, choose_rows, 0),
    CASE(expand_gram, expand_gram, 0),
    CASE(cut_blocks, cut_blocks, 0),
    CASE(gather_columns, gather_columns, 0),
    CASE(fill_factor, fill_factor, 0),
    CASE(factor_diagonal, factor_diagonal, 0),
    CASE(factor_diagonal, factor_inverse, 0),
    CASE(invert_diagonals, invert_diagonals, 0),
    CASE(times_square, times_square, 0),
    CASE(add_product, product_floats, 0),
    CASE(add_product, product_three, 0),
    {"product_two", product_two, 3e-5, 0},
    {"product_lower", product_lower, 5e-6, 0},
    CASE(cut_factor, cut_factor, 0),
    CASE(sweep_group, sweep_group, 0),
    CASE(sweep_group, sweep_plain, 0),
    CASE(descend_group, descend_group, 0.01),
    CASE(row_stats, row_stats, 0),
#undef CASE
};

/* How many values differ by more than tol of the largest. */
static size_t differ(const float *a, const float *b, size_t count, double tol)
{
    double top = 0;
    size_t n = 0;

    for (size_t i = 0; i < count; i++)
        top = fmax(top, fabs((double)b[i]));
    for (size_t i = 0; i < count; i++)
        n += !(fabs((double)a[i] - (double)b[i]) <= tol * top);
    return n;
}

static void test_shape(nn_device *ref, nn_device *dev, const inputs *in)
{
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        for (int there = 0; there < 2; there++) {
            place mine = {.dev = dev, .there = there == 1}, its = {.dev = ref};
            float *got = NULL, *want = NULL, *again = NULL;
            size_t count = cases[i].fn(&its, &want, in);
            CHECK(cases[i].fn(&mine, &got, in) == count);
            (void)cases[i].fn(&mine, &again, in);
            CHECK(memcmp(got, again, count * sizeof(float)) == 0);
            size_t off = differ(got, want, count, cases[i].tol);
            if (!CHECK((double)off <= cases[i].share * (double)count))
                (void)printf("  %s, %zu x %zu, group %zu, %s: %zu of %zu differ\n",
                             cases[i].name, in->g.n, in->g.k, in->g.block,
                             there ? "there" : "here", off, count);
            clear(&mine);
            clear(&its);
            free(got);
            free(want);
            free(again);
        }
    }
}

/* sym = x^T x / m + 1 on the diagonal. */
static float *definite(const float *x, size_t m, size_t k)
{
    float *h = dr_calloc(k * k, sizeof(*h));

    for (size_t i = 0; i < k; i++) {
        for (size_t j = 0; j <= i; j++) {
            double sum = i == j ? (double)m : 0;
            for (size_t r = 0; r < m; r++)
                sum += (double)x[r * k + i] * (double)x[r * k + j];
            h[i * k + j] = h[j * k + i] = (float)(sum / (double)m);
        }
    }
    return h;
}

static void test_device(nn_device *ref, nn_device *dev, size_t count)
{
    static const size_t shapes[][4] = {{19, 96, 32, 32},    {5, 48, 48, 48},
                                       {33, 192, 64, 64},   {9, 512, 256, 128},
                                       {70, 256, 128, 128}, {130, 384, 128, 128}};

    for (size_t i = 0; i < count; i++) {
        size_t n = shapes[i][0], k = shapes[i][1], m = 3 * n + 37;
        float *w = nn_random(n * k, 1, 0.1f), *x = nn_random((m + n) * (k + 3), 2, 1.0f);
        float *scales = nn_random((k + n) * SCALES, 3, 0.2f), *sym = definite(x, m, k);
        float *grams = dr_calloc(k * shapes[i][3], sizeof(*grams));
        uint32_t *order = dr_calloc(k, sizeof(*order)), *pick = dr_calloc(n, 4);
        for (size_t j = 0; j < (k + n) * SCALES; j++)
            scales[j] = expf(scales[j]);
        for (size_t j = 0; j < k; j++)
            order[j] = (uint32_t)(j / shapes[i][2] * shapes[i][2] +
                                  (j % shapes[i][2] * 7 + 3) % shapes[i][2]);
        for (size_t j = 0; j < n; j++)
            pick[j] = (uint32_t)(j % 3);
        CHECK_OK(nn_cut_blocks(ref, grams, sym, NULL, k, shapes[i][3]));
        for (int how = 0; how < 4; how++) {
            const inputs in = {.g = {n, k, shapes[i][2], shapes[i][3], k, k / shapes[i][2]},
                               .rule = {how == 3 ? 3 : 4, how == 1, how != 2, how != 2},
                               .m = m,
                               .w = w,
                               .x = x,
                               .scales = scales,
                               .grams = grams,
                               .sym = sym,
                               .order = order,
                               .pick = pick};
            test_shape(ref, dev, &in);
        }
        free(w);
        free(x);
        free(scales);
        free(sym);
        free(grams);
        free(order);
        free(pick);
    }
}

int main(void)
{
    nn_device *ref = NULL, *apart = NULL, *cuda = NULL;

    CHECK_OK(nn_device_open(&ref, "ref", 1));
    CHECK_OK(nn_device_open(&apart, "cpu:apart", 2));
    CHECK(nn_quant_ops(ref) && nn_quant_ops(apart));
    test_device(ref, apart, 2);
    if (nn_device_open(&cuda, "cuda", 1) == DR_OK)
        test_device(ref, cuda, 6);
    else
        SKIP("gpu: none to use");
    nn_device_close(ref);
    nn_device_close(apart);
    nn_device_close(cuda);
    return check_done();
}
