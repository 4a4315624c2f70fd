/* adapter_test.c - LoRA adapters: made by peft, written and read again, refused. */
#include "make_model.h"

static dr_arena arena;

static void test_golden(void)
{
    hf_adapter ad = {0};
    hf_model *m = NULL;
    json_t *scales = NULL;

    if (!CHECK_OK(hf_model_open(&m, GOLDEN "llama")) ||
        !CHECK_OK(hf_adapter_open(&ad, GOLDEN "adapter", m)) ||
        !CHECK_OK(dr_json_read(&scales, GOLDEN "adapter_scales.json")))
        return;
    CHECK_EQ_INT(ad.r, 4);
    CHECK_NEAR(ad.alpha, 6, 0);
    CHECK_NEAR(ad.dropout, 0.05, 1e-12);
    CHECK(ad.rslora);
    CHECK_EQ_INT(ad.count, json_object_size(scales));
    for (size_t i = 0; i < ad.count; i++) {
        const hf_lora_module *mod = &ad.modules[i];
        const json_t *s = json_object_get(scales, mod->module);
        CHECK(s != NULL);
        CHECK_NEAR((double)mod->scale, json_number_value(s), 1e-6);
        CHECK_EQ_INT(mod->r, strstr(mod->module, "down_proj")                   ? 2
                             : strstr(mod->module, "layers.0.self_attn.q_proj") ? 3
                                                                                : 4);
        CHECK(mod->a[0] != 0 && mod->b[0] != 0);
    }
    /* in order of layer, then of its linears */
    CHECK_STR(ad.modules[0].module, "model.layers.0.self_attn.q_proj");
    CHECK_STR(ad.modules[1].module, "model.layers.0.self_attn.v_proj");
    CHECK_STR(ad.modules[2].module, "model.layers.0.mlp.down_proj");
    CHECK_STR(ad.modules[5].module, "model.layers.1.mlp.down_proj");
    json_decref(scales);
    hf_adapter_release(&ad);
    hf_model_close(m);
}

static bool same_adapter(const hf_adapter *a, const hf_adapter *b)
{
    bool same = CHECK_EQ_INT(a->count, b->count) && CHECK_EQ_INT(a->r, b->r) &&
                CHECK(a->alpha == b->alpha && a->dropout == b->dropout) &&
                CHECK(a->rslora == b->rslora);

    for (size_t i = 0; same && i < a->count; i++) {
        const hf_lora_module *x = &a->modules[i], *y = &b->modules[i];
        size_t r = (size_t)x->r;
        same = CHECK_STR(x->module, y->module) && CHECK_EQ_INT(x->r, y->r) &&
               CHECK_NEAR((double)x->scale, (double)y->scale, 1e-6) &&
               CHECK_EQ_INT(x->n_in, y->n_in) && CHECK_EQ_INT(x->n_out, y->n_out) &&
               CHECK_MEM(x->a, y->a, r * x->n_in * sizeof(float)) &&
               CHECK_MEM(x->b, y->b, r * x->n_out * sizeof(float));
    }
    return same;
}

static void test_round_trip(void)
{
    static const char *const targets[] = {"q_proj", "v_proj", "down_proj"};
    const char *dir = dr_path_join(&arena, check_tmp(), "deep/adapter");
    hf_adapter ad = {0}, back = {0};
    json_t *o = NULL;

    if (!CHECK_OK(hf_adapter_open(&ad, GOLDEN "adapter", NULL)))
        return;
    CHECK_OK(hf_adapter_write(&ad, dir, "org/base", targets, DR_COUNT(targets)));
    CHECK_OK(hf_adapter_open(&back, dir, NULL));
    CHECK(same_adapter(&back, &ad));
    hf_adapter_release(&back);

    CHECK_OK(dr_json_read(&o, dr_path_join(&arena, dir, "adapter_config.json")));
    CHECK_STR(json_string_value(json_object_get(o, "base_model_name_or_path")), "org/base");
    CHECK_EQ_INT(json_array_size(json_object_get(o, "target_modules")), 3);
    CHECK(json_is_integer(json_object_get(o, "lora_alpha")));
    CHECK_EQ_INT(json_object_size(json_object_get(o, "rank_pattern")), 3);
    json_decref(o);
    hf_adapter_release(&ad);
}

/* ---- refused ---- */

static const char good[] = "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 4";

/* An adapter of one module, with this config and these tensor names and shapes. */
static const char *adapter_with(const char *config, const char *a_name, const char *b_name,
                                int64_t r_a, int64_t r_b)
{
    static const float zeros[64];
    const char *dir = tmp_dir(&arena, "adapter");
    dr_tensor t[2] = {
        {.name = a_name,
         .dtype = DR_DTYPE_F32,
         .ndim = 2,
         .dims = {r_a, 16},
         .data = zeros},
        {.name = b_name, .dtype = DR_DTYPE_F32, .ndim = 2, .dims = {8, r_b}, .data = zeros},
    };

    t[0].bytes = (size_t)r_a * 64;
    t[1].bytes = (size_t)r_b * 32;
    put_text(&arena, dir, "adapter_config.json", config);
    CHECK_OK(hf_st_write(dr_path_join(&arena, dir, "adapter_model.safetensors"), t,
                         b_name != NULL ? 2 : 1));
    return dir;
}

static void check_refused(const char *dir, const hf_model *m, dr_status st,
                          const char *text)
{
    hf_adapter ad = {0};

    if (!CHECK_STATUS(hf_adapter_open(&ad, dir, m), st) || !CHECK_TRAIL(text))
        (void)printf("  wanted: %s\n", text);
    hf_adapter_release(&ad);
}

#define Q "base_model.model.model.layers.0.self_attn.k_proj."

static void test_configs(void)
{
    static const struct {
        const char *more;
        dr_status st;
        const char *text;
    } cases[] = {
        {", \"use_dora\": true", DR_EFORMAT, "has no lora_magnitude_vector"},
        {", \"peft_type\": \"LOHA\"", DR_EUNSUPPORTED, "LOHA"},
        {", \"peft_type\": null", DR_EFORMAT, "peft_type is missing"},
        {", \"bias\": \"all\"", DR_EUNSUPPORTED, "bias all"},
        {", \"modules_to_save\": [\"lm_head\"]", DR_EUNSUPPORTED, "modules_to_save"},
        {", \"lora_bias\": true", DR_EUNSUPPORTED, "lora_bias"},
        {", \"layer_replication\": [[0, 1]]", DR_EUNSUPPORTED, "layer_replication"},
        {", \"init_lora_weights\": \"pissa_niter_4\"", DR_EUNSUPPORTED, "pissa_niter_4"},
        {", \"r\": 0", DR_EFORMAT, "r: 0"},
        {", \"r\": 3", DR_EFORMAT, "3 here, 2 in its tensors"},
        {", \"r\": \"x\"", DR_EFORMAT, "r: expected an integer"},
        {", \"lora_dropout\": 2", DR_EFORMAT, "out of range"},
        {", \"rank_pattern\": {\"k_proj\": 5}", DR_EFORMAT, "5 here"},
        {", \"alpha_pattern\": {\"k_proj\": \"a\"}", DR_EFORMAT,
         "k_proj: expected a number"},
        {", \"alpha_pattern\": {\"(\": 1}", DR_EFORMAT, "no regular expression"},
        {", \"use_qalora\": true", DR_EUNSUPPORTED, "QALoRA"},
    };

    for (size_t i = 0; i < DR_COUNT(cases); i++)
        check_refused(adapter_with(dr_arena_printf(&arena, "%s%s}", good, cases[i].more),
                                   Q "lora_A.weight", Q "lora_B.weight", 2, 2),
                      NULL, cases[i].st, cases[i].text);
}

static void test_tensors(void)
{
    const char *config = dr_arena_printf(&arena, "%s}", good);
    hf_model *m = NULL;

    check_refused(adapter_with(config, Q "lora_A.weight", Q "lora_B.weight", 2, 3), NULL,
                  DR_EFORMAT, "rank 3, the other half has 2");
    check_refused(adapter_with(config, Q "lora_A.weight", NULL, 2, 2), NULL, DR_EFORMAT,
                  "has no lora_B");
    check_refused(adapter_with(config, Q "lora_A.weight", Q "lora_magnitude_vector", 2, 2),
                  NULL, DR_EFORMAT, "expected a list of numbers, found 2 dimensions");
    check_refused(adapter_with(config, Q "lora_embedding_A", Q "lora_B.weight", 2, 2), NULL,
                  DR_EUNSUPPORTED, "embeddings");
    check_refused(adapter_with(config, Q "lora_A.weight", "k_proj.lora_B.weight", 2, 2),
                  NULL, DR_EUNSUPPORTED, "neither lora_A.weight");
    if (!CHECK_OK(hf_model_open(&m, GOLDEN "llama")))
        return;
    check_refused(adapter_with(config, "base_model.model.model.x.lora_A.weight",
                               "base_model.model.model.x.lora_B.weight", 2, 2),
                  m, DR_EFORMAT, "model.x is no linear of");
    CHECK_TRAIL("another model");
    check_refused(adapter_with(config, "base_model.model.lm_head.lora_A.weight",
                               "base_model.model.lm_head.lora_B.weight", 2, 2),
                  m, DR_EFORMAT, "lm_head: made for [8, 16], the model has [24, 16]");
    hf_adapter ad = {0};
    CHECK_OK(hf_adapter_open(
        &ad, adapter_with(config, Q "lora_A.weight", Q "lora_B.weight", 2, 2), m));
    CHECK_EQ_INT(ad.count, 1);
    CHECK(ad.modules[0].scale == 2);
    hf_adapter_release(&ad);
    hf_model_close(m);
}

/* A DoRA adapter of one module with so many magnitudes, its config saying so or not. */
static const char *dora_with(int64_t magnitudes, bool said)
{
    static const float ones[64] = {1, 1, 1};
    const char *dir = tmp_dir(&arena, "dora");
    const dr_tensor t[3] = {{Q "lora_A.weight", DR_DTYPE_F32, 2, {2, 16}, ones, 128},
                            {Q "lora_B.weight", DR_DTYPE_F32, 2, {8, 2}, ones, 64},
                            {Q "lora_magnitude_vector",
                             DR_DTYPE_F32,
                             1,
                             {magnitudes},
                             ones,
                             (size_t)magnitudes * 4}};

    put_text(
        &arena, dir, "adapter_config.json",
        dr_arena_printf(&arena, "%s, \"use_dora\": %s}", good, said ? "true" : "false"));
    CHECK_OK(hf_st_write(dr_path_join(&arena, dir, "adapter_model.safetensors"), t, 3));
    return dir;
}

static void test_dora(void)
{
    const char *dir = tmp_dir(&arena, "again");
    static const char *const targets[] = {"k_proj"};
    hf_adapter ad = {0}, back = {0};

    check_refused(dora_with(7, true), NULL, DR_EFORMAT, "7 magnitudes for 8 outputs");
    check_refused(dora_with(8, false), NULL, DR_EFORMAT, "(DoRA), use_dora is not true");
    if (!CHECK_OK(hf_adapter_open(&ad, dora_with(8, true), NULL)))
        return;
    CHECK(ad.dora && ad.modules[0].magnitude != NULL && ad.modules[0].factor == NULL);
    CHECK_OK(hf_adapter_write(&ad, dir, "org/base", targets, 1));
    if (CHECK_OK(hf_adapter_open(&back, dir, NULL))) {
        CHECK(back.dora);
        CHECK_MEM(back.modules[0].magnitude, ad.modules[0].magnitude, 8 * sizeof(float));
    }
    hf_adapter_release(&back);
    hf_adapter_release(&ad);
}

static void test_files(void)
{
    const char *dir = tmp_dir(&arena, "files");

    check_refused(dir, NULL, DR_EIO, "adapter_config.json");
    put_text(&arena, dir, "adapter_config.json", "[1]");
    check_refused(dir, NULL, DR_EFORMAT, "expected an object");
    put_text(&arena, dir, "adapter_config.json", dr_arena_printf(&arena, "%s}", good));
    check_refused(dir, NULL, DR_EIO, "adapter_model.safetensors");
    put_text(&arena, dir, "adapter_model.bin", "PK");
    check_refused(dir, NULL, DR_EFORMAT, "adapter_model.bin: not a file of torch.save");
}

int main(void)
{
    test_golden();
    test_round_trip();
    test_configs();
    test_tensors();
    test_dora();
    test_files();
    dr_arena_release(&arena);
    return check_done();
}
