/*
 * rows_test.c - norms, activations, rotations, dropout and cross entropy of every device
 * against ref.
 */
#include "nn_check.h"

/* Operations that only nn knows. */
#include "nn/nn_impl.h"

typedef struct {
    size_t m, d;
    const float *x, *dy, *w;
    const nn_attn_shape *shape;
    nn_mask mask;
    bool acc;
    int sign;
    const int32_t *targets;
    float scale, cap, smoothing;
    nn_act act;
    size_t heads;
    float *kept;
} op_case;

static dr_status rmsnorm(nn_device *dev, float *out, const void *ctx)
{
    const op_case *c = ctx;

    return nn_rmsnorm(dev, out, c->x, c->w, c->m, c->d, 1e-5f);
}

static dr_status rmsnorm_back(nn_device *dev, float *out, const void *ctx)
{
    const op_case *c = ctx;

    return nn_rmsnorm_back(dev, out, c->dy, c->x, c->w, c->m, c->d, 1e-5f);
}

static dr_status heads(nn_device *dev, float *out, const void *ctx)
{
    const op_case *c = ctx;
    size_t dim = c->d / c->heads;

    return nn_rmsnorm_heads(dev, out, c->kept, c->w, c->m, c->d + 5, c->heads, dim, 1e-5f);
}

static dr_status heads_back(nn_device *dev, float *out, const void *ctx)
{
    const op_case *c = ctx;
    size_t dim = c->d / c->heads;

    return nn_rmsnorm_heads_back(dev, out, c->x, c->w, c->m, c->d + 5, c->heads, dim,
                                 1e-5f);
}

static dr_status layernorm(nn_device *dev, float *out, const void *ctx)
{
    const op_case *c = ctx;

    return nn_layernorm(dev, out, c->x, c->w, c->dy, c->m, c->d, 1e-5f);
}

static dr_status layernorm_back(nn_device *dev, float *out, const void *ctx)
{
    const op_case *c = ctx;

    return nn_layernorm_back(dev, out, c->dy, c->x, c->w, c->m, c->d, 1e-5f);
}

static dr_status residual(nn_device *dev, float *out, const void *ctx)
{
    const op_case *c = ctx;

    return nn_residual(dev, out, c->x, c->m * c->d, c->scale);
}

static dr_status scale_cap(nn_device *dev, float *out, const void *ctx)
{
    const op_case *c = ctx;

    return nn_scale_cap(dev, out, c->m * c->d, c->scale, c->cap);
}

/* out[4 count]: parameters, gradients and both moments behind a step. */
static dr_status adamw(nn_device *dev, float *out, const void *ctx)
{
    const op_case *c = ctx;
    size_t n = c->m * c->d;
    const nn_adam step = {0.5f, 0.1f, 0.999f, 0.001f, 0.999f, 0.02f, 3.0f, 1e-8f};

    return nn_adamw(dev, out, out + n, out + 2 * n, out + 3 * n, n, &step);
}

static void check_optimizer(const nn_devices *d, const char *what, const op_case *c,
                            size_t n)
{
    float *init = nn_random(4 * n, 9, 1.0f);
    double want[2], got[2];

    for (size_t i = 3 * n; i < 4 * n; i++)
        init[i] = fabsf(init[i]);
    (void)nn_check_op(d, what, adamw, c, 4 * n, init, tol_adamw);
    for (size_t parts = 1; parts <= 2; parts++) {
        CHECK_OK(nn_squares(d->ref, want, init, parts, 4 * n / parts));
        for (int k = 0; k < NN_KINDS; k++) {
            for (int t = 0; t < NN_THREADS && d->dev[k][t] != NULL; t++) {
                CHECK_OK(nn_squares(d->dev[k][t], got, init, parts, 4 * n / parts));
                for (size_t i = 0; i < parts; i++)
                    CHECK_NEAR(got[i] / want[i], 1, tol_squares);
            }
        }
    }
    free(init);
}

static dr_status activate(nn_device *dev, float *out, const void *ctx)
{
    const op_case *c = ctx;

    return nn_activate(dev, out, c->x, c->m, c->d, c->act);
}

static dr_status activate_back(nn_device *dev, float *out, const void *ctx)
{
    const op_case *c = ctx;

    return nn_activate_back(dev, out, c->dy, c->x, c->m, c->d, c->act);
}

static dr_status rope(nn_device *dev, float *out, const void *ctx)
{
    const op_case *c = ctx;

    return nn_rope(dev, out, c->shape, c->sign);
}

static dr_status add(nn_device *dev, float *out, const void *ctx)
{
    const op_case *c = ctx;

    return nn_add(dev, out, c->x, c->m * c->d);
}

static dr_status dropout(nn_device *dev, float *out, const void *ctx)
{
    const op_case *c = ctx;

    return nn_dropout(dev, out, c->x, c->m * c->d, &c->mask, c->acc);
}

/* Gradients, then the losses as floats. */
static dr_status xent(nn_device *dev, float *out, const void *ctx)
{
    const op_case *c = ctx;
    double *loss = dr_calloc(c->m, sizeof(*loss));
    dr_status st =
        nn_xent(dev, loss, out, c->targets, c->m, c->d, c->scale, c->cap, c->smoothing);

    for (size_t i = 0; i < c->m; i++)
        out[c->m * c->d + i] = (float)loss[i];
    free(loss);
    return st;
}

static const hf_act acts[] = {HF_ACT_SILU, HF_ACT_GELU_TANH, HF_ACT_GELU};

static void test_row_ops(const nn_devices *d)
{
    static const size_t shapes[][2] = {{1, 1},    {3, 7},   {5, 16},    {40, 33},
                                       {17, 576}, {3, 960}, {300, 100}, {2, 40000}};

    for (size_t i = 0; i < DR_COUNT(shapes); i++) {
        op_case c = {.m = shapes[i][0], .d = shapes[i][1]};
        size_t n = c.m * c.d;
        float *x = nn_random(2 * n, 1, 2.0f), *dy = nn_random(n, 2, 1.0f);
        float *w = nn_random(c.d, 3, 1.0f), *init = nn_random(2 * n, 4, 1.0f);
        char what[64];

        c.x = x;
        c.dy = dy;
        c.w = w;
        (void)snprintf(what, sizeof(what), "%zu rows of %zu", c.m, c.d);
        (void)nn_check_op(d, what, rmsnorm, &c, n, NULL, tol_rmsnorm);
        (void)nn_check_op(d, what, rmsnorm_back, &c, n, init, tol_rmsnorm_back);
        (void)nn_check_op(d, what, layernorm, &c, n, NULL, tol_layernorm);
        (void)nn_check_op(d, what, layernorm_back, &c, n, init, tol_layernorm_back);
        for (int k = 0; k < 6; k++) {
            c.act = (nn_act){acts[k / 2], k % 2 == 1};
            (void)nn_check_op(d, what, activate, &c, n, NULL, tol_activate);
            (void)nn_check_op(d, what, activate_back, &c, n * (1 + k % 2), NULL,
                              tol_activate_back);
        }
        c.scale = 0.4f;
        (void)nn_check_op(d, what, residual, &c, n, init, tol_residual);
        (void)nn_check_op(d, what, scale_cap, &c, n, init, tol_scale_cap);
        c.cap = 0.7f;
        (void)nn_check_op(d, what, scale_cap, &c, n, init, tol_scale_cap);
        (void)nn_check_op(d, what, add, &c, n, init, tol_add);
        check_optimizer(d, what, &c, n);
        free(x);
        free(dy);
        free(w);
        free(init);
    }
}

/* Runs within rows that are wider: what is beside them stays; kept gets what they were. */
static void test_heads(const nn_devices *d)
{
    static const size_t shapes[][3] = {{1, 1, 2},    {7, 3, 16},   {19, 4, 6},
                                       {33, 1, 576}, {300, 9, 64}, {5, 2, 128}};

    for (size_t i = 0; i < DR_COUNT(shapes); i++) {
        op_case c = {.m = shapes[i][0], .heads = shapes[i][1]};
        c.d = c.heads * shapes[i][2];
        size_t ld = c.d + 5, n = (c.m - 1) * ld + c.d;
        float *x = nn_random(c.m * c.d, 1, 2.0f), *w = nn_random(shapes[i][2], 2, 1.0f);
        float *rows = nn_random(c.m * ld, 3, 2.0f);
        c.x = x;
        c.w = w;
        (void)nn_check_op(d, "heads", heads, &c, n, rows, tol_rmsnorm_heads);
        (void)nn_check_op(d, "heads back", heads_back, &c, n, rows, tol_rmsnorm_heads_back);
        float *kept = dr_calloc(c.m * c.d, sizeof(float)), *y = dr_calloc(n, sizeof(float));
        float *own = dr_calloc(c.m * c.d, sizeof(float));
        for (int k = 0; k < 2; k++) {
            nn_device *dev = k == 0 ? d->ref : d->dev[0][1];
            c.kept = kept;
            memset(kept, 0, c.m * c.d * sizeof(*kept));
            memcpy(y, rows, n * sizeof(*y));
            CHECK_OK(heads(dev, y, &c));
            for (size_t r = 0; r < c.m; r++) {
                CHECK_MEM(kept + r * c.d, rows + r * ld, c.d * sizeof(*y));
                if (r + 1 < c.m)
                    CHECK_MEM(y + r * ld + c.d, rows + r * ld + c.d, 5 * sizeof(*y));
            }
            /* the same as rows of their own */
            CHECK_OK(nn_rmsnorm(dev, own, kept, w, c.m * c.heads, shapes[i][2], 1e-5f));
            for (size_t r = 0; r < c.m; r++)
                CHECK_NEAR(nn_far(y + r * ld, own + r * c.d, c.d), 0.0, 1e-6);
        }
        free(x);
        free(w);
        free(rows);
        free(kept);
        free(own);
        free(y);
    }
}

/* Gates far out: sigmoid must be 0 and 1 there, never NaN; slopes too. */
static void test_act_extremes(const nn_devices *d)
{
    static const float gate[] = {-1e30f, -200.0f, -88.5f, -87.0f, -20.0f, -1e-30f, 0.0f,
                                 1e-30f, 20.0f,   87.0f,  88.5f,  200.0f, 1e30f};
    enum { N = DR_COUNT(gate) };
    float gate_up[2 * N], ones[N];
    op_case c = {.m = 1, .d = N, .x = gate_up, .dy = ones};

    memcpy(gate_up, gate, sizeof(gate));
    for (size_t i = 0; i < N; i++) {
        gate_up[N + i] = fabsf(gate[i]) > 1e20f ? 1e-20f : 1.0f;
        ones[i] = fabsf(gate[i]) > 1e20f ? 1e-20f : 1.0f;
    }
    for (size_t i = 0; i < DR_COUNT(acts); i++) {
        c.act = (nn_act){acts[i], true};
        (void)nn_check_op(d, "gates far out", activate, &c, N, NULL, tol_activate);
        c.act.gated = false;
        (void)nn_check_op(d, "slopes far out", activate_back, &c, N, NULL,
                          tol_activate_back);
    }
}

static void test_rope(const nn_devices *d)
{
    static const size_t dims[][2] = {{64, 64},  {96, 96}, {80, 32},
                                     {128, 96}, {16, 16}, {6, 2}};

    for (size_t i = 0; i < DR_COUNT(dims); i++) {
        nn_attn_shape s = {.b = 2, .t = 19, .heads = 3, .kv_heads = 1};
        s.head_dim = dims[i][0];
        s.rotary_dim = dims[i][1];
        size_t half = s.rotary_dim / 2, row = 5 * s.head_dim, n = s.b * s.t * row;
        float *angle = nn_random(s.t * half, 5, 3.0f),
              *sin_t = nn_random(s.t * half, 5, 3.0f);
        float *x = nn_random(n, 6, 1.0f), *y = dr_calloc(n, sizeof(float));
        for (size_t j = 0; j < s.t * half; j++) {
            float a = angle[j];
            angle[j] = cosf(a);
            sin_t[j] = sinf(a);
        }
        s.cos = angle;
        s.sin = sin_t;
        op_case c = {.shape = &s, .sign = 1};
        (void)nn_check_op(d, "rope", rope, &c, n, x, tol_rope);
        c.sign = -1;
        (void)nn_check_op(d, "rope back", rope, &c, n, x, tol_rope);
        memcpy(y, x, n * sizeof(*y));
        CHECK_OK(nn_rope(d->dev[0][0], y, &s, 1));
        CHECK(nn_far(y, x, n) > 0.1);
        CHECK_MEM(y + 4 * s.head_dim, x + 4 * s.head_dim, s.head_dim * 4); /* values stay */
        CHECK_OK(nn_rope(d->dev[0][0], y, &s, -1));
        CHECK_NEAR(nn_far(y, x, n), 0.0, 1e-6);
        free(angle);
        free(sin_t);
        free(x);
        free(y);
    }
}

static void test_dropout(const nn_devices *d)
{
    enum { N = 40000 };
    float *x = nn_random(N, 1, 1.0f), *y = dr_calloc(N, sizeof(*y));
    op_case c = {.m = 1, .d = N, .x = x};
    size_t kept = 0;

    c.mask =
        (nn_mask){.seed = 42, .stream = 9, .threshold = 1u << 14, .scale = 4.0f / 3.0f};
    (void)nn_check_op(d, "dropout", dropout, &c, N, NULL, tol_dropout);
    c.acc = true;
    (void)nn_check_op(d, "dropout, adding", dropout, &c, N, x, tol_dropout);
    c.d = 131;
    (void)nn_check_op(d, "dropout, odd", dropout, &c, 131, x, tol_dropout);
    CHECK_OK(nn_dropout(d->dev[0][1], y, x, N, &c.mask, false));
    for (size_t i = 0; i < N; i++)
        kept += y[i] != 0.0f;
    CHECK_NEAR((double)kept / N, 0.75, 0.01); /* 4.6 standard deviations */
    c.mask.stream = 10;
    CHECK_OK(nn_dropout(d->dev[0][1], y, x, N, &c.mask, false));
    kept = 0;
    for (size_t i = 0; i < N; i++)
        kept += y[i] != 0.0f;
    CHECK_NEAR((double)kept / N, 0.75, 0.01);
    c.mask.threshold = 0; /* p = 0 keeps all */
    c.mask.scale = 1.0f;
    CHECK_OK(nn_dropout(d->dev[0][1], y, x, N, &c.mask, false));
    CHECK_MEM(y, x, N * sizeof(*x));
    free(x);
    free(y);
}

static void test_xent(const nn_devices *d)
{
    static const size_t shapes[][2] = {{3, 2}, {5, 17}, {40, 128}, {3, 5001}, {2, 49152}};

    for (size_t i = 0; i < DR_COUNT(shapes); i++) {
        op_case c = {.m = shapes[i][0], .d = shapes[i][1]};
        size_t n = c.m * c.d;
        float *logits = nn_random(n + c.m, 8, 2.0f);
        int32_t *targets = dr_calloc(c.m, sizeof(*targets));
        for (size_t r = 0; r < c.m; r++)
            targets[r] = (int32_t)(r * 7919 % c.d);
        c.targets = targets;
        (void)nn_check_op(d, "loss", xent, &c, n + c.m, logits, tol_xent);
        c.scale = 0.25f;
        (void)nn_check_op(d, "loss and gradient", xent, &c, n + c.m, logits, tol_xent);
        c.cap = 12.0f;
        (void)nn_check_op(d, "capped", xent, &c, n + c.m, logits, tol_xent);
        c.smoothing = 0.2f;
        (void)nn_check_op(d, "smoothed", xent, &c, n + c.m, logits, tol_xent);
        logits[0] = NAN;
        double loss[64] = {0};
        CHECK_OK(nn_xent(d->dev[0][0], loss, logits, targets, c.m, c.d, 0.0f, 0.0f, 0.0f));
        CHECK(isnan(loss[0]));
        free(logits);
        free(targets);
    }
}

/* exp through the loss of two logits: log(1 + exp(x)) - 0, all over its range. */
static void test_exp(const nn_devices *d)
{
    enum { N = 4001 };
    static float logits[2 * N];
    static double loss[N];
    static int32_t targets[N];
    double worst = 0.0;

    for (int i = 0; i < N; i++) {
        logits[2 * i] = 0.0f;
        logits[2 * i + 1] = (float)(-0.005 * i) - 0.0001f * (float)(i % 7);
        targets[i] = 0;
    }
    float *grad = dr_calloc(2 * N, sizeof(*grad));
    memcpy(grad, logits, sizeof(logits));
    CHECK_OK(nn_xent(d->dev[0][0], loss, grad, targets, N, 2, 1.0f, 0.0f, 0.0f));
    for (int i = 0; i < N; i++) {
        double e = exp((double)logits[2 * i + 1]), p = e / (1.0 + e);
        worst = fmax(worst, fabs((double)grad[2 * i + 1] / p - 1.0));
    }
    CHECK_NEAR(worst, 0.0, 4e-7);
    free(grad);
}

int main(void)
{
    nn_devices d;

    nn_devices_open(&d);
    test_row_ops(&d);
    test_heads(&d);
    test_act_extremes(&d);
    test_rope(&d);
    test_dropout(&d);
    test_xent(&d);
    test_exp(&d);
    nn_devices_close(&d);
    return check_done();
}
