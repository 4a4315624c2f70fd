/*
 * footprint.c - drupe.json: what made a folder, so that drupe knows its own and a later run
 * can tell whether it would make the same.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/hash.h"
#include "core/json.h"
#include "core/mem.h"
#include "flow/flow_impl.h"

enum { WHOLE_BYTES = 1 << 20, SAMPLE_BYTES = 4096, SAMPLES = 64 };

static dr_status add_file(dr_buf *b, const char *path, const char *name, bool times)
{
    dr_map map = {0};
    int64_t ns = 0;
    char hex[DR_SHA256_HEX];
    dr_status st = DR_OK;

    DR_TRY(dr_map_open(&map, path));
    DR_TRY(dr_buf_addf(b, "%s %zu", name, map.size));
    if (times) {
        DR_TRY(dr_file_time(&ns, path));
        DR_TRY(dr_buf_addf(b, " %lld", (long long)ns));
    }
    if (map.size <= WHOLE_BYTES) {
        dr_sha256(hex, map.data, map.size);
        DR_TRY(dr_buf_addf(b, " %s\n", hex));
        goto done;
    }
    size_t step = (map.size - SAMPLE_BYTES) / (SAMPLES - 1);
    for (size_t i = 0; i < SAMPLES; i++) {
        size_t at = i + 1 < SAMPLES ? i * step : map.size - SAMPLE_BYTES;
        dr_sha256(hex, map.data + at, SAMPLE_BYTES);
        DR_TRY(dr_buf_addf(b, " %.16s", hex));
    }
    DR_TRY(dr_buf_adds(b, "\n"));
done:
    dr_map_close(&map);
    return st;
}

/* Not the model: what drupe and Olive write beside it, and hidden files. */
bool flow_no_model_file(const char *name)
{
    return name[0] == '.' || strcmp(name, "drupe.json") == 0 ||
           strcmp(name, "model_config.json") == 0;
}

/* A file, or the files of a folder by name. */
static dr_status add_path(dr_buf *b, const char *path, const char *label, bool times)
{
    dr_arena arena = {0};
    char **names = NULL;
    size_t count = 0;
    dr_status st = DR_OK;

    DR_TRY(dr_buf_addf(b, "%s\n", label));
    if (dr_is_file(path)) {
        DR_TRY(add_file(b, path, "file", times));
        goto done;
    }
    DR_TRY(dr_list_dir(&arena, path, &names, &count));
    for (size_t i = 0; i < count; i++) {
        const char *file = dr_path_join(&arena, path, names[i]);
        if (!flow_no_model_file(names[i]) && dr_is_file(file))
            DR_TRY(add_file(b, file, names[i], times));
    }
done:
    dr_arena_release(&arena);
    return st;
}

static dr_status add_data(dr_buf *b, const data_options *data, const char *label,
                          bool times)
{
    dr_arena arena = {0};
    char **paths = NULL;
    size_t count = 0;
    dr_status st = DR_OK;

    if (data == NULL || data->data_files == NULL)
        return DR_OK;
    DR_TRY(data_files_split(&arena, &paths, &count, data->data_files));
    for (size_t i = 0; i < count; i++)
        DR_TRY(add_path(b, paths[i], label, times));
done:
    dr_arena_release(&arena);
    return st;
}

static dr_status fingerprint(char hex[65], const pass_model *in, const data_options *data,
                             const data_options *eval, bool times)
{
    dr_arena arena = {0};
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, (size_t)16 << 20);
    DR_TRY(add_path(&b, in->path, "model", times));
    if (in->attributes != NULL)
        DR_TRY(dr_buf_addf(&b, "attributes %s\n", in->attributes));
    for (size_t i = 0; i < in->adapter_count; i++) {
        const char *name = in->adapters[i].name;
        const char *label = dr_arena_printf(&arena, "adapter %s", name ? name : "");
        DR_TRYF(add_path(&b, in->adapters[i].path, label, times), "reading the adapter");
    }
    DR_TRY(add_data(&b, data, "data", times));
    DR_TRY(add_data(&b, eval, "evaluation data", times));
    dr_sha256(hex, b.data, b.len);
done:
    dr_buf_release(&b);
    dr_arena_release(&arena);
    return st;
}

dr_status flow_fingerprint(char hex[65], const pass_model *in, const data_options *data,
                           const data_options *eval)
{
    return fingerprint(hex, in, data, eval, false);
}

static void set_string(json_t *j, const char *key, const char *text)
{
    if (text != NULL)
        json_object_set_new(j, key, json_string(text));
}

/* The data options that change what a pass sees; the files count by the fingerprint. */
static json_t *data_json(const data_options *o)
{
    json_t *j = json_object();

    set_string(j, "data_name",
               o->self_written        ? "self"
               : o->data_name != NULL ? o->data_name
                                      : "built-in text");
    set_string(j, "split", o->split);
    set_string(j, "text_field", o->text_field);
    set_string(j, "text_template", o->text_template);
    json_object_set_new(j, "use_chat_template", json_boolean(o->use_chat_template));
    if (o->answers_only)
        json_object_set_new(j, "completion_only_loss", json_true());
    json_object_set_new(j, "add_special_tokens", json_boolean(o->add_special_tokens));
    set_string(j, "strategy", data_strategy_name(o->strategy));
    if (o->stride > 0)
        json_object_set_new(j, "stride", json_integer((json_int_t)o->stride));
    if (o->random_seed > 0)
        json_object_set_new(j, "random_seed", json_integer((json_int_t)o->random_seed));
    if (o->self_written)
        json_object_set_new(j, "temperature", json_real(o->temperature));
    json_object_set_new(j, "max_seq_len", json_integer((json_int_t)o->max_seq_len));
    json_object_set_new(j, "max_samples", json_integer((json_int_t)o->max_samples));
    return j;
}

dr_status flow_file_key(json_t *j, const char *key, const char *path)
{
    char hex[DR_SHA256_HEX];
    dr_status st = DR_OK;

    DR_TRY(dr_sha256_file(hex, path));
    set_string(j, key, hex);
done:
    return st;
}

dr_status flow_data_key(json_t **out, const data_options *o)
{
    json_t *j = data_json(o);
    dr_arena a = {0};
    char **paths = NULL;
    size_t count = 0;
    dr_status st = DR_OK;

    if (o->data_files != NULL)
        DR_TRY(data_files_split(&a, &paths, &count, o->data_files));
    for (size_t i = 0; i < count; i++)
        DR_TRY(flow_file_key(j, dr_arena_printf(&a, "file %zu", i), paths[i]));
    *out = j;
    j = NULL;
done:
    json_decref(j);
    dr_arena_release(&a);
    return st;
}

json_t *flow_footprint_json(const flow_spec *spec, const char *input_hash,
                            const json_t *steps, bool with_data)
{
    json_t *j = json_object();

    set_string(j, "drupe", DRUPE_VERSION);
    set_string(j, "device", spec->device != NULL ? spec->device : "cpu");
    set_string(j, "input_fingerprint", input_hash);
    if (with_data)
        json_object_set_new(j, "data", data_json(&spec->data));
    if (spec->eval != NULL)
        json_object_set_new(j, "eval_data", data_json(spec->eval));
    json_object_set(j, "passes", (json_t *)(uintptr_t)steps);
    return j;
}

dr_status flow_write_footprint(const char *dir, const flow_spec *spec,
                               const char *input_hash, const json_t *steps, bool with_data)
{
    dr_arena arena = {0};
    json_t *j = flow_footprint_json(spec, input_hash, steps, with_data);
    dr_status st = DR_OK;

    DR_TRY(dr_json_write(dr_path_join(&arena, dir, "drupe.json"), j));
done:
    json_decref(j);
    dr_arena_release(&arena);
    return st;
}

dr_status flow_state_key(char hex[65], const flow_spec *spec, const pass_model *in,
                         const json_t *steps, bool with_data)
{
    json_t *j = NULL;
    dr_status st = DR_OK;

    DR_TRY(fingerprint(hex, in, with_data ? &spec->data : NULL, spec->eval, true));
    j = flow_footprint_json(spec, hex, steps, with_data);
    if (!dr_json_sha256(hex, j))
        DR_FAIL(DR_EUSAGE, "a name that is not UTF-8 cannot be in drupe.json");
done:
    json_decref(j);
    return st;
}

/* Digits as numbers, the rest by byte. */
static int by_number(const void *a, const void *b)
{
    static const char digits[] = "0123456789";
    const char *x = *(const char *const *)a, *y = *(const char *const *)b;

    for (; *x != '\0' && *x == *y && strchr(digits, *x) == NULL; x++)
        y++;
    const size_t n = strspn(x, digits), m = strspn(y, digits);
    return n > 0 && m > 0 && n != m ? (n < m ? -1 : 1) : strcmp(x, y);
}

dr_status flow_list_graphs(dr_arena *a, const char *const **files, size_t *count,
                           const char *folder)
{
    char **all = NULL;
    size_t n = 0;
    dr_status st = DR_OK;

    *count = 0;
    DR_TRY(dr_list_dir(a, folder, &all, &n));
    const char **list = dr_arena_alloc(a, n + 1, sizeof(*list));
    for (size_t i = 0; i < n; i++)
        if (dr_ends_with(all[i], ".onnx"))
            list[(*count)++] = all[i];
    qsort(list, *count, sizeof(*list), by_number);
    *files = list;
done:
    return st;
}

dr_status flow_write_settings(const char *dir, const pass_model *m)
{
    const char *const keys[] = {"model_attributes", "inference_settings"};
    const char *const texts[] = {m->attributes, m->settings};
    dr_arena a = {0};
    const char *path = dr_path_join(&a, dir, "model_config.json");
    json_t *j = NULL, *value = NULL;
    dr_status st = DR_OK;

    if (m->attributes == NULL && m->settings == NULL)
        goto done;
    DR_TRY(dr_json_read(&j, path));
    for (size_t i = 0; i < DR_COUNT(keys); i++) {
        if (texts[i] == NULL)
            continue;
        DR_TRY(dr_json_parse(&value, texts[i], strlen(texts[i]), keys[i]));
        json_object_set_new(json_object_get(j, "config"), keys[i], value);
    }
    DR_TRY(dr_json_write(path, j));
done:
    json_decref(j);
    dr_arena_release(&a);
    return st;
}

static json_t *onnx_config(const char *file)
{
    return json_pack("{s:s, s:{s:s, s:s}}", "type", "ONNXModel", "config", "model_path",
                     ".", "onnx_file_name", file);
}

/* Graphs of fixed shapes are several files: Olive's CompositeModel, by their first words.
 * */
static dr_status composite(json_t **out, dr_arena *a, const char *model)
{
    json_t *parts = json_array(), *names = json_array();
    const char *const *files = NULL;
    size_t count = 0;
    dr_status st = DR_OK;

    DR_TRY(flow_list_graphs(a, &files, &count, model));
    for (size_t i = 0; i < count; i++) {
        const size_t word = strcspn(files[i], "_."), all = strcspn(files[i], ".");
        bool alike = false; /* split_0, split_1: by their whole names */
        for (size_t k = 0; k < count; k++)
            alike = alike || (k != i && strncmp(files[k], files[i], word) == 0 &&
                              strcspn(files[k], "_.") == word);
        json_array_append_new(parts, onnx_config(dr_arena_printf(a, "model/%s", files[i])));
        json_array_append_new(names, json_stringn(files[i], alike ? all : word));
    }
    if (json_array_size(parts) == 1)
        *out = json_incref(json_array_get(parts, 0));
    else
        *out = json_pack("{s:s, s:{s:O, s:O}}", "type", "CompositeModel", "config",
                         "model_components", parts, "model_component_names", names);
done:
    json_decref(parts);
    json_decref(names);
    return st;
}

dr_status flow_write_onnx_config(const char *dir)
{
    dr_arena a = {0};
    const char *model = dr_path_join(&a, dir, "model");
    json_t *j = NULL;
    dr_status st = DR_OK;

    if (dr_is_file(dr_path_join(&a, model, "model.onnx")))
        j = onnx_config("model/model.onnx");
    else
        DR_TRY(composite(&j, &a, model));
    DR_TRY(dr_json_write(dr_path_join(&a, dir, "model_config.json"), j));
done:
    json_decref(j);
    dr_arena_release(&a);
    return st;
}
