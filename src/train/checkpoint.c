/*
 * checkpoint.c - all that a training is, in a folder, so that a killed one goes on as if
 * nothing had happened.
 *
 *     checkpoint-40/adapter_model.safetensors, adapter_config.json   for PEFT and drupe
 *     checkpoint-40/optimizer.safetensors    parameters, both moments, the best parameters
 *     checkpoint-40/trainer_state.json       steps, losses, evaluations, the Trainer's log
 *     checkpoint-40/drupe.json               what it belongs to, a checksum of each file
 *                                            and one of itself
 *
 * Dropout and order are counted from the step and need no state.  A folder is built as
 * every output of drupe is (core/file.h): it is whole, or it is not there.  It holds no
 * time and no path but that of the base: the same step gives the same bytes.
 */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/hash.h"
#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "train/train_impl.h"

const char *const train_checkpoint_files[TRAIN_CHECKPOINT_FILES] = {
    "adapter_config.json", "adapter_model.safetensors", "optimizer.safetensors",
    "trainer_state.json"};

bool train_checkpoint_step(size_t *step, const char *name)
{
    static const char prefix[] = "checkpoint-";
    const char *digits = name + sizeof(prefix) - 1;
    char *end = NULL;

    if (strncmp(name, prefix, sizeof(prefix) - 1) != 0 || !isdigit((unsigned char)*digits))
        return false;
    errno = 0;
    *step = strtoull(digits, &end, 10);
    return *end == '\0' && errno == 0;
}

static int descending(const void *a, const void *b)
{
    const size_t *x = a, *y = b;

    return *x < *y ? 1 : *x > *y ? -1 : 0;
}

dr_status train_checkpoint_list(dr_arena *a, size_t **steps, size_t *count, const char *dir)
{
    char **names = NULL;
    size_t n = 0;
    dr_status st = DR_OK;

    *count = 0;
    if (!dr_is_dir(dir))
        return DR_OK;
    DR_TRY(dr_list_dir(a, dir, &names, &n));
    *steps = dr_arena_alloc(a, n, sizeof(**steps));
    for (size_t i = 0; i < n; i++)
        if (train_checkpoint_step(&(*steps)[*count], names[i]))
            ++*count;
    qsort(*steps, *count, sizeof(**steps), descending);
done:
    return st;
}

/* ---- the state in JSON ---- */

static json_t *reals(const double *v, size_t n)
{
    json_t *list = json_array();

    for (size_t i = 0; v != NULL && i < n; i++)
        json_array_append_new(list, isfinite(v[i]) ? json_real(v[i]) : json_null());
    return list;
}

static json_t *state_json(const trainer *t, const train_report *r)
{
    size_t judged = t->o->eval != NULL ? t->o->eval->count : 0;
    json_t *evals = json_array();

    for (size_t i = 0; i < r->eval_count; i++)
        json_array_append_new(
            evals, json_pack("[I, f]", (json_int_t)r->evals[i].step, r->evals[i].loss));
    return json_pack(
        "{s:I, s:I, s:f, s:o, s:I, s:I, s:b, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:O}",
        "global_step", (json_int_t)r->steps, "max_steps", (json_int_t)r->total, "epoch",
        (double)r->steps / (double)r->epoch_steps, "best_metric",
        r->best_step > 0 ? json_real(r->best_loss) : json_null(), "best_global_step",
        (json_int_t)r->best_step, "waited", (json_int_t)r->waited, "stopped", r->stopped,
        "tokens", (json_int_t)r->tokens, "losses", reals(r->losses, r->steps), "grad_norms",
        reals(r->grad_norms, r->steps), "evals", evals, "base_losses",
        reals(r->base_losses, judged), "last_losses", reals(t->last_losses, judged),
        "best_losses", reals(t->best != NULL ? t->best_losses : NULL, judged),
        "log_history", r->history);
}

/* ---- writing ---- */

static dr_status write_arrays(const trainer *t, const char *path)
{
    const struct {
        const char *name;
        const float *data;
    } all[] = {{"param", t->state.param},
               {"exp_avg", t->state.m},
               {"exp_avg_sq", t->state.v},
               {"best", t->best}};
    dr_tensor tensors[DR_COUNT(all)];
    size_t n = 0;

    for (size_t i = 0; i < DR_COUNT(all); i++) {
        if (all[i].data == NULL)
            continue;
        tensors[n++] = (dr_tensor){.name = all[i].name,
                                   .dtype = DR_DTYPE_F32,
                                   .ndim = 1,
                                   .dims = {(int64_t)t->state.count},
                                   .data = all[i].data,
                                   .bytes = t->state.count * sizeof(float)};
    }
    return hf_st_write(path, tensors, n);
}

void train_manifest_hash(char hex[DR_SHA256_HEX], const json_t *manifest)
{
    json_t *copy = json_copy((json_t *)(uintptr_t)manifest);

    (void)json_object_del(copy, "checksum");
    DR_BUG_IF(!dr_json_sha256(hex, copy));
    json_decref(copy);
}

static dr_status write_manifest(const trainer *t, const train_report *r, const char *dir)
{
    char hex[DR_SHA256_HEX];
    json_t *files = json_object(), *j = NULL;
    dr_arena a = {0};
    dr_status st = DR_OK;

    for (size_t i = 0; i < TRAIN_CHECKPOINT_FILES; i++) {
        const char *name = train_checkpoint_files[i];
        DR_TRY(dr_sha256_file(hex, dr_path_join(&a, dir, name)));
        json_object_set_new(files, name, json_string(hex));
    }
    j = json_pack("{s:s, s:i, s:I, s:O, s:O}", "drupe", DRUPE_VERSION, "checkpoint",
                  TRAIN_CHECKPOINT_FORMAT, "step", (json_int_t)r->steps, "of", t->identity,
                  "files", files);
    train_manifest_hash(hex, j);
    json_object_set_new(j, "checksum", json_string(hex));
    DR_TRY(dr_json_write(dr_path_join(&a, dir, "drupe.json"), j));
done:
    json_decref(files);
    json_decref(j);
    dr_arena_release(&a);
    return st;
}

static dr_status write_all(const trainer *t, const train_report *r, const char *dir)
{
    json_t *state = state_json(t, r);
    dr_arena a = {0};
    dr_status st = DR_OK;

    DR_TRY(train_state_write(&t->state, dir, t->base_name));
    DR_TRY(write_arrays(t, dr_path_join(&a, dir, "optimizer.safetensors")));
    DR_TRY(dr_json_write(dr_path_join(&a, dir, "trainer_state.json"), state));
    DR_TRY(write_manifest(t, r, dir));
done:
    json_decref(state);
    dr_arena_release(&a);
    return st;
}

dr_status train_checkpoint_rotate(const train_options *o)
{
    size_t *steps = NULL, count = 0;
    dr_arena a = {0};
    dr_status st = DR_OK;

    if (o->checkpoints == NULL)
        return DR_OK;
    DR_TRY(train_checkpoint_list(&a, &steps, &count, o->checkpoints));
    for (size_t i = o->save_limit; i < count && o->save_limit > 0; i++)
        DR_TRY(dr_remove_tree(
            dr_arena_printf(&a, "%s/checkpoint-%zu", o->checkpoints, steps[i])));
done:
    dr_arena_release(&a);
    return st;
}

dr_status train_checkpoint_write(trainer *t, const train_report *r)
{
    dr_arena a = {0};
    const char *path =
        dr_arena_printf(&a, "%s/checkpoint-%zu", t->o->checkpoints, r->steps);
    dr_outdir *out = NULL;
    dr_status st = DR_OK;

    DR_TRY(train_state_pull(&t->state));
    /* One of this step that is there is damaged, or what this run makes again. */
    DR_TRY(dr_remove_tree(path));
    DR_TRY(dr_outdir_open(&out, path));
    DR_TRY(write_all(t, r, dr_outdir_tmp(out)));
    DR_TRY(dr_outdir_commit(out));
    dr_log(DR_INFO, "step %zu: %s", r->steps, path);
    DR_TRY(train_checkpoint_rotate(t->o));
done:
    dr_outdir_close(out);
    if (st != DR_OK)
        dr_note_at(__FILE__, __LINE__, "writing the checkpoint after step %zu", r->steps);
    dr_arena_release(&a);
    return st;
}

dr_status train_checkpoint_none(const train_options *o)
{
    size_t *steps = NULL, count = 0;
    dr_arena a = {0};
    dr_status st = DR_OK;

    if (o->checkpoints == NULL || o->save_when == TRAIN_NEVER)
        return DR_OK;
    DR_TRY(train_checkpoint_list(&a, &steps, &count, o->checkpoints));
    if (count > 0) {
        st = dr_fail(DR_EUSAGE, "%s: checkpoint-%zu of a run that did not end is there",
                     o->checkpoints, steps[0]);
        dr_hint("--resume_from_checkpoint true goes on from it; to begin anew, remove the "
                "folder");
    }
done:
    dr_arena_release(&a);
    return st;
}

void train_checkpoint_tell(const train_options *o)
{
    const dr_trail before = *dr_trail_get();
    size_t *steps = NULL, count = 0;
    dr_arena a = {0};

    bool listed = o->checkpoints != NULL &&
                  train_checkpoint_list(&a, &steps, &count, o->checkpoints) == DR_OK;
    dr_trail_set(&before);
    if (listed && count > 0)
        dr_hint("%s/checkpoint-%zu is kept: --resume_from_checkpoint true goes on from it",
                o->checkpoints, steps[0]);
    dr_arena_release(&a);
}
