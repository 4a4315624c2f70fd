/*
 * table_test.c - the embedding of a tied model, rounded as the head that it is: what it
 * costs the logits, by plain loops over the original's last hidden states, and that the
 * text comes in by its rows.
 */
#include "quant_fixture.h"

enum { SEQ = 48, COUNT = 8, M = SEQ * COUNT, D = 64, V = 96 };

static const fix_shape shape = {false, false, D, 96, 4, 2, 2, V};
static const quant_grid grid = {4, 16, false};

/* The mean square of what rounding does to a logit. */
static double logit_error(const dr_qtensor *q, const float *rows, const float *hidden)
{
    float *w = dr_calloc((size_t)V * D, sizeof(*w));
    double sum = 0;

    dr_qtensor_to_f32(w, q, 0, V);
    for (size_t m = 0; m < M; m++) {
        for (size_t v = 0; v < V; v++) {
            double off = 0;
            for (size_t d = 0; d < D; d++)
                off += ((double)w[v * D + d] - (double)rows[v * D + d]) *
                       (double)hidden[m * D + d];
            sum += off * off;
        }
    }
    free(w);
    return sum / M / V;
}

/* Of the model, as the head multiplies them. */
static float *last_hidden(nn_device *dev, const hf_model *m, const quant_calib *calib)
{
    float *x = dr_calloc((size_t)M * D, sizeof(*x)),
          *y = dr_calloc((size_t)M * D, sizeof(*y));
    nn_decoder *dec = NULL;

    CHECK_OK(nn_decoder_open(&dec, dev, m, 0));
    CHECK_OK(nn_decoder_hidden(dec, x, calib->ids, COUNT, SEQ));
    CHECK_OK(nn_final_norm(dec, y, x, M));
    nn_decoder_close(dec);
    free(x);
    return y;
}

static void check_stream(const quant_site *site, const quant_calib *calib,
                         const dr_qtensor *table)
{
    quant_site own = *site;
    quant_stream s = {0};
    float row[D];

    own.table = table;
    CHECK_OK(quant_stream_open(&s, &own, calib, NULL));
    for (size_t i = 0; i < M; i++) {
        dr_qtensor_to_f32(row, table, (size_t)calib->ids[i], 1);
        CHECK(memcmp(row, s.x + i * D, sizeof(row)) == 0);
    }
    quant_stream_close(&s);
}

int main(void)
{
    dr_arena a = {0};
    const char *in = fix_model(&a, "table", &shape);
    const quant_calib calib = fix_ids(&a, &shape, COUNT, SEQ, 1);
    const quant_gptq_options o = {.damp_percent = 0.01, .desc_act = true, .sweeps = 3};
    dr_qtensor nearest = {0}, gptq = {0}, best = {0}, none = {0};
    float *rows = dr_calloc((size_t)V * D, sizeof(*rows));
    nn_device *dev = NULL;
    hf_model *m = NULL;

    CHECK_OK(nn_device_open(&dev, "cpu", 2));
    CHECK_OK(hf_model_open(&m, in));
    CHECK_OK(hf_embed_read(m, rows, 0, V));
    quant_site site = {.dev = dev, .in = m, .embed = &grid};
    float *hidden = last_hidden(dev, m, &calib);
    CHECK_OK(quant_round_rows(&nearest, &site, &grid, NULL, hf_embed_linear(m)));
    CHECK_OK(quant_gptq_table(&gptq, &site, &calib, &o, false));
    CHECK_OK(quant_gptq_table(&best, &site, &calib, &o, true));
    double by[] = {logit_error(&nearest, rows, hidden), logit_error(&gptq, rows, hidden),
                   logit_error(&best, rows, hidden)};
    (void)printf("nearest %.3g, gptq %.3g, best %.3g\n", by[0], by[1], by[2]);
    CHECK(by[1] < 0.7 * by[0]);
    CHECK(by[2] < by[1]);
    check_stream(&site, &calib, &gptq);
    site.embed = NULL;
    CHECK_OK(quant_gptq_table(&none, &site, &calib, &o, false));
    CHECK(none.codes == NULL);
    dr_qtensor_release(&nearest);
    dr_qtensor_release(&gptq);
    dr_qtensor_release(&best);
    free(rows);
    free(hidden);
    hf_model_close(m);
    nn_device_close(dev);
    dr_arena_release(&a);
    return check_done();
}
