/*
 * rotate_test.c - QuaRot on the tiny model of every family: logits are still those that
 * transformers computed for the original, the stream is another, the head is its own; what
 * a rotation cannot pass is refused by the family's name.
 */
#include "family.h"
#include "quant_fixture.h"

enum { TOKENS_MAX = 16 };
static const double tol_logits = 1e-4; /* as nn/family_decoder_test has it */

static dr_arena arena;
static nn_device *one, *three;

static dr_status rotate(const char *out, const hf_model *m, nn_device *dev, uint64_t seed,
                        bool random, dr_dtype dtype)
{
    const quant_rotate_options o = {seed, random};
    hf_writer *w = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_make_dirs(out));
    DR_TRY(hf_writer_open(&w, out, m, NULL));
    if (dtype != DR_DTYPE_COUNT)
        hf_writer_dtype(w, dtype);
    const quant_site site = {.dev = dev, .in = m, .out = w};
    DR_TRY(quant_rotate(&site, &o));
    DR_TRY(hf_writer_finish(w));
done:
    hf_writer_close(w);
    return st;
}

static hf_model *opened(const char *path)
{
    hf_model *m = NULL;

    CHECK_OK(hf_model_open(&m, path));
    return m;
}

/* [n][V], and the stream behind the last layer, x[n][D]. */
static float *logits_of(const hf_model *m, const int32_t *ids, size_t n, float *x)
{
    float *logits =
        dr_arena_alloc(&arena, n * (size_t)hf_model_config(m)->vocab, sizeof(*logits));
    nn_decoder *d = NULL;

    CHECK_OK(nn_decoder_open(&d, one, m, 0));
    CHECK_OK(nn_decoder_hidden(d, x, ids, 1, n));
    CHECK_OK(nn_head_logits(d, logits, x, n));
    nn_decoder_close(d);
    return logits;
}

static double golden_far(const float *logits, const json_t *golden, size_t vocab)
{
    const json_t *rows = json_object_get(golden, "logits"), *row = NULL, *want = NULL;
    double worst = 0;
    size_t i = 0, k = 0;

    json_array_foreach(rows, i, row)
    {
        json_array_foreach(row, k, want) worst =
            fmax(worst, fabs((double)logits[i * vocab + k] - json_number_value(want)));
    }
    CHECK(json_array_size(rows) > 0);
    return worst;
}

/* Relative distance of two streams. */
static double apart(const float *a, const float *b, size_t n)
{
    double d = 0, s = 0;

    for (size_t i = 0; i < n; i++) {
        d += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        s += (double)a[i] * (double)a[i];
    }
    return sqrt(d / s);
}

static double length(const float *a, size_t n)
{
    double s = 0;

    for (size_t i = 0; i < n; i++)
        s += (double)a[i] * (double)a[i];
    return sqrt(s);
}

/* The values of the first layer are in another basis, too. */
static void check_values(const hf_model *m, const hf_model *made)
{
    const hf_config *c = hf_model_config(m);
    size_t n = hf_slot_out(c, HF_SLOT_QKV), d = (size_t)c->hidden;
    size_t kv = (size_t)c->kv_heads * (size_t)c->head_dim, at = (n - kv) * d;
    const quant_site a = {.dev = one, .in = m}, b = {.dev = one, .in = made};
    float *x = dr_arena_alloc(&arena, n * d, sizeof(*x));
    float *y = dr_arena_alloc(&arena, n * d, sizeof(*y));
    float *norm = dr_arena_alloc(&arena, d, sizeof(*norm));
    double far = 0;

    CHECK_OK(quant_slot_read(&a, 0, HF_SLOT_QKV, x, NULL));
    CHECK_OK(quant_slot_read(&b, 0, HF_SLOT_QKV, y, NULL));
    CHECK_OK(hf_norm_read(m, HF_NORM_ATTN, 0, norm));
    for (size_t i = 0; i < n * d; i++)
        x[i] *= norm[i % d];
    for (size_t r = 0; r < n; r++) { /* R1 keeps the length of each row, R2 mixes v's */
        double was = length(x + r * d, d), is = length(y + r * d, d);
        if (r * d < at)
            CHECK_NEAR(is, was, 1e-5 * was);
        else
            far = fmax(far, fabs(is - was) / was);
    }
    CHECK(far > 0.01);
    for (size_t g = 0; g < (size_t)c->kv_heads; g++) {
        size_t head = at + g * (size_t)c->head_dim * d, len = (size_t)c->head_dim * d;
        CHECK_NEAR(length(y + head, len), length(x + head, len),
                   1e-5 * length(x + head, len));
    }
    CHECK_OK(hf_norm_read(made, HF_NORM_ATTN, 0, norm));
    for (size_t i = 0; i < d; i++)
        CHECK_EQ_INT(norm[i] == 1.0f, 1);
}

static void check_rotated(const char *name, const json_t *golden, const hf_model *m,
                          bool random)
{
    const char *out = dr_arena_printf(&arena, "%s/%s-%d", check_tmp(), name, random);
    size_t d = (size_t)hf_model_config(m)->hidden, n = 0, i = 0;
    const json_t *list = json_object_get(golden, "ids"), *id = NULL;
    float x[TOKENS_MAX * 512], y[TOKENS_MAX * 512];
    int32_t ids[TOKENS_MAX];

    json_array_foreach(list, i, id) ids[n++] = (int32_t)json_integer_value(id);
    DR_BUG_IF(n > TOKENS_MAX || d > 512);
    CHECK_OK(rotate(out, m, one, 0, random, DR_DTYPE_COUNT));
    hf_model *made = opened(out);
    if (made == NULL)
        return;
    (void)logits_of(m, ids, n, x);
    double far =
        golden_far(logits_of(made, ids, n, y), golden, (size_t)hf_model_config(m)->vocab);
    (void)printf("%-18s %s: logits %.1e, stream %.2f\n", name,
                 random ? "random" : "hadamard", far, apart(x, y, n * d));
    CHECK(far < tol_logits);
    CHECK(apart(x, y, n * d) > 0.5);
    CHECK_NEAR(length(y, n * d), length(x, n * d), 1e-4 * length(x, n * d));
    CHECK(hf_head_linear(made) != NULL);
    CHECK(
        json_is_false(json_object_get(hf_model_config_json(made), "tie_word_embeddings")));
    check_values(m, made);
    hf_model_close(made);
}

static void check_refused(const char *name, const hf_model *m)
{
    const char *out = dr_arena_printf(&arena, "%s/%s-no", check_tmp(), name);

    CHECK_STATUS(rotate(out, m, one, 0, false, DR_DTYPE_COUNT), DR_EUNSUPPORTED);
    CHECK_TRAIL(hf_model_config(m)->arch_name);
}

static void one_family(const char *name)
{
    static const char *const refused[] = {"qwen3_moe", "gpt_oss",          "phi2",
                                          "gemma2",    "gemma3",           "stablelm",
                                          "olmo2",     "stablelm_parallel"};
    json_t *golden = family_golden(&arena, name);
    const json_t *config = json_object_get(json_object_get(golden, "configs"), "5");
    hf_model *m = opened(family_model(&arena, name, golden, config, 1));
    bool no = false;

    for (size_t i = 0; i < DR_COUNT(refused); i++)
        no = no || strcmp(refused[i], name) == 0;
    if (m != NULL && no)
        check_refused(name, m);
    else if (m != NULL)
        for (int random = 0; random < 2; random++)
            check_rotated(name, golden, m, random);
    hf_model_close(m);
    json_decref(golden);
}

/* Sizes with a block of 12, and none; fused and separate modules, biases; in bf16, too. */
static void test_sizes(void)
{
    static const fix_shape shapes[] = {
        {.hidden = 48, .inner = 80, .heads = 4, .kv_heads = 2, .layers = 2, .vocab = 67},
        {.phi3 = true,
         .hidden = 52,
         .inner = 60,
         .heads = 2,
         .kv_heads = 1,
         .layers = 2,
         .vocab = 67},
        {.bias = true,
         .hidden = 96,
         .inner = 80,
         .heads = 8,
         .kv_heads = 4,
         .layers = 2,
         .vocab = 67},
    };

    for (size_t i = 0; i < DR_COUNT(shapes); i++) {
        const char *in =
            fix_model(&arena, dr_arena_printf(&arena, "shape%zu", i), &shapes[i]);
        const char *f32 = dr_arena_printf(&arena, "%s-f32", in);
        const char *bf16 = dr_arena_printf(&arena, "%s-bf16", in);
        quant_calib text = fix_ids(&arena, &shapes[i], 4, 24, i);
        hf_model *m = opened(in);
        CHECK_OK(rotate(f32, m, one, 7, false, DR_DTYPE_F32));
        CHECK_OK(rotate(bf16, m, one, 7, false, DR_DTYPE_COUNT));
        double near = fix_divergence(m, f32, &text), far = fix_divergence(m, bf16, &text);
        (void)printf("%d wide: KL %.1e in f32, %.1e in bf16\n", shapes[i].hidden, near,
                     far);
        CHECK(fabs(near) < 1e-9);
        CHECK(far > 1e-7 && far < 1e-3);
        hf_model_close(m);
    }
}

static void same(const char *a, const char *b, bool want)
{
    dr_map x = {0}, y = {0};

    if (CHECK_OK(dr_map_open(&x, dr_path_join(&arena, a, "model.safetensors"))) &&
        CHECK_OK(dr_map_open(&y, dr_path_join(&arena, b, "model.safetensors"))))
        CHECK((x.size == y.size && memcmp(x.data, y.data, x.size) == 0) == want);
    dr_map_close(&x);
    dr_map_close(&y);
}

static void test_threads(void)
{
    static const fix_shape shape = {
        .hidden = 48, .inner = 80, .heads = 4, .kv_heads = 2, .layers = 2, .vocab = 67};
    hf_model *m = opened(fix_model(&arena, "threads", &shape));

    for (int random = 0; random < 2; random++) {
        const char *a = dr_arena_printf(&arena, "%s/t1%d", check_tmp(), random);
        const char *b = dr_arena_printf(&arena, "%s/t3%d", check_tmp(), random);
        const char *c = dr_arena_printf(&arena, "%s/t4%d", check_tmp(), random);
        CHECK_OK(rotate(a, m, one, 0, random, DR_DTYPE_COUNT));
        CHECK_OK(rotate(b, m, three, 0, random, DR_DTYPE_COUNT));
        CHECK_OK(rotate(c, m, three, 1, random, DR_DTYPE_COUNT));
        same(a, b, true);
        same(a, c, false);
    }
    hf_model_close(m);
}

int main(void)
{
    CHECK_OK(nn_device_open(&one, "cpu", 1));
    CHECK_OK(nn_device_open(&three, "cpu", 3));
    for (size_t i = 0; i < DR_COUNT(family_names); i++)
        one_family(family_names[i]);
    test_sizes();
    test_threads();
    nn_device_close(one);
    nn_device_close(three);
    dr_arena_release(&arena);
    return check_done();
}
