/*
 * model.c - an open model: its life, its tensors by name, its side files.
 *
 * Opening reads headers only; weights stay in their mappings.  After hf_model_open nothing
 * in the model changes, so that any number of threads may read it.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "hf/config_impl.h"
#include "hf/hf_impl.h"
#include "hf/roles_impl.h"

/* ---- for sources ---- */

hf_entry *hf_model_add_entry(hf_model *m)
{
    if (m->entry_count == m->entry_cap) {
        m->entry_cap = m->entry_cap ? 2 * m->entry_cap : 512;
        m->entries = dr_realloc(m->entries, m->entry_cap, sizeof(*m->entries));
    }
    hf_entry *e = &m->entries[m->entry_count++];
    *e = (hf_entry){0};
    return e;
}

dr_status hf_model_add_map(hf_model *m, const char *path, dr_map *out)
{
    dr_map map = {0};
    dr_status st = DR_OK;

    DR_TRY(dr_map_open(&map, path));
    m->maps = dr_realloc(m->maps, m->map_count + 1, sizeof(*m->maps));
    m->maps[m->map_count++] = map;
    *out = map;
done:
    return st;
}

dr_status hf_entry_shape(hf_entry *e, const int64_t *dims, int ndim, const char *where)
{
    size_t rows = 1, all = 0;

    DR_BUG_IF(ndim < 0 || ndim > DR_TENSOR_DIMS);
    e->ndim = ndim;
    for (int i = 0; i < ndim; i++) {
        if (dims[i] < 0 || (i + 1 < ndim && !dr_mul(&rows, rows, (size_t)dims[i])))
            return dr_fail(DR_EFORMAT, "%s: %s: its shape has no size", where, e->t.name);
        e->dims[i] = dims[i];
    }
    e->rows = rows;
    e->cols = ndim > 0 ? (size_t)dims[ndim - 1] : 1;
    if (!dr_mul(&all, e->rows, e->cols) || !dr_mul(&all, all, sizeof(float)))
        return dr_fail(DR_EFORMAT, "%s: %s: its shape has no size", where, e->t.name);
    return DR_OK;
}

dr_status hf_read_plain(const hf_model *m, const hf_entry *e, float *dst, size_t row0,
                        size_t count)
{
    const unsigned char *p = e->t.data;

    (void)m;
    dr_to_f32(dst, p + row0 * e->cols * dr_dtype_bytes(e->t.dtype), e->t.dtype,
              count * e->cols);
    return DR_OK;
}

/* ---- tensors by name ---- */

static int by_name(const void *a, const void *b)
{
    const hf_entry *const *p = a, *const *q = b;

    return strcmp((*p)->t.name, (*q)->t.name);
}

static dr_status index_names(hf_model *m)
{
    m->by_name = dr_calloc(m->entry_count + 1, sizeof(*m->by_name));
    for (size_t i = 0; i < m->entry_count; i++)
        m->by_name[i] = &m->entries[i];
    qsort(m->by_name, m->entry_count, sizeof(*m->by_name), by_name);
    for (size_t i = 1; i < m->entry_count; i++) {
        if (by_name(&m->by_name[i - 1], &m->by_name[i]) == 0)
            return dr_fail(DR_EFORMAT, "%s: tensor %s is there twice", m->path,
                           m->by_name[i]->t.name);
    }
    return DR_OK;
}

const hf_entry *hf_entry_find(const hf_model *m, const char *name)
{
    size_t lo = 0, hi = m->entry_count;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = strcmp(name, m->by_name[mid]->t.name);
        if (c == 0)
            return m->by_name[mid];
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

dr_status hf_entry_read(const hf_model *m, const hf_entry *e, float *dst, size_t row0,
                        size_t count)
{
    DR_BUG_IF(row0 > e->rows || count > e->rows - row0);
    if (e->read == NULL)
        return dr_fail(DR_EUNSUPPORTED,
                       "%s: %s: expected numbers with a fraction, found %s", m->path,
                       e->t.name, e->type);
    return e->read(m, e, dst, row0, count);
}

size_t hf_tensor_count(const hf_model *m)
{
    return m->entry_count;
}

const dr_tensor *hf_tensor_at(const hf_model *m, size_t i)
{
    DR_BUG_IF(i >= m->entry_count);
    return &m->entries[i].t;
}

const char *hf_tensor_type(const hf_model *m, size_t i)
{
    DR_BUG_IF(i >= m->entry_count);
    return m->entries[i].type;
}

const dr_tensor *hf_tensor_find(const hf_model *m, const char *name)
{
    const hf_entry *e = hf_entry_find(m, name);

    return e != NULL ? &e->t : NULL;
}

/* ---- life ---- */

static bool looks_gguf(const char *path)
{
    return strlen(path) > strlen(".gguf") && dr_ends_with(path, ".gguf");
}

static dr_status load(hf_model *m, const char *path)
{
    dr_status st = DR_OK;

    if (dr_is_dir(path)) {
        DR_TRY(hf_folder_load(m, path));
    } else if (dr_is_file(path) && looks_gguf(path)) {
        m->gguf = true;
        m->config_path = m->path;
        DR_TRY(hf_gguf_load(m, path));
    } else if (dr_exists(path)) {
        DR_FAIL(DR_EUSAGE, "%s: neither a folder nor a .gguf file", path);
    } else {
        DR_FAIL(DR_EIO, "%s: no such folder or .gguf file", path);
    }
    DR_TRY(index_names(m));
    DR_TRY(hf_config_parse(&m->arena, &m->c, m->config, m->generation, m->config_path));
    DR_TRY(hf_quant_parse(m));
    DR_TRY(hf_roles_build(m));
    if (!m->gguf)
        m->origin = hf_quant_origin(m);
done:
    return st;
}

dr_status hf_model_open(hf_model **out, const char *path)
{
    hf_model *m = dr_calloc(1, sizeof(*m));
    dr_status st = DR_OK;

    *out = NULL;
    m->path = dr_arena_strdup(&m->arena, path);
    m->config_path = m->path;
    DR_TRYF(load(m, path), "opening the model %s", path);
    *out = m;
    m = NULL;
done:
    hf_model_close(m);
    return st;
}

void hf_model_close(hf_model *m)
{
    if (m == NULL)
        return;
    for (size_t i = 0; i < m->map_count; i++)
        dr_map_close(&m->maps[i]);
    free(m->maps);
    free(m->entries);
    free(m->by_name);
    free(m->linears);
    free(m->parts);
    json_decref(m->config);
    json_decref(m->generation);
    json_decref(m->tokenizer);
    json_decref(m->tokenizer_config);
    dr_arena_release(&m->arena);
    free(m);
}

const hf_config *hf_model_config(const hf_model *m)
{
    return &m->c;
}

const char *hf_model_path(const hf_model *m)
{
    return m->path;
}

const json_t *hf_model_config_json(const hf_model *m)
{
    return m->config;
}

const json_t *hf_model_generation_json(const hf_model *m)
{
    return m->generation;
}

bool hf_model_is_gguf(const hf_model *m)
{
    return m->gguf;
}

const char *hf_model_origin(const hf_model *m)
{
    return m->origin;
}

hf_quant hf_model_quant(const hf_model *m)
{
    return m->quant;
}

size_t hf_unordered_linears(const hf_model *m)
{
    return m->unordered;
}

uint64_t hf_model_weight_bytes(const hf_model *m)
{
    uint64_t n = 0;

    for (size_t i = 0; i < m->entry_count; i++)
        n += m->entries[i].t.bytes;
    return n;
}

/* ---- side files ---- */

/* Copied when they are there. */
static const char *const side_files[] = {
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
};

/* chat_template.jinja, which newer files have beside tokenizer_config.json, wins. */
static dr_status add_template(json_t **config, const char *path)
{
    dr_buf text;
    dr_status st = DR_OK;

    dr_buf_init(&text, (size_t)16 << 20);
    DR_TRY(dr_read_file(&text, path));
    if (*config == NULL)
        *config = json_object();
    json_t *value = json_stringn(text.data, text.len);
    if (value == NULL || json_object_set_new(*config, "chat_template", value) != 0)
        DR_FAIL(DR_EFORMAT, "%s: not UTF-8 text", path);
done:
    dr_buf_release(&text);
    return st;
}

dr_status hf_model_tokenizer(const hf_model *m, json_t **tokenizer, json_t **config)
{
    dr_arena a = {0};
    dr_status st = DR_OK;

    *tokenizer = json_incref(m->tokenizer);
    *config = json_incref(m->tokenizer_config);
    if (m->gguf)
        goto done;
    const char *path = dr_path_join(&a, m->path, "tokenizer.json");
    if (!dr_is_file(path)) {
        st = dr_fail(DR_EUNSUPPORTED, "%s: tokenizer.json is missing", m->path);
        dr_hint("save the tokenizer with transformers, which writes tokenizer.json");
        goto done;
    }
    DR_TRY(dr_json_read(tokenizer, path));
    path = dr_path_join(&a, m->path, "tokenizer_config.json");
    if (dr_is_file(path))
        DR_TRY(dr_json_read(config, path));
    path = dr_path_join(&a, m->path, "chat_template.jinja");
    if (dr_is_file(path))
        DR_TRY(add_template(config, path));
done:
    if (st != DR_OK) {
        json_decref(*tokenizer);
        json_decref(*config);
        *tokenizer = *config = NULL;
    }
    dr_arena_release(&a);
    return st;
}

static dr_status write_rebuilt(const json_t *value, const char *dir, const char *name)
{
    dr_arena a = {0};
    dr_status st = DR_OK;

    if (value != NULL)
        DR_TRY(dr_json_write(dr_path_join(&a, dir, name), value));
done:
    dr_arena_release(&a);
    return st;
}

/* additional_chat_templates/NAME.jinja: templates that go by name. */
static dr_status copy_templates(dr_arena *a, const char *dir, const char *from)
{
    char **names = NULL;
    size_t n = 0;
    dr_status st = DR_OK;

    const char *src = dr_path_join(a, from, "additional_chat_templates");
    const char *dst = dr_path_join(a, dir, "additional_chat_templates");
    if (!dr_is_dir(src))
        goto done;
    DR_TRY(dr_list_dir(a, src, &names, &n));
    DR_TRY(dr_make_dirs(dst));
    for (size_t i = 0; i < n; i++) {
        const char *file = dr_path_join(a, src, names[i]);
        if (dr_is_file(file))
            DR_TRY(dr_copy_file(dr_path_join(a, dst, names[i]), file));
    }
done:
    return st;
}

dr_status hf_model_copy_side_files(const hf_model *m, const char *dir)
{
    dr_arena a = {0};
    dr_status st = DR_OK;

    if (m->gguf) {
        DR_TRY(write_rebuilt(m->tokenizer, dir, "tokenizer.json"));
        DR_TRY(write_rebuilt(m->tokenizer_config, dir, "tokenizer_config.json"));
        DR_TRY(write_rebuilt(m->generation, dir, "generation_config.json"));
        goto done;
    }
    for (size_t i = 0; i < DR_COUNT(side_files); i++) {
        const char *from = dr_path_join(&a, m->path, side_files[i]);
        if (dr_is_file(from))
            DR_TRY(dr_copy_file(dr_path_join(&a, dir, side_files[i]), from));
    }
    DR_TRY(copy_templates(&a, dir, m->path));
done:
    dr_arena_release(&a);
    return st;
}
