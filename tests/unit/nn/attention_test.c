/*
 * attention_test.c - attention forward and backward of every device against ref: grouped
 * heads, windows, head sizes, sequences shorter and longer than every tile.
 */
#include "nn_check.h"

typedef struct {
    nn_attn_shape s;
    const float *qkv, *dout, *out, *lse;
} attn;

static size_t row(const nn_attn_shape *s)
{
    return (s->heads + 2 * s->kv_heads) * s->head_dim;
}

/* out, then lse. */
static dr_status forward(nn_device *dev, float *out, const void *ctx)
{
    const attn *a = ctx;

    return nn_attention(dev, out, out + a->s.b * a->s.t * a->s.heads * a->s.head_dim,
                        a->qkv, &a->s);
}

static dr_status backward(nn_device *dev, float *out, const void *ctx)
{
    const attn *a = ctx;

    return nn_attention_back(dev, out, a->dout, a->out, a->lse, a->qkv, &a->s);
}

/* Documents of length, length + 3, length + 6, ... tokens, others in each sequence. */
static uint32_t *documents(size_t b, size_t t, size_t length)
{
    uint32_t *starts = dr_calloc(b * t, sizeof(*starts));

    for (size_t i = 0; i < b; i++) {
        size_t start = 0, wide = length + i;
        for (size_t k = 0; k < t; k++) {
            if (k - start == wide) {
                start = k;
                wide += 3;
            }
            starts[i * t + k] = (uint32_t)start;
        }
    }
    return starts;
}

static void check_shape(const nn_devices *d, const size_t v[6], float cap, size_t document)
{
    attn a = {.s = {.b = v[0],
                    .t = v[1],
                    .heads = v[2],
                    .kv_heads = v[3],
                    .head_dim = v[4],
                    .window = v[5],
                    .softcap = cap}};
    uint32_t *starts = document > 0 ? documents(v[0], v[1], document) : NULL;
    size_t m = a.s.b * a.s.t, out = m * a.s.heads * a.s.head_dim, lse = m * a.s.heads;
    float *qkv = nn_random(m * row(&a.s), 1, 2.0f), *dout = nn_random(out, 2, 1.0f);
    float *fwd = dr_calloc(out + lse, sizeof(*fwd));
    char what[128];

    a.s.scale = 1.0f / sqrtf((float)a.s.head_dim);
    a.s.starts = starts;
    a.qkv = qkv;
    a.dout = dout;
    (void)snprintf(what, sizeof(what),
                   "B %zu T %zu H %zu G %zu C %zu window %zu cap %g doc %zu", v[0], v[1],
                   v[2], v[3], v[4], v[5], (double)cap, document);
    (void)nn_check_op(d, what, forward, &a, out + lse, NULL, tol_attention);
    CHECK_OK(forward(d->ref, fwd, &a));
    a.out = fwd;
    a.lse = fwd + out;
    (void)nn_check_op(d, what, backward, &a, m * row(&a.s), NULL, tol_attention_back);
    /* lse may be left out */
    float *alone = dr_calloc(out, sizeof(*alone));
    CHECK_OK(nn_attention(d->dev[0][1], alone, NULL, qkv, &a.s));
    CHECK_NEAR(nn_far(alone, fwd, out), 0.0, tol_attention);
    free(alone);
    free(starts);
    free(qkv);
    free(dout);
    free(fwd);
}

/* Rotated and attended side by side, documents come out as each of them alone. */
static void test_documents(const nn_devices *d)
{
    enum { T = 333, C = 16, ROW = 3 * C };
    static float cos_t[T * C / 2], sin_t[T * C / 2];
    uint32_t *starts = documents(1, T, 20);
    float *qkv = nn_random(T * ROW, 1, 1.0f), *alone = nn_random(T * ROW, 1, 1.0f);
    float *y = dr_calloc(T * C, sizeof(*y)), *z = dr_calloc(T * C, sizeof(*z));
    nn_attn_shape s = {.b = 1,
                       .t = T,
                       .heads = 1,
                       .kv_heads = 1,
                       .head_dim = C,
                       .rotary_dim = C,
                       .scale = 0.25f,
                       .cos = cos_t,
                       .sin = sin_t,
                       .starts = starts};

    for (size_t i = 0; i < DR_COUNT(cos_t); i++) {
        double angle = (double)(i / (C / 2)) * pow(0.1, (double)(i % (C / 2)));
        cos_t[i] = (float)cos(angle);
        sin_t[i] = (float)sin(angle);
    }
    CHECK_OK(nn_rope(d->dev[0][0], qkv, &s, 1));
    CHECK_OK(nn_attention(d->dev[0][0], y, NULL, qkv, &s));
    s.starts = NULL;
    for (size_t from = 0, to; from < T; from = to) {
        for (to = from + 1; to < T && starts[to] == from;)
            to++;
        s.t = to - from;
        CHECK_OK(nn_rope(d->dev[0][0], alone + from * ROW, &s, 1));
        CHECK_OK(nn_attention(d->dev[0][0], z + from * C, NULL, alone + from * ROW, &s));
    }
    CHECK_MEM(qkv, alone, T * ROW * sizeof(*qkv));
    CHECK_NEAR(nn_far(y, z, T * C), 0.0, 1e-6);
    s.t = T;
    s.starts = starts;
    CHECK_OK(nn_rope(d->ref, alone, &s, -1)); /* back, and what the devices do */
    CHECK_OK(nn_rope(d->dev[0][0], qkv, &s, -1));
    CHECK_NEAR(nn_far(qkv, alone, T * ROW), 0.0, 1e-6);
    free(starts);
    free(qkv);
    free(alone);
    free(y);
    free(z);
}

/* A sequence does not see another of its batch, nor what comes after. */
static void test_masks(const nn_devices *d)
{
    attn a = {
        .s = {.b = 2, .t = 300, .heads = 2, .kv_heads = 1, .head_dim = 16, .scale = 0.25f}};
    size_t r = row(&a.s), o = 2 * 16, n = 2 * 300 * r, out = 2 * 300 * o;
    float *qkv = nn_random(n, 1, 1.0f);
    float *y = dr_calloc(out, sizeof(*y)), *z = dr_calloc(out, sizeof(*z));

    CHECK_OK(nn_attention(d->dev[0][0], y, NULL, qkv, &a.s));
    for (size_t i = 250 * r; i < 300 * r; i++) /* the end of the first sequence */
        qkv[i] += 1.0f;
    CHECK_OK(nn_attention(d->dev[0][0], z, NULL, qkv, &a.s));
    CHECK_MEM(y, z, 250 * o * sizeof(*y));
    CHECK(memcmp(y + 250 * o, z + 250 * o, o * sizeof(*y)) != 0);
    CHECK_MEM(y + 300 * o, z + 300 * o, 300 * o * sizeof(*y));
    a.s.window = 40; /* query 299 sees 260 .. 299 */
    CHECK_OK(nn_attention(d->dev[0][0], y, NULL, qkv, &a.s));
    for (size_t i = 0; i < 260 * r; i++)
        qkv[i] += 1.0f;
    CHECK_OK(nn_attention(d->dev[0][0], z, NULL, qkv, &a.s));
    CHECK_MEM(y + 299 * o, z + 299 * o, o * sizeof(*y));
    CHECK(memcmp(y + 298 * o, z + 298 * o, o * sizeof(*y)) != 0);
    free(qkv);
    free(y);
    free(z);
}

int main(void)
{
    /* B, T, H, G, C, window */
    static const size_t shapes[][6] = {
        {1, 1, 1, 1, 8, 0},     {2, 3, 2, 1, 16, 0},     {1, 31, 3, 3, 64, 0},
        {1, 100, 9, 3, 64, 0},  {2, 97, 4, 2, 96, 0},    {1, 241, 2, 1, 80, 0},
        {1, 300, 2, 2, 128, 0}, {1, 260, 4, 1, 20, 7},   {2, 250, 2, 1, 32, 100},
        {1, 530, 2, 1, 16, 1},  {1, 600, 3, 1, 24, 260}, {1, 500, 1, 1, 6, 0},
    };
    nn_devices d;

    nn_devices_open(&d);
    for (size_t i = 0; i < DR_COUNT(shapes); i++)
        check_shape(&d, shapes[i], 0.0f, 0);
    for (size_t i = 0; i < DR_COUNT(shapes); i += 2)
        check_shape(&d, shapes[i], 2.5f, 0);
    for (size_t i = 1; i < DR_COUNT(shapes); i++)
        check_shape(&d, shapes[i], i % 3 == 0 ? 2.5f : 0.0f, i % 2 == 0 ? 5 : 90);
    check_shape(&d, shapes[10], 0.0f, 1);
    test_documents(&d);
    test_masks(&d);
    nn_devices_close(&d);
    return check_done();
}
