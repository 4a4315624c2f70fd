/*
 * gptq_solve_test.c - the blocked solver against the textbook in double: after each column
 * the explicit inverse Hessian is reduced by one row and column, O(n^3) for the weight.
 */
#include "quant_fixture.h"

typedef struct {
    double scale, zero;
} cell;

static cell fit(const quant_grid *g, const double *w, size_t stride, size_t n)
{
    double lo = 0, hi = 0, top = (1 << g->bits) - 1;
    cell c;

    for (size_t i = 0; i < n; i++) {
        lo = fmin(lo, w[i * stride]);
        hi = fmax(hi, w[i * stride]);
    }
    if (g->symmetric) {
        hi = fmax(hi, -lo);
        lo = -hi;
    }
    if (hi == lo) {
        hi = 1;
        lo = -1;
    }
    c.scale = (double)dr_f16_to_f32(dr_f32_to_f16((float)((hi - lo) / top)));
    c.zero = g->symmetric ? 1 << (g->bits - 1) : fmin(top, fmax(0, rint(-lo / c.scale)));
    return c;
}

static double rounded(const quant_grid *g, cell c, double w)
{
    double top = (1 << g->bits) - 1;

    return (fmin(top, fmax(0, rint(w / c.scale) + c.zero)) - c.zero) * c.scale;
}

/* w[rows][n] (in order) becomes its rounding; dynamic or static min/max grids. */
static void textbook(double *w, const double *h, size_t rows, size_t n, const quant_grid *g,
                     bool static_groups)
{
    size_t block = (size_t)g->group_size;
    double *inv = dr_calloc(n * n, sizeof(*inv)),
           *first = dr_calloc(rows * n, sizeof(*first));
    cell *cells = dr_calloc(rows, sizeof(*cells));

    memcpy(inv, h, n * n * sizeof(*inv));
    memcpy(first, w, rows * n * sizeof(*first));
    fix_invert(inv, n);
    for (size_t j = 0; j < n; j++) {
        double pivot = inv[j * n + j];
        for (size_t r = 0; r < rows; r++) {
            double *row = w + r * n;
            if (j % block == 0)
                cells[r] = fit(g, (static_groups ? first : w) + r * n + j, 1, block);
            double q = rounded(g, cells[r], row[j]), e = (row[j] - q) / pivot;
            for (size_t k = j + 1; k < n; k++)
                row[k] -= e * inv[j * n + k];
            row[j] = q;
        }
        for (size_t a = j + 1; a < n; a++) {
            double f = inv[a * n + j] / pivot;
            for (size_t b = j + 1; b < n; b++)
                inv[a * n + b] -= f * inv[j * n + b];
        }
    }
    free(inv);
    free(first);
    free(cells);
}

/* sum over rows of (w - q) H (w - q)^T. */
static double loss_of(const float *w, const float *q, const float *h, size_t rows, size_t n)
{
    double sum = 0;

    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < n; i++) {
            double ei = (double)w[r * n + i] - (double)q[r * n + i], dot = 0;
            for (size_t j = 0; j < n; j++)
                dot += (double)h[i * n + j] * ((double)w[r * n + j] - (double)q[r * n + j]);
            sum += ei * dot;
        }
    }
    return sum;
}

typedef struct {
    size_t rows, n;
    quant_grid grid;
    quant_gptq_options o;
} setting;

/* Group-aware order, by selection. */
static void order_of(size_t *order, const float *h, size_t n, size_t block, bool desc)
{
    bool *used = dr_calloc(n, sizeof(*used)), *done = dr_calloc(n, sizeof(*done));

    for (size_t at = 0; at < n; at++) {
        order[at] = at;
        if (!desc)
            continue;
        size_t group = at % block != 0 ? order[at - 1] / block : n;
        if (group == n) {
            size_t best = n;
            for (size_t i = 0; i < n; i++) {
                if (!done[i / block] && (best == n || h[i * n + i] > h[best * n + best]))
                    best = i;
            }
            group = best / block;
            done[group] = true;
        }
        size_t best = n;
        for (size_t i = group * block; i < (group + 1) * block; i++) {
            if (!used[i] && (best == n || h[i * n + i] > h[best * n + best]))
                best = i;
        }
        used[best] = true;
        order[at] = best;
    }
    free(used);
    free(done);
}

static float *textbook_weight(const setting *s, const float *w, const float *h)
{
    size_t n = s->n, rows = s->rows, *order = dr_calloc(n, sizeof(*order));
    double *hp = dr_calloc(n * n, sizeof(*hp)), *wp = dr_calloc(rows * n, sizeof(*wp));
    float *out = dr_calloc(rows * n, sizeof(*out));
    double mean = 0, live = 0;

    order_of(order, h, n, (size_t)s->grid.group_size, s->o.desc_act);
    for (size_t i = 0; i < n; i++) {
        mean += (double)h[i * n + i];
        live += h[i * n + i] > 0;
    }
    mean /= live;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++)
            hp[i * n + j] = (double)h[order[i] * n + order[j]];
        if (hp[i * n + i] == 0)
            hp[i * n + i] = mean;
        hp[i * n + i] += s->o.damp_percent * mean;
        for (size_t r = 0; r < rows; r++)
            wp[r * n + i] =
                h[order[i] * n + order[i]] > 0 ? (double)w[r * n + order[i]] : 0;
    }
    textbook(wp, hp, rows, n, &s->grid, s->o.static_groups);
    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < n; i++)
            out[r * n + order[i]] = (float)wp[r * n + i];
    }
    free(order);
    free(hp);
    free(wp);
    return out;
}

/* What damping adds to the loss. */
static double damping(const setting *s, const float *w, const float *q, const float *h)
{
    double sum = 0, mean = 0, live = 0;

    for (size_t i = 0; i < s->n; i++) {
        double d = (double)h[i * s->n + i];
        mean += d;
        live += d > 0;
        for (size_t r = 0; d > 0 && r < s->rows; r++)
            sum += pow((double)w[r * s->n + i] - (double)q[r * s->n + i], 2);
    }
    return s->o.damp_percent * mean / live * sum;
}

static void against_textbook(nn_device *dev, const setting *s, const float *h)
{
    size_t n = s->n, rows = s->rows, differ = 0;
    float *w = fix_normal(rows * n, 9, 0.2f), *got = dr_calloc(rows * n, sizeof(*got));
    float *back = dr_calloc(rows * n, sizeof(*back)), *want = textbook_weight(s, w, h);
    dr_qtensor q = {0};
    double loss = 0;

    memcpy(got, w, rows * n * sizeof(*got));
    if (CHECK_OK(
            quant_gptq_solve(&q, &loss, dev, got, h, rows, n, &s->grid, &s->o, "test"))) {
        for (size_t r = 0; r < rows; r++) { /* a near tie changes the rest of its row */
            bool same = true;
            for (size_t i = 0; i < n; i++)
                same = same && fabsf(got[r * n + i] - want[r * n + i]) < 1e-5f;
            differ += !same;
        }
        if (!CHECK(differ <= rows / 16))
            printf("n %zu block %d differ %zu/%zu loss %g\n", n, s->grid.group_size, differ,
                   rows, loss);
        double a = loss_of(w, got, h, rows, n), b = loss_of(w, want, h, rows, n);
        CHECK_NEAR(a / b, 1, 0.01);
        CHECK_NEAR(loss / (a + damping(s, w, got, h)), 1, 1e-3);
        dr_qtensor_to_f32(back, &q, 0, rows);
        CHECK_MEM(back, got, rows * n * sizeof(*got));
    }
    dr_qtensor_release(&q);
    free(w);
    free(got);
    free(back);
    free(want);
}

static void textbooks(nn_device *dev)
{
    static const setting settings[] = {
        {24, 64, {4, 32, false}, {.damp_percent = 0.01, .minmax = true}},
        {24, 64, {4, 32, true}, {.damp_percent = 0.01, .minmax = true}},
        {17, 96, {4, 16, false}, {.damp_percent = 0.1, .minmax = true}},
        {20, 160, {2, 32, false}, {.damp_percent = 0.01, .minmax = true}},
        {16, 192, {4, 64, false}, {.damp_percent = 0.01, .minmax = true, .desc_act = true}},
        {16, 192, {4, 192, false}, {.damp_percent = 0.01, .minmax = true}},
        {16,
         256,
         {4, 256, false},
         {.damp_percent = 0.01, .minmax = true, .desc_act = true}},
        {16,
         160,
         {8, 32, false},
         {.damp_percent = 0.01, .minmax = true, .static_groups = true, .desc_act = true}},
    };

    for (size_t i = 0; i < DR_COUNT(settings); i++) {
        size_t n = settings[i].n, m = 3 * n;
        float *x = fix_inputs(m, n, 40 + i);
        for (size_t r = 0; r < m; r++)
            x[r * n + 7] = 0; /* a dead column */
        float *h = fix_gram(x, m, n);
        against_textbook(dev, &settings[i], h);
        free(x);
        free(h);
    }
}

/* Searched grids cost less than min and max, and both less than rounding to nearest. */
static void better(nn_device *dev)
{
    enum { ROWS = 48, N = 256, M = 700 };
    float *x = fix_inputs(M, N, 70), *h = fix_gram(x, M, N);
    float *w = fix_normal((size_t)ROWS * N, 71, 0.2f), *v = dr_calloc(ROWS * N, sizeof(*v));
    quant_grid grid = {4, 64, false};
    quant_gptq_options o = {.damp_percent = 0.01};
    dr_qtensor q = {0};
    double loss[3] = {0};

    CHECK_OK(quant_pack_rtn(&q, nn_device_pool(dev), w, ROWS, N, &grid, true));
    dr_qtensor_to_f32(v, &q, 0, ROWS);
    dr_qtensor_release(&q);
    loss[0] = loss_of(w, v, h, ROWS, N);
    for (int i = 0; i < 2; i++) {
        o.minmax = i == 0;
        memcpy(v, w, ROWS * N * sizeof(*v));
        CHECK_OK(quant_gptq_solve(&q, NULL, dev, v, h, ROWS, N, &grid, &o, "test"));
        dr_qtensor_release(&q);
        loss[1 + i] = loss_of(w, v, h, ROWS, N);
    }
    CHECK(loss[1] < 0.8 * loss[0]);
    CHECK(loss[2] < loss[1]);
    free(x);
    free(h);
    free(w);
    free(v);
}

/* A weight of more rows than one slice: those of the second are what they are alone. */
static void slices(nn_device *dev, bool chain)
{
    enum { N = 64, M = 200, MORE = 40 };
    size_t slice = quant_slice_rows((size_t)-1, N), rows = slice + MORE;
    float *x = fix_inputs(M, N, 72), *h = fix_gram(x, M, N);
    float *w = fix_normal(rows * N, 73, 0.2f), *alone = dr_calloc(MORE * N, sizeof(*alone));
    const quant_grid grid = {4, 32, false};
    const quant_gptq_options o = {.damp_percent = 0.01, .minmax = !chain, .sweeps = 1};
    dr_qtensor q = {0}, part = {0};
    double loss = 0, rest = 0;
    int wrong = 0;

    CHECK(slice < 1 << 20);
    memcpy(alone, w + slice * N, MORE * N * sizeof(*alone));
    if (chain) {
        CHECK_OK(quant_chain_solve(&q, &loss, NULL, dev, w, h, rows, N, &grid, &o, "w"));
        CHECK_OK(
            quant_chain_solve(&part, &rest, NULL, dev, alone, h, MORE, N, &grid, &o, "w"));
    } else {
        CHECK_OK(quant_gptq_solve(&q, &loss, dev, w, h, rows, N, &grid, &o, "w"));
        CHECK_OK(quant_gptq_solve(&part, &rest, dev, alone, h, MORE, N, &grid, &o, "w"));
    }
    CHECK_MEM(w + slice * N, alone, MORE * N * sizeof(*w));
    CHECK(loss > rest && rest > 0);
    for (size_t r = 0; r < MORE; r++)
        for (size_t j = 0; j < N; j++)
            wrong += dr_qtensor_code(&q, slice + r, j) != dr_qtensor_code(&part, r, j);
    CHECK_EQ_INT(wrong, 0);
    dr_qtensor_release(&q);
    dr_qtensor_release(&part);
    free(x);
    free(h);
    free(w);
    free(alone);
}

static void not_definite(nn_device *dev)
{
    enum { N = 32 };
    float h[N * N] = {0}, w[N] = {0};
    quant_grid grid = {4, 32, false};
    quant_gptq_options o = {.damp_percent = 0.01};
    dr_qtensor q = {0};

    for (int i = 0; i < N; i++)
        h[i * N + i] = 1;
    h[1] = h[N] = 1e9f;
    CHECK_STATUS(quant_gptq_solve(&q, NULL, dev, w, h, 1, N, &grid, &o, "some.module"),
                 DR_EFORMAT);
    CHECK_TRAIL("some.module");
    CHECK(q.codes == NULL);
    /* barely indefinite: raised damping helps */
    h[1] = h[N] = 1.02f;
    CHECK_OK(quant_gptq_solve(&q, NULL, dev, w, h, 1, N, &grid, &o, "some.module"));
    dr_qtensor_release(&q);
}

int main(void)
{
    nn_device *dev = NULL;

    CHECK_OK(nn_device_open(&dev, "cpu", 2));
    textbooks(dev);
    better(dev);
    slices(dev, false);
    slices(dev, true);
    not_definite(dev);
    nn_device_close(dev);
    return check_done();
}
