/*
 * llama_to_phi3.c - rewrites a Llama checkpoint as a Phi-3 one: the same function with the
 * lab's architecture (fused qkv_proj and gate_up_proj, longrope) and real weights.
 *
 *     llama_to_phi3 MODEL OUT [--untie]
 *
 * Longrope's factors are all 1 and the original context is the whole one, so that every
 * position turns as before.  --untie writes the head as a tensor of its own, as Phi-3.5 has
 * it.  Weights are written in bfloat16, which is what the sources here hold.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "hf/hf.h"

typedef struct {
    dr_arena arena;
    dr_tensor *list;
    size_t count;
} tensors;

/* A bf16 tensor of rows x cols (rows 0: a vector) filled from floats by the caller. */
static dr_status add(tensors *t, const char *name, size_t rows, size_t cols,
                     uint16_t **data)
{
    dr_tensor *x = &t->list[t->count++];
    void *p = NULL;
    size_t n = (rows ? rows : 1) * cols;
    dr_status st = DR_OK;

    DR_TRY(dr_arena_big(&t->arena, &p, n, 2, name));
    *x = (dr_tensor){.name = name,
                     .dtype = DR_DTYPE_BF16,
                     .ndim = rows ? 2 : 1,
                     .data = p,
                     .bytes = 2 * n};
    x->dims[0] = (int64_t)(rows ? rows : cols);
    x->dims[1] = (int64_t)cols;
    *data = p;
done:
    return st;
}

static dr_status add_slot(tensors *t, const hf_model *m, int layer, hf_slot slot,
                          const char *leaf)
{
    const hf_config *c = hf_model_config(m);
    const hf_linear *linears = NULL;
    size_t n = hf_layer_linears(m, layer, &linears), k = hf_slot_in(c, slot);
    uint16_t *data = NULL;
    void *rows = NULL;
    dr_status st = DR_OK;

    DR_TRY(add(t, dr_arena_printf(&t->arena, "model.layers.%d.%s.weight", layer, leaf),
               hf_slot_out(c, slot), k, &data));
    DR_TRY(dr_big_alloc(&rows, hf_slot_out(c, slot) * k, sizeof(float), "rows"));
    for (size_t i = 0; i < n; i++) {
        if (linears[i].slot != slot)
            continue;
        if (linears[i].has_bias)
            DR_FAIL(DR_EUNSUPPORTED, "%s has a bias; Phi-3 has none", linears[i].path);
        DR_TRY(hf_linear_read(m, &linears[i], rows, 0, linears[i].n_out));
        dr_from_f32(data + linears[i].row0 * k, rows, DR_DTYPE_BF16, linears[i].n_out * k);
    }
done:
    dr_big_free(rows);
    return st;
}

static dr_status add_norm(tensors *t, const hf_model *m, hf_norm which, int layer,
                          const char *name)
{
    size_t d = (size_t)hf_model_config(m)->hidden;
    float *v = dr_arena_alloc(&t->arena, d, sizeof(float));
    uint16_t *data = NULL;
    dr_status st = DR_OK;

    DR_TRY(add(t, name, 0, d, &data));
    DR_TRY(hf_norm_read(m, which, layer, v));
    dr_from_f32(data, v, DR_DTYPE_BF16, d);
done:
    return st;
}

static dr_status add_embedding(tensors *t, const hf_model *m, bool untie)
{
    size_t v = (size_t)hf_model_config(m)->vocab, d = (size_t)hf_model_config(m)->hidden;
    void *rows = NULL;
    uint16_t *data = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_big_alloc(&rows, v * d, sizeof(float), "embedding"));
    DR_TRY(add(t, "model.embed_tokens.weight", v, d, &data));
    DR_TRY(hf_embed_read(m, rows, 0, v));
    dr_from_f32(data, rows, DR_DTYPE_BF16, v * d);
    if (hf_head_linear(m) == NULL && !untie)
        goto done;
    if (hf_head_linear(m) != NULL)
        DR_TRY(hf_linear_read(m, hf_head_linear(m), rows, 0, v));
    DR_TRY(add(t, "lm_head.weight", v, d, &data));
    dr_from_f32(data, rows, DR_DTYPE_BF16, v * d);
done:
    dr_big_free(rows);
    return st;
}

static dr_status write_config(const hf_model *m, const char *dir, bool untie)
{
    const hf_config *c = hf_model_config(m);
    dr_arena a = {0};
    json_t *j = json_deep_copy(hf_model_config_json(m)), *rope = json_object();
    json_t *ones = json_array(), *archs = json_array();
    dr_status st = DR_OK;

    if (c->rope.kind != HF_ROPE_DEFAULT)
        DR_FAIL(DR_EUNSUPPORTED, "%s: its rope is scaled already", hf_model_path(m));
    for (int i = 0; i < c->rope.rotary_dim / 2; i++)
        json_array_append_new(ones, json_real(1));
    json_array_append_new(archs, json_string("Phi3ForCausalLM"));
    json_object_set_new(j, "architectures", archs);
    json_object_set_new(j, "model_type", json_string("phi3"));
    json_object_set_new(rope, "type", json_string("longrope"));
    json_object_set(rope, "short_factor", ones);
    json_object_set(rope, "long_factor", ones);
    json_object_set_new(j, "rope_scaling", rope);
    json_object_set_new(j, "rope_theta", json_real(c->rope.theta));
    json_object_set_new(j, "original_max_position_embeddings",
                        json_integer(c->max_position));
    json_object_set_new(j, "tie_word_embeddings", json_boolean(c->tied && !untie));
    json_object_set_new(j, "sliding_window", json_null());
    json_object_set_new(j, "torch_dtype", json_string("bfloat16"));
    json_object_set_new(j, "pad_token_id", json_integer(c->pad >= 0 ? c->pad : 0));
    json_object_del(j, "rope_parameters");
    json_object_del(j, "dtype");
    json_object_del(j, "head_dim");
    DR_TRY(dr_json_write(dr_path_join(&a, dir, "config.json"), j));
done:
    json_decref(ones);
    json_decref(j);
    dr_arena_release(&a);
    return st;
}

static dr_status convert(const char *in, const char *out, bool untie)
{
    tensors t = {0};
    hf_model *m = NULL;
    dr_status st = DR_OK;

    DR_TRY(hf_model_open(&m, in));
    int layers = hf_model_config(m)->layers;
    t.list = dr_arena_alloc(&t.arena, (size_t)layers * 6 + 3, sizeof(dr_tensor));
    DR_TRY(add_embedding(&t, m, untie));
    for (int l = 0; l < layers; l++) {
        const char *p = dr_arena_printf(&t.arena, "model.layers.%d.", l);
        DR_TRY(add_norm(&t, m, HF_NORM_ATTN, l,
                        dr_arena_printf(&t.arena, "%sinput_layernorm.weight", p)));
        DR_TRY(add_slot(&t, m, l, HF_SLOT_QKV, "self_attn.qkv_proj"));
        DR_TRY(add_slot(&t, m, l, HF_SLOT_O, "self_attn.o_proj"));
        DR_TRY(add_norm(&t, m, HF_NORM_MLP, l,
                        dr_arena_printf(&t.arena, "%spost_attention_layernorm.weight", p)));
        DR_TRY(add_slot(&t, m, l, HF_SLOT_GATE_UP, "mlp.gate_up_proj"));
        DR_TRY(add_slot(&t, m, l, HF_SLOT_DOWN, "mlp.down_proj"));
    }
    DR_TRY(add_norm(&t, m, HF_NORM_FINAL, 0, "model.norm.weight"));
    DR_TRY(dr_make_dirs(out));
    DR_TRY(hf_st_write(dr_path_join(&t.arena, out, "model.safetensors"), t.list, t.count));
    DR_TRY(write_config(m, out, untie));
    DR_TRY(hf_model_copy_side_files(m, out));
done:
    hf_model_close(m);
    dr_arena_release(&t.arena);
    return st;
}

int main(int argc, char **argv)
{
    bool untie = argc == 4 && strcmp(argv[3], "--untie") == 0;

    if (argc < 3 || (argc == 4 && !untie) || argc > 4) {
        (void)fputs("usage: llama_to_phi3 MODEL OUT [--untie]\n", stderr);
        return 2;
    }
    if (convert(argv[1], argv[2], untie) == DR_OK)
        return 0;
    const dr_trail *t = dr_trail_get();
    for (int i = 0; i < t->count; i++)
        (void)fprintf(stderr, "%s\n", t->frames[i].text);
    return 1;
}
