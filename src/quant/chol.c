/*
 * chol.c - blocked Cholesky factorisation, A = L L^T.
 *
 * Right-looking with blocks of 128 columns: the diagonal block is factored and inverted in
 * double by one thread, the panel below it and the trailing square are matrix products of
 * the device, so nearly all of n^3/3 multiply-adds run at its full rate.  Sums have a fixed
 * order for any number of threads.
 *
 * Multiplying the panel by the inverse of a diagonal block instead of solving with it costs
 * accuracy only in proportion to that block's condition; a damped Hessian's is mild, and a
 * block of 128 is inverted in double.
 */
#include <math.h>
#include <string.h>

#include "core/mem.h"
#include "quant/gptq_impl.h"
#include "quant/tile_impl.h"

enum { NB = 128, STRIP = 256, DAMPINGS = 4 };

/* d[NB][NB], lower: its Cholesky factor in place, by columns so that the inner loop runs
 * along rows.  false: not positive definite. */
QUANT_CLONES
static bool factor_block(double *restrict d, double *restrict col, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        double pivot = d[k * NB + k];
        if (!(pivot > 0.0) || !isfinite(pivot))
            return false;
        pivot = sqrt(pivot);
        d[k * NB + k] = pivot;
        for (size_t i = k + 1; i < n; i++) {
            d[i * NB + k] /= pivot;
            col[i] = d[i * NB + k];
        }
        for (size_t i = k + 1; i < n; i++) {
            double f = col[i];
            for (size_t j = k + 1; j <= i; j++)
                d[i * NB + j] -= f * col[j];
        }
    }
    return true;
}

/* inv = L^-1, lower, for the lower triangular l[n][NB]. */
QUANT_CLONES
static void invert_block(double *restrict inv, const double *restrict l, size_t n)
{
    memset(inv, 0, n * NB * sizeof(*inv));
    for (size_t i = 0; i < n; i++) {
        double *row = inv + i * NB;
        for (size_t k = 0; k < i; k++) {
            double f = l[i * NB + k];
            const double *from = inv + k * NB;
            for (size_t j = 0; j <= k; j++)
                row[j] -= f * from[j];
        }
        double pivot = l[i * NB + i];
        for (size_t j = 0; j < i; j++)
            row[j] /= pivot;
        row[i] = 1.0 / pivot;
    }
}

typedef struct {
    nn_device *dev;
    float *a; /* borrowed: [n][n] */
    size_t n;
    double *diag, *inv, *col;   /* owned with `block` */
    float *inv32, *below, *neg; /* likewise: [NB][NB], [n][NB], [n][NB] */
    void *block;                /* owned */
} chol_work;

static dr_status work_init(chol_work *w, nn_device *dev, float *a, size_t n)
{
    dr_status st = DR_OK;
    size_t doubles = 2 * NB * NB + NB, floats = NB * NB + 2 * n * NB;

    *w = (chol_work){.dev = dev, .a = a, .n = n};
    DR_TRY(dr_big_alloc(&w->block, doubles * 2 + floats, sizeof(float), "Cholesky blocks"));
    w->diag = w->block;
    w->inv = w->diag + NB * NB;
    w->col = w->inv + NB * NB;
    w->inv32 = (float *)(w->col + NB);
    w->below = w->inv32 + NB * NB;
    w->neg = w->below + n * NB;
done:
    return st;
}

/* diag = the lower triangle of the block at a[0][0]. */
static void load_block(chol_work *w, const float *a, size_t nb)
{
    for (size_t i = 0; i < nb; i++) {
        for (size_t j = 0; j <= i; j++)
            w->diag[i * NB + j] = (double)a[i * w->n + j];
    }
}

/* inv32[nb][nb] = the inverse of the factor in diag, as floats; turned: its transpose. */
static void invert_diagonal(chol_work *w, size_t nb, bool turned)
{
    invert_block(w->inv, w->diag, nb);
    for (size_t i = 0; i < nb; i++) {
        for (size_t j = 0; j < nb; j++) {
            size_t r = turned ? j : i, c = turned ? i : j;
            w->inv32[i * nb + j] = c <= r ? (float)w->inv[r * NB + c] : 0.0f;
        }
    }
}

/* Factors the diagonal block at k; its inverse is left in inv32. */
static bool diagonal(chol_work *w, size_t k, size_t nb)
{
    float *a = w->a + k * w->n + k;

    load_block(w, a, nb);
    if (!factor_block(w->diag, w->col, nb))
        return false;
    for (size_t i = 0; i < nb; i++) {
        for (size_t j = 0; j <= i; j++)
            a[i * w->n + j] = (float)w->diag[i * NB + j];
    }
    invert_diagonal(w, nb, false);
    return true;
}

/* The rows below the block at k: L21 = A21 L11^-T, then A22 -= L21 L21^T (lower strips). */
static dr_status trailing(chol_work *w, size_t k, size_t nb)
{
    size_t n = w->n, from = k + nb, m = n - from;
    float *panel = w->neg; /* A21 first, then -L21 */
    dr_status st = DR_OK;

    for (size_t i = 0; i < m; i++)
        memcpy(panel + i * nb, w->a + (from + i) * n + k, nb * sizeof(float));
    DR_TRY(nn_matmul_nt(w->dev, w->below, panel, w->inv32, NULL, m, nb, nb, nb, false));
    for (size_t i = 0; i < m; i++)
        memcpy(w->a + (from + i) * n + k, w->below + i * nb, nb * sizeof(float));
    for (size_t i = 0; i < m * nb; i++)
        panel[i] = -w->below[i];
    for (size_t j = 0; j < m; j += STRIP) {
        size_t width = m - j < STRIP ? m - j : STRIP;
        DR_TRY(nn_matmul_nt(w->dev, w->a + (from + j) * n + from + j, panel + j * nb,
                            w->below + j * nb, NULL, m - j, width, nb, n, true));
    }
done:
    return st;
}

dr_status quant_cholesky(nn_device *dev, float *a, size_t n, bool *definite)
{
    chol_work w = {0};
    dr_status st = DR_OK;

    *definite = false;
    DR_TRY(work_init(&w, dev, a, n));
    for (size_t k = 0; k < n; k += NB) {
        size_t nb = n - k < NB ? n - k : NB;
        if (!diagonal(&w, k, nb))
            goto done;
        if (k + nb < n)
            DR_TRY(trailing(&w, k, nb));
    }
    *definite = true;
done:
    dr_big_free(w.block);
    return st;
}

/* ---- solving with the factor ---- */

/* out = the columns k .. k+nb of b, times the inverse of L's diagonal block (turned: of its
 * transpose); they go back into b, and with the other sign stay in w->neg. */
static dr_status solve_block(chol_work *w, float *b, size_t rows, size_t k, size_t nb,
                             const float *l, bool turned)
{
    size_t n = w->n;
    dr_status st = DR_OK;

    load_block(w, l + k * n + k, nb);
    invert_diagonal(w, nb, turned);
    for (size_t r = 0; r < rows; r++)
        memcpy(w->neg + r * nb, b + r * n + k, nb * sizeof(*b));
    DR_TRY(nn_matmul_nt(w->dev, w->below, w->neg, w->inv32, NULL, rows, nb, nb, nb, false));
    for (size_t r = 0; r < rows; r++)
        memcpy(b + r * n + k, w->below + r * nb, nb * sizeof(*b));
    for (size_t i = 0; i < rows * nb; i++)
        w->neg[i] = -w->below[i];
done:
    return st;
}

dr_status quant_damped_factor(float *factor, bool *found, nn_device *dev, const float *h,
                              size_t n, double damp)
{
    double mean = 0;
    dr_status st = DR_OK;

    *found = false;
    for (size_t i = 0; i < n; i++)
        mean += (double)h[i * n + i] / (double)n;
    for (int i = 0; mean > 0 && !*found && i < DAMPINGS; i++, damp *= 10) {
        memcpy(factor, h, n * n * sizeof(*h));
        for (size_t k = 0; k < n; k++)
            factor[k * n + k] += (float)(damp * mean);
        DR_TRY(quant_cholesky(dev, factor, n, found));
    }
done:
    return st;
}

dr_status quant_chol_solve(nn_device *dev, float *b, size_t rows, size_t n, const float *l)
{
    size_t last = (n - 1) / NB * NB;
    float *panel = NULL;
    chol_work w = {0};
    dr_status st = DR_OK;

    DR_TRY(work_init(&w, dev, NULL, rows > n ? rows : n));
    w.n = n;
    DR_TRY(quant_floats(&panel, n, NB, "columns of a factor"));
    for (size_t k = 0; k < n; k += NB) { /* y L^T = b */
        size_t nb = n - k < NB ? n - k : NB, from = k + nb;
        DR_TRY(solve_block(&w, b, rows, k, nb, l, false));
        for (size_t i = from; i < n; i++)
            memcpy(panel + (i - from) * nb, l + i * n + k, nb * sizeof(*panel));
        if (from < n)
            DR_TRY(nn_matmul_nt(dev, b + from, w.neg, panel, NULL, rows, n - from, nb, n,
                                true));
    }
    for (size_t k = last + NB; k > 0; k -= NB) { /* x L = y */
        size_t at = k - NB, nb = n - at < NB ? n - at : NB;
        DR_TRY(solve_block(&w, b, rows, at, nb, l, true));
        for (size_t j = 0; j < at; j++) {
            for (size_t i = 0; i < nb; i++)
                panel[j * nb + i] = l[(at + i) * n + j];
        }
        if (at > 0)
            DR_TRY(nn_matmul_nt(dev, b, w.neg, panel, NULL, rows, at, nb, n, true));
    }
done:
    dr_big_free(panel);
    dr_big_free(w.block);
    return st;
}
