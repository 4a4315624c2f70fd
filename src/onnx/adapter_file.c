/*
 * adapter_file.c - .onnx_adapter files: FlatBuffers, identifier "TORT", written by hand.
 *
 *   table Adapter   { format_version:int = 1; adapter_version:int; model_version:int;
 *                     parameters:[Parameter]; }
 *   table Parameter { name:string; dims:[long]; data_type:int; raw_data:[ubyte]; }
 *
 * The file is laid out from front to back in the order of references, which in FlatBuffers
 * point forward, except a table's to its vtable:
 *
 *   0  root, "TORT" | vtable, Adapter | [Parameter refs] | vtable of all Parameters
 *   | Parameter ... | name, dims ... | raw_data ...
 *
 * Every place follows from counts and sizes.
 * raw_data begins at a multiple of 8 (the schema's force_align), dims likewise.  Offsets
 * are 32 bits: files end below 2 GiB.
 *
 * Source: onnxruntime/lora/adapter_format/adapter_schema.fbs; flatbuffers.dev internals.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "onnx/adapter_impl.h"

enum {
    FORMAT_VERSION = 1,
    ADAPTER_AT = 20,
    ADAPTER_BYTES = 20, /* vtable ref, 3 ints, 1 ref */
    LIST_AT = ADAPTER_AT + ADAPTER_BYTES,
    PARAM_VTABLE_BYTES = 12,
    PARAM_BYTES = 20 /* vtable ref, name, dims, data_type, raw_data */
};

/* Places of the length before each part of a parameter. */
typedef struct {
    size_t name_at, dims_at, data_at;
} places;

typedef struct {
    const dr_tensor *list; /* borrowed */
    places *at;            /* owned */
    size_t count;
    size_t vtable_at, params_at, bytes;
} layout;

static size_t align8(size_t n)
{
    return (n + 7) / 8 * 8;
}

/* Where a length of 4 bytes goes, so that what follows begins at a multiple of 8. */
static size_t before8(size_t n)
{
    return align8(n + 4) - 4;
}

/* ---- layout ---- */

static dr_status plan(layout *f, const char *path)
{
    size_t at = LIST_AT + 4 + 4 * f->count;

    f->vtable_at = at;
    at += PARAM_VTABLE_BYTES;
    f->params_at = at;
    at += f->count * PARAM_BYTES;
    for (size_t i = 0; i < f->count; i++) {
        places *p = &f->at[i];
        p->name_at = at;
        at = before8((at + 4 + strlen(f->list[i].name) + 1 + 3) / 4 * 4);
        p->dims_at = at;
        at += 4 + (size_t)f->list[i].ndim * 8;
    }
    for (size_t i = 0; i < f->count; i++) {
        if (f->list[i].bytes > INT_MAX)
            return dr_fail(DR_EUNSUPPORTED, "%s: %s is past 2 GiB", path, f->list[i].name);
        f->at[i].data_at = before8(at);
        at = f->at[i].data_at + 4 + f->list[i].bytes;
        if (at > INT_MAX)
            return dr_fail(DR_EUNSUPPORTED, "%s: adapters end below 2 GiB", path);
    }
    f->bytes = at;
    return DR_OK;
}

/* ---- bytes ---- */

static void put(uint8_t *out, uint64_t v, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        out[i] = (uint8_t)(v >> (8 * i));
}

/* A reference that stands at `at`. */
static void put_ref(uint8_t *file, size_t at, size_t to)
{
    put(file + at, to - at, 4);
}

static void put_vtable(uint8_t *out, size_t bytes, size_t table_bytes, size_t fields)
{
    put(out, bytes, 2);
    put(out + 2, table_bytes, 2);
    for (size_t i = 0; i < fields; i++)
        put(out + 4 + 2 * i, 4 + 4 * i, 2);
}

static void put_parameter(uint8_t *file, const layout *f, size_t i)
{
    const dr_tensor *t = &f->list[i];
    const places *p = &f->at[i];
    size_t at = f->params_at + i * PARAM_BYTES, n = strlen(t->name);

    put_ref(file, LIST_AT + 4 + 4 * i, at);
    put(file + at, at - f->vtable_at, 4);
    put_ref(file, at + 4, p->name_at);
    put_ref(file, at + 8, p->dims_at);
    put(file + at + 12, (uint64_t)dr_dtype_onnx(t->dtype), 4);
    put_ref(file, at + 16, p->data_at);
    put(file + p->name_at, n, 4);
    memcpy(file + p->name_at + 4, t->name, n + 1);
    put(file + p->dims_at, (uint64_t)t->ndim, 4);
    for (int d = 0; d < t->ndim; d++)
        put(file + p->dims_at + 4 + 8 * (size_t)d, (uint64_t)t->dims[d], 8);
}

/* Everything before the first value. */
static void put_head(uint8_t *file, const layout *f)
{
    put_ref(file, 0, ADAPTER_AT);
    memcpy(file + 4, "TORT", 4);
    put_vtable(file + 8, 12, ADAPTER_BYTES, 4);
    put(file + ADAPTER_AT, ADAPTER_AT - 8, 4); /* back to its vtable */
    put(file + ADAPTER_AT + 4, FORMAT_VERSION, 4);
    put(file + ADAPTER_AT + 8, 1, 4);  /* adapter_version */
    put(file + ADAPTER_AT + 12, 1, 4); /* model_version */
    put_ref(file, ADAPTER_AT + 16, LIST_AT);
    put(file + LIST_AT, f->count, 4);
    put_vtable(file + f->vtable_at, PARAM_VTABLE_BYTES, PARAM_BYTES, 4);
    for (size_t i = 0; i < f->count; i++)
        put_parameter(file, f, i);
}

static dr_status write_values(dr_writer *w, const layout *f)
{
    static const uint8_t zeros[8];
    uint8_t length[4];
    dr_status st = DR_OK;

    for (size_t i = 0; i < f->count; i++) {
        put(length, f->list[i].bytes, 4);
        DR_TRY(dr_writer_add(w, zeros, f->at[i].data_at - (size_t)dr_writer_at(w)));
        DR_TRY(dr_writer_add(w, length, sizeof(length)));
        DR_TRY(dr_writer_add(w, f->list[i].data, f->list[i].bytes));
    }
done:
    return st;
}

dr_status adapter_write_flat(const char *path, const dr_tensor *tensors, size_t count)
{
    layout f = {.list = tensors, .count = count};
    dr_writer w = {.fd = -1};
    void *head = NULL;
    dr_status st = DR_OK;

    f.at = dr_calloc(count + 1, sizeof(*f.at));
    DR_TRY(plan(&f, path));
    size_t head_bytes = count > 0 ? f.at[0].data_at : f.bytes;
    DR_TRY(dr_big_alloc(&head, head_bytes, 1, "adapter head"));
    put_head(head, &f);
    DR_TRY(dr_writer_open(&w, path));
    DR_TRY(dr_writer_add(&w, head, head_bytes));
    DR_TRY(write_values(&w, &f));
    DR_TRY(dr_writer_finish(&w));
done:
    dr_writer_close(&w);
    dr_big_free(head);
    free(f.at);
    return st;
}

/* ---- the formats ---- */

const char *onnx_adapter_suffix(onnx_format format)
{
    static const char *const suffixes[] = {".onnx_adapter", ".safetensors", ".npz"};

    return suffixes[format];
}

dr_status onnx_adapter_save(const char *path, const dr_tensor *tensors, size_t count,
                            onnx_format format)
{
    dr_status st = DR_OK;

    switch (format) {
    case ONNX_ADAPTER_FILE:
        st = adapter_write_flat(path, tensors, count);
        break;
    case ONNX_ADAPTER_SAFETENSORS:
        st = hf_st_write(path, tensors, count);
        break;
    case ONNX_ADAPTER_NPZ:
        st = adapter_write_npz(path, tensors, count);
        break;
    }
    return st;
}
