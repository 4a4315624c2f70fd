/*
 * config.c - config.json and generation_config.json into an hf_config.
 *
 * Keys are read as transformers 4 and 5 write them; what is absent takes the default of the
 * family's config class.  Every number is checked against a range: a config is often edited
 * by hand, and a wrong size found here is one message instead of a crash in a kernel.
 */
#include "hf/config_impl.h"

#include <stdio.h>
#include <string.h>

#include "core/json.h"
#include "core/log.h"

/* Defaults of the families' config classes, in the order of arch.def. */
static const struct {
    const char *name;
    const char *model_type;
    bool fused, qkv_bias;
} archs[] = {
#define HF_ARCH(id, hf_name, type, genai_type, fused_, qkv_bias_)                          \
    {hf_name, type, fused_, qkv_bias_},
#include "hf/arch.def"
#undef HF_ARCH
};

static const struct {
    int64_t max_position;
    double norm_eps;
    int bos, eos, pad; /* -1: none */
} defaults[HF_ARCH_COUNT] = {
    [HF_ARCH_LLAMA] = {2048, 1e-6, 1, 2, -1},
    [HF_ARCH_QWEN2] = {32768, 1e-6, -1, -1, -1},
    [HF_ARCH_PHI3] = {4096, 1e-5, 1, 32000, 32000},
};

/* ---- values ---- */

/* An integer of [min, max]; *out keeps its default when absent, unless that is below min,
 * which makes the key required. */
static dr_status get_int(int *out, const json_t *o, const char *key, int min, int max,
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
    char list[256] = "";
    size_t n = 0;

    for (size_t i = 0; i < DR_COUNT(archs); i++)
        n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", i ? ", " : "",
                              archs[i].name);
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
    for (size_t i = 0; i < DR_COUNT(archs); i++) {
        if (strcmp(name ? name : type, name ? archs[i].name : archs[i].model_type) != 0)
            continue;
        c->arch = (hf_arch)i;
        c->arch_name = archs[i].name;
        c->model_type = archs[i].model_type;
        c->fused = archs[i].fused;
        c->qkv_bias = archs[i].qkv_bias;
        goto done;
    }
    DR_TRY(unknown_arch(name ? name : type, where));
done:
    return st;
}

/* ---- parts ---- */

static dr_status parse_sizes(hf_config *c, const json_t *o, const char *where)
{
    int64_t position = defaults[c->arch].max_position;
    dr_status st = DR_OK;

    DR_TRY(get_int(&c->layers, o, "num_hidden_layers", 1, 4096, where));
    DR_TRY(get_int(&c->hidden, o, "hidden_size", 1, 1 << 20, where));
    DR_TRY(get_int(&c->intermediate, o, "intermediate_size", 1, 1 << 24, where));
    DR_TRY(get_int(&c->vocab, o, "vocab_size", 1, 1 << 26, where));
    DR_TRY(get_int(&c->heads, o, "num_attention_heads", 1, 1 << 16, where));
    c->kv_heads = c->heads;
    DR_TRY(get_int(&c->kv_heads, o, "num_key_value_heads", 1, c->heads, where));
    if (c->heads % c->kv_heads != 0)
        DR_FAIL(DR_EFORMAT,
                "%s: num_attention_heads: %d is not a multiple of "
                "num_key_value_heads, %d",
                where, c->heads, c->kv_heads);
    if (dr_json_get(o, "head_dim") != NULL) {
        DR_TRY(get_int(&c->head_dim, o, "head_dim", 1, HF_HEAD_DIM_MAX, where));
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
done:
    return st;
}

static dr_status parse_numbers(hf_config *c, const json_t *o, const char *where)
{
    const char *act = "silu";
    dr_status st = DR_OK;

    c->norm_eps = defaults[c->arch].norm_eps;
    DR_TRY(dr_json_real(o, "rms_norm_eps", &c->norm_eps, where));
    if (!(c->norm_eps >= 0) || c->norm_eps > 1)
        DR_FAIL(DR_EFORMAT, "%s: rms_norm_eps: %g is not between 0 and 1", where,
                c->norm_eps);
    DR_TRY(dr_json_str(o, "hidden_act", &act, where));
    if (strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0)
        DR_FAIL(DR_EUNSUPPORTED, "%s: hidden_act: %s is not supported, only silu", where,
                act);
    DR_TRY(dr_json_bool(o, "tie_word_embeddings", &c->tied, where));
    if (c->arch == HF_ARCH_LLAMA) {
        DR_TRY(dr_json_bool(o, "attention_bias", &c->qkv_bias, where));
        c->o_bias = c->qkv_bias;
        DR_TRY(dr_json_bool(o, "mlp_bias", &c->mlp_bias, where));
    }
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

/* layer_types of Qwen2: full attention up to a layer, the window from there on. */
static dr_status window_layers(hf_config *c, const json_t *types, const char *where)
{
    size_t n = json_array_size(types);
    int first = c->layers;
    dr_status st = DR_OK;

    if (n != (size_t)c->layers)
        DR_FAIL(DR_EFORMAT, "%s: layer_types: expected %d names, found %zu", where,
                c->layers, n);
    for (int i = 0; i < c->layers; i++) {
        const char *type = json_string_value(json_array_get(types, (size_t)i));
        if (type != NULL && strcmp(type, "sliding_attention") == 0)
            first = first < i ? first : i;
        else if (type == NULL || strcmp(type, "full_attention") != 0)
            DR_FAIL(DR_EUNSUPPORTED, "%s: layer_types: %s of layer %d is not supported",
                    where, type ? type : "what is there", i);
        else if (first < i)
            DR_FAIL(DR_EUNSUPPORTED,
                    "%s: layer_types: full attention in layer %d after a "
                    "window in layer %d is not supported",
                    where, i, first);
    }
    c->window_layer0 = first;
done:
    return st;
}

static dr_status parse_window(hf_config *c, const json_t *o, const char *where)
{
    const json_t *types = dr_json_get(o, "layer_types");
    bool use = c->arch == HF_ARCH_PHI3;
    int64_t window = c->arch == HF_ARCH_QWEN2 ? 4096 : 0;
    int64_t from = c->arch == HF_ARCH_QWEN2 ? 28 : 0;
    dr_status st = DR_OK;

    if (c->arch == HF_ARCH_QWEN2)
        DR_TRY(dr_json_bool(o, "use_sliding_window", &use, where));
    if (!use || (json_object_get(o, "sliding_window") != NULL &&
                 dr_json_get(o, "sliding_window") == NULL))
        goto done;
    DR_TRY(dr_json_int(o, "sliding_window", &window, where));
    if (window == 0)
        goto done;
    if (window < 0)
        DR_FAIL(DR_EFORMAT, "%s: sliding_window: %lld is not above zero", where,
                (long long)window);
    if (c->arch == HF_ARCH_QWEN2 && types != NULL) {
        DR_TRY(window_layers(c, types, where));
    } else if (c->arch == HF_ARCH_QWEN2) {
        DR_TRY(dr_json_int(o, "max_window_layers", &from, where));
        if (from < 0)
            DR_FAIL(DR_EFORMAT, "%s: max_window_layers: %lld is below zero", where,
                    (long long)from);
        c->window_layer0 = from < c->layers ? (int)from : c->layers;
    }
    /* A window as long as the context, or one that no layer uses, is none. */
    if (window < c->max_position && c->window_layer0 < c->layers)
        c->sliding_window = window;
done:
    if (c->sliding_window == 0)
        c->window_layer0 = 0;
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
    int dflt = defaults[c->arch].eos;
    dr_status st = DR_OK;

    c->eos_count = 0;
    DR_TRY(add_eos_of(c, config, where));
    if (generation != NULL)
        DR_TRYF(add_eos_of(c, generation, "generation_config.json"), "beside %s", where);
    if (c->eos_count == 0 && json_object_get(config, "eos_token_id") == NULL && dflt >= 0 &&
        dflt < c->vocab)
        c->eos[c->eos_count++] = dflt;
    DR_TRY(one_token(&c->bos, config, generation, "bos_token_id", defaults[c->arch].bos,
                     c->vocab, where));
    DR_TRY(one_token(&c->pad, config, generation, "pad_token_id", defaults[c->arch].pad,
                     c->vocab, where));
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
    DR_TRY(parse_sizes(c, config, where));
    DR_TRY(parse_numbers(c, config, where));
    DR_TRY(parse_dtype(c, config, where));
    DR_TRY(parse_window(c, config, where));
    DR_TRY(hf_rope_parse(a, c, config, where));
    DR_TRY(parse_tokens(c, config, generation, where));
done:
    return st;
}
