/*
 * make_model.h - model folders made up for a test: a config.json and random weights of the
 * shapes that it asks for.
 */
#ifndef DRUPE_TESTS_HF_MAKE_MODEL_H
#define DRUPE_TESTS_HF_MAKE_MODEL_H

#include "check.h"
#include "core/file.h"
#include "core/json.h"
#include "core/rng.h"
#include "hf/hf.h"

#define GOLDEN DRUPE_SOURCE_DIR "/tests/golden/hf/"

/* A folder below the test's temporary one; the same name gives the same folder. */
static inline const char *tmp_dir(dr_arena *a, const char *name)
{
    const char *dir = dr_path_join(a, check_tmp(), name);

    CHECK_OK(dr_make_dirs(dir));
    return dir;
}

static inline void put_text(dr_arena *a, const char *dir, const char *name,
                            const char *text)
{
    CHECK_OK(dr_write_file(dr_path_join(a, dir, name), text, strlen(text)));
}

typedef struct {
    dr_arena *a;
    dr_tensor list[256];
    size_t count;
    dr_dtype dtype;
    dr_rng rng;
} made;

static inline void made_add(made *w, const char *name, int64_t rows, int64_t cols)
{
    size_t n = (size_t)(rows * (cols > 0 ? cols : 1));
    float *v = dr_arena_alloc(w->a, n, sizeof(float));
    dr_tensor *t = &w->list[w->count++];

    for (size_t i = 0; i < n; i++)
        v[i] = dr_rng_normal(&w->rng);
    void *data = dr_arena_alloc(w->a, n, dr_dtype_bytes(w->dtype));
    dr_from_f32(data, v, w->dtype, n);
    *t = (dr_tensor){.name = dr_arena_strdup(w->a, name),
                     .dtype = w->dtype,
                     .ndim = cols > 0 ? 2 : 1,
                     .dims = {rows, cols},
                     .data = data,
                     .bytes = n * dr_dtype_bytes(w->dtype)};
}

static inline int64_t made_size(const json_t *c, const char *key, int64_t dflt)
{
    const json_t *v = dr_json_get(c, key);

    return v != NULL ? (int64_t)json_integer_value(v) : dflt;
}

static inline void made_layer(made *w, const json_t *c, int64_t layer)
{
    int64_t d = made_size(c, "hidden_size", 0), i = made_size(c, "intermediate_size", 0);
    int64_t h = made_size(c, "num_attention_heads", 0);
    int64_t g = made_size(c, "num_key_value_heads", h);
    int64_t hd = made_size(c, "head_dim", h > 0 ? d / h : 0);
    const char *type = json_string_value(dr_json_get(c, "model_type"));
    bool fused = strcmp(type, "phi3") == 0;
    bool bias =
        strcmp(type, "qwen2") == 0 || json_is_true(dr_json_get(c, "attention_bias"));
    const struct {
        const char *name;
        int64_t out, in;
        bool on, bias;
    } parts[] = {
        {"input_layernorm", d, 0, true, false},
        {"self_attn.q_proj", h * hd, d, !fused, bias},
        {"self_attn.k_proj", g * hd, d, !fused, bias},
        {"self_attn.v_proj", g * hd, d, !fused, bias},
        {"self_attn.qkv_proj", (h + 2 * g) * hd, d, fused, false},
        {"self_attn.o_proj", d, h * hd, true, bias && strcmp(type, "qwen2") != 0},
        {"post_attention_layernorm", d, 0, true, false},
        {"mlp.gate_up_proj", 2 * i, d, fused, false},
        {"mlp.gate_proj", i, d, !fused, false},
        {"mlp.up_proj", i, d, !fused, false},
        {"mlp.down_proj", d, i, true, false},
    };

    for (size_t k = 0; k < DR_COUNT(parts); k++) {
        const char *path =
            dr_arena_printf(w->a, "model.layers.%d.%s", (int)layer, parts[k].name);
        if (parts[k].on)
            made_add(w, dr_arena_printf(w->a, "%s.weight", path), parts[k].out,
                     parts[k].in);
        if (parts[k].on && parts[k].bias)
            made_add(w, dr_arena_printf(w->a, "%s.bias", path), parts[k].out, 0);
    }
}

/* Writes dir with this config and random weights of the config's shapes. */
static inline const char *make_model(dr_arena *a, const char *name, const char *config,
                                     dr_dtype dtype)
{
    const char *dir = tmp_dir(a, name);
    made w = {.a = a, .dtype = dtype};
    json_t *c = NULL;

    dr_rng_init(&w.rng, 7, 0);
    put_text(a, dir, "config.json", config);
    if (!CHECK_OK(dr_json_parse(&c, config, strlen(config), name)))
        return dir;
    int64_t d = made_size(c, "hidden_size", 0), v = made_size(c, "vocab_size", 0);
    made_add(&w, "model.embed_tokens.weight", v, d);
    for (int64_t i = 0; i < made_size(c, "num_hidden_layers", 0); i++)
        made_layer(&w, c, i);
    made_add(&w, "model.norm.weight", d, 0);
    if (!json_is_true(dr_json_get(c, "tie_word_embeddings")))
        made_add(&w, "lm_head.weight", v, d);
    CHECK_OK(hf_st_write(dr_path_join(a, dir, "model.safetensors"), w.list, w.count));
    json_decref(c);
    return dir;
}

/* The same numbers in two models, wherever and however they are stored. */
static inline void check_same_values(const hf_model *x, const hf_model *y)
{
    const hf_config *c = hf_model_config(x);
    size_t room = (size_t)c->vocab * (size_t)c->hidden + (1 << 16);
    float *p = calloc(room, sizeof(float)), *q = calloc(room, sizeof(float));

    for (int i = 0; i < c->layers; i++) {
        const hf_linear *l = NULL, *k = NULL;
        size_t n = hf_layer_linears(x, i, &l);
        CHECK_EQ_INT(hf_layer_linears(y, i, &k), n);
        for (size_t j = 0; j < n; j++) {
            CHECK_STR(l[j].path, k[j].path);
            CHECK(l[j].n_out * l[j].n_in <= room);
            CHECK_OK(hf_linear_read(x, &l[j], p, 0, l[j].n_out));
            CHECK_OK(hf_linear_read(y, &k[j], q, 0, k[j].n_out));
            CHECK_MEM(p, q, l[j].n_out * l[j].n_in * sizeof(float));
            CHECK_OK(hf_linear_bias(x, &l[j], p));
            CHECK_OK(hf_linear_bias(y, &k[j], q));
            CHECK_MEM(p, q, l[j].n_out * sizeof(float));
        }
        for (int k2 = 0; k2 < HF_NORM_COUNT; k2++) {
            if (!hf_norm_exists(c, (hf_norm)k2))
                continue;
            CHECK_OK(hf_norm_read(x, (hf_norm)k2, i, p));
            CHECK_OK(hf_norm_read(y, (hf_norm)k2, i, q));
            CHECK_MEM(p, q, hf_norm_size(c, (hf_norm)k2) * sizeof(float));
        }
    }
    CHECK_OK(hf_embed_read(x, p, 0, (size_t)c->vocab));
    CHECK_OK(hf_embed_read(y, q, 0, (size_t)c->vocab));
    CHECK_MEM(p, q, (size_t)c->vocab * (size_t)c->hidden * sizeof(float));
    CHECK((hf_head_linear(x) == NULL) == (hf_head_linear(y) == NULL));
    if (hf_head_linear(x) != NULL) {
        CHECK_OK(hf_linear_read(x, hf_head_linear(x), p, 0, (size_t)c->vocab));
        CHECK_OK(hf_linear_read(y, hf_head_linear(y), q, 0, (size_t)c->vocab));
        CHECK_MEM(p, q, (size_t)c->vocab * (size_t)c->hidden * sizeof(float));
    }
    free(p);
    free(q);
}

#endif
