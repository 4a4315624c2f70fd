/*
 * descend.c - a rounded weight made better for its inputs, one number at a time.
 *
 * With e = rounded - original, a row's loss e H e^T is quadratic in every code, every scale
 * and every zero point when the others stand still, so each has its best value in closed
 * form from the gradient r = e H (d = (code - zero) of a group's columns):
 *
 *     code j    moves by -r_j / (H_jj s), rounded
 *     scale     moves by -(r d) / (d H d), rounded to what the file holds
 *     zero      moves by  (r 1) / (1 H 1 s), rounded; all its group's weights move along
 *
 * A sweep takes the columns in blocks of 128 (or a group, when that is wider): within one
 * the gradient is kept up for sixteen rows at once, then all columns get the block's
 * changes by one matrix product.  A move is made only when it lowers the loss, so sweeps
 * never make it worse; H is damped as GPTQ's, since codes fitted to few tokens fit
 * nothing else.
 *
 * Cost: rows n^2 multiply-adds for the first gradient and as many for each sweep.
 */
#include <math.h>
#include <string.h>

#include "core/mem.h"
#include "quant/quant_impl.h"
#include "quant/tile_impl.h"

enum { L = QUANT_LANES, NB = QUANT_SWEEP, ROWS = 32, EACH = 8 };

typedef float lanes __attribute__((vector_size(L * sizeof(float)), aligned(4)));

typedef struct {
    nn_device *dev;
    dr_qtensor *q;
    quant_rule rule;
    const float *h;    /* borrowed: [n][n] */
    const float *orig; /* borrowed: [rows][n] */
    float *values;     /* borrowed: [rows][n] */
    float damp;
    double *loss;   /* borrowed: [rows] */
    float *err;     /* owned: [rows][n] */
    float *grad;    /* owned: [rows][n] */
    float *delta;   /* owned: [rows][nb] */
    float *panel;   /* owned: [n][nb] columns of h */
    float *scratch; /* owned: per worker 4 tiles of a block */
    size_t p0, nb, width;
} descent;

/* One group of the block: its tiles, and the block's columns of H from its first on. */
typedef struct {
    float *r;    /* [nb - at][L] from the group's first column */
    float *code; /* [block][L] */
    float *move; /* [block][L] */
    const float *h;
    size_t ld, block, rest; /* rest: columns of the block from the group's first on */
    float damp, top;
} group;

/* r += d H_j of columns k .. to - 1, j among them. */
QUANT_INLINE void spread_move(const group *g, const float *restrict d, size_t j, size_t k,
                              size_t to)
{
    const float *restrict h = g->h + j * g->ld;
    float *restrict r = g->r;

    for (; k < to; k++) {
        for (int l = 0; l < L; l++)
            r[k * L + l] += d[l] * h[k];
    }
    for (int l = 0; l < L; l++)
        r[j * L + l] += d[l] * g->damp;
}

/* r of EACH columns from k on += d H_j for moves j = from .. to - 1. */
QUANT_INLINE void gather_moves(lanes *restrict r, const group *g, size_t k, size_t from,
                               size_t to)
{
    for (size_t j = from; j < to; j++) {
        const float *restrict h = g->h + j * g->ld + k;
        const lanes d = *(const lanes *)(g->move + j * L);
#pragma GCC unroll 8
        for (int i = 0; i < EACH; i++)
            r[i] += d * h[i];
    }
}

/* The same for moves of those columns themselves, which are damped. */
QUANT_INLINE void gather_own(lanes *restrict r, const group *g, size_t k, size_t from,
                             size_t to)
{
    for (size_t j = from; j < to; j++) {
        const lanes d = *(const lanes *)(g->move + j * L);
        gather_moves(r, g, k, j, j + 1);
#pragma GCC unroll 8
        for (size_t i = 0; i < EACH; i++) {
            if (k + i == j)
                r[i] += d * g->damp;
        }
    }
}

static inline size_t within(size_t k, size_t from, size_t to)
{
    return k < from ? from : k < to ? k : to;
}

/* spread_move of g->move from .. to - 1, to the bit: EACH columns of r stay in registers
 * for all of them.  Columns from `done` on, EACH of them, have it; SIZE_MAX: none has. */
QUANT_INLINE void spread(const group *g, size_t from, size_t to, size_t done)
{
    size_t whole = g->rest / EACH * EACH;

    for (size_t k = 0; k < whole; k += EACH) {
        const size_t own = within(k, from, to), behind = within(k + EACH, from, to);
        lanes r[EACH];
        if (k == done)
            continue;
#pragma GCC unroll 8
        for (size_t i = 0; i < EACH; i++)
            r[i] = *(const lanes *)(g->r + (k + i) * L);
        gather_moves(r, g, k, from, own);
        gather_own(r, g, k, own, behind);
        gather_moves(r, g, k, behind, to);
#pragma GCC unroll 8
        for (size_t i = 0; i < EACH; i++)
            *(lanes *)(g->r + (k + i) * L) = r[i];
    }
    for (size_t k = whole; whole != done && k < g->rest; k++) {
        lanes r = *(const lanes *)(g->r + k * L);
        for (size_t j = from; j < to; j++) {
            const lanes d = *(const lanes *)(g->move + j * L);
            r += d * g->h[j * g->ld + k];
            if (j == k)
                r += d * g->damp;
        }
        *(lanes *)(g->r + k * L) = r;
    }
}

/* A code's step moves the EACH columns that it lies in at once, the others with those. */
QUANT_CLONES
static void move_codes(const group *g, const quant_lanes *grid)
{
    for (size_t first = 0; first < g->block; first += EACH) {
        const size_t end = first + EACH < g->block ? first + EACH : g->block;
        const size_t to = first + EACH < g->rest ? first + EACH : g->rest;
        bool moved = false;
        for (size_t j = first; j < end; j++) {
            const float pivot = g->h[j * g->ld + j] + g->damp;
            float *d = g->move + j * L, any = 0.0f;
            for (int l = 0; l < L; l++) {
                float s = grid->scale[l], code = g->code[j * L + l];
                float c = code - nn_grid_round(g->r[j * L + l] / (pivot * s));
                c = c > 0.0f ? c : 0.0f;
                c = c < g->top ? c : g->top;
                d[l] = (c - code) * s;
                g->code[j * L + l] = c;
                any += fabsf(d[l]);
            }
            if (any > 0.0f)
                spread_move(g, d, j, first, to);
            moved = moved || any > 0.0f;
        }
        if (moved)
            spread(g, first, end, first);
    }
}

QUANT_CLONES
static void spread_moves(const group *g)
{
    spread(g, 0, g->block, SIZE_MAX);
}

/* slope = r v, curve = v (H + damp) v for v in g->move. */
static void derivatives(float *slope, float *curve, const group *g)
{
    memset(curve, 0, L * sizeof(*curve));
    memset(slope, 0, L * sizeof(*slope));
    quant_tile_quad(curve, g->move, g->h, g->ld, g->block);
    for (size_t j = 0; j < g->block; j++) {
        for (int l = 0; l < L; l++) {
            slope[l] += g->r[j * L + l] * g->move[j * L + l];
            curve[l] += g->damp * g->move[j * L + l] * g->move[j * L + l];
        }
    }
}

static void move_scale(const group *g, const quant_rule *rule, quant_lanes *grid)
{
    float slope[L], curve[L], by[L], any = 0.0f;

    for (size_t j = 0; j < g->block; j++) {
        for (int l = 0; l < L; l++)
            g->move[j * L + l] = g->code[j * L + l] - grid->zero[l];
    }
    derivatives(slope, curve, g);
    for (int l = 0; l < L; l++) {
        float s = curve[l] > 0.0f ? grid->scale[l] - slope[l] / curve[l] : 0.0f;
        s = rule->fp16_scales && s > 0.0f ? nn_grid_half(s) : s;
        by[l] = s > 0.0f && isfinite(s) ? s - grid->scale[l] : 0.0f;
        if (!(2.0f * by[l] * slope[l] + by[l] * by[l] * curve[l] < 0.0f))
            by[l] = 0.0f;
        grid->scale[l] += by[l];
        any += fabsf(by[l]);
    }
    if (!(any > 0.0f))
        return;
    for (size_t j = 0; j < g->block; j++) {
        for (int l = 0; l < L; l++)
            g->move[j * L + l] *= by[l];
    }
    spread_moves(g);
}

static void move_zero(const group *g, quant_lanes *grid)
{
    float slope[L], curve[L], by[L], any = 0.0f;

    for (size_t j = 0; j < g->block * L; j++)
        g->move[j] = 1.0f;
    derivatives(slope, curve, g);
    for (int l = 0; l < L; l++) {
        float s = grid->scale[l], z = grid->zero[l];
        z += curve[l] > 0.0f ? nn_grid_round(slope[l] / (curve[l] * s)) : 0.0f;
        z = z > 0.0f ? z : 0.0f;
        z = z < g->top ? z : g->top;
        by[l] = (grid->zero[l] - z) * s;
        if (!(2.0f * by[l] * slope[l] + by[l] * by[l] * curve[l] < 0.0f))
            by[l] = 0.0f;
        else
            grid->zero[l] = z;
        any += fabsf(by[l]);
    }
    if (!(any > 0.0f))
        return;
    for (size_t j = 0; j < g->block; j++) {
        for (int l = 0; l < L; l++)
            g->move[j * L + l] = by[l];
    }
    spread_moves(g);
}

/* The grid of group b for sixteen rows; rows beyond the last take the first's. */
static void read_grid(quant_lanes *g, const dr_qtensor *q, size_t row0, size_t rows,
                      size_t b)
{
    for (size_t l = 0; l < L; l++) {
        size_t r = row0 + (l < rows ? l : 0);
        g->scale[l] = q->scales[r * dr_qtensor_blocks(q) + b];
        g->zero[l] = (float)dr_qtensor_zero(q, r, b);
    }
}

static dr_status descend_tile(void *ctx, size_t task, int worker)
{
    const descent *s = ctx;
    size_t block = (size_t)s->q->block, n = s->q->cols, row0 = task * L, nb = s->nb;
    size_t rows = s->q->rows - row0 < L ? s->q->rows - row0 : L, at = row0 * n + s->p0;
    float *r = s->scratch + (size_t)worker * 4 * s->width * L, *code = r + s->width * L;
    float *move = code + s->width * L, *was = move + s->width * L;

    quant_tile_load(r, s->grad + at, n, rows, nb);
    quant_tile_load(was, s->values + at, n, rows, nb);
    for (size_t j = 0; j < nb; j += block) {
        size_t b = (s->p0 + j) / block;
        quant_lanes grid = {{0}, {0}};
        group g = {r + j * L, code + j * L, move,    s->h + (s->p0 + j) * n + s->p0 + j, n,
                   block,     nb - j,       s->damp, (float)((1 << s->rule.bits) - 1)};
        read_grid(&grid, s->q, row0, rows, b);
        quant_tile_codes(g.code, &s->rule, &grid, was + j * L, block);
        move_codes(&g, &grid);
        move_scale(&g, &s->rule, &grid);
        if (s->q->zeros != NULL)
            move_zero(&g, &grid);
        quant_tile_pack(s->q, row0, rows, b, g.code, block, &grid);
        quant_tile_values(g.code, &grid, g.code, block);
    }
    quant_tile_unload(s->values + at, n, rows, code, nb);
    for (size_t i = 0; i < nb * L; i++)
        code[i] -= was[i];
    quant_tile_unload(s->delta + row0 * nb, nb, rows, code, nb);
    for (size_t i = 0; i < rows * nb; i++)
        s->grad[at + i / nb * n + i % nb] += s->damp * s->delta[row0 * nb + i];
    return DR_OK;
}

/* err = values - orig; grad = err (H + damp). */
static dr_status subtract_rows(void *ctx, size_t task, int worker)
{
    const descent *s = ctx;
    size_t n = s->q->cols, from = task * ROWS * n, to = from + ROWS * n;

    (void)worker;
    to = to < s->q->rows * n ? to : s->q->rows * n;
    for (size_t i = from; i < to; i++) {
        s->err[i] = s->values[i] - s->orig[i];
        s->grad[i] = s->damp * s->err[i];
    }
    return DR_OK;
}

static dr_status gradient(descent *s)
{
    size_t rows = s->q->rows, n = s->q->cols;
    dr_status st = DR_OK;

    DR_TRY(dr_pool_run(nn_device_pool(s->dev), (rows + ROWS - 1) / ROWS, subtract_rows, s));
    DR_TRY(nn_matmul_nt(s->dev, s->grad, s->err, s->h, NULL, rows, n, n, n, true));
done:
    return st;
}

static dr_status sweep(descent *s)
{
    size_t rows = s->q->rows, n = s->q->cols;
    dr_status st = DR_OK;

    for (s->p0 = 0; s->p0 < n; s->p0 += s->width) {
        s->nb = n - s->p0 < s->width ? n - s->p0 : s->width;
        DR_TRY(dr_cancelled_check());
        DR_TRY(dr_pool_run(nn_device_pool(s->dev), (rows + L - 1) / L, descend_tile, s));
        for (size_t i = 0; i < n; i++)
            memcpy(s->panel + i * s->nb, s->h + i * n + s->p0, s->nb * sizeof(float));
        DR_TRY(nn_matmul_nt(s->dev, s->grad, s->delta, s->panel, NULL, rows, n, s->nb, n,
                            true));
    }
done:
    return st;
}

static dr_status descent_open(descent *s)
{
    size_t rows = s->q->rows, n = s->q->cols, block = (size_t)s->q->block;
    size_t workers = (size_t)dr_pool_threads(nn_device_pool(s->dev));
    dr_status st = DR_OK;

    s->width = block > NB ? block : NB / block * block;
    DR_TRY(quant_floats(&s->err, rows, n, "rounding errors"));
    DR_TRY(quant_floats(&s->grad, rows, n, "gradients"));
    DR_TRY(quant_floats(&s->delta, rows, s->width, "changes of a block"));
    DR_TRY(quant_floats(&s->panel, n, s->width, "columns of the Hessian"));
    DR_TRY(quant_floats(&s->scratch, workers, 4 * s->width * L, "descent scratch"));
done:
    return st;
}

static void descent_close(descent *s)
{
    float *all[] = {s->err, s->grad, s->delta, s->panel, s->scratch};

    for (size_t i = 0; i < DR_COUNT(all); i++)
        dr_big_free(all[i]);
}

/* e H e^T of some rows: grad is e (H + damp). */
static dr_status losses_task(void *ctx, size_t task, int worker)
{
    const descent *s = ctx;
    size_t n = s->q->cols,
           end = (task + 1) * ROWS < s->q->rows ? (task + 1) * ROWS : s->q->rows;

    (void)worker;
    for (size_t r = task * ROWS; r < end; r++) {
        s->loss[r] = 0;
        for (size_t i = r * n; i < (r + 1) * n; i++) {
            double e = (double)(s->values[i] - s->orig[i]);
            s->loss[r] += e * ((double)s->grad[i] - (double)s->damp * e);
        }
    }
    return DR_OK;
}

static dr_status row_losses(double *loss, descent *s)
{
    s->loss = loss;
    return dr_pool_run(nn_device_pool(s->dev), (s->q->rows + ROWS - 1) / ROWS, losses_task,
                       s);
}

dr_status quant_row_losses(double *loss, nn_device *dev, const float *values,
                           const float *orig, const float *h, size_t rows, size_t cols)
{
    dr_qtensor shape = {.rows = rows, .cols = cols, .block = NB};
    float *copy = NULL;
    dr_status st = DR_OK;

    DR_TRY(quant_floats(&copy, rows, cols, "rounded weight"));
    memcpy(copy, values, rows * cols * sizeof(*copy));
    descent s = {.dev = dev, .q = &shape, .h = h, .orig = orig, .values = copy};
    if ((st = descent_open(&s)) == DR_OK)
        st = gradient(&s);
    if (st == DR_OK)
        st = row_losses(loss, &s);
    descent_close(&s);
done:
    dr_big_free(copy);
    return st;
}

dr_status quant_descend(dr_qtensor *q, double *loss, float *values, nn_device *dev,
                        const float *orig, const float *h, const quant_grid *grid,
                        double damp, int sweeps)
{
    descent s = {.dev = dev,
                 .q = q,
                 .rule = quant_rule_of(grid),
                 .h = h,
                 .orig = orig,
                 .values = values,
                 .damp = (float)damp};
    dr_status st = DR_OK;

    DR_TRY(descent_open(&s));
    DR_TRY(gradient(&s));
    for (int i = 0; i < sweeps; i++)
        DR_TRY(sweep(&s));
    DR_TRY(row_losses(loss, &s));
done:
    descent_close(&s);
    return st;
}
