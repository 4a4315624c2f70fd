/*
 * family.c - the rows of arch.def, and the config keys that only one family has.
 */
#include "hf/family_impl.h"

#include <math.h>
#include <string.h>

#include "core/json.h"
#include "hf/config_impl.h"

/* ---- keys ---- */

/* A number of (0, 1e6]. */
static dr_status scale(double *out, const json_t *o, const char *key, const char *where)
{
    dr_status st = DR_OK;

    DR_TRY(dr_json_real(o, key, out, where));
    if (!(*out > 0) || *out > 1e6)
        DR_FAIL(DR_EFORMAT, "%s: %s: %g is not above 0 and at most 1e6", where, key, *out);
done:
    return st;
}

/* The same, but 0 when it is null. */
static dr_status softcap(double *out, const json_t *o, const char *key, const char *where)
{
    if (json_is_null(json_object_get(o, key))) {
        *out = 0;
        return DR_OK;
    }
    return dr_json_get(o, key) != NULL ? scale(out, o, key, where) : DR_OK;
}

static dr_status refuse(const hf_config *c, const json_t *o, const char *key,
                        const char *where)
{
    bool is = false;
    dr_status st = DR_OK;

    DR_TRY(dr_json_bool(o, key, &is, where));
    if (is)
        DR_FAIL(DR_EUNSUPPORTED, "%s: %s: true is not supported for %s", where, key,
                c->arch_name);
done:
    return st;
}

static dr_status hf_family_attention_bias(hf_config *c, const json_t *o, const char *where)
{
    dr_status st = dr_json_bool(o, "attention_bias", &c->qkv_bias, where);

    c->o_bias = c->qkv_bias;
    return st;
}

static dr_status hf_family_llama(hf_config *c, const json_t *o, const char *where)
{
    dr_status st = DR_OK;

    DR_TRY(hf_family_attention_bias(c, o, where));
    DR_TRY(dr_json_bool(o, "mlp_bias", &c->mlp_bias, where));
done:
    return st;
}

static dr_status hf_family_no_qk_layernorm(hf_config *c, const json_t *o, const char *where)
{
    return refuse(c, o, "qk_layernorm", where);
}

static dr_status hf_family_stablelm(hf_config *c, const json_t *o, const char *where)
{
    dr_status st = DR_OK;

    DR_TRY(refuse(c, o, "qk_layernorm", where));
    DR_TRY(dr_json_bool(o, "use_qkv_bias", &c->qkv_bias, where));
    DR_TRY(dr_json_bool(o, "use_parallel_residual", &c->parallel, where));
    if (c->parallel)
        c->norms &= ~(1u << HF_NORM_MLP);
done:
    return st;
}

/*
 * The embedding times sqrt(D).  transformers rounds it to the type that it computes in,
 * which is the file's own unless a user says otherwise, and so did the training.
 */
static dr_status hf_family_gemma(hf_config *c, const json_t *o, const char *where)
{
    dr_status st = DR_OK;

    DR_TRY(hf_family_attention_bias(c, o, where));
    DR_TRY(refuse(c, o, "use_bidirectional_attention", where));
    float root = sqrtf((float)c->hidden);
    if (c->dtype == DR_DTYPE_F16)
        root = dr_f16_to_f32(dr_f32_to_f16(root));
    else if (c->dtype == DR_DTYPE_BF16)
        root = dr_bf16_to_f32(dr_f32_to_bf16(root));
    c->embed_scale = (double)root;
done:
    return st;
}

static dr_status hf_family_gemma3(hf_config *c, const json_t *o, const char *where)
{
    double scalar = 256;
    dr_status st = DR_OK;

    DR_TRY(hf_family_gemma(c, o, where));
    DR_TRY(scale(&scalar, o, "query_pre_attn_scalar", where));
    c->attn_scale = 1 / sqrt(scalar);
    DR_TRY(softcap(&c->attn_softcap, o, "attn_logit_softcapping", where));
    DR_TRY(softcap(&c->logit_softcap, o, "final_logit_softcapping", where));
done:
    return st;
}

static dr_status hf_family_gemma2(hf_config *c, const json_t *o, const char *where)
{
    c->attn_softcap = 50;
    c->logit_softcap = 30;
    return hf_family_gemma3(c, o, where);
}

static dr_status hf_family_granite(hf_config *c, const json_t *o, const char *where)
{
    double divisor = 1;
    dr_status st = DR_OK;

    c->attn_scale = 1;
    DR_TRY(hf_family_llama(c, o, where));
    DR_TRY(scale(&c->embed_scale, o, "embedding_multiplier", where));
    DR_TRY(scale(&c->residual_scale, o, "residual_multiplier", where));
    DR_TRY(scale(&c->attn_scale, o, "attention_multiplier", where));
    DR_TRY(scale(&divisor, o, "logits_scaling", where));
    c->logit_scale = 1 / divisor;
done:
    return st;
}

/* ---- experts ---- */

static dr_status hf_family_qwen3_moe(hf_config *c, const json_t *o, const char *where)
{
    int every = 1;
    hf_experts *e = &c->experts;
    /* transformers 5 writes num_local_experts */
    const char *key =
        dr_json_get(o, "num_local_experts") ? "num_local_experts" : "num_experts";
    dr_status st = DR_OK;

    DR_TRY(hf_family_attention_bias(c, o, where));
    DR_TRY(hf_config_int(&every, o, "decoder_sparse_step", 1, c->layers, where));
    if (every != 1 || json_array_size(dr_json_get(o, "mlp_only_layers")) != 0)
        DR_FAIL(DR_EUNSUPPORTED,
                "%s: layers without experts among others are not supported", where);
    *e = (hf_experts){.count = 128, .used = 8, .inner = 768, .alpha = 1};
    DR_TRY(hf_config_int(&e->count, o, key, 1, 4096, where));
    DR_TRY(hf_config_int(&e->used, o, "num_experts_per_tok", 1, e->count, where));
    DR_TRY(hf_config_int(&e->inner, o, "moe_intermediate_size", 1, 1 << 20, where));
    DR_TRY(dr_json_bool(o, "norm_topk_prob", &e->renormalize, where));
done:
    return st;
}

static dr_status hf_family_gpt_oss(hf_config *c, const json_t *o, const char *where)
{
    hf_experts *e = &c->experts;
    dr_status st = DR_OK;

    *e = (hf_experts){.count = 128,
                      .used = 4,
                      .inner = c->intermediate,
                      .renormalize = true,
                      .bias = true,
                      .alpha = 1.702,
                      .beta = 1,
                      .limit = 7};
    c->sinks = true;
    DR_TRY(hf_family_attention_bias(c, o, where));
    DR_TRY(hf_config_int(&e->count, o, "num_local_experts", 1, 4096, where));
    DR_TRY(hf_config_int(&e->used, o, "num_experts_per_tok", 1, e->count, where));
    DR_TRY(scale(&e->alpha, o, "swiglu_alpha", where));
    DR_TRY(scale(&e->limit, o, "swiglu_limit", where));
done:
    return st;
}

/* ---- rows ---- */

static const hf_family families[HF_ARCH_COUNT] = {
#define HF_ARCH(id, arch, type, genai, ...)                                                \
    {.arch_name = arch, .model_type = type, .genai_type = genai, __VA_ARGS__},
#include "hf/arch.def"
#undef HF_ARCH
};

const hf_family *hf_family_of(hf_arch arch)
{
    return &families[arch];
}

hf_arch hf_family_find(const char *arch_name, const char *model_type)
{
    for (size_t i = 0; i < HF_ARCH_COUNT; i++) {
        if (arch_name != NULL ? strcmp(families[i].arch_name, arch_name) == 0
                              : strcmp(families[i].model_type, model_type) == 0)
            return (hf_arch)i;
    }
    return HF_ARCH_COUNT;
}
