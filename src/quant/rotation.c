/*
 * rotation.c - orthogonal matrices of a model's sizes: Hadamard with random signs, and
 * uniform ones.
 *
 * Of n = order * 2^k, the block of that order is one of Paley's (1933): I + S for a prime
 * q = order - 1 of 3 mod 4; S (x) [1 1; 1 -1] + I (x) [1 -1; -1 -1] for a prime q =
 * order / 2 - 1 of 1 mod 4; with S the squares' characters mod q, and a border of ones.  So
 * 12, 20, 28, 36, 44, 60, 68, 76, 84, ... are there; of the sizes that models have, 52, 92
 * and 116 are not by themselves, but twice or four times as much is.
 *
 * x R is n log p + n order steps a row, in doubles.
 *
 * A uniform matrix is a product of n reflections, each of which turns an axis to a random
 * direction of those that are left, with random signs behind (Stewart 1980): 2 n^3 steps.
 * Rows do not depend on each other, so any number of threads gives the same.
 */
#include "quant/rotation_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/rng.h"
#include "quant/quant_impl.h"

enum { ROWS = 16, CHUNK_ROWS = 1024 };

/* ---- Hadamard blocks ---- */

static bool is_prime(size_t q)
{
    for (size_t i = 2; i * i <= q; i++) {
        if (q % i == 0)
            return false;
    }
    return q > 1;
}

/* The prime whose squares make a block of this order, first kind or second; 0: none. */
static size_t paley_prime(size_t order)
{
    if (order % 4 != 0)
        return 0;
    if (is_prime(order - 1))
        return order - 1; /* 3 mod 4 */
    return (order / 2 - 1) % 4 == 1 && is_prime(order / 2 - 1) ? order / 2 - 1 : 0;
}

size_t quant_hadamard_order(size_t n)
{
    size_t order = n;

    while (order % 2 == 0 && order > 0)
        order /= 2;
    if (order == 1)
        return 1;
    for (; order > 0 && n % order == 0; order *= 2) {
        if (paley_prime(order) != 0)
            return order;
    }
    return 0;
}

/* s[q+1][q+1]: zero diagonal, a border of ones (below it as much as the sign says), and
 * whether i - j is a square mod q. */
static float *conference(size_t q, float below)
{
    size_t n = q + 1;
    float *s = dr_calloc(n * n, sizeof(*s)), *square = dr_calloc(q, sizeof(*square));

    for (size_t i = 1; i < q; i++)
        square[i] = -1;
    for (size_t i = 1; i < q; i++)
        square[i * i % q] = 1;
    for (size_t i = 0; i < q; i++) {
        s[i + 1] = 1;
        s[(i + 1) * n] = below;
        for (size_t j = 0; j < q; j++)
            s[(i + 1) * n + j + 1] = square[(i + q - j) % q];
    }
    free(square);
    return s;
}

static float *paley_block(size_t order)
{
    size_t q = paley_prime(order), n = q + 1;
    bool first = n == order;
    float *s = conference(q, first ? -1 : 1), *b = NULL;

    if (first) {
        for (size_t i = 0; i < n; i++)
            s[i * n + i] = 1;
        return s;
    }
    b = dr_calloc(order * order, sizeof(*b));
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++) {
            float v = s[i * n + j], d = i == j ? 1.0f : 0.0f;
            float *to = b + 2 * i * order + 2 * j;
            to[0] = v + d;
            to[1] = v - d;
            to[order] = v - d;
            to[order + 1] = -v - d;
        }
    }
    free(s);
    return b;
}

/* ---- uniform matrices ---- */

typedef struct {
    quant_rotation *r;
    const float *v;     /* [n][n]: the k-th reflection's, from column k on */
    const double *beta; /* [n]: 2 / v^2 */
    double *scratch;    /* per worker ROWS x n */
} reflecting;

static dr_status reflect_rows(void *ctx, size_t task, int worker)
{
    const reflecting *f = ctx;
    size_t n = f->r->n, row0 = task * ROWS, rows = n - row0 < ROWS ? n - row0 : ROWS;
    double *x = f->scratch + (size_t)worker * ROWS * n;

    for (size_t i = 0; i < rows * n; i++)
        x[i] = i % n == row0 + i / n ? 1.0 : 0.0;
    for (size_t k = 0; k + 1 < n; k++) {
        const float *v = f->v + k * n;
        for (size_t r = 0; r < rows; r++) {
            double *row = x + r * n, sum = 0;
            for (size_t i = k; i < n; i++)
                sum += row[i] * (double)v[i];
            sum *= f->beta[k];
            for (size_t i = k; i < n; i++)
                row[i] -= sum * (double)v[i];
        }
    }
    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < n; i++)
            f->r->dense[i * n + row0 + r] = (float)x[r * n + i] * f->r->sign[i];
    }
    return DR_OK;
}

static dr_status make_dense(quant_rotation *r, dr_pool *pool, dr_rng *rng)
{
    size_t n = r->n;
    float *v = NULL;
    double *beta = dr_calloc(n, sizeof(*beta));
    void *scratch = NULL;
    dr_status st = DR_OK;

    DR_TRY(quant_floats(&v, n, n, "reflections"));
    DR_TRY(quant_floats(&r->dense, n, n, "rotation"));
    DR_TRY(quant_floats(&r->chunk, CHUNK_ROWS, n, "rotated rows"));
    DR_TRY(dr_big_alloc(&scratch, (size_t)dr_pool_threads(pool) * ROWS * n, sizeof(double),
                        "rows of a rotation"));
    for (size_t k = 0; k < n; k++) {
        double sum = 0, rest = 0;
        for (size_t i = k; i < n; i++) {
            v[k * n + i] = dr_rng_normal(rng);
            sum += (double)v[k * n + i] * (double)v[k * n + i];
        }
        rest = sum - (double)v[k * n + k] * (double)v[k * n + k];
        r->sign[k] = v[k * n + k] < 0 ? 1.0f : -1.0f;
        v[k * n + k] += copysignf((float)sqrt(sum), v[k * n + k]);
        beta[k] = 2 / (rest + (double)v[k * n + k] * (double)v[k * n + k]);
    }
    reflecting f = {r, v, beta, scratch};
    DR_TRY(dr_pool_run(pool, (n + ROWS - 1) / ROWS, reflect_rows, &f));
done:
    free(beta);
    dr_big_free(v);
    dr_big_free(scratch);
    return st;
}

/* ---- making and using ---- */

dr_status quant_rotation_make(quant_rotation *r, dr_pool *pool, size_t n, bool random,
                              uint64_t seed, uint64_t stream)
{
    dr_rng rng;
    dr_status st = DR_OK;

    *r = (quant_rotation){.n = n, .order = random ? 0 : quant_hadamard_order(n)};
    dr_rng_init(&rng, seed, stream);
    DR_TRY(quant_floats(&r->sign, n, 1, "signs of a rotation"));
    if (r->order == 0) {
        DR_TRY(make_dense(r, pool, &rng));
        goto done;
    }
    for (size_t i = 0; i < n; i++)
        r->sign[i] = dr_rng_below(&rng, 2) == 0 ? 1.0f : -1.0f;
    if (r->order > 1)
        r->block = paley_block(r->order);
done:
    if (st != DR_OK)
        quant_rotation_release(r);
    return st;
}

void quant_rotation_release(quant_rotation *r)
{
    free(r->block);
    dr_big_free(r->sign);
    dr_big_free(r->dense);
    dr_big_free(r->chunk);
    *r = (quant_rotation){0};
}

typedef struct {
    const quant_rotation *r;
    float *x;
    size_t rows;
    double *scratch; /* per worker 2 n */
} rotating;

/* v[n] = v H, Sylvester's and not normalized; n is a power of two. */
static void walsh(double *v, size_t n)
{
    for (size_t half = 1; half < n; half *= 2) {
        for (size_t i = 0; i < n; i += 2 * half) {
            for (size_t k = i; k < i + half; k++) {
                double a = v[k], b = v[k + half];
                v[k] = a + b;
                v[k + half] = a - b;
            }
        }
    }
}

/* to[order][p] = block^T from[order][p]. */
static void mix(double *to, const quant_rotation *r, const double *from)
{
    size_t p = r->n / r->order;

    for (size_t i = 0; i < r->n; i++)
        to[i] = 0;
    for (size_t i = 0; i < r->order; i++) {
        for (size_t j = 0; j < r->order; j++) {
            double b = (double)r->block[i * r->order + j];
            for (size_t k = 0; k < p; k++)
                to[j * p + k] += b * from[i * p + k];
        }
    }
}

static dr_status rotate_rows(void *ctx, size_t task, int worker)
{
    const rotating *job = ctx;
    const quant_rotation *r = job->r;
    size_t n = r->n, p = n / r->order, row0 = task * ROWS;
    size_t end = row0 + ROWS < job->rows ? row0 + ROWS : job->rows;
    double *a = job->scratch + (size_t)worker * 2 * n, *b = a + n;
    double scale = 1 / sqrt((double)n);

    for (size_t row = row0; row < end; row++) {
        float *x = job->x + row * n;
        for (size_t i = 0; i < n; i++)
            a[i] = (double)(x[i] * r->sign[i]);
        for (size_t i = 0; i < n; i += p)
            walsh(a + i, p);
        if (r->order > 1)
            mix(b, r, a);
        for (size_t i = 0; i < n; i++)
            x[i] = (float)((r->order > 1 ? b : a)[i] * scale);
    }
    return DR_OK;
}

static dr_status multiply_rows(const quant_rotation *r, nn_device *dev, float *x,
                               size_t rows)
{
    dr_status st = DR_OK;

    for (size_t i = 0; i < rows; i += CHUNK_ROWS) {
        size_t n = rows - i < CHUNK_ROWS ? rows - i : CHUNK_ROWS;
        DR_TRY(nn_matmul_nt(dev, r->chunk, x + i * r->n, r->dense, NULL, n, r->n, r->n,
                            r->n, false));
        memcpy(x + i * r->n, r->chunk, n * r->n * sizeof(*x));
    }
done:
    return st;
}

dr_status quant_rotation_rows(const quant_rotation *r, nn_device *dev, float *x,
                              size_t rows)
{
    dr_pool *pool = nn_device_pool(dev);
    rotating job = {.r = r, .x = x, .rows = rows};
    void *scratch = NULL;
    dr_status st = DR_OK;

    if (r->order == 0)
        return multiply_rows(r, dev, x, rows);
    DR_TRY(dr_big_alloc(&scratch, (size_t)dr_pool_threads(pool) * 2 * r->n, sizeof(double),
                        "rotated rows"));
    job.scratch = scratch;
    DR_TRY(dr_pool_run(pool, (rows + ROWS - 1) / ROWS, rotate_rows, &job));
done:
    dr_big_free(scratch);
    return st;
}
