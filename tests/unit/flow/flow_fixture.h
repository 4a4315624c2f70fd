/*
 * flow_fixture.h - runs of the engine on the tiny model, in the test's own folder.
 */
#ifndef DRUPE_TESTS_FLOW_FIXTURE_H
#define DRUPE_TESTS_FLOW_FIXTURE_H

#include "check.h"
#include "core/file.h"
#include "core/hash.h"
#include "core/json.h"
#include "flow/flow.h"

#define TINY DRUPE_SOURCE_DIR "/tests/golden/tiny/llama"

/* "name" in the test's folder; arena memory. */
static inline char *in_tmp(dr_arena *a, const char *name)
{
    return dr_path_join(a, check_tmp(), name);
}

static inline json_t *json_of(const char *text)
{
    json_t *j = NULL;

    if (text != NULL)
        CHECK_OK(dr_json_parse(&j, text, strlen(text), "test"));
    return j;
}

/* One pass over the tiny model: config in JSON or NULL; o has what is not of that. */
static inline dr_status run_pass(const char *pass, const char *config, flow_spec o)
{
    json_t *j = json_of(config);
    const flow_step step = {pass, j};
    flow_result r;

    o.steps = &step;
    o.step_count = 1;
    o.model = o.model != NULL ? o.model : TINY;
    dr_trail_clear();
    dr_status st = flow_run(&r, &o);
    flow_result_release(&r);
    json_decref(j);
    return st;
}

/* The tiny model again, as a folder of this test's own. */
static inline char *copy_tiny(dr_arena *a, const char *name)
{
    char *dir = in_tmp(a, name), **names = NULL;
    size_t count = 0;

    CHECK_OK(dr_make_dirs(dir));
    CHECK_OK(dr_list_dir(a, TINY, &names, &count));
    for (size_t i = 0; i < count; i++)
        CHECK_OK(
            dr_copy_file(dr_path_join(a, dir, names[i]), dr_path_join(a, TINY, names[i])));
    return dir;
}

/* The same with a tokenizer. */
static inline char *copy_letters(dr_arena *a, const char *name)
{
    static const char *const files[] = {"tokenizer.json", "tokenizer_config.json"};
    char *dir = copy_tiny(a, name);

    for (size_t i = 0; i < DR_COUNT(files); i++)
        CHECK_OK(
            dr_copy_file(dr_path_join(a, dir, files[i]),
                         dr_path_join(a, DRUPE_SOURCE_DIR "/tests/cli/letters", files[i])));
    return dir;
}

/* Names and contents of everything in a folder, as one hash; "" when there is none. */
static inline void tree_lines(dr_arena *a, dr_buf *b, const char *dir, const char *prefix)
{
    char **names = NULL, hex[DR_SHA256_HEX];
    size_t count = 0;

    CHECK_OK(dr_list_dir(a, dir, &names, &count));
    for (size_t i = 0; i < count; i++) {
        const char *path = dr_path_join(a, dir, names[i]);
        const char *name = dr_arena_printf(a, "%s/%s", prefix, names[i]);
        if (dr_is_dir(path)) {
            tree_lines(a, b, path, name);
            continue;
        }
        CHECK_OK(dr_sha256_file(hex, path));
        CHECK_OK(dr_buf_addf(b, "%s %s\n", name, hex));
    }
}

static inline char *tree_of(dr_arena *a, const char *dir)
{
    dr_buf b;

    dr_buf_init(&b, 1 << 20);
    if (dr_is_dir(dir))
        tree_lines(a, &b, dir, "");
    char *text = dr_arena_strdup(a, b.data);
    dr_buf_release(&b);
    return text;
}

/* Nothing stands under that name, nor beside it. */
static inline void nothing_at(dr_arena *a, const char *out)
{
    CHECK(!dr_exists(out));
    CHECK(!dr_exists(dr_arena_printf(a, "%s.tmp", out)));
}

#endif
