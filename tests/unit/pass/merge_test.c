/*
 * merge_test.c - adapters merged into their base: the merged model's logits against PEFT's
 * with the adapter beside it (tools/oracle/adapter_goldens.py), and packed bases against
 * the sum written down here.
 */
#include "core/mem.h"
#include "nn/nn.h"
#include "st_golden.h"

#define GOLDEN DRUPE_SOURCE_DIR "/tests/golden/"

static dr_arena arena;

/* The merged model in a folder of its own. */
static const char *merge(const hf_model *m, const hf_adapter *ad, int threads)
{
    const char *dir = dr_arena_printf(&arena, "%s/merged-%d", check_tmp(), threads);
    hf_writer *w = NULL;
    dr_pool *pool = NULL;

    CHECK_OK(dr_remove_tree(dir));
    CHECK_OK(dr_pool_open(&pool, threads));
    CHECK_OK(hf_writer_open(&w, dir, m, NULL));
    CHECK_OK(hf_merge_adapter(w, ad, m, pool));
    CHECK_OK(hf_writer_finish(w));
    hf_writer_close(w);
    dr_pool_close(pool);
    return dir;
}

/* Greatest distance of the logits from expected[n][V], over the greatest of those. */
static double far(const char *dir, const int32_t *ids, size_t n, const float *expected)
{
    nn_device *dev = NULL;
    nn_decoder *d = NULL;
    hf_model *m = NULL;
    double worst = 0, largest = 0;

    CHECK_OK(hf_model_open(&m, dir));
    CHECK_OK(nn_device_open(&dev, "ref", 1));
    CHECK_OK(nn_decoder_open(&d, dev, m, 0));
    size_t vocab = (size_t)hf_model_config(m)->vocab;
    float *x = dr_arena_alloc(&arena, n * (size_t)hf_model_config(m)->hidden, sizeof(*x));
    float *logits = dr_arena_alloc(&arena, n * vocab, sizeof(*logits));
    CHECK_OK(nn_decoder_hidden(d, x, ids, 1, n));
    CHECK_OK(nn_head_logits(d, logits, x, n));
    for (size_t i = 0; i < n * vocab; i++) {
        worst = fmax(worst, fabs((double)logits[i] - (double)expected[i]));
        largest = fmax(largest, fabs((double)expected[i]));
    }
    nn_decoder_close(d);
    nn_device_close(dev);
    hf_model_close(m);
    return worst / largest;
}

static void check_same(const char *a, const char *b)
{
    dr_map x = {0}, y = {0};

    if (CHECK_OK(dr_map_open(&x, a)) && CHECK_OK(dr_map_open(&y, b)) &&
        CHECK_EQ_INT(x.size, y.size))
        CHECK_MEM(x.data, y.data, x.size);
    dr_map_close(&x);
    dr_map_close(&y);
}

static void test_peft(const char *name, const char *family)
{
    const char *from = dr_arena_printf(&arena, GOLDEN "adapters/%s", name);
    const char *base = dr_arena_printf(&arena, GOLDEN "tiny/%s", family);
    dr_tensor ids, logits;
    hf_adapter ad = {0};
    hf_model *m = NULL;
    st_golden g;

    if (!st_golden_open(&g, dr_path_join(&arena, from, "expected.safetensors")) ||
        !CHECK(st_golden_find(&g, "input_ids", &ids) || st_golden_find(&g, "ids", &ids)) ||
        !CHECK(st_golden_find(&g, "logits", &logits)) ||
        !CHECK_OK(hf_model_open(&m, base)) || !CHECK_OK(hf_adapter_open(&ad, from, m)))
        return;
    size_t n = ids.bytes / sizeof(int32_t);
    const char *one = merge(m, &ad, 1), *three = merge(m, &ad, 3);
    CHECK_NEAR(far(one, ids.data, n, logits.data), 0, 1e-5);
    CHECK(far(base, ids.data, n, logits.data) > 1e-2); /* without it: something else */
    check_same(dr_path_join(&arena, one, "model.safetensors"),
               dr_path_join(&arena, three, "model.safetensors"));
    hf_adapter_release(&ad);
    hf_model_close(m);
    st_golden_close(&g);
}

/* ---- a packed base ---- */

enum { R = 3 };

static float value(size_t i)
{
    return (float)((double)((i * 2654435761u) % 1000) / 1000 - 0.5);
}

static hf_lora_module module_for(const hf_linear *l)
{
    float *a = dr_arena_alloc(&arena, R * l->n_in, sizeof(*a));
    float *b = dr_arena_alloc(&arena, R * l->n_out, sizeof(*b));

    for (size_t i = 0; i < R * l->n_in; i++)
        a[i] = value(i);
    for (size_t i = 0; i < R * l->n_out; i++)
        b[i] = value(i + 7);
    return (hf_lora_module){.module = l->path,
                            .r = R,
                            .scale = 0.75f,
                            .n_in = l->n_in,
                            .n_out = l->n_out,
                            .a = a,
                            .b = b};
}

static double worst_row(const hf_model *made, const hf_model *m, const hf_linear *l,
                        const hf_lora_module *mod)
{
    const hf_linear *after = NULL;
    size_t n = hf_layer_linears(made, l->layer, &after), count = l->n_out * l->n_in;
    float *w = dr_arena_alloc(&arena, count, sizeof(*w));
    float *got = dr_arena_alloc(&arena, count, sizeof(*got));
    double worst = 0;

    for (size_t i = 0; i < n; i++) {
        if (strcmp(after[i].path, l->path) == 0) {
            CHECK(!after[i].packed);
            CHECK_OK(hf_linear_read(made, &after[i], got, 0, l->n_out));
        }
    }
    CHECK_OK(hf_linear_read(m, l, w, 0, l->n_out));
    for (size_t i = 0; i < count; i++) {
        size_t row = i / l->n_in, col = i % l->n_in;
        double want = (double)w[i];
        for (size_t j = 0; j < R && mod != NULL; j++)
            want += 0.75 * (double)mod->b[row * R + j] * (double)mod->a[j * l->n_in + col];
        worst = fmax(worst, fabs((double)got[i] - want) / (fabs(want) + 0.1));
    }
    return worst;
}

/* Two modules of layer 0 merged, the others dequantized, in the config's type. */
static void test_packed(const char *name)
{
    hf_model *m = NULL, *made = NULL;
    const hf_linear *l = NULL;

    if (!CHECK_OK(hf_model_open(&m, dr_arena_printf(&arena, GOLDEN "hf/%s", name))))
        return;
    CHECK(hf_model_quant(m).method != HF_QUANT_NONE);
    size_t n = hf_layer_linears(m, 0, &l);
    char path[] = "two";
    hf_lora_module modules[2] = {module_for(&l[0]), module_for(&l[n - 1])};
    const hf_adapter ad = {.path = path, .r = R, .modules = modules, .count = 2};
    if (CHECK_OK(hf_model_open(&made, merge(m, &ad, 2)))) {
        double tol = hf_model_config(m)->dtype == DR_DTYPE_BF16  ? 4e-3
                     : hf_model_config(m)->dtype == DR_DTYPE_F16 ? 5e-4
                                                                 : 1e-6;
        CHECK(hf_model_quant(made).method == HF_QUANT_NONE);
        CHECK_NEAR(worst_row(made, m, &l[0], &modules[0]), 0, tol);
        CHECK_NEAR(worst_row(made, m, &l[n - 1], &modules[1]), 0, tol);
        CHECK_NEAR(worst_row(made, m, &l[1], NULL), 0, tol);
    }
    hf_model_close(made);
    hf_model_close(m);
}

static void test_dead_row(void)
{
    const float a[2] = {0, 0}, b[1] = {1}, magnitude[1] = {2};
    const hf_lora_module mod = {.module = "m",
                                .r = 1,
                                .scale = 1,
                                .n_in = 2,
                                .n_out = 1,
                                .a = a,
                                .b = b,
                                .magnitude = magnitude,
                                .magnitude_count = 1};
    float w[2] = {0, 0}, v[2] = {3, 4};

    CHECK_STATUS(hf_merge_rows(w, &mod, 0, 1), DR_EFORMAT);
    CHECK_OK(hf_merge_rows(v, &mod, 0, 1));
    CHECK_NEAR((double)v[0], 1.2, 1e-6);
    CHECK_NEAR((double)v[1], 1.6, 1e-6);
}

int main(void)
{
    test_peft("lora", "llama");
    test_peft("patterns", "llama");
    test_peft("dora", "llama");
    test_peft("dora_phi3", "phi3");
    test_peft("dora_qwen2", "qwen2");
    test_packed("awq");
    test_packed("gptq");
    test_packed("olive");
    test_dead_row();
    dr_arena_release(&arena);
    return check_done();
}
