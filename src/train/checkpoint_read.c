/*
 * checkpoint_read.c - a training goes on from its last checkpoint that is whole.
 *
 * A damaged one (a file that is missing, cut or changed) is named in a warning and the one
 * before it is taken; one that belongs to another run is an error.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/hash.h"
#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "train/train_impl.h"

static dr_status damaged(const char *dir, const char *what)
{
    return dr_fail(DR_EFORMAT, "%s: damaged: %s", dir, what);
}

/* drupe.json, and every file against its checksum. */
static dr_status check_whole(json_t **manifest, const char *dir)
{
    char hex[DR_SHA256_HEX];
    const char *sum = NULL;
    dr_arena a = {0};
    dr_status st = DR_OK;

    DR_TRY(dr_json_read(manifest, dr_path_join(&a, dir, "drupe.json")));
    train_manifest_hash(hex, *manifest);
    sum = json_string_value(json_object_get(*manifest, "checksum"));
    if (sum == NULL || strcmp(sum, hex) != 0)
        DR_TRY(damaged(dir, "drupe.json has another checksum"));
    const json_t *files = json_object_get(*manifest, "files");
    for (size_t i = 0; i < TRAIN_CHECKPOINT_FILES; i++) {
        const char *name = train_checkpoint_files[i];
        DR_TRY(dr_sha256_file(hex, dr_path_join(&a, dir, name)));
        sum = json_string_value(json_object_get(files, name));
        if (sum == NULL || strcmp(sum, hex) != 0)
            DR_TRY(damaged(dir, dr_arena_printf(&a, "%s has another checksum", name)));
    }
done:
    dr_arena_release(&a);
    return st;
}

/* ---- what is in it ---- */

static size_t count_of(const json_t *j, const char *key)
{
    return (size_t)json_integer_value(json_object_get(j, key));
}

/* dst[n] from a list; null is NaN. */
static dr_status read_reals(double *dst, const json_t *j, const char *key, size_t n,
                            const char *dir)
{
    const json_t *list = json_object_get(j, key);

    if (json_array_size(list) != n)
        return damaged(dir, "lists of trainer_state.json have other lengths");
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        dst[i] = json_is_number(v) ? json_number_value(v) : (double)NAN;
    }
    return DR_OK;
}

static dr_status read_state(trainer *t, train_report *r, const char *dir)
{
    size_t judged = t->o->eval != NULL ? t->o->eval->count : 0;
    json_t *j = NULL;
    dr_arena a = {0};
    dr_status st = DR_OK;

    DR_TRY(dr_json_read(&j, dr_path_join(&a, dir, "trainer_state.json")));
    r->steps = count_of(j, "global_step");
    if (r->steps > r->total)
        DR_FAIL(DR_EUSAGE, "%s: %zu steps are done, this run has %zu", dir, r->steps,
                r->total);
    DR_TRY(read_reals(r->losses, j, "losses", r->steps, dir));
    DR_TRY(read_reals(r->grad_norms, j, "grad_norms", r->steps, dir));
    DR_TRY(read_reals(r->base_losses, j, "base_losses", judged, dir));
    DR_TRY(read_reals(t->last_losses, j, "last_losses", judged, dir));
    if (t->best != NULL)
        DR_TRY(read_reals(t->best_losses, j, "best_losses", judged, dir));
    const json_t *evals = json_object_get(j, "evals");
    r->eval_count = json_array_size(evals);
    r->evals = dr_calloc(r->eval_count, sizeof(*r->evals));
    for (size_t i = 0; i < r->eval_count; i++) {
        const json_t *e = json_array_get(evals, i);
        r->evals[i].step = (size_t)json_integer_value(json_array_get(e, 0));
        r->evals[i].loss = json_number_value(json_array_get(e, 1));
    }
    r->tokens = count_of(j, "tokens");
    r->best_step = count_of(j, "best_global_step");
    r->best_loss = json_number_value(json_object_get(j, "best_metric"));
    r->waited = count_of(j, "waited");
    r->stopped = json_is_true(json_object_get(j, "stopped"));
    json_array_extend(r->history, json_object_get(j, "log_history"));
    for (size_t i = 0; i < json_array_size(r->history); i++) {
        const json_t *e = json_array_get(r->history, i);
        if (json_object_get(e, "loss") != NULL)
            t->logged = count_of(e, "step");
    }
done:
    json_decref(j);
    dr_arena_release(&a);
    return st;
}

/* The arrays one after another behind the header, as checkpoint.c writes them. */
static dr_status read_arrays(trainer *t, const char *dir)
{
    float *const all[] = {t->state.param, t->state.m, t->state.v, t->best};
    size_t n = t->best != NULL ? 4 : 3, bytes = t->state.count * sizeof(float);
    uint64_t header = 0;
    dr_map map = {0};
    dr_arena a = {0};
    dr_status st = DR_OK;

    DR_TRY(dr_map_open(&map, dr_path_join(&a, dir, "optimizer.safetensors")));
    if (map.size >= sizeof(header))
        memcpy(&header, map.data, sizeof(header));
    if (header > map.size || map.size - header != sizeof(header) + n * bytes)
        DR_TRY(damaged(dir, "optimizer.safetensors has another size"));
    for (size_t i = 0; i < n; i++)
        memcpy(all[i], map.data + sizeof(header) + header + i * bytes, bytes);
    DR_TRY(train_state_push(&t->state));
    DR_TRY(train_params_changed(t));
done:
    dr_map_close(&map);
    dr_arena_release(&a);
    return st;
}

/* ---- which one ---- */

static dr_status try_one(json_t **manifest, const char *dir)
{
    dr_status st = DR_OK;

    DR_TRY(check_whole(manifest, dir));
    if (count_of(*manifest, "checkpoint") != TRAIN_CHECKPOINT_FORMAT)
        DR_FAIL(DR_EUNSUPPORTED, "%s: written by drupe %s, in a form of its own", dir,
                json_string_value(json_object_get(*manifest, "drupe")));
done:
    return st;
}

/* The folder of checkpoints, and the step that is the last to be tried. */
static dr_status find(dr_arena *a, const char **dir, size_t *from, const char *path)
{
    char *clean = dr_arena_strdup(a, path);
    size_t n = strlen(clean);

    while (n > 1 && clean[n - 1] == '/')
        clean[--n] = '\0';
    *from = SIZE_MAX;
    *dir = clean;
    if (train_checkpoint_step(from, dr_path_base(clean))) {
        *dir = dr_path_dir(a, clean);
        if (!dr_is_dir(clean))
            return dr_fail(DR_EUSAGE, "resume_from_checkpoint: %s is not there", clean);
    }
    return DR_OK;
}

dr_status train_checkpoint_read(trainer *t, train_report *r)
{
    const char *dir = NULL, *path = NULL;
    size_t *steps = NULL, count = 0, from = 0, tried = 0;
    json_t *manifest = NULL;
    dr_arena a = {0};
    dr_status st = DR_OK;

    DR_TRY(find(&a, &dir, &from, t->o->resume));
    DR_TRY(train_checkpoint_list(&a, &steps, &count, dir));
    for (size_t i = 0; i < count && path == NULL; i++) {
        if (steps[i] > from)
            continue;
        const char *one = dr_arena_printf(&a, "%s/checkpoint-%zu", dir, steps[i]);
        st = try_one(&manifest, one);
        tried++;
        if (st == DR_OK) {
            path = one;
        } else if (st == DR_EFORMAT || st == DR_EIO) {
            dr_warn_result("%s; the one before it is looked for",
                           dr_trail_get()->frames[0].text);
            dr_trail_clear();
            json_decref(manifest);
            manifest = NULL;
        } else {
            DR_TRY(st);
        }
    }
    st = DR_OK;
    if (path == NULL) {
        st = dr_fail(DR_EUSAGE, "resume_from_checkpoint: %s: no checkpoint%s is there", dir,
                     tried > 0 ? " that is whole" : "");
        dr_hint(tried > 0 ? "to begin anew, leave it out and remove the folder"
                          : "leave it out to begin anew");
        goto done;
    }
    DR_TRY(train_identity_check(t, json_object_get(manifest, "of"), path));
    DR_TRY(read_state(t, r, path));
    DR_TRY(read_arrays(t, path));
    dr_log(DR_INFO, "going on from %s: %zu of %zu steps are done", path, r->steps,
           r->total);
done:
    json_decref(manifest);
    dr_arena_release(&a);
    return st;
}
