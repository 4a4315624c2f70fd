/*
 * family.h - the tiny models of tests/golden/families (tools/oracle/family_goldens.py): a
 * folder with the weights that the golden's formula gives, and one of its configs.
 */
#ifndef DRUPE_TESTS_FAMILY_H
#define DRUPE_TESTS_FAMILY_H

#include "check.h"
#include "core/file.h"
#include "core/json.h"
#include "hf/hf.h"

static const char *const family_names[] = {
    "llama2",         "llama3",   "llama_linear",
    "llama_yarn",     "smollm3",  "gemma",
    "smollm3_window", "mistral",  "qwen2",
    "qwen3",          "phi3",     "qwen3_moe",
    "gpt_oss",        "phi4mini", "phi2",
    "gemma2",         "gemma3",   "stablelm",
    "granite",        "olmo2",    "stablelm_parallel",
};

/* A new reference; NULL: not there, which is counted as a failure. */
static inline json_t *family_golden(dr_arena *a, const char *name)
{
    const char *path =
        dr_arena_printf(a, DRUPE_SOURCE_DIR "/tests/golden/families/%s.json", name);
    json_t *golden = NULL;

    CHECK_OK(dr_json_read(&golden, path));
    return golden;
}

static inline uint32_t family_mix(uint32_t x)
{
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

/* One tensor of the golden's list: offset + scale * u, u of 12 bits in [-1, 1). */
static inline dr_tensor family_tensor(dr_arena *a, const json_t *row)
{
    const char *name = json_string_value(json_array_get(row, 0));
    const json_t *shape = json_array_get(row, 1);
    float offset = (float)json_number_value(json_array_get(row, 2));
    float scale = (float)json_number_value(json_array_get(row, 3));
    dr_tensor t = {
        .name = name, .dtype = DR_DTYPE_F32, .ndim = (int)json_array_size(shape)};
    uint32_t h = 2166136261u;
    size_t n = 1;

    for (const char *p = name; *p != '\0'; p++)
        h = (h ^ (unsigned char)*p) * 16777619u;
    for (int i = 0; i < t.ndim; i++) {
        t.dims[i] = json_integer_value(json_array_get(shape, (size_t)i));
        n *= (size_t)t.dims[i];
    }
    float *v = dr_arena_alloc(a, n, sizeof(float));
    for (size_t i = 0; i < n; i++) {
        uint32_t x = family_mix((uint32_t)i * 0x9e3779b1u + h);
        float u = (float)((int)(x >> 20) - 2048) / 2048.0f;
        v[i] = offset + scale * u;
    }
    t.data = v;
    t.bytes = n * sizeof(float);
    return t;
}

/* count values of that name by the formula, around 0; arena memory. */
static inline float *family_values(dr_arena *a, const char *name, size_t count,
                                   double scale)
{
    json_t *row = json_pack("[s, [I], f, f]", name, (json_int_t)count, 0.0, scale);
    dr_tensor t = family_tensor(a, row);

    json_decref(row);
    return (float *)(uintptr_t)t.data;
}

typedef void family_writer(const char *path, const dr_tensor *list, size_t n);

/* The weights in `files` files: stem.suffix, or stem-00001-of-00003.suffix and an index. */
static inline void family_write(dr_arena *a, const char *dir, const json_t *golden,
                                size_t files, const char *stem, const char *suffix,
                                family_writer *write)
{
    const json_t *rows = json_object_get(golden, "tensors");
    size_t n = json_array_size(rows), from = 0;
    dr_tensor *list = dr_arena_alloc(a, n, sizeof(*list));
    json_t *map = json_object();

    for (size_t i = 0; i < n; i++)
        list[i] = family_tensor(a, json_array_get(rows, i));
    for (size_t f = 0; f < files; f++) {
        size_t to = n * (f + 1) / files;
        const char *name = files == 1 ? dr_arena_printf(a, "%s.%s", stem, suffix)
                                      : dr_arena_printf(a, "%s-%05zu-of-%05zu.%s", stem,
                                                        f + 1, files, suffix);
        write(dr_path_join(a, dir, name), list + from, to - from);
        for (; from < to; from++)
            json_object_set_new(map, list[from].name, json_string(name));
    }
    json_t *index = json_pack("{s:{}, s:o}", "metadata", "weight_map", map);
    const char *name = dr_arena_printf(a, "%s.%s.index.json", stem, suffix);
    if (files > 1)
        CHECK_OK(dr_json_write(dr_path_join(a, dir, name), index));
    json_decref(index);
}

static inline void family_safetensors(const char *path, const dr_tensor *list, size_t n)
{
    CHECK_OK(hf_st_write(path, list, n));
}

/* The weights in `files` safetensors files, with an index when there are several. */
static inline void family_weights(dr_arena *a, const char *dir, const json_t *golden,
                                  size_t files)
{
    family_write(a, dir, golden, files, "model", "safetensors", family_safetensors);
}

/* A fresh folder below the test's own with this config.json. */
static inline const char *family_model(dr_arena *a, const char *name, const json_t *golden,
                                       const json_t *config, size_t files)
{
    const char *dir = dr_path_join(a, check_tmp(), name);

    CHECK_OK(dr_make_dirs(dir));
    CHECK_OK(dr_json_write(dr_path_join(a, dir, "config.json"), config));
    family_weights(a, dir, golden, files);
    return dir;
}

/* Floats of a list in the golden. */
static inline void family_floats(float *dst, const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        dst[i] = (float)json_number_value(json_array_get(list, i));
}

#endif
