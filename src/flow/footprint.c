/*
 * footprint.c - drupe.json: what made a folder, so that drupe knows its own and a later run
 * can tell whether it would make the same.
 */
#include <stdio.h>
#include <string.h>

#include "core/file.h"
#include "core/hash.h"
#include "core/json.h"
#include "flow/flow_impl.h"

enum { WHOLE_BYTES = 1 << 20, SAMPLE_BYTES = 4096, SAMPLES = 64 };

static dr_status add_file(dr_buf *b, const char *path, const char *name)
{
    dr_map map = {0};
    char hex[DR_SHA256_HEX];
    dr_status st = DR_OK;

    DR_TRY(dr_map_open(&map, path));
    DR_TRY(dr_buf_addf(b, "%s %zu", name, map.size));
    if (map.size <= WHOLE_BYTES) {
        dr_sha256(hex, map.data, map.size);
        DR_TRY(dr_buf_addf(b, " %s\n", hex));
        goto done;
    }
    size_t step = (map.size - SAMPLE_BYTES) / (SAMPLES - 1);
    for (size_t i = 0; i < SAMPLES; i++) {
        dr_sha256(hex, map.data + i * step, SAMPLE_BYTES);
        DR_TRY(dr_buf_addf(b, " %.16s", hex));
    }
    DR_TRY(dr_buf_adds(b, "\n"));
done:
    dr_map_close(&map);
    return st;
}

/* Not the model: what drupe and Olive write beside it, and hidden files. */
static bool left_out(const char *name)
{
    return name[0] == '.' || strcmp(name, "drupe.json") == 0 ||
           strcmp(name, "model_config.json") == 0;
}

dr_status flow_fingerprint(char hex[65], const char *path)
{
    dr_arena arena = {0};
    char **names = NULL;
    size_t count = 0;
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, (size_t)16 << 20);
    if (dr_is_file(path)) {
        DR_TRY(add_file(&b, path, "model"));
    } else {
        DR_TRY(dr_list_dir(&arena, path, &names, &count));
        for (size_t i = 0; i < count; i++) {
            const char *file = dr_path_join(&arena, path, names[i]);
            if (!left_out(names[i]) && dr_is_file(file))
                DR_TRY(add_file(&b, file, names[i]));
        }
    }
    dr_sha256(hex, b.data, b.len);
done:
    dr_buf_release(&b);
    dr_arena_release(&arena);
    return st;
}

dr_status flow_write_footprint(const char *dir, const flow_spec *spec, const char *input_hash,
                               const json_t *steps)
{
    dr_arena arena = {0};
    json_t *j = json_object();
    dr_status st = DR_OK;

    json_object_set_new(j, "drupe", json_string(DRUPE_VERSION));
    json_object_set_new(j, "device", json_string(spec->device ? spec->device : "cpu"));
    json_object_set_new(j, "input_fingerprint", json_string(input_hash));
    json_object_set(j, "passes", (json_t *)(uintptr_t)steps);
    DR_TRY(dr_json_write(dr_path_join(&arena, dir, "drupe.json"), j));
done:
    json_decref(j);
    dr_arena_release(&arena);
    return st;
}
