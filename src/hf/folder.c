/*
 * folder.c - a Hugging Face folder as a source of an hf_model: its configs, and its weights
 * in the first form that is there:
 *
 *     model.safetensors, model.safetensors.index.json and its shards,
 *     pytorch_model.bin, pytorch_model.bin.index.json and its shards
 *
 * An index is a file from strangers like the rest: it may name files beside it and nothing
 * else, and each tensor must be in the file that it says.
 */
#include <stdlib.h>
#include <string.h>

#include "hf/hf_impl.h"
#include "hf/pickled_impl.h"
#include "hf/st_impl.h"

/* The tensors of a mapped file: hf_st_parse, hf_torch_parse. */
typedef dr_status (*parse_fn)(dr_arena *a, dr_tensor **tensors, size_t *count,
                              const dr_map *map, const char *where);

static const struct form {
    const char *single, *index;
    parse_fn parse;
} forms[] = {
    {"model.safetensors", "model.safetensors.index.json", hf_st_parse},
    {"pytorch_model.bin", "pytorch_model.bin.index.json", hf_torch_parse},
};

/* Adds the tensors of one file; file_of (may be NULL) is the index that each must be in. */
static dr_status load_file(hf_model *m, const char *path, const json_t *file_of,
                           parse_fn parse)
{
    dr_map map = {0};
    dr_tensor *tensors = NULL;
    size_t n = 0;
    dr_status st = DR_OK;

    DR_TRY(hf_model_add_map(m, path, &map));
    DR_TRY(parse(&m->arena, &tensors, &n, &map, path));
    for (size_t i = 0; i < n; i++) {
        const char *home = json_string_value(json_object_get(file_of, tensors[i].name));
        if (file_of != NULL && (home == NULL || strcmp(home, dr_path_base(path)) != 0))
            DR_FAIL(DR_EFORMAT, "%s: %s: the index places it in %s", path, tensors[i].name,
                    home ? home : "no file");
        hf_entry *e = hf_model_add_entry(m);
        e->t = tensors[i];
        e->type = dr_dtype_name(e->t.dtype);
        e->read = dr_dtype_is_float(e->t.dtype) ? hf_read_plain : NULL;
        DR_TRY(hf_entry_shape(e, e->t.dims, e->t.ndim, path));
    }
done:
    return st;
}

static int by_text(const void *a, const void *b)
{
    const char *const *p = a, *const *q = b;

    return strcmp(*p, *q);
}

/* The different file names of an index, sorted. */
static dr_status shard_names(dr_arena *a, const char ***out, size_t *count, json_t *file_of,
                             const char *where)
{
    const char *name;
    json_t *value;
    size_t n = 0, kept = 0;
    dr_status st = DR_OK;

    const char **names = dr_arena_alloc(a, json_object_size(file_of) + 1, sizeof(*names));
    json_object_foreach(file_of, name, value)
    {
        const char *file = json_string_value(value);
        if (file == NULL || file[0] == '\0' || strchr(file, '/') != NULL)
            DR_FAIL(DR_EFORMAT,
                    "%s: weight_map: %s: expected the name of a file beside it, found %s%s",
                    where, name, file != NULL ? "" : "a value of type ",
                    file == NULL       ? dr_json_type(value)
                    : file[0] == '\0' ? "\"\""
                                      : file);
        names[n++] = file;
    }
    qsort(names, n, sizeof(*names), by_text);
    for (size_t i = 0; i < n; i++) {
        if (kept == 0 || strcmp(names[kept - 1], names[i]) != 0)
            names[kept++] = names[i];
    }
    *out = names;
    *count = kept;
done:
    return st;
}

/* The index has more tensors than the files: says which is missing. */
static dr_status name_missing(const hf_model *m, json_t *file_of, const char *where)
{
    json_t *there = json_object(), *value = NULL;
    const char *name = NULL;
    dr_status st = DR_OK;

    for (size_t i = 0; i < m->entry_count; i++)
        json_object_set_new_nocheck(there, m->entries[i].t.name, json_true());
    json_object_foreach(file_of, name, value)
    {
        if (json_object_get(there, name) == NULL)
            DR_FAIL(DR_EFORMAT, "%s: %s: not in %s, where it should be", where, name,
                    json_string_value(value));
    }
    DR_FAIL(DR_EFORMAT, "%s: a tensor is there twice", where);
done:
    json_decref(there);
    return st;
}

static dr_status load_shards(hf_model *m, const char *dir, const char *index_path,
                             parse_fn parse)
{
    json_t *index = NULL;
    const char **files = NULL;
    size_t n = 0;
    dr_status st = DR_OK;

    DR_TRY(dr_json_read(&index, index_path));
    json_t *file_of = json_object_get(index, "weight_map");
    if (!json_is_object(file_of))
        DR_FAIL(DR_EFORMAT, "%s: weight_map: expected an object, found %s", index_path,
                dr_json_type(file_of));
    DR_TRY(shard_names(&m->arena, &files, &n, file_of, index_path));
    for (size_t i = 0; i < n; i++)
        DR_TRYF(load_file(m, dr_path_join(&m->arena, dir, files[i]), file_of, parse),
                "shard %zu of %zu of %s", i + 1, n, index_path);
    if (m->entry_count != json_object_size(file_of))
        DR_TRY(name_missing(m, file_of, index_path));
done:
    json_decref(index);
    return st;
}

/* No form that is read; what is there instead is named. */
static dr_status no_weights(dr_arena *a, const char *dir)
{
    static const char *const others[] = {"consolidated.safetensors", "consolidated.00.pth",
                                         "tf_model.h5", "flax_model.msgpack"};
    dr_status st;

    for (size_t i = 0; i < DR_COUNT(others); i++) {
        if (!dr_is_file(dr_path_join(a, dir, others[i])))
            continue;
        st = dr_fail(DR_EUNSUPPORTED, "%s/%s: weights in this form are not supported", dir,
                     others[i]);
        dr_hint("take a version of the model that has model.safetensors");
        return st;
    }
    st = dr_fail(DR_EFORMAT, "%s: neither model.safetensors nor its index is there", dir);
    dr_hint("a model folder holds config.json, tokenizer.json and model.safetensors or "
            "pytorch_model.bin");
    return st;
}

dr_status hf_folder_load(hf_model *m, const char *path)
{
    dr_arena *a = &m->arena;
    const char *generation = dr_path_join(a, path, "generation_config.json");
    dr_status st = DR_OK;

    m->config_path = dr_path_join(a, path, "config.json");
    DR_TRY(dr_json_read(&m->config, m->config_path));
    if (dr_is_file(generation))
        DR_TRY(dr_json_read(&m->generation, generation));
    for (size_t i = 0; i < DR_COUNT(forms); i++) {
        const char *single = dr_path_join(a, path, forms[i].single);
        const char *index = dr_path_join(a, path, forms[i].index);
        if (dr_is_file(single))
            return load_file(m, single, NULL, forms[i].parse);
        if (dr_is_file(index))
            return load_shards(m, path, index, forms[i].parse);
    }
    DR_TRY(no_weights(a, path));
done:
    return st;
}
