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
 * Every place follows from counts and sizes, so that nothing but one matrix is in memory.
 * raw_data begins at a multiple of 8 (the schema's force_align), dims likewise.  Offsets
 * are 32 bits: files end below 2 GiB.
 *
 * Source: onnxruntime/lora/adapter_format/adapter_schema.fbs; flatbuffers.dev internals.
 */
#include <limits.h>
#include <math.h>
#include <string.h>

#include "core/file.h"
#include "core/mem.h"
#include "onnx/onnx.h"

enum {
    FORMAT_VERSION = 1,
    ADAPTER_AT = 20,
    ADAPTER_BYTES = 20, /* vtable ref, 3 ints, 1 ref */
    LIST_AT = ADAPTER_AT + ADAPTER_BYTES,
    PARAM_VTABLE_BYTES = 12,
    PARAM_BYTES = 20, /* vtable ref, name, dims, data_type, raw_data */
    RANK = 2
};

/* One matrix: A transposed to [K][R] (transposed != 0), B to [R][N] times scale. */
typedef struct {
    const char *name; /* arena */
    const float *values;
    size_t rows, cols; /* of the matrix in the file */
    float scale;
    size_t name_at, dims_at, data_at; /* places of the length before each */
} parameter;

typedef struct {
    parameter *list; /* arena */
    size_t count;
    dr_dtype type;
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

static void add_parameter(layout *f, const char *name, const float *values, size_t rows,
                          size_t cols, float scale)
{
    f->list[f->count++] = (parameter){
        .name = name, .values = values, .rows = rows, .cols = cols, .scale = scale};
}

static dr_status plan(layout *f, const char *path)
{
    size_t at = LIST_AT + 4 + 4 * f->count;

    f->vtable_at = at;
    at += PARAM_VTABLE_BYTES;
    f->params_at = at;
    at += f->count * PARAM_BYTES;
    for (size_t i = 0; i < f->count; i++) {
        parameter *p = &f->list[i];
        p->name_at = at;
        at = before8((at + 4 + strlen(p->name) + 1 + 3) / 4 * 4);
        p->dims_at = at;
        at += 4 + RANK * 8;
    }
    for (size_t i = 0; i < f->count; i++) {
        parameter *p = &f->list[i];
        size_t bytes = 0;
        if (!dr_mul(&bytes, p->rows, p->cols) || bytes > INT_MAX / sizeof(float))
            return dr_fail(DR_EUNSUPPORTED, "%s: %s is past 2 GiB", path, p->name);
        p->data_at = before8(at);
        at = p->data_at + 4 + bytes * dr_dtype_bytes(f->type);
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

/* Everything before the first matrix. */
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
    for (size_t i = 0; i < f->count; i++) {
        const parameter *p = &f->list[i];
        size_t at = f->params_at + i * PARAM_BYTES, n = strlen(p->name);
        put_ref(file, LIST_AT + 4 + 4 * i, at);
        put(file + at, at - f->vtable_at, 4);
        put_ref(file, at + 4, p->name_at);
        put_ref(file, at + 8, p->dims_at);
        put(file + at + 12, (uint64_t)dr_dtype_onnx(f->type), 4);
        put_ref(file, at + 16, p->data_at);
        put(file + p->name_at, n, 4);
        memcpy(file + p->name_at + 4, p->name, n + 1);
        put(file + p->dims_at, RANK, 4);
        put(file + p->dims_at + 4, p->rows, 8);
        put(file + p->dims_at + 12, p->cols, 8);
    }
}

/* out[rows][cols] = the transpose of values[cols][rows], times scale. */
static void put_matrix(float *out, const parameter *p)
{
    for (size_t i = 0; i < p->rows; i++) {
        for (size_t j = 0; j < p->cols; j++)
            out[i * p->cols + j] = p->values[j * p->rows + i] * p->scale;
    }
}

static dr_status check_range(const float *v, size_t n, dr_dtype type, const char *name)
{
    for (size_t i = 0; type == DR_DTYPE_F16 && i < n; i++) {
        if (isfinite(v[i]) && isinf(dr_f16_to_f32(dr_f32_to_f16(v[i]))))
            return dr_fail(DR_EFORMAT, "%s: the value %g is beyond float16", name,
                           (double)v[i]);
    }
    return DR_OK;
}

static dr_status write_matrices(dr_writer *w, const layout *f)
{
    static const uint8_t zeros[8];
    uint8_t length[4];
    void *room = NULL, *typed = NULL;
    dr_status st = DR_OK;

    for (size_t i = 0; i < f->count; i++) {
        const parameter *p = &f->list[i];
        size_t n = p->rows * p->cols, bytes = n * dr_dtype_bytes(f->type);
        DR_TRY(dr_big_alloc(&room, n, sizeof(float), p->name));
        DR_TRY(dr_big_alloc(&typed, n, dr_dtype_bytes(f->type), p->name));
        put_matrix(room, p);
        DR_TRY(check_range(room, n, f->type, p->name));
        dr_from_f32(typed, room, f->type, n);
        put(length, bytes, 4);
        DR_TRY(dr_writer_add(w, zeros, p->data_at - (size_t)dr_writer_at(w)));
        DR_TRY(dr_writer_add(w, length, sizeof(length)));
        DR_TRY(dr_writer_add(w, typed, bytes));
        dr_big_free(typed);
        dr_big_free(room);
        room = typed = NULL;
    }
done:
    dr_big_free(typed);
    dr_big_free(room);
    return st;
}

dr_status onnx_adapter_write(const char *path, const hf_adapter *a)
{
    return onnx_adapter_write_as(path, a, DR_DTYPE_F32);
}

dr_status onnx_adapter_write_as(const char *path, const hf_adapter *a, dr_dtype type)
{
    dr_arena arena = {0};
    layout f = {.type = type};
    dr_writer w = {.fd = -1};
    void *head = NULL;
    dr_status st = DR_OK;

    f.list = dr_arena_alloc(&arena, 2 * a->count + 1, sizeof(*f.list));
    for (size_t i = 0; i < a->count; i++) {
        const hf_lora_module *m = &a->modules[i];
        size_t r = (size_t)m->r;
        add_parameter(&f, dr_arena_printf(&arena, "%s.lora_A.weight", m->module), m->a,
                      m->n_in, r, 1.0f);
        add_parameter(&f, dr_arena_printf(&arena, "%s.lora_B.weight", m->module), m->b, r,
                      m->n_out, m->scale);
    }
    DR_TRY(plan(&f, path));
    size_t head_bytes = f.count > 0 ? f.list[0].data_at : f.bytes;
    DR_TRY(dr_big_alloc(&head, head_bytes, 1, "adapter head"));
    put_head(head, &f);
    DR_TRY(dr_writer_open(&w, path));
    DR_TRY(dr_writer_add(&w, head, head_bytes));
    DR_TRY(write_matrices(&w, &f));
    DR_TRY(dr_writer_finish(&w));
done:
    dr_writer_close(&w);
    dr_big_free(head);
    dr_arena_release(&arena);
    return st;
}
