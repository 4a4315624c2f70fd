/*
 * layer_error_test.c - errors by layer and slot: none of a model to itself, small ones
 * after 8 bits even where scales were folded, larger ones after 4; a slot answers for
 * itself.
 */
#include "check.h"

#include "hf/hf.h"
#include "quant_fixture.h"

enum { T = 40, LAYERS = 4 };
typedef enum { NOTHING, RTN, AWQ, DAMAGE } how;
static const fix_shape llama = {false, true, 64, 96, 4, 4, 2, 96};
static nn_device *dev;
static quant_layer_error same[LAYERS], few[LAYERS], many[LAYERS], folded[LAYERS],
    hurt[LAYERS];

/* One linear of layer 1 halved, the rest as it was. */
static dr_status damage(const hf_model *m, hf_writer *w, dr_arena *a)
{
    const hf_linear *l = NULL;
    size_t n = hf_layer_linears(m, 1, &l);
    dr_status st = DR_OK;

    for (size_t i = 0; i < n; i++) {
        if (l[i].slot != HF_SLOT_DOWN)
            continue;
        float *rows = dr_arena_alloc(a, l[i].n_out * l[i].n_in, sizeof(float));
        DR_TRY(hf_linear_read(m, &l[i], rows, 0, l[i].n_out));
        for (size_t k = 0; k < l[i].n_out * l[i].n_in; k++)
            rows[k] *= 0.5f;
        DR_TRY(hf_writer_linear(w, &l[i], rows));
    }
done:
    return st;
}

static dr_status change(const char *out, const hf_model *m, how what, int bits, dr_arena *a)
{
    const quant_calib calib = fix_ids(a, &llama, 12, 40, 1);
    const quant_grid grid = {bits, 32, false};
    const hf_quant layout = {HF_QUANT_OLIVE, bits, 32, false};
    const quant_awq_options o = {.duo_scaling = true, .clip = false};
    hf_writer *w = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_make_dirs(out));
    DR_TRY(hf_writer_open(&w, out, m, what == RTN || what == AWQ ? &layout : NULL));
    const quant_site site = {.dev = dev, .in = m, .out = w};
    if (what == RTN)
        DR_TRY(quant_rtn(&site, &grid));
    if (what == AWQ)
        DR_TRY(quant_awq(&site, &grid, &calib, &o));
    if (what == DAMAGE)
        DR_TRY(damage(m, w, a));
    DR_TRY(hf_writer_finish(w));
done:
    hf_writer_close(w);
    return st;
}

static void measure(quant_layer_error *e, const hf_model *m, how what, int bits,
                    dr_arena *a)
{
    const char *out = dr_arena_printf(a, "%s-%d-%d", hf_model_path(m), (int)what, bits);
    const quant_calib text = fix_ids(a, &llama, 1, T, 2);
    quant_quality q;
    hf_model *after = NULL;

    CHECK_OK(change(out, m, what, bits, a));
    if (CHECK_OK(hf_model_open(&after, out)))
        CHECK_OK(quant_compare_layers(&q, e, dev, m, after, &text, NULL));
    hf_model_close(after);
}

static void test_ways(const hf_model *m, dr_arena *a)
{
    int layers = hf_model_config(m)->layers;

    CHECK(layers <= LAYERS);
    measure(same, m, NOTHING, 0, a);
    measure(few, m, RTN, 4, a);
    measure(many, m, RTN, 8, a);
    measure(folded, m, AWQ, 8, a);
    measure(hurt, m, DAMAGE, 0, a);
    for (int i = 0; i < layers; i++) {
        CHECK_NEAR(same[i].stream, 0, 1e-9);
        CHECK(few[i].stream > many[i].stream && many[i].stream > 0);
        for (int s = 0; s < HF_SLOT_COUNT; s++) {
            CHECK_NEAR(same[i].slot[s], 0, 1e-5); /* factors near 1, not 1 */
            CHECK(few[i].slot[s] > 0.03 && few[i].slot[s] < 0.3);
            CHECK(many[i].slot[s] > 0 && many[i].slot[s] < 0.02);
            CHECK(folded[i].slot[s] > 0 && folded[i].slot[s] < 0.02);
            /* half a linear is half an output, of this slot alone */
            CHECK_NEAR(hurt[i].slot[s], i == 1 && s == HF_SLOT_DOWN ? 0.5 : 0, 1e-4);
        }
    }
    CHECK_NEAR(hurt[0].stream, 0, 1e-9);
    CHECK(hurt[1].stream > 0.01);
}

/* Rounding by RTN is the same everywhere, so its errors are. */
static void test_device(const char *kind, const hf_model *m, dr_arena *a)
{
    quant_layer_error want[2][LAYERS];

    memcpy(want[0], few, sizeof(few));
    memcpy(want[1], many, sizeof(many));
    if (nn_device_open(&dev, kind, 2) != DR_OK) {
        SKIP("gpu: none to use");
        return;
    }
    test_ways(m, a);
    for (int i = 0; i < hf_model_config(m)->layers; i++) {
        CHECK_NEAR(few[i].stream, want[0][i].stream, 1e-4);
        CHECK_NEAR(many[i].stream, want[1][i].stream, 1e-4);
        for (int s = 0; s < HF_SLOT_COUNT; s++) {
            CHECK_NEAR(few[i].slot[s], want[0][i].slot[s], 1e-4);
            CHECK_NEAR(many[i].slot[s], want[1][i].slot[s], 1e-4);
        }
    }
    nn_device_close(dev);
}

int main(void)
{
    dr_arena a = {0};
    hf_model *m = NULL;

    CHECK_OK(nn_device_open(&dev, "cpu", 2));
    if (!CHECK_OK(hf_model_open(&m, fix_model(&a, "errors", &llama))))
        return check_done();
    test_ways(m, &a);
    nn_device_close(dev);
    test_device("cpu:apart", m, &a);
    test_device("cuda", m, &a);
    hf_model_close(m);
    dr_arena_release(&a);
    return check_done();
}
