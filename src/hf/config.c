/*
 * config.c - config.json and generation_config.json into an hf_config.
 *
 * Keys are read as transformers 4 and 5 write them; what is absent takes the default of the
 * family's config class.  Every number is checked against a range: a config is often edited
 * by hand, and a wrong size found here is one message instead of a crash in a kernel.
 */
#include "hf/config_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/json.h"
#include "core/log.h"
#include "hf/family_impl.h"

/* ---- values ---- */

dr_status hf_config_int(int *out, const json_t *o, const char *key, int min, int max,
                        const char *where)
{
    int64_t v = *out;
    dr_status st = DR_OK;

    DR_TRY(dr_json_int(o, key, &v, where));
    if (v < min && dr_json_get(o, key) == NULL)
        DR_FAIL(DR_EFORMAT, "%s: %s is missing", where, key);
    if (v < min || v > max)
        DR_FAIL(DR_EFORMAT, "%s: %s: %lld is not between %d and %d", where, key,
                (long long)v, min, max);
    *out = (int)v;
done:
    return st;
}

/* A token id: -1 when null, negative or outside the vocabulary (which some files have). */
static dr_status get_token(int *out, const json_t *v, const char *key, int vocab,
                           const char *where)
{
    if (v == NULL || json_is_null(v)) {
        *out = -1;
        return DR_OK;
    }
    if (!json_is_integer(v))
        return dr_fail(DR_EFORMAT, "%s: %s: expected an integer, found %s", where, key,
                       dr_json_type(v));
    json_int_t id = json_integer_value(v);
    if (id < 0 || id >= vocab) {
        if (id != -1)
            dr_log(DR_WARNING,
                   "%s: %s: token %lld is outside the vocabulary of %d: ignored", where,
                   key, (long long)id, vocab);
        id = -1;
    }
    *out = (int)id;
    return DR_OK;
}

/* ---- architecture ---- */

static dr_status unknown_arch(const char *name, const char *where)
{
    char list[1024] = "";
    size_t n = 0;

    for (size_t i = 0; i < HF_ARCH_COUNT && n < sizeof(list); i++)
        n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", i ? ", " : "",
                              hf_family_of((hf_arch)i)->arch_name);
    dr_status st =
        dr_fail(DR_EUNSUPPORTED, "%s: architecture %s is not supported", where, name);
    dr_hint("supported: %s", list);
    return st;
}

static dr_status parse_arch(hf_config *c, const json_t *config, const char *where)
{
    const json_t *list = dr_json_get(config, "architectures");
    const char *name = json_string_value(json_array_get(list, 0));
    const char *type = NULL;
    dr_status st = DR_OK;

    if (list != NULL && name == NULL)
        DR_FAIL(DR_EFORMAT, "%s: architectures: expected an array with a name", where);
    DR_TRY(dr_json_str(config, "model_type", &type, where));
    if (name == NULL && type == NULL)
        DR_FAIL(DR_EFORMAT, "%s: neither architectures nor model_type is there", where);
    c->arch = hf_family_find(name, type);
    if (c->arch == HF_ARCH_COUNT)
        DR_TRY(unknown_arch(name ? name : type, where));
done:
    return st;
}

/* What the family's row says; the config may change some of it. */
static void take_family(hf_config *c)
{
    const hf_family *f = hf_family_of(c->arch);
    bool before = f->norms != HF_NORMS_AFTER, after = f->norms != HF_NORMS_BEFORE;
    bool qk = f->qk_norm != HF_QK_NORM_NONE;
    const bool has[HF_NORM_COUNT] = {
        [HF_NORM_ATTN] = before,
        [HF_NORM_ATTN_OUT] = after,
        [HF_NORM_MLP] = before && !f->parallel,
        [HF_NORM_MLP_OUT] = after,
        [HF_NORM_Q] = qk,
        [HF_NORM_K] = qk,
        [HF_NORM_FINAL] = true,
    };

    c->arch_name = f->arch_name;
    c->model_type = f->model_type;
    c->genai_type = f->genai_type;
    c->fused = f->layout == HF_LAYOUT_FUSED;
    c->norm_kind = f->norm_kind;
    c->qk_norm = f->qk_norm;
    for (int i = 0; i < HF_NORM_COUNT; i++)
        c->norms |= has[i] ? 1u << i : 0;
    c->parallel = f->parallel;
    c->act = f->act;
    c->gated = !f->not_gated;
    c->qkv_bias = f->qkv_bias;
    c->o_bias = f->o_bias;
    c->mlp_bias = f->mlp_bias;
    c->head_bias = f->head_bias;
    c->tied = f->tied;
    c->embed_scale = c->residual_scale = c->logit_scale = 1;
}

/* ---- parts ---- */

static dr_status parse_sizes(hf_config *c, const json_t *o, const char *where)
{
    int64_t position = hf_family_of(c->arch)->max_position;
    dr_status st = DR_OK;

    DR_TRY(hf_config_int(&c->layers, o, "num_hidden_layers", 1, 4096, where));
    DR_TRY(hf_config_int(&c->hidden, o, "hidden_size", 1, 1 << 20, where));
    DR_TRY(hf_config_int(&c->intermediate, o, "intermediate_size", 1, 1 << 24, where));
    DR_TRY(hf_config_int(&c->vocab, o, "vocab_size", 1, 1 << 26, where));
    DR_TRY(hf_config_int(&c->heads, o, "num_attention_heads", 1, 1 << 16, where));
    c->kv_heads = c->heads;
    DR_TRY(hf_config_int(&c->kv_heads, o, "num_key_value_heads", 1, c->heads, where));
    if (c->heads % c->kv_heads != 0)
        DR_FAIL(DR_EFORMAT,
                "%s: num_attention_heads: %d is not a multiple of "
                "num_key_value_heads, %d",
                where, c->heads, c->kv_heads);
    c->head_dim = hf_family_of(c->arch)->head_dim;
    if (c->head_dim != 0 || dr_json_get(o, "head_dim") != NULL) {
        DR_TRY(hf_config_int(&c->head_dim, o, "head_dim", 1, HF_HEAD_DIM_MAX, where));
    } else if (c->hidden % c->heads == 0) {
        c->head_dim = c->hidden / c->heads;
    } else {
        DR_FAIL(DR_EFORMAT,
                "%s: hidden_size: %d is not a multiple of num_attention_heads, "
                "%d",
                where, c->hidden, c->heads);
    }
    if (c->head_dim > HF_HEAD_DIM_MAX || c->head_dim % 2 != 0)
        DR_FAIL(DR_EUNSUPPORTED, "%s: heads of %d values are not supported (even, 2 to %d)",
                where, c->head_dim, HF_HEAD_DIM_MAX);
    DR_TRY(dr_json_int(o, "max_position_embeddings", &position, where));
    if (position < 1 || position > HF_POSITION_MAX)
        DR_FAIL(DR_EFORMAT, "%s: max_position_embeddings: %lld is not between 1 and %lld",
                where, (long long)position, (long long)HF_POSITION_MAX);
    c->max_position = position;
    c->attn_scale = 1 / sqrt((double)c->head_dim);
done:
    return st;
}

static dr_status parse_act(hf_config *c, const json_t *o, const char *where)
{
    static const struct {
        const char *name;
        hf_act act;
    } acts[] = {
        {"silu", HF_ACT_SILU},
        {"swish", HF_ACT_SILU},
        {"gelu_pytorch_tanh", HF_ACT_GELU_TANH},
        {"gelu_new", HF_ACT_GELU_TANH},
        {"gelu_fast", HF_ACT_GELU_TANH},
        {"gelu", HF_ACT_GELU},
    };
    const char *key = hf_family_of(c->arch)->act_key, *name = NULL;
    dr_status st = DR_OK;

    key = key != NULL ? key : "hidden_act";
    /* Gemma's first files say gelu and mean the approximation, as transformers knows. */
    if (c->arch == HF_ARCH_GEMMA && dr_json_get(o, "hidden_activation") != NULL)
        key = "hidden_activation";
    DR_TRY(dr_json_str(o, key, &name, where));
    if (name == NULL || (c->arch == HF_ARCH_GEMMA && strcmp(name, "gelu") == 0))
        goto done;
    for (size_t i = 0; i < DR_COUNT(acts); i++) {
        if (strcmp(acts[i].name, name) == 0) {
            c->act = acts[i].act;
            goto done;
        }
    }
    st = dr_fail(DR_EUNSUPPORTED, "%s: %s: %s is not supported", where, key, name);
    dr_hint("supported: silu, gelu, gelu_new, gelu_pytorch_tanh");
done:
    return st;
}

static dr_status parse_numbers(hf_config *c, const json_t *o, const char *where)
{
    const hf_family *f = hf_family_of(c->arch);
    const char *key = f->eps_key != NULL ? f->eps_key : "rms_norm_eps";
    dr_status st = DR_OK;

    c->norm_eps = f->eps;
    DR_TRY(dr_json_real(o, key, &c->norm_eps, where));
    if (!(c->norm_eps >= 0) || c->norm_eps > 1)
        DR_FAIL(DR_EFORMAT, "%s: %s: %g is not between 0 and 1", where, key, c->norm_eps);
    DR_TRY(parse_act(c, o, where));
    DR_TRY(dr_json_bool(o, "tie_word_embeddings", &c->tied, where));
done:
    return st;
}

static dr_status parse_dtype(hf_config *c, const json_t *o, const char *where)
{
    static const struct {
        const char *name;
        dr_dtype dtype;
    } names[] = {
        {"bfloat16", DR_DTYPE_BF16}, {"float16", DR_DTYPE_F16}, {"half", DR_DTYPE_F16},
        {"float32", DR_DTYPE_F32},   {"float", DR_DTYPE_F32},
    };
    const char *key = dr_json_get(o, "dtype") ? "dtype" : "torch_dtype";
    const char *name = NULL;
    dr_status st = DR_OK;

    c->dtype = DR_DTYPE_COUNT;
    DR_TRY(dr_json_str(o, key, &name, where));
    if (name == NULL)
        goto done;
    if (strncmp(name, "torch.", 6) == 0)
        name += 6;
    for (size_t i = 0; i < DR_COUNT(names); i++) {
        if (strcmp(names[i].name, name) == 0) {
            c->dtype = names[i].dtype;
            goto done;
        }
    }
    DR_FAIL(DR_EUNSUPPORTED, "%s: %s: %s is not supported (bfloat16, float16, float32)",
            where, key, name);
done:
    return st;
}

/* ---- tokens ---- */

static dr_status add_eos(hf_config *c, const json_t *v, const char *where)
{
    int id = -1;
    dr_status st = DR_OK;

    DR_TRY(get_token(&id, v, "eos_token_id", c->vocab, where));
    for (int i = 0; i < c->eos_count; i++) {
        if (c->eos[i] == id)
            goto done;
    }
    if (id < 0)
        goto done;
    if (c->eos_count == HF_EOS_MAX)
        DR_FAIL(DR_EUNSUPPORTED, "%s: eos_token_id: more than %d tokens", where,
                HF_EOS_MAX);
    c->eos[c->eos_count++] = id;
done:
    return st;
}

/* An id or a list of ids. */
static dr_status add_eos_of(hf_config *c, const json_t *o, const char *where)
{
    const json_t *v = dr_json_get(o, "eos_token_id");
    dr_status st = DR_OK;

    if (!json_is_array(v))
        return add_eos(c, v, where);
    for (size_t i = 0; i < json_array_size(v); i++)
        DR_TRY(add_eos(c, json_array_get(v, i), where));
done:
    return st;
}

static dr_status one_token(int *out, const json_t *config, const json_t *generation,
                           const char *key, int dflt, int vocab, const char *where)
{
    const json_t *v = json_object_get(config, key);
    dr_status st = DR_OK;

    *out = v == NULL && dflt < vocab ? dflt : -1;
    if (v != NULL)
        DR_TRY(get_token(out, v, key, vocab, where));
    v = dr_json_get(generation, key);
    if (*out < 0 && v != NULL)
        DR_TRY(get_token(out, v, key, vocab, where));
done:
    return st;
}

static dr_status parse_tokens(hf_config *c, const json_t *config, const json_t *generation,
                              const char *where)
{
    int dflt = hf_family_of(c->arch)->eos;
    dr_status st = DR_OK;

    c->eos_count = 0;
    DR_TRY(add_eos_of(c, config, where));
    if (generation != NULL)
        DR_TRYF(add_eos_of(c, generation, "generation_config.json"), "beside %s", where);
    if (c->eos_count == 0 && json_object_get(config, "eos_token_id") == NULL && dflt >= 0 &&
        dflt < c->vocab)
        c->eos[c->eos_count++] = dflt;
    DR_TRY(one_token(&c->bos, config, generation, "bos_token_id",
                     hf_family_of(c->arch)->bos, c->vocab, where));
    DR_TRY(one_token(&c->pad, config, generation, "pad_token_id",
                     hf_family_of(c->arch)->pad, c->vocab, where));
done:
    return st;
}

dr_status hf_config_parse(dr_arena *a, hf_config *c, const json_t *config,
                          const json_t *generation, const char *where)
{
    dr_status st = DR_OK;

    *c = (hf_config){0};
    if (!json_is_object(config))
        DR_FAIL(DR_EFORMAT, "%s: expected an object, found %s", where,
                dr_json_type(config));
    if (generation != NULL && !json_is_object(generation))
        DR_FAIL(DR_EFORMAT,
                "generation_config.json beside %s: expected an object, found %s", where,
                dr_json_type(generation));
    DR_TRY(parse_arch(c, config, where));
    take_family(c);
    DR_TRY(parse_sizes(c, config, where));
    DR_TRY(parse_numbers(c, config, where));
    DR_TRY(parse_dtype(c, config, where));
    if (hf_family_of(c->arch)->more != NULL)
        DR_TRY(hf_family_of(c->arch)->more(c, config, where));
    DR_TRY(hf_layer_kinds_parse(a, c, config, where));
    DR_TRY(hf_rope_parse(a, c, config, where));
    DR_TRY(parse_tokens(c, config, generation, where));
done:
    return st;
}
