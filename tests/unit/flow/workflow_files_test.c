/*
 * workflow_files_test.c - the workflow files of tests/golden/workflows, of both eras: all
 * of them run here, and where olive-ai ran one too (tools/oracle/workflow_goldens.py), the
 * best model comes of the same passes with the same parameters, and the same candidates
 * meet their goals.
 */
#include <strings.h>

#include "flow_fixture.h"
#include "ort/ort.h"

#define FILES DRUPE_SOURCE_DIR "/tests/golden/workflows"
#define GRAPH DRUPE_SOURCE_DIR "/tests/golden/rewrite/text"

static dr_arena arena;

/* Whether all that olive's step says is so in ours. */
static bool same_step(const json_t *olive, const json_t *ours)
{
    const json_t *config = json_object_get(olive, "config"), *v;
    const json_t *own = json_object_get(ours, "config");
    const char *type = json_string_value(json_object_get(ours, "type")), *key;

    if (type == NULL ||
        strcasecmp(type, json_string_value(json_object_get(olive, "type"))) != 0)
        return false;
    json_object_foreach((json_t *)(uintptr_t)config, key, v)
    {
        const json_t *mine = json_object_get(own, key);
        bool text = json_is_string(mine) && !json_is_string(v); /* as drupe.json has it */
        json_t *parsed = text ? json_loads(json_string_value(mine), 0, NULL) : NULL;
        bool same = mine != NULL &&
                    (text ? parsed == NULL || json_equal(parsed, v) : json_equal(mine, v));
        json_decref(parsed); /* NULL: a list, "a,b" */
        if (!same)
            return false;
    }
    return true;
}

static bool same_steps(const json_t *olive, const json_t *ours)
{
    size_t n = json_array_size(olive);

    for (size_t i = 0; i < n && i < json_array_size(ours); i++)
        if (!same_step(json_array_get(olive, i), json_array_get(ours, i)))
            return false;
    return n == json_array_size(ours);
}

/* The passes of a model of footprint.json, from the input on. */
static json_t *chain_of(const json_t *models, const char *id)
{
    json_t *list = json_array();

    for (const json_t *m = json_object_get(models, id); m != NULL;) {
        const json_t *parent = json_object_get(m, "parent_model_id");
        if (!json_is_string(json_object_get(m, "from_pass")))
            break;
        json_array_insert_new(list, 0,
                              json_pack("{s:O, s:O}", "type",
                                        json_object_get(m, "from_pass"), "config",
                                        json_object_get(m, "pass_run_config")));
        m = json_object_get(models,
                            json_is_string(parent) ? json_string_value(parent) : "");
    }
    return list;
}

/* olive's candidate among our models, with the same word on its goals. */
static void find_candidate(const json_t *models, const json_t *olive, const char *file)
{
    const json_t *m;
    const char *id;
    bool found = false;

    json_object_foreach((json_t *)(uintptr_t)models, id, m)
    {
        json_t *chain = chain_of(models, id);
        if (same_steps(json_object_get(olive, "passes"), chain)) {
            const json_t *met =
                json_object_get(json_object_get(m, "metrics"), "if_goals_met");
            found = true;
            if (!CHECK(json_equal(met, json_object_get(olive, "met"))))
                printf("%s: goals of %s\n", file, id);
        }
        json_decref(chain);
    }
    if (!CHECK(found))
        printf("%s: a candidate of olive's is not here\n", file);
}

static void compare(const char *file, const char *out, const json_t *olive)
{
    json_t *made = NULL, *models = NULL;
    const json_t *best = json_object_get(olive, "best"), *c;
    size_t i;

    for (i = 0; i < json_array_size(best); i++) {
        const char *dir =
            i == 0 ? out : dr_arena_printf(&arena, "%s/candidates/%zu", out, i + 1);
        if (!CHECK_OK(dr_json_read(&made, dr_path_join(&arena, dir, "drupe.json"))))
            return;
        if (!CHECK(same_steps(json_array_get(best, i), json_object_get(made, "passes"))))
            printf("%s: best %zu\n", file, i + 1);
        json_decref(made);
    }
    if (!CHECK_OK(dr_json_read(&models, dr_path_join(&arena, out, "footprint.json"))))
        return;
    json_array_foreach(json_object_get(olive, "candidates"), i, c)
        find_candidate(models, c, file);
    json_decref(models);
}

/* The graph and its weights alone, as olive was given it: sizes count from these. */
static const char *graph(void)
{
    static const char *const files[] = {"model.onnx", "weights.bin"};
    const char *dir = in_tmp(&arena, "graph");

    if (dr_is_dir(dir))
        return dir;
    CHECK_OK(dr_make_dirs(dir));
    for (size_t i = 0; i < DR_COUNT(files); i++)
        CHECK_OK(dr_copy_file(dr_path_join(&arena, dir, files[i]),
                              dr_path_join(&arena, GRAPH, files[i])));
    return dir;
}

static void try_file(const char *name, const json_t *olives)
{
    const json_t *olive = json_object_get(olives, name);
    const char *path = dr_path_join(&arena, FILES, name);
    const char *out = in_tmp(&arena, dr_arena_printf(&arena, "out-%s", name));
    dr_buf text;

    dr_buf_init(&text, 1 << 20);
    CHECK_OK(dr_read_file(&text, path));
    bool onnx = strstr(text.data, "ONNXModel") != NULL;
    CHECK_EQ_INT(onnx, olive != NULL);
    const flow_workflow_options o = {.config = path,
                                     .model = onnx ? graph() : TINY,
                                     .output = out,
                                     .cache_dir = in_tmp(&arena, "cache"),
                                     .own_log_level = true};
    flow_result r;
    if (!CHECK_OK(flow_workflow(&r, &o)))
        printf("%s\n", name);
    else if (onnx)
        compare(name, out, olive);
    CHECK(dr_is_file(dr_path_join(&arena, out, "drupe.json")));
    flow_result_release(&r);
    dr_buf_release(&text);
}

int main(void)
{
    json_t *olives = NULL;
    char **names = NULL;
    size_t count = 0, files = 0;
    ort_info info;

    ort_probe(&arena, &info);
    if (!info.ort_found) {
        SKIP("no ONNX Runtime");
    } else if (CHECK_OK(dr_json_read(&olives, FILES "/olive.json")) &&
               CHECK_OK(dr_list_dir(&arena, FILES, &names, &count))) {
        for (size_t i = 0; i < count; i++) {
            if (strcmp(names[i], "olive.json") == 0)
                continue;
            try_file(names[i], olives);
            files++;
        }
        CHECK(files >= 20 && json_object_size(olives) >= 12);
    }
    json_decref(olives);
    dr_arena_release(&arena);
    return check_done();
}
