/*
 * gguf_out_keys.c - a GGUF's keys: how they are written, and what of a config goes into
 * them.  gguf_config.c reads the same keys back.
 *
 * Rotary scaling: linear and yarn are keys; Llama 3's factors and longrope's two lists are
 * tensors.  What a reader takes for granted has no key: a model that is made otherwise is
 * refused, never written as another.
 */
#include <math.h>
#include <string.h>

#include "hf/family_impl.h"
#include "hf/gguf_out_impl.h"

enum { QUANTIZATION_VERSION = 2 };

/* ---- writing ---- */

void gguf_out_raw(gguf_out *o, uint64_t v, size_t bytes)
{
    unsigned char p[8];

    for (size_t i = 0; i < bytes; i++)
        p[i] = (unsigned char)(v >> 8 * i & 255);
    if (o->st == DR_OK)
        o->st = dr_buf_add(&o->keys, p, bytes);
}

void gguf_out_text(gguf_out *o, const char *s, size_t n)
{
    gguf_out_raw(o, n, 8);
    if (o->st == DR_OK)
        o->st = dr_buf_add(&o->keys, s, n);
}

static void begin(gguf_out *o, const char *key, gguf_type type)
{
    gguf_out_text(o, key, strlen(key));
    gguf_out_raw(o, type, 4);
    o->key_count++;
}

static uint64_t float_bits(double v)
{
    float f = (float)v;
    uint32_t bits = 0;

    memcpy(&bits, &f, sizeof(bits));
    return bits;
}

void gguf_out_u32(gguf_out *o, const char *key, int64_t v)
{
    DR_BUG_IF(v < 0 || v > UINT32_MAX);
    begin(o, key, GGUF_U32);
    gguf_out_raw(o, (uint64_t)v, 4);
}

void gguf_out_f32(gguf_out *o, const char *key, double v)
{
    begin(o, key, GGUF_F32);
    gguf_out_raw(o, float_bits(v), 4);
}

void gguf_out_bool(gguf_out *o, const char *key, bool v)
{
    begin(o, key, GGUF_BOOL);
    gguf_out_raw(o, v, 1);
}

void gguf_out_str(gguf_out *o, const char *key, const char *v)
{
    begin(o, key, GGUF_STRING);
    gguf_out_text(o, v, strlen(v));
}

void gguf_out_array(gguf_out *o, const char *key, gguf_type type, size_t count)
{
    begin(o, key, GGUF_ARRAY);
    gguf_out_raw(o, type, 4);
    gguf_out_raw(o, count, 8);
}

const char *gguf_out_arch_key(const gguf_out *o, const char *name)
{
    return dr_arena_printf(o->a, "%s.%s", o->arch, name);
}

/* ---- the rotary embedding ---- */

static void arch_u32(gguf_out *o, const char *name, int64_t v)
{
    gguf_out_u32(o, gguf_out_arch_key(o, name), v);
}

static void arch_f32(gguf_out *o, const char *name, double v)
{
    gguf_out_f32(o, gguf_out_arch_key(o, name), v);
}

/* What Llama 3 divides each frequency by. */
static const float *llama3_table(gguf_out *o, const hf_rope *r)
{
    size_t n = (size_t)r->rotary_dim / 2;
    float *table = dr_arena_alloc(o->a, n, sizeof(float));

    for (size_t i = 0; i < n; i++)
        table[i] = gguf_llama3_factor(r, i);
    return table;
}

static dr_status refuse(const gguf_out *o, const char *what)
{
    return dr_fail(DR_EUNSUPPORTED, "%s: %s has no form in a GGUF of %s",
                   hf_model_path(o->m), what, o->arch);
}

/* Its ends are whole pairs there; attn_factor is what comes on top of yarn's own. */
static dr_status put_yarn(gguf_out *o, const hf_rope *r)
{
    double own = 1 + 0.1 * log(r->factor);

    if (r->factor <= 1 || r->ramp_low != floor(r->ramp_low) ||
        fabs(r->ramp_high - round(r->ramp_high)) > 0.0011)
        return refuse(o, "this rotary scaling");
    gguf_out_str(o, gguf_out_arch_key(o, "rope.scaling.type"), "yarn");
    arch_f32(o, "rope.scaling.factor", r->factor);
    arch_u32(o, "rope.scaling.original_context_length", r->original_max);
    arch_f32(o, "rope.scaling.yarn_beta_fast", r->beta_fast);
    arch_f32(o, "rope.scaling.yarn_beta_slow", r->beta_slow);
    if (fabs(r->attention_factor - own) > 1e-6)
        arch_f32(o, "rope.scaling.attn_factor", r->attention_factor / own);
    return DR_OK;
}

static dr_status put_rope(gguf_out *o, gguf_out_table *tables, size_t *count)
{
    const hf_rope *r = &hf_model_config(o->m)->rope;
    size_t n = (size_t)r->rotary_dim / 2;

    arch_u32(o, "rope.dimension_count", r->rotary_dim);
    arch_f32(o, "rope.freq_base", r->theta);
    *count = 0;
    switch (r->kind) {
    case HF_ROPE_DEFAULT:
        break;
    case HF_ROPE_LINEAR:
        gguf_out_str(o, gguf_out_arch_key(o, "rope.scaling.type"), "linear");
        arch_f32(o, "rope.scaling.factor", r->factor);
        break;
    case HF_ROPE_LLAMA3:
        tables[(*count)++] = (gguf_out_table){"rope_freqs.weight", llama3_table(o, r), n};
        break;
    case HF_ROPE_LONGROPE:
        if (hf_model_config(o->m)->arch != HF_ARCH_PHI3)
            return refuse(o, "this rotary scaling");
        arch_u32(o, "rope.scaling.original_context_length", r->original_max);
        arch_f32(o, "rope.scaling.attn_factor", r->attention_factor);
        tables[(*count)++] =
            (gguf_out_table){"rope_factors_long.weight", r->long_factor, n};
        tables[(*count)++] =
            (gguf_out_table){"rope_factors_short.weight", r->short_factor, n};
        break;
    case HF_ROPE_YARN:
        return put_yarn(o, r);
    }
    return DR_OK;
}

/* ---- what only some families have ---- */

/* Every how many layers one has no window; 0: they follow no such pattern. */
static int window_pattern(const hf_config *c)
{
    int n = 1;

    while (n <= c->layers && hf_layer_window(c, n - 1) != 0)
        n++;
    for (int i = 0; i < c->layers; i++)
        if ((hf_layer_window(c, i) != 0) != ((i + 1) % n != 0))
            return 0;
    return n;
}

/* Phi-3's windows are everywhere (llama.cpp leaves them out), Gemma's by a pattern. */
static dr_status put_windows(gguf_out *o)
{
    const hf_config *c = hf_model_config(o->m);
    bool pattern = hf_family_of(c->arch)->windows == HF_WINDOWS_PATTERN;
    int n = window_pattern(c);

    if (c->arch == HF_ARCH_PHI3)
        arch_u32(o, "attention.sliding_window", c->sliding_window);
    else if (pattern && n > 0) {
        arch_u32(o, "attention.sliding_window", c->sliding_window);
        arch_u32(o, "attention.sliding_window_pattern", n);
    } else if (n != 1)
        return refuse(o, "attention in a window");
    if (hf_family_of(c->arch)->theta_local == 0)
        return DR_OK;
    if (c->rope_local.kind != HF_ROPE_DEFAULT)
        return refuse(o, "this rotary scaling");
    arch_f32(o, "rope.freq_base_swa", c->rope_local.theta);
    return DR_OK;
}

static void put_scales(gguf_out *o)
{
    const hf_config *c = hf_model_config(o->m);

    if (c->attn_softcap > 0)
        arch_f32(o, "attn_logit_softcapping", c->attn_softcap);
    if (c->logit_softcap > 0)
        arch_f32(o, "final_logit_softcapping", c->logit_softcap);
    if (c->arch != HF_ARCH_GRANITE)
        return;
    arch_f32(o, "attention.scale", c->attn_scale);
    arch_f32(o, "embedding_scale", c->embed_scale);
    arch_f32(o, "residual_scale", c->residual_scale);
    arch_f32(o, "logit_scale", 1 / c->logit_scale);
}

/* Biases that llama.cpp does not look for: a file with them is not loaded. */
static bool odd_biases(const hf_config *c)
{
    const hf_family *f = hf_family_of(c->arch);
    bool any = c->arch == HF_ARCH_LLAMA || c->arch == HF_ARCH_GRANITE;
    bool qkv = any || f->qkv_bias || c->arch == HF_ARCH_STABLELM;

    return (c->qkv_bias && !qkv) || (c->o_bias && !any && !f->o_bias) ||
           (c->mlp_bias && !any && !f->mlp_bias);
}

static dr_status put_family(gguf_out *o)
{
    const hf_config *c = hf_model_config(o->m);
    double scale =
        gguf_attention_scale(c->arch, c->layers, c->hidden, c->heads, c->head_dim);
    bool smollm3 = c->arch == HF_ARCH_SMOLLM3;
    dr_status st = DR_OK;

    if (c->act != hf_family_of(c->arch)->act)
        return refuse(o, "its activation");
    if (odd_biases(c))
        return refuse(o, "a bias of its linears");
    if (c->arch != HF_ARCH_GRANITE && fabs(c->attn_scale - scale) > 1e-6)
        return refuse(o, "its scale of attention");
    for (int i = 0; i < c->layers; i++)
        if ((hf_layer_rope(c, i) == NULL) !=
            (smollm3 && (i + 1) % GGUF_SMOLLM3_NO_ROPE == 0))
            return refuse(o, "a choice of layers that are not rotated");
    DR_TRY(put_windows(o));
    put_scales(o);
    if (c->arch == HF_ARCH_STABLELM)
        gguf_out_bool(o, gguf_out_arch_key(o, "use_parallel_residual"), c->parallel);
done:
    return st;
}

/* ---- the rest ---- */

dr_status gguf_out_config(gguf_out *o, const char *name, int file_type,
                          gguf_out_table tables[GGUF_OUT_TABLES], size_t *table_count)
{
    const hf_config *c = hf_model_config(o->m);
    dr_status st = DR_OK;

    gguf_out_str(o, "general.architecture", o->arch);
    gguf_out_str(o, "general.type", "model");
    gguf_out_str(o, "general.name", name);
    gguf_out_u32(o, "general.file_type", file_type);
    gguf_out_u32(o, "general.quantization_version", QUANTIZATION_VERSION);
    arch_u32(o, "block_count", c->layers);
    arch_u32(o, "context_length", c->max_position);
    arch_u32(o, "embedding_length", c->hidden);
    arch_u32(o, "feed_forward_length", c->intermediate);
    arch_u32(o, "attention.head_count", c->heads);
    arch_u32(o, "attention.head_count_kv", c->kv_heads);
    arch_f32(o, gguf_eps_key(c->arch), c->norm_eps);
    arch_u32(o, "attention.key_length", c->head_dim);
    arch_u32(o, "attention.value_length", c->head_dim);
    arch_u32(o, "vocab_size", c->vocab);
    DR_TRY(put_family(o));
    DR_TRY(put_rope(o, tables, table_count));
done:
    return st;
}
