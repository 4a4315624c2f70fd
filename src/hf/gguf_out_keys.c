/*
 * gguf_out_keys.c - a GGUF's keys: how they are written, and what of a config goes into
 * them.  gguf_config.c reads the same keys back.
 *
 * Rotary scaling: linear is a key; Llama 3's factors and longrope's two lists are tensors.
 */
#include <math.h>
#include <string.h>

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

static dr_status put_rope(gguf_out *o, gguf_out_table *tables, size_t *count)
{
    const hf_rope *r = &hf_model_config(o->m)->rope;
    size_t n = (size_t)r->rotary_dim / 2;

    arch_u32(o, "rope.dimension_count", r->rotary_dim);
    arch_f32(o, "rope.freq_base", r->theta);
    *count = 0;
    switch (r->kind) {
    case HF_ROPE_DEFAULT:
        return DR_OK;
    case HF_ROPE_LINEAR:
        gguf_out_str(o, gguf_out_arch_key(o, "rope.scaling.type"), "linear");
        arch_f32(o, "rope.scaling.factor", r->factor);
        return DR_OK;
    case HF_ROPE_LLAMA3:
        tables[(*count)++] = (gguf_out_table){"rope_freqs.weight", llama3_table(o, r), n};
        return DR_OK;
    case HF_ROPE_LONGROPE:
        arch_u32(o, "rope.scaling.original_context_length", r->original_max);
        arch_f32(o, "rope.scaling.attn_factor", r->attention_factor);
        tables[(*count)++] =
            (gguf_out_table){"rope_factors_long.weight", r->long_factor, n};
        tables[(*count)++] =
            (gguf_out_table){"rope_factors_short.weight", r->short_factor, n};
        return DR_OK;
    case HF_ROPE_YARN:
        break;
    }
    return dr_fail(DR_EUNSUPPORTED, "%s: this rotary scaling has no form in GGUF",
                   hf_model_path(o->m));
}

/* ---- the rest ---- */

dr_status gguf_out_config(gguf_out *o, const char *name, int file_type,
                          gguf_out_table tables[GGUF_OUT_TABLES], size_t *table_count)
{
    const hf_config *c = hf_model_config(o->m);

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
    arch_f32(o, "attention.layer_norm_rms_epsilon", c->norm_eps);
    arch_u32(o, "attention.key_length", c->head_dim);
    arch_u32(o, "attention.value_length", c->head_dim);
    arch_u32(o, "vocab_size", c->vocab);
    if (c->arch == HF_ARCH_PHI3)
        arch_u32(o, "attention.sliding_window", c->sliding_window);
    return put_rope(o, tables, table_count);
}
