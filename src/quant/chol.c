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
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "quant/gptq_impl.h"
#include "quant/tile_impl.h"

enum { NB = 128, STRIP = 256, DAMPINGS = 4 };
enum { AT_ONCE = 4 }; /* columns whose terms a row takes in turn while it is loaded */
enum { TASK_COLS = 16, TASK_ROWS = 128 };

/* d[NB][NB], lower: its Cholesky factor in place, by columns so that the inner loop runs
 * along rows; col [AT_ONCE][NB] is scratch.  false: not positive definite. */
QUANT_CLONES
static bool factor_block(double *restrict d, double *restrict col, size_t n)
{
    for (size_t k = 0; k < n; k += AT_ONCE) {
        const size_t count = n - k < AT_ONCE ? n - k : AT_ONCE, from = k + count;
        for (size_t c = 0; c < count; c++) {
            const size_t at = k + c;
            double pivot = d[at * NB + at], *to = col + c * NB;
            if (!(pivot > 0.0) || !isfinite(pivot))
                return false;
            pivot = sqrt(pivot);
            d[at * NB + at] = pivot;
            for (size_t i = at + 1; i < n; i++) {
                d[i * NB + at] /= pivot;
                to[i] = d[i * NB + at];
                for (size_t j = at + 1; j < from && j <= i; j++)
                    d[i * NB + j] -= to[i] * to[j];
            }
        }
        for (size_t i = from; i < n && count == AT_ONCE; i++) {
            const double f0 = col[i], f1 = col[NB + i], f2 = col[2 * NB + i],
                         f3 = col[3 * NB + i];
            double *row = d + i * NB;
            for (size_t j = from; j <= i; j++) {
                double v = row[j] - f0 * col[j];
                v -= f1 * col[NB + j];
                v -= f2 * col[2 * NB + j];
                row[j] = v - f3 * col[3 * NB + j];
            }
        }
    }
    return true;
}

/* TASK_COLS columns, from c0 on, of inv = L^-1, lower, for the lower triangular l[n][NB]:
 * of no other column of inv.  Those from n on are zeros. */
QUANT_CLONES
static void invert_columns(double *restrict inv, const double *restrict l, size_t n,
                           size_t c0)
{
    inv += c0;
    for (size_t i = 0; i < n; i++) {
        const double *f = l + i * NB;
        double *row = inv + i * NB;
        size_t k = c0; /* rows above are zeros here */
        memset(row, 0, TASK_COLS * sizeof(*row));
        for (; k + AT_ONCE <= i; k += AT_ONCE) {
            const double *a = inv + k * NB, *b = a + NB, *c = b + NB, *e = c + NB;
            for (size_t j = 0; j < TASK_COLS; j++) {
                double v = row[j] - f[k] * a[j];
                v -= f[k + 1] * b[j];
                v -= f[k + 2] * c[j];
                row[j] = v - f[k + 3] * e[j];
            }
        }
        for (; k < i; k++) {
            const double *from = inv + k * NB;
            for (size_t j = 0; j < TASK_COLS; j++)
                row[j] -= f[k] * from[j];
        }
        for (size_t j = 0; j < TASK_COLS; j++)
            row[j] = (c0 + j == i ? 1.0 : row[j]) / f[i];
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
    size_t doubles = 2 * NB * NB + AT_ONCE * NB, floats = NB * NB + 2 * n * NB;

    *w = (chol_work){.dev = dev, .a = a, .n = n};
    DR_TRY(dr_big_alloc(&w->block, doubles * 2 + floats, sizeof(float), "Cholesky blocks"));
    w->diag = w->block;
    w->inv = w->diag + NB * NB;
    w->col = w->inv + NB * NB;
    w->inv32 = (float *)(w->col + AT_ONCE * NB);
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

typedef struct {
    double *inv;
    const double *l;
    size_t n;
} invert_job;

static dr_status invert_task(void *ctx, size_t task, int worker)
{
    const invert_job *j = ctx;

    (void)worker;
    invert_columns(j->inv, j->l, j->n, task * TASK_COLS);
    return DR_OK;
}

/* inv32[nb][nb] = the inverse of the factor in diag, as floats; turned: its transpose. */
static dr_status invert_diagonal(chol_work *w, size_t nb, bool turned)
{
    invert_job job = {w->inv, w->diag, nb};
    dr_status st = DR_OK;

    DR_TRY(dr_pool_run(nn_device_pool(w->dev), (nb + TASK_COLS - 1) / TASK_COLS,
                       invert_task, &job));
    for (size_t i = 0; i < nb; i++) {
        for (size_t j = 0; j < nb; j++) {
            size_t r = turned ? j : i, c = turned ? i : j;
            w->inv32[i * nb + j] = c <= r ? (float)w->inv[r * NB + c] : 0.0f;
        }
    }
done:
    return st;
}

/* Factors the diagonal block at k; its inverse is left in inv32. */
static dr_status diagonal(chol_work *w, size_t k, size_t nb, bool *definite)
{
    float *a = w->a + k * w->n + k;
    dr_status st = DR_OK;

    load_block(w, a, nb);
    *definite = factor_block(w->diag, w->col, nb);
    if (!*definite)
        goto done;
    for (size_t i = 0; i < nb; i++) {
        for (size_t j = 0; j <= i; j++)
            a[i * w->n + j] = (float)w->diag[i * NB + j];
    }
    DR_TRY(invert_diagonal(w, nb, false));
done:
    return st;
}

/* Rows of `wide` floats from one place to another; neg (may be NULL) gets them with the
 * other sign, without gaps. */
typedef struct {
    float *to, *neg;
    const float *from;
    size_t ldt, ldf, rows, wide;
} row_move;

static dr_status move_task(void *ctx, size_t task, int worker)
{
    const row_move *m = ctx;
    size_t end = (task + 1) * TASK_ROWS < m->rows ? (task + 1) * TASK_ROWS : m->rows;

    (void)worker;
    for (size_t i = task * TASK_ROWS; i < end; i++) {
        const float *from = m->from + i * m->ldf;
        memcpy(m->to + i * m->ldt, from, m->wide * sizeof(*from));
        for (size_t j = 0; m->neg != NULL && j < m->wide; j++)
            m->neg[i * m->wide + j] = -from[j];
    }
    return DR_OK;
}

static dr_status move_rows(nn_device *dev, row_move m)
{
    return dr_pool_run(nn_device_pool(dev), (m.rows + TASK_ROWS - 1) / TASK_ROWS, move_task,
                       &m);
}

/* nb columns of b[rows][n] become those times inv32 turned; w->neg has them with the other
 * sign. */
static dr_status times_inverse(chol_work *w, float *b, size_t rows, size_t nb)
{
    dr_status st = DR_OK;

    DR_TRY(move_rows(w->dev, (row_move){w->neg, NULL, b, nb, w->n, rows, nb}));
    DR_TRY(nn_matmul_nt(w->dev, w->below, w->neg, w->inv32, NULL, rows, nb, nb, nb, false));
    DR_TRY(move_rows(w->dev, (row_move){b, w->neg, w->below, w->n, nb, rows, nb}));
done:
    return st;
}

/* The rows below the block at k: L21 = A21 L11^-T, then A22 -= L21 L21^T (lower strips). */
static dr_status trailing(chol_work *w, size_t k, size_t nb)
{
    size_t n = w->n, from = k + nb, m = n - from;
    dr_status st = DR_OK;

    DR_TRY(times_inverse(w, w->a + from * n + k, m, nb));
    for (size_t j = 0; j < m; j += STRIP) {
        size_t width = m - j < STRIP ? m - j : STRIP;
        DR_TRY(nn_matmul_nt(w->dev, w->a + (from + j) * n + from + j, w->neg + j * nb,
                            w->below + j * nb, NULL, m - j, width, nb, n, true));
    }
done:
    return st;
}

/* ---- the same on a device with quantizers' operations ---- */

/*
 * Columns go by NB within a panel of WIDE, a panel at a time through what is left: those
 * products are long enough for the tensor cores and read it a quarter as often.
 */
enum { WIDE = 512 };

/* Terms of bf16: as exact as floats; as what is fitted to a text needs it. */
enum { FACTOR_TERMS = 3, SOLVE_TERMS = 2 };

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Of a[n][n] what is left from `from` on, its first `width` columns: less what the columns
 * from k up to there, which are done, have in it. */
static dr_status take_columns(nn_device *dev, float *a, size_t n, size_t from, size_t width,
                              size_t k, int terms)
{
    const nn_product p = {.y = a + from * n + from,
                          .x = a + from * n + k,
                          .w = a + from * n + k,
                          .m = n - from,
                          .n = width,
                          .k = from - k,
                          .ldy = n,
                          .ldx = n,
                          .ldw = n,
                          .turned = true,
                          .acc = true,
                          .minus = true,
                          .lower = true,
                          .terms = terms};

    return width > 0 ? nn_add_product(dev, &p) : DR_OK;
}

/* The columns from k on that belong to the panel which ends at `end`. */
static dr_status factor_panel(nn_device *dev, float *a, float *inv, size_t n, size_t k,
                              size_t end)
{
    dr_status st = DR_OK;

    for (; k < end; k += NB) {
        size_t nb = least(n - k, NB), from = k + nb;
        float *at = a + k * n + k;
        DR_TRY(nn_factor_diagonal(dev, at, at, n, nb, inv, false));
        if (from == n)
            break;
        DR_TRY(nn_times_square(dev, a + from * n + k, n, n - from, nb, inv));
        DR_TRY(take_columns(dev, a, n, from, end - from, k, 0));
    }
done:
    return st;
}

static dr_status cholesky_there(nn_device *dev, float *a, size_t n, bool *definite)
{
    float *diagonal = dr_calloc(n, sizeof(*diagonal)), *inv = NULL;
    dr_status st = DR_OK;

    DR_TRY(quant_floats_at(dev, &inv, NB, NB, "Cholesky blocks"));
    for (size_t k = 0, end = 0; k < n; k = end) {
        end = least(n, k + WIDE);
        DR_TRY(factor_panel(dev, a, inv, n, k, end));
        DR_TRY(take_columns(dev, a, n, end, n - end, k, FACTOR_TERMS));
    }
    DR_TRY(nn_cut_blocks(dev, diagonal, a, NULL, n, 1));
    *definite = true;
    for (size_t k = 0; k < n; k++)
        *definite = *definite && diagonal[k] > 0.0f && isfinite(diagonal[k]);
done:
    nn_mem_free(dev, inv);
    free(diagonal);
    return st;
}

static dr_status damped_there(float *factor, bool *found, nn_device *dev, const float *h,
                              size_t n, double damp)
{
    float *diagonal = dr_calloc(n, sizeof(*diagonal));
    uint32_t *backwards = dr_calloc(n, sizeof(*backwards));
    double mean = 0;
    dr_status st = DR_OK;

    DR_TRY(nn_cut_blocks(dev, diagonal, h, NULL, n, 1));
    for (size_t i = 0; i < n; i++) {
        mean += (double)diagonal[i] / (double)n;
        backwards[i] = (uint32_t)(n - 1 - i); /* what is read backwards stands as it was */
    }
    for (int i = 0; mean > 0 && !*found && i < DAMPINGS; i++, damp *= 10) {
        DR_TRY(nn_fill_factor(dev, factor, h, backwards, n, 0, damp * mean));
        DR_TRY(cholesky_there(dev, factor, n, found));
    }
done:
    free(diagonal);
    free(backwards);
    return st;
}

/* y[rows][n] with a factor and the inverses of its diagonal blocks. */
typedef struct {
    nn_device *dev;
    float *b;       /* borrowed */
    const float *l; /* borrowed */
    float *inv;     /* owned */
    size_t rows, n;
} solution;

/* b's columns from `to`, n of them, -= those from `from`, k of them, times L^T (turned) or
 * L. */
static dr_status take_solved(const solution *s, size_t to, size_t n, size_t from, size_t k,
                             bool turned, int terms)
{
    const nn_product p = {.y = s->b + to,
                          .x = s->b + from,
                          .w = turned ? s->l + to * s->n + from : s->l + from * s->n + to,
                          .m = s->rows,
                          .n = n,
                          .k = k,
                          .ldy = s->n,
                          .ldx = s->n,
                          .ldw = s->n,
                          .turned = turned,
                          .acc = true,
                          .minus = true,
                          .terms = terms};

    return n > 0 && k > 0 ? nn_add_product(s->dev, &p) : DR_OK;
}

/* y L^T = b */
static dr_status solve_forwards(const solution *s)
{
    dr_status st = DR_OK;

    DR_TRY(nn_invert_diagonals(s->dev, s->inv, s->l, s->n, false));
    for (size_t k0 = 0, end = 0; k0 < s->n; k0 = end) {
        end = least(s->n, k0 + WIDE);
        for (size_t k = k0; k < end; k += NB) {
            size_t nb = least(end - k, NB);
            DR_TRY(take_solved(s, k, nb, k0, k - k0, true, 0));
            DR_TRY(nn_times_square(s->dev, s->b + k, s->n, s->rows, nb, s->inv + k * NB));
        }
        DR_TRY(take_solved(s, end, s->n - end, k0, end - k0, true, SOLVE_TERMS));
    }
done:
    return st;
}

/* x L = y */
static dr_status solve_backwards(const solution *s)
{
    dr_status st = DR_OK;

    DR_TRY(nn_invert_diagonals(s->dev, s->inv, s->l, s->n, true));
    for (size_t k0 = (s->n + WIDE - 1) / WIDE * WIDE; k0 > 0;) {
        size_t end = least(s->n, k0), last = (end - 1) / NB * NB;
        k0 -= WIDE;
        for (size_t k = last + NB; k > k0;) {
            k -= NB;
            size_t nb = least(end - k, NB);
            DR_TRY(take_solved(s, k, nb, k + nb, end - k - nb, false, 0));
            DR_TRY(nn_times_square(s->dev, s->b + k, s->n, s->rows, nb, s->inv + k * NB));
        }
        DR_TRY(take_solved(s, 0, k0, k0, end - k0, false, SOLVE_TERMS));
    }
done:
    return st;
}

static dr_status solve_there(nn_device *dev, float *b, size_t rows, size_t n,
                             const float *l)
{
    solution s = {.dev = dev, .b = b, .l = l, .rows = rows, .n = n};
    dr_status st = DR_OK;

    DR_TRY(quant_floats_at(dev, &s.inv, n, NB, "inverses of diagonal blocks"));
    DR_TRY(solve_forwards(&s));
    DR_TRY(solve_backwards(&s));
done:
    nn_mem_free(dev, s.inv);
    return st;
}

/* ---- either ---- */

dr_status quant_cholesky(nn_device *dev, float *a, size_t n, bool *definite)
{
    chol_work w = {0};
    dr_status st = DR_OK;

    *definite = false;
    if (quant_there(dev) != NULL)
        return cholesky_there(dev, a, n, definite);
    DR_TRY(work_init(&w, dev, a, n));
    for (size_t k = 0; k < n; k += NB) {
        size_t nb = n - k < NB ? n - k : NB;
        DR_TRY(diagonal(&w, k, nb, definite));
        if (!*definite)
            goto done;
        if (k + nb < n)
            DR_TRY(trailing(&w, k, nb));
    }
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
    DR_TRY(invert_diagonal(w, nb, turned));
    DR_TRY(times_inverse(w, b + k, rows, nb));
done:
    return st;
}

dr_status quant_damped_factor(float *factor, bool *found, nn_device *dev, const float *h,
                              size_t n, double damp)
{
    double mean = 0;
    dr_status st = DR_OK;

    *found = false;
    if (quant_there(dev) != NULL)
        return damped_there(factor, found, dev, h, n, damp);
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

    if (quant_there(dev) != NULL)
        return solve_there(dev, b, rows, n, l);
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
