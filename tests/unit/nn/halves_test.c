/*
 * halves_test.c - operations on memory of bf16 (nn_mem.h): what a training's activations
 * and their gradients are on a device whose products round.  Each is held to ref on the
 * rounded inputs, its result to bf16's precision; shapes on and off the eights that kernels
 * take at once, outputs filled with NaN.
 */
#include "nn/nn_impl.h"
#include "nn_check.h"

enum { OPERANDS = 4 };
static const double near = 8e-3; /* of the largest value: 2^-8, and a sum's own */

/* An operation on out and up to three inputs, each in memory of the kind that its letter
 * names: 'b' bf16, 'f' floats, 'h' the host's. */
typedef struct {
    size_t m, d, n, ld;
    nn_act act;
    nn_attn_shape shape;
    nn_mask mask;
    int sign;
    bool acc;
    const float *host; /* what stays the host's: weights of norms, biases, lse */
    float scale;
} job;
typedef dr_status (*fn)(nn_device *dev, float *out, const float *const *in, const job *j);

static float *there(nn_device *dev, const float *x, size_t count, char kind)
{
    float *p = NULL;

    CHECK_OK(nn_mem_new(dev, &p, count, kind == 'b' ? NN_MEM_BF16 : NN_MEM_FLOAT, "test"));
    CHECK_OK(nn_copy(dev, p, x, count * sizeof(*x)));
    return p;
}

/* sizes[0] and kinds[0] are the result's; acc: it begins as values, else as NaN. */
static void check(nn_device *ref, nn_device *dev, const char *what, fn f, const job *j,
                  const char *kinds, const size_t *sizes)
{
    float *x[OPERANDS] = {0}, *p[OPERANDS] = {0};
    size_t failed = check_failed, n = strlen(kinds);

    for (size_t i = 0; i < n; i++) {
        x[i] = nn_random(sizes[i], 10 + i, 1.0f);
        for (size_t k = 0; k < sizes[i]; k++)
            x[i][k] = i == 0 && !j->acc ? NAN : nn_rounded(x[i][k]);
        p[i] = there(kinds[i] == 'h' ? ref : dev, x[i], sizes[i], kinds[i]);
    }
    float *got = dr_calloc(sizes[0], sizeof(*got)), *again = NULL;
    const float *const in[] = {p[1], p[2], p[3]}, *const in_ref[] = {x[1], x[2], x[3]};
    CHECK_OK(f(dev, p[0], in, j));
    CHECK_OK(nn_copy(dev, got, p[0], sizes[0] * sizeof(*got)));
    CHECK_OK(nn_copy(dev, p[0], x[0], sizes[0] * sizeof(*got)));
    again = dr_calloc(sizes[0], sizeof(*again));
    CHECK_OK(f(dev, p[0], in, j));
    CHECK_OK(nn_copy(dev, again, p[0], sizes[0] * sizeof(*got)));
    CHECK_OK(f(ref, x[0], in_ref, j));
    for (size_t k = 0; k < sizes[0]; k++) { /* what a stride leaves alone stays NaN */
        if (isnan(x[0][k]) && isnan(got[k]) && isnan(again[k]))
            x[0][k] = got[k] = again[k] = 0;
    }
    CHECK_MEM(got, again, sizes[0] * sizeof(*got));
    CHECK_NEAR(nn_far(got, x[0], sizes[0]), 0, near);
    if (check_failed > failed)
        (void)printf("  in: %s %s, %zu x %zu\n", what, kinds, j->m, j->d);
    for (size_t i = 0; i < n; i++) {
        nn_mem_free(kinds[i] == 'h' ? ref : dev, p[i]);
        free(x[i]);
    }
    free(got);
    free(again);
}

static dr_status norm(nn_device *dev, float *out, const float *const *in, const job *j)
{
    return nn_rmsnorm(dev, out, in[0], j->host, j->m, j->d, 1e-5f);
}

static dr_status norm_back(nn_device *dev, float *out, const float *const *in, const job *j)
{
    return nn_rmsnorm_back(dev, out, in[0], in[1], j->host, j->m, j->d, 1e-5f);
}

static dr_status layernorm_back(nn_device *dev, float *out, const float *const *in,
                                const job *j)
{
    return nn_layernorm_back(dev, out, in[0], in[1], j->host, j->m, j->d, 1e-5f);
}

static dr_status heads(nn_device *dev, float *out, const float *const *in, const job *j)
{
    (void)in;
    return nn_rmsnorm_heads(dev, out, NULL, j->host, j->m, j->ld, j->n, j->d, 1e-5f);
}

static dr_status activate(nn_device *dev, float *out, const float *const *in, const job *j)
{
    return nn_activate(dev, out, in[0], j->m, j->d, j->act);
}

static dr_status activate_back(nn_device *dev, float *out, const float *const *in,
                               const job *j)
{
    return nn_activate_back(dev, out, in[0], in[1], j->m, j->d, j->act);
}

static dr_status rope(nn_device *dev, float *out, const float *const *in, const job *j)
{
    (void)in;
    return nn_rope(dev, out, &j->shape, j->sign);
}

static dr_status attention(nn_device *dev, float *out, const float *const *in, const job *j)
{
    return nn_attention(dev, out, NULL, in[0], &j->shape);
}

static dr_status attention_back(nn_device *dev, float *out, const float *const *in,
                                const job *j)
{
    /* out and lse of the same inputs, by the device itself */
    const size_t m = j->shape.b * j->shape.t, wide = m * j->shape.heads * j->shape.head_dim;
    float *o = NULL, *lse = NULL;
    dr_status st = DR_OK;

    DR_TRY(nn_mem_new(dev, &o, wide, NN_MEM_BF16, "test"));
    DR_TRY(nn_mem_new(dev, &lse, m * j->shape.heads, NN_MEM_FLOAT, "test"));
    DR_TRY(nn_attention(dev, o, lse, in[1], &j->shape));
    DR_TRY(nn_attention_back(dev, out, in[0], o, lse, in[1], &j->shape));
done:
    nn_mem_free(dev, o);
    nn_mem_free(dev, lse);
    return st;
}

/* The same, turned back, in one pass where the device has one. */
static dr_status attention_back_turned(nn_device *dev, float *out, const float *const *in,
                                       const job *j)
{
    const size_t m = j->shape.b * j->shape.t, wide = m * j->shape.heads * j->shape.head_dim;
    float *o = NULL, *lse = NULL;
    bool taken = false;
    dr_status st = DR_OK;

    DR_TRY(nn_mem_new(dev, &o, wide, NN_MEM_BF16, "test"));
    DR_TRY(nn_mem_new(dev, &lse, m * j->shape.heads, NN_MEM_FLOAT, "test"));
    DR_TRY(nn_attention(dev, o, lse, in[1], &j->shape));
    if (dev->backend->attention_back_turned != NULL)
        DR_TRY(dev->backend->attention_back_turned(dev, &taken, out, in[0], o, lse, in[1],
                                                   &j->shape));
    if (!taken) {
        DR_TRY(nn_attention_back(dev, out, in[0], o, lse, in[1], &j->shape));
        DR_TRY(nn_rope(dev, out, &j->shape, -1));
    }
done:
    nn_mem_free(dev, o);
    nn_mem_free(dev, lse);
    return st;
}

static dr_status dropout(nn_device *dev, float *out, const float *const *in, const job *j)
{
    return nn_dropout(dev, out, in[0], j->m * j->d, &j->mask, j->acc);
}

static dr_status scale(nn_device *dev, float *out, const float *const *in, const job *j)
{
    (void)in;
    return nn_scale_cap(dev, out, j->m * j->d, j->scale, 0.0f);
}

static dr_status residual(nn_device *dev, float *out, const float *const *in, const job *j)
{
    return nn_residual(dev, out, in[0], j->m * j->d, j->scale);
}

static dr_status subtract(nn_device *dev, float *out, const float *const *in, const job *j)
{
    return nn_subtract(dev, out, in[0], in[1], j->m * j->d, j->scale);
}

static dr_status activate_change(nn_device *dev, float *out, const float *const *in,
                                 const job *j)
{
    return nn_activate_change(dev, out, in[0], in[1], j->m, j->d, (int)j->act.kind,
                              j->act.gated);
}

static nn_groups groups_of(const job *j)
{
    return (nn_groups){j->m, j->d, j->n, 0, j->d, j->d / j->n};
}

static dr_status rounded(nn_device *dev, float *out, const float *const *in, const job *j)
{
    const nn_groups g = groups_of(j);

    return nn_round_scaled(dev, out, in[0], &g, &(nn_rule){.bits = 4}, j->host);
}

static dr_status errors(nn_device *dev, float *out, const float *const *in, const job *j)
{
    const nn_groups g = groups_of(j);

    return nn_scaled_errors(dev, out, in[0], &g, &(nn_rule){.bits = 4}, j->host);
}

/* Forms of an A in floats and a B in bf16, rounded as floats. */
static dr_status quads(nn_device *dev, float *out, const float *const *in, const job *j)
{
    double *sums = dr_calloc(j->m, sizeof(*sums));
    float *here = dr_calloc(j->m, sizeof(*here));
    dr_status st = DR_OK;

    DR_TRY(nn_row_quads(dev, sums, in[0], in[1], j->host, j->m, j->d));
    for (size_t i = 0; i < j->m; i++)
        here[i] = (float)sums[i];
    DR_TRY(nn_copy(dev, out, here, j->m * sizeof(*here)));
done:
    free(sums);
    free(here);
    return st;
}

static dr_status product_nt(nn_device *dev, float *out, const float *const *in,
                            const job *j)
{
    return nn_matmul_nt(dev, out, in[0], in[1], j->host, j->m, j->n, j->d, j->ld, j->acc);
}

static dr_status product_nn(nn_device *dev, float *out, const float *const *in,
                            const job *j)
{
    return nn_matmul_nn(dev, out, in[0], in[1], j->m, j->d, j->n, j->ld, j->acc);
}

static dr_status product_tn(nn_device *dev, float *out, const float *const *in,
                            const job *j)
{
    return nn_matmul_tn(dev, out, in[0], in[1], j->n, j->d, j->m, j->ld, j->d, j->acc);
}

/* ---- cases ---- */

static void test_rows(nn_device *ref, nn_device *dev, size_t m, size_t d)
{
    float *w = nn_random(2 * d, 3, 1.0f);
    job j = {.m = m, .d = d, .host = w};
    const size_t row[] = {m * d, m * d, m * d}, wide[] = {m * d, 2 * m * d};
    const size_t wide_back[] = {2 * m * d, m * d, 2 * m * d};
    const size_t changed[] = {m * d, 2 * m * d, m * d};
    static const char *const norms[] = {"bf", "bb", "fb"};
    static const char *const backs[] = {"fbb", "fbf", "bbb", "fff", "fbh"};

    for (size_t i = 0; i < DR_COUNT(norms); i++)
        check(ref, dev, "rmsnorm", norm, &j, norms[i], row);
    for (int kind = 0; kind < 3; kind++) {
        j.act = (nn_act){(hf_act)kind, true};
        check(ref, dev, "activate", activate, &j, "bb", wide);
        check(ref, dev, "activate_change", activate_change, &j, "bbb", changed);
        check(ref, dev, "activate_change", activate_change, &j, "bfb", changed);
        check(ref, dev, "activate_back", activate_back, &j, "bbb", wide_back);
        check(ref, dev, "activate_back", activate_back, &j, "bhb", wide_back);
        j.act.gated = false;
        check(ref, dev, "activate", activate, &j, "bb", row);
        check(ref, dev, "activate_back", activate_back, &j, "bbb", row);
    }
    j.mask = (nn_mask){5, 6, 20000, 1.5f};
    check(ref, dev, "dropout", dropout, &j, "bb", row);
    j.acc = true;
    check(ref, dev, "dropout", dropout, &j, "bb", row);
    for (size_t i = 0; i < DR_COUNT(backs); i++) {
        check(ref, dev, "rmsnorm_back", norm_back, &j, backs[i], row);
        check(ref, dev, "layernorm_back", layernorm_back, &j, backs[i], row);
    }
    j.scale = 0.37f;
    check(ref, dev, "scale_cap", scale, &j, "b", row);
    check(ref, dev, "residual", residual, &j, "bf", row);
    check(ref, dev, "subtract", subtract, &j, "bbb", row);
    check(ref, dev, "subtract", subtract, &j, "bbf", row);
    j.n = 3;
    j.ld = 3 * d + 5;
    check(ref, dev, "rmsnorm_heads", heads, &j, "b", (const size_t[]){m * j.ld});
    free(w);
}

/* Rounded weights and their errors, of groups whose rows lie together or do not. */
static void test_rounding(nn_device *ref, nn_device *dev, size_t n, size_t k, size_t group)
{
    float *scale = nn_random(k, 3, 0.2f);
    const job j = {.m = n, .d = k, .n = group, .host = scale};
    const size_t sizes[] = {n * k, n * k};
    static const char *const kinds[] = {"bb", "bf", "fb", "bh"};

    for (size_t i = 0; i < k; i++)
        scale[i] = 1.0f + fabsf(scale[i]);
    for (size_t i = 0; i < DR_COUNT(kinds); i++) {
        check(ref, dev, "round_scaled", rounded, &j, kinds[i], sizes);
        check(ref, dev, "scaled_errors", errors, &j, kinds[i], sizes);
    }
    check(ref, dev, "row_quads", quads, &j, "ffb", (const size_t[]){n, n * k, n * k});
    check(ref, dev, "row_quads", quads, &j, "fff", (const size_t[]){n, n * k, n * k});
    free(scale);
}

static void test_products(nn_device *ref, nn_device *dev, size_t m, size_t n, size_t k)
{
    float *bias = nn_random(n, 4, 1.0f);
    job j = {.m = m, .n = n, .d = k, .ld = n};
    const size_t nt[] = {m * n, m * k, n * k}, nn[] = {m * k, m * n, n * k};
    const size_t tn[] = {n * k, m * n, m * k};
    static const char *const kinds[] = {"bbb", "bfb", "fbb", "bbf", "bhh", "hbb"};

    for (size_t i = 0; i < DR_COUNT(kinds); i++) {
        for (int acc = 0; acc < 2; acc++) {
            j.acc = acc == 1;
            j.host = acc == 1 ? bias : NULL;
            check(ref, dev, "matmul_nt", product_nt, &j, kinds[i], nt);
            j.host = NULL;
            check(ref, dev, "matmul_nn", product_nn, &j, kinds[i], nn);
            check(ref, dev, "matmul_tn", product_tn, &j, kinds[i], tn);
        }
    }
    j.ld = n + 8; /* rows of a wider result */
    const size_t wide[] = {m * j.ld, m * k, n * k};
    check(ref, dev, "matmul_nt", product_nt, &j, "bbb", wide);
    free(bias);
}

static void test_attention(nn_device *ref, nn_device *dev, nn_attn_shape s)
{
    size_t m = s.b * s.t, half = s.rotary_dim / 2;
    size_t all = m * (s.heads + 2 * s.kv_heads) * s.head_dim;
    size_t wide = m * s.heads * s.head_dim;
    float *tables = nn_random(2 * s.t * half, 8, 1.0f);

    s.cos = tables;
    s.sin = tables + s.t * half;
    s.scale = 1.0f / sqrtf((float)s.head_dim);
    job j = {.m = m, .d = s.head_dim, .shape = s, .sign = 1};
    check(ref, dev, "attention", attention, &j, "bb", (const size_t[]){wide, all});
    check(ref, dev, "attention", attention, &j, "fb", (const size_t[]){wide, all});
    check(ref, dev, "attention_back", attention_back, &j, "bbb",
          (const size_t[]){all, wide, all});
    check(ref, dev, "attention_back", attention_back, &j, "bff",
          (const size_t[]){all, wide, all});
    if (s.rotary_dim == s.head_dim)
        check(ref, dev, "attention_back_turned", attention_back_turned, &j, "bbb",
              (const size_t[]){all, wide, all});
    j.acc = true;
    check(ref, dev, "rope", rope, &j, "b", (const size_t[]){all});
    j.sign = -1;
    check(ref, dev, "rope", rope, &j, "b", (const size_t[]){all});
    free(tables);
}

static void test_attentions(nn_device *ref, nn_device *dev)
{
    static const size_t dims[] = {16, 64, 80, 96, 100, 112, 128, 256};

    nn_check_heads(ref, dev, test_attention, dims, DR_COUNT(dims));
}

/* Sequences on, just off and several times the tiles of kernels, groups of heads, windows
 * and documents that begin and end within tiles and fill several, caps. */
static void test_tiles(nn_device *ref, nn_device *dev)
{
    /* B, T, H, G, C, window, tokens of a document */
    static const size_t shapes[][7] = {
        {1, 1, 1, 1, 64, 0, 0},     {2, 64, 2, 1, 96, 0, 0},    {1, 65, 4, 1, 128, 0, 0},
        {1, 192, 2, 2, 128, 0, 0},  {2, 257, 3, 3, 64, 0, 0},   {1, 520, 4, 2, 96, 0, 0},
        {1, 450, 2, 1, 96, 200, 0}, {2, 300, 2, 2, 64, 64, 0},  {1, 333, 2, 1, 128, 30, 0},
        {2, 300, 2, 1, 96, 0, 40},  {1, 400, 2, 2, 64, 0, 130}, {1, 330, 4, 1, 128, 90, 70},
    };

    for (size_t i = 0; i < DR_COUNT(shapes); i++) {
        const size_t *v = shapes[i];
        uint32_t *starts = dr_calloc(v[0] * v[1], sizeof(*starts));
        nn_attn_shape s = {.b = v[0],
                           .t = v[1],
                           .heads = v[2],
                           .kv_heads = v[3],
                           .head_dim = v[4],
                           .rotary_dim = v[4],
                           .window = v[5],
                           .softcap = i % 3 == 2 ? 3.0f : 0.0f};
        for (size_t k = 0; k < v[0] * v[1] && v[6] > 0; k++)
            starts[k] = (uint32_t)(k % v[1] / v[6] * v[6]);
        s.starts = v[6] > 0 ? starts : NULL;
        test_attention(ref, dev, s);
        free(starts);
    }
}

/* Parts can be copied, and zeros set, in either direction between all kinds. */
static void test_copies(nn_device *dev)
{
    enum { N = 1000 };
    float *x = nn_random(N, 1, 1.0f), *y = dr_calloc(N, sizeof(*y));
    float *p = there(dev, x, N, 'b'), *q = there(dev, x, N, 'b'),
          *f = there(dev, x, N, 'f');

    for (size_t i = 0; i < N; i++)
        x[i] = nn_rounded(x[i]);
    CHECK_OK(nn_copy(dev, q + 7, p + 3, (N - 7) * sizeof(*x)));
    CHECK_OK(nn_copy(dev, f + 1, q + 2, (N - 2) * sizeof(*x)));
    CHECK_OK(nn_zero(dev, q + 500, 10 * sizeof(*x)));
    CHECK_OK(nn_copy(dev, q + 511, f, sizeof(*x)));
    CHECK_OK(nn_copy(dev, y, q, N * sizeof(*y)));
    CHECK(y[6] == x[6] && y[7] == x[3] && y[499] == x[495] && y[N - 1] == x[N - 5]);
    CHECK(y[500] == 0.0f && y[509] == 0.0f && y[510] == x[506]);
    CHECK_NEAR(y[511], x[0], 1e-2);
    CHECK_OK(nn_copy(dev, y, f, N * sizeof(*y)));
    CHECK(y[1] == x[2] && y[6] == x[3] && y[N - 2] == x[N - 5]);
    for (size_t n = N - 3; n <= N; n += 3) {
        double sum = 0, want = 0;
        for (size_t i = 0; i < n; i++)
            want += (double)x[i] * (double)x[i];
        CHECK_OK(nn_squares(dev, &sum, p, 1, n));
        CHECK_NEAR(sum / want, 1, 1e-6);
    }
    for (size_t n = 12; n <= 16; n += 4) { /* odd ones are not read as eight halves */
        double sums[3];
        CHECK_OK(nn_squares(dev, sums, p, 3, n));
        for (size_t k = 0; k < 3; k++) {
            double want = 0;
            for (size_t i = 0; i < n; i++)
                want += (double)x[k * n + i] * (double)x[k * n + i];
            CHECK_NEAR(sums[k] / want, 1, 1e-6);
        }
    }
    nn_mem_free(dev, p);
    nn_mem_free(dev, q);
    nn_mem_free(dev, f);
    free(x);
    free(y);
}

/* A norm that keeps what it read is the norm, and that. */
static void test_keep(nn_device *ref, nn_device *dev, size_t m, size_t d)
{
    float *x = nn_random(m * d, 1, 1.0f), *w = nn_random(d, 2, 1.0f);
    float *got = dr_calloc(m * d, sizeof(*got)), *want = dr_calloc(m * d, sizeof(*want));
    float *f = there(dev, x, m * d, 'f'), *y = there(dev, x, m * d, 'b');
    float *kept = there(dev, got, m * d, 'b');
    bool taken = false;

    CHECK_OK(dev->backend->norm_keep(dev, &taken, y, kept, f, w, m, d, 1e-5f));
    CHECK_EQ_INT(taken, d % 8 == 0);
    CHECK_OK(nn_rmsnorm(ref, want, x, w, m, d, 1e-5f));
    CHECK_OK(nn_copy(dev, got, y, m * d * sizeof(*got)));
    if (taken)
        CHECK_NEAR(nn_far(got, want, m * d), 0, near);
    CHECK_OK(nn_copy(dev, got, kept, m * d * sizeof(*got)));
    for (size_t i = 0; i < m * d && taken; i++)
        CHECK(got[i] == nn_rounded(x[i]));
    nn_mem_free(dev, f);
    nn_mem_free(dev, y);
    nn_mem_free(dev, kept);
    free(x);
    free(w);
    free(got);
    free(want);
}

/* Its gradient adds what the norm's does, and keeps what that leaves. */
static void test_back_keep(nn_device *ref, nn_device *dev, size_t m, size_t d)
{
    float *x = nn_random(m * d, 1, 1.0f), *w = nn_random(d, 2, 1.0f);
    float *dy = nn_random(m * d, 3, 1.0f), *dx = nn_random(m * d, 4, 1.0f);
    float *got = dr_calloc(m * d, sizeof(*got)), *sum = dr_calloc(m * d, sizeof(*sum));
    bool taken = false;

    for (size_t i = 0; i < m * d; i++) {
        x[i] = nn_rounded(x[i]);
        dy[i] = nn_rounded(dy[i]);
        got[i] = NAN;
    }
    float *f = there(dev, dx, m * d, 'f'), *kept = there(dev, got, m * d, 'b');
    float *g = there(dev, dy, m * d, 'b'), *at = there(dev, x, m * d, 'b');
    CHECK_OK(dev->backend->norm_back_keep(dev, &taken, f, kept, g, at, w, m, d, 1e-5f));
    CHECK_EQ_INT(taken, d % 8 == 0);
    CHECK_OK(nn_copy(dev, sum, f, m * d * sizeof(*sum)));
    CHECK_OK(nn_copy(dev, got, kept, m * d * sizeof(*got)));
    if (taken) {
        CHECK_OK(nn_rmsnorm_back(ref, dx, dy, x, w, m, d, 1e-5f));
        CHECK_NEAR(nn_far(sum, dx, m * d), 0, 1e-5);
    }
    for (size_t i = 0; i < m * d && taken; i++)
        CHECK(got[i] == nn_rounded(sum[i]));
    nn_mem_free(dev, f);
    nn_mem_free(dev, g);
    nn_mem_free(dev, at);
    nn_mem_free(dev, kept);
    free(x);
    free(w);
    free(dy);
    free(dx);
    free(got);
    free(sum);
}

/* The loss and its gradient beside the logits are those in their place, and leave them. */
static void test_xent_apart(nn_device *ref, nn_device *dev, size_t m, size_t v, float cap)
{
    float *x = nn_random(m * v, 1, 4.0f), *got = dr_calloc(m * v, sizeof(*got));
    double loss[8], want[8];
    int32_t targets[8];
    bool taken = false;

    for (size_t i = 0; i < m * v; i++)
        got[i] = NAN;
    for (size_t i = 0; i < m; i++)
        targets[i] = (int32_t)(v - 1 - i * 7);
    float *f = there(dev, x, m * v, 'f'), *g = there(dev, got, m * v, 'b');
    CHECK_OK(
        dev->backend->xent_apart(dev, &taken, loss, g, f, targets, m, v, 0.8f, cap, 0.1f));
    CHECK(taken);
    CHECK_OK(nn_copy(dev, got, f, m * v * sizeof(*got)));
    CHECK_MEM(got, x, m * v * sizeof(*x));
    CHECK_OK(nn_copy(dev, got, g, m * v * sizeof(*got)));
    CHECK_OK(nn_xent(ref, want, x, targets, m, v, 0.8f, cap, 0.1f));
    for (size_t i = 0; i < m; i++)
        CHECK_NEAR(loss[i], want[i], 1e-5 * fabs(want[i]));
    for (size_t i = 0; i < m * v; i++) /* each by itself: most are tiny */
        CHECK_NEAR(got[i], x[i], near * fabs((double)x[i]) + 1e-9);
    nn_mem_free(dev, f);
    nn_mem_free(dev, g);
    free(x);
    free(got);
}

/* Packed weights of 2, 4 and 8 bits become bf16, with zero points and without. */
static void test_unpack(nn_device *ref, nn_device *dev, size_t rows, size_t cols)
{
    static const int bits[] = {2, 4, 8};

    for (size_t i = 0; i < 2 * DR_COUNT(bits); i++) {
        size_t n = rows * cols;
        float *want = dr_calloc(n, sizeof(*want)), *got = dr_calloc(n, sizeof(*got));
        float *p = NULL, *values = nn_random(n, 5, 1.0f);
        dr_qtensor q = {0};
        CHECK_OK(dr_qtensor_new(&q, bits[i / 2], 16, rows, cols, i % 2 == 0));
        for (size_t k = 0; k < n; k++)
            dr_qtensor_set_code(&q, k / cols, k % cols,
                                (int)(k * 7 + k / 5) & ((1 << q.bits) - 1));
        for (size_t k = 0; k < rows * dr_qtensor_blocks(&q); k++) {
            q.scales[k] = values[k];
            if (q.zeros != NULL)
                dr_qtensor_set_zero(&q, k / dr_qtensor_blocks(&q),
                                    k % dr_qtensor_blocks(&q),
                                    (int)k & ((1 << q.bits) - 1));
        }
        for (size_t k = 0; k < n; k++)
            got[k] = NAN;
        p = there(dev, got, n, 'b');
        CHECK_OK(nn_unpack(ref, want, &q));
        CHECK_OK(nn_unpack(dev, p, &q));
        CHECK_OK(nn_copy(dev, got, p, n * sizeof(*got)));
        CHECK_NEAR(nn_far(got, want, n), 0, 4e-3);
        nn_mem_free(dev, p);
        dr_qtensor_release(&q);
        free(values);
        free(want);
        free(got);
    }
}

int main(void)
{
    static const char *const kinds[] = {"cpu:apart", "cuda:bf16", "cuda"};
    nn_device *ref = NULL, *dev = NULL;

    CHECK_OK(nn_device_open(&ref, "ref", 1));
    for (size_t i = 0; i < DR_COUNT(kinds); i++) {
        if (nn_device_open(&dev, kinds[i], 2) != DR_OK) {
            SKIP("gpu: none to use");
            break;
        }
        test_rows(ref, dev, 5, 64);
        test_rows(ref, dev, 3, 3072);
        test_rows(ref, dev, 7, 75);
        test_products(ref, dev, 64, 128, 64);
        test_products(ref, dev, 33, 40, 72);
        test_products(ref, dev, 13, 21, 35);
        test_attentions(ref, dev);
        test_tiles(ref, dev);
        test_rounding(ref, dev, 5, 256, 128);
        test_rounding(ref, dev, 9, 768, 384);
        test_rounding(ref, dev, 7, 96, 32);
        test_rounding(ref, dev, 3, 75, 25);
        test_unpack(ref, dev, 24, 96);
        test_unpack(ref, dev, 8, 67);
        if (i > 0) {
            test_copies(dev);
            test_keep(ref, dev, 5, 96);
            test_keep(ref, dev, 3, 3072);
            test_keep(ref, dev, 2, 75);
            test_back_keep(ref, dev, 5, 96);
            test_back_keep(ref, dev, 3, 3072);
            test_back_keep(ref, dev, 2, 75);
            test_xent_apart(ref, dev, 5, 1000, 0.0f);
            test_xent_apart(ref, dev, 3, 60001, 30.0f);
        }
        nn_device_close(dev);
        dev = NULL;
    }
    nn_device_close(ref);
    return check_done();
}
