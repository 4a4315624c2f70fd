/*
 * head_kl_test.c - what distillation needs: KL between two models' heads against sums in
 * double over their logits, its gradient and those of a layer's weights against finite
 * differences; plain, scaled (Granite) and capped (Gemma 2) logits.
 */
#include "nn_check.h"

#include "family.h"

enum { B = 2, T = 5, ROWS = B * T, PROBES = 12 };

static dr_arena arena;

typedef struct {
    nn_decoder *d, *teacher;
    size_t row, v;
    float *x, *tx;
} pair;

static void open_pair(pair *p, nn_device *dev, const hf_model *m)
{
    const hf_config *c = hf_model_config(m);

    *p = (pair){.row = (size_t)c->hidden, .v = (size_t)c->vocab};
    CHECK_OK(nn_decoder_open(&p->d, dev, m, SIZE_MAX));
    CHECK_OK(nn_decoder_open(&p->teacher, dev, m, 0));
    p->x = nn_random(ROWS * p->row, 1, 1.0f);
    p->tx = nn_random(ROWS * p->row, 2, 1.0f);
}

static void close_pair(pair *p)
{
    nn_decoder_close(p->d);
    nn_decoder_close(p->teacher);
    free(p->x);
    free(p->tx);
}

/* KL in double, by the definition, of all rows. */
static double plain_kl(const pair *p)
{
    float *s = dr_calloc(ROWS * p->v, sizeof(*s)), *t = dr_calloc(ROWS * p->v, sizeof(*t));
    double kl = 0;

    CHECK_OK(nn_head_logits(p->d, s, p->x, ROWS));
    CHECK_OK(nn_head_logits(p->teacher, t, p->tx, ROWS));
    for (size_t r = 0; r < ROWS; r++) {
        double zs = 0, zt = 0;
        for (size_t j = 0; j < p->v; j++) {
            zs += exp((double)s[r * p->v + j]);
            zt += exp((double)t[r * p->v + j]);
        }
        for (size_t j = 0; j < p->v; j++) {
            double lt = (double)t[r * p->v + j] - log(zt);
            kl += exp(lt) * (lt - ((double)s[r * p->v + j] - log(zs)));
        }
    }
    free(s);
    free(t);
    return kl;
}

static void head(nn_device *dev, const hf_model *m)
{
    const float scale = 0.25f, step = 1.0f / 64;
    double kl = 0, none = 0, same = 0, largest = 0;
    pair p;

    open_pair(&p, dev, m);
    float *dx = dr_calloc(ROWS * p.row, sizeof(*dx));
    CHECK_OK(nn_head_kl(p.d, p.x, p.teacher, p.tx, ROWS, &kl, dx, scale));
    CHECK_NEAR(kl / plain_kl(&p), 1.0, 1e-5);
    CHECK_OK(nn_head_kl(p.d, p.x, p.teacher, p.tx, ROWS, &none, NULL, 0.0f));
    CHECK(none == kl);
    CHECK_OK(nn_head_kl(p.d, p.x, p.teacher, p.x, ROWS, &same, NULL, 0.0f));
    CHECK_NEAR(same, 0.0, 1e-5);
    for (size_t i = 0; i < ROWS * p.row; i++)
        largest = fmax(largest, fabs((double)dx[i]));
    for (size_t i = 0; i < PROBES; i++) {
        size_t at = i * 7919 % (ROWS * p.row);
        float was = p.x[at];
        p.x[at] = was + step;
        double up = plain_kl(&p);
        p.x[at] = was - step;
        double down = plain_kl(&p);
        p.x[at] = was;
        CHECK_NEAR(((up - down) / 2 / (double)step * (double)scale - (double)dx[at]) /
                       largest,
                   0.0, 5e-3);
    }
    /* by integers: near it, and only where gradients are asked for */
    float *rough = dr_calloc(ROWS * p.row, sizeof(*rough));
    double near = 0, again = 0;
    nn_decoder_integers(p.d);
    CHECK_OK(nn_head_kl(p.d, p.x, p.teacher, p.tx, ROWS, &near, rough, scale));
    CHECK_NEAR(near / kl, 1.0, 3e-2);
    CHECK(nn_far(rough, dx, ROWS * p.row) < 4e-2);
    CHECK((near == kl) == nn_mem_apart(dev));
    CHECK_OK(nn_head_kl(p.d, p.x, p.teacher, p.tx, ROWS, &again, NULL, 0.0f));
    CHECK(again == kl);
    free(rough);
    free(dx);
    close_pair(&p);
}

/* sum of g * output of layer 0 with weights w. */
static double output(pair *p, const nn_layer *w, nn_acts *acts, const float *g)
{
    float *y = dr_calloc(ROWS * p->row, sizeof(*y));
    double sum = 0;

    memcpy(y, p->x, ROWS * p->row * sizeof(*y));
    CHECK_OK(nn_layer_forward(p->d, w, B, T, y, acts, NULL, 0));
    for (size_t i = 0; i < ROWS * p->row; i++)
        sum += (double)y[i] * (double)g[i];
    free(y);
    return sum;
}

/* By integers: near what floats gave, dx at the layer's input among it. */
static void by_integers(pair *p, const nn_layer *exact, const nn_acts *acts, const float *g,
                        const float *want_dx)
{
    nn_device *dev = nn_decoder_device(p->d);
    const hf_config *c = nn_decoder_config(p->d);
    nn_layer w = *exact;
    void *packs[HF_SLOT_COUNT] = {0};

    for (int s = 0; s < HF_SLOT_COUNT; s++) {
        size_t n = hf_slot_out(c, (hf_slot)s), k = hf_slot_in(c, (hf_slot)s);
        float *turned = dr_calloc(n * k, sizeof(*turned));
        CHECK_OK(dr_big_alloc(&packs[s], nn_i8_packed_bytes(k, n), 1, "packed"));
        CHECK_OK(nn_transpose(dev, turned, w.w[s], n, k));
        CHECK_OK(nn_i8_pack(dev, packs[s], turned, k, n));
        w.packed_back[s] = packs[s];
        w.dw[s] = dr_calloc(n * k, sizeof(float));
        free(turned);
    }
    memcpy(p->tx, g, ROWS * p->row * sizeof(*g));
    CHECK_OK(nn_layer_backward(p->d, &w, B, T, p->tx, acts, NULL, 0, true));
    CHECK(nn_far(p->tx, want_dx, ROWS * p->row) < 4e-2);
    CHECK(memcmp(p->tx, want_dx, ROWS * p->row * sizeof(*g)) != 0);
    for (int s = 0; s < HF_SLOT_COUNT; s++) {
        size_t n = hf_slot_out(c, (hf_slot)s) * hf_slot_in(c, (hf_slot)s);
        CHECK(nn_far(w.dw[s], exact->dw[s], n) < 2e-2);
        CHECK(memcmp(w.dw[s], exact->dw[s], n * sizeof(float)) != 0);
        free(w.dw[s]);
        dr_big_free(packs[s]);
    }
}

static void weights(nn_device *dev, const hf_model *m)
{
    const hf_config *c = hf_model_config(m);
    const nn_layer *own = NULL;
    nn_acts acts = {0};
    pair p;

    open_pair(&p, dev, m);
    CHECK_OK(nn_decoder_layer(p.d, 0, &own));
    CHECK_OK(nn_acts_new(&acts, c, B, T, 0));
    float *g = nn_random(ROWS * p.row, 3, 1.0f);
    nn_layer w = *own;
    for (int s = 0; s < HF_SLOT_COUNT; s++)
        w.dw[s] = dr_calloc(hf_slot_out(c, (hf_slot)s) * hf_slot_in(c, (hf_slot)s),
                            sizeof(float));
    (void)output(&p, &w, &acts, g);
    memcpy(p.tx, g, ROWS * p.row * sizeof(*g));
    CHECK_OK(nn_layer_backward(p.d, &w, B, T, p.tx, &acts, NULL, 0, true));
    float *dx = dr_calloc(ROWS * p.row, sizeof(*dx));
    memcpy(dx, p.tx, ROWS * p.row * sizeof(*dx));
    by_integers(&p, &w, &acts, g, dx);
    free(dx);
    for (int s = 0; s < HF_SLOT_COUNT; s++) {
        size_t n = hf_slot_out(c, (hf_slot)s) * hf_slot_in(c, (hf_slot)s);
        double largest = 0;
        for (size_t i = 0; i < n; i++)
            largest = fmax(largest, fabs((double)w.dw[s][i]));
        CHECK(largest > 0);
        for (size_t i = 0; i < PROBES; i++) {
            float *at = &w.w[s][i * 7919 % n], was = *at;
            const float step = 1.0f / 128;
            *at = was + step;
            double up = output(&p, &w, &acts, g);
            *at = was - step;
            double down = output(&p, &w, &acts, g);
            *at = was;
            double slope = (up - down) / 2 / (double)step;
            CHECK_NEAR((slope - (double)w.dw[s][i * 7919 % n]) / largest, 0.0, 1e-2);
        }
        free(w.dw[s]);
    }
    free(g);
    dr_big_free(acts.x);
    close_pair(&p);
}

int main(void)
{
    static const char *const names[] = {"llama3", "granite", "gemma2"};
    nn_devices devs;

    nn_devices_open(&devs);
    for (size_t i = 0; i < DR_COUNT(names); i++) {
        json_t *golden = family_golden(&arena, names[i]);
        const json_t *config = json_object_get(json_object_get(golden, "configs"), "5");
        hf_model *m = NULL;
        if (CHECK_OK(
                hf_model_open(&m, family_model(&arena, names[i], golden, config, 1)))) {
            for (int k = 0; k < NN_KINDS && devs.dev[k][1] != NULL; k++)
                head(devs.dev[k][1], m);
            head(devs.ref, m);
            weights(devs.dev[0][1], m);
        }
        hf_model_close(m);
        json_decref(golden);
    }
    nn_devices_close(&devs);
    dr_arena_release(&arena);
    return check_done();
}
