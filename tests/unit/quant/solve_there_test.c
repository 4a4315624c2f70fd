/*
 * solve_there_test.c - GPTQ and the whole chain on devices with operations of their own,
 * for the same weight and the same Hessian as on the cpu: what one step differs in, before
 * later layers make more of it.  cpu:apart shows it without a GPU.
 *
 * Whole models differ in more: each of GPTQ's codes decides the later ones of its row, and
 * a layer's the inputs of those behind it, so that the last bit of a sum becomes a few
 * codes and then many (there_test.c).  The cpu against itself, when the damping changes by
 * one part in a million, differs here by as much as from another device.
 */
#include <math.h>

#include "quant_fixture.h"

enum { ROWS = 64, COLS = 896, TOKENS = 2048 };

typedef struct {
    const char *name;
    quant_grid grid;
    quant_gptq_options o;
    bool chain;
} way;

static const way ways[] = {
    {"gptq, natural order, min and max",
     {4, 64, false},
     {.damp_percent = 0.01, .static_groups = true, .minmax = true},
     false},
    {"gptq, searched grids of what is left",
     {4, 64, false},
     {.damp_percent = 0.01, .desc_act = true},
     false},
    {"gptq, 3 bits", {3, 128, false}, {.damp_percent = 0.05}, false},
    {"chain", {4, 64, false}, {.damp_percent = 0.01, .desc_act = true, .sweeps = 3}, true},
    {"chain, 8 bits", {8, 32, true}, {.damp_percent = 0.01, .sweeps = 2}, true},
};

/* A copy where the device wants it. */
static float *put(nn_device *mem, nn_device *dev, const float *v, size_t count)
{
    float *to = NULL;

    CHECK_OK(nn_mem_new(mem, &to, count, NN_MEM_FLOAT, "a test's operand"));
    CHECK_OK(nn_copy(dev, to, v, count * sizeof(*v)));
    return to;
}

static void solve(dr_qtensor *q, double *loss, nn_device *dev, const float *w,
                  const float *h, const way *how)
{
    nn_device *mem = quant_there(dev);
    float *w_ = put(mem, dev, w, (size_t)ROWS * COLS);
    float *h_ = put(mem, dev, h, (size_t)COLS * COLS);

    if (how->chain)
        CHECK_OK(quant_chain_solve(q, loss, NULL, dev, w_, h_, ROWS, COLS, &how->grid,
                                   &how->o, how->name));
    else
        CHECK_OK(quant_gptq_solve(q, loss, dev, w_, h_, ROWS, COLS, &how->grid, &how->o,
                                  how->name));
    nn_mem_free(mem, w_);
    nn_mem_free(mem, h_);
}

/* Shares of codes that differ, and that differ by more than 1. */
static void differ(double share[2], const dr_qtensor *a, const dr_qtensor *b)
{
    size_t off[2] = {0};

    for (size_t i = 0; i < a->rows * a->cols; i++) {
        int by = dr_qtensor_code(a, i / a->cols, i % a->cols) -
                 dr_qtensor_code(b, i / a->cols, i % a->cols);
        off[0] += by != 0;
        off[1] += abs(by) > 1;
    }
    for (int i = 0; i < 2; i++)
        share[i] = (double)off[i] / (double)(a->rows * a->cols);
}

static void test_device(nn_device *cpu, nn_device *dev, const float *w, const float *h)
{
    for (size_t i = 0; i < DR_COUNT(ways); i++) {
        dr_qtensor here = {0}, there = {0};
        double loss[2] = {0}, share[2] = {1, 1};
        solve(&here, &loss[0], cpu, w, h, &ways[i]);
        solve(&there, &loss[1], dev, w, h, &ways[i]);
        differ(share, &here, &there);
        (void)printf("%s: %s: %.4f %% of codes differ, %.4f %% by more than 1\n",
                     nn_device_describe(dev), ways[i].name, 100 * share[0], 100 * share[1]);
        CHECK(share[0] <= 0.005);
        CHECK(share[1] <= 0.001);
        CHECK_NEAR(loss[1] / loss[0], 1, 1e-2);
        dr_qtensor_release(&here);
        dr_qtensor_release(&there);
    }
}

static void test_scale(nn_device *cpu, nn_device *dev, const float *w, const float *h)
{
    const quant_grid grid = {4, 64, false};
    nn_device *mem = quant_there(dev);
    float *w_ = put(mem, dev, w, (size_t)ROWS * COLS);
    float *h_ = put(mem, dev, h, (size_t)COLS * COLS);
    float here[COLS], there[COLS];

    CHECK_OK(quant_gptq_scale(here, cpu, w, h, ROWS, COLS, &grid, NULL));
    CHECK_OK(quant_gptq_scale(there, dev, w_, h_, ROWS, COLS, &grid, NULL));
    for (size_t i = 0; i < COLS; i++)
        CHECK_NEAR(there[i] / here[i], 1, 1e-5);
    nn_mem_free(mem, w_);
    nn_mem_free(mem, h_);
}

/* Solves w times `times` as the way of that number. */
static void enter(quant_contest *c, dr_qtensor *q, nn_device *dev, const float *w,
                  const float *h, size_t number, float times)
{
    const quant_site site = {.dev = dev};
    const quant_way all = {0, 1};
    nn_device *mem = quant_there(dev);
    float *own = dr_calloc((size_t)ROWS * COLS, sizeof(*own));
    float *h_ = put(mem, dev, h, (size_t)COLS * COLS), *w_ = NULL;

    for (size_t i = 0; i < (size_t)ROWS * COLS; i++)
        own[i] = times * w[i];
    w_ = put(mem, dev, own, (size_t)ROWS * COLS);
    c->way = number;
    CHECK_OK(quant_solve_own(q, c, &site, all, true, w_, h_, ROWS, COLS, &ways[3].grid,
                             &ways[3].o, "w"));
    nn_mem_free(mem, w_);
    nn_mem_free(mem, h_);
    free(own);
}

/* A way that comes second behind GPTQ is left; one that does not gives what it gives
 * alone. */
static void test_contest(nn_device *dev, const float *w, const float *h)
{
    dr_qtensor first = {0}, second = {0}, alone = {0};
    double loss = 0, share[2] = {0};

    for (int better = 0; better < 2; better++) {
        quant_contest c = {0};
        enter(&c, &first, dev, w, h, 0, 1.0f);
        CHECK(!quant_contest_lost(&c) && isfinite(c.loss[0]) && c.loss[0] < c.gptq[0]);
        enter(&c, &second, dev, w, h, 1, better ? 0.5f : 2.0f);
        CHECK(quant_contest_lost(&c) == !better);
        CHECK_NEAR(c.gptq[1] / c.gptq[0], better ? 0.25 : 4.0, 0.02);
        CHECK(better ? second.rows == ROWS : isinf(c.loss[1]) && second.rows == 0);
        if (!better) {
            solve(&alone, &loss, dev, w, h, &ways[3]);
            differ(share, &first, &alone);
            CHECK(share[0] == 0 && loss == c.loss[0]);
        }
        dr_qtensor_release(&first);
        dr_qtensor_release(&second);
        dr_qtensor_release(&alone);
    }
}

/* A share of 1e-6 more damping is 1e-8 more of the Hessian's diagonal: less than a float
 * of it can hold, but not less than a sum of many.  Printed, not checked. */
static void tell_chaos(nn_device *cpu, const float *w, const float *h)
{
    for (size_t i = 0; i < DR_COUNT(ways); i++) {
        dr_qtensor q[2] = {{0}, {0}};
        double loss = 0, share[2] = {0};
        way other = ways[i];
        other.o.damp_percent *= 1 + 1e-6;
        solve(&q[0], &loss, cpu, w, h, &ways[i]);
        solve(&q[1], &loss, cpu, w, h, &other);
        differ(share, &q[0], &q[1]);
        (void)printf("the cpu against itself: %s: %.4f %%\n", ways[i].name, 100 * share[0]);
        dr_qtensor_release(&q[0]);
        dr_qtensor_release(&q[1]);
    }
}

int main(void)
{
    static const char *const kinds[] = {"cpu:apart", "cuda"};
    float *w = fix_normal((size_t)ROWS * COLS, 3, 0.05f);
    float *x = fix_inputs(TOKENS, COLS, 5);
    float *h = dr_calloc((size_t)COLS * COLS, sizeof(*h));
    nn_device *cpu = NULL;

    CHECK_OK(nn_device_open(&cpu, "cpu", 2));
    CHECK_OK(nn_matmul_tn(cpu, h, x, x, COLS, COLS, TOKENS, COLS, COLS, false));
    tell_chaos(cpu, w, h);
    test_contest(cpu, w, h);
    for (size_t i = 0; i < DR_COUNT(kinds); i++) {
        nn_device *dev = NULL;
        if (nn_device_open(&dev, kinds[i], 2) != DR_OK) {
            SKIP("gpu: none to use");
            continue;
        }
        test_device(cpu, dev, w, h);
        test_scale(cpu, dev, w, h);
        test_contest(dev, w, h);
        nn_device_close(dev);
    }
    nn_device_close(cpu);
    free(w);
    free(x);
    free(h);
    return check_done();
}
