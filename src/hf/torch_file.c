/*
 * torch_file.c - pytorch_model.bin: tensors of a file that torch.save wrote (since 1.6).
 *
 *   NAME/data.pkl     a dictionary of tensors: each names a storage, an offset, sizes and
 *                     strides in elements
 *   NAME/data/KEY     the bytes of a storage, which several tensors may share
 *   NAME/byteorder    "little", in newer files
 *
 * Dictionaries in the dictionary give names with dots; what is no tensor is left out and
 * counted in a warning.  A dictionary with a state_dict (a training checkpoint) stands for
 * that.  A tensor in row order is a view of the mapping.  Any other (transposed, every
 * second row) is copied in row order.  No tensor may be more than its storage, and all of
 * them no more than SHARE_MAX files, so that a small file cannot ask for much memory.
 */
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "hf/hf.h"
#include "hf/pickled_impl.h"

enum { NEST_MAX = 16, VALUES_MAX = 1 << 16, NAME_BYTES_MAX = 1024, SHARE_MAX = 4 };

static const char *const globals[] = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "torch FloatStorage",
    "torch DoubleStorage",
    "torch HalfStorage",
    "torch BFloat16Storage",
    "torch ByteStorage",
    "torch CharStorage",
    "torch ShortStorage",
    "torch IntStorage",
    "torch LongStorage",
    "torch BoolStorage",
};

static const struct {
    const char *global;
    dr_dtype dtype;
} storages[] = {
    {"torch FloatStorage", DR_DTYPE_F32}, {"torch DoubleStorage", DR_DTYPE_F64},
    {"torch HalfStorage", DR_DTYPE_F16},  {"torch BFloat16Storage", DR_DTYPE_BF16},
    {"torch ByteStorage", DR_DTYPE_U8},   {"torch CharStorage", DR_DTYPE_I8},
    {"torch ShortStorage", DR_DTYPE_I16}, {"torch IntStorage", DR_DTYPE_I32},
    {"torch LongStorage", DR_DTYPE_I64},  {"torch BoolStorage", DR_DTYPE_BOOL},
};

struct reader {
    dr_arena *a;
    const char *where;
    const char *prefix; /* arena: the archive's folder */
    size_t file_bytes;
    double tensor_bytes; /* of all so far */
    hf_zip zip;
    dr_tensor *tensors; /* arena */
    size_t count, cap;
    size_t seen;     /* values walked over */
    size_t left_out; /* that are no tensors */
};

/* ---- the container ---- */

/* What stands where a zip archive should. */
static dr_status not_zip(const dr_map *map, const char *where)
{
    /* torch.save before 1.6: a pickle of this number comes first. */
    static const unsigned char magic[] = {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c,
                                          0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};
    dr_status st;

    if (map->size < sizeof(magic) || memcmp(map->data, magic, sizeof(magic)) != 0)
        return dr_fail(DR_EFORMAT, "%s: not a file of torch.save", where);
    st = dr_fail(DR_EUNSUPPORTED,
                 "%s: written by torch before 1.6, in a form that is not supported", where);
    dr_hint("convert it: python3 -c \"import torch; f = '%s'; "
            "torch.save(torch.load(f, weights_only=True), f)\"",
            dr_path_base(where));
    return st;
}

/* The entry NAME/data.pkl, which gives the prefix. */
static dr_status find_pickle(struct reader *r, const hf_zip_entry **out)
{
    dr_status st = DR_OK;

    for (size_t i = 0; i < r->zip.count; i++) {
        const hf_zip_entry *e = &r->zip.entries[i];
        const char *slash = strchr(e->name, '/');
        if (slash == NULL || strcmp(slash, "/data.pkl") != 0)
            continue;
        if (*out != NULL)
            DR_FAIL(DR_EFORMAT, "%s: two pickles, %s and %s", r->where, (*out)->name,
                    e->name);
        *out = e;
        r->prefix = dr_arena_strndup(r->a, e->name, (size_t)(slash - e->name));
    }
    if (*out == NULL)
        DR_FAIL(DR_EFORMAT, "%s: a zip archive without data.pkl is no file of torch.save",
                r->where);
    if (hf_zip_find(&r->zip, dr_arena_printf(r->a, "%s/constants.pkl", r->prefix)) != NULL)
        DR_FAIL(DR_EUNSUPPORTED, "%s: a TorchScript archive, which holds code", r->where);
    const hf_zip_entry *order =
        hf_zip_find(&r->zip, dr_arena_printf(r->a, "%s/byteorder", r->prefix));
    if (order != NULL && (order->size != 6 || memcmp(order->data, "little", 6) != 0))
        DR_FAIL(DR_EUNSUPPORTED, "%s: byteorder is not little", r->where);
done:
    return st;
}

/* ---- tensors ---- */

/* A tensor's place in its storage, in elements. */
struct layout {
    int ndim;
    int64_t sizes[DR_TENSOR_DIMS], strides[DR_TENSOR_DIMS];
    int64_t offset;
    size_t count;
    bool in_order;
};

/* A storage that a persistent id names: ('storage', type, key, device, elements). */
static dr_status find_storage(const struct reader *r, const hf_pk *v, const char *name,
                              dr_dtype *dtype, const unsigned char **data, size_t *count)
{
    const hf_pk *id = v->kind == HF_PK_PERSISTENT ? v->items[0] : NULL;
    dr_status st = DR_OK;

    *dtype = DR_DTYPE_COUNT;
    if (id == NULL || id->kind != HF_PK_TUPLE || id->count != 5 ||
        id->items[0]->kind != HF_PK_TEXT || strcmp(id->items[0]->text, "storage") != 0 ||
        id->items[1]->kind != HF_PK_GLOBAL || id->items[2]->kind != HF_PK_TEXT ||
        id->items[2]->length > NAME_BYTES_MAX || id->items[4]->kind != HF_PK_INT ||
        id->items[4]->number < 0)
        DR_FAIL(DR_EFORMAT, "%s: %s: expected a storage, found %s", r->where, name,
                hf_pk_name(v));
    for (size_t i = 0; i < DR_COUNT(storages); i++)
        if (strcmp(id->items[1]->text, storages[i].global) == 0)
            *dtype = storages[i].dtype;
    if (*dtype == DR_DTYPE_COUNT)
        DR_FAIL(DR_EFORMAT, "%s: %s: %s is no storage", r->where, name, id->items[1]->text);
    const char *entry = dr_arena_printf(r->a, "%s/data/%s", r->prefix, id->items[2]->text);
    const hf_zip_entry *e = hf_zip_find(&r->zip, entry);
    if (e == NULL)
        DR_FAIL(DR_EFORMAT, "%s: %s: entry %s is missing", r->where, name, entry);
    *data = e->data;
    *count = e->size / dr_dtype_bytes(*dtype);
    if (e->size % dr_dtype_bytes(*dtype) != 0 || (uint64_t)id->items[4]->number != *count)
        DR_FAIL(DR_EFORMAT, "%s: %s: entry %s has %zu bytes for %lld elements of %s",
                r->where, name, entry, e->size, (long long)id->items[4]->number,
                dr_dtype_name(*dtype));
done:
    return st;
}

static dr_status read_sizes(const struct reader *r, const hf_pk *v, const char *name,
                            const char *what, int64_t *out, int *n)
{
    if (v->kind != HF_PK_TUPLE)
        return dr_fail(DR_EFORMAT, "%s: %s: %s: expected a tuple, found %s", r->where, name,
                       what, hf_pk_name(v));
    if (v->count > DR_TENSOR_DIMS)
        return dr_fail(DR_EUNSUPPORTED, "%s: %s: %zu dimensions, more than %d", r->where,
                       name, v->count, DR_TENSOR_DIMS);
    for (size_t i = 0; i < v->count; i++) {
        out[i] = v->items[i]->number;
        if (v->items[i]->kind != HF_PK_INT || out[i] < 0)
            return dr_fail(DR_EFORMAT, "%s: %s: %s: dimension %zu is no size", r->where,
                           name, what, i);
    }
    *n = (int)v->count;
    return DR_OK;
}

/* Does the layout lie in a storage of so many elements? */
static dr_status check_layout(const struct reader *r, struct layout *l, const char *name,
                              size_t room)
{
    size_t last = (size_t)l->offset, step = 1;

    l->count = 1;
    l->in_order = true;
    for (int i = 0; i < l->ndim; i++)
        l->count = l->sizes[i] == 0 ? 0 : l->count;
    for (int i = l->ndim; l->count > 0 && i-- > 0;) {
        size_t reach = 0;
        if (l->sizes[i] > 1 && (size_t)l->strides[i] != step)
            l->in_order = false;
        if (!dr_mul(&reach, (size_t)l->sizes[i] - 1, (size_t)l->strides[i]) ||
            reach > SIZE_MAX - last || !dr_mul(&step, step, (size_t)l->sizes[i]))
            return dr_fail(DR_EFORMAT, "%s: %s: its shape has no size", r->where, name);
        last += reach;
    }
    l->count = l->count > 0 ? step : 0;
    if (l->count > 0 && last >= room)
        return dr_fail(DR_EFORMAT, "%s: %s: element %zu of a storage of %zu", r->where,
                       name, last, room);
    if (l->count > room)
        return dr_fail(DR_EUNSUPPORTED,
                       "%s: %s: %zu elements over a storage of %zu: expanded tensors are "
                       "not supported",
                       r->where, name, l->count, room);
    return DR_OK;
}

/* Copies what does not lie in row order. */
static dr_status copy_rows(struct reader *r, dr_tensor *t, const struct layout *l,
                           const unsigned char *data)
{
    size_t size = dr_dtype_bytes(t->dtype), at[DR_TENSOR_DIMS] = {0};
    void *copy = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_arena_big(r->a, &copy, t->bytes, 1, t->name));
    unsigned char *dst = copy;
    for (size_t i = 0; i < l->count; i++, dst += size) {
        size_t from = (size_t)l->offset;
        for (int d = 0; d < l->ndim; d++)
            from += at[d] * (size_t)l->strides[d];
        memcpy(dst, data + from * size, size);
        for (int d = l->ndim; d-- > 0;) {
            if (++at[d] < (size_t)l->sizes[d])
                break;
            at[d] = 0;
        }
    }
    t->data = copy;
done:
    return st;
}

/* _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata]). */
static dr_status rebuild(struct reader *r, dr_tensor *t, const hf_pk *args)
{
    struct layout l = {0};
    const unsigned char *data = NULL;
    size_t room = 0;
    int strides = 0;
    dr_status st = DR_OK;

    if (args->count < 6 || args->count > 7)
        DR_FAIL(DR_EFORMAT, "%s: %s: a tensor made of %zu values", r->where, t->name,
                args->count);
    const hf_pk *more = args->count == 7 ? args->items[6] : NULL;
    if (args->items[5]->kind != HF_PK_DICT || args->items[5]->count > 0 ||
        (more != NULL && more->kind != HF_PK_NONE &&
         (more->kind != HF_PK_DICT || more->count > 0)))
        DR_FAIL(DR_EUNSUPPORTED, "%s: %s: a tensor with hooks or flags", r->where, t->name);
    DR_TRY(find_storage(r, args->items[0], t->name, &t->dtype, &data, &room));
    if (args->items[1]->kind != HF_PK_INT || args->items[1]->number < 0)
        DR_FAIL(DR_EFORMAT, "%s: %s: its offset is no number", r->where, t->name);
    l.offset = args->items[1]->number;
    DR_TRY(read_sizes(r, args->items[2], t->name, "shape", l.sizes, &l.ndim));
    DR_TRY(read_sizes(r, args->items[3], t->name, "strides", l.strides, &strides));
    if (strides != l.ndim)
        DR_FAIL(DR_EFORMAT, "%s: %s: %d strides for %d dimensions", r->where, t->name,
                strides, l.ndim);
    DR_TRY(check_layout(r, &l, t->name, room));
    t->ndim = l.ndim;
    memcpy(t->dims, l.sizes, sizeof(l.sizes));
    t->bytes = l.count * dr_dtype_bytes(t->dtype);
    t->data = data;
    r->tensor_bytes += (double)t->bytes;
    if (r->tensor_bytes > SHARE_MAX * (double)r->file_bytes)
        DR_FAIL(DR_EUNSUPPORTED, "%s: %s: tensors of more than %d times the file's bytes",
                r->where, t->name, SHARE_MAX);
    if (l.count > 0 && l.in_order)
        t->data = data + (size_t)l.offset * dr_dtype_bytes(t->dtype);
    else if (l.count > 0)
        DR_TRY(copy_rows(r, t, &l, data));
done:
    return st;
}

/* The arguments of v when it is a call of this global, else NULL. */
static const hf_pk *call_of(const hf_pk *v, const char *global)
{
    if (v->kind != HF_PK_CALL || strcmp(v->items[0]->text, global) != 0)
        return NULL;
    return v->items[1];
}

static dr_status add_tensor(struct reader *r, const hf_pk *v, const char *name)
{
    const hf_pk *parameter = call_of(v, "torch._utils _rebuild_parameter");
    const hf_pk *inner = v, *args = NULL;
    dr_status st = DR_OK;

    if (parameter != NULL) { /* (tensor, requires_grad, hooks) */
        if (parameter->count != 3)
            DR_FAIL(DR_EFORMAT, "%s: %s: a parameter made of %zu values", r->where, name,
                    parameter->count);
        inner = parameter->items[0];
    }
    args = call_of(inner, "torch._utils _rebuild_tensor_v2");
    if (args == NULL)
        DR_FAIL(DR_EFORMAT, "%s: %s: expected a tensor, found %s", r->where, name,
                hf_pk_name(inner));
    if (r->count == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 256;
        dr_tensor *list = dr_arena_alloc(r->a, cap, sizeof(*list));
        if (r->count > 0)
            memcpy(list, r->tensors, r->count * sizeof(*list));
        r->tensors = list;
        r->cap = cap;
    }
    r->tensors[r->count] = (dr_tensor){.name = name};
    DR_TRY(rebuild(r, &r->tensors[r->count], args));
    r->count++;
done:
    return st;
}

/* ---- the dictionary ---- */

static dr_status check_key(const struct reader *r, const hf_pk *key)
{
    json_t *s = key->kind == HF_PK_TEXT ? json_stringn(key->text, key->length) : NULL;
    bool good = s != NULL && memchr(key->text, '\0', key->length) == NULL;

    json_decref(s);
    if (!good)
        return dr_fail(DR_EFORMAT, "%s: a tensor's name is %s", r->where,
                       key->kind == HF_PK_TEXT ? "not UTF-8 text" : hf_pk_name(key));
    return DR_OK;
}

/* Adds the tensors of a dictionary; path: its own name with a dot, or "". */
static dr_status walk(struct reader *r, const hf_pk *dict, const char *path, int depth)
{
    dr_status st = DR_OK;

    if (depth > NEST_MAX)
        DR_FAIL(DR_EUNSUPPORTED, "%s: dictionaries nested more than %d deep", r->where,
                NEST_MAX);
    for (size_t i = 0; i < dict->count; i += 2) {
        const hf_pk *key = dict->items[i], *v = dict->items[i + 1];
        if (++r->seen > VALUES_MAX)
            DR_FAIL(DR_EUNSUPPORTED, "%s: more than %d values", r->where, VALUES_MAX);
        if (v->kind != HF_PK_DICT && v->kind != HF_PK_CALL) {
            r->left_out++;
            continue;
        }
        DR_TRY(check_key(r, key));
        if (strlen(path) + key->length > NAME_BYTES_MAX)
            DR_FAIL(DR_EFORMAT, "%s: a tensor's name is longer than %d bytes", r->where,
                    NAME_BYTES_MAX);
        const char *name = dr_arena_printf(r->a, "%s%s", path, key->text);
        if (v->kind == HF_PK_CALL)
            DR_TRY(add_tensor(r, v, name));
        else
            DR_TRY(walk(r, v, dr_arena_printf(r->a, "%s.", name), depth + 1));
    }
done:
    return st;
}

/* A training checkpoint's state_dict, else the dictionary itself. */
static const hf_pk *state_of(const hf_pk *dict)
{
    for (size_t i = 0; i < dict->count; i += 2) {
        const hf_pk *key = dict->items[i], *v = dict->items[i + 1];
        if (key->kind == HF_PK_TEXT && strcmp(key->text, "state_dict") == 0 &&
            v->kind == HF_PK_DICT)
            return v;
    }
    return dict;
}

static int by_name(const void *a, const void *b)
{
    const dr_tensor *const *p = a, *const *q = b;

    return strcmp((*p)->name, (*q)->name);
}

static dr_status check_names(const struct reader *r)
{
    const dr_tensor **list = dr_calloc(r->count + 1, sizeof(*list));
    dr_status st = DR_OK;

    for (size_t i = 0; i < r->count; i++)
        list[i] = &r->tensors[i];
    qsort(list, r->count, sizeof(*list), by_name);
    for (size_t i = 1; i < r->count; i++)
        if (by_name(&list[i - 1], &list[i]) == 0)
            DR_FAIL(DR_EFORMAT, "%s: tensor %s is there twice", r->where, list[i]->name);
done:
    free(list);
    return st;
}

dr_status hf_torch_parse(dr_arena *a, dr_tensor **tensors, size_t *count, const dr_map *map,
                         const char *where)
{
    struct reader r = {.a = a, .where = where, .file_bytes = map->size};
    const hf_zip_entry *pickle = NULL;
    const hf_pk *top = NULL;
    dr_status st = DR_OK;

    *tensors = NULL;
    *count = 0;
    if (map->size < 4 || memcmp(map->data, "PK", 2) != 0)
        DR_TRY(not_zip(map, where));
    DR_TRY(hf_zip_read(a, &r.zip, map, where));
    DR_TRY(find_pickle(&r, &pickle));
    DR_TRY(hf_pickle_read(a, &top, pickle->data, pickle->size, globals, DR_COUNT(globals),
                          where));
    if (top->kind != HF_PK_DICT)
        DR_FAIL(DR_EUNSUPPORTED, "%s: expected a dictionary of tensors, found %s", where,
                hf_pk_name(top));
    DR_TRY(walk(&r, state_of(top), "", 0));
    DR_TRY(check_names(&r));
    if (r.left_out > 0)
        dr_log(DR_WARNING, "%s: %zu values that are no tensors are left out", where,
               r.left_out);
    *tensors = r.tensors;
    *count = r.count;
done:
    return st;
}

dr_status hf_torch_tensors(dr_arena *a, dr_tensor **tensors, size_t *count,
                           const char *path)
{
    dr_map map = {0};
    dr_status st = DR_OK;

    DR_TRY(dr_map_open(&map, path));
    DR_TRY(hf_torch_parse(a, tensors, count, &map, path));
    for (size_t i = 0; i < *count; i++)
        (*tensors)[i].data = NULL;
done:
    dr_map_close(&map);
    return st;
}
