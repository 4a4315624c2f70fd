/*
 * bias_test.c - biases that take back the mean of a linear's error: the mean output of the
 * rounded model's first linears is the original's, token by token, on the same text.
 */
#include "quant_fixture.h"

enum { ROWS = 64, SEQ = 32, COUNT = 8 };

static const fix_shape shape = {false, true, 64, 96, 4, 1, 2, 96};

static void quantize(const char *out, const char *in, const quant_calib *calib,
                     const quant_gptq_options *o, bool best, int threads)
{
    const quant_grid grid = {4, 32, false};
    const hf_quant format = {HF_QUANT_OLIVE, 4, 32, false};
    nn_device *dev = NULL;
    hf_model *m = NULL;
    hf_writer *w = NULL;

    CHECK_OK(nn_device_open(&dev, "cpu", threads));
    CHECK_OK(hf_model_open(&m, in));
    CHECK_OK(dr_make_dirs(out));
    CHECK_OK(hf_writer_open(&w, out, m, &format));
    const quant_site site = {.dev = dev, .in = m, .out = w};
    if (best)
        CHECK_OK(quant_best(&site, &grid, calib, o));
    else
        CHECK_OK(quant_gptq(&site, &grid, calib, o));
    CHECK_OK(hf_writer_finish(w));
    hf_writer_close(w);
    hf_model_close(m);
    nn_device_close(dev);
}

/* mean[ROWS] of q's outputs in layer 0, before they are rotated. */
static void mean_q(double *mean, const char *dir, const quant_calib *calib)
{
    size_t m = COUNT * SEQ, n = 0;
    nn_device *dev = NULL;
    hf_model *model = NULL;
    nn_decoder *dec = NULL;
    const nn_layer *w = NULL;

    CHECK_OK(nn_device_open(&dev, "ref", 1));
    CHECK_OK(hf_model_open(&model, dir));
    CHECK_OK(nn_decoder_open(&dec, dev, model, 0));
    n = hf_slot_out(hf_model_config(model), HF_SLOT_QKV);
    float *x = dr_calloc(m * 64, sizeof(*x)), *h = dr_calloc(m * 64, sizeof(*h));
    float *y = dr_calloc(m * n, sizeof(*y));
    CHECK_OK(nn_decoder_embed(dec, x, calib->ids, m));
    CHECK_OK(nn_decoder_layer(dec, 0, &w));
    CHECK_OK(nn_layer_norm(dec, w, HF_NORM_ATTN, h, x, m));
    CHECK_OK(nn_layer_linear(dec, w, HF_SLOT_QKV, y, h, m, false));
    for (size_t r = 0; r < ROWS; r++) {
        mean[r] = 0;
        for (size_t i = 0; i < m; i++)
            mean[r] += (double)y[i * n + r] / (double)m;
    }
    free(x);
    free(h);
    free(y);
    nn_decoder_close(dec);
    hf_model_close(model);
    nn_device_close(dev);
}

static double worst(const double *a, const double *b)
{
    double most = 0;

    for (size_t r = 0; r < ROWS; r++)
        most = fmax(most, fabs(a[r] - b[r]));
    return most;
}

int main(void)
{
    static const char *const ways[] = {"gptq", "prescale", "best"};
    dr_arena a = {0};
    const char *in = fix_model(&a, "bias", &shape);
    const quant_calib calib = fix_ids(&a, &shape, COUNT, SEQ, 1);
    double before[ROWS], with[ROWS], without[ROWS];

    mean_q(before, in, &calib);
    for (int k = 0; k < 3; k++) {
        quant_gptq_options o = {.damp_percent = 0.01, .prescale = k == 1};
        const char *out = dr_arena_printf(&a, "%s-%s", in, ways[k]);
        quantize(out, in, &calib, &o, k == 2, 2);
        mean_q(without, out, &calib);
        o.bias = true;
        out = dr_arena_printf(&a, "%s-mended", out);
        quantize(out, in, &calib, &o, k == 2, 1 + k);
        mean_q(with, out, &calib);
        (void)printf("%s: worst mean error %.5f, mended %.5f\n", ways[k],
                     worst(before, without), worst(before, with));
        /* biases up to 1 or so are held in bf16 */
        CHECK(worst(before, with) < 0.004);
        CHECK(worst(before, without) > 2 * worst(before, with));
    }
    dr_arena_release(&a);
    return check_done();
}
