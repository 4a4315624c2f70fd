/*
 * gguf_file.c - a GGUF file taken apart: header, keys, tensor list.
 *
 *   "GGUF" version[4] tensors[8] keys[8]
 *   keys:     name, type[4], value         (string: length[8] bytes; array: type, count[8])
 *   tensors:  name, ndim[4], dims[8 each, fastest first], type[4], offset[8]
 *   padding to general.alignment (32), then the data; offsets count from here
 *
 * What must hold: every length, count, extent and offset is checked against the mapping
 * before it is used, so later code reads keys and tensors without asking again.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "hf/gguf_impl.h"

enum {
    NAME_MAX_BYTES = 1024,
    COUNT_MAX = 1 << 16,   /* keys, tensors: more than any model has, less than harms */
    STRINGS_MAX = 1 << 24, /* in an array, each of which is stepped over */
    KEY_MIN_BYTES = 8 + 1 + 4 + 1,
    TENSOR_MIN_BYTES = 8 + 1 + 4 + 8 + 4 + 8,
    ALIGNMENT_DEFAULT = 32,
};

/* ---- reading forward ---- */

static size_t left(const gguf_cursor *c)
{
    return (size_t)(c->end - c->at);
}

/* Little-endian, n bytes that are known to be there. */
static uint64_t number_at(const unsigned char *p, size_t n)
{
    uint64_t v = 0;

    while (n-- > 0)
        v = v << 8 | p[n];
    return v;
}

static dr_status cut_short(const gguf_file *g, const char *what)
{
    return dr_fail(DR_EFORMAT, "%s: the file ends within %s", g->path, what);
}

static dr_status take(const gguf_file *g, gguf_cursor *c, uint64_t *out, size_t n,
                      const char *what)
{
    if (left(c) < n)
        return cut_short(g, what);
    *out = number_at(c->at, n);
    c->at += n;
    return DR_OK;
}

static dr_status take_text(const gguf_file *g, gguf_cursor *c, gguf_text *out,
                           const char *what)
{
    uint64_t n = 0;

    dr_status st = take(g, c, &n, 8, what);
    if (st != DR_OK)
        return st;
    if (n > left(c))
        return dr_fail(DR_EFORMAT, "%s: %s: a string of %llu bytes passes the file's end",
                       g->path, what, (unsigned long long)n);
    *out = (gguf_text){(const char *)c->at, (size_t)n};
    c->at += n;
    return DR_OK;
}

/* A key's or tensor's name, as a C string. */
static dr_status take_name(gguf_file *g, gguf_cursor *c, const char **out, const char *what)
{
    gguf_text t = {0};

    dr_status st = take_text(g, c, &t, what);
    if (st != DR_OK)
        return st;
    if (t.len == 0 || t.len > NAME_MAX_BYTES || memchr(t.text, '\0', t.len) != NULL)
        return dr_fail(DR_EFORMAT, "%s: %s: a name of %zu bytes", g->path, what, t.len);
    *out = dr_arena_strndup(&g->m->arena, t.text, t.len);
    return DR_OK;
}

/* ---- keys ---- */

static const struct {
    const char *name;
    size_t bytes; /* 0: not of one size */
} type_rows[GGUF_TYPE_COUNT] = {
    [GGUF_U8] = {"uint8", 1},    [GGUF_I8] = {"int8", 1},    [GGUF_U16] = {"uint16", 2},
    [GGUF_I16] = {"int16", 2},   [GGUF_U32] = {"uint32", 4}, [GGUF_I32] = {"int32", 4},
    [GGUF_F32] = {"float32", 4}, [GGUF_BOOL] = {"bool", 1},  [GGUF_STRING] = {"string", 0},
    [GGUF_ARRAY] = {"array", 0}, [GGUF_U64] = {"uint64", 8}, [GGUF_I64] = {"int64", 8},
    [GGUF_F64] = {"float64", 8},
};

/* Steps over k's elements, so that they are known to lie in the file. */
static dr_status walk_value(const gguf_file *g, gguf_cursor *c, gguf_key *k)
{
    size_t bytes = 0;

    k->at = c->at;
    if (k->type == GGUF_STRING) {
        if (k->count > STRINGS_MAX)
            return dr_fail(DR_EUNSUPPORTED, "%s: %s: %zu strings, more than %d", g->path,
                           k->key, k->count, STRINGS_MAX);
        for (size_t i = 0; i < k->count; i++) {
            gguf_text t = {0};
            dr_status st = take_text(g, c, &t, k->key);
            if (st != DR_OK)
                return st;
        }
        return DR_OK;
    }
    if (!dr_mul(&bytes, k->count, type_rows[k->type].bytes) || bytes > left(c))
        return dr_fail(DR_EFORMAT, "%s: %s: %zu elements of %s pass the file's end",
                       g->path, k->key, k->count, type_rows[k->type].name);
    c->at += bytes;
    return DR_OK;
}

static dr_status take_type(const gguf_file *g, gguf_cursor *c, gguf_type *out,
                           const char *key)
{
    uint64_t type = 0;

    dr_status st = take(g, c, &type, 4, key);
    if (st != DR_OK)
        return st;
    if (type >= GGUF_TYPE_COUNT)
        return dr_fail(DR_EFORMAT, "%s: %s: value type %llu does not exist", g->path, key,
                       (unsigned long long)type);
    *out = (gguf_type)type;
    return DR_OK;
}

static dr_status take_key(gguf_file *g, gguf_cursor *c, gguf_key *k)
{
    dr_status st = DR_OK;
    uint64_t count = 1;

    DR_TRY(take_name(g, c, &k->key, "a key"));
    DR_TRY(take_type(g, c, &k->type, k->key));
    k->array = k->type == GGUF_ARRAY;
    if (k->array) {
        DR_TRY(take_type(g, c, &k->type, k->key));
        DR_TRY(take(g, c, &count, 8, k->key));
        if (k->type == GGUF_ARRAY)
            DR_FAIL(DR_EUNSUPPORTED, "%s: %s: an array of arrays", g->path, k->key);
        if (count > left(c))
            DR_FAIL(DR_EFORMAT, "%s: %s: %llu elements in %zu bytes", g->path, k->key,
                    (unsigned long long)count, left(c));
    }
    k->count = (size_t)count;
    DR_TRY(walk_value(g, c, k));
done:
    return st;
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const gguf_key *)a)->key, ((const gguf_key *)b)->key);
}

static dr_status read_keys(gguf_file *g, gguf_cursor *c, uint64_t count)
{
    dr_status st = DR_OK;
    void *keys = NULL;

    if (count > COUNT_MAX || count > left(c) / KEY_MIN_BYTES)
        DR_FAIL(DR_EFORMAT, "%s: %llu keys in %zu bytes", g->path,
                (unsigned long long)count, left(c));
    DR_TRY(dr_arena_big(&g->m->arena, &keys, (size_t)count, sizeof(gguf_key), "gguf keys"));
    g->keys = keys;
    g->key_count = (size_t)count;
    for (size_t i = 0; i < g->key_count; i++)
        DR_TRYF(take_key(g, c, &g->keys[i]), "%s: key %zu of %zu", g->path, i + 1,
                g->key_count);
    qsort(g->keys, g->key_count, sizeof(gguf_key), by_key);
    for (size_t i = 1; i < g->key_count; i++)
        if (strcmp(g->keys[i - 1].key, g->keys[i].key) == 0)
            DR_FAIL(DR_EFORMAT, "%s: %s: the key is there twice", g->path, g->keys[i].key);
done:
    return st;
}

const gguf_key *gguf_find(const gguf_file *g, const char *key)
{
    gguf_key want = {.key = key};

    if (g->key_count == 0)
        return NULL;
    return bsearch(&want, g->keys, g->key_count, sizeof(gguf_key), by_key);
}

const char *gguf_arch_key(const gguf_file *g, const char *name)
{
    return dr_arena_printf(&g->m->arena, "%s.%s", g->arch, name);
}

static dr_status wrong_type(const gguf_file *g, const gguf_key *k, const char *want)
{
    return dr_fail(DR_EFORMAT, "%s: %s: expected %s, found %s%s", g->path, k->key, want,
                   k->array ? "an array of " : "", type_rows[k->type].name);
}

/* Two's complement of n bytes. */
static int64_t signed_at(const unsigned char *p, size_t n)
{
    uint64_t v = number_at(p, n), sign = (uint64_t)1 << (8 * n - 1);

    return (int64_t)((v ^ sign) - sign);
}

dr_status gguf_int(const gguf_file *g, const char *key, int64_t *out)
{
    const gguf_key *k = gguf_find(g, key);

    if (k == NULL)
        return DR_OK;
    if (k->array || k->type == GGUF_STRING || k->type == GGUF_F32 || k->type == GGUF_F64 ||
        k->type == GGUF_BOOL)
        return wrong_type(g, k, "a whole number");
    size_t n = type_rows[k->type].bytes;
    if (k->type == GGUF_I8 || k->type == GGUF_I16 || k->type == GGUF_I32 ||
        k->type == GGUF_I64) {
        *out = signed_at(k->at, n);
        return DR_OK;
    }
    uint64_t v = number_at(k->at, n);
    if (v > INT64_MAX)
        return dr_fail(DR_EFORMAT, "%s: %s: %llu is out of range", g->path, key,
                       (unsigned long long)v);
    *out = (int64_t)v;
    return DR_OK;
}

dr_status gguf_real(const gguf_file *g, const char *key, double *out)
{
    const gguf_key *k = gguf_find(g, key);

    if (k == NULL)
        return DR_OK;
    if (k->array || (k->type != GGUF_F32 && k->type != GGUF_F64))
        return wrong_type(g, k, "a float");
    if (k->type == GGUF_F32)
        *out = (double)gguf_f32_at(k, 0);
    else
        memcpy(out, &(uint64_t){number_at(k->at, 8)}, sizeof(*out));
    return DR_OK;
}

dr_status gguf_bool(const gguf_file *g, const char *key, bool *out)
{
    const gguf_key *k = gguf_find(g, key);

    if (k == NULL)
        return DR_OK;
    if (k->array || k->type != GGUF_BOOL)
        return wrong_type(g, k, "a bool");
    *out = *k->at != 0;
    return DR_OK;
}

dr_status gguf_str(const gguf_file *g, const char *key, const char **out)
{
    const gguf_key *k = gguf_find(g, key);

    if (k == NULL)
        return DR_OK;
    if (k->array || k->type != GGUF_STRING)
        return wrong_type(g, k, "a string");
    gguf_cursor c = gguf_strings(g, k);
    gguf_text t = gguf_next_string(&c);
    json_t *s = json_stringn(t.text, t.len); /* NULL: not UTF-8 */
    bool good = s != NULL && memchr(t.text, '\0', t.len) == NULL;
    json_decref(s);
    if (!good)
        return dr_fail(DR_EFORMAT, "%s: %s: not UTF-8 text", g->path, key);
    *out = dr_arena_strndup(&g->m->arena, t.text, t.len);
    return DR_OK;
}

dr_status gguf_array(const gguf_file *g, const char *key, gguf_type type,
                     const gguf_key **out)
{
    const gguf_key *k = gguf_find(g, key);

    *out = NULL;
    if (k == NULL)
        return DR_OK;
    if (!k->array || k->type != type)
        return dr_fail(DR_EFORMAT, "%s: %s: expected an array of %s, found %s%s", g->path,
                       key, type_rows[type].name, k->array ? "an array of " : "",
                       type_rows[k->type].name);
    *out = k;
    return DR_OK;
}

int32_t gguf_i32_at(const gguf_key *k, size_t i)
{
    return (int32_t)signed_at(k->at + 4 * i, 4);
}

float gguf_f32_at(const gguf_key *k, size_t i)
{
    uint32_t bits = (uint32_t)number_at(k->at + 4 * i, 4);
    float f = 0;

    memcpy(&f, &bits, sizeof(f));
    return f;
}

gguf_cursor gguf_strings(const gguf_file *g, const gguf_key *k)
{
    return (gguf_cursor){k->at, g->map.data + g->map.size};
}

gguf_text gguf_next_string(gguf_cursor *c)
{
    gguf_text t = {(const char *)c->at + 8, (size_t)number_at(c->at, 8)};

    c->at += 8 + t.len;
    return t;
}

/* ---- the tensor list ---- */

/* Bytes of a tensor; whole blocks in each row, or it is refused. */
static dr_status tensor_bytes(const gguf_file *g, gguf_tensor *t)
{
    gguf_block block = gguf_block_of(t->type);
    size_t n = 1;

    if (block.name == NULL)
        return dr_fail(DR_EFORMAT, "%s: %s: tensor type %d does not exist", g->path,
                       t->name, t->type);
    if (block.block == 0)
        return dr_fail(DR_EUNSUPPORTED, "%s: %s: tensor type %s is not supported", g->path,
                       t->name, block.name);
    for (int i = 0; i < t->ndim; i++)
        if (t->dims[i] <= 0 || !dr_mul(&n, n, (size_t)t->dims[i]))
            return dr_fail(DR_EFORMAT, "%s: %s: dimension %d is %lld", g->path, t->name, i,
                           (long long)t->dims[i]);
    if (t->dims[0] % block.block != 0)
        return dr_fail(DR_EFORMAT, "%s: %s: a row of %lld is not whole blocks of %s (%d)",
                       g->path, t->name, (long long)t->dims[0], block.name, block.block);
    if (!dr_mul(&t->bytes, n / (size_t)block.block, (size_t)block.bytes))
        return dr_fail(DR_EFORMAT, "%s: %s: %zu elements are too many", g->path, t->name,
                       n);
    return DR_OK;
}

static dr_status take_tensor(gguf_file *g, gguf_cursor *c, gguf_tensor *t, uint64_t *offset)
{
    dr_status st = DR_OK;
    uint64_t v = 0;

    DR_TRY(take_name(g, c, &t->name, "a tensor's name"));
    DR_TRY(take(g, c, &v, 4, t->name));
    if (v < 1 || v > DR_COUNT(t->dims))
        DR_FAIL(DR_EFORMAT, "%s: %s: %llu dimensions", g->path, t->name,
                (unsigned long long)v);
    t->ndim = (int)v;
    for (int i = 0; i < t->ndim; i++) {
        DR_TRY(take(g, c, &v, 8, t->name));
        t->dims[i] = v <= INT64_MAX ? (int64_t)v : -1;
    }
    DR_TRY(take(g, c, &v, 4, t->name));
    t->type = v <= INT32_MAX ? (int)v : -1;
    DR_TRY(take(g, c, offset, 8, t->name));
    DR_TRY(tensor_bytes(g, t));
done:
    return st;
}

/* offsets[i] from the start of the data become pointers. */
static dr_status place_tensors(gguf_file *g, const gguf_cursor *c, const uint64_t *offsets,
                               size_t align)
{
    size_t head = (size_t)(c->at - g->map.data);
    size_t start = (head + align - 1) / align * align;

    for (size_t i = 0; i < g->tensor_count; i++) {
        gguf_tensor *t = &g->tensors[i];
        size_t room = g->map.size > start ? g->map.size - start : 0;

        if (offsets[i] % align != 0)
            return dr_fail(DR_EFORMAT, "%s: %s: offset %llu is not a multiple of %zu",
                           g->path, t->name, (unsigned long long)offsets[i], align);
        if (offsets[i] > room || t->bytes > room - (size_t)offsets[i]) {
            (void)dr_fail(DR_EFORMAT, "%s: %s: %zu bytes at %llu pass the file's end",
                          g->path, t->name, t->bytes, (unsigned long long)offsets[i]);
            dr_hint("the download may be incomplete");
            return DR_EFORMAT;
        }
        t->data = g->map.data + start + offsets[i];
    }
    return DR_OK;
}

static dr_status read_tensors(gguf_file *g, gguf_cursor *c, uint64_t count)
{
    dr_status st = DR_OK;
    void *tensors = NULL, *offsets = NULL;
    int64_t align = ALIGNMENT_DEFAULT;

    if (count > COUNT_MAX || count > left(c) / TENSOR_MIN_BYTES)
        DR_FAIL(DR_EFORMAT, "%s: %llu tensors in %zu bytes", g->path,
                (unsigned long long)count, left(c));
    DR_TRY(gguf_int(g, "general.alignment", &align));
    if (align < 1 || align > 1 << 20 || (align & (align - 1)) != 0)
        DR_FAIL(DR_EFORMAT, "%s: general.alignment: %lld", g->path, (long long)align);
    DR_TRY(dr_arena_big(&g->m->arena, &tensors, (size_t)count, sizeof(gguf_tensor),
                        "gguf tensors"));
    DR_TRY(dr_big_alloc(&offsets, (size_t)count, sizeof(uint64_t), "gguf offsets"));
    g->tensors = tensors;
    g->tensor_count = (size_t)count;
    for (size_t i = 0; i < g->tensor_count; i++)
        DR_TRYF(take_tensor(g, c, &g->tensors[i], (uint64_t *)offsets + i),
                "%s: tensor %zu of %zu", g->path, i + 1, g->tensor_count);
    DR_TRY(place_tensors(g, c, offsets, (size_t)align));
done:
    dr_big_free(offsets);
    return st;
}

const gguf_tensor *gguf_find_tensor(const gguf_file *g, const char *name)
{
    for (size_t i = 0; i < g->tensor_count; i++)
        if (strcmp(g->tensors[i].name, name) == 0)
            return &g->tensors[i];
    return NULL;
}

/* ---- the whole ---- */

static dr_status check_version(const gguf_file *g, uint64_t version)
{
    if (version == 2 || version == 3)
        return DR_OK;
    if ((version & 0xffff) == 0)
        return dr_fail(DR_EUNSUPPORTED, "%s: a big-endian GGUF file", g->path);
    return dr_fail(DR_EUNSUPPORTED, "%s: GGUF version %llu; 2 and 3 are supported", g->path,
                   (unsigned long long)version);
}

dr_status gguf_file_read(gguf_file *g)
{
    dr_status st = DR_OK;
    gguf_cursor c = {g->map.data, g->map.data + g->map.size};
    uint64_t version = 0, tensors = 0, keys = 0;

    if (g->map.size < 4 || memcmp(g->map.data, "GGUF", 4) != 0)
        DR_FAIL(DR_EFORMAT, "%s: not a GGUF file", g->path);
    c.at += 4;
    DR_TRY(take(g, &c, &version, 4, "the header"));
    DR_TRY(check_version(g, version));
    DR_TRY(take(g, &c, &tensors, 8, "the header"));
    DR_TRY(take(g, &c, &keys, 8, "the header"));
    DR_TRY(read_keys(g, &c, keys));
    DR_TRY(read_tensors(g, &c, tensors));
done:
    return st;
}
