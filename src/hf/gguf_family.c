/*
 * gguf_family.c - the families that GGUF files are read and written of, and which of their
 * keys only some have.
 *
 * Not every row of arch.def: a family is here when its tensors and keys need no more than
 * what is done for it (gguf.c and gguf_out.c: names).  What a file does not say is what
 * llama.cpp takes then, which has some of it in its program: SmolLM3 does not rotate in
 * every fourth layer, Gemma's windows follow a pattern, its largest models scale attention
 * otherwise.
 */
#include <math.h>
#include <string.h>

#include "hf/family_impl.h"
#include "hf/gguf_impl.h"

/* A name twice: the first row is what is read of it. */
static const gguf_family families[] = {
    {"llama", HF_ARCH_LLAMA, true},        {"llama", HF_ARCH_MISTRAL, true},
    {"smollm3", HF_ARCH_SMOLLM3, true},    {"granite", HF_ARCH_GRANITE, true},
    {"qwen2", HF_ARCH_QWEN2, false},       {"qwen3", HF_ARCH_QWEN3, false},
    {"phi2", HF_ARCH_PHI, false},          {"phi3", HF_ARCH_PHI3, false},
    {"gemma", HF_ARCH_GEMMA, false},       {"gemma2", HF_ARCH_GEMMA2, false},
    {"gemma3", HF_ARCH_GEMMA3, false},     {"olmo2", HF_ARCH_OLMO2, false},
    {"stablelm", HF_ARCH_STABLELM, false},
};

const gguf_family *gguf_family_named(const char *name)
{
    for (size_t i = 0; i < DR_COUNT(families); i++)
        if (strcmp(families[i].name, name) == 0)
            return &families[i];
    return NULL;
}

const gguf_family *gguf_family_of(hf_arch family)
{
    for (size_t i = 0; i < DR_COUNT(families); i++)
        if (families[i].family == family)
            return &families[i];
    return NULL;
}

const char *gguf_family_names(dr_arena *a)
{
    const char *list = families[0].name;

    for (size_t i = 1; i < DR_COUNT(families); i++)
        if (strcmp(families[i].name, families[i - 1].name) != 0)
            list = dr_arena_printf(a, "%s, %s", list, families[i].name);
    return list;
}

const char *gguf_eps_key(hf_arch family)
{
    return hf_family_of(family)->norm_kind == HF_NORM_KIND_LAYER
               ? "attention.layer_norm_epsilon"
               : "attention.layer_norm_rms_epsilon";
}

double gguf_attention_scale(hf_arch family, int64_t layers, int64_t hidden, int64_t heads,
                            int64_t head_dim)
{
    bool large = (family == HF_ARCH_GEMMA2 && layers == 46) ||
                 (family == HF_ARCH_GEMMA3 && layers == 62);

    return 1 / sqrt((double)(large ? hidden / heads : head_dim));
}

/* ---- reading ---- */

dr_status gguf_family_keys(const gguf_file *g, gguf_numbers *k)
{
    const hf_family *f = hf_family_of(g->family);
    dr_status st = DR_OK;

    k->pattern = f->window_pattern;
    k->theta_local = f->theta_local;
    if (g->family == HF_ARCH_GEMMA2) {
        k->window = k->window > 0 ? k->window : 4096;
        k->attn_softcap = 50;
        k->logit_softcap = 30;
    }
    DR_TRY(gguf_may(g, "attention.sliding_window_pattern", &k->pattern));
    DR_TRY(gguf_may_real(g, "rope.freq_base_swa", &k->theta_local));
    DR_TRY(gguf_may_real(g, "attn_logit_softcapping", &k->attn_softcap));
    DR_TRY(gguf_may_real(g, "final_logit_softcapping", &k->logit_softcap));
    DR_TRY(gguf_may_real(g, "attention.scale", &k->attn_scale));
    DR_TRY(gguf_may_real(g, "embedding_scale", &k->embed_scale));
    DR_TRY(gguf_may_real(g, "residual_scale", &k->residual_scale));
    DR_TRY(gguf_may_real(g, "logit_scale", &k->logit_scale));
done:
    return st;
}

static json_t *softcap(double v)
{
    return v > 0 ? gguf_short_real(v) : json_null();
}

/* Gemma 2 and 3. */
static void put_gemma(const gguf_file *g, json_t *c, const gguf_numbers *k)
{
    double scale =
        gguf_attention_scale(g->family, k->layers, k->hidden, k->heads, k->head_dim);
    json_t *types = json_array();

    gguf_put(c, "hidden_activation", json_string("gelu_pytorch_tanh"));
    gguf_put(c, "query_pre_attn_scalar", json_integer(llround(1 / (scale * scale))));
    gguf_put(c, "attn_logit_softcapping", softcap(k->attn_softcap));
    gguf_put(c, "final_logit_softcapping", softcap(k->logit_softcap));
    gguf_put(c, "sliding_window", k->window > 0 ? json_integer(k->window) : json_null());
    for (int64_t i = 0; i < k->layers; i++)
        (void)json_array_append_new(types,
                                    json_string(k->pattern > 0 && (i + 1) % k->pattern != 0
                                                    ? "sliding_attention"
                                                    : "full_attention"));
    gguf_put(c, "layer_types", types);
}

static void put_smollm3(json_t *c, const gguf_numbers *k)
{
    json_t *rotated = json_array();

    for (int64_t i = 0; i < k->layers; i++)
        (void)json_array_append_new(rotated,
                                    json_integer((i + 1) % GGUF_SMOLLM3_NO_ROPE != 0));
    gguf_put(c, "no_rope_layers", rotated);
    gguf_put(c, "no_rope_layer_interval", json_integer(GGUF_SMOLLM3_NO_ROPE));
}

static void put_granite(json_t *c, const gguf_numbers *k)
{
    double scale = k->attn_scale > 0 ? k->attn_scale : 1 / sqrt((double)k->head_dim);

    gguf_put(c, "attention_multiplier", gguf_short_real(scale));
    gguf_put(c, "embedding_multiplier",
             gguf_short_real(k->embed_scale > 0 ? k->embed_scale : 1));
    gguf_put(c, "residual_multiplier",
             gguf_short_real(k->residual_scale > 0 ? k->residual_scale : 1));
    gguf_put(c, "logits_scaling", gguf_short_real(k->logit_scale > 0 ? k->logit_scale : 1));
}

static bool has(const gguf_file *g, const char *name)
{
    return gguf_find_tensor(g, name) != NULL;
}

/* Biases and switches, by the tensors that are there. */
static void put_switches(const gguf_file *g, json_t *c)
{
    const hf_family *f = hf_family_of(g->family);

    if (g->family == HF_ARCH_STABLELM) {
        gguf_put(c, "use_qkv_bias", json_boolean(has(g, "blk.0.attn_q.bias")));
        gguf_put(c, "use_parallel_residual",
                 json_boolean(!has(g, "blk.0.ffn_norm.weight")));
        gguf_put(c, "qk_layernorm", json_false());
        return;
    }
    if (f->layout == HF_LAYOUT_SPLIT && !f->qkv_bias)
        gguf_put(c, "attention_bias", json_boolean(has(g, "blk.0.attn_q.bias")));
    if (g->turned)
        gguf_put(c, "mlp_bias", json_boolean(has(g, "blk.0.ffn_up.bias")));
    if (f->windows == HF_WINDOWS_SWITCH || f->windows == HF_WINDOWS_NOPE)
        gguf_put(c, "use_sliding_window", json_false());
    if (g->family == HF_ARCH_PHI)
        gguf_put(c, "qk_layernorm", json_false());
}

void gguf_family_put(const gguf_file *g, json_t *c, const gguf_numbers *k)
{
    put_switches(g, c);
    if (g->family == HF_ARCH_GEMMA2 || g->family == HF_ARCH_GEMMA3)
        put_gemma(g, c, k);
    if (g->family == HF_ARCH_GRANITE)
        put_granite(c, k);
    if (g->family == HF_ARCH_SMOLLM3)
        put_smollm3(c, k);
    if (g->family == HF_ARCH_PHI3)
        gguf_put(c, "sliding_window",
                 k->window > 0 ? json_integer(k->window) : json_null());
    if (g->family == HF_ARCH_PHI3 || g->family == HF_ARCH_PHI) {
        gguf_put(c, "resid_pdrop", json_real(0));
        gguf_put(c, "embd_pdrop", json_real(0));
    }
}
