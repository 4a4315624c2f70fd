/*
 * onnx_fixture.h - small models made up for a test, exported, and read back.
 */
#ifndef DRUPE_TESTS_ONNX_FIXTURE_H
#define DRUPE_TESTS_ONNX_FIXTURE_H

#include "check.h"
#include "core/file.h"
#include "core/rng.h"
#include "onnx.pb-c.h"
#include "onnx/onnx.h"

#define TINY DRUPE_SOURCE_DIR "/tests/golden/tiny/"

/* ---- a model folder ---- */

typedef struct {
    dr_arena *a;
    dr_tensor list[64];
    size_t count;
    dr_rng rng;
} fixture;

/* Normal values, or what the caller then puts into them. */
static inline float *fixture_add(fixture *f, const char *name, int64_t rows, int64_t cols)
{
    size_t n = (size_t)(rows > 0 ? rows : 1) * (size_t)cols;
    float *v = dr_arena_alloc(f->a, n, sizeof(float));
    dr_tensor *t = &f->list[f->count++];

    for (size_t i = 0; i < n; i++)
        v[i] = 0.2f * dr_rng_normal(&f->rng);
    *t = (dr_tensor){.name = dr_arena_strdup(f->a, name),
                     .dtype = DR_DTYPE_F32,
                     .data = v,
                     .bytes = n * sizeof(float)};
    t->ndim = rows > 0 ? 2 : 1;
    t->dims[0] = rows > 0 ? rows : cols;
    t->dims[1] = rows > 0 ? cols : 0;
    return v;
}

static inline float *fixture_find(fixture *f, const char *name)
{
    for (size_t i = 0; i < f->count; i++) {
        if (strcmp(f->list[i].name, name) == 0) {
            union {
                const void *c;
                float *f;
            } p = {.c = f->list[i].data}; /* made by fixture_add, not const there */
            return p.f;
        }
    }
    return NULL;
}

enum { FIX_D = 40, FIX_I = 72, FIX_V = 24, FIX_KV = 16, FIX_Q = 32 };

/* A Llama of one layer: 2 heads of 16, 1 for keys; D 40 and I 72 fill no block of 32. */
static inline void fixture_llama(fixture *f, dr_arena *a)
{
    *f = (fixture){.a = a};
    dr_rng_init(&f->rng, 7, 1);
    (void)fixture_add(f, "model.embed_tokens.weight", FIX_V, FIX_D);
    (void)fixture_add(f, "model.layers.0.input_layernorm.weight", 0, FIX_D);
    (void)fixture_add(f, "model.layers.0.self_attn.q_proj.weight", FIX_Q, FIX_D);
    (void)fixture_add(f, "model.layers.0.self_attn.k_proj.weight", FIX_KV, FIX_D);
    (void)fixture_add(f, "model.layers.0.self_attn.v_proj.weight", FIX_KV, FIX_D);
    (void)fixture_add(f, "model.layers.0.self_attn.o_proj.weight", FIX_D, FIX_Q);
    (void)fixture_add(f, "model.layers.0.post_attention_layernorm.weight", 0, FIX_D);
    (void)fixture_add(f, "model.layers.0.mlp.gate_proj.weight", FIX_I, FIX_D);
    (void)fixture_add(f, "model.layers.0.mlp.up_proj.weight", FIX_I, FIX_D);
    (void)fixture_add(f, "model.layers.0.mlp.down_proj.weight", FIX_D, FIX_I);
    (void)fixture_add(f, "model.norm.weight", 0, FIX_D);
    (void)fixture_add(f, "lm_head.weight", FIX_V, FIX_D);
}

/* more: further members of config.json, each followed by a comma. */
static inline const char *fixture_save(fixture *f, const char *name, const char *more)
{
    const char *dir = dr_path_join(f->a, check_tmp(), name);
    const char *config = dr_arena_printf(
        f->a,
        "{%s \"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\","
        "\"hidden_size\": %d, \"intermediate_size\": %d, \"vocab_size\": %d,"
        "\"num_hidden_layers\": 1, \"num_attention_heads\": 2,"
        "\"num_key_value_heads\": 1, \"head_dim\": 16, \"rms_norm_eps\": 1e-5,"
        "\"max_position_embeddings\": 64, \"bos_token_id\": 1, \"eos_token_id\": 2,"
        "\"tie_word_embeddings\": false, \"dtype\": \"float32\"}",
        more, FIX_D, FIX_I, FIX_V);

    CHECK_OK(dr_make_dirs(dir));
    CHECK_OK(dr_write_file(dr_path_join(f->a, dir, "config.json"), config, strlen(config)));
    CHECK_OK(hf_st_write(dr_path_join(f->a, dir, "model.safetensors"), f->list, f->count));
    return dir;
}

/* ---- an export ---- */

static inline onnx_options fixture_options(onnx_precision precision)
{
    return (onnx_options){
        .precision = precision, .block_size = 32, .symmetric = true, .accuracy_level = 4};
}

/* Exports the model at path with so many threads; out is a folder's name. */
static inline dr_status fixture_export(dr_arena *a, const char **dir, const char *out,
                                       const char *path, const onnx_options *o, int threads)
{
    onnx_report report = {0};
    hf_model *m = NULL;
    dr_pool *pool = NULL;
    dr_status st = DR_OK;

    *dir = dr_path_join(a, check_tmp(), out);
    DR_TRY(hf_model_open(&m, path));
    DR_TRY(dr_pool_open(&pool, threads));
    DR_TRY(dr_make_dirs(*dir));
    DR_TRY(onnx_build(&report, *dir, m, pool, o));
done:
    onnx_report_release(&report);
    dr_pool_close(pool);
    hf_model_close(m);
    return st;
}

/* model.onnx by protobuf-c alone, and the bytes of the weights. */
typedef struct {
    Onnx__ModelProto *model;
    Onnx__GraphProto *g;
    dr_map data;
} exported;

static inline bool exported_open(exported *e, dr_arena *a, const char *dir)
{
    dr_map map = {0};

    *e = (exported){0};
    if (!CHECK_OK(dr_map_open(&map, dr_path_join(a, dir, "model.onnx"))))
        return false;
    e->model = onnx__model_proto__unpack(NULL, map.size, map.data);
    dr_map_close(&map);
    if (!CHECK(e->model != NULL) ||
        !CHECK_OK(dr_map_open(&e->data, dr_path_join(a, dir, "model.onnx.data"))))
        return false;
    e->g = e->model->graph;
    return true;
}

static inline void exported_close(exported *e)
{
    if (e->model != NULL)
        onnx__model_proto__free_unpacked(e->model, NULL);
    dr_map_close(&e->data);
}

static inline const Onnx__TensorProto *exported_init(const exported *e, const char *name)
{
    for (size_t i = 0; i < e->g->n_initializer; i++) {
        if (strcmp(e->g->initializer[i]->name, name) == 0)
            return e->g->initializer[i];
    }
    return NULL;
}

static inline uint64_t exported_entry(const Onnx__TensorProto *t, const char *key)
{
    for (size_t i = 0; i < t->n_external_data; i++) {
        if (strcmp(t->external_data[i]->key, key) == 0)
            return strtoull(t->external_data[i]->value, NULL, 10);
    }
    return 0;
}

/* The bytes of an initializer, which is checked to lie in the file. */
static inline const unsigned char *exported_bytes(const exported *e, const char *name,
                                                  size_t *bytes)
{
    const Onnx__TensorProto *t = exported_init(e, name);

    *bytes = 0;
    if (!CHECK(t != NULL))
        return NULL;
    uint64_t offset = exported_entry(t, "offset"), length = exported_entry(t, "length");
    if (!CHECK(offset + length <= e->data.size))
        return NULL;
    *bytes = (size_t)length;
    return e->data.data + offset;
}

static inline const Onnx__NodeProto *exported_node(const exported *e, const char *name)
{
    for (size_t i = 0; i < e->g->n_node; i++) {
        if (strcmp(e->g->node[i]->name, name) == 0)
            return e->g->node[i];
    }
    return NULL;
}

static inline int64_t exported_attr(const Onnx__NodeProto *n, const char *name)
{
    for (size_t i = 0; n != NULL && i < n->n_attribute; i++) {
        if (strcmp(n->attribute[i]->name, name) == 0)
            return n->attribute[i]->i;
    }
    return INT64_MIN;
}

#endif
