/*
 * svd.c - Golub-Kahan-Lanczos bidiagonalization with full reorthogonalization.
 *
 *     A V = U B,   A^T U = V B^T + beta v e^T        B upper bidiagonal, k x k
 *
 * The largest singular values of B become A's after few steps, and how far one is off is
 * known without looking at A: beta times the last component of B's left vector.  B's values
 * and left vectors are those of the tridiagonal B B^T, by implicit QL: squares lose what is
 * below 1e-8 of the largest value, which the norm of B^T p then says better.  Whether it is
 * enough is asked with the last components alone, which is cheap.
 *
 * Every vector is made orthogonal to all before it, twice (Giraud et al. 2005: twice is
 * enough).  Where the space ends before there are r values (a matrix of lower rank), a new
 * random direction goes on, until all of min(m, n) is spanned.
 *
 * dr_svd_lowrank leaves all that out: a block of directions goes through A and back.
 *
 * Sources: Golub and Kahan 1965; Simon and Zha 2000; Halko et al. 2011; QL as in EISPACK's
 * tql2 (Bowdler et al. 1968).
 */
#include "core/svd.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/rng.h"

/* The same bytes from each: nothing is contracted, no sum is reordered. */
#if defined(__x86_64__) && defined(__GLIBC__)
#    define CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#    define CLONES
#endif

enum { LANES = 8, CHECK_EVERY = 16, QL_STEPS = 60 };
static const uint64_t START = 0x535644; /* the stream of random directions: "SVD" */
static const double NOTHING = 1e-13;    /* of the largest norm: a direction of rounding */

typedef struct {
    const float *a;
    size_t m, n, most; /* most: min(m, n) */
    size_t k, room;    /* steps done; steps that there is memory for */
    double *u, *v;     /* owned [room][m], [room + 1][n] */
    double *alpha;     /* owned [most + 1]: B's diagonal, ... */
    double *beta;      /* ... and beside it: beta[i] is right of alpha[i] */
    double *coef;      /* owned [most + 1] */
    double *d, *e, *z; /* owned [most + 1]: B B^T and last components */
    double scale;      /* largest norm met */
    dr_rng rng;
} work;

/* Lanes in a fixed order. */
CLONES
static double dot(const double *x, const double *y, size_t n)
{
    double lane[LANES] = {0}, sum = 0;
    size_t i = 0;

    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++)
            lane[j] += x[i + j] * y[i + j];
    for (; i < n; i++)
        sum += x[i] * y[i];
    for (size_t j = 0; j < LANES; j++)
        sum += lane[j];
    return sum;
}

CLONES
static double dot_row(const float *x, const double *y, size_t n)
{
    double lane[LANES] = {0}, sum = 0;
    size_t i = 0;

    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++)
            lane[j] += (double)x[i + j] * y[i + j];
    for (; i < n; i++)
        sum += (double)x[i] * y[i];
    for (size_t j = 0; j < LANES; j++)
        sum += lane[j];
    return sum;
}

CLONES
static void add(double *restrict y, double f, const double *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += f * x[i];
}

CLONES
static void add_row(double *restrict y, double f, const float *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += f * (double)x[i];
}

/* y[m] = A x. */
CLONES
static void times(const work *w, double *y, const double *x)
{
    for (size_t i = 0; i < w->m; i++)
        y[i] = dot_row(w->a + i * w->n, x, w->n);
}

/* y[n] = A^T x. */
static void times_t(const work *w, double *y, const double *x)
{
    memset(y, 0, w->n * sizeof(*y));
    for (size_t i = 0; i < w->m; i++)
        add_row(y, x[i], w->a + i * w->n, w->n);
}

/* x less its parts along the first `count` rows of basis; its length. */
static double orthogonal(work *w, double *x, const double *basis, size_t count, size_t n)
{
    for (int twice = 0; twice < 2; twice++) {
        for (size_t i = 0; i < count; i++)
            w->coef[i] = dot(basis + i * n, x, n);
        for (size_t i = 0; i < count; i++)
            add(x, -w->coef[i], basis + i * n, n);
    }
    return sqrt(dot(x, x, n));
}

/* A row behind the first `count` becomes one of length 1; returns what its length was, or 0
 * where it was nothing and a random direction took its place. */
static double settle(work *w, double *basis, size_t count, size_t n)
{
    double *x = basis + count * n, norm = orthogonal(w, x, basis, count, n), was = norm;

    w->scale = norm > w->scale ? norm : w->scale;
    if (norm <= NOTHING * w->scale) {
        was = 0;
        for (size_t i = 0; i < n; i++)
            x[i] = (double)dr_rng_normal(&w->rng);
        norm = orthogonal(w, x, basis, count, n);
    }
    for (size_t i = 0; i < n; i++)
        x[i] /= norm;
    return was;
}

/* ---- memory ---- */

static dr_status grow(double **block, size_t rows, size_t had, size_t n)
{
    dr_status st = DR_OK;
    void *p = NULL;
    size_t cells = 0;

    if (!dr_mul(&cells, rows, n))
        DR_FAIL(DR_ENOMEM, "singular vectors: %zu of %zu values", rows, n);
    DR_TRY(dr_big_alloc(&p, cells, sizeof(double), "singular vectors"));
    if (*block != NULL)
        memcpy(p, *block, had * n * sizeof(double));
    dr_big_free(*block);
    *block = p;
done:
    return st;
}

static dr_status room_for(work *w, size_t steps)
{
    dr_status st = DR_OK;
    size_t room = w->room + w->room / 2 > steps ? w->room + w->room / 2 : steps;

    if (steps <= w->room)
        return DR_OK;
    room = room < w->most ? room : w->most;
    DR_TRY(grow(&w->u, room, w->k, w->m));
    DR_TRY(grow(&w->v, room + 1, w->k > 0 ? w->k + 1 : 0, w->n));
    w->room = room;
done:
    return st;
}

static void release(work *w)
{
    dr_big_free(w->u);
    dr_big_free(w->v);
    free(w->alpha);
    free(w->beta);
    free(w->coef);
    free(w->d);
    free(w->e);
    free(w->z);
}

/* ---- the small matrix ---- */

/* One plane turn of QL on rows i and i + 1 of z[.][cols]. */
static void turn(double *z, size_t i, size_t cols, double c, double s)
{
    double *p = z + i * cols, *q = p + cols;

    for (size_t j = 0; j < cols; j++) {
        double f = q[j];
        q[j] = s * p[j] + c * f;
        p[j] = c * p[j] - s * f;
    }
}

/* The eigenvalues of the tridiagonal matrix with d[k] on and e[k - 1] beside the diagonal,
 * in d; z[k][cols], columns of the unit matrix, become those components of the vectors. */
static bool eigen(double *d, double *e, double *z, size_t k, size_t cols)
{
    e[k - 1] = 0;
    for (size_t l = 0; l < k; l++) {
        for (int step = 0;; step++) {
            size_t m = l;
            while (m + 1 < k &&
                   fabs(e[m]) > 1.1e-16 * (fabs(d[m]) + fabs(d[m + 1])) + 1e-300)
                m++;
            if (m == l)
                break;
            if (step == QL_STEPS)
                return false;
            double g = (d[l + 1] - d[l]) / (2 * e[l]), r = hypot(g, 1), s = 1, c = 1, p = 0;
            g = d[m] - d[l] + e[l] / (g + copysign(r, g));
            bool cut = false;
            for (size_t i = m; i-- > l && !cut;) {
                double f = s * e[i], b = c * e[i];
                e[i + 1] = r = hypot(f, g);
                if (r == 0) {
                    d[i + 1] -= p;
                    e[m] = 0;
                    cut = true;
                    continue;
                }
                s = f / r;
                c = g / r;
                g = d[i + 1] - p;
                r = (d[i] - g) * s + 2 * c * b;
                p = s * r;
                d[i + 1] = g + p;
                g = c * r - b;
                turn(z, i, cols, c, s);
            }
            if (cut)
                continue;
            d[l] -= p;
            e[l] = g;
            e[m] = 0;
        }
    }
    return true;
}

/* B B^T into d and e.  When u spans all of its space, the last beta is a column of B, not
 * an error. */
static void square(work *w)
{
    for (size_t i = 0; i < w->k; i++) {
        double b = i + 1 < w->k || w->k == w->m ? w->beta[i] : 0;
        w->d[i] = w->alpha[i] * w->alpha[i] + b * b;
        w->e[i] = i + 1 < w->k ? b * w->alpha[i + 1] : 0;
    }
}

/* Which eigenvalue is the i-th largest: order[k]. */
static void by_size(size_t *order, const double *d, size_t k)
{
    for (size_t i = 0; i < k; i++) {
        size_t at = i;
        for (; at > 0 && d[order[at - 1]] < d[i]; at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
}

/* Are the r largest values good enough? */
static bool enough(work *w, size_t r, double tol)
{
    size_t *order = dr_calloc(w->k, sizeof(*order));
    double beta = w->beta[w->k - 1];
    bool good = true;

    square(w);
    memset(w->z, 0, w->k * sizeof(*w->z));
    w->z[w->k - 1] = 1;
    good = eigen(w->d, w->e, w->z, w->k, 1);
    by_size(order, w->d, w->k);
    for (size_t i = 0; i < r && good; i++)
        good = fabs(beta * w->z[order[i]]) <= tol * sqrt(fmax(w->d[order[0]], 0));
    free(order);
    return good;
}

/* ---- the vectors ---- */

/* out[n] = the sum of c[i] basis[i], of length 1. */
static void combine(float *out, double *room, const double *c, const double *basis,
                    size_t k, size_t n)
{
    double norm;

    memset(room, 0, n * sizeof(*room));
    for (size_t i = 0; i < k; i++)
        add(room, c[i], basis + i * n, n);
    norm = sqrt(dot(room, room, n));
    for (size_t i = 0; i < n; i++)
        out[i] = (float)(norm > 0 ? room[i] / norm : 0);
}

/* u and v with the largest component of v above zero. */
static void fix_sign(float *u, float *v, size_t m, size_t n)
{
    size_t at = 0;

    for (size_t i = 1; i < n; i++)
        at = fabsf(v[i]) > fabsf(v[at]) ? i : at;
    if (v[at] >= 0)
        return;
    for (size_t i = 0; i < n; i++)
        v[i] = -v[i];
    for (size_t i = 0; i < m; i++)
        u[i] = -u[i];
}

/* q[k + 1] = B^T p over its length, which it returns. */
static double right_vector(const work *w, double *q, const double *p)
{
    double norm;

    for (size_t i = 0; i < w->k; i++)
        q[i] = w->alpha[i] * p[i] + (i > 0 ? w->beta[i - 1] * p[i - 1] : 0);
    q[w->k] = w->k == w->m ? w->beta[w->k - 1] * p[w->k - 1] : 0;
    norm = sqrt(dot(q, q, w->k + 1));
    for (size_t i = 0; i <= w->k && norm > 0; i++)
        q[i] /= norm;
    return norm;
}

static dr_status vectors(work *w, double *s, float *u, float *v, size_t r)
{
    size_t k = w->k, *order = dr_calloc(k, sizeof(*order));
    size_t longest = w->m > w->n ? w->m : w->n;
    double *room = dr_calloc(longest + k + 1, sizeof(*room));
    void *z = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_big_alloc(&z, k * k, sizeof(double), "singular vectors"));
    double *p = z;
    for (size_t i = 0; i < k; i++)
        p[i * k + i] = 1;
    square(w);
    if (!eigen(w->d, w->e, p, k, k))
        DR_FAIL(DR_EFORMAT, "singular values: QL does not come to an end");
    by_size(order, w->d, k);
    for (size_t i = 0; i < r; i++) {
        const double *left = p + order[i] * k;
        double *right = room + longest;
        s[i] = right_vector(w, right, left);
        combine(u + i * w->m, room, left, w->u, k, w->m);
        if (v == NULL)
            continue;
        combine(v + i * w->n, room, right, w->v, k + 1, w->n);
        fix_sign(u + i * w->m, v + i * w->n, w->m, w->n);
    }
done:
    dr_big_free(z);
    free(room);
    free(order);
    return st;
}

/* ---- the steps ---- */

static dr_status step(work *w)
{
    size_t k = w->k;
    double *u, *v;
    dr_status st = DR_OK;

    DR_TRY(room_for(w, k + 1));
    u = w->u + k * w->m;
    v = w->v + (k + 1) * w->n;
    if (k == 0)
        (void)settle(w, w->v, 0, w->n); /* zeros: a random start */
    times(w, u, w->v + k * w->n);
    if (k > 0)
        add(u, -w->beta[k - 1], u - w->m, w->m);
    w->alpha[k] = settle(w, w->u, k, w->m);
    times_t(w, v, u);
    add(v, -w->alpha[k], w->v + k * w->n, w->n);
    w->k = k + 1;
    /* Beyond n there is no direction left, whatever rounding says. */
    w->beta[k] = k + 1 < w->n ? settle(w, w->v, k + 1, w->n) : 0;
done:
    return st;
}

static dr_status check_finite(const float *a, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!isfinite(a[i]))
            return dr_fail(DR_EFORMAT, "singular values of a matrix with %g in it",
                           (double)a[i]);
    return DR_OK;
}

dr_status dr_svd(double *s, float *u, float *v, const float *a, size_t m, size_t n,
                 size_t r, double tol)
{
    work w = {.a = a, .m = m, .n = n, .most = m < n ? m : n};
    dr_status st = DR_OK;

    DR_BUG_IF(r == 0 || r > w.most);
    DR_TRY(check_finite(a, m * n));
    double **const lists[] = {&w.alpha, &w.beta, &w.coef, &w.d, &w.e, &w.z};
    for (size_t i = 0; i < DR_COUNT(lists); i++)
        *lists[i] = dr_calloc(w.most + 1, sizeof(double));
    dr_rng_init(&w.rng, 0, START);
    DR_TRY(room_for(&w, 3 * r < w.most ? 3 * r : w.most));
    bool done_early = false;
    while (w.k < w.most && !done_early) {
        DR_TRY(step(&w));
        done_early = w.k >= r + CHECK_EVERY && w.k % CHECK_EVERY == 0 && enough(&w, r, tol);
    }
    DR_TRY(vectors(&w, s, u, v, r));
done:
    release(&w);
    return st;
}

/* ---- subspace iteration ---- */

/* y[r][rows] = A x for each of x[r][columns], or A^T; a row of A is read once for all. */
static void times_all(const work *w, double *y, const double *x, size_t r, bool transposed)
{
    memset(y, 0, r * (transposed ? w->n : w->m) * sizeof(*y));
    for (size_t i = 0; i < w->m; i++) {
        const float *row = w->a + i * w->n;
        for (size_t k = 0; k < r && !transposed; k++)
            y[k * w->m + i] = dot_row(row, x + k * w->n, w->n);
        for (size_t k = 0; k < r && transposed; k++)
            add_row(y + k * w->n, x[k * w->m + i], row, w->n);
    }
}

static void orthonormal(work *w, double *rows, size_t r, size_t n)
{
    w->scale = 0;
    for (size_t i = 0; i < r; i++)
        (void)settle(w, rows, i, n);
}

/* The small matrix b[r][n], whose rows are A's in a basis q[r][m], taken apart. */
static dr_status from_basis(double *s, float *u, float *v, const double *b, const double *q,
                            size_t m, size_t n, size_t r)
{
    float *small = NULL, *left = NULL;
    double *sum = dr_calloc(m, sizeof(*sum));
    void *p = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_big_alloc(&p, r * (n + r), sizeof(float), "a matrix in its subspace"));
    small = p;
    left = small + r * n;
    for (size_t i = 0; i < r * n; i++)
        small[i] = (float)b[i];
    DR_TRY(dr_svd(s, left, v, small, r, n, r, 1e-10));
    for (size_t i = 0; i < r; i++) {
        memset(sum, 0, m * sizeof(*sum));
        for (size_t k = 0; k < r; k++)
            add(sum, (double)left[i * r + k], q + k * m, m);
        for (size_t k = 0; k < m; k++)
            u[i * m + k] = (float)sum[k];
    }
done:
    dr_big_free(p);
    free(sum);
    return st;
}

dr_status dr_svd_lowrank(double *s, float *u, float *v, const float *a, size_t m, size_t n,
                         size_t r, int iterations, uint64_t seed)
{
    work w = {.a = a, .m = m, .n = n, .most = m < n ? m : n};
    /* The basis is of the longer side, as in torch: tall is A, else A^T. */
    const bool tall = m >= n;
    const size_t longer = tall ? m : n, other = tall ? n : m;
    double *q, *x;
    void *p = NULL;
    dr_status st = DR_OK;

    DR_BUG_IF(r == 0 || r > w.most || iterations < 0);
    DR_TRY(check_finite(a, m * n));
    DR_TRY(dr_big_alloc(&p, r * (m + n), sizeof(double), "singular vectors"));
    q = p;
    x = q + r * longer;
    w.coef = dr_calloc(r + 1, sizeof(*w.coef));
    dr_rng_init(&w.rng, seed, START);
    for (size_t i = 0; i < r * other; i++)
        x[i] = (double)dr_rng_normal(&w.rng);
    for (int i = 0; i <= iterations; i++) {
        if (i > 0)
            orthonormal(&w, x, r, other);
        times_all(&w, q, x, r, !tall);
        orthonormal(&w, q, r, longer);
        times_all(&w, x, q, r, tall);
    }
    if (tall)
        DR_TRY(from_basis(s, u, v, x, q, m, n, r));
    else
        DR_TRY(from_basis(s, v, u, x, q, n, m, r));
    for (size_t i = 0; i < r && !tall; i++)
        fix_sign(u + i * m, v + i * n, m, n);
done:
    dr_big_free(p);
    free(w.coef);
    return st;
}
