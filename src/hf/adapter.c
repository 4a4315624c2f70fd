/*
 * adapter.c - LoRA adapters as PEFT keeps them: adapter_config.json and
 * adapter_model.safetensors, or the older adapter_model.bin.
 *
 * Tensors name the modules (base_model.model.<module>.lora_A.weight [r, in], lora_B.weight
 * [out, r]); the config gives rank and scale, for single modules through rank_pattern and
 * alpha_pattern, whose keys are regular expressions that match the end of a module's name
 * (peft.utils.other.get_pattern_key).  target_modules is not needed for reading.
 *
 * A DoRA adapter has a magnitude for each output besides (lora_magnitude_vector [out]).
 * What changes the result and is not done here is refused by name: other adapter types,
 * biases, whole modules saved along, and starts that alter the base (PiSSA, ...).
 */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/mem.h"
#include "hf/peft_impl.h"
#include "hf/pickled_impl.h"
#include "hf/roles_impl.h"
#include "hf/st_impl.h"

static const char prefix[] = HF_PEFT_PREFIX;

/* ---- adapter_config.json ---- */

struct settings {
    const json_t *rank_pattern, *alpha_pattern; /* borrowed */
    int r;
    double alpha, dropout;
    bool rslora, dora;
};

/* Keys that must be absent, null, false or empty. */
dr_status hf_adapter_refuse_extras(const json_t *o, const char *where)
{
    static const struct {
        const char *key, *what;
    } extras[] = {
        {"modules_to_save", "modules saved whole (modules_to_save)"},
        {"lora_bias", "a bias of lora_B (lora_bias)"},
        {"fan_in_fan_out", "transposed weights (fan_in_fan_out)"},
        {"use_qalora", "QALoRA"},
        {"use_bdlora", "block-diagonal LoRA"},
        {"layer_replication", "layer_replication"},
        {"trainable_token_indices", "trainable_token_indices"},
        {"target_parameters", "target_parameters"},
        {"alora_invocation_tokens", "activated LoRA"},
        {"arrow_config", "Arrow"},
        {"velora_config", "VeLoRA"},
        {"monteclora_config", "MonteCLoRA"},
        {"kasa_config", "KaSA"},
    };

    for (size_t i = 0; i < DR_COUNT(extras); i++) {
        const json_t *v = dr_json_get(o, extras[i].key);
        bool empty = v == NULL || json_is_false(v) ||
                     (json_is_array(v) && json_array_size(v) == 0) ||
                     (json_is_object(v) && json_object_size(v) == 0);
        if (!empty)
            return dr_fail(DR_EUNSUPPORTED, "%s: %s is not supported", where,
                           extras[i].what);
    }
    return DR_OK;
}

/* init_lora_weights that take something out of the base weights. */
static dr_status refuse_inits(const json_t *o, const char *where)
{
    static const char *const names[] = {"pissa", "olora", "corda", "loftq", "lora_ga"};
    const char *init = json_string_value(dr_json_get(o, "init_lora_weights"));
    dr_status st;

    for (size_t i = 0; i < DR_COUNT(names) && init != NULL; i++) {
        if (strncmp(init, names[i], strlen(names[i])) != 0)
            continue;
        st = dr_fail(DR_EUNSUPPORTED,
                     "%s: init_lora_weights %s changes the base model: not "
                     "supported",
                     where, init);
        dr_hint("save it with PEFT's path_initial_model_for_weight_conversion");
        return st;
    }
    return DR_OK;
}

static dr_status read_numbers(struct settings *s, const json_t *o, const char *where)
{
    int64_t r = 8; /* PEFT's defaults */
    dr_status st = DR_OK;

    s->alpha = 8;
    DR_TRY(dr_json_int(o, "r", &r, where));
    if (r < 1 || r > 1 << 16)
        DR_FAIL(DR_EFORMAT, "%s: r: %lld is not between 1 and %d", where, (long long)r,
                1 << 16);
    s->r = (int)r;
    DR_TRY(dr_json_real(o, "lora_alpha", &s->alpha, where));
    DR_TRY(dr_json_real(o, "lora_dropout", &s->dropout, where));
    if (!(fabs(s->alpha) <= 1e9) || !(s->dropout >= 0 && s->dropout <= 1))
        DR_FAIL(DR_EFORMAT, "%s: lora_alpha %g or lora_dropout %g is out of range", where,
                s->alpha, s->dropout);
    DR_TRY(dr_json_bool(o, "use_rslora", &s->rslora, where));
    DR_TRY(dr_json_bool(o, "use_dora", &s->dora, where));
    s->rank_pattern = dr_json_get(o, "rank_pattern");
    s->alpha_pattern = dr_json_get(o, "alpha_pattern");
done:
    return st;
}

static dr_status read_settings(struct settings *s, const json_t *o, const char *where)
{
    const char *type = NULL, *bias = "none";
    dr_status st = DR_OK;

    if (!json_is_object(o))
        DR_FAIL(DR_EFORMAT, "%s: expected an object, found %s", where, dr_json_type(o));
    DR_TRY(dr_json_str(o, "peft_type", &type, where));
    if (type == NULL)
        DR_FAIL(DR_EFORMAT, "%s: peft_type is missing", where);
    if (strcmp(type, "LORA") != 0) {
        st = dr_fail(DR_EUNSUPPORTED,
                     "%s: adapters of type %s are not supported, only LORA", where, type);
        if (strcmp(type, "LOHA") == 0 || strcmp(type, "LOKR") == 0)
            dr_hint("merge it into its base: drupe convert -m BASE -a ADAPTER --to "
                    "safetensors");
        goto done;
    }
    DR_TRY(dr_json_str(o, "bias", &bias, where));
    if (strcmp(bias, "none") != 0)
        DR_FAIL(DR_EUNSUPPORTED, "%s: bias %s is not supported, only none", where, bias);
    DR_TRY(hf_adapter_refuse_extras(o, where));
    DR_TRY(refuse_inits(o, where));
    DR_TRY(read_numbers(s, o, where));
done:
    return st;
}

/* The value of the first key that matches the end of the module's name. */
dr_status hf_adapter_by_pattern(double *out, const json_t *patterns, const char *module,
                                const char *where)
{
    dr_arena a = {0};
    const char *key;
    json_t *value, *list = json_deep_copy(patterns);
    dr_status st = DR_OK;

    json_object_foreach(list, key, value)
    {
        bool hit = false;
        const char *whole = dr_arena_printf(&a, "(?:.*\\.)?(?:%s)", key);
        DR_TRY(hf_pattern_match(&hit, whole, true, module, where));
        if (!hit)
            continue;
        if (!json_is_number(value))
            DR_FAIL(DR_EFORMAT, "%s: %s: expected a number, found %s", where, key,
                    dr_json_type(value));
        *out = json_number_value(value);
        break;
    }
done:
    json_decref(list);
    dr_arena_release(&a);
    return st;
}

static dr_status module_scale(hf_lora_module *mod, const struct settings *s,
                              const char *where)
{
    double r = s->r, alpha = s->alpha;
    dr_status st = DR_OK;

    DR_TRY(hf_adapter_by_pattern(&r, s->rank_pattern, mod->module, where));
    DR_TRY(hf_adapter_by_pattern(&alpha, s->alpha_pattern, mod->module, where));
    if (r != (double)mod->r)
        DR_FAIL(DR_EFORMAT, "%s: rank of %s: %g here, %d in its tensors", where,
                mod->module, r, mod->r);
    mod->scale = (float)(s->rslora ? alpha / sqrt(r) : alpha / r);
done:
    return st;
}

/* ---- adapter_model.safetensors ---- */

/* What a tensor is to its module. */
typedef enum { PART_A, PART_B, PART_MAGNITUDE } part;

/* Cuts "base_model.model.<module>.lora_A.weight". */
static dr_status cut_name(dr_arena *a, const char **module, part *which, const char *name,
                          const char *where)
{
    static const struct {
        const char *tail;
        part which;
    } tails[] = {{".lora_A.weight", PART_A},
                 {".lora_B.weight", PART_B},
                 {".lora_magnitude_vector", PART_MAGNITUDE},
                 {".lora_magnitude_vector.weight", PART_MAGNITUDE}};
    size_t n = strlen(name), p = sizeof(prefix) - 1;

    if (strstr(name, "lora_embedding_") != NULL)
        return dr_fail(DR_EUNSUPPORTED, "%s: %s: adapters of embeddings are not supported",
                       where, name);
    for (size_t i = 0; i < DR_COUNT(tails); i++) {
        size_t t = strlen(tails[i].tail);
        if (n <= p + t || strncmp(name, prefix, p) != 0 ||
            strcmp(name + n - t, tails[i].tail) != 0)
            continue;
        *module = dr_arena_strndup(a, name + p, n - p - t);
        *which = tails[i].which;
        return DR_OK;
    }
    return dr_fail(DR_EUNSUPPORTED,
                   "%s: %s: neither lora_A.weight nor lora_B.weight of a "
                   "module",
                   where, name);
}

hf_lora_module *hf_adapter_module(hf_adapter *out, const char *name)
{
    for (size_t i = 0; i < out->count; i++) {
        if (strcmp(out->modules[i].module, name) == 0)
            return &out->modules[i];
    }
    hf_lora_module *mod = &out->modules[out->count++];
    mod->module = name;
    return mod;
}

/* A magnitude's length is compared with the module's outputs in check_magnitude. */
static dr_status take_magnitude(hf_adapter *out, hf_lora_module *mod, const dr_tensor *t,
                                const char *where)
{
    void *values = NULL;
    dr_status st = DR_OK;

    if (t->ndim != 1 || !dr_dtype_is_float(t->dtype) || t->dims[0] < 1)
        DR_FAIL(DR_EFORMAT, "%s: %s: expected a list of numbers, found %d dimensions of %s",
                where, t->name, t->ndim, dr_dtype_name(t->dtype));
    DR_TRY(dr_arena_big(&out->arena, &values, dr_tensor_count(t), sizeof(float), t->name));
    dr_to_f32(values, t->data, t->dtype, dr_tensor_count(t));
    mod->magnitude = values;
    mod->magnitude_count = (size_t)t->dims[0];
done:
    return st;
}

static dr_status take_matrix(hf_adapter *out, hf_lora_module *mod, part which,
                             const dr_tensor *t, const char *where)
{
    void *values = NULL;
    dr_status st = DR_OK;

    if (t->ndim != 2 || !dr_dtype_is_float(t->dtype) || t->dims[0] < 1 || t->dims[1] < 1)
        DR_FAIL(DR_EFORMAT,
                "%s: %s: expected a matrix of numbers, found %d dimensions of %s", where,
                t->name, t->ndim, dr_dtype_name(t->dtype));
    int64_t r = which == PART_A ? t->dims[0] : t->dims[1];
    if (r > 1 << 16)
        DR_FAIL(DR_EFORMAT, "%s: %s: a rank of %lld", where, t->name, (long long)r);
    if (mod->r != 0 && mod->r != r)
        DR_FAIL(DR_EFORMAT, "%s: %s: rank %lld, the other half has %d", where, t->name,
                (long long)r, mod->r);
    mod->r = (int)r;
    DR_TRY(dr_arena_big(&out->arena, &values, dr_tensor_count(t), sizeof(float), t->name));
    dr_to_f32(values, t->data, t->dtype, dr_tensor_count(t));
    if (which == PART_A) {
        mod->a = values;
        mod->n_in = (size_t)t->dims[1];
    } else {
        mod->b = values;
        mod->n_out = (size_t)t->dims[0];
    }
done:
    return st;
}

static dr_status take_tensor(hf_adapter *out, const dr_tensor *t, const char *where)
{
    const char *name = NULL;
    part which = PART_A;
    dr_status st = DR_OK;

    DR_TRY(cut_name(&out->arena, &name, &which, t->name, where));
    hf_lora_module *mod = hf_adapter_module(out, name);
    if (which == PART_MAGNITUDE)
        DR_TRY(take_magnitude(out, mod, t, where));
    else
        DR_TRY(take_matrix(out, mod, which, t, where));
done:
    return st;
}

/* A number that sorts modules as a layer has them, those outside layers last. */
static long rank_of(const char *module)
{
    static const char *const leaves[] = {"q_proj", "k_proj",       "v_proj",    "qkv_proj",
                                         "o_proj", "dense",        "gate_proj", "up_proj",
                                         "fc1",    "gate_up_proj", "down_proj", "fc2"};
    const char *at = strstr(module, "layers."), *dot = strrchr(module, '.');
    long layer = at != NULL ? strtol(at + 7, NULL, 10) : 1 << 20;
    long leaf = 0;

    while (leaf < (long)DR_COUNT(leaves) && dot != NULL &&
           strcmp(leaves[leaf], dot + 1) != 0)
        leaf++;
    return layer * 16 + leaf;
}

static int by_place(const void *a, const void *b)
{
    const hf_lora_module *p = a, *q = b;
    long x = rank_of(p->module), y = rank_of(q->module);

    return x != y ? (x < y ? -1 : 1) : strcmp(p->module, q->module);
}

void hf_adapter_sort(hf_adapter *a)
{
    qsort(a->modules, a->count, sizeof(*a->modules), by_place);
}

const hf_linear *hf_find_linear(const hf_model *m, const char *path)
{
    for (size_t i = 0; i + 1 < m->linear_count; i++) {
        if (strcmp(m->linears[i].path, path) == 0)
            return &m->linears[i];
    }
    return NULL;
}

static dr_status check_module(const hf_lora_module *mod, const hf_model *m,
                              const char *where)
{
    dr_status st;

    if (mod->a == NULL || mod->b == NULL)
        return dr_fail(DR_EFORMAT, "%s: %s has no lora_%c", where, mod->module,
                       mod->a == NULL ? 'A' : 'B');
    if (m == NULL)
        return DR_OK;
    const hf_linear *l = hf_find_linear(m, mod->module);
    if (l == NULL) {
        st = dr_fail(DR_EFORMAT, "%s: %s is no linear of %s", where, mod->module, m->path);
        dr_hint("the adapter was trained on another model");
        return st;
    }
    if (l->n_in != mod->n_in || l->n_out != mod->n_out)
        return dr_fail(DR_EFORMAT, "%s: %s: made for [%zu, %zu], the model has [%zu, %zu]",
                       where, mod->module, mod->n_out, mod->n_in, l->n_out, l->n_in);
    return DR_OK;
}

/* A magnitude for every output of every module, or none at all, as use_dora says. */
static dr_status check_magnitude(const hf_lora_module *mod, bool dora, const char *where)
{
    if (dora && mod->magnitude == NULL)
        return dr_fail(DR_EFORMAT, "%s: %s has no lora_magnitude_vector, use_dora is true",
                       where, mod->module);
    if (!dora && mod->magnitude != NULL)
        return dr_fail(DR_EFORMAT,
                       "%s: %s has a lora_magnitude_vector (DoRA), use_dora is not true",
                       where, mod->module);
    if (dora && mod->magnitude_count != mod->n_out)
        return dr_fail(DR_EFORMAT, "%s: %s: %zu magnitudes for %zu outputs", where,
                       mod->module, mod->magnitude_count, mod->n_out);
    return DR_OK;
}

dr_status hf_adapter_tensors(dr_arena *a, dr_map *map, const char **path,
                             dr_tensor **tensors, size_t *n, const char *dir)
{
    const char *pickled = dr_path_join(a, dir, "adapter_model.bin");
    bool torch = false;
    dr_status st = DR_OK;

    *path = dr_path_join(a, dir, "adapter_model.safetensors");
    torch = !dr_is_file(*path) && dr_is_file(pickled);
    if (torch)
        *path = pickled;
    DR_TRY(dr_map_open(map, *path));
    if (torch)
        DR_TRY(hf_torch_parse(a, tensors, n, map, *path));
    else
        DR_TRY(hf_st_parse(a, tensors, n, map, *path));
done:
    return st;
}

static dr_status read_weights(hf_adapter *out, const struct settings *s, const hf_model *m,
                              const char *dir, const char *config_path)
{
    dr_map map = {0};
    dr_tensor *tensors = NULL;
    const char *path = NULL;
    size_t n = 0;
    dr_status st = DR_OK;

    DR_TRY(hf_adapter_tensors(&out->arena, &map, &path, &tensors, &n, dir));
    if (n == 0)
        DR_FAIL(DR_EFORMAT, "%s: no tensors", path);
    out->modules = dr_calloc(n, sizeof(*out->modules));
    for (size_t i = 0; i < n; i++)
        DR_TRY(take_tensor(out, &tensors[i], path));
    hf_adapter_sort(out);
    for (size_t i = 0; i < out->count; i++) {
        DR_TRY(check_module(&out->modules[i], m, path));
        DR_TRY(check_magnitude(&out->modules[i], s->dora, path));
        DR_TRY(module_scale(&out->modules[i], s, config_path));
    }
done:
    dr_map_close(&map);
    return st;
}

static dr_status open_lora(hf_adapter *out, const json_t *config, const hf_model *m,
                           const char *dir, const char *where)
{
    struct settings s = {0};
    dr_status st = DR_OK;

    DR_TRY(read_settings(&s, config, where));
    out->r = s.r;
    out->alpha = s.alpha;
    out->dropout = s.dropout;
    out->rslora = s.rslora;
    out->dora = s.dora;
    DR_TRY(read_weights(out, &s, m, dir, where));
done:
    return st;
}

/* any: LoHa and LoKr, too. */
static dr_status open_folder(hf_adapter *out, const char *dir, const hf_model *m, bool any)
{
    json_t *config = NULL;
    dr_status st = DR_OK;

    *out = (hf_adapter){.path = dr_strdup(dir)};
    const char *path = dr_path_join(&out->arena, dir, "adapter_config.json");
    DR_TRY(dr_json_read(&config, path));
    const char *type = json_string_value(dr_json_get(config, "peft_type"));
    if (any && type != NULL && (strcmp(type, "LOHA") == 0 || strcmp(type, "LOKR") == 0)) {
        out->kind = strcmp(type, "LOHA") == 0 ? HF_ADAPTER_LOHA : HF_ADAPTER_LOKR;
        DR_TRY(hf_lycoris_open(out, config, m, dir, path));
    } else {
        DR_TRY(open_lora(out, config, m, dir, path));
    }
done:
    json_decref(config);
    if (st != DR_OK) {
        dr_note_at(__FILE__, __LINE__, "opening the adapter %s", dir);
        hf_adapter_release(out);
    }
    return st;
}

dr_status hf_adapter_open(hf_adapter *out, const char *dir, const hf_model *m)
{
    return open_folder(out, dir, m, false);
}

dr_status hf_adapter_open_any(hf_adapter *out, const char *dir, const hf_model *m)
{
    return open_folder(out, dir, m, true);
}

void hf_adapter_release(hf_adapter *a)
{
    free(a->path);
    free(a->modules);
    dr_arena_release(&a->arena);
    *a = (hf_adapter){0};
}

/* ---- writing ---- */

/* Whole numbers without a fraction, as PEFT writes lora_alpha; also those that a float
 * scale times a rank misses by its rounding. */
json_t *hf_adapter_number(double v)
{
    double whole = rint(v);

    if (fabs(v) < 1e15 && fabs(v - whole) <= 1e-6 * fabs(v))
        return json_integer((json_int_t)whole);
    return json_real(v);
}

/* Modules whose rank or alpha is not the adapter's. */
static void put_patterns(json_t *config, const hf_adapter *a)
{
    json_t *ranks = json_object(), *alphas = json_object();

    for (size_t i = 0; i < a->count; i++) {
        const hf_lora_module *mod = &a->modules[i];
        double r = mod->r;
        double usual = a->rslora ? a->alpha / sqrt(r) : a->alpha / r;
        if (mod->r != a->r)
            json_object_set_new(ranks, mod->module, json_integer(mod->r));
        if (mod->scale != (float)usual)
            json_object_set_new(
                alphas, mod->module,
                hf_adapter_number((double)mod->scale * (a->rslora ? sqrt(r) : r)));
    }
    json_object_set_new(config, "rank_pattern", ranks);
    json_object_set_new(config, "alpha_pattern", alphas);
}

/* The keys that every PEFT of the last years knows; older ones refuse others. */
static json_t *lora_config(const hf_adapter *a, const char *base_model, json_t *targets)
{
    return json_pack(
        "{s:n, s:s?, s:s, s:b, s:b, s:b, s:n, s:n, s:o, s:o, s:n, s:s, s:i, s:n, s:o, s:s, "
        "s:b, s:b}",
        "auto_mapping", "base_model_name_or_path", base_model, "bias", "none",
        "fan_in_fan_out", 0, "inference_mode", 1, "init_lora_weights", 1, "layers_pattern",
        "layers_to_transform", "lora_alpha", hf_adapter_number(a->alpha), "lora_dropout",
        json_real(a->dropout), "modules_to_save", "peft_type", "LORA", "r", a->r,
        "revision", "target_modules", targets, "task_type", "CAUSAL_LM", "use_dora",
        (int)a->dora, "use_rslora", (int)a->rslora);
}

static dr_status write_config(const hf_adapter *a, const char *path, const char *base_model,
                              const char *const *targets, size_t target_count)
{
    json_t *list = json_array(), *config = NULL;
    dr_status st = DR_OK;

    for (size_t i = 0; i < target_count; i++)
        json_array_append_new(list, json_string(targets[i]));
    config = a->kind == HF_ADAPTER_LORA ? lora_config(a, base_model, list)
                                        : hf_lycoris_config(a, base_model, list);
    if (config == NULL)
        DR_FAIL(DR_EFORMAT, "%s: a name that is not UTF-8 cannot be written", path);
    put_patterns(config, a);
    if (a->kind == HF_ADAPTER_LOKR)
        hf_lokr_keys(config, a);
    DR_TRY(dr_json_write(path, config));
done:
    json_decref(config);
    return st;
}

void hf_adapter_tensor(dr_tensor *t, dr_arena *a, const hf_lora_module *mod,
                       const char *tail, int64_t rows, int64_t cols, const float *values)
{
    *t = (dr_tensor){.name = dr_arena_printf(a, HF_PEFT_PREFIX "%s%s", mod->module, tail),
                     .dtype = DR_DTYPE_F32,
                     .ndim = cols > 0 ? 2 : 1,
                     .dims = {rows, cols},
                     .data = values};
    t->bytes = dr_tensor_count(t) * sizeof(float);
}

static size_t lora_tensors(dr_tensor *t, dr_arena *a, const hf_lora_module *mod)
{
    size_t n = 0;

    hf_adapter_tensor(&t[n++], a, mod, ".lora_A.weight", mod->r, (int64_t)mod->n_in,
                      mod->a);
    hf_adapter_tensor(&t[n++], a, mod, ".lora_B.weight", (int64_t)mod->n_out, mod->r,
                      mod->b);
    if (mod->magnitude != NULL)
        hf_adapter_tensor(&t[n++], a, mod, ".lora_magnitude_vector", (int64_t)mod->n_out, 0,
                          mod->magnitude);
    return n;
}

dr_status hf_adapter_write(const hf_adapter *a, const char *dir, const char *base_model,
                           const char *const *targets, size_t target_count)
{
    dr_arena arena = {0};
    size_t n = 0;
    dr_status st = DR_OK;

    dr_tensor *t = dr_arena_alloc(&arena, HF_FACTORS * a->count + 1, sizeof(*t));
    for (size_t i = 0; i < a->count; i++)
        n += a->kind == HF_ADAPTER_LORA
                 ? lora_tensors(t + n, &arena, &a->modules[i])
                 : hf_lycoris_tensors(t + n, &arena, &a->modules[i], a->kind);
    DR_TRY(dr_make_dirs(dir));
    DR_TRY(hf_st_write(dr_path_join(&arena, dir, "adapter_model.safetensors"), t, n));
    DR_TRY(write_config(a, dr_path_join(&arena, dir, "adapter_config.json"), base_model,
                        targets, target_count));
done:
    dr_arena_release(&arena);
    return st;
}
