/*
 * model_test.c - whole tiny models through every quantizer: what is written, how close it
 * is, the same bytes for any number of threads.
 */
#include "quant_fixture.h"

typedef enum { RTN, AWQ, AWQ_EXACT, GPTQ, BEST, HQQ, KQUANT, METHODS } method;
static const char *const names[] = {"rtn",  "awq", "awq-exact", "gptq",
                                    "best", "hqq", "kquant"};

static const fix_shape llama = {false, false, 64, 128, 4, 2, 2, 96};
static const fix_shape qwen = {false, true, 64, 96, 4, 1, 2, 96};
static const fix_shape phi = {true, false, 64, 128, 4, 4, 2, 96};
static const fix_shape phi_gqa = {true, false, 64, 128, 4, 2, 2, 96};

static dr_status quantize(const char *out, const char *in, method how,
                          const quant_grid *grid, const quant_calib *calib, int threads)
{
    const hf_quant format = {HF_QUANT_OLIVE, grid->bits, grid->group_size, grid->symmetric};
    const quant_awq_options awq = {true, true, how == AWQ_EXACT};
    const quant_gptq_options gptq = {.damp_percent = 0.01, .sweeps = how == BEST ? 2 : 0};
    nn_device *dev = NULL;
    hf_model *m = NULL;
    hf_writer *w = NULL;
    dr_progress progress = {0};
    dr_status st = DR_OK;

    DR_TRY(nn_device_open(&dev, "cpu", threads));
    DR_TRY(hf_model_open(&m, in));
    DR_TRY(dr_make_dirs(out));
    DR_TRY(hf_writer_open(&w, out, m, &format));
    quant_site site = {.dev = dev, .in = m, .out = w, .progress = &progress};
    dr_progress_begin(&progress, "quantizing", "layers", 2);
    if (how == RTN)
        DR_TRY(quant_rtn(&site, grid));
    else if (how == BEST)
        DR_TRY(quant_best(&site, grid, calib, &gptq));
    else if (how == HQQ)
        DR_TRY(quant_hqq(&site, grid));
    else if (how == KQUANT)
        DR_TRY(quant_kquant(&site, grid));
    else if (how == GPTQ)
        DR_TRY(quant_gptq(&site, grid, calib, &gptq));
    else
        DR_TRY(quant_awq(&site, grid, calib, &awq));
    CHECK_EQ_INT(progress.done, 2);
    DR_TRY(hf_writer_finish(w));
done:
    dr_progress_end(&progress);
    hf_writer_close(w);
    hf_model_close(m);
    nn_device_close(dev);
    return st;
}

static quant_quality compare(const char *before, const char *after, const quant_calib *text)
{
    quant_quality q = {0};
    nn_device *dev = NULL;
    hf_model *a = NULL, *b = NULL;

    CHECK_OK(nn_device_open(&dev, "cpu", 2));
    if (CHECK_OK(hf_model_open(&a, before)) && CHECK_OK(hf_model_open(&b, after)))
        CHECK_OK(quant_compare(&q, dev, a, b, text));
    hf_model_close(a);
    hf_model_close(b);
    nn_device_close(dev);
    return q;
}

static void same_file(dr_arena *a, const char *x, const char *y)
{
    dr_map p = {0}, q = {0};

    if (CHECK_OK(dr_map_open(&p, dr_path_join(a, x, "model.safetensors"))) &&
        CHECK_OK(dr_map_open(&q, dr_path_join(a, y, "model.safetensors")))) {
        CHECK_EQ_INT(p.size, q.size);
        CHECK_MEM(p.data, q.data, p.size < q.size ? p.size : q.size);
    }
    dr_map_close(&p);
    dr_map_close(&q);
}

/* All methods on one model: 4 bits close, 8 bits (so that only folding could hurt)
 * closer. */
static void one_model(dr_arena *a, const char *name, const fix_shape *shape, double *total)
{
    const char *in = fix_model(a, name, shape);
    quant_calib calib = fix_ids(a, shape, 12, 40, 1), text = fix_ids(a, shape, 4, 32, 2);
    const quant_grid four = {4, 32, false}, eight = {8, 32, false};
    double kl[METHODS] = {0};

    for (int how = RTN; how < METHODS; how++) {
        const char *out = dr_arena_printf(a, "%s-%s", in, names[how]);
        CHECK_OK(quantize(out, in, (method)how, &four, &calib, 2));
        kl[how] = compare(in, out, &text).kl;
        CHECK(kl[how] > 0 && kl[how] < 0.2);
        out = dr_arena_printf(a, "%s-%s-8", in, names[how]);
        CHECK_OK(quantize(out, in, (method)how, &eight, &calib, 2));
        CHECK_NEAR(compare(in, out, &text).kl, 0, 1e-3);
    }
    (void)printf("%s: KL rtn %.5f awq %.5f exact %.5f gptq %.5f best %.5f\n", name, kl[RTN],
                 kl[AWQ], kl[AWQ_EXACT], kl[GPTQ], kl[BEST]);
    for (int how = RTN; how < METHODS; how++)
        total[how] += kl[how];
}

static void same_bytes(dr_arena *a)
{
    const char *in = fix_model(a, "threads", &llama);
    quant_calib calib = fix_ids(a, &llama, 5, 24, 3);
    const quant_grid grid = {4, 16, false};

    for (int how = RTN; how < METHODS; how++) {
        const char *first = NULL;
        for (int threads = 1; threads <= 3; threads++) {
            const char *out = dr_arena_printf(a, "%s-%s-%d", in, names[how], threads);
            CHECK_OK(quantize(out, in, (method)how, &grid, &calib, threads));
            if (first != NULL)
                same_file(a, first, out);
            first = out;
        }
    }
}

/* Whole rows, symmetric grids, few bits: written and read back. */
static void other_grids(dr_arena *a)
{
    static const quant_grid grids[] = {{4, -1, false}, {4, 32, true}, {8, -1, true}};
    const char *in = fix_model(a, "grids", &llama);
    quant_calib calib = fix_ids(a, &llama, 5, 24, 3);

    for (size_t i = 0; i < DR_COUNT(grids); i++) {
        for (int how = RTN; how < METHODS; how++) {
            const char *out = dr_arena_printf(a, "%s-%s-%zu", in, names[how], i);
            CHECK_OK(quantize(out, in, (method)how, &grids[i], &calib, 2));
            quant_quality q = compare(in, out, &calib);
            CHECK(q.kl >= 0 && q.kl < 0.5);
            CHECK_EQ_INT(q.tokens, 5 * 24);
        }
    }
}

static void comparing(dr_arena *a)
{
    const char *in = fix_model(a, "same", &qwen);
    quant_calib text = fix_ids(a, &qwen, 3, 150, 4);
    quant_quality q = compare(in, in, &text);

    CHECK_NEAR(q.kl, 0, 1e-9);
    CHECK_NEAR(q.top1, 1, 0);
    CHECK_NEAR(q.ppl_before, q.ppl_after, 1e-9);
    CHECK(q.ppl_before > 96 && isfinite(q.ppl_before)); /* untrained, on random tokens */
}

static void fitting(dr_arena *a)
{
    const fix_shape odd = {false, false, 72, 144, 3, 3, 1, 32};
    hf_model *m = NULL;
    int group = 0;

    if (!CHECK_OK(hf_model_open(&m, fix_model(a, "fit", &qwen))))
        return;
    CHECK_OK(quant_fit_group(&group, m, 128));
    CHECK_EQ_INT(group, 32); /* 64 and 96 */
    CHECK_OK(quant_fit_group(&group, m, 32));
    CHECK_EQ_INT(group, 32);
    CHECK_OK(quant_fit_group(&group, m, 48));
    CHECK_EQ_INT(group, 32);
    CHECK_OK(quant_fit_group(&group, m, -1));
    CHECK_EQ_INT(group, -1);
    CHECK_STATUS(quant_fit_group(&group, m, 8), DR_EUNSUPPORTED);
    hf_model_close(m);
    m = NULL;
    if (CHECK_OK(hf_model_open(&m, fix_model(a, "odd", &odd))))
        CHECK_STATUS(quant_fit_group(&group, m, 128), DR_EUNSUPPORTED);
    hf_model_close(m);
}

static void refusing(dr_arena *a)
{
    const char *in = fix_model(a, "refuse", &llama),
               *out = dr_arena_printf(a, "%s-out", in);
    quant_calib calib = fix_ids(a, &llama, 2, 16, 3), none = {calib.ids, 0, 16};
    const quant_grid fine = {4, 32, false}, three = {3, 32, false}, wide = {4, 256, false};
    const quant_grid odd = {4, 48, false};

    for (int how = RTN; how < METHODS; how++) {
        CHECK_STATUS(quantize(out, in, (method)how, &odd, &calib, 1), DR_EUSAGE);
        CHECK_STATUS(quantize(out, in, (method)how, &wide, &calib, 1), DR_EUNSUPPORTED);
        if (how != RTN && how != HQQ && how != KQUANT)
            CHECK_STATUS(quantize(out, in, (method)how, &fine, &none, 1), DR_EUSAGE);
    }
    CHECK(quantize(out, in, RTN, &three, &calib, 1) != DR_OK);
}

int main(void)
{
    dr_arena a = {0};
    double kl[METHODS] = {0};

    one_model(&a, "llama", &llama, kl);
    one_model(&a, "qwen", &qwen, kl);
    one_model(&a, "phi", &phi, kl);
    one_model(&a, "phi-gqa", &phi_gqa, kl);
    CHECK(kl[GPTQ] < kl[RTN] && kl[AWQ] < kl[RTN] && kl[BEST] < kl[GPTQ]);
    same_bytes(&a);
    other_grids(&a);
    comparing(&a);
    fitting(&a);
    refusing(&a);
    dr_arena_release(&a);
    return check_done();
}
