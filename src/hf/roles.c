/*
 * roles.c - finds a decoder's parts among the tensors, and reads them.
 *
 * The families differ in tables: which modules make up a layer.  A layer's linears are
 * kept in the order of their slots, so that [q; k; v] and a fused qkv_proj look the same to
 * who computes with them.
 *
 * What must hold after hf_roles_build: every module is there, plain or packed, with the
 * shape that the config gives; a norm is a vector of D.
 */
#include "hf/roles_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "hf/family_impl.h"

#define HF_HEAD_BIAS "lm_head.bias"

/* ---- the families ---- */

typedef enum { SIZE_D, SIZE_I, SIZE_Q, SIZE_KV, SIZE_QKV, SIZE_2I } size_kind;
typedef enum { BIAS_NONE, BIAS_QKV, BIAS_O, BIAS_MLP } bias_kind;

struct module {
    const char *path; /* below model.layers.N. */
    hf_slot slot;
    size_kind out, in;
    bias_kind bias;
};

static const struct module llama_modules[] = {
    {"self_attn.q_proj", HF_SLOT_QKV, SIZE_Q, SIZE_D, BIAS_QKV},
    {"self_attn.k_proj", HF_SLOT_QKV, SIZE_KV, SIZE_D, BIAS_QKV},
    {"self_attn.v_proj", HF_SLOT_QKV, SIZE_KV, SIZE_D, BIAS_QKV},
    {"self_attn.o_proj", HF_SLOT_O, SIZE_D, SIZE_Q, BIAS_O},
    {"mlp.gate_proj", HF_SLOT_GATE_UP, SIZE_I, SIZE_D, BIAS_MLP},
    {"mlp.up_proj", HF_SLOT_GATE_UP, SIZE_I, SIZE_D, BIAS_MLP},
    {"mlp.down_proj", HF_SLOT_DOWN, SIZE_D, SIZE_I, BIAS_MLP},
};

enum { ATTENTION_MODULES = 4 }; /* the first ones, in front of the MLP's */

static const struct module fused_modules[] = {
    {"self_attn.qkv_proj", HF_SLOT_QKV, SIZE_QKV, SIZE_D, BIAS_QKV},
    {"self_attn.o_proj", HF_SLOT_O, SIZE_D, SIZE_Q, BIAS_O},
    {"mlp.gate_up_proj", HF_SLOT_GATE_UP, SIZE_2I, SIZE_D, BIAS_MLP},
    {"mlp.down_proj", HF_SLOT_DOWN, SIZE_D, SIZE_I, BIAS_MLP},
};

static const struct module phi_modules[] = {
    {"self_attn.q_proj", HF_SLOT_QKV, SIZE_Q, SIZE_D, BIAS_QKV},
    {"self_attn.k_proj", HF_SLOT_QKV, SIZE_KV, SIZE_D, BIAS_QKV},
    {"self_attn.v_proj", HF_SLOT_QKV, SIZE_KV, SIZE_D, BIAS_QKV},
    {"self_attn.dense", HF_SLOT_O, SIZE_D, SIZE_Q, BIAS_O},
    {"mlp.fc1", HF_SLOT_GATE_UP, SIZE_I, SIZE_D, BIAS_MLP},
    {"mlp.fc2", HF_SLOT_DOWN, SIZE_D, SIZE_I, BIAS_MLP},
};

static const struct {
    const struct module *modules;
    size_t count;
    const char *final_norm;
} layouts[HF_LAYOUT_COUNT] = {
    [HF_LAYOUT_SPLIT] = {llama_modules, DR_COUNT(llama_modules), "model.norm"},
    [HF_LAYOUT_FUSED] = {fused_modules, DR_COUNT(fused_modules), "model.norm"},
    [HF_LAYOUT_MOE] = {llama_modules, ATTENTION_MODULES, "model.norm"}, /* experts.c */
    [HF_LAYOUT_PHI] = {phi_modules, DR_COUNT(phi_modules), "model.final_layernorm"},
};

static size_t size_of(const hf_config *c, size_kind kind)
{
    size_t hd = (size_t)c->head_dim, q = (size_t)c->heads * hd,
           kv = (size_t)c->kv_heads * hd;

    switch (kind) {
    case SIZE_D:
        return (size_t)c->hidden;
    case SIZE_I:
        return (size_t)c->intermediate;
    case SIZE_Q:
        return q;
    case SIZE_KV:
        return kv;
    case SIZE_QKV:
        return q + 2 * kv;
    case SIZE_2I:
        return 2 * (size_t)c->intermediate;
    }
    DR_BUG_IF(true);
    return 0;
}

static bool bias_of(const hf_config *c, bias_kind kind)
{
    return (kind == BIAS_QKV && c->qkv_bias) || (kind == BIAS_O && c->o_bias) ||
           (kind == BIAS_MLP && c->mlp_bias);
}

size_t hf_slot_out(const hf_config *c, hf_slot slot)
{
    static const size_kind kinds[HF_SLOT_COUNT] = {SIZE_QKV, SIZE_D, SIZE_2I, SIZE_D};

    if (slot == HF_SLOT_GATE_UP && !c->gated)
        return size_of(c, SIZE_I);
    return size_of(c, kinds[slot]);
}

size_t hf_slot_in(const hf_config *c, hf_slot slot)
{
    static const size_kind kinds[HF_SLOT_COUNT] = {SIZE_D, SIZE_Q, SIZE_D, SIZE_I};

    return size_of(c, kinds[slot]);
}

size_t hf_layer_weights(const hf_config *c)
{
    size_t n = 0;

    for (int s = 0; s < HF_SLOT_COUNT; s++)
        n += hf_slot_out(c, (hf_slot)s) * hf_slot_in(c, (hf_slot)s);
    return n;
}

/* ---- norms ---- */

bool hf_norm_exists(const hf_config *c, hf_norm which)
{
    DR_BUG_IF(which >= HF_NORM_COUNT);
    return (c->norms >> which & 1) != 0;
}

size_t hf_norm_size(const hf_config *c, hf_norm which)
{
    if (which != HF_NORM_Q && which != HF_NORM_K)
        return size_of(c, SIZE_D);
    if (c->qk_norm == HF_QK_NORM_HEAD)
        return (size_t)c->head_dim;
    return size_of(c, which == HF_NORM_Q ? SIZE_Q : SIZE_KV);
}

float hf_norm_offset(const hf_config *c)
{
    return hf_family_of(c->arch)->norm_offset ? 1.0f : 0.0f;
}

void hf_norm_name(char name[HF_NAME_MAX], const hf_config *c, hf_norm which, int layer,
                  const char *part)
{
    bool after = hf_norm_exists(c, HF_NORM_ATTN_OUT);
    const char *const leaves[HF_NORM_FINAL] = {
        [HF_NORM_ATTN] = "input_layernorm",
        [HF_NORM_ATTN_OUT] = "post_attention_layernorm",
        [HF_NORM_MLP] = after ? "pre_feedforward_layernorm" : "post_attention_layernorm",
        [HF_NORM_MLP_OUT] = "post_feedforward_layernorm",
        [HF_NORM_Q] = "self_attn.q_norm",
        [HF_NORM_K] = "self_attn.k_norm",
    };

    if (which == HF_NORM_FINAL)
        (void)snprintf(name, HF_NAME_MAX, "%s.%s",
                       layouts[hf_family_of(c->arch)->layout].final_norm, part);
    else
        (void)snprintf(name, HF_NAME_MAX, "model.layers.%d.%s.%s", layer, leaves[which],
                       part);
}

/* ---- finding ---- */

static const hf_entry *find_part(const hf_model *m, const char *module, const char *part)
{
    char name[HF_NAME_MAX];

    (void)snprintf(name, sizeof(name), "%s.%s", module, part);
    return hf_entry_find(m, name);
}

static dr_status check_matrix(const hf_model *m, const hf_entry *e, size_t rows,
                              size_t cols)
{
    if (e->ndim != 2 || e->rows != rows || e->cols != cols)
        return dr_fail(DR_EFORMAT,
                       "%s: %s: expected [%zu, %zu] from config.json, found "
                       "[%zu, %zu]",
                       m->path, e->t.name, rows, cols, e->rows, e->cols);
    if (e->read == NULL)
        return dr_fail(DR_EUNSUPPORTED, "%s: %s: weights of type %s are not supported",
                       m->path, e->t.name, e->type);
    return DR_OK;
}

static dr_status check_vector(const hf_model *m, const hf_entry *e, const char *name,
                              size_t n)
{
    if (e == NULL)
        return dr_fail(DR_EFORMAT, "%s: tensor %s is missing", m->path, name);
    if (e->ndim != 1 || e->cols != n || e->read == NULL)
        return dr_fail(DR_EFORMAT, "%s: %s: expected %zu numbers, found %zu x %zu of %s",
                       m->path, name, n, e->rows, e->cols, e->type);
    return DR_OK;
}

/* The weight of l, plain or packed. */
static dr_status find_weight(hf_model *m, hf_linear *l, hf_parts *p)
{
    dr_status st = DR_OK;

    DR_TRY(hf_unpack_find(m, l, p));
    if (m->bnb)
        DR_TRY(hf_bnb_find(m, l, p));
    if (l->packed || p->rows != NULL)
        goto done;
    p->weight = find_part(m, l->path, "weight");
    if (p->weight != NULL) {
        DR_TRY(check_matrix(m, p->weight, l->n_out, l->n_in));
        goto done;
    }
    st = dr_fail(DR_EFORMAT, "%s: tensor %s.weight is missing", m->path, l->path);
    if (find_part(m, l->path, "qweight") != NULL)
        dr_hint("the weights are packed, but config.json has no quantization_config");
done:
    return st;
}

/* stray: counts biases that the config does not have; transformers leaves them out too. */
static dr_status find_bias(const hf_model *m, hf_linear *l, hf_parts *p, bool wanted,
                           size_t *stray)
{
    const hf_entry *e = find_part(m, l->path, "bias");
    char name[HF_NAME_MAX];
    dr_status st = DR_OK;

    if (!wanted) {
        *stray += e != NULL;
        goto done;
    }
    (void)snprintf(name, sizeof(name), "%s.bias", l->path);
    DR_TRY(check_vector(m, e, name, l->n_out));
    p->bias = e;
    l->has_bias = true;
done:
    return st;
}

static dr_status check_norm(const hf_model *m, hf_norm which, int layer)
{
    char name[HF_NAME_MAX];
    dr_status st = DR_OK;

    if (!hf_norm_exists(&m->c, which))
        goto done;
    hf_norm_name(name, &m->c, which, layer, "weight");
    DR_TRY(check_vector(m, hf_entry_find(m, name), name, hf_norm_size(&m->c, which)));
    if (m->c.norm_kind == HF_NORM_KIND_LAYER) {
        hf_norm_name(name, &m->c, which, layer, "bias");
        DR_TRY(check_vector(m, hf_entry_find(m, name), name, hf_norm_size(&m->c, which)));
    }
done:
    return st;
}

static dr_status build_layer(hf_model *m, int layer, const struct module *modules, size_t n,
                             size_t *stray)
{
    size_t row0[HF_SLOT_COUNT] = {0};
    dr_status st = DR_OK;

    for (size_t i = 0; i < n; i++) {
        const struct module *mod = &modules[i];
        hf_linear *l = &m->linears[m->linear_count];
        hf_parts *p = &m->parts[m->linear_count++];
        l->path = dr_arena_printf(&m->arena, "model.layers.%d.%s", layer, mod->path);
        l->leaf = strrchr(l->path, '.') + 1;
        l->layer = layer;
        l->slot = mod->slot;
        l->row0 = row0[mod->slot];
        l->n_out = size_of(&m->c, mod->out);
        l->n_in = size_of(&m->c, mod->in);
        row0[mod->slot] += l->n_out;
        DR_TRY(find_weight(m, l, p));
        DR_TRY(find_bias(m, l, p, bias_of(&m->c, mod->bias), stray));
    }
    for (int k = 0; k < HF_NORM_FINAL; k++)
        DR_TRY(check_norm(m, (hf_norm)k, layer));
    DR_TRY(hf_experts_check(m, layer));
done:
    return st;
}

/* Embedding and head: V x D outside the layers. */
static dr_status build_outer(hf_model *m, const char *path)
{
    hf_linear *l = &m->linears[m->linear_count];
    hf_parts *p = &m->parts[m->linear_count];
    const char *dot = strrchr(path, '.');

    l->path = path;
    l->leaf = dot ? dot + 1 : path;
    l->layer = -1;
    l->slot = HF_SLOT_COUNT;
    l->n_out = (size_t)m->c.vocab;
    l->n_in = (size_t)m->c.hidden;
    m->linear_count++;
    return find_weight(m, l, p);
}

dr_status hf_roles_build(hf_model *m)
{
    hf_layout layout = hf_family_of(m->c.arch)->layout;
    const struct module *modules = layouts[layout].modules;
    size_t n = layouts[layout].count;
    size_t stray = 0;
    dr_status st = DR_OK;

    m->linears_per_layer = n;
    m->linears = dr_calloc((size_t)m->c.layers * n + 2, sizeof(*m->linears));
    m->parts = dr_calloc((size_t)m->c.layers * n + 2, sizeof(*m->parts));
    for (int i = 0; i < m->c.layers; i++)
        DR_TRY(build_layer(m, i, modules, n, &stray));
    m->has_head = !m->c.tied;
    if (m->has_head)
        DR_TRY(build_outer(m, "lm_head"));
    if (m->c.head_bias)
        DR_TRY(check_vector(m, hf_entry_find(m, HF_HEAD_BIAS), HF_HEAD_BIAS,
                            (size_t)m->c.vocab));
    DR_TRY(build_outer(m, "model.embed_tokens"));
    DR_TRY(check_norm(m, HF_NORM_FINAL, 0));
    if (stray > 0)
        dr_log(DR_WARNING,
               "%s: %zu bias tensors that config.json does not have are left out", m->path,
               stray);
    if (m->unordered > 0)
        dr_log(DR_WARNING,
               "%s: %zu linears have their inputs out of order (desc_act) and are read as "
               "floats",
               m->path, m->unordered);
    if (m->c.dtype == DR_DTYPE_COUNT) {
        const hf_entry *e = hf_linear_parts(m, hf_embed_linear(m))->weight;
        m->c.dtype =
            e != NULL && dr_dtype_is_float(e->t.dtype) ? e->t.dtype : DR_DTYPE_BF16;
    }
done:
    return st;
}

/* ---- reading ---- */

const hf_parts *hf_linear_parts(const hf_model *m, const hf_linear *l)
{
    DR_BUG_IF(l < m->linears || l >= m->linears + m->linear_count);
    return &m->parts[l - m->linears];
}

const hf_linear *hf_embed_linear(const hf_model *m)
{
    return &m->linears[m->linear_count - 1];
}

size_t hf_layer_linears(const hf_model *m, int layer, const hf_linear **out)
{
    DR_BUG_IF(layer < 0 || layer >= m->c.layers);
    *out = &m->linears[(size_t)layer * m->linears_per_layer];
    return m->linears_per_layer;
}

const hf_linear *hf_head_linear(const hf_model *m)
{
    return m->has_head ? &m->linears[m->linear_count - 2] : NULL;
}

dr_status hf_linear_read(const hf_model *m, const hf_linear *l, float *dst, size_t row0,
                         size_t count)
{
    const hf_parts *p = hf_linear_parts(m, l);
    dr_qtensor q = {0};
    dr_status st = DR_OK;

    DR_BUG_IF(row0 > l->n_out || count > l->n_out - row0);
    if (p->rows != NULL)
        return p->rows(m, l, dst, row0, count);
    if (!l->packed)
        return hf_entry_read(m, p->weight, dst, row0, count);
    DR_TRY(hf_unpack_rows(m, l, &q, row0, count, NULL));
    dr_qtensor_to_f32(dst, &q, 0, count);
done:
    dr_qtensor_release(&q);
    return st;
}

const void *hf_linear_bf16(const hf_model *m, const hf_linear *l)
{
    const hf_parts *p = hf_linear_parts(m, l);
    const hf_entry *e = p->weight;

    if (p->rows != NULL || l->packed || e == NULL || e->read != hf_read_plain ||
        e->t.dtype != DR_DTYPE_BF16 || e->rows != l->n_out || e->cols != l->n_in)
        return NULL;
    return e->t.data;
}

dr_status hf_linear_bias(const hf_model *m, const hf_linear *l, float *dst)
{
    const hf_parts *p = hf_linear_parts(m, l);

    if (p->bias != NULL)
        return hf_entry_read(m, p->bias, dst, 0, 1);
    memset(dst, 0, l->n_out * sizeof(float));
    return DR_OK;
}

dr_status hf_linear_packed(const hf_model *m, const hf_linear *l, dr_qtensor *out,
                           dr_pool *pool)
{
    DR_BUG_IF(!l->packed);
    return hf_unpack_rows(m, l, out, 0, l->n_out, pool);
}

dr_status hf_norm_read(const hf_model *m, hf_norm which, int layer, float *dst)
{
    float offset = hf_norm_offset(&m->c);
    char name[HF_NAME_MAX];
    dr_status st = DR_OK;

    DR_BUG_IF(!hf_norm_exists(&m->c, which));
    DR_BUG_IF(which != HF_NORM_FINAL && (layer < 0 || layer >= m->c.layers));
    hf_norm_name(name, &m->c, which, layer, "weight");
    DR_TRY(hf_entry_read(m, hf_entry_find(m, name), dst, 0, 1));
    for (size_t i = 0; offset != 0.0f && i < hf_norm_size(&m->c, which); i++)
        dst[i] += offset;
done:
    return st;
}

dr_status hf_norm_bias_read(const hf_model *m, hf_norm which, int layer, float *dst)
{
    char name[HF_NAME_MAX];

    DR_BUG_IF(!hf_norm_exists(&m->c, which));
    if (m->c.norm_kind != HF_NORM_KIND_LAYER) {
        memset(dst, 0, hf_norm_size(&m->c, which) * sizeof(float));
        return DR_OK;
    }
    hf_norm_name(name, &m->c, which, layer, "bias");
    return hf_entry_read(m, hf_entry_find(m, name), dst, 0, 1);
}

dr_status hf_head_bias(const hf_model *m, float *dst)
{
    if (m->c.head_bias)
        return hf_entry_read(m, hf_entry_find(m, HF_HEAD_BIAS), dst, 0, 1);
    memset(dst, 0, (size_t)m->c.vocab * sizeof(float));
    return DR_OK;
}

dr_status hf_embed_read(const hf_model *m, float *dst, size_t row0, size_t count)
{
    return hf_linear_read(m, hf_embed_linear(m), dst, row0, count);
}
