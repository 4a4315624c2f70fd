/*
 * gguf.c - a GGUF file as a source of an hf_model.
 *
 * The config and the tokenizer are rebuilt from the file's keys, tensors keep their blocks
 * and are turned into floats as they are read.  Names become Hugging Face's; a tensor that
 * has no such name is an error, so that nothing of a model is left out in silence.  Only
 * the tables of rotary factors are left out: they went into the config.
 *
 * A tensor whose bytes are Hugging Face's bytes (plain type, its own row order) is shown
 * with that type and shape.  All others are shown as raw bytes (U8), so that no one takes
 * the q rows of an F16 Llama, which llama.cpp turns, for Hugging Face's, or the norms of a
 * Gemma, to which it adds 1.
 */
#include <stdlib.h>
#include <string.h>

#include "hf/family_impl.h"
#include "hf/gguf_impl.h"

typedef struct {
    const char *gguf, *hf;
} name_row;

static const name_row model_names[] = {
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.norm"},
    {"output", "lm_head"},
};

/* Within a layer: blk.N.<gguf> is model.layers.N.<hf>. */
static const name_row layer_names[] = {
    {"attn_norm", "input_layernorm"},    {"ffn_norm", "post_attention_layernorm"},
    {"attn_q", "self_attn.q_proj"},      {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},      {"attn_qkv", "self_attn.qkv_proj"},
    {"attn_output", "self_attn.o_proj"}, {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},           {"ffn_down", "mlp.down_proj"},
};

/* Phi-2's are other names. */
static const name_row phi_model_names[] = {{"output_norm", "model.final_layernorm"}};
static const name_row phi_names[] = {
    {"attn_output", "self_attn.dense"},
    {"ffn_up", "mlp.fc1"},
    {"ffn_down", "mlp.fc2"},
};

/* Only where a family has them. */
static const name_row qk_norm_names[] = {
    {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"},
};

/* Norms behind attention and MLP; ffn_norm is another then. */
static const name_row around_names[] = {
    {"post_attention_norm", "post_attention_layernorm"},
    {"ffn_norm", "pre_feedforward_layernorm"},
    {"post_ffw_norm", "post_feedforward_layernorm"},
};

/* Rotary tables, which Hugging Face computes from the config. */
static bool is_rope_table(const char *name)
{
    return strcmp(name, "rope_freqs.weight") == 0 ||
           strcmp(name, "rope_factors_long.weight") == 0 ||
           strcmp(name, "rope_factors_short.weight") == 0;
}

/* The row whose GGUF name is name[0..n), NULL when there is none. */
static const char *look_up(const name_row *rows, size_t count, const char *name, size_t n)
{
    for (size_t i = 0; i < count; i++)
        if (strlen(rows[i].gguf) == n && memcmp(rows[i].gguf, name, n) == 0)
            return rows[i].hf;
    return NULL;
}

/* Within a layer. */
static const char *layer_name(const gguf_file *g, const char *name, size_t n)
{
    const hf_family *f = hf_family_of(g->family);
    const char *leaf = NULL;

    if (f->layout == HF_LAYOUT_PHI)
        leaf = look_up(phi_names, DR_COUNT(phi_names), name, n);
    if (f->norms != HF_NORMS_BEFORE)
        leaf = look_up(around_names, DR_COUNT(around_names), name, n);
    if (leaf == NULL && f->qk_norm != HF_QK_NORM_NONE)
        leaf = look_up(qk_norm_names, DR_COUNT(qk_norm_names), name, n);
    if (leaf == NULL)
        leaf = look_up(layer_names, DR_COUNT(layer_names), name, n);
    /* Phi-3's gate and up are one tensor, which llama.cpp calls ffn_up. */
    if (leaf != NULL && g->family == HF_ARCH_PHI3 && strcmp(leaf, "mlp.up_proj") == 0)
        leaf = "mlp.gate_up_proj";
    return leaf;
}

/* Hugging Face's name; NULL when there is none. */
static const char *hf_name(const gguf_file *g, const char *name, int64_t layers)
{
    const char *dot = strrchr(name, '.'), *leaf = NULL;
    dr_arena *a = &g->m->arena;

    if (dot == NULL || (strcmp(dot, ".weight") != 0 && strcmp(dot, ".bias") != 0))
        return NULL;
    if (strncmp(name, "blk.", 4) != 0) {
        size_t n = (size_t)(dot - name);
        if (hf_family_of(g->family)->layout == HF_LAYOUT_PHI)
            leaf = look_up(phi_model_names, DR_COUNT(phi_model_names), name, n);
        if (leaf == NULL)
            leaf = look_up(model_names, DR_COUNT(model_names), name, n);
        return leaf ? dr_arena_printf(a, "%s%s", leaf, dot) : NULL;
    }
    char *end = NULL;
    long layer = strtol(name + 4, &end, 10);
    if (name[4] < '0' || name[4] > '9' || *end != '.' || layer >= layers || end >= dot)
        return NULL;
    leaf = layer_name(g, end + 1, (size_t)(dot - end - 1));
    if (leaf == NULL)
        return NULL;
    return dr_arena_printf(a, "model.layers.%ld.%s%s", layer, leaf, dot);
}

/* The heads by which llama.cpp turned this tensor's rows; 0: it did not. */
static int64_t turned_heads(const gguf_file *g, const char *name)
{
    bool q = strstr(name, ".self_attn.q_proj.") != NULL;
    bool k = strstr(name, ".self_attn.k_proj.") != NULL;

    if (!g->turned || (!q && !k))
        return 0;
    const char *key = q ? "num_attention_heads" : "num_key_value_heads";
    return json_integer_value(json_object_get(g->m->config, key));
}

static dr_status set_turned(const gguf_file *g, hf_entry *e, gguf_block block)
{
    int64_t heads = turned_heads(g, e->t.name);
    size_t rows = e->ndim == 1 ? e->cols : e->rows;

    if (heads == 0)
        return DR_OK;
    if (heads > INT32_MAX || rows % (2 * (size_t)heads) != 0)
        return dr_fail(DR_EFORMAT, "%s: %s: %zu rows do not make %lld heads", g->path,
                       e->t.name, rows, (long long)heads);
    if (e->ndim == 1 && block.block != 1)
        return dr_fail(DR_EUNSUPPORTED, "%s: %s: a bias in blocks of %s", g->path,
                       e->t.name, block.name);
    e->source_heads = (int)heads;
    return DR_OK;
}

static dr_status add_entry(gguf_file *g, const gguf_tensor *t, int64_t layers)
{
    dr_status st = DR_OK;
    int64_t dims[DR_COUNT(t->dims)] = {0};
    gguf_block block = gguf_block_of(t->type);
    const char *name = hf_name(g, t->name, layers);

    if (name == NULL) {
        st = dr_fail(DR_EUNSUPPORTED, "%s: %s: a %s model has no such tensor", g->path,
                     t->name, g->arch);
        dr_hint("mixtures of experts and multimodal parts are not supported");
        return st;
    }
    hf_entry *e = hf_model_add_entry(g->m);
    e->t.name = name;
    e->t.data = t->data;
    e->t.bytes = t->bytes;
    e->type = block.name;
    e->source_type = t->type;
    e->read = gguf_read;
    for (int i = 0; i < t->ndim; i++)
        dims[i] = t->dims[t->ndim - 1 - i];
    DR_TRY(hf_entry_shape(e, dims, t->ndim, g->path));
    DR_TRY(set_turned(g, e, block));
    e->source_plus_one =
        hf_family_of(g->family)->norm_offset && strstr(name, "norm.weight") != NULL;
    if (block.block == 1 && e->source_heads == 0 && !e->source_plus_one) {
        e->t.dtype = block.dtype;
        e->t.ndim = e->ndim;
        memcpy(e->t.dims, e->dims, sizeof(e->t.dims));
    } else {
        e->t.dtype = DR_DTYPE_U8;
        e->t.ndim = 1;
        e->t.dims[0] = (int64_t)t->bytes;
    }
done:
    return st;
}

int gguf_main_type(const gguf_file *g)
{
    size_t sums[GGUF_TENSOR_TYPES] = {0};
    int most = 0;

    for (size_t i = 0; i < g->tensor_count; i++) {
        const gguf_tensor *t = &g->tensors[i];
        gguf_block block = gguf_block_of(t->type);

        if (t->ndim > 1)
            sums[t->type] += t->bytes / (size_t)block.bytes * (size_t)block.block;
        if (sums[t->type] > sums[most])
            most = t->type;
    }
    return most;
}

/* Only files whose one part holds all. */
static dr_status check_whole(const gguf_file *g)
{
    int64_t parts = 1, experts = 0;
    dr_status st = DR_OK;

    DR_TRY(gguf_int(g, "split.count", &parts));
    if (parts > 1) {
        st = dr_fail(DR_EUNSUPPORTED, "%s: one of %lld parts of a model", g->path,
                     (long long)parts);
        dr_hint("join them first: llama-gguf-split --merge");
        return st;
    }
    DR_TRY(gguf_int(g, gguf_arch_key(g, "expert_count"), &experts));
    if (experts > 0)
        DR_FAIL(DR_EUNSUPPORTED, "%s: a mixture of %lld experts", g->path,
                (long long)experts);
done:
    return st;
}

static dr_status find_family(gguf_file *g)
{
    dr_status st = DR_OK;

    DR_TRY(gguf_str(g, "general.architecture", &g->arch));
    if (g->arch == NULL)
        DR_FAIL(DR_EFORMAT, "%s: general.architecture is missing", g->path);
    const gguf_family *f = gguf_family_named(g->arch);
    if (f != NULL) {
        g->family = f->family;
        g->turned = f->turned;
        return DR_OK;
    }
    st = dr_fail(DR_EUNSUPPORTED, "%s: architecture %s is not supported", g->path, g->arch);
    dr_hint("GGUF files of %s are read", gguf_family_names(&g->m->arena));
done:
    return st;
}

dr_status hf_gguf_load(hf_model *m, const char *path)
{
    gguf_file g = {.m = m, .path = path};
    dr_status st = DR_OK;

    DR_TRY(hf_model_add_map(m, path, &g.map));
    DR_TRY(gguf_file_read(&g));
    DR_TRY(find_family(&g));
    DR_TRY(check_whole(&g));
    DR_TRY(gguf_make_config(&g));
    DR_TRYF(gguf_make_tokenizer(&g), "rebuilding the tokenizer");

    int64_t layers = json_integer_value(json_object_get(m->config, "num_hidden_layers"));
    for (size_t i = 0; i < g.tensor_count; i++)
        if (!is_rope_table(g.tensors[i].name))
            DR_TRY(add_entry(&g, &g.tensors[i], layers));
    m->origin =
        dr_arena_printf(&m->arena, "gguf %s", gguf_block_of(gguf_main_type(&g)).name);
done:
    return st;
}
