/*
 * cuda_matmul.c - the float products.
 *
 *     kind          operand           terms of bf16
 *     cuda          bf16 weight       1, and of the other operand 3: their sum is the float
 *                   floats            none: products of floats
 *      two terms    floats            2 each, without the product of the second ones
 *                   beside bf16       2 of the other operand
 *     cuda:bf16     any               1
 *
 * Three terms have the 24 bits of a float, so "cuda" is as exact as floats are, and a
 * weight whose file is bf16 costs three products at the tensor cores' rate, a third of it,
 * where products of floats have a fifteenth.  "cuda:bf16" is what autocast does.
 */
#include "nn/cuda/cuda_impl.h"

enum { TERMS = 3 };

/* A product of fewer operations is sooner done in floats than its operands are split. */
#define SPLIT_LEAST 1e8

/* One operand: rows of `cols` values. */
typedef struct {
    const void *p; /* the device's */
    size_t rows, cols, ld;
    int terms;  /* 0: floats */
    bool exact; /* bf16 already */
} operand;

/* What p is: a weight in bf16, or floats of either side. */
static operand look(cu_call *k, const float *p, size_t rows, size_t cols, size_t ld)
{
    const cu_block *b = cu_find(k->c, p);
    operand o = {.rows = rows, .cols = cols, .ld = ld};

    if (b != NULL && b->kind == NN_MEM_BF16) {
        o.p = cu_place(b, p);
        o.terms = 1;
        o.exact = true;
    } else {
        o.p = cu_in(k, p, (rows - 1) * ld + cols);
    }
    return o;
}

/* Rows that the tensor cores can read: strides and addresses of 16 bytes. */
static void align(cu_call *k, operand *o)
{
    if (!o->exact || (o->ld % CU_PAD == 0 && (uintptr_t)o->p % 16 == 0))
        return;
    size_t ld = cu_padded(o->cols);
    uint16_t *to = cu_temp(k, o->rows * ld * sizeof(*to));
    float *wide = cu_temp(k, o->rows * o->cols * sizeof(*wide));

    CU_LAUNCH(k, cu_widen(k->c->stream, wide, o->cols, o->p, o->ld, o->rows, o->cols));
    CU_LAUNCH(k, cu_narrow(k->c->stream, to, ld, wide, o->cols, o->rows, o->cols));
    o->p = to;
    o->ld = ld;
}

static void split(cu_call *k, operand *o, int terms)
{
    size_t ld = cu_padded(o->cols);
    uint16_t *to = cu_temp(k, (size_t)terms * o->rows * ld * sizeof(*to));

    if (terms == 1)
        CU_LAUNCH(k, cu_narrow(k->c->stream, to, ld, o->p, o->ld, o->rows, o->cols));
    else
        CU_LAUNCH(k,
                  cu_to_bf16(k->c->stream, to, ld, o->p, o->ld, o->rows, o->cols, terms));
    o->p = to;
    o->ld = ld;
    o->terms = terms;
}

/* Both become bf16, or both stay floats. */
static void agree(cu_call *k, operand *a, operand *b, double outputs)
{
    bool exact = a->exact || b->exact;
    bool two = k->c->two_terms && SPLIT_LEAST < outputs * (double)a->cols;
    bool any = k->c->bf16 || exact || two;
    int terms = k->c->bf16 ? 1 : two ? 2 : TERMS;

    if (!any)
        return;
    align(k, a);
    align(k, b);
    if (!a->exact)
        split(k, a, terms);
    if (!b->exact)
        split(k, b, terms);
}

static const void *term(const operand *o, int t)
{
    return (const uint16_t *)o->p + (size_t)t * o->rows * o->ld;
}

/* The products of all pairs of terms, one of the two having one; of two and two without
 * that of the second ones, which is below their rounding. */
static void run(cu_call *k, cu_gemm *g, const operand *a, const operand *b)
{
    const int most = a->terms > 1 && b->terms > 1 ? 2 : TERMS;

    g->lda = a->ld;
    g->ldb = b->ld;
    g->bf16 = a->terms > 0;
    if (!g->bf16) {
        g->a = a->p;
        g->b = b->p;
        cu_multiply(k, g);
        return;
    }
    for (int i = 0; i < a->terms; i++) {
        for (int j = 0; j < b->terms && i + j < most && k->st == DR_OK; j++) {
            g->a = term(a, i);
            g->b = term(b, j);
            cu_multiply(k, g);
            g->acc = true;
        }
    }
}

void cu_result(cu_call *k, cu_gemm *g, float *y, size_t rows, size_t cols, size_t ld)
{
    g->to_bf16 = g->bf16 && cu_is_bf16(k->c, y) && ld % CU_PAD == 0 &&
                 cu_halves(k, cols, y, NULL, NULL);
    g->c = g->to_bf16 ? cu_at(k, y).p : cu_rows(k, y, rows, cols, &ld, sizeof(*y), g->acc);
    g->ldc = ld;
}

void cu_gemm_bias(cu_call *k, const cu_gemm *g, const float *bias, size_t m, size_t n)
{
    const float *bias_ = cu_in(k, bias, n);

    if (bias == NULL)
        return;
    if (!g->to_bf16)
        CU_LAUNCH(k, cu_add_bias(k->c->stream, g->c, bias_, m, n, g->ldc));
    else
        CU_LAUNCH(k, cu_add_bias_halves(k->c->stream, g->c, bias_, m, n, g->ldc));
}

dr_status cuda_matmul_nt(nn_device *dev, float *y, const float *x, const float *w,
                         const float *bias, size_t m, size_t n, size_t k, size_t ldy,
                         bool acc)
{
    cu_call call;

    if (m == 0 || n == 0)
        return DR_OK;
    cu_begin(&call, dev);
    operand a = look(&call, w, n, k, k), b = look(&call, x, m, k, k);
    cu_gemm g = {.ta = true, .m = n, .n = m, .k = k, .acc = acc, .bf16 = call.c->bf16};

    cu_result(&call, &g, y, m, n, ldy);
    agree(&call, &a, &b, (double)g.m * (double)g.n);
    run(&call, &g, &a, &b);
    cu_gemm_bias(&call, &g, bias, m, n);
    return cu_end(&call);
}

dr_status cuda_matmul_nn(nn_device *dev, float *y, const float *x, const float *w, size_t m,
                         size_t k, size_t n, size_t ldx, bool acc)
{
    cu_call call;

    if (m == 0 || k == 0)
        return DR_OK;
    cu_begin(&call, dev);
    operand a = look(&call, w, n, k, k), b = look(&call, x, m, n, ldx);
    cu_gemm g = {.m = k, .n = m, .k = n, .acc = acc, .bf16 = call.c->bf16};

    cu_result(&call, &g, y, m, k, k);
    agree(&call, &a, &b, (double)g.m * (double)g.n);
    run(&call, &g, &a, &b);
    return cu_end(&call);
}

dr_status cuda_matmul_tn(nn_device *dev, float *y, const float *a, const float *b, size_t n,
                         size_t k, size_t m, size_t lda, size_t ldb, bool acc)
{
    cu_call call;

    if (n == 0 || k == 0)
        return DR_OK;
    cu_begin(&call, dev);
    operand left = look(&call, b, m, k, ldb), right = look(&call, a, m, n, lda);
    cu_gemm g = {.tb = true, .m = k, .n = n, .k = m, .acc = acc, .bf16 = call.c->bf16};

    cu_result(&call, &g, y, n, k, k);
    agree(&call, &left, &right, (double)g.m * (double)g.n);
    run(&call, &g, &left, &right);
    return cu_end(&call);
}
