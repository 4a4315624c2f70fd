/*
 * family_config_test.c - what config.json says of each family, layer by layer; norms as
 * they are used, whatever the file holds; and what is refused.
 */
#include "check.h"
#include "family.h"

static dr_arena arena;

/* A family's config "5" with `change` (an object) merged in; closed by the caller. */
static dr_status open_changed(hf_model **out, const char *name, const char *change)
{
    static int count;
    json_t *golden = family_golden(&arena, name), *o = NULL;
    json_t *config =
        json_deep_copy(json_object_get(json_object_get(golden, "configs"), "5"));
    const char *dir = dr_arena_printf(&arena, "%s-%d", name, count++);
    dr_status st = DR_OK;

    *out = NULL;
    DR_TRY(dr_json_parse(&o, change, strlen(change), "change"));
    (void)json_object_update(config, o);
    DR_TRY(hf_model_open(out, family_model(&arena, dir, golden, config, 1)));
done:
    json_decref(o);
    json_decref(config);
    json_decref(golden);
    return st;
}

/* [window or 0, rope: g(lobal), l(ocal), - none] of each layer. */
static void check_layers(const char *name, const char *change, const char *want)
{
    char got[256] = "";
    hf_model *m = NULL;
    size_t n = 0;

    if (!CHECK_OK(open_changed(&m, name, change)))
        return;
    const hf_config *c = hf_model_config(m);
    for (int i = 0; i < c->layers; i++) {
        const hf_rope *r = hf_layer_rope(c, i);
        n += (size_t)snprintf(got + n, sizeof(got) - n, "%d%c ", (int)hf_layer_window(c, i),
                              r == NULL       ? '-'
                              : r == &c->rope ? 'g'
                                              : 'l');
    }
    if (!CHECK_STR(got, want))
        (void)printf("  %s with %s\n", name, change);
    hf_model_close(m);
}

static void test_layers(void)
{
    check_layers("gemma3", "{}", "6l 6l 0g ");
    check_layers("gemma3", "{\"sliding_window\": 64}", "0l 0l 0g "); /* of the context */
    check_layers("gemma3", "{\"layer_types\": null}", "6l 6l 0g ");
    check_layers("gemma3", "{\"layer_types\": null, \"sliding_window_pattern\": 2}",
                 "6l 0g 6l ");
    check_layers("gemma3", "{\"sliding_window\": null}", "0l 0l 0g ");
    check_layers("gemma2", "{}", "6g 0g 6g ");
    check_layers("gemma2", "{\"layer_types\": null, \"sliding_window\": 5}", "5g 0g 5g ");
    check_layers("gemma", "{\"sliding_window\": 6}", "0g 0g ");
    check_layers("smollm3", "{}", "0g 0- 0g ");
    check_layers("smollm3", "{\"no_rope_layers\": null, \"no_rope_layer_interval\": 3}",
                 "0g 0g 0- ");
    check_layers("smollm3_window", "{}", "6- 0g 6- ");
    check_layers("smollm3_window", "{\"layer_types\": null}", "6- 0g 6- ");
    check_layers("smollm3_window", "{\"use_sliding_window\": false}", "0- 0g 0- ");
    check_layers("mistral", "{}", "6g 6g ");
    check_layers("mistral", "{\"sliding_window\": null}", "0g 0g ");
    check_layers("qwen2", "{}", "0g 6g ");
    check_layers("qwen2", "{\"layer_types\": null, \"max_window_layers\": 0}", "6g 6g ");
    check_layers("qwen3", "{}", "0g 0g ");
    check_layers("phi3", "{}", "6g 6g ");
}

static void test_mistral_default(void)
{
    json_t *golden = family_golden(&arena, "mistral");
    json_t *config =
        json_deep_copy(json_object_get(json_object_get(golden, "configs"), "5"));
    hf_model *m = NULL;

    json_object_del(config, "sliding_window");
    json_object_del(config, "max_position_embeddings");
    if (CHECK_OK(hf_model_open(&m, family_model(&arena, "mistral-x", golden, config, 1)))) {
        CHECK_EQ_INT(hf_layer_window(hf_model_config(m), 1), 4096);
        CHECK_EQ_INT(hf_model_config(m)->max_position, 131072);
    }
    hf_model_close(m);
    json_decref(config);
    json_decref(golden);
}

static void test_numbers(void)
{
    static const struct {
        const char *name, *change;
        double embed, residual, attn, logit, attn_cap, logit_cap;
    } rows[] = {
        {"llama3", "{}", 1, 1, 0.17677669529663687, 1, 0, 0},
        /* sqrt(32) in the file's type */
        {"gemma", "{}", 5.656854152679443, 1, 0.25, 1, 0, 0},
        {"gemma", "{\"dtype\": \"bfloat16\"}", 5.65625, 1, 0.25, 1, 0, 0},
        {"gemma", "{\"dtype\": \"float16\"}", 5.65625, 1, 0.25, 1, 0, 0},
        {"gemma2", "{}", 5.656854152679443, 1, 0.35355339059327373, 1, 3, 4},
        {"gemma2", "{\"attn_logit_softcapping\": null}", 5.656854152679443, 1,
         0.35355339059327373, 1, 0, 4},
        {"granite", "{}", 3, 0.4, 0.4, 0.4, 0, 0},
    };

    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        hf_model *m = NULL;
        if (!CHECK_OK(open_changed(&m, rows[i].name, rows[i].change)))
            continue;
        const hf_config *c = hf_model_config(m);
        CHECK_NEAR(c->embed_scale, rows[i].embed, 1e-15);
        CHECK_NEAR(c->residual_scale, rows[i].residual, 1e-15);
        CHECK_NEAR(c->attn_scale, rows[i].attn, 1e-15);
        CHECK_NEAR(c->logit_scale, rows[i].logit, 1e-15);
        CHECK_NEAR(c->attn_softcap, rows[i].attn_cap, 0);
        CHECK_NEAR(c->logit_softcap, rows[i].logit_cap, 0);
        hf_model_close(m);
    }
}

/* dynamic scaling begins behind max_position_embeddings, which is where contexts end. */
static void test_ropes(void)
{
    static const struct {
        const char *name, *change;
        hf_rope_kind kind;
        double factor, low, high;
    } rows[] = {
        {"llama2", "{\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 4.0}}",
         HF_ROPE_DEFAULT, 1, 0, 0},
        /* by hand: 16 log(16 / (turns 2 pi)) / log(100), turns 4 and 1, rounded outwards */
        {"llama_yarn", "{}", HF_ROPE_YARN, 4, 0, 4},
        {"llama_yarn",
         "{\"rope_parameters\": null, \"rope_theta\": 100.0, \"rope_scaling\": "
         "{\"type\": \"yarn\", \"original_max_position_embeddings\": 32, \"truncate\": "
         "false, \"beta_fast\": 1, \"beta_slow\": 1}}",
         HF_ROPE_YARN, 2, 5.655760880, 5.656760880},
        {"gemma3", "{}", HF_ROPE_LINEAR, 2, 0, 0},
    };

    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        hf_model *m = NULL;
        if (CHECK_OK(open_changed(&m, rows[i].name, rows[i].change))) {
            const hf_rope *r = &hf_model_config(m)->rope;
            CHECK_EQ_INT(r->kind, rows[i].kind);
            CHECK_NEAR(r->factor, rows[i].factor, 0);
            CHECK_NEAR(r->ramp_low, rows[i].low, 1e-6);
            CHECK_NEAR(r->ramp_high, rows[i].high, 1e-6);
        }
        hf_model_close(m);
    }
}

static void test_act(void)
{
    static const struct {
        const char *name, *change;
        hf_act act;
    } rows[] = {
        {"gemma", "{\"hidden_act\": \"gelu\"}", HF_ACT_GELU_TANH},
        {"gemma", "{\"hidden_act\": \"gelu\", \"hidden_activation\": null}",
         HF_ACT_GELU_TANH},
        {"gemma", "{\"hidden_act\": null}", HF_ACT_GELU_TANH},
        {"llama2", "{\"hidden_act\": \"gelu\"}", HF_ACT_GELU},
        {"phi2", "{}", HF_ACT_GELU_TANH},
        {"gemma3", "{\"hidden_act\": \"silu\"}", HF_ACT_GELU_TANH}, /* not its key */
    };

    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        hf_model *m = NULL;
        if (CHECK_OK(open_changed(&m, rows[i].name, rows[i].change)))
            CHECK_EQ_INT(hf_model_config(m)->act, rows[i].act);
        hf_model_close(m);
    }
}

/* Which norms are there, and that a folder's are read as they are used. */
static void test_norms(void)
{
    static const struct {
        const char *name, *exist; /* in order of hf_norm */
    } rows[] = {
        {"llama2", "a.m...f"},   {"gemma2", "aAmM..f"},
        {"gemma3", "aAmMqkf"},   {"olmo2", ".A.Mqkf"},
        {"qwen3", "a.m.qkf"},    {"phi2", "a.....f"},
        {"stablelm", "a.m...f"}, {"stablelm_parallel", "a.....f"},
    };

    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        char got[HF_NORM_COUNT + 1] = "aAmMqkf";
        hf_model *m = NULL;
        if (!CHECK_OK(open_changed(&m, rows[i].name, "{}")))
            continue;
        for (int k = 0; k < HF_NORM_COUNT; k++)
            got[k] = hf_norm_exists(hf_model_config(m), (hf_norm)k) ? got[k] : '.';
        CHECK_STR(got, rows[i].exist);
        hf_model_close(m);
    }
}

static void test_norm_values(void)
{
    static const char q_norm[] = "model.layers.1.self_attn.q_norm.weight";
    hf_model *m = NULL;
    float v[256], bias[256];

    if (CHECK_OK(open_changed(&m, "gemma3", "{}"))) {
        const float *stored = hf_tensor_find(m, q_norm)->data;
        CHECK_EQ_INT(hf_norm_size(hf_model_config(m), HF_NORM_Q), 16);
        CHECK_OK(hf_norm_read(m, HF_NORM_Q, 1, v));
        CHECK_NEAR((double)v[3], (double)(1.0f + stored[3]), 0);
        CHECK_OK(hf_norm_bias_read(m, HF_NORM_Q, 1, bias));
        CHECK_NEAR((double)bias[3], 0, 0);
    }
    hf_model_close(m);
    if (CHECK_OK(open_changed(&m, "olmo2", "{}"))) {
        CHECK_EQ_INT(hf_norm_size(hf_model_config(m), HF_NORM_Q), 64);
        CHECK_EQ_INT(hf_norm_size(hf_model_config(m), HF_NORM_K), 32);
        CHECK_NEAR((double)hf_norm_offset(hf_model_config(m)), 0, 0);
    }
    hf_model_close(m);
    if (CHECK_OK(open_changed(&m, "phi2", "{}"))) {
        const float *stored = hf_tensor_find(m, "model.final_layernorm.bias")->data;
        const float *head = hf_tensor_find(m, "lm_head.bias")->data;
        CHECK_OK(hf_norm_bias_read(m, HF_NORM_FINAL, 0, bias));
        CHECK_MEM(bias, stored, 64 * sizeof(float));
        CHECK_OK(hf_head_bias(m, bias));
        CHECK_MEM(bias, head, 40 * sizeof(float));
        CHECK_EQ_INT(hf_slot_out(hf_model_config(m), HF_SLOT_GATE_UP), 48);
    }
    hf_model_close(m);
}

/* What a writer is given comes back, though the file holds it less 1. */
static void test_writer(void)
{
    const char *dir = dr_path_join(&arena, check_tmp(), "written");
    hf_writer *w = NULL;
    hf_model *m = NULL, *back = NULL;
    float v[16], is[16];

    if (!CHECK_OK(open_changed(&m, "gemma3", "{}")))
        return;
    for (int i = 0; i < 16; i++)
        v[i] = 0.25f * (float)i;
    CHECK_OK(hf_writer_open(&w, dir, m, NULL));
    CHECK_OK(hf_writer_norm(w, HF_NORM_K, 2, v));
    CHECK_STATUS(hf_writer_norm(w, HF_NORM_K, 2, v), DR_EUSAGE);
    CHECK_OK(hf_writer_finish(w));
    hf_writer_close(w);
    if (CHECK_OK(hf_model_open(&back, dir))) {
        const dr_tensor *t = hf_tensor_find(back, "model.layers.2.self_attn.k_norm.weight");
        CHECK_OK(hf_norm_read(back, HF_NORM_K, 2, is));
        CHECK_MEM(is, v, sizeof(v));
        CHECK_NEAR((double)((const float *)t->data)[0], -1, 0);
        CHECK_OK(hf_norm_read(m, HF_NORM_Q, 2, v));
        CHECK_OK(hf_norm_read(back, HF_NORM_Q, 2, is));
        CHECK_MEM(is, v, sizeof(v));
    }
    hf_model_close(back);
    hf_model_close(m);
}

static void test_layer_norm_writer(void)
{
    const char *dir = dr_path_join(&arena, check_tmp(), "written-ln");
    hf_writer *w = NULL;
    hf_model *m = NULL, *back = NULL;
    float v[64], is[64];

    if (!CHECK_OK(open_changed(&m, "phi2", "{}")))
        return;
    for (int i = 0; i < 64; i++)
        v[i] = (float)i;
    CHECK_OK(hf_writer_open(&w, dir, m, NULL));
    CHECK_OK(hf_writer_norm_bias(w, HF_NORM_ATTN, 0, v));
    CHECK_OK(hf_writer_finish(w));
    hf_writer_close(w);
    if (CHECK_OK(hf_model_open(&back, dir))) {
        CHECK_OK(hf_norm_bias_read(back, HF_NORM_ATTN, 0, is));
        CHECK_MEM(is, v, sizeof(v));
        CHECK_OK(hf_head_bias(m, v));
        CHECK_OK(hf_head_bias(back, is));
        CHECK_MEM(is, v, 40 * sizeof(float));
    }
    hf_model_close(back);
    hf_model_close(m);
}

static void test_refused(void)
{
    static const struct {
        const char *name, *change;
        dr_status st;
        const char *text;
    } rows[] = {
        {"stablelm", "{\"qk_layernorm\": true}", DR_EUNSUPPORTED,
         "qk_layernorm: true is not supported for StableLmForCausalLM"},
        {"phi2", "{\"qk_layernorm\": true}", DR_EUNSUPPORTED, "qk_layernorm: true"},
        {"gemma3", "{\"use_bidirectional_attention\": true}", DR_EUNSUPPORTED,
         "use_bidirectional_attention"},
        {"gemma3", "{\"query_pre_attn_scalar\": 0}", DR_EFORMAT,
         "query_pre_attn_scalar: 0"},
        {"gemma2", "{\"final_logit_softcapping\": -30.0}", DR_EFORMAT,
         "final_logit_softcapping: -30"},
        {"gemma3", "{\"layer_types\": [\"full_attention\"]}", DR_EFORMAT,
         "layer_types: expected 3 names, found 1"},
        {"gemma3",
         "{\"layer_types\": [\"full_attention\", \"recurrent\", \"full_attention\"]}",
         DR_EUNSUPPORTED, "recurrent of layer 1"},
        {"gemma3", "{\"layer_types\": null, \"sliding_window_pattern\": 0}", DR_EFORMAT,
         "sliding_window_pattern: 0"},
        {"gemma3", "{\"rope_parameters\": {\"sliding_attention\": 7}}", DR_EFORMAT,
         "rope_parameters: sliding_attention: expected an object"},
        {"gemma3", "{\"rope_parameters\": null, \"rope_local_base_freq\": 0.0}", DR_EFORMAT,
         "rope_local_base_freq: 0"},
        {"llama2",
         "{\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"default\"}}}",
         DR_EUNSUPPORTED, "parameters per layer type are not supported for Llama"},
        {"smollm3", "{\"no_rope_layers\": [1]}", DR_EFORMAT, "no_rope_layers: expected 3"},
        {"smollm3", "{\"no_rope_layers\": [1, \"x\", 0]}", DR_EFORMAT,
         "no_rope_layers: expected 0 or 1"},
        {"granite", "{\"logits_scaling\": 0}", DR_EFORMAT, "logits_scaling: 0"},
        {"phi2", "{\"layer_norm_eps\": 2.0}", DR_EFORMAT, "layer_norm_eps: 2"},
        {"qwen3", "{\"head_dim\": 16}", DR_EFORMAT, "q_proj.weight: expected [64"},
        {"olmo2", "{\"num_key_value_heads\": 4}", DR_EFORMAT, "expected [64, 64]"},
        {"gemma2", "{\"architectures\": [\"Gemma3ForCausalLM\"]}", DR_EFORMAT,
         "self_attn.q_norm.weight is missing"},
        {"gemma3", "{\"architectures\": [\"Gemma3ForConditionalGeneration\"]}",
         DR_EUNSUPPORTED, "architecture Gemma3ForConditionalGeneration is not supported"},
        {"llama2", "{\"architectures\": [\"MambaForCausalLM\"]}", DR_EUNSUPPORTED,
         "StableLmForCausalLM"},
    };

    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        hf_model *m = NULL;
        if (!CHECK_STATUS(open_changed(&m, rows[i].name, rows[i].change), rows[i].st) ||
            !CHECK_TRAIL(rows[i].text))
            (void)printf("  %s with %s\n", rows[i].name, rows[i].change);
        hf_model_close(m);
    }
}

int main(void)
{
    test_layers();
    test_mistral_default();
    test_numbers();
    test_ropes();
    test_act();
    test_norms();
    test_norm_values();
    test_writer();
    test_layer_norm_writer();
    test_refused();
    dr_arena_release(&arena);
    return check_done();
}
