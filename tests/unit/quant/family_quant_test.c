/*
 * family_quant_test.c - the tiny model of every family through the quantizers that run text
 * and fold scales: with 8 bits the model stays what it was, so what is folded is folded
 * right; with 4 bits it is near; the same bytes for any number of threads.
 */
#include "check.h"
#include "core/mem.h"
#include "family.h"
#include "quant/quant.h"
#include "quant_fixture.h"

typedef enum { AWQ, AWQ_EXACT, GPTQ, PRESCALED, BEST, METHODS } method;
static const char *const method_names[] = {"awq", "awq-exact", "gptq", "prescaled", "best"};

enum { SEQUENCES = 12, LENGTH = 24, GROUP = 16 };

static dr_arena arena;

/* Tokens that look alike in no two sequences. */
static quant_calib text_of(const hf_config *c, int32_t seed)
{
    int32_t *ids = dr_arena_alloc(&arena, SEQUENCES * LENGTH, sizeof(*ids));

    for (int32_t i = 0; i < SEQUENCES * LENGTH; i++)
        ids[i] = (int32_t)(family_mix((uint32_t)(i + 1000 * seed)) % (uint32_t)c->vocab);
    return (quant_calib){ids, SEQUENCES, LENGTH};
}

static dr_status run(const quant_site *site, method how, const quant_grid *grid,
                     const quant_calib *calib)
{
    const quant_awq_options awq = {true, true, how == AWQ_EXACT};
    const quant_gptq_options gptq = {
        .damp_percent = 0.01, .prescale = how == PRESCALED, .sweeps = how == BEST ? 2 : 0};

    if (how == BEST)
        return quant_best(site, grid, calib, &gptq);
    if (how == GPTQ || how == PRESCALED)
        return quant_gptq(site, grid, calib, &gptq);
    return quant_awq(site, grid, calib, &awq);
}

static dr_status quantize(const char *out, const hf_model *m, method how, int bits,
                          int threads)
{
    const quant_grid grid = {bits, GROUP, false};
    const hf_quant format = {HF_QUANT_OLIVE, bits, GROUP, false};
    quant_calib calib = text_of(hf_model_config(m), 1);
    nn_device *dev = NULL;
    hf_writer *w = NULL;
    dr_status st = DR_OK;

    DR_TRY(nn_device_open(&dev, "cpu", threads));
    DR_TRY(dr_make_dirs(out));
    DR_TRY(hf_writer_open(&w, out, m, &format));
    const quant_site site = {.dev = dev, .in = m, .out = w};
    DR_TRY(run(&site, how, &grid, &calib));
    DR_TRY(hf_writer_finish(w));
done:
    hf_writer_close(w);
    nn_device_close(dev);
    return st;
}

static double divergence(const hf_model *m, const char *made)
{
    quant_calib text = text_of(hf_model_config(m), 2);

    return fix_divergence(m, made, &text);
}

/* Errors by layer and slot, of the first sequence. */
static quant_layer_error *errors_of(const hf_model *m, const char *made)
{
    size_t layers = (size_t)hf_model_config(m)->layers;
    quant_layer_error *e = dr_arena_alloc(&arena, layers, sizeof(*e));
    quant_calib text = text_of(hf_model_config(m), 2);
    quant_quality q;
    nn_device *dev = NULL;
    hf_model *after = NULL;

    CHECK_OK(nn_device_open(&dev, "cpu", 2));
    if (CHECK_OK(hf_model_open(&after, made)))
        CHECK_OK(quant_compare_layers(&q, e, dev, m, after, &text, NULL));
    hf_model_close(after);
    nn_device_close(dev);
    return e;
}

/* Steps are 17 times finer, and errors of every slot are smaller: what was folded is undone
 * before they are taken. */
static void check_errors(const hf_model *m, const char *four, const char *eight)
{
    const quant_layer_error *far = errors_of(m, four), *near = errors_of(m, eight);

    for (int i = 0; i < hf_model_config(m)->layers; i++) {
        for (int s = 0; s < HF_SLOT_COUNT; s++) {
            CHECK(far[i].slot[s] > 0.01 && far[i].slot[s] < 0.5);
            if (!CHECK(near[i].slot[s] > 0 && near[i].slot[s] < far[i].slot[s] / 4))
                (void)printf("  layer %d slot %d: %g, %g\n", i, s, near[i].slot[s],
                             far[i].slot[s]);
        }
    }
}

/* Is a norm of the first layer other than it was? */
static bool norm_changed(const hf_model *m, const char *made, hf_norm which)
{
    const hf_config *c = hf_model_config(m);
    size_t d = (size_t)c->hidden;
    float *was = dr_calloc(d, sizeof(*was)), *is = dr_calloc(d, sizeof(*is));
    hf_model *after = NULL;

    CHECK_OK(hf_model_open(&after, made));
    CHECK_OK(hf_norm_read(m, which, 0, was));
    CHECK_OK(hf_norm_read(after, which, 0, is));
    bool changed = memcmp(was, is, d * sizeof(*was)) != 0;
    hf_model_close(after);
    free(was);
    free(is);
    return changed;
}

static void same_bytes(const hf_model *m, const char *name, method how, const char *one)
{
    const char *three = dr_arena_printf(&arena, "%s-3", one);
    dr_map a = {0}, b = {0};

    CHECK_OK(quantize(three, m, how, 4, 3));
    if (CHECK_OK(dr_map_open(&a, dr_path_join(&arena, one, "model.safetensors"))) &&
        CHECK_OK(dr_map_open(&b, dr_path_join(&arena, three, "model.safetensors"))) &&
        CHECK_EQ_INT(a.size, b.size) && !CHECK_MEM(a.data, b.data, a.size))
        (void)printf("  %s\n", name);
    dr_map_close(&a);
    dr_map_close(&b);
}

static void one_family(const char *name)
{
    json_t *golden = family_golden(&arena, name);
    const json_t *config = json_object_get(json_object_get(golden, "configs"), "5");
    const char *in = family_model(&arena, name, golden, config, 1);
    hf_model *m = NULL;

    CHECK_OK(hf_model_open(&m, in));
    const hf_config *c = hf_model_config(m);
    (void)printf("%-18s KL", name);
    for (int how = 0; how < METHODS; how++) {
        size_t failed = check_failed;
        const char *four = dr_arena_printf(&arena, "%s-%s", in, method_names[how]);
        const char *eight = dr_arena_printf(&arena, "%s-8", four);
        CHECK_OK(quantize(four, m, (method)how, 4, 1));
        CHECK_OK(quantize(eight, m, (method)how, 8, 2));
        double far = divergence(m, four), near = divergence(m, eight);
        (void)printf(" %s %.2g %.2g", method_names[how], far, near);
        CHECK(far > 0.0 && far < 0.7);
        /* steps are 17 times finer: 1/289; what is folded wrong is 1/70 here */
        CHECK(near >= 0.0 && near < 0.01 * far + 1e-7);
        if (hf_norm_exists(c, HF_NORM_ATTN) && (how == AWQ || how == PRESCALED))
            CHECK(norm_changed(m, four, HF_NORM_ATTN) == !c->parallel);
        check_errors(m, four, eight);
        if (how != AWQ_EXACT && how != BEST)
            same_bytes(m, name, (method)how, four);
        if (check_failed > failed)
            (void)printf("\n  %s %s\n", name, method_names[how]);
    }
    (void)printf("\n");
    hf_model_close(m);
    json_decref(golden);
}

int main(void)
{
    for (size_t i = 0; i < DR_COUNT(family_names); i++) {
        if (strcmp(family_names[i], "qwen3_moe") != 0 &&
            strcmp(family_names[i], "gpt_oss") != 0)
            one_family(family_names[i]);
    }
    dr_arena_release(&arena);
    return check_done();
}
