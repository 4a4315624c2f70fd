/*
 * upstream_test.c - the weight that makes up for the layers before it, against its normal
 * equations: inputs of the original from nn_layer_forward, sums by plain loops in double.
 */
#include "quant/gptq_impl.h"
#include "quant_fixture.h"

enum { SEQ = 48, COUNT = 8, M = SEQ * COUNT, D = 64, INNER = 96, LAYERS = 2 };

static const fix_shape shape = {false, false, D, INNER, 4, 2, LAYERS, 96};

/* sum[n][k] = a[M][n]^T b[M][k] */
static double *products(const float *a, const float *b, size_t n, size_t k)
{
    double *sum = dr_calloc(n * k, sizeof(*sum));

    for (size_t r = 0; r < M; r++) {
        for (size_t i = 0; i < n; i++) {
            for (size_t j = 0; j < k; j++)
                sum[i * k + j] += (double)a[r * n + i] * (double)b[r * k + j];
        }
    }
    return sum;
}

static float *less(const float *a, const float *b, size_t n)
{
    float *d = dr_calloc(n, sizeof(*d));

    for (size_t i = 0; i < n; i++)
        d[i] = a[i] - b[i];
    return d;
}

/* v plus noise that hangs together with it */
static float *disturbed(const float *v, size_t n, uint64_t stream)
{
    float *e = fix_normal(n, stream, 0.1f);

    for (size_t i = 0; i < n; i++)
        e[i] += v[i] * (1.0f + 0.1f * (float)(i % 3));
    return e;
}

/* How far (W' - W)(H + damping) is from share (W C + D), as a share of the latter. */
static double residue(const float *w, const float *was, const double *h, const double *c,
                      const double *drift, size_t n, size_t k, double share)
{
    double mean = 0, off = 0, all = 0;

    for (size_t i = 0; i < k; i++)
        mean += h[i * k + i] / (double)k;
    for (size_t r = 0; r < n; r++) {
        for (size_t j = 0; j < k; j++) {
            double left = 0, right = drift != NULL ? drift[r * k + j] : 0;
            for (size_t i = 0; i < k; i++) {
                double damp = i == j ? 0.1 * mean : 0;
                left +=
                    ((double)w[r * k + i] - (double)was[r * k + i]) * (h[i * k + j] + damp);
                right += (double)was[r * k + i] * c[i * k + j];
            }
            right *= share;
            off += (left - right) * (left - right);
            all += right * right;
        }
    }
    return sqrt(off / all);
}

static void check_slot(quant_upstream *u, const nn_layer *l, hf_slot slot,
                       const float *orig, const float *x_orig, uint64_t stream)
{
    size_t n = hf_slot_out(u->s->cfg, slot), k = hf_slot_in(u->s->cfg, slot);
    bool adds = slot == HF_SLOT_O || slot == HF_SLOT_DOWN;
    float *in = disturbed(orig, M * k, stream);
    float *x = disturbed(x_orig, (size_t)M * D, stream + 1);
    float *diff = less(orig, in, M * k), *drift = less(x_orig, x, (size_t)M * D);
    double *h = products(in, in, k, k), *c = products(diff, in, k, k);
    double *d = adds ? products(drift, in, D, k) : NULL;
    float *h32 = fix_gram(in, M, k), *w = dr_calloc(n * k, sizeof(*w));

    memcpy(w, l->w[slot], n * k * sizeof(*w));
    for (size_t i = 0; i < COUNT; i += u->s->step)
        CHECK_OK(quant_upstream_add(u, slot, in + i * SEQ * k, x + i * SEQ * D, i,
                                    quant_stream_count(u->s, i) * SEQ));
    CHECK_OK(quant_upstream_correct(u, w, h32, slot, "a slot"));
    double off =
        residue(w, l->w[slot], h, c, d, n, k, u->share * (1 - (double)k / (double)M));
    (void)printf("slot %d: off by %.4f\n", (int)slot, off);
    CHECK(off < 0.2); /* differences of a tenth between products of 8 bits */
    free(in);
    free(x);
    free(diff);
    free(drift);
    free(h);
    free(c);
    free(d);
    free(h32);
    free(w);
}

static void check_layers(nn_device *dev, const hf_model *m, const quant_calib *calib,
                         size_t step, double share)
{
    const quant_site site = {.dev = dev, .in = m};
    quant_stream s = {0};
    quant_upstream u = {0};
    nn_decoder *dec = NULL;
    nn_acts acts = {0};
    float *x = dr_calloc((size_t)M * D, sizeof(*x));
    size_t widest = quant_widest_slot(hf_model_config(m)).out;
    float *wide = dr_calloc(M * widest, sizeof(*wide));

    CHECK_OK(quant_stream_open(&s, &site, calib, NULL));
    s.step = step;
    CHECK_OK(quant_upstream_open(&u, &s, s.site->in, share, wide));
    CHECK_OK(nn_decoder_open(&dec, dev, m, 0));
    CHECK_OK(nn_acts_new(&acts, hf_model_config(m), COUNT, SEQ, 0));
    memcpy(x, s.x, (size_t)M * D * sizeof(*x));
    for (int i = 0; i < LAYERS; i++) {
        const nn_layer *l = NULL;
        CHECK_OK(nn_decoder_layer(dec, i, &l));
        CHECK_OK(nn_layer_forward(dec, l, COUNT, SEQ, x, &acts, NULL, 0));
        CHECK_OK(quant_upstream_layer(&u, i));
        check_slot(&u, l, HF_SLOT_QKV, acts.norm1, acts.x, 10);
        check_slot(&u, l, HF_SLOT_O, acts.attn, acts.x, 20);
        check_slot(&u, l, HF_SLOT_GATE_UP, acts.norm2, acts.mid, 30);
        check_slot(&u, l, HF_SLOT_DOWN, acts.act, acts.mid, 40);
    }
    dr_big_free(acts.x);
    free(x);
    free(wide);
    nn_decoder_close(dec);
    quant_upstream_close(&u);
    quant_stream_close(&s);
}

int main(void)
{
    dr_arena a = {0};
    const char *in = fix_model(&a, "upstream", &shape);
    const quant_calib calib = fix_ids(&a, &shape, COUNT, SEQ, 1);
    nn_device *dev = NULL;
    hf_model *m = NULL;

    CHECK_OK(nn_device_open(&dev, "cpu", 2));
    CHECK_OK(hf_model_open(&m, in));
    check_layers(dev, m, &calib, COUNT, 1);
    check_layers(dev, m, &calib, 3, 0.5); /* chunks, the last one short */
    hf_model_close(m);
    nn_device_close(dev);
    dr_arena_release(&a);
    return check_done();
}
