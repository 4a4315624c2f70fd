/*
 * gguf_make.h - GGUF files written by a test: keys and tensors are added one by one, then
 * put together.  Counts in the header can be made wrong on purpose.
 */
#ifndef DRUPE_TESTS_GGUF_MAKE_H
#define DRUPE_TESTS_GGUF_MAKE_H

#include <string.h>

#include "check.h"
#include "core/buf.h"
#include "core/file.h"

enum { T_U8, T_I8, T_U16, T_I16, T_U32, T_I32, T_F32, T_BOOL, T_STR, T_ARR, T_U64 };

typedef struct {
    dr_buf keys, infos, data;
    uint64_t key_count, tensor_count;
    uint32_t version;
    size_t align;
} maker;

static inline void add(dr_buf *b, const void *p, size_t n)
{
    CHECK_OK(dr_buf_add(b, p, n));
}

static inline void add_u32(dr_buf *b, uint32_t v)
{
    add(b, &v, sizeof(v));
}

static inline void add_u64(dr_buf *b, uint64_t v)
{
    add(b, &v, sizeof(v));
}

static inline void add_str(dr_buf *b, const char *s)
{
    add_u64(b, strlen(s));
    add(b, s, strlen(s));
}

static inline void make_begin(maker *m)
{
    *m = (maker){.version = 3, .align = 32};
    dr_buf_init(&m->keys, 1 << 24);
    dr_buf_init(&m->infos, 1 << 24);
    dr_buf_init(&m->data, 1 << 24);
}

static inline void make_release(maker *m)
{
    dr_buf_release(&m->keys);
    dr_buf_release(&m->infos);
    dr_buf_release(&m->data);
}

/* ---- keys ---- */

static inline void key(maker *m, const char *name, uint32_t type)
{
    add_str(&m->keys, name);
    add_u32(&m->keys, type);
    m->key_count++;
}

static inline void key_u32(maker *m, const char *name, uint32_t v)
{
    key(m, name, T_U32);
    add_u32(&m->keys, v);
}

static inline void key_f32(maker *m, const char *name, float v)
{
    key(m, name, T_F32);
    add(&m->keys, &v, sizeof(v));
}

static inline void key_bool(maker *m, const char *name, bool v)
{
    key(m, name, T_BOOL);
    add(&m->keys, &v, 1);
}

static inline void key_str(maker *m, const char *name, const char *v)
{
    key(m, name, T_STR);
    add_str(&m->keys, v);
}

static inline void key_array(maker *m, const char *name, uint32_t type, uint64_t count)
{
    key(m, name, T_ARR);
    add_u32(&m->keys, type);
    add_u64(&m->keys, count);
}

static inline void key_strs(maker *m, const char *name, const char *const *v, size_t n)
{
    key_array(m, name, T_STR, n);
    for (size_t i = 0; i < n; i++)
        add_str(&m->keys, v[i]);
}

static inline void key_i32s(maker *m, const char *name, const int32_t *v, size_t n)
{
    key_array(m, name, T_I32, n);
    add(&m->keys, v, n * sizeof(*v));
}

static inline void key_f32s(maker *m, const char *name, const float *v, size_t n)
{
    key_array(m, name, T_F32, n);
    add(&m->keys, v, n * sizeof(*v));
}

/* ---- tensors ---- */

/* The list's row alone; cols is the fastest dimension, rows 0: a vector. */
static inline void info(maker *m, const char *name, uint64_t rows, uint64_t cols,
                        uint32_t type, uint64_t offset)
{
    add_str(&m->infos, name);
    add_u32(&m->infos, rows ? 2 : 1);
    add_u64(&m->infos, cols);
    if (rows)
        add_u64(&m->infos, rows);
    add_u32(&m->infos, type);
    add_u64(&m->infos, offset);
    m->tensor_count++;
}

static inline void tensor(maker *m, const char *name, uint64_t rows, uint64_t cols,
                          uint32_t type, const void *bytes, size_t n)
{
    static const char zeros[64];

    info(m, name, rows, cols, type, m->data.len);
    add(&m->data, bytes, n);
    add(&m->data, zeros, (m->align - m->data.len % m->align) % m->align);
}

/* A float tensor: element i is start + i. */
static inline void tensor_f32(maker *m, const char *name, uint64_t rows, uint64_t cols,
                              float start)
{
    size_t n = (size_t)(rows ? rows * cols : cols);
    float *v = calloc(n, sizeof(*v));

    for (size_t i = 0; v != NULL && i < n; i++)
        v[i] = start + (float)i;
    tensor(m, name, rows, cols, 0, v, n * sizeof(*v));
    free(v);
}

/* ---- the file ---- */

static inline void make_bytes(const maker *m, dr_buf *out)
{
    static const char zeros[64];

    add(out, "GGUF", 4);
    add_u32(out, m->version);
    add_u64(out, m->tensor_count);
    add_u64(out, m->key_count);
    add(out, m->keys.data, m->keys.len);
    add(out, m->infos.data, m->infos.len);
    add(out, zeros, (m->align - out->len % m->align) % m->align);
    add(out, m->data.data, m->data.len);
}

static inline void make_file(const maker *m, const char *path)
{
    dr_buf b = {0};

    dr_buf_init(&b, 1 << 25);
    make_bytes(m, &b);
    CHECK_OK(dr_write_file(path, b.data, b.len));
    dr_buf_release(&b);
}

#endif
