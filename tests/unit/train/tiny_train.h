/*
 * tiny_train.h - trainings of the tiny Llama on the goldens' ids: six blocks of 24.
 */
#ifndef DRUPE_TESTS_TINY_TRAIN_H
#define DRUPE_TESTS_TINY_TRAIN_H

#include "check.h"
#include "core/file.h"
#include "core/hash.h"
#include "core/json.h"
#include "train/train.h"

#define GOLDEN DRUPE_SOURCE_DIR "/tests/golden"
enum { TINY_BLOCKS = 6, TINY_T = 24 };

static int32_t tiny_ids[TINY_BLOCKS * TINY_T];
static size_t tiny_lengths[TINY_BLOCKS];

/* As tools/oracle/train_goldens.py trains. */
static inline train_options tiny_golden_options(void)
{
    train_options o;

    train_options_default(&o);
    o.dropout = 0;
    o.shuffle = false;
    o.batch = 2;
    o.accumulation = 2;
    o.max_steps = 10;
    o.learning_rate = 2e-2;
    o.weight_decay = 0.01;
    return o;
}

static inline void tiny_read_ids(void)
{
    dr_map map = {0};
    json_t *header = NULL;
    uint64_t n = 0;
    int64_t v;

    CHECK_OK(dr_map_open(&map, GOLDEN "/train/ids.safetensors"));
    memcpy(&n, map.data, 8);
    CHECK_OK(dr_json_parse(&header, (const char *)map.data + 8, n, "ids"));
    CHECK_EQ_INT(map.size, 8 + n + 8 * DR_COUNT(tiny_ids));
    for (size_t i = 0; i < DR_COUNT(tiny_ids); i++) {
        memcpy(&v, map.data + 8 + n + 8 * i, 8);
        tiny_ids[i] = (int32_t)v;
    }
    for (size_t i = 0; i < DR_COUNT(tiny_lengths); i++)
        tiny_lengths[i] = TINY_T;
    json_decref(header);
    dr_map_close(&map);
}

/* A path in the test's folder; it lives as long as the process. */
static inline const char *tiny_path(const char *name)
{
    static dr_arena a;

    return dr_path_join(&a, check_tmp(), name);
}

static inline dr_status tiny_train_base(train_report *r, const char *base,
                                        const char *device, int threads,
                                        const train_blocks *b, const train_options *o,
                                        const char *out)
{
    nn_device *dev = NULL;
    hf_model *m = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_make_dirs(out));
    DR_TRY(nn_device_open(&dev, device, threads));
    DR_TRY(hf_model_open(&m, base));
    DR_TRY(train_lora(r, dev, m, "base", b, o, out));
done:
    hf_model_close(m);
    nn_device_close(dev);
    return st;
}

/* These blocks; the adapter is left at tiny_path(name). */
static inline dr_status tiny_train_on(train_report *r, const char *device, int threads,
                                      const train_blocks *b, const train_options *o,
                                      const char *name)
{
    return tiny_train_base(r, GOLDEN "/tiny/llama", device, threads, b, o, tiny_path(name));
}

/* The first blocks. */
static inline dr_status tiny_train(train_report *r, const char *device, int threads,
                                   size_t blocks, const train_options *o, const char *name)
{
    const train_blocks b = {
        .ids = tiny_ids, .lengths = tiny_lengths, .count = blocks, .seq_len = TINY_T};

    return tiny_train_on(r, device, threads, &b, o, name);
}

static inline void tiny_same_file(const char *a, const char *b)
{
    char x[65] = "", y[65] = "";

    CHECK_OK(dr_sha256_file(x, a));
    CHECK_OK(dr_sha256_file(y, b));
    CHECK_STR(x, y);
}

/* Two adapters have the same bytes. */
static inline void tiny_same(const char *a, const char *b)
{
    dr_arena arena = {0};
    static const char name[] = "adapter_model.safetensors";

    tiny_same_file(dr_path_join(&arena, tiny_path(a), name),
                   dr_path_join(&arena, tiny_path(b), name));
    dr_arena_release(&arena);
}

#endif
