/*
 * quant_config.c - quantization_config of config.json: how a checkpoint says that its
 * weights are packed; read and written.
 *
 * Methods: awq (gemm, 4 bits), gptq (2, 4 and 8 bits), olive, compressed-tensors (format
 * pack-quantized), bitsandbytes (4 bits, which bnb.c reads).  Any other is refused by name.
 * Single modules may have other settings:
 *
 *            key        patterns                                 best match
 *   olive    overrides  a name, or a regular expression after    the longest, then the
 *                       "re:" that matches the whole name        first in the alphabet
 *   gptq     dynamic    a regular expression that matches the    the first in the file
 *                       name's beginning; after "-:" not packed
 *   com-     config_    a name; a regular expression after       a name, then a pattern,
 *   pressed  groups     "re:" that matches the beginning;        then Linear
 *                       Linear, for all
 */
#include <stdio.h>
#include <string.h>

#include "core/json.h"
#include "hf/roles_impl.h"

static const char *const method_names[] = {
    [HF_QUANT_NONE] = "none",
    [HF_QUANT_AWQ] = "awq",
    [HF_QUANT_GPTQ] = "gptq",
    [HF_QUANT_OLIVE] = "olive",
    [HF_QUANT_COMPRESSED] = "compressed-tensors",
};

dr_status hf_quant_check(const hf_quant *q, const char *what)
{
    bool bits =
        q->bits == 4 || (q->method != HF_QUANT_AWQ && (q->bits == 2 || q->bits == 8));

    if (!bits)
        return dr_fail(DR_EUNSUPPORTED,
                       "%s: %d bits are not supported in the %s format "
                       "(%s)",
                       what, q->bits, method_names[q->method],
                       q->method == HF_QUANT_AWQ ? "4" : "2, 4, 8");
    if (q->group != -1 && (q->group < 16 || q->group > 1 << 20))
        return dr_fail(DR_EUNSUPPORTED,
                       "%s: group_size %d is not supported (-1, or 16 and "
                       "more)",
                       what, q->group);
    return DR_OK;
}

/* bits, group and symmetric; keys that are absent stay as they are. */
static dr_status parse_grid(hf_quant *q, const json_t *o, const char *where)
{
    const char *group_key = dr_json_get(o, "group_size") ? "group_size" : "block_size";
    const char *sym_key = q->method == HF_QUANT_GPTQ ? "sym" : "symmetric";
    int64_t bits = q->bits, group = q->group;
    bool zero_point = !q->symmetric;
    dr_status st = DR_OK;

    DR_TRY(dr_json_int(o, "bits", &bits, where));
    DR_TRY(dr_json_int(o, group_key, &group, where));
    if (q->method == HF_QUANT_AWQ) {
        DR_TRY(dr_json_bool(o, "zero_point", &zero_point, where));
        q->symmetric = !zero_point;
    } else {
        DR_TRY(dr_json_bool(o, sym_key, &q->symmetric, where));
    }
    q->bits = bits < 0 || bits > 64 ? 0 : (int)bits;
    q->group = group < -1 || group > INT32_MAX ? 0 : (int)group;
    DR_TRYF(hf_quant_check(q, where), "quantization_config: bits %lld, %s %lld",
            (long long)bits, group_key, (long long)group);
done:
    return st;
}

static dr_status parse_awq(hf_quant *q, const json_t *o, const char *where)
{
    const char *version = "gemm";
    dr_status st = DR_OK;

    *q = (hf_quant){HF_QUANT_AWQ, 4, 128, false};
    DR_TRY(parse_grid(q, o, where));
    DR_TRY(dr_json_str(o, "format", &version, where));
    DR_TRY(dr_json_str(o, "version", &version, where));
    if (strcmp(version, "gemm") != 0 && strcmp(version, "GEMM") != 0)
        DR_FAIL(DR_EUNSUPPORTED,
                "%s: quantization_config: version %s of awq is not "
                "supported, only gemm",
                where, version);
done:
    return st;
}

static dr_status parse_gptq(hf_quant *q, bool *v2, const json_t *o, const char *where)
{
    const char *format = "gptq";
    dr_status st = DR_OK;

    *q = (hf_quant){HF_QUANT_GPTQ, 4, 128, true};
    DR_TRY(parse_grid(q, o, where));
    DR_TRY(dr_json_str(o, "format", &format, where));
    DR_TRY(dr_json_str(o, "checkpoint_format", &format, where));
    *v2 = strcmp(format, "gptq_v2") == 0;
    if (!*v2 && strcmp(format, "gptq") != 0)
        DR_FAIL(DR_EUNSUPPORTED,
                "%s: quantization_config: checkpoint_format %s is not "
                "supported (gptq, gptq_v2)",
                where, format);
done:
    return st;
}

/* The weights of a config group: an even grid of integers, the inputs left alone. */
static dr_status parse_group(hf_quant *q, const json_t *group, const char *where)
{
    const json_t *w = dr_json_get(group, "weights");
    const char *type = "int", *strategy = "", *format = "pack-quantized";
    int64_t bits = 0, size = 0;
    dr_status st = DR_OK;

    *q = (hf_quant){.method = HF_QUANT_COMPRESSED, .symmetric = true};
    if (!json_is_object(w))
        DR_FAIL(DR_EFORMAT, "%s: weights: expected an object, found %s", where,
                dr_json_type(w));
    DR_TRY(dr_json_str(group, "format", &format, where));
    DR_TRY(dr_json_str(w, "type", &type, where));
    DR_TRY(dr_json_str(w, "strategy", &strategy, where));
    DR_TRY(dr_json_int(w, "num_bits", &bits, where));
    DR_TRY(dr_json_int(w, "group_size", &size, where));
    DR_TRY(dr_json_bool(w, "symmetric", &q->symmetric, where));
    if (strcmp(format, "pack-quantized") != 0)
        DR_FAIL(DR_EUNSUPPORTED, "%s: format %s is not supported, only pack-quantized",
                where, format);
    if (strcmp(type, "int") != 0)
        DR_FAIL(DR_EUNSUPPORTED, "%s: weights of type %s are not supported, only int",
                where, type);
    if (dr_json_get(group, "input_activations") != NULL ||
        dr_json_get(group, "output_activations") != NULL)
        DR_FAIL(DR_EUNSUPPORTED, "%s: quantized activations are not supported", where);
    if (strcmp(strategy, "channel") == 0)
        size = -1;
    else if (strcmp(strategy, "group") != 0)
        DR_FAIL(DR_EUNSUPPORTED, "%s: strategy \"%s\" is not supported (group, channel)",
                where, strategy);
    q->bits = bits < 0 || bits > 64 ? 0 : (int)bits;
    q->group = size < -1 || size > INT32_MAX ? 0 : (int)size;
    DR_TRY(hf_quant_check(q, where));
done:
    return st;
}

/* Every group must be one that is read; the first stands for the model. */
static dr_status parse_compressed(hf_quant *q, const json_t *o, const char *where)
{
    json_t *groups = json_object_get(o, "config_groups"), *group = NULL;
    const json_t *sparse = dr_json_get(o, "sparsity_config");
    const char *format = "", *sparsity = "dense", *name = NULL;
    hf_quant one = {0};
    dr_status st = DR_OK;

    DR_TRY(dr_json_str(o, "format", &format, where));
    DR_TRY(dr_json_str(sparse, "format", &sparsity, where));
    if (strcmp(format, "pack-quantized") != 0)
        DR_FAIL(DR_EUNSUPPORTED,
                "%s: quantization_config: format \"%s\" of compressed-tensors is not "
                "supported, only pack-quantized",
                where, format);
    if (strcmp(sparsity, "dense") != 0)
        DR_FAIL(DR_EUNSUPPORTED,
                "%s: quantization_config: sparsity_config: format %s is not supported",
                where, sparsity);
    if (dr_json_get(o, "kv_cache_scheme") != NULL)
        DR_FAIL(DR_EUNSUPPORTED,
                "%s: quantization_config: kv_cache_scheme is not supported", where);
    if (json_object_size(dr_json_get(o, "transform_config")) > 0)
        DR_FAIL(DR_EUNSUPPORTED,
                "%s: quantization_config: transform_config is not supported", where);
    if (json_object_size(groups) == 0)
        DR_FAIL(DR_EFORMAT, "%s: quantization_config: config_groups is missing", where);
    json_object_foreach(groups, name, group)
    {
        DR_TRYF(parse_group(&one, group, where), "quantization_config: config_groups: %s",
                name);
        if (q->method == HF_QUANT_NONE)
            *q = one;
    }
done:
    return st;
}

/* bitsandbytes: the files say the grids; only 4 bits are read. */
static dr_status parse_bnb(bool *bnb, const json_t *o, const char *where)
{
    bool four = false;
    dr_status st = DR_OK;

    DR_TRY(dr_json_bool(o, "load_in_4bit", &four, where));
    if (!four) {
        st = dr_fail(DR_EUNSUPPORTED,
                     "%s: quantization_config: bitsandbytes with 8 bits is not supported, "
                     "only load_in_4bit",
                     where);
        dr_hint("start from the model that was quantized");
        return st;
    }
    *bnb = true;
done:
    return st;
}

dr_status hf_quant_parse(hf_model *m)
{
    const char *where = m->config_path, *method = NULL;
    const json_t *o = dr_json_get(m->config, "quantization_config");
    hf_quant *q = &m->quant;
    dr_status st = DR_OK;

    *q = (hf_quant){.method = HF_QUANT_NONE};
    if (o == NULL)
        goto done;
    if (!json_is_object(o))
        DR_FAIL(DR_EFORMAT, "%s: quantization_config: expected an object, found %s", where,
                dr_json_type(o));
    DR_TRY(dr_json_str(o, "quant_method", &method, where));
    if (method == NULL)
        DR_FAIL(DR_EFORMAT, "%s: quantization_config: quant_method is missing", where);
    if (strcmp(method, "awq") == 0) {
        DR_TRY(parse_awq(q, o, where));
    } else if (strcmp(method, "gptq") == 0) {
        DR_TRY(parse_gptq(q, &m->gptq_v2, o, where));
    } else if (strcmp(method, "olive") == 0) {
        *q = (hf_quant){HF_QUANT_OLIVE, 4, -1, true};
        DR_TRY(parse_grid(q, o, where));
    } else if (strcmp(method, "mxfp4") == 0) {
        /* gpt-oss: experts only, which experts.c reads as floats */
    } else if (strcmp(method, "compressed-tensors") == 0) {
        DR_TRY(parse_compressed(q, o, where));
    } else if (strcmp(method, "bitsandbytes") == 0) {
        DR_TRY(parse_bnb(&m->bnb, o, where));
    } else {
        st = dr_fail(DR_EUNSUPPORTED,
                     "%s: quantization_config: quant_method %s is not "
                     "supported",
                     where, method);
        dr_hint("supported: awq, gptq, olive, mxfp4, compressed-tensors (pack-quantized), "
                "bitsandbytes (4 bits); or start from the model that was quantized");
    }
done:
    return st;
}

/* ---- settings of single modules ---- */

/* The key of overrides that fits best, NULL: none. */
static dr_status best_override(const char **best, json_t *overrides, const char *module,
                               const char *where)
{
    const char *pattern;
    json_t *value;
    dr_status st = DR_OK;

    *best = NULL;
    json_object_foreach(overrides, pattern, value)
    {
        bool hit = strcmp(pattern, module) == 0;
        if (strncmp(pattern, "re:", 3) == 0)
            DR_TRY(hf_pattern_match(&hit, pattern + 3, true, module, where));
        if (hit && (*best == NULL || strlen(pattern) > strlen(*best) ||
                    (strlen(pattern) == strlen(*best) && strcmp(pattern, *best) < 0)))
            *best = pattern;
    }
done:
    return st;
}

static dr_status first_dynamic(const char **best, json_t *dynamic, const char *module,
                               const char *where)
{
    const char *pattern;
    json_t *value;
    dr_status st = DR_OK;

    *best = NULL;
    json_object_foreach(dynamic, pattern, value)
    {
        bool hit = false;
        bool sign = strncmp(pattern, "+:", 2) == 0 || strncmp(pattern, "-:", 2) == 0;
        DR_TRY(hf_pattern_match(&hit, pattern + (sign ? 2 : 0), false, module, where));
        if (hit) {
            *best = pattern;
            break;
        }
    }
done:
    return st;
}

/* How well a group's targets fit a module: 3 its name, 2 a pattern, 1 Linear, 0 not. */
static dr_status group_fit(int *fit, const json_t *group, const char *module,
                           const char *where)
{
    const json_t *targets = dr_json_get(group, "targets");
    dr_status st = DR_OK;

    *fit = 0;
    for (size_t i = 0; i < json_array_size(targets); i++) {
        const char *t = json_string_value(json_array_get(targets, i));
        bool hit = false;
        if (t == NULL)
            DR_FAIL(DR_EFORMAT, "%s: targets: expected text, found %s", where,
                    dr_json_type(json_array_get(targets, i)));
        if (strncmp(t, "re:", 3) == 0)
            DR_TRY(hf_pattern_match(&hit, t + 3, false, module, where));
        int one = strcmp(t, module) == 0 ? 3 : hit ? 2 : strcmp(t, "Linear") == 0;
        *fit = one > *fit ? one : *fit;
    }
done:
    return st;
}

static dr_status group_of_module(hf_quant *out, json_t *groups, const char *module,
                                 const char *where)
{
    const char *name = NULL;
    json_t *group = NULL;
    const json_t *best = NULL;
    int most = 0, fit = 0;
    dr_status st = DR_OK;

    json_object_foreach(groups, name, group)
    {
        DR_TRYF(group_fit(&fit, group, module, where), "config_groups: %s", name);
        if (fit > most) {
            most = fit;
            best = group;
        }
    }
    if (best == NULL)
        DR_FAIL(DR_EFORMAT, "%s: config_groups: none is for %s, which is packed", where,
                module);
    DR_TRY(parse_group(out, best, where));
done:
    return st;
}

dr_status hf_quant_of_module(hf_quant *out, const hf_model *m, const char *module)
{
    json_t *config = json_object_get(m->config, "quantization_config");
    bool olive = m->quant.method == HF_QUANT_OLIVE;
    json_t *list = json_object_get(config, olive ? "overrides" : "dynamic");
    const char *best = NULL;
    dr_status st = DR_OK;

    *out = m->quant;
    if (m->quant.method == HF_QUANT_COMPRESSED)
        return group_of_module(out, json_object_get(config, "config_groups"), module,
                               m->config_path);
    if (olive)
        DR_TRY(best_override(&best, list, module, m->config_path));
    else if (m->quant.method == HF_QUANT_GPTQ)
        DR_TRY(first_dynamic(&best, list, module, m->config_path));
    if (best != NULL && strncmp(best, "-:", 2) != 0)
        DR_TRYF(parse_grid(out, json_object_get(list, best), m->config_path),
                "settings of %s", best);
done:
    return st;
}

/* ---- writing ---- */

static bool same_grid(const hf_quant *a, const hf_quant *b)
{
    return a->bits == b->bits && a->group == b->group && a->symmetric == b->symmetric;
}

static void set(json_t *o, const char *key, json_t *value)
{
    DR_BUG_IF(json_object_set_new(o, key, value) != 0);
}

/* GPTQ's pattern of one module: its name with the dots escaped. */
static void add_dynamic(json_t *list, char sign, const char *module, json_t *value)
{
    char key[2 * HF_NAME_MAX];
    size_t n = 0;

    key[n++] = sign;
    key[n++] = ':';
    key[n++] = '^';
    for (const char *p = module; *p != '\0' && n + 4 < sizeof(key); p++) {
        if (*p == '.')
            key[n++] = '\\';
        key[n++] = *p;
    }
    key[n++] = '$';
    key[n] = '\0';
    set(list, key, value);
}

static json_t *grid_json(const hf_quant *q)
{
    const char *sym = q->method == HF_QUANT_GPTQ ? "sym" : "symmetric";

    return json_pack("{s:i, s:i, s:b}", "bits", q->bits, "group_size", q->group, sym,
                     (int)q->symmetric);
}

/* Modules that differ from base: plain ones into skip, others into special. */
static void list_modules(json_t *skip, json_t *special, const hf_model *m,
                         const hf_quant *base, const hf_quant *formats)
{
    for (size_t i = 0; i + 1 < m->linear_count; i++) {
        const hf_linear *l = &m->linears[i];
        bool plain = formats[i].method == HF_QUANT_NONE;
        if (plain && l->layer >= 0 && base->method == HF_QUANT_GPTQ)
            add_dynamic(special, '-', l->path, json_object());
        else if (plain && l->layer >= 0)
            json_array_append_new(skip, json_string(l->path));
        else if (!plain && !same_grid(base, &formats[i]) && base->method == HF_QUANT_GPTQ)
            add_dynamic(special, '+', l->path, grid_json(&formats[i]));
        else if (!plain && !same_grid(base, &formats[i]))
            set(special, l->path, grid_json(&formats[i]));
    }
}

/* One of compressed-tensors' config groups; targets is taken over. */
static json_t *group_json(const hf_quant *q, json_t *targets)
{
    json_t *size = q->group == -1 ? json_null() : json_integer(q->group);

    return json_pack(
        "{s:o, s:{s:i, s:s, s:b, s:s, s:o, s:b, s:n}, s:n, s:n, s:s}", "targets", targets,
        "weights", "num_bits", q->bits, "type", "int", "symmetric", (int)q->symmetric,
        "strategy", q->group == -1 ? "channel" : "group", "group_size", size, "dynamic", 0,
        "actorder", "input_activations", "output_activations", "format", "pack-quantized");
}

/* The group of base, and one for each other grid that a linear has, by their names. */
static json_t *groups_json(const hf_model *m, const hf_quant *base, const hf_quant *formats)
{
    json_t *groups = json_object(), *targets = json_pack("[s]", "Linear");
    char name[HF_NAME_MAX];

    set(groups, "group_0", group_json(base, targets));
    for (size_t i = 0; i + 1 < m->linear_count; i++) {
        bool first = formats[i].method != HF_QUANT_NONE && !same_grid(base, &formats[i]);
        for (size_t k = 0; k < i && first; k++)
            first =
                formats[k].method == HF_QUANT_NONE || !same_grid(&formats[k], &formats[i]);
        if (!first)
            continue;
        targets = json_array();
        for (size_t k = i; k + 1 < m->linear_count; k++) {
            if (formats[k].method != HF_QUANT_NONE && same_grid(&formats[k], &formats[i]))
                json_array_append_new(targets, json_string(m->linears[k].path));
        }
        (void)snprintf(name, sizeof(name), "group_%zu", json_object_size(groups));
        set(groups, name, group_json(&formats[i], targets));
    }
    return groups;
}

static json_t *compressed_json(const hf_model *m, const hf_quant *base,
                               const hf_quant *formats, json_t *skip, bool head_packed)
{
    if (!head_packed)
        json_array_append_new(skip, json_string("lm_head"));
    return json_pack("{s:s, s:s, s:s, s:o, s:O, s:n}", "quant_method",
                     method_names[base->method], "format", "pack-quantized",
                     "quantization_status", "compressed", "config_groups",
                     groups_json(m, base, formats), "ignore", skip, "kv_cache_scheme");
}

/* What GPTQ's readers want to know. */
static void gptq_keys(json_t *o, const hf_quant *base, bool head_packed, json_t *special)
{
    set(o, "damp_percent", json_real(0.01));
    set(o, "desc_act", json_false());
    set(o, "sym", json_boolean(base->symmetric));
    set(o, "true_sequential", json_true());
    set(o, "lm_head", json_boolean(head_packed));
    set(o, "checkpoint_format", json_string("gptq"));
    if (json_object_size(special) > 0)
        set(o, "dynamic", json_incref(special));
}

/* A packed embedding is a tied model's head, too. */
static void olive_keys(json_t *o, const hf_model *m, const hf_quant *base,
                       const hf_quant *formats, bool head_packed, json_t *special)
{
    const hf_linear *embed = hf_embed_linear(m);
    const hf_quant *own = &formats[embed - m->linears];
    bool packed = own->method != HF_QUANT_NONE;

    if (packed && !same_grid(base, own))
        set(special, embed->path, grid_json(own));
    set(o, "symmetric", json_boolean(base->symmetric));
    set(o, "lm_head", json_boolean(head_packed || (packed && m->c.tied)));
    set(o, "embeds", json_boolean(packed));
    set(o, "overrides", json_object_size(special) > 0 ? json_incref(special) : json_null());
    set(o, "tie_word_embeddings", json_boolean(packed && m->c.tied));
}

json_t *hf_quant_json(const hf_model *m, const hf_quant *base, const hf_quant *formats)
{
    const hf_linear *head = hf_head_linear(m);
    bool head_packed = head != NULL && formats[head - m->linears].method != HF_QUANT_NONE;
    json_t *o = json_object(), *skip = json_array(), *special = json_object();

    list_modules(skip, special, m, base, formats);
    set(o, "quant_method", json_string(method_names[base->method]));
    set(o, "bits", json_integer(base->bits));
    set(o, "group_size", json_integer(base->group));
    if (base->method == HF_QUANT_COMPRESSED) {
        json_decref(o);
        o = compressed_json(m, base, formats, skip, head_packed);
    } else if (base->method == HF_QUANT_GPTQ) {
        gptq_keys(o, base, head_packed, special);
    } else if (base->method == HF_QUANT_AWQ) {
        set(o, "zero_point", json_boolean(!base->symmetric));
        set(o, "version", json_string("gemm"));
    } else {
        olive_keys(o, m, base, formats, head_packed, special);
    }
    if (base->method == HF_QUANT_AWQ || base->method == HF_QUANT_OLIVE)
        set(o, "modules_to_not_convert",
            json_array_size(skip) > 0 ? json_incref(skip) : json_null());
    json_decref(skip);
    json_decref(special);
    return o;
}

/* ---- for people ---- */

const char *hf_quant_origin(hf_model *m)
{
    static const struct {
        dr_dtype dtype;
        const char *name;
    } plain[] = {{DR_DTYPE_BF16, "bf16"}, {DR_DTYPE_F16, "f16"}, {DR_DTYPE_F32, "f32"}};
    const hf_quant *q = &m->quant;
    const char *text = hf_bnb_origin(m);

    if (q->method != HF_QUANT_NONE && q->group == -1)
        text = dr_arena_printf(&m->arena, "%s %d bit", method_names[q->method], q->bits);
    else if (q->method != HF_QUANT_NONE)
        text = dr_arena_printf(&m->arena, "%s %d bit group %d", method_names[q->method],
                               q->bits, q->group);
    if (text != NULL && m->unordered > 0)
        text = dr_arena_printf(&m->arena, "%s, inputs out of order", text);
    if (text != NULL)
        return text;
    for (size_t i = 0; i < DR_COUNT(plain); i++) {
        if (plain[i].dtype == m->c.dtype)
            return plain[i].name;
    }
    return dr_dtype_name(m->c.dtype);
}
