/*
 * family_torch.h - a tiny model of tests/golden/families as torch.save writes it: a zip of
 * a pickle of tensors and one storage that all of them lie in.
 */
#ifndef DRUPE_TESTS_FAMILY_TORCH_H
#define DRUPE_TESTS_FAMILY_TORCH_H

#include "family.h"
#include "unit/hf/zip_make.h"

static inline void torch_bytes(dr_buf *b, const char *text, size_t n)
{
    CHECK_OK(dr_buf_add(b, text, n));
}

#define TORCH_TEXT(b, text) torch_bytes(b, text, sizeof(text) - 1)

static inline void torch_int(dr_buf *b, size_t v)
{
    TORCH_TEXT(b, "J");
    zip_put(b, v, 4);
}

static inline void torch_string(dr_buf *b, const char *text)
{
    TORCH_TEXT(b, "X");
    zip_put(b, strlen(text), 4);
    torch_bytes(b, text, strlen(text));
}

/* An item of the dictionary: name, then _rebuild_tensor_v2(storage, offset, shape, strides,
 * requires_grad, hooks). */
static inline void torch_tensor(dr_buf *b, const dr_tensor *t, size_t offset, size_t all)
{
    size_t stride[4], n = 1;

    for (int i = t->ndim - 1; i >= 0; i--) {
        stride[i] = n;
        n *= (size_t)t->dims[i];
    }
    torch_string(b, t->name);
    TORCH_TEXT(b, "ctorch._utils\n_rebuild_tensor_v2\n((");
    torch_string(b, "storage");
    TORCH_TEXT(b, "ctorch\nFloatStorage\n");
    torch_string(b, "0");
    torch_string(b, "cpu");
    torch_int(b, all);
    TORCH_TEXT(b, "tQ");
    torch_int(b, offset);
    TORCH_TEXT(b, "(");
    for (int i = 0; i < t->ndim; i++)
        torch_int(b, (size_t)t->dims[i]);
    TORCH_TEXT(b, "t(");
    for (int i = 0; i < t->ndim; i++)
        torch_int(b, stride[i]);
    TORCH_TEXT(b, "t\x89"
                  "ccollections\nOrderedDict\n)RtRs");
}

static inline void torch_file(const char *path, const dr_tensor *list, size_t n)
{
    const zip_wrong good = {0};
    dr_buf pickle, data, file;
    size_t all = 0, at = 0;

    dr_buf_init(&pickle, 1 << 20);
    dr_buf_init(&data, 1 << 24);
    dr_buf_init(&file, 1 << 25);
    for (size_t i = 0; i < n; i++) {
        all += list[i].bytes / sizeof(float);
        CHECK_OK(dr_buf_add(&data, list[i].data, list[i].bytes));
    }
    TORCH_TEXT(&pickle, "\x80\x02}");
    for (size_t i = 0; i < n; i++) {
        torch_tensor(&pickle, &list[i], at, all);
        at += list[i].bytes / sizeof(float);
    }
    TORCH_TEXT(&pickle, ".");
    const zip_part parts[] = {{"model/data.pkl", pickle.data, pickle.len},
                              {"model/byteorder", "little", 6},
                              {"model/data/0", data.data, data.len}};
    zip_make(&file, parts, DR_COUNT(parts), &good);
    CHECK_OK(dr_write_file(path, file.data, file.len));
    dr_buf_release(&pickle);
    dr_buf_release(&data);
    dr_buf_release(&file);
}

/* The weights in `files` files, with an index when there are several. */
static inline void family_torch(dr_arena *a, const char *dir, const json_t *golden,
                                size_t files)
{
    family_write(a, dir, golden, files, "pytorch_model", "bin", torch_file);
}

#endif
