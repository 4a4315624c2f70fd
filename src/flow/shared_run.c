/*
 * shared_run.c - a run of several processes (core/ranks.h): what may be shared, that all
 * are on the same, who writes.
 *
 * The first rank has the output folder, as a run of one process has it.  The others have a
 * folder inside of X.tmp each, for what a pass must write to go on, and remove it before
 * the first one commits; a killed run's are cleared away with X.tmp.  All wait for the
 * commit: no rank says that it was made before it was.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "flow/flow_impl.h"
#include "nn/nn.h"

dr_status flow_ranks_check(dr_ranks *r, const flow_planned *steps, size_t count)
{
    dr_status st;

    if (dr_ranks_count(r) == 1)
        return DR_OK;
    if (count > 1) {
        st = dr_fail(DR_EUSAGE, "%zu processes share one pass a run, and this one has %zu",
                     dr_ranks_count(r), count);
        dr_hint("run them one after another, the others without mpirun");
        return st;
    }
    if (!steps[0].def->shared) {
        st = dr_fail(DR_EUSAGE, "%s runs in one process, and %zu were started",
                     steps[0].def->name, dr_ranks_count(r));
        dr_hint("run it without mpirun");
        return st;
    }
    return DR_OK;
}

void flow_ranks_anew(const dr_ranks *r, const flow_planned *step, const char *final)
{
    char *left = NULL;

    if (dr_ranks_count(r) == 1 || step->def->quant_plan == NULL)
        return;
    left = dr_asprintf("%s.tmp/resume", final);
    if (dr_is_dir(left))
        dr_tell("%s is not gone on from: several processes begin anew", left);
    free(left);
}

dr_status flow_ranks_device(dr_ranks *r, const pass_device *device)
{
    dr_status st = DR_OK;

    if (dr_ranks_count(r) == 1)
        return DR_OK;
    DR_TRY(dr_ranks_same(r, DRUPE_VERSION, "version of drupe"));
    DR_TRY(dr_ranks_same(r, device->kind, "device"));
    if (device->dev != NULL)
        DR_TRY(nn_device_join(device->dev));
    dr_log(DR_INFO, "%zu ranks, %zu on this host", dr_ranks_count(r),
           dr_ranks_local_count(r));
done:
    return st;
}

dr_status flow_ranks_same(const flow_spec *spec, const char *hash, const json_t *steps,
                          bool with_data)
{
    json_t *j = NULL;
    char *text = NULL;
    dr_status st = DR_OK;

    if (dr_ranks_count(spec->ranks) == 1)
        return DR_OK;
    j = flow_footprint_json(spec, "", steps, with_data);
    text = json_dumps(j, JSON_SORT_KEYS);
    if (text == NULL)
        DR_FAIL(DR_EUSAGE, "a name that is not UTF-8 cannot be in drupe.json");
    DR_TRY(dr_ranks_same(spec->ranks, text, "set of options"));
    DR_TRY(dr_ranks_same(spec->ranks, spec->resume != NULL ? spec->resume : "",
                         "resume_from_checkpoint"));
    DR_TRY(dr_ranks_same(spec->ranks, hash, "input (model, adapter or data)"));
done:
    free(text);
    json_decref(j);
    return st;
}

dr_status flow_ranks_output(const char **tmp, dr_arena *a, const flow_spec *spec,
                            const dr_outdir *dir, const char *final)
{
    dr_status st = DR_OK;

    if (dir != NULL)
        *tmp = dr_outdir_tmp(dir);
    DR_TRY(dr_ranks_meet(spec->ranks, "opening the output folder"));
    if (dir == NULL) {
        *tmp = dr_arena_printf(a, "%s.tmp/rank-%zu", final, dr_ranks_id(spec->ranks));
        DR_TRY(dr_remove_tree(*tmp));
        DR_TRY(dr_make_dirs(*tmp));
    }
    /* a first one that fails from here on clears them away, not before they are made */
    DR_TRY(dr_ranks_meet(spec->ranks, "the output folder's parts"));
done:
    return st;
}

void flow_ranks_drop(const char *tmp, const char *final)
{
    const dr_trail before = *dr_trail_get();
    dr_arena a = {0};

    if (dr_remove_tree(tmp) != DR_OK)
        dr_trail_set(&before);
    /* on a host of its own nothing else is in it; else it is not empty, and stays */
    (void)rmdir(dr_arena_printf(&a, "%s.tmp", final));
    dr_arena_release(&a);
}
