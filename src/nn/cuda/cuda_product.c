/*
 * cuda_product.c - nn_add_product: sums of products of parts of matrices.
 *
 * With terms an operand is the sum of two or three of bf16, and what comes of the pairs of
 * terms that count is one product of the tensor cores, whose inner dimension is three or
 * six times as long: x is [h h l] and w [h l h], say.  So y, which is large where the inner
 * dimension is short, is read and written once.
 */
#include "nn/cuda/cuda_impl.h"

enum { ROWS = 16384, STRIP = 2048, PAIRS_MAX = 6 };

/* Terms of the two operands, in pairs whose places sum to less than their number. */
static const unsigned char pairs[2][PAIRS_MAX][2] = {
    {{0, 0}, {0, 1}, {1, 0}}, {{0, 0}, {0, 1}, {1, 0}, {0, 2}, {2, 0}, {1, 1}}};

static int pairs_of(const nn_product *p)
{
    return p->terms == 2 ? 3 : PAIRS_MAX;
}

static unsigned terms_of(const nn_product *p, int side)
{
    unsigned all = 0;

    for (int i = 0; i < pairs_of(p); i++)
        all |= (unsigned)pairs[p->terms - 2][i][side] << 2 * i;
    return all;
}

/* rows of x as terms side by side, into `to`. */
static void split_rows(cu_call *k, const nn_product *p, uint16_t *to, const float *from,
                       size_t ld, size_t rows, int side)
{
    size_t wide = cu_padded(p->k);
    const cu_planes planes = {.lds = ld,
                              .rows = rows,
                              .cols = p->k,
                              .high = rows,
                              .wide = wide,
                              .ldo = wide * pairs_of(p),
                              .plane = wide,
                              .count = pairs_of(p),
                              .terms = terms_of(p, side)};

    CU_LAUNCH(k, cu_split_planes(k->c->stream, to, &planes, from));
}

/* w[K][N]: terms one below the other. */
static void split_columns(cu_call *k, const nn_product *p, uint16_t *to, const float *from)
{
    size_t high = cu_padded(p->k), wide = cu_padded(p->n);
    const cu_planes planes = {.lds = p->ldw,
                              .rows = p->k,
                              .cols = p->n,
                              .high = high,
                              .wide = wide,
                              .ldo = wide,
                              .plane = high * wide,
                              .count = pairs_of(p),
                              .terms = terms_of(p, 1)};

    CU_LAUNCH(k, cu_split_planes(k->c->stream, to, &planes, from));
}

/* y's rows from `row` on, in strips where only its lower triangle is wanted; x begins with
 * the first of them. */
static void multiply(cu_call *k, const nn_product *p, cu_gemm g, float *y, const char *x,
                     const char *w, size_t row, size_t rows)
{
    size_t size = g.bf16 ? sizeof(uint16_t) : sizeof(float),
           strip = p->lower ? STRIP : p->n;

    for (size_t j = 0; j < p->n && k->st == DR_OK; j += strip) {
        size_t skip = p->lower && j > row ? j - row : 0;
        if (skip >= rows)
            break;
        g.m = p->n - j < strip ? p->n - j : strip;
        g.n = rows - skip;
        g.a = w + j * (g.ta ? g.lda : 1) * size;
        g.b = x + skip * g.ldb * size;
        g.c = y + (row + skip) * g.ldc + j;
        cu_multiply(k, &g);
    }
}

dr_status cuda_add_product(nn_device *dev, const nn_product *p)
{
    size_t ldy = p->ldy, inner = cu_padded(p->k) * pairs_of(p), ld = cu_padded(p->n);
    size_t each = p->m < ROWS ? p->m : ROWS;
    cu_call k;

    if (p->m == 0 || p->n == 0)
        return DR_OK;
    cu_begin(&k, dev);
    const float *x = cu_in(&k, p->x, (p->m - 1) * p->ldx + p->k);
    size_t w_rows = p->turned ? p->n : p->k, w_cols = p->turned ? p->k : p->n;
    const float *w = cu_in(&k, p->w, (w_rows - 1) * p->ldw + w_cols);
    float *y = cu_rows(&k, p->y, p->m, p->n, &ldy, sizeof(*y), p->acc || p->lower);
    cu_gemm g = {.ta = p->turned, .acc = p->acc, .minus = p->minus, .ldc = ldy};

    if (p->terms == 0) {
        g.k = p->k;
        g.lda = p->ldw;
        g.ldb = p->ldx;
        multiply(&k, p, g, y, (const char *)x, (const char *)w, 0, p->m);
        return cu_end(&k);
    }
    uint16_t *left = cu_temp(&k, each * inner * sizeof(*left));
    uint16_t *right = cu_temp(&k, (p->turned ? p->n * inner : inner * ld) * sizeof(*right));
    if (p->turned)
        split_rows(&k, p, right, w, p->ldw, p->n, 1);
    else
        split_columns(&k, p, right, w);
    g.bf16 = true;
    g.k = g.ldb = inner;
    g.lda = p->turned ? inner : ld;
    for (size_t r = 0; r < p->m && k.st == DR_OK; r += each) {
        size_t rows = p->m - r < each ? p->m - r : each;
        split_rows(&k, p, left, x + r * p->ldx, p->ldx, rows, 0);
        multiply(&k, p, g, y, (const char *)left, (const char *)right, r, rows);
    }
    return cu_end(&k);
}
