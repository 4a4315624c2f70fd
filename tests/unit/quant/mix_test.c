/*
 * mix_test.c - bits by slot: rules against Olive's by hand, picks against all choices,
 * costs against errors summed token by token.
 */
#include "quant_fixture.h"

enum { UNITS = 6, OPTIONS = 3, GRIDS = 2 };

static const fix_shape shape = {false, false, 64, 128, 4, 2, 8, 96};

/* The least cost within the budget, by trying all. */
static double best_of_all(const double *cost, const uint64_t *bytes, uint64_t budget)
{
    double best = INFINITY;

    for (int n = 0; n < 729; n++) {
        double sum = 0;
        uint64_t size = 0;
        for (int i = 0, rest = n; i < UNITS; i++, rest /= OPTIONS) {
            sum += cost[i * OPTIONS + rest % OPTIONS];
            size += bytes[i * OPTIONS + rest % OPTIONS];
        }
        if (size <= budget && sum < best)
            best = sum;
    }
    return best;
}

static void picks(void)
{
    double cost[UNITS * OPTIONS];
    uint64_t bytes[UNITS * OPTIONS], most = 0, least = 0, step = 0;
    int pick[UNITS];
    dr_rng rng;

    dr_rng_init(&rng, 3, 1);
    for (int i = 0; i < UNITS; i++) {
        uint64_t size = 10 + dr_rng_below(&rng, 50);
        double loss = 1 + (double)dr_rng_below(&rng, 100);
        for (int k = 0; k < OPTIONS; k++) {
            bytes[i * OPTIONS + k] = size;
            cost[i * OPTIONS + k] = loss;
            uint64_t more = 1 + dr_rng_below(&rng, 20);
            size += k + 1 < OPTIONS ? more : 0;
            step = more > step ? more : step;
            loss /= 1 + (double)dr_rng_below(&rng, 5);
        }
        most += size;
    }
    step *= OPTIONS - 1; /* over an option */
    CHECK(!quant_mix_pick(pick, &least, cost, bytes, UNITS, OPTIONS, 1));
    CHECK(!quant_mix_pick(pick, &most, cost, bytes, UNITS, OPTIONS, least - 1));
    CHECK_EQ_INT(most, least);
    for (uint64_t budget = least; budget < least + 300; budget++) {
        double sum = 0;
        uint64_t size = 0, again = 0;
        CHECK(quant_mix_pick(pick, &again, cost, bytes, UNITS, OPTIONS, budget));
        for (int i = 0; i < UNITS; i++) {
            sum += cost[i * OPTIONS + pick[i]];
            size += bytes[i * OPTIONS + pick[i]];
        }
        CHECK(size <= budget);
        CHECK(sum >= best_of_all(cost, bytes, budget) - 1e-9);
        if (budget >= least + step)
            CHECK(sum <= best_of_all(cost, bytes, budget - step) + 1e-9);
        if (budget == least + 299)
            CHECK_NEAR(sum, best_of_all(cost, bytes, UINT64_MAX), 1e-9);
    }
}

/* Of 8 layers, by Olive's rule: 0, 7, and where (i - 1) % 3 == 2. */
static void places(const quant_site *site)
{
    static const bool outer[] = {true, false, false, true, false, false, true, true};
    const quant_grid base = {4, 32, false}, better = {8, 32, false};
    bool high[8 * HF_SLOT_COUNT];

    for (int how = QUANT_MIX_K_QUANT_DOWN; how <= QUANT_MIX_K_QUANT_LAST; how++) {
        CHECK_OK(quant_mix_rule(high, site, (quant_mix)how, &base, &better, 0.5));
        for (int i = 0; i < 8; i++) {
            bool in = outer[i] && how != QUANT_MIX_K_QUANT_LAST;
            CHECK_EQ_INT(high[i * HF_SLOT_COUNT + HF_SLOT_DOWN], in);
            CHECK_EQ_INT(high[i * HF_SLOT_COUNT + HF_SLOT_QKV],
                         in && how == QUANT_MIX_K_QUANT_MIXED);
            CHECK(!high[i * HF_SLOT_COUNT + HF_SLOT_O]);
            CHECK(!high[i * HF_SLOT_COUNT + HF_SLOT_GATE_UP]);
        }
    }
}

/* w rounded to a grid of least and greatest value, with the oracle's own arithmetic. */
static void round_plain(float *to, const float *w, size_t n, int bits, size_t group)
{
    float top = (float)((1 << bits) - 1);

    for (size_t g = 0; g < n; g += group) {
        float lo = 0, hi = 0;
        for (size_t i = g; i < g + group; i++) {
            lo = w[i] < lo ? w[i] : lo;
            hi = w[i] > hi ? w[i] : hi;
        }
        float s = dr_f16_to_f32(dr_f32_to_f16((hi - lo) / top));
        float zero = nearbyintf(-lo / s);
        for (size_t i = g; i < g + group; i++) {
            float q = nearbyintf(w[i] / s) + zero;
            q = q < 0 ? 0 : (q > top ? top : q);
            to[i] = (q - zero) * s;
        }
    }
}

/* Slots by the worst signal to noise: each slot's own sums, then a sort by hand. */
static void weights(const quant_site *site)
{
    enum { COUNT = 8 * HF_SLOT_COUNT };
    const hf_config *c = hf_model_config(site->in);
    const quant_grid base = {4, 32, false}, better = {8, 32, false};
    double snr[COUNT], total = 0, taken = 0;
    bool high[COUNT];

    for (int i = 0; i < COUNT; i++) {
        hf_slot s = (hf_slot)(i % HF_SLOT_COUNT);
        size_t n = hf_slot_out(c, s) * hf_slot_in(c, s);
        float *w = dr_calloc(n, sizeof(*w)), *q = dr_calloc(n, sizeof(*q));
        double signal = 0, noise = 0;
        CHECK_OK(quant_slot_read(site, i / HF_SLOT_COUNT, s, w, NULL));
        round_plain(q, w, n, 4, 32);
        for (size_t k = 0; k < n; k++) {
            signal += (double)w[k] * (double)w[k];
            noise += ((double)q[k] - (double)w[k]) * ((double)q[k] - (double)w[k]);
        }
        snr[i] = signal / noise;
        total += (double)n;
        free(w);
        free(q);
    }
    CHECK_OK(quant_mix_rule(high, site, QUANT_MIX_SNR, &base, &better, 0.7));
    for (int i = 0; i < COUNT; i++) {
        if (!high[i])
            continue;
        hf_slot s = (hf_slot)(i % HF_SLOT_COUNT);
        taken += (double)(hf_slot_out(c, s) * hf_slot_in(c, s));
        for (int k = 0; k < COUNT; k++)
            CHECK(high[k] || snr[k] >= snr[i] * (1 - 1e-6));
    }
    CHECK(taken >= 0.3 * total && taken < 0.3 * total + 64 * 256);
}

static double dot(const float *w, const float *less, const float *x, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += ((double)w[i] - (less != NULL ? (double)less[i] : 0)) * (double)x[i];
    return sum;
}

/* Relative error of rows of outputs, token by token; each token divided by its weight. */
static double relative(const float *w, const float *q, const float *x, size_t rows,
                       size_t cols, size_t tokens, const double *weight)
{
    double error = 0, energy = 0;

    for (size_t t = 0; t < tokens; t++) {
        for (size_t r = 0; r < rows; r++) {
            double y = dot(w + r * cols, NULL, x + t * cols, cols);
            double e = dot(w + r * cols, q + r * cols, x + t * cols, cols);
            error += e * e / weight[t];
            energy += y * y / weight[t];
        }
    }
    return error / energy;
}

/* Layer 0: everything from the layer's own activations, no Gram matrix. */
static void costs(const quant_site *site, const quant_calib *calib)
{
    const quant_grid grids[GRIDS] = {{4, 32, false}, {8, 64, false}};
    const hf_config *c = hf_model_config(site->in);
    size_t t = calib->seq_len, d = (size_t)c->hidden, m = calib->count * t;
    double cost[8 * HF_SLOT_COUNT * GRIDS], share = 0, *stream = dr_calloc(m, 8),
                                            *ones = dr_calloc(m, 8);
    float *x = dr_calloc(m * d, sizeof(*x));
    const nn_layer *w = NULL;
    nn_decoder *dec = NULL;
    nn_acts acts = {0};

    CHECK_OK(quant_mix_costs(cost, site, grids, GRIDS, calib));
    CHECK_OK(nn_decoder_open(&dec, site->dev, site->in, 0));
    CHECK_OK(nn_decoder_embed(dec, x, calib->ids, m));
    CHECK_OK(nn_acts_new(&acts, c, calib->count, t, 0));
    CHECK_OK(nn_decoder_layer(dec, 0, &w));
    CHECK_OK(nn_layer_forward(dec, w, calib->count, t, x, &acts, NULL, 0));
    for (size_t i = 0; i < m; i++) {
        ones[i] = 1;
        double mlp = 0;
        for (size_t k = 0; k < d; k++) {
            double out = (double)x[i * d + k], add = out - (double)acts.mid[i * d + k];
            stream[i] += out * out;
            mlp += add * add;
        }
        share += mlp / stream[i] / (double)m;
    }
    for (int g = 0; g < GRIDS; g++) {
        int bits = grids[g].bits;
        size_t group = (size_t)grids[g].group_size, inner = 128;
        float *q = dr_calloc(2 * inner * d, sizeof(*q));
        round_plain(q, w->w[HF_SLOT_DOWN], d * inner, bits, group);
        double down = relative(w->w[HF_SLOT_DOWN], q, acts.act, d, inner, m, stream);
        round_plain(q, w->w[HF_SLOT_GATE_UP], 2 * inner * d, bits, group);
        const float *gate = w->w[HF_SLOT_GATE_UP], *up = gate + inner * d;
        double both = relative(gate, q, acts.norm2, inner, d, m, ones) +
                      relative(up, q + inner * d, acts.norm2, inner, d, m, ones);
        CHECK_NEAR(cost[HF_SLOT_DOWN * GRIDS + g] / (down * share), 1, 0.01);
        CHECK_NEAR(cost[HF_SLOT_GATE_UP * GRIDS + g] / (both * share), 1, 0.01);
        free(q);
    }
    dr_big_free(acts.x);
    nn_decoder_close(dec);
    free(x);
    free(stream);
    free(ones);
}

int main(void)
{
    dr_arena a = {0};
    nn_device *dev = NULL;
    hf_model *m = NULL;
    const char *in = fix_model(&a, "mix", &shape);
    quant_calib calib = fix_ids(&a, &shape, 4, 40, 1);

    picks();
    CHECK_OK(nn_device_open(&dev, "cpu", 2));
    if (CHECK_OK(hf_model_open(&m, in))) {
        const quant_site site = {.dev = dev, .in = m};
        places(&site);
        weights(&site);
        costs(&site, &calib);
    }
    hf_model_close(m);
    nn_device_close(dev);
    dr_arena_release(&a);
    return check_done();
}
