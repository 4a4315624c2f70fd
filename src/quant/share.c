/*
 * share.c - what several processes (core/ranks.h) do each a part of: blocks of text, and
 * rows of a weight.
 *
 * Sums over text (Grams, cross products, magnitudes) are added over ranks, so each has the
 * Hessian of all the text, and makes the same factor of it; rows do not depend on each
 * other, so each rank solves its own, and all are given the result: the text goes on
 * through it.  Where a slot is solved in two ways (as it is and scaled, best) and ranks are
 * even, half of them take one each: a factor is then made once for each way.  What is left
 * to do on each rank is what does not grow with text or rows: reading weights, factors, and
 * the small searches.  Packed rows are the first rank's, which writes.
 *
 * On GPUs two things are left out, which take less time than moving what they make.  GPTQ
 * by itself, whose columns wait for each other, so that half the rows take most of the time
 * of all: each rank solves all, to the same bytes.  And packing what has been searched,
 * which is the first rank's.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "quant/quant_impl.h"

enum { STEP = QUANT_LANES };

dr_ranks *quant_ranks(const quant_site *site)
{
    return site->shared ? nn_device_ranks(site->dev) : NULL;
}

/* Of `all` things that go by `step`: where the k-th of n shares begins. */
static size_t edge(size_t n, size_t k, size_t all, size_t step)
{
    size_t steps = (all + step - 1) / step, at = steps * k / n * step;

    return at < all ? at : all;
}

size_t quant_edge(const dr_ranks *r, size_t k, size_t all)
{
    return edge(dr_ranks_count(r), k, all, 1);
}

size_t quant_ways(const quant_site *site)
{
    return dr_ranks_count(quant_ranks(site)) % 2 == 0 ? 2 : 1;
}

static quant_rows rows_by(const quant_site *site, size_t rows, size_t ways)
{
    const dr_ranks *r = quant_ranks(site);
    size_t group = dr_ranks_count(r) / ways, k = dr_ranks_id(r) % group;
    size_t from = edge(group, k, rows, STEP);

    return (quant_rows){from, edge(group, k + 1, rows, STEP) - from};
}

quant_rows quant_own_rows(const quant_site *site, size_t rows)
{
    return rows_by(site, rows, 1);
}

quant_rows quant_packing_rows(const quant_site *site, size_t rows)
{
    if (quant_there(site->dev) == NULL)
        return quant_own_rows(site, rows);
    return (quant_rows){0, dr_ranks_first(quant_ranks(site)) ? rows : 0};
}

/* Of `ways` that each have their own ranks, those of one: the edges of their rows, in
 * elements of `each` a row; the other ranks have none.  free(). */
static size_t *edges_of(const dr_ranks *r, quant_way by, size_t rows, size_t each)
{
    size_t n = dr_ranks_count(r), group = n / by.ways, first = by.way * group;
    size_t *edges = dr_calloc(n + 1, sizeof(*edges));

    for (size_t k = first + 1; k <= n; k++) {
        size_t at = k - first < group ? k - first : group;
        edges[k] = edge(group, at, rows, STEP) * each;
    }
    return edges;
}

dr_status quant_sum(const quant_site *site, float *p, size_t count, const char *what)
{
    return site->shared ? nn_sum_ranks(site->dev, p, count, what) : DR_OK;
}

dr_status quant_sum_doubles(const quant_site *site, double *p, size_t count,
                            const char *what)
{
    dr_ranks *r = quant_ranks(site);
    double *here = NULL;
    dr_status st = DR_OK;

    if (dr_ranks_count(r) == 1)
        return DR_OK;
    here = dr_calloc(count, sizeof(*here));
    DR_TRY(nn_copy(site->dev, here, p, count * sizeof(*here)));
    DR_TRY(dr_ranks_sum_doubles(r, here, count, what));
    DR_TRY(nn_copy(site->dev, p, here, count * sizeof(*here)));
done:
    free(here);
    return st;
}

static dr_status share_rows(const quant_site *site, quant_way by, float *w, size_t rows,
                            size_t cols)
{
    size_t *edges = edges_of(quant_ranks(site), by, rows, cols);
    dr_status st = nn_share_ranks(site->dev, w, edges, "rows of a weight");

    free(edges);
    return st;
}

dr_status quant_share_rows(const quant_site *site, float *w, size_t rows, size_t cols)
{
    if (dr_ranks_count(quant_ranks(site)) == 1)
        return DR_OK;
    return share_rows(site, (quant_way){0, 1}, w, rows, cols);
}

/* ---- packed rows ---- */

static const char packed[] = "packed rows of a weight";

/* v[rows][bytes], here, from its ranks to the first one: by way of the device, which is
 * the shorter one where that is a GPU. */
static dr_status first_has(const quant_site *site, quant_way by, void *v, size_t rows,
                           size_t bytes)
{
    dr_ranks *r = quant_ranks(site);
    nn_device *mem = quant_there(site->dev);
    size_t k = dr_ranks_id(r), *edges = edges_of(r, by, rows, 1), cols = bytes / 4;
    float *there = NULL;
    dr_status st = DR_OK;

    if (mem == NULL || bytes % sizeof(float) != 0) {
        DR_TRY(dr_ranks_share(r, v, bytes, edges, packed));
        goto done;
    }
    size_t own = edges[k + 1] - edges[k];
    DR_TRY(quant_floats_at(mem, &there, rows, cols, packed));
    if (own > 0)
        DR_TRY(nn_copy(mem, there + edges[k] * cols, (const char *)v + edges[k] * bytes,
                       own * bytes));
    DR_TRY(share_rows(site, by, there, rows, cols));
    if (dr_ranks_first(r))
        DR_TRY(nn_copy(mem, v, there, rows * bytes));
done:
    nn_mem_free(mem, there);
    free(edges);
    return st;
}

static dr_status share_packed(const quant_site *site, quant_way by, dr_qtensor *q)
{
    dr_status st = DR_OK;

    DR_TRY(first_has(site, by, q->codes, q->rows, dr_qtensor_row_bytes(q)));
    DR_TRY(
        first_has(site, by, q->scales, q->rows, dr_qtensor_blocks(q) * sizeof(*q->scales)));
    if (q->zeros != NULL)
        DR_TRY(first_has(site, by, q->zeros, q->rows, dr_qtensor_zero_bytes(q)));
done:
    return st;
}

dr_status quant_share_packed(const quant_site *site, dr_qtensor *q)
{
    if (dr_ranks_count(quant_ranks(site)) == 1)
        return DR_OK;
    return share_packed(site, (quant_way){0, 1}, q);
}

dr_status quant_share_packing(const quant_site *site, dr_qtensor *q)
{
    return quant_there(site->dev) == NULL ? quant_share_packed(site, q) : DR_OK;
}

/* ---- solving ---- */

dr_status quant_contest_meet(quant_contest *c, const double *own, size_t rows)
{
    double sums[QUANT_WAYS] = {0};
    dr_status st = DR_OK;

    if (c == NULL)
        return DR_OK;
    for (size_t r = 0; r < rows; r++)
        sums[c->way] += own[r];
    DR_TRY(dr_ranks_sum_doubles(quant_ranks(c->site), sums, QUANT_WAYS, "losses"));
    for (size_t i = 0; i < QUANT_WAYS; i++) {
        if (i != c->way && quant_ways(c->site) == 1)
            continue;
        c->met[i] = true;
        c->gptq[i] = sums[i];
    }
done:
    return st;
}

bool quant_contest_lost(const quant_contest *c)
{
    if (c == NULL || !c->met[0] || !c->met[1])
        return false;
    return (c->gptq[1] < c->gptq[0]) != (c->way == 1);
}

static dr_status solve(dr_qtensor *q, quant_contest *c, bool best, float *w, const float *h,
                       size_t rows, size_t cols, const quant_grid *grid,
                       const quant_gptq_options *o, const char *name)
{
    nn_device *dev = c->site->dev;
    double *loss = &c->loss[c->way];

    if (best)
        return quant_chain_solve(q, loss, c, dev, w, h, rows, cols, grid, o, name);
    return quant_gptq_solve(q, loss, dev, w, h, rows, cols, grid, o, name);
}

quant_way quant_gptq_way(const quant_site *site)
{
    return (quant_way){0, quant_there(site->dev) != NULL ? 0 : 1};
}

quant_way quant_own_way(const quant_site *site)
{
    const dr_ranks *r = quant_ranks(site);
    size_t ways = quant_ways(site);

    return (quant_way){dr_ranks_id(r) / (dr_ranks_count(r) / ways), ways};
}

dr_status quant_solve_own(dr_qtensor *q, quant_contest *c, const quant_site *site,
                          quant_way by, bool best, float *w, const float *h, size_t rows,
                          size_t cols, const quant_grid *grid, const quant_gptq_options *o,
                          const char *name)
{
    dr_ranks *r = quant_ranks(site);
    quant_rows own = {0};
    double losses[QUANT_WAYS] = {0};
    dr_qtensor part = {0};
    size_t block = 0;
    dr_status st = DR_OK;

    *q = (dr_qtensor){0};
    c->site = site;
    c->loss[c->way] = 0;
    if (dr_ranks_count(r) == 1 || by.ways == 0)
        return solve(q, c, best, w, h, rows, cols, grid, o, name);
    own = rows_by(site, rows, by.ways);
    DR_TRY(quant_grid_block(&block, grid, cols, name));
    DR_TRY(dr_qtensor_new(q, quant_stored_bits(grid), (int)block, rows, cols,
                          grid->symmetric));
    if (own.count > 0)
        DR_TRY(
            solve(&part, c, best, w + own.from * cols, h, own.count, cols, grid, o, name));
    else if (best)
        DR_TRY(quant_contest_meet(c, NULL, 0));
    if (part.rows > 0)
        dr_qtensor_copy_rows(q, own.from, &part, 0, own.count);
    losses[c->way] = c->loss[c->way];
    DR_TRY(dr_ranks_sum_doubles(r, losses, QUANT_WAYS, "losses"));
    for (size_t i = 0; i < QUANT_WAYS; i++)
        c->loss[i] = i == c->way || by.ways > 1 ? losses[i] : c->loss[i];
done:
    dr_qtensor_release(&part);
    if (st != DR_OK)
        dr_qtensor_release(q);
    return st;
}

dr_status quant_share_solved(const quant_site *site, quant_way by, dr_qtensor *q, float *w)
{
    dr_status st = DR_OK;

    if (dr_ranks_count(quant_ranks(site)) == 1 || by.ways == 0)
        return DR_OK;
    DR_TRY(share_rows(site, by, w, q->rows, q->cols));
    DR_TRY(share_packed(site, by, q));
done:
    return st;
}
