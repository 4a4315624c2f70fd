/*
 * gradient_test.c - every backward against central finite differences of its forward, on
 * ref: operations, the loss, and a whole layer with adapters and dropout.
 *
 * The function is f = sum(weight * output), summed in double.  Outputs are floats, so a
 * step of 1/64 leaves errors of about 1e-4 of the largest gradient; a wrong formula is off
 * by far more than the limit of 3e-3.
 */
#include "nn_check.h"

#include "nn/nn_impl.h"

static const double limit = 3e-3;
static const float step = 1.0f / 64.0f;

/* A forward: out[n_out] of x; whatever else it needs is in ctx. */
typedef dr_status (*forward_fn)(nn_device *dev, float *out, const float *x,
                                const void *ctx);

typedef struct {
    nn_device *dev;
    forward_fn fn;
    const void *ctx;
    const float *weight; /* [n_out] */
    size_t n_out;
} function;

static double value(const function *f, const float *x)
{
    float *out = dr_calloc(f->n_out, sizeof(*out));
    double sum = 0.0;

    CHECK_OK(f->fn(f->dev, out, x, f->ctx));
    for (size_t i = 0; i < f->n_out; i++)
        sum += (double)out[i] * (double)f->weight[i];
    free(out);
    return sum;
}

/* Compares grad[n] with differences along `probes` coordinates of x, spread over it. */
static void check_gradient(const function *f, const char *what, float *x, const float *grad,
                           size_t n, size_t probes)
{
    double top = 1e-6, worst = 0.0;
    size_t stride = n / probes > 0 ? n / probes : 1;

    for (size_t i = 0; i < n; i++)
        top = fmax(top, fabs((double)grad[i]));
    for (size_t i = 0; i < n; i += stride) {
        float keep = x[i];
        x[i] = keep + step;
        double up = value(f, x), to = (double)x[i];
        x[i] = keep - step;
        double down = value(f, x), from = (double)x[i];
        x[i] = keep;
        worst = fmax(worst, fabs((up - down) / (to - from) - (double)grad[i]) / top);
    }
    if (!CHECK_NEAR(worst, 0.0, limit))
        (void)printf("  %s\n", what);
}

/* ---- operations ---- */

enum { M = 6, D = 10 };

static dr_status rmsnorm(nn_device *dev, float *out, const float *x, const void *ctx)
{
    return nn_rmsnorm(dev, out, x, ctx, M, D, 1e-3f);
}

static dr_status layernorm(nn_device *dev, float *out, const float *x, const void *ctx)
{
    return nn_layernorm(dev, out, x, ctx, ctx, M, D, 1e-3f);
}

typedef dr_status (*norm_back)(nn_device *dev, float *dx, const float *dy, const float *x,
                               const float *w, size_t m, size_t d, float eps);

static void test_norm(nn_device *dev, const char *name,
                      dr_status (*norm)(nn_device *, float *, const float *, const void *),
                      norm_back back)
{
    float *x = nn_random(M * D, 1, 1.0f), *w = nn_random(D, 2, 1.0f);
    float *weight = nn_random(M * D, 3, 1.0f), *dx = dr_calloc(M * D, sizeof(*dx));
    const function f = {dev, norm, w, weight, M * D};

    CHECK_OK(back(dev, dx, weight, x, w, M, D, 1e-3f));
    check_gradient(&f, name, x, dx, M * D, M * D);
    free(x);
    free(w);
    free(weight);
    free(dx);
}

/* Two heads of D / 2 in rows of D. */
static dr_status heads(nn_device *dev, float *out, const float *x, const void *ctx)
{
    memcpy(out, x, M * D * sizeof(*x));
    return nn_rmsnorm_heads(dev, out, NULL, ctx, M, D, 2, D / 2, 1e-3f);
}

static void test_heads(nn_device *dev)
{
    float *x = nn_random(M * D, 1, 1.0f), *w = nn_random(D / 2, 2, 1.0f);
    float *weight = nn_random(M * D, 3, 1.0f), *dx = nn_random(M * D, 3, 1.0f);
    const function f = {dev, heads, w, weight, M * D};

    CHECK_OK(nn_rmsnorm_heads_back(dev, dx, x, w, M, D, 2, D / 2, 1e-3f));
    check_gradient(&f, "rmsnorm_heads", x, dx, M * D, M * D);
    free(x);
    free(w);
    free(weight);
    free(dx);
}

static dr_status activate(nn_device *dev, float *out, const float *x, const void *ctx)
{
    return nn_activate(dev, out, x, M, D, *(const nn_act *)ctx);
}

static void test_activate(nn_device *dev, hf_act kind, bool gated)
{
    const nn_act act = {kind, gated};
    size_t n = (gated ? 2 : 1) * M * D;
    float *x = nn_random(n, 1, 2.0f), *weight = nn_random(M * D, 3, 1.0f);
    float *dx = dr_calloc(n, sizeof(*dx));
    const function f = {dev, activate, &act, weight, M * D};

    CHECK_OK(nn_activate_back(dev, dx, weight, x, M, D, act));
    check_gradient(&f, "activate", x, dx, n, n);
    free(x);
    free(weight);
    free(dx);
}

/* Capped and scaled logits through the loss, its targets smoothed. */
static dr_status capped_loss(nn_device *dev, float *out, const float *x, const void *ctx)
{
    float logits[M * D];
    double loss[M];
    dr_status st = DR_OK;

    memcpy(logits, x, sizeof(logits));
    st = nn_scale_cap(dev, logits, M * D, 0.8f, 1.5f);
    if (st == DR_OK)
        st = nn_xent(dev, loss, logits, ctx, M, D, 0.0f, 1.5f, 0.3f);
    for (int i = 0; i < M; i++)
        out[i] = (float)loss[i];
    return st;
}

static void test_capped_loss(nn_device *dev)
{
    static const int32_t targets[M] = {0, 3, 9, 4, 4, 1};
    float *x = nn_random(M * D, 1, 2.0f), *dx = nn_random(M * D, 1, 2.0f), weight[M];
    double loss[M];
    const function f = {dev, capped_loss, targets, weight, M};

    for (int i = 0; i < M; i++)
        weight[i] = 1.0f;
    CHECK_OK(nn_scale_cap(dev, dx, M * D, 0.8f, 1.5f));
    CHECK_OK(nn_xent(dev, loss, dx, targets, M, D, 0.8f, 1.5f, 0.3f));
    check_gradient(&f, "capped loss", x, dx, M * D, M * D);
    free(x);
    free(dx);
}

static dr_status attention(nn_device *dev, float *out, const float *x, const void *ctx)
{
    return nn_attention(dev, out, NULL, x, ctx);
}

static void test_attention(nn_device *dev, size_t window, float cap, bool documents)
{
    static const uint32_t starts[] = {0, 0, 0, 3, 3, 5, 5, 5, 5, 0, 1, 1, 1, 1, 1, 1, 7, 7};
    const nn_attn_shape s = {.b = 2,
                             .t = 9,
                             .heads = 4,
                             .kv_heads = 2,
                             .head_dim = 6,
                             .scale = 0.5f,
                             .window = window,
                             .softcap = cap,
                             .starts = documents ? starts : NULL};
    size_t m = s.b * s.t, n_out = m * 24, n = m * 48;
    float *x = nn_random(n, 1, 1.0f), *weight = nn_random(n_out, 2, 1.0f);
    float *out = dr_calloc(n_out, sizeof(*out)), *lse = dr_calloc(m * 4, sizeof(*lse));
    float *dx = dr_calloc(n, sizeof(*dx));
    const function f = {dev, attention, &s, weight, n_out};

    CHECK_OK(nn_attention(dev, out, lse, x, &s));
    CHECK_OK(nn_attention_back(dev, dx, weight, out, lse, x, &s));
    check_gradient(&f, "attention", x, dx, n, 200);
    free(x);
    free(weight);
    free(out);
    free(lse);
    free(dx);
}

/* ---- a layer and the head, on a tiny model ---- */

enum { B = 2, T = 7, RANK = 2, MODULES_MAX = 8 };

typedef struct {
    nn_decoder *d;
    const nn_layer *w;
    nn_acts acts;
    nn_lora loras[MODULES_MAX];
    size_t count, row;
    const float *x; /* the layer's input while an adapter is probed */
} layer;

static dr_status layer_of_input(nn_device *dev, float *out, const float *x, const void *ctx)
{
    layer l = *(const layer *)ctx;

    (void)dev;
    memcpy(out, x, B * T * l.row * sizeof(*out));
    return nn_layer_forward(l.d, l.w, B, T, out, &l.acts, l.loras, l.count);
}

/* x is one of the adapter's own arrays: the layer sees its change. */
static dr_status layer_of_adapter(nn_device *dev, float *out, const float *x,
                                  const void *ctx)
{
    (void)x;
    return layer_of_input(dev, out, ((const layer *)ctx)->x, ctx);
}

static void add_adapters(layer *l, const hf_model *m, bool dora)
{
    const hf_linear *linears = NULL;
    size_t n = hf_layer_linears(m, 0, &linears);

    for (size_t i = 0; i < n && i < MODULES_MAX; i++) {
        const hf_linear *at = &linears[i];
        l->loras[l->count++] = (nn_lora){.slot = at->slot,
                                         .row0 = at->row0,
                                         .n_out = at->n_out,
                                         .n_in = at->n_in,
                                         .r = RANK,
                                         .scale = 1.5f,
                                         .dropout = i % 2 == 0 ? 0.3f : 0.0f,
                                         .seed = 5,
                                         .stream = i,
                                         .a = nn_random(RANK * at->n_in, 10 + i, 0.2f),
                                         .b = nn_random(RANK * at->n_out, 30 + i, 0.2f),
                                         .da = dr_calloc(RANK * at->n_in, sizeof(float)),
                                         .db = dr_calloc(RANK * at->n_out, sizeof(float))};
        if (dora && i % 3 != 2) {
            nn_lora *a = &l->loras[i];
            a->magnitude = nn_random(at->n_out, 70 + i, 1.0f);
            a->norm = dr_calloc(at->n_out, sizeof(float));
            a->dmagnitude = dr_calloc(at->n_out, sizeof(float));
        }
    }
}

static void check_layer(layer *l, nn_device *dev)
{
    size_t n = B * T * l->row;
    float *x = nn_random(n, 50, 1.0f), *weight = nn_random(n, 51, 1.0f);
    float *out = dr_calloc(n, sizeof(*out)), *dx = dr_calloc(n, sizeof(*dx));
    function f = {dev, layer_of_input, l, weight, n};

    CHECK_OK(layer_of_input(dev, out, x, l));
    memcpy(dx, weight, n * sizeof(*dx));
    CHECK_OK(nn_layer_backward(l->d, l->w, B, T, dx, &l->acts, l->loras, l->count, true));
    check_gradient(&f, "layer", x, dx, n, 60);
    f.fn = layer_of_adapter;
    l->x = x;
    for (size_t i = 0; i < l->count; i++) {
        const nn_lora *a = &l->loras[i];
        check_gradient(&f, "adapter A", nn_writable(a->a), a->da, RANK * a->n_in, 12);
        check_gradient(&f, "adapter B", nn_writable(a->b), a->db, RANK * a->n_out, 12);
        if (a->magnitude != NULL)
            check_gradient(&f, "magnitude", nn_writable(a->magnitude), a->dmagnitude,
                           a->n_out, 12);
    }
    /* without need_dx the adapters' gradients are the same, added to what is there */
    float twice = 2.0f * l->loras[0].da[1];
    CHECK_OK(layer_of_input(dev, out, x, l));
    memcpy(dx, weight, n * sizeof(*dx));
    CHECK_OK(nn_layer_backward(l->d, l->w, B, T, dx, &l->acts, l->loras, l->count, false));
    CHECK_NEAR((double)l->loras[0].da[1], (double)twice, 1e-6 * fabs((double)twice));
    free(x);
    free(weight);
    free(out);
    free(dx);
}

typedef struct {
    nn_decoder *d;
    int32_t targets[B * T];
} head;

static dr_status head_loss(nn_device *dev, float *out, const float *x, const void *ctx)
{
    const head *h = ctx;
    size_t counted = 0;
    double sum = 0.0;
    dr_status st = nn_head_loss(h->d, x, h->targets, B * T, &sum, &counted, NULL, 0.0f, 0);

    (void)dev;
    out[0] = (float)sum;
    CHECK_EQ_INT(counted, B * T - 3);
    return st;
}

static void check_head(nn_decoder *d, nn_device *dev, size_t row)
{
    head h = {.d = d};
    size_t n = B * T * row, counted = 0;
    float *x = nn_random(n, 60, 1.0f), *dx = nn_random(n, 61, 1.0f), weight = 0.5f;
    double sum = 0.0;
    const function f = {dev, head_loss, &h, &weight, 1};

    for (size_t i = 0; i < B * T; i++)
        h.targets[i] = i % 5 == 2 ? -100 : (int32_t)(i * 17 % 60);
    CHECK_OK(nn_head_loss(d, x, h.targets, B * T, &sum, &counted, dx, 0.5f, 0));
    check_gradient(&f, "head", x, dx, n, 40);
    for (size_t i = 0; i < row; i++)
        CHECK(dx[2 * row + i] == 0.0f); /* a row without a target */
    h.targets[0] = nn_decoder_config(d)->vocab;
    CHECK_STATUS(nn_head_loss(d, x, h.targets, B * T, &sum, &counted, dx, 0.5f, 0),
                 DR_EFORMAT);
    CHECK_TRAIL("outside of the vocabulary");
    free(x);
    free(dx);
}

/* dora: two modules of three have magnitudes; their norms stay what they are. */
static void test_model(nn_device *dev, const char *name, bool dora)
{
    size_t kept = 0;
    char path[4096];
    hf_model *m = NULL;
    layer l = {0};

    (void)snprintf(path, sizeof(path), "%s/tests/golden/tiny/%s", DRUPE_SOURCE_DIR, name);
    if (!dr_is_dir(path)) {
        SKIP(path);
        return;
    }
    if (!CHECK_OK(hf_model_open(&m, path)) || !CHECK_OK(nn_decoder_open(&l.d, dev, m, 0)))
        return;
    l.row = (size_t)hf_model_config(m)->hidden;
    add_adapters(&l, m, dora);
    for (size_t i = 0; i < l.count; i++)
        kept += nn_lora_kept(&l.loras[i]);
    CHECK_OK(nn_acts_new(&l.acts, hf_model_config(m), B, T, kept));
    CHECK_OK(nn_decoder_layer(l.d, 0, &l.w));
    CHECK_OK(nn_lora_norms(l.d, l.w, l.loras, l.count));
    check_layer(&l, dev);
    check_head(l.d, dev, l.row);
    for (size_t i = 0; i < l.count; i++) {
        free(nn_writable(l.loras[i].a));
        free(nn_writable(l.loras[i].b));
        free(l.loras[i].da);
        free(l.loras[i].db);
        free(nn_writable(l.loras[i].magnitude));
        free(l.loras[i].norm);
        free(l.loras[i].dmagnitude);
    }
    dr_big_free(l.acts.x);
    nn_decoder_close(l.d);
    hf_model_close(m);
}

int main(void)
{
    nn_device *dev = NULL;

    if (!CHECK_OK(nn_device_open(&dev, "ref", 1)))
        return check_done();
    test_norm(dev, "rmsnorm", rmsnorm, nn_rmsnorm_back);
    test_norm(dev, "layernorm", layernorm, nn_layernorm_back);
    test_heads(dev);
    for (int i = 0; i < 6; i++)
        test_activate(dev, (hf_act)(HF_ACT_SILU + i / 2), i % 2 == 1);
    test_attention(dev, 0, 0.0f, false);
    test_attention(dev, 4, 0.0f, false);
    test_attention(dev, 0, 1.2f, false);
    test_attention(dev, 4, 1.2f, false);
    test_attention(dev, 0, 0.0f, true);
    test_attention(dev, 3, 1.5f, true);
    test_capped_loss(dev);
    for (int dora = 0; dora < 2; dora++) {
        test_model(dev, "llama", dora);
        test_model(dev, "qwen2", dora);
        test_model(dev, "phi3", dora);
    }
    nn_device_close(dev);
    return check_done();
}
