/*
 * block_quantize_test.c - exported bytes against the quantizer's formula, computed value by
 * value with roundf here; floats against the file; values that are not finite.
 */
#include "onnx_fixture.h"

static dr_arena arena;

enum { K = FIX_I, N = FIX_D };

static const char name[] = "model.layers.0.mlp.down_proj.weight";

/* ---- the formula, in its plainest form ---- */

typedef struct {
    float scale;
    int zero;
    int code[256];
} block;

static block expect(const float *row, size_t at, int bits, int size, bool symmetric)
{
    float v[256] = {0}, lo = 0, hi = 0;
    int top = (1 << bits) - 1;
    block b = {.zero = 1 << (bits - 1)};

    for (int i = 0; i < size && at + (size_t)i < K; i++)
        v[i] = row[at + (size_t)i];
    lo = hi = v[0];
    for (int i = 1; i < size; i++) {
        lo = fminf(lo, v[i]);
        hi = fmaxf(hi, v[i]);
    }
    if (symmetric) {
        b.scale = -(fabsf(hi) > fabsf(lo) ? hi : lo) / (float)b.zero;
    } else {
        lo = fminf(lo, 0);
        hi = fmaxf(hi, 0);
        b.scale = (hi - lo) / (float)top;
        b.zero = b.scale != 0 ? (int)roundf(-lo / b.scale) : 0;
    }
    for (int i = 0; i < size; i++) {
        float inverse = b.scale != 0 ? 1.0f / b.scale : 0;
        float q = roundf(v[i] * inverse + (float)b.zero); /* 1 / 1e-40 is infinite */
        b.code[i] = !(q > 0) ? 0 : q < (float)top ? (int)q : top;
    }
    return b;
}

static int nibble(const unsigned char *p, size_t i)
{
    return p[i / 2] >> (i % 2 * 4) & 15;
}

static void compare(const exported *e, const float *w, int size, bool symmetric)
{
    size_t kb = (K + (size_t)size - 1) / (size_t)size, n = 0, zero_bytes = (kb + 1) / 2;
    const unsigned char *codes =
        exported_bytes(e, "model.layers.0.mlp.down_proj.MatMul.weight_Q4", &n);
    CHECK_EQ_INT(n, N * kb * (size_t)size / 2);
    const unsigned char *scales =
        exported_bytes(e, "model.layers.0.mlp.down_proj.MatMul.weight_scales", &n);
    CHECK_EQ_INT(n, N * kb * 4);
    const unsigned char *zeros = NULL;
    if (!symmetric)
        zeros =
            exported_bytes(e, "model.layers.0.mlp.down_proj.MatMul.weight_zero_points", &n);
    CHECK(symmetric || n == N * zero_bytes);
    if (codes == NULL || scales == NULL || (!symmetric && zeros == NULL))
        return;
    size_t wrong = 0;
    for (size_t r = 0; r < N; r++) {
        for (size_t b = 0; b < kb; b++) {
            block want = expect(w + r * K, b * (size_t)size, 4, size, symmetric);
            wrong += memcmp(scales + (r * kb + b) * 4, &want.scale, 4) != 0;
            wrong += zeros != NULL && nibble(zeros + r * zero_bytes, b) != want.zero;
            for (int i = 0; i < size; i++)
                wrong +=
                    nibble(codes, (r * kb + b) * (size_t)size + (size_t)i) != want.code[i];
        }
    }
    CHECK_EQ_INT(wrong, 0);
}

/* Blocks that decide: zeros, one sign, ties of magnitude, halves, tiny and huge values. */
static void plant(float *w)
{
    for (size_t i = 0; i < K; i++) {
        w[0 * K + i] = 0.0f;
        w[1 * K + i] = (float)i * 0.01f + 0.01f;
        w[2 * K + i] = -(float)i * 0.01f - 0.01f;
        w[3 * K + i] = i % 2 ? 1.0f : -1.0f;
        w[4 * K + i] = (float)((int)i % 17 - 8) * 0.5f; /* scale 0.5: halves of a step */
        w[5 * K + i] = ((float)((int)i % 31) - 15.0f) * 0.5f;
        w[6 * K + i] = (float)i * 1e-40f;
        w[7 * K + i] = ((float)((int)i % 3) - 1.0f) * 1e37f;
    }
    w[4 * K] = 8.0f;
    w[8 * K + K - 1] = 9.0f; /* decides the short last block */
}

static void formula(void)
{
    static const int sizes[] = {16, 32, 64, 128, 256};
    fixture f;
    exported e;

    fixture_llama(&f, &arena);
    float *w = fixture_find(&f, name);
    plant(w);
    const char *path = fixture_save(&f, "model", "");
    for (size_t i = 0; i < DR_COUNT(sizes); i++) {
        for (int symmetric = 0; symmetric <= 1; symmetric++) {
            onnx_options o = fixture_options(ONNX_INT4);
            const char *dir = NULL;
            o.block_size = sizes[i];
            o.symmetric = symmetric != 0;
            if (CHECK_OK(fixture_export(&arena, &dir, "int4", path, &o, 2)) &&
                exported_open(&e, &arena, dir)) {
                compare(&e, w, sizes[i], o.symmetric);
                exported_close(&e);
            }
        }
    }
}

/* Floats: a product's weight has rows and columns exchanged, the embedding has not. */
static void floats(void)
{
    onnx_options o = fixture_options(ONNX_FP32);
    const char *dir = NULL;
    size_t n = 0, wrong = 0;
    fixture f;
    exported e;

    fixture_llama(&f, &arena);
    const char *path = fixture_save(&f, "model", "");
    if (!CHECK_OK(fixture_export(&arena, &dir, "fp32", path, &o, 2)) ||
        !exported_open(&e, &arena, dir))
        return;
    const float *w = fixture_find(&f, name),
                *embed = fixture_find(&f, "model.embed_tokens.weight");
    const unsigned char *p =
        exported_bytes(&e, "model.layers.0.mlp.down_proj.MatMul.weight", &n);
    for (size_t k = 0; k < K && p != NULL; k++) {
        for (size_t r = 0; r < N; r++)
            wrong += memcmp(p + (k * N + r) * 4, &w[r * K + k], 4) != 0;
    }
    CHECK_EQ_INT(wrong, 0);
    CHECK_EQ_INT(n, N * K * 4);
    p = exported_bytes(&e, "model.embed_tokens.weight", &n);
    if (CHECK_EQ_INT(n, FIX_V * FIX_D * 4) && p != NULL)
        CHECK_MEM(p, embed, n);
    /* q, k and v side by side: column 32 is the first row of k */
    const float *k_proj = fixture_find(&f, "model.layers.0.self_attn.k_proj.weight");
    p = exported_bytes(&e, "model.layers.0.attn.qkv_proj.MatMul.weight", &n);
    for (size_t k = 0; k < FIX_D && p != NULL; k++)
        CHECK_MEM(p + (k * 64 + 32) * 4, &k_proj[k], 4);
    exported_close(&e);
}

static void not_finite(void)
{
    onnx_options o = fixture_options(ONNX_INT4);
    const float bad[] = {NAN, INFINITY, -INFINITY};
    const char *dir = NULL;
    fixture f;

    for (size_t i = 0; i < DR_COUNT(bad); i++) {
        fixture_llama(&f, &arena);
        fixture_find(&f, name)[3 * K + 71] = bad[i];
        const char *path = fixture_save(&f, "model", "");
        CHECK_STATUS(fixture_export(&arena, &dir, "bad", path, &o, 2), DR_EFORMAT);
        CHECK_TRAIL("down_proj: row 3 has a value that is not finite");
    }
}

int main(void)
{
    formula();
    floats();
    not_finite();
    dr_arena_release(&arena);
    return check_done();
}
