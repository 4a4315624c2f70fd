/*
 * gguf_config.c - config.json and generation_config.json rebuilt from a GGUF's keys.
 *
 * The rotary embedding is said twice: rope_theta and rope_scaling as transformers 4 and
 * ONNX Runtime GenAI's builder read it, rope_parameters as transformers 5 does.
 *
 * Llama 3's scaling is not among the keys: its converter stores only the table of factors
 * that comes out (rope_freqs.weight).  All published models were made with one set of
 * constants, so the table is computed again from them and the largest factor; when it
 * comes out the same, that was the formula, else the file is refused.  The context that it
 * was trained with is 8192, or what the first factor between 1 and the largest says.
 *
 * Floats of the file are single precision; they are written with the fewest digits that
 * read back to the same single (1e-05, not 9.999999747378752e-06).
 */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hf/family_impl.h"
#include "hf/gguf_impl.h"

enum { LLAMA3_ORIGINAL_MAX = 8192, LLAMA3_LOW = 1, LLAMA3_HIGH = 4 };

/* ---- small makers ---- */

void gguf_put(json_t *o, const char *key, json_t *value)
{
    DR_BUG_IF(json_object_set_new(o, key, value) != 0);
}

json_t *gguf_short_real(double v)
{
    char text[64];
    int digits = 1;

    do
        (void)snprintf(text, sizeof(text), "%.*g", digits, v);
    while (strtof(text, NULL) != (float)v && digits++ < FLT_DECIMAL_DIG);
    return json_real(strtod(text, NULL));
}

/* ---- reading ---- */

static dr_status need(const gguf_file *g, const char *name, int64_t *out, int64_t max)
{
    const char *key = gguf_arch_key(g, name);

    if (gguf_find(g, key) == NULL)
        return dr_fail(DR_EFORMAT, "%s: %s is missing", g->path, key);
    dr_status st = gguf_int(g, key, out);
    if (st == DR_OK && (*out < 1 || *out > max))
        return dr_fail(DR_EFORMAT, "%s: %s: %lld is out of range", g->path, key,
                       (long long)*out);
    return st;
}

dr_status gguf_may(const gguf_file *g, const char *name, int64_t *out)
{
    const char *key = gguf_arch_key(g, name);

    dr_status st = gguf_int(g, key, out);
    if (st == DR_OK && (*out < 0 || *out > INT32_MAX))
        return dr_fail(DR_EFORMAT, "%s: %s: %lld is out of range", g->path, key,
                       (long long)*out);
    return st;
}

dr_status gguf_may_real(const gguf_file *g, const char *name, double *out)
{
    const char *key = gguf_arch_key(g, name);

    dr_status st = gguf_real(g, key, out);
    if (st == DR_OK && (!isfinite(*out) || *out < 0))
        return dr_fail(DR_EFORMAT, "%s: %s: %g is out of range", g->path, key, *out);
    return st;
}

/* head_count and head_count_kv may also be arrays, one number a layer; equal ones only. */
static dr_status need_heads(const gguf_file *g, const char *name, int64_t *out)
{
    const gguf_key *k = gguf_find(g, gguf_arch_key(g, name));

    if (k == NULL || !k->array)
        return need(g, name, out, INT32_MAX);
    if ((k->type != GGUF_I32 && k->type != GGUF_U32) || k->count == 0)
        return dr_fail(DR_EFORMAT, "%s: %s: expected whole numbers", g->path, k->key);
    *out = gguf_i32_at(k, 0);
    for (size_t i = 0; i < k->count; i++)
        if (gguf_i32_at(k, i) != *out || *out < 1)
            return dr_fail(DR_EUNSUPPORTED, "%s: %s: %d in layer %zu, %lld in layer 0",
                           g->path, k->key, gguf_i32_at(k, i), i, (long long)*out);
    return DR_OK;
}

static dr_status read_keys(const gguf_file *g, gguf_numbers *k)
{
    const gguf_tensor *embed = gguf_find_tensor(g, "token_embd.weight");
    dr_status st = DR_OK;

    DR_TRY(need(g, "block_count", &k->layers, 1 << 16));
    DR_TRY(need(g, "context_length", &k->context, INT32_MAX));
    DR_TRY(need(g, "embedding_length", &k->hidden, INT32_MAX));
    DR_TRY(need(g, "feed_forward_length", &k->intermediate, INT32_MAX));
    DR_TRY(need_heads(g, "attention.head_count", &k->heads));
    k->kv_heads = k->heads;
    if (gguf_find(g, gguf_arch_key(g, "attention.head_count_kv")) != NULL)
        DR_TRY(need_heads(g, "attention.head_count_kv", &k->kv_heads));
    k->head_dim = k->hidden / k->heads;
    DR_TRY(gguf_may(g, "attention.key_length", &k->head_dim));
    k->rope_dim = k->head_dim;
    DR_TRY(gguf_may(g, "rope.dimension_count", &k->rope_dim));
    DR_TRY(gguf_may(g, "attention.sliding_window", &k->window));
    int64_t value_dim = k->head_dim;
    DR_TRY(gguf_may(g, "attention.value_length", &value_dim));
    if (value_dim != k->head_dim)
        DR_FAIL(DR_EUNSUPPORTED, "%s: attention.value_length: %lld, but keys have %lld",
                g->path, (long long)value_dim, (long long)k->head_dim);
    DR_TRY(gguf_family_keys(g, k));
    k->eps = 1e-5;
    DR_TRY(gguf_may_real(g, gguf_eps_key(g->family), &k->eps));
    k->theta = 10000;
    DR_TRY(gguf_may_real(g, "rope.freq_base", &k->theta));
    if (embed == NULL || embed->ndim != 2 || embed->dims[1] > INT32_MAX)
        DR_FAIL(DR_EFORMAT, "%s: token_embd.weight is missing or not a matrix", g->path);
    k->vocab = embed->dims[1];
    if (k->rope_dim < 2 || k->rope_dim > k->head_dim || k->rope_dim % 2 != 0)
        DR_FAIL(DR_EFORMAT, "%s: rope.dimension_count: %lld of a head of %lld", g->path,
                (long long)k->rope_dim, (long long)k->head_dim);
    if (k->rope_dim != k->head_dim && hf_family_of(g->family)->partial_rotary == 0)
        DR_FAIL(DR_EUNSUPPORTED, "%s: rope.dimension_count: %lld of a head of %lld",
                g->path, (long long)k->rope_dim, (long long)k->head_dim);
done:
    return st;
}

/* ---- rotary scaling ---- */

float gguf_llama3_factor(const hf_rope *r, size_t i)
{
    float old = (float)r->original_max, factor = (float)r->factor;
    float low = (float)r->low_freq_factor, high = (float)r->high_freq_factor;
    double freq = 1 / pow(r->theta, 2 * (double)i / r->rotary_dim);
    float wave = (float)(2 * acos(-1.0) / freq);

    if (wave < old / high)
        return 1;
    if (wave > old / low)
        return factor;
    float smooth = (old / wave - low) / (high - low);
    return 1 / ((1 - smooth) / factor + smooth);
}

/* A rotary table of rope_dim / 2 floats; *out stays NULL when the file has none. */
static dr_status rope_table(const gguf_file *g, const gguf_numbers *k, const char *name,
                            float **out)
{
    const gguf_tensor *t = gguf_find_tensor(g, name);

    if (t == NULL)
        return DR_OK;
    if (t->ndim != 1 || t->dims[0] != k->rope_dim / 2 || t->type != 0)
        return dr_fail(DR_EFORMAT, "%s: %s: expected %lld elements of F32", g->path, name,
                       (long long)(k->rope_dim / 2));
    *out = dr_arena_alloc(&g->m->arena, (size_t)t->dims[0], sizeof(float));
    gguf_dequant(*out, t->data, t->type, (size_t)t->dims[0]);
    for (int64_t i = 0; i < t->dims[0]; i++)
        if (!isfinite((*out)[i]))
            return dr_fail(DR_EFORMAT, "%s: %s: element %lld is not a number", g->path,
                           name, (long long)i);
    return DR_OK;
}

/* The original context by an element that slides between 1 and the factor; 0: none does. */
static int64_t llama3_original_max(const hf_rope *r, const float *table)
{
    for (int i = 0; i < r->rotary_dim / 2; i++) {
        double t = (double)table[i], f = r->factor;
        double smooth = (1 / t - 1 / f) / (1 - 1 / f);
        double wave = 2 * acos(-1.0) * pow(r->theta, 2.0 * i / r->rotary_dim);
        double max = wave * (smooth * (r->high_freq_factor - r->low_freq_factor) +
                             r->low_freq_factor);

        if (smooth > 0.01 && smooth < 0.99 && max < INT32_MAX)
            return llround(max);
    }
    return 0;
}

/* The first element that the formula does not give; -1: it gives all. */
static int llama3_differs(const hf_rope *r, const float *table)
{
    for (int i = 0; i < r->rotary_dim / 2; i++) {
        float want = gguf_llama3_factor(r, (size_t)i);

        if (fabsf(table[i] - want) > 1e-3F * want)
            return i;
    }
    return -1;
}

static dr_status llama3_scaling(const gguf_file *g, const gguf_numbers *k, json_t **out)
{
    dr_status st = DR_OK;
    float *table = NULL, factor = 0;

    DR_TRY(rope_table(g, k, "rope_freqs.weight", &table));
    if (table == NULL)
        return DR_OK;
    for (int64_t i = 0; i < k->rope_dim / 2; i++)
        factor = fmaxf(factor, table[i]);
    if (factor == 1)
        return DR_OK; /* a table of ones scales nothing */
    hf_rope rope = {.theta = k->theta,
                    .factor = (double)factor,
                    .low_freq_factor = LLAMA3_LOW,
                    .high_freq_factor = LLAMA3_HIGH,
                    .original_max = LLAMA3_ORIGINAL_MAX,
                    .rotary_dim = (int)k->rope_dim};
    int i = llama3_differs(&rope, table);
    if (i >= 0) {
        float want = gguf_llama3_factor(&rope, (size_t)i);
        rope.original_max = llama3_original_max(&rope, table);
        if (rope.original_max < 2 || llama3_differs(&rope, table) >= 0)
            DR_FAIL(DR_EUNSUPPORTED,
                    "%s: rope_freqs.weight: element %d is %g, Llama 3's formula gives %g",
                    g->path, i, (double)table[i], (double)want);
    }
    *out = json_pack("{s:s, s:o, s:f, s:f, s:I}", "rope_type", "llama3", "factor",
                     gguf_short_real((double)factor), "low_freq_factor", (double)LLAMA3_LOW,
                     "high_freq_factor", (double)LLAMA3_HIGH,
                     "original_max_position_embeddings", (json_int_t)rope.original_max);
done:
    return st;
}

static json_t *float_list(const float *v, int64_t n)
{
    json_t *list = json_array();

    for (int64_t i = 0; i < n; i++)
        (void)json_array_append_new(list, gguf_short_real((double)v[i]));
    return list;
}

/* Three keys exactly: transformers 4 refuses a Phi-3 with more or fewer. */
static dr_status longrope_scaling(const gguf_file *g, gguf_numbers *k, json_t **out)
{
    dr_status st = DR_OK;
    float *lng = NULL, *shrt = NULL;

    DR_TRY(rope_table(g, k, "rope_factors_long.weight", &lng));
    DR_TRY(rope_table(g, k, "rope_factors_short.weight", &shrt));
    if (lng == NULL && shrt == NULL)
        return DR_OK;
    if (lng == NULL || shrt == NULL)
        DR_FAIL(DR_EFORMAT, "%s: rope_factors_%s.weight is missing", g->path,
                lng ? "short" : "long");
    DR_TRY(
        need(g, "rope.scaling.original_context_length", &k->original_context, INT32_MAX));
    double scale = (double)k->context / (double)k->original_context;
    double want = scale > 1 ? sqrt(1 + log(scale) / log((double)k->original_context)) : 1;
    k->attn_factor = want;
    DR_TRY(gguf_may_real(g, "rope.scaling.attn_factor", &k->attn_factor));
    if (fabs(k->attn_factor - want) > 1e-4)
        DR_FAIL(DR_EUNSUPPORTED, "%s: rope.scaling.attn_factor: %g, LongRoPE gives %g",
                g->path, k->attn_factor, want);
    *out = json_pack("{s:s, s:o, s:o}", "type", "longrope", "short_factor",
                     float_list(shrt, k->rope_dim / 2), "long_factor",
                     float_list(lng, k->rope_dim / 2));
done:
    return st;
}

/* attention_factor is written where the file scales more than yarn itself does. */
static dr_status yarn_scaling(const gguf_file *g, gguf_numbers *k, json_t **out)
{
    double fast = 0, slow = 0, attn[2] = {1, 1};
    dr_status st = DR_OK;

    DR_TRY(gguf_may_real(g, "rope.scaling.yarn_beta_fast", &fast));
    DR_TRY(gguf_may_real(g, "rope.scaling.yarn_beta_slow", &slow));
    DR_TRY(gguf_may_real(g, "rope.scaling.attn_factor", &attn[0]));
    DR_TRY(gguf_may_real(g, "rope.scaling.yarn_attn_factor", &attn[1]));
    DR_TRY(
        need(g, "rope.scaling.original_context_length", &k->original_context, INT32_MAX));
    *out = json_pack("{s:s, s:o, s:I}", "rope_type", "yarn", "factor",
                     gguf_short_real(k->factor), "original_max_position_embeddings",
                     (json_int_t)k->original_context);
    if (fast > 0)
        gguf_put(*out, "beta_fast", gguf_short_real(fast));
    if (slow > 0)
        gguf_put(*out, "beta_slow", gguf_short_real(slow));
    if (attn[0] * attn[1] != 1)
        gguf_put(*out, "attention_factor",
                 gguf_short_real(attn[0] * attn[1] * (1 + 0.1 * log(k->factor))));
done:
    return st;
}

/* *out: rope_scaling as transformers 4 has it, NULL when nothing is scaled. */
static dr_status rope_scaling(const gguf_file *g, gguf_numbers *k, json_t **out)
{
    dr_status st = DR_OK;

    DR_TRY(gguf_str(g, gguf_arch_key(g, "rope.scaling.type"), &k->scaling));
    DR_TRY(llama3_scaling(g, k, out));
    if (*out == NULL)
        DR_TRY(longrope_scaling(g, k, out));
    if (*out != NULL || k->scaling == NULL || strcmp(k->scaling, "none") == 0)
        return DR_OK;
    k->factor = 1;
    DR_TRY(gguf_may_real(g, "rope.scaling.factor", &k->factor));
    if (strcmp(k->scaling, "yarn") == 0) {
        if (k->factor > 1)
            DR_TRY(yarn_scaling(g, k, out));
        return st;
    }
    if (strcmp(k->scaling, "linear") != 0)
        DR_FAIL(DR_EUNSUPPORTED, "%s: rope.scaling.type: %s", g->path, k->scaling);
    if (k->factor > 1)
        *out = json_pack("{s:s, s:o}", "rope_type", "linear", "factor",
                         gguf_short_real(k->factor));
done:
    return st;
}

/* rope_parameters of transformers 5: the scaling with all that it needs. */
static json_t *rope_parameters(const gguf_numbers *k, json_t *scaling)
{
    json_t *p = scaling ? json_deep_copy(scaling) : json_object();
    json_t *type = json_object_get(p, "type");

    if (type != NULL)
        gguf_put(p, "rope_type", json_incref(type));
    else if (scaling == NULL)
        gguf_put(p, "rope_type", json_string("default"));
    gguf_put(p, "rope_theta", gguf_short_real(k->theta));
    if (k->original_context > 0)
        gguf_put(p, "original_max_position_embeddings", json_integer(k->original_context));
    if (k->rope_dim != k->head_dim)
        gguf_put(p, "partial_rotary_factor",
                 json_real((double)k->rope_dim / (double)k->head_dim));
    return p;
}

/* ---- config.json ---- */

static void put_sizes(const gguf_file *g, json_t *c, const gguf_numbers *k)
{
    const hf_family *f = hf_family_of(g->family);
    bool gelu = f->act == HF_ACT_GELU_TANH;

    gguf_put(c, "vocab_size", json_integer(k->vocab));
    gguf_put(c, "hidden_size", json_integer(k->hidden));
    gguf_put(c, "intermediate_size", json_integer(k->intermediate));
    gguf_put(c, "num_hidden_layers", json_integer(k->layers));
    gguf_put(c, "num_attention_heads", json_integer(k->heads));
    gguf_put(c, "num_key_value_heads", json_integer(k->kv_heads));
    if (k->head_dim * k->heads != k->hidden || f->head_dim > 0)
        gguf_put(c, "head_dim", json_integer(k->head_dim));
    gguf_put(c, "max_position_embeddings", json_integer(k->context));
    gguf_put(c, "hidden_act", json_string(gelu ? "gelu_pytorch_tanh" : "silu"));
    gguf_put(c, f->eps_key != NULL ? f->eps_key : "rms_norm_eps", gguf_short_real(k->eps));
    gguf_put(c, "initializer_range", json_real(0.02));
    gguf_put(c, "attention_dropout", json_real(0));
    gguf_put(c, "use_cache", json_true());
}

/* Gemma 3: layers with a window rotate by themselves, which transformers 5 says so. */
static void put_local_rope(json_t *c, const gguf_numbers *k)
{
    json_t *both =
        json_pack("{s:O, s:{s:s, s:o}}", "full_attention",
                  json_object_get(c, "rope_parameters"), "sliding_attention", "rope_type",
                  "default", "rope_theta", gguf_short_real(k->theta_local));

    gguf_put(c, "rope_parameters", both);
    gguf_put(c, "rope_local_base_freq", gguf_short_real(k->theta_local));
}

static void put_rope(const gguf_file *g, json_t *c, const gguf_numbers *k, json_t *scaling)
{
    gguf_put(c, "rope_theta", gguf_short_real(k->theta));
    gguf_put(c, "rope_scaling", scaling ? json_incref(scaling) : json_null());
    gguf_put(c, "rope_parameters", rope_parameters(k, scaling));
    if (k->original_context > 0 && hf_family_of(g->family)->layout == HF_LAYOUT_FUSED)
        gguf_put(c, "original_max_position_embeddings", json_integer(k->original_context));
    if (k->rope_dim != k->head_dim)
        gguf_put(c, "partial_rotary_factor",
                 json_real((double)k->rope_dim / (double)k->head_dim));
    if (k->theta_local > 0)
        put_local_rope(c, k);
}

/* Half precision files keep their type; blocks become bfloat16, which all devices take. */
static const char *dtype_name(const gguf_file *g)
{
    dr_dtype dtype = gguf_block_of(gguf_main_type(g)).dtype;

    if (dtype == DR_DTYPE_F32 || dtype == DR_DTYPE_F16)
        return dtype == DR_DTYPE_F32 ? "float32" : "float16";
    return "bfloat16";
}

dr_status gguf_token_id(const gguf_file *g, const char *name, int64_t count, int64_t *out)
{
    const char *key = dr_arena_printf(&g->m->arena, "tokenizer.ggml.%s", name);

    *out = -1;
    dr_status st = gguf_int(g, key, out);
    if (st != DR_OK || *out == -1 || *out == UINT32_MAX) {
        *out = -1; /* some converters write -1 for none */
        return st;
    }
    if (*out < 0 || *out >= count)
        return dr_fail(DR_EFORMAT, "%s: %s: token %lld of %lld", g->path, key,
                       (long long)*out, (long long)count);
    return DR_OK;
}

static void put_token(json_t *o, const char *key, int64_t id)
{
    gguf_put(o, key, id < 0 ? json_null() : json_integer(id));
}

/* ---- generation_config.json ---- */

/* Tokens that end a turn, by text, as llama.cpp knows them: a GGUF names one end of
 * sequence, the model's own generation config often several (Phi-3's <|end|>). */
static bool ends_turn(gguf_text t)
{
    /* DeepSeek's, with a wide bar and SentencePiece's blanks. */
    static const char deepseek[] = "<\xef\xbd\x9c"
                                   "end\xe2\x96\x81"
                                   "of\xe2\x96\x81sentence\xef\xbd\x9c>";
    static const char *const names[] = {
        "<|eot_id|>",      "<|im_end|>",         "<|end|>",    "<|return|>",
        "<|end_of_text|>", "<|endoftext|>",      "<|eom_id|>", "<end_of_turn>",
        "<|end_of_turn|>", "<end_of_utterance>", "<EOT>",      deepseek,
    };

    for (size_t i = 0; i < DR_COUNT(names); i++)
        if (strlen(names[i]) == t.len && memcmp(names[i], t.text, t.len) == 0)
            return true;
    return false;
}

static void add_id(json_t *list, int64_t id)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (json_integer_value(json_array_get(list, i)) == id)
            return;
    if (id >= 0 && json_array_size(list) < HF_EOS_MAX)
        (void)json_array_append_new(list, json_integer(id));
}

/* The end of sequence first, then what else ends a turn. */
static dr_status end_ids(const gguf_file *g, int64_t vocab, int64_t eos, json_t *list)
{
    const gguf_key *tokens = NULL;
    dr_status st = DR_OK;
    int64_t id = -1;

    add_id(list, eos);
    DR_TRY(gguf_token_id(g, "eot_token_id", vocab, &id));
    add_id(list, id);
    DR_TRY(gguf_token_id(g, "eom_token_id", vocab, &id));
    add_id(list, id);
    DR_TRY(gguf_array(g, "tokenizer.ggml.tokens", GGUF_STRING, &tokens));
    if (tokens == NULL)
        goto done;
    gguf_cursor c = gguf_strings(g, tokens);
    for (int64_t i = 0; i < (int64_t)tokens->count && i < vocab; i++)
        if (ends_turn(gguf_next_string(&c)))
            add_id(list, i);
done:
    return st;
}

dr_status gguf_make_config(gguf_file *g)
{
    dr_status st = DR_OK;
    gguf_numbers k = {0};
    int64_t bos = -1, eos = -1, pad = -1;
    json_t *scaling = NULL, *ends = json_array(), *c = json_object();

    DR_TRY(read_keys(g, &k));
    DR_TRY(rope_scaling(g, &k, &scaling));
    DR_TRY(gguf_token_id(g, "bos_token_id", k.vocab, &bos));
    DR_TRY(gguf_token_id(g, "eos_token_id", k.vocab, &eos));
    DR_TRY(gguf_token_id(g, "padding_token_id", k.vocab, &pad));
    DR_TRY(end_ids(g, k.vocab, eos, ends));

    gguf_put(c, "architectures", json_pack("[s]", hf_family_of(g->family)->arch_name));
    gguf_put(c, "model_type", json_string(hf_family_of(g->family)->model_type));
    put_sizes(g, c, &k);
    put_rope(g, c, &k, scaling);
    gguf_family_put(g, c, &k);
    gguf_put(c, "tie_word_embeddings", json_boolean(!gguf_find_tensor(g, "output.weight")));
    put_token(c, "bos_token_id", bos);
    put_token(c, "eos_token_id", eos);
    put_token(c, "pad_token_id", pad);
    gguf_put(c, "torch_dtype", json_string(dtype_name(g)));
    g->m->config = json_incref(c);

    json_t *ids = json_array_size(ends) == 1 ? json_array_get(ends, 0) : ends;
    g->m->generation = json_object();
    put_token(g->m->generation, "bos_token_id", bos);
    gguf_put(g->m->generation, "eos_token_id",
             json_array_size(ends) == 0 ? json_null() : json_incref(ids));
    put_token(g->m->generation, "pad_token_id", pad);
done:
    json_decref(scaling);
    json_decref(ends);
    json_decref(c);
    return st;
}
