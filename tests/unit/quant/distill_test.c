/*
 * distill_test.c - scales trained end to end: closer to the original by quant_compare's own
 * account, nothing but scales changed, and the same bytes for any number of threads and
 * any amount of memory, and on a GPU.
 */
#include "family.h"
#include "quant/quant.h"
#include "quant_fixture.h"

enum { SEQ = 16, SEQUENCES = 64, STEPS = 30 };

static dr_arena arena;

static quant_calib text_of(const hf_config *c)
{
    int32_t *ids = dr_arena_alloc(&arena, SEQUENCES * SEQ, sizeof(*ids));

    for (size_t i = 0; i < SEQUENCES * SEQ; i++)
        ids[i] = (int32_t)(family_mix((uint32_t)i) % (uint32_t)c->vocab);
    return (quant_calib){ids, SEQUENCES, SEQ};
}

static const hf_quant layout = {HF_QUANT_GPTQ, 4, 16, false};

static void round_rtn(const char *dir, const hf_model *m)
{
    const quant_grid grid = {4, 16, false};
    hf_writer *w = NULL;
    nn_device *dev = NULL;

    CHECK_OK(dr_make_dirs(dir));
    CHECK_OK(nn_device_open(&dev, "cpu", 1));
    CHECK_OK(hf_writer_open(&w, dir, m, &layout));
    const quant_site site = {.dev = dev, .in = m, .out = w};
    CHECK_OK(quant_rtn(&site, &grid));
    CHECK_OK(hf_writer_finish(w));
    hf_writer_close(w);
    nn_device_close(dev);
}

typedef struct {
    const char *device;
    int threads;
    size_t keep;
    bool exact;
} way;

static dr_status distill(quant_distill_report *r, const char *dir, const hf_model *packed,
                         const hf_model *m, size_t steps, const way *how)
{
    const quant_calib text = text_of(hf_model_config(m));
    const quant_distill_options o = {.steps = steps,
                                     .batch = 8,
                                     .learning_rate = 3e-3,
                                     .keep_bytes = how->keep,
                                     .exact = how->exact};
    hf_writer *w = NULL;
    nn_device *dev = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_make_dirs(dir));
    DR_TRY(nn_device_open(&dev, how->device, how->threads));
    DR_TRY(hf_writer_open(&w, dir, packed, &layout));
    const quant_site site = {.dev = dev, .in = packed, .out = w};
    DR_TRY(quant_distill(r, &site, m, &text, &o));
    DR_TRY(hf_writer_finish(w));
done:
    hf_writer_close(w);
    nn_device_close(dev);
    return st;
}

/* KL on the sequences that validated, and on those that were trained on. */
static double divergence(const hf_model *m, const char *made, size_t from, size_t count)
{
    quant_calib text = text_of(hf_model_config(m));

    text.ids += from * SEQ;
    text.count = count;
    return fix_divergence(m, made, &text);
}

static bool same_file(const char *a_dir, const char *b_dir)
{
    dr_map a = {0}, b = {0};

    CHECK_OK(dr_map_open(&a, dr_path_join(&arena, a_dir, "model.safetensors")));
    CHECK_OK(dr_map_open(&b, dr_path_join(&arena, b_dir, "model.safetensors")));
    bool same = a.size == b.size && memcmp(a.data, b.data, a.size) == 0;
    dr_map_close(&a);
    dr_map_close(&b);
    return same;
}

static void only_scales_changed(const hf_model *before, const char *made)
{
    hf_model *after = NULL;
    const hf_linear *x = NULL, *y = NULL;
    bool moved = false;

    CHECK_OK(hf_model_open(&after, made));
    size_t n = hf_layer_linears(before, 0, &x);
    CHECK_EQ_INT(hf_layer_linears(after, 0, &y), n);
    for (size_t i = 0; i < n; i++) {
        dr_qtensor a = {0}, b = {0};
        CHECK_OK(hf_linear_packed(before, &x[i], &a, NULL));
        CHECK_OK(hf_linear_packed(after, &y[i], &b, NULL));
        CHECK_MEM(a.codes, b.codes, a.rows * dr_qtensor_row_bytes(&a));
        CHECK_MEM(a.zeros, b.zeros, a.rows * dr_qtensor_zero_bytes(&a));
        moved = moved || memcmp(a.scales, b.scales,
                                a.rows * dr_qtensor_blocks(&a) * sizeof(float)) != 0;
        dr_qtensor_release(&a);
        dr_qtensor_release(&b);
    }
    CHECK(moved);
    hf_model_close(after);
}

/* Floats in another order: the same run but for rounding, and the same bytes each time. */
static void on_gpu(const quant_distill_report *want, const char *dir,
                   const hf_model *packed, const hf_model *m)
{
    const way gpu = {"cuda", 1, 0, false};
    const char *again = dr_arena_printf(&arena, "%s-again", dir);
    quant_distill_report r = {0};
    nn_device *dev = NULL;

    if (nn_device_open(&dev, gpu.device, 1) != DR_OK) {
        SKIP("gpu: none to use");
        return;
    }
    nn_device_close(dev);
    CHECK_OK(distill(&r, dir, packed, m, STEPS, &gpu));
    CHECK_NEAR(r.kl_before / want->kl_before, 1, 1e-4);
    CHECK_NEAR(r.kl_after / want->kl_after, 1, 1e-2);
    CHECK_OK(distill(&r, again, packed, m, STEPS, &gpu));
    CHECK(same_file(dir, again));
}

static void one_family(const char *name)
{
    static const way usual = {"cpu", 1, (size_t)1 << 28, false};
    static const way poor = {"cpu", 3, 0, false}; /* nothing is kept */
    static const way exact = {"cpu", 2, (size_t)1 << 28, true};

    const size_t train = SEQUENCES - SEQUENCES / 8;
    json_t *golden = family_golden(&arena, name);
    const json_t *config = json_object_get(json_object_get(golden, "configs"), "5");
    const char *in = family_model(&arena, name, golden, config, 1);
    const char *rtn = dr_arena_printf(&arena, "%s-rtn", in);
    const char *made = dr_arena_printf(&arena, "%s-distilled", in);
    const char *other = dr_arena_printf(&arena, "%s-other", in);
    quant_distill_report r = {0}, again = {0};
    hf_model *m = NULL, *packed = NULL;

    CHECK_OK(hf_model_open(&m, in));
    round_rtn(rtn, m);
    CHECK_OK(hf_model_open(&packed, rtn));
    CHECK_OK(distill(&r, made, packed, m, STEPS, &usual));
    (void)printf("%s: %.4g to %.4g at step %zu\n", name, r.kl_before, r.kl_after,
                 r.best_step);
    CHECK_NEAR(divergence(m, rtn, train, SEQUENCES - train) / r.kl_before, 1, 1e-3);
    CHECK_NEAR(divergence(m, made, train, SEQUENCES - train) / r.kl_after, 1, 2e-2);
    CHECK(r.best_step > 0 && r.kl_after < r.kl_before);
    CHECK(divergence(m, made, 0, train) < 0.8 * divergence(m, rtn, 0, train));
    only_scales_changed(packed, made);
    CHECK_OK(distill(&again, other, packed, m, STEPS, &poor));
    CHECK(again.kl_after == r.kl_after && again.best_step == r.best_step);
    CHECK(same_file(made, other));
    CHECK_OK(distill(&again, other, packed, m, STEPS, &exact));
    CHECK_NEAR(again.kl_before / r.kl_before, 1, 1e-6);
    CHECK_NEAR(again.kl_after / r.kl_after, 1, 2e-2);
    on_gpu(&again, other, packed, m);
    hf_model_close(packed);
    hf_model_close(m);
    json_decref(golden);
}

static void refused(void)
{
    json_t *golden = family_golden(&arena, "llama3");
    const json_t *config = json_object_get(json_object_get(golden, "configs"), "5");
    const char *in = family_model(&arena, "llama3", golden, config, 1);
    const way how = {"cpu", 1, 0, false};
    quant_distill_report r = {0};
    hf_model *m = NULL;

    CHECK_OK(hf_model_open(&m, in));
    CHECK_STATUS(distill(&r, dr_arena_printf(&arena, "%s-x", in), m, m, 2, &how),
                 DR_EUSAGE);
    CHECK_STATUS(distill(&r, dr_arena_printf(&arena, "%s-x", in), m, m, 0, &how),
                 DR_EUSAGE);
    CHECK_TRAIL("expected steps, a batch and a rate, found 0, 8, 0.003");
    hf_model_close(m);
    json_decref(golden);
}

int main(void)
{
    static const char *const names[] = {"llama3", "qwen2", "gemma2", "phi2"};

    for (size_t i = 0; i < DR_COUNT(names); i++)
        one_family(names[i]);
    refused();
    dr_arena_release(&arena);
    return check_done();
}
