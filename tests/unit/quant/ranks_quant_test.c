/*
 * ranks_quant_test.c - what several processes share of a calibration is what one makes:
 * rows solved apart are the same bytes, sums over text the same but for their order.
 */
#include "quant_fixture.h"
#include "ranks_check.h"

enum { ROWS = 75, COLS = 64, TOKENS = 200 };

static const quant_grid four = {4, 32, false};
static const quant_gptq_options options = {.damp_percent = 0.01,
                                           .desc_act = true,
                                           .prescale = true,
                                           .bias = true,
                                           .upstream = 0.5,
                                           .sweeps = 2};

/* ---- one weight ---- */

typedef struct {
    const char *device;
    bool best;
    size_t way; /* that is taken, where there are two */
    const float *w, *h;
    const dr_qtensor *q; /* as one process solves it */
    const float *values;
    double loss;
} weight_task;

static void on_device(nn_device *dev, float **to, const float *from, size_t count)
{
    CHECK_OK(quant_floats_at(quant_there(dev), to, count, 1, "a test's"));
    CHECK_OK(nn_copy(dev, *to, from, count * sizeof(*from)));
}

static void check_packed(const dr_qtensor *q, const dr_qtensor *want)
{
    CHECK_EQ_INT(q->rows, want->rows);
    CHECK_MEM(q->codes, want->codes, want->rows * dr_qtensor_row_bytes(want));
    CHECK_MEM(q->scales, want->scales,
              want->rows * dr_qtensor_blocks(want) * sizeof(*want->scales));
    CHECK_MEM(q->zeros, want->zeros, want->rows * dr_qtensor_zero_bytes(want));
}

/* Those of the other way solve something else, which loses and must not come through. */
static void solve_shared(dr_ranks *r, void *ctx)
{
    const weight_task *k = ctx;
    float *w = NULL, *h = NULL, *values = dr_calloc(ROWS * COLS, sizeof(*values));
    quant_contest contest = {0};
    dr_qtensor q = {0};
    nn_device *dev = NULL;

    CHECK_OK(nn_device_open_rank(&dev, k->device, 1, r));
    const quant_site site = {.dev = dev, .shared = true};
    quant_way by = k->best ? quant_own_way(&site) : (quant_way){0, 1};
    on_device(dev, &w, k->w, ROWS * COLS);
    on_device(dev, &h, k->h, COLS * COLS);
    size_t way = by.ways == 1 ? 0 : k->way;
    if (by.way != way)
        CHECK_OK(nn_add(dev, w, w, ROWS * COLS));
    contest.way = by.way;
    CHECK_OK(quant_solve_own(&q, &contest, &site, by, k->best, w, h, ROWS, COLS, &four,
                             &options, "w"));
    by.way = way;
    CHECK_OK(quant_share_solved(&site, by, &q, w));
    CHECK_NEAR(contest.loss[way], k->loss, 1e-9 * k->loss);
    CHECK(by.ways == 1 || isinf(contest.loss[1 - way]));
    CHECK(quant_contest_lost(&contest) == (by.way != way || contest.way != way));
    CHECK_OK(nn_copy(dev, values, w, ROWS * COLS * sizeof(*w)));
    CHECK_MEM(values, k->values, ROWS * COLS * sizeof(*values));
    if (dr_ranks_first(r))
        check_packed(&q, k->q);
    dr_qtensor_release(&q);
    nn_mem_free(quant_there(dev), w);
    nn_mem_free(quant_there(dev), h);
    free(values);
    nn_device_close(dev);
}

static void test_weight(const char *device, bool best)
{
    float *x = fix_inputs(TOKENS, COLS, 5), *h = fix_gram(x, TOKENS, COLS);
    float *orig = fix_normal(ROWS * COLS, 9, 0.1f), *w = NULL, *there = NULL;
    float *values = dr_calloc(ROWS * COLS, sizeof(*values));
    weight_task k = {.device = device, .best = best, .w = orig, .h = h, .values = values};
    dr_qtensor q = {0};
    nn_device *dev = NULL;

    CHECK_OK(nn_device_open(&dev, device, 1));
    on_device(dev, &w, orig, ROWS * COLS);
    on_device(dev, &there, h, COLS * COLS);
    CHECK_OK(best ? quant_chain_solve(&q, &k.loss, NULL, dev, w, there, ROWS, COLS, &four,
                                      &options, "w")
                  : quant_gptq_solve(&q, &k.loss, dev, w, there, ROWS, COLS, &four,
                                     &options, "w"));
    CHECK_OK(nn_copy(dev, values, w, ROWS * COLS * sizeof(*w)));
    k.q = &q;
    for (size_t ranks = 2; ranks <= 6;
         ranks++) { /* the last has no row of the five tiles */
        k.way = ranks / 2 % 2;
        ranks_run(ranks, solve_shared, &k, NULL);
    }
    dr_qtensor_release(&q);
    nn_mem_free(quant_there(dev), w);
    nn_mem_free(quant_there(dev), there);
    nn_device_close(dev);
    free(x);
    free(h);
    free(orig);
    free(values);
}

/* ---- whole models ---- */

typedef enum { AWQ, AWQ_EXACT, GPTQ, BEST, METHODS } method;

typedef struct {
    const char *device, *in, *out;
    method how;
    const quant_calib *calib;
} model_task;

static dr_status run_method(const quant_site *site, const model_task *k)
{
    const quant_awq_options awq = {true, true, k->how == AWQ_EXACT};

    if (k->how == BEST)
        return quant_best(site, &four, k->calib, &options);
    if (k->how == GPTQ)
        return quant_gptq(site, &four, k->calib, &options);
    return quant_awq(site, &four, k->calib, &awq);
}

static void quantize(dr_ranks *r, void *ctx)
{
    const model_task *k = ctx;
    const hf_quant format = {HF_QUANT_OLIVE, 4, 32, false};
    nn_device *dev = NULL;
    hf_model *m = NULL;
    hf_writer *w = NULL;

    CHECK_OK(nn_device_open_rank(&dev, k->device, 1, r));
    CHECK_OK(hf_model_open(&m, k->in));
    CHECK_OK(hf_writer_open(&w, k->out, m, &format));
    if (!dr_ranks_first(r))
        hf_writer_mute(w);
    const quant_site site = {.dev = dev, .in = m, .out = w, .shared = true};
    CHECK_OK(run_method(&site, k));
    CHECK_OK(hf_writer_finish(w));
    hf_writer_close(w);
    hf_model_close(m);
    nn_device_close(dev);
}

static void test_model(dr_arena *a, const char *device, const fix_shape *shape)
{
    const char *in = fix_model(a, device, shape);
    const quant_calib calib = fix_ids(a, shape, 7, 40, 1),
                      text = fix_ids(a, shape, 4, 32, 2);
    model_task k = {.device = device, .in = in, .calib = &calib};
    hf_model *m = NULL;

    CHECK_OK(hf_model_open(&m, in));
    for (int how = AWQ; how < METHODS; how++) {
        k.how = (method)how;
        k.out = dr_arena_printf(a, "%s-%d-1", in, how);
        quantize(NULL, &k);
        double one = fix_divergence(m, k.out, &text);
        CHECK(one > 0);
        for (size_t ranks = 2; ranks <= 3; ranks++) {
            k.out = dr_arena_printf(a, "%s-%d-%zu", in, how, ranks);
            ranks_run(ranks, quantize, &k, NULL);
            /* a code decides many others (docs/PERFORMANCE.md); not with awq */
            CHECK_NEAR(fix_divergence(m, k.out, &text), one,
                       (how < GPTQ ? 0.02 : 0.3) * one);
        }
    }
    hf_model_close(m);
}

/* ---- judging ---- */

typedef struct {
    const char *before, *after;
    const quant_calib *text;
    quant_quality want;
} judge_task;

static void judge(dr_ranks *r, void *ctx)
{
    const judge_task *k = ctx;
    quant_quality q = {0};
    nn_device *dev = NULL;
    hf_model *a = NULL, *b = NULL;

    CHECK_OK(nn_device_open_rank(&dev, "cpu", 1, r));
    CHECK_OK(hf_model_open(&a, k->before));
    CHECK_OK(hf_model_open(&b, k->after));
    if (dr_ranks_count(r) > k->text->count) {
        CHECK_STATUS(quant_compare_layers(&q, NULL, dev, a, b, k->text, r), DR_EUSAGE);
        CHECK_TRAIL("4 blocks for 5 processes");
    } else {
        CHECK_OK(quant_compare_layers(&q, NULL, dev, a, b, k->text, r));
        CHECK_EQ_INT(q.tokens, k->want.tokens);
        CHECK_NEAR(q.kl, k->want.kl, 0);
        CHECK_NEAR(q.ppl_before, k->want.ppl_before, 0);
        CHECK_NEAR(q.loss_more.half, k->want.loss_more.half, 0);
    }
    hf_model_close(a);
    hf_model_close(b);
    nn_device_close(dev);
}

static void test_judge(dr_arena *a, const fix_shape *shape)
{
    const quant_calib text = fix_ids(a, shape, 4, 32, 2);
    judge_task k = {.before = dr_path_join(a, check_tmp(), "cpu"), .text = &text};
    nn_device *dev = NULL;
    hf_model *before = NULL, *after = NULL;

    k.after = dr_arena_printf(a, "%s-%d-1", k.before, GPTQ);
    CHECK_OK(nn_device_open(&dev, "cpu", 1));
    CHECK_OK(hf_model_open(&before, k.before));
    CHECK_OK(hf_model_open(&after, k.after));
    CHECK_OK(quant_compare(&k.want, dev, before, after, &text));
    for (size_t ranks = 2; ranks <= 5; ranks++)
        ranks_run(ranks, judge, &k, NULL);
    hf_model_close(before);
    hf_model_close(after);
    nn_device_close(dev);
}

int main(void)
{
    static const fix_shape llama = {false, false, 64, 128, 4, 2, 2, 96};
    static const fix_shape qwen = {false, true, 64, 96, 4, 1, 2, 96};
    dr_arena a = {0};

    for (int best = 0; best < 2; best++) {
        test_weight("cpu", best > 0);
        test_weight("cpu:apart", best > 0);
    }
    test_model(&a, "cpu", &llama);
    test_model(&a, "cpu:apart", &qwen);
    test_judge(&a, &llama);
    dr_arena_release(&a);
    return check_done();
}
