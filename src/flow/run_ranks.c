/*
 * run_ranks.c - `mpirun -n 4 drupe run ...`: one run, not four.
 *
 * Rank 0 runs the file, the others work for it.  They need no MPI between them: rank 0
 * leaves its port and secret in a file of the cache, which all of them see and nobody else
 * reads (mode 0600), and takes it away when it ends, which it does not before all have
 * come.  One that an earlier run has left is told by nobody being at its port, or nobody
 * who knows its secret.
 *
 * DRUPE_ALONE=1 says that each is a run of its own.  It is set for what a run begins, so
 * that a command that judges models may run drupe, too.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "flow/workers_impl.h"

static const double wait_s = 60, try_s = 1;

/* Variables that say which of how many this is, and what all of them have in common. */
static const struct {
    const char *rank, *size, *needs, *job[2];
} launchers[] = {
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", NULL, {"PMIX_NAMESPACE", NULL}},
    {"PMI_RANK", "PMI_SIZE", NULL, {"PMI_JOBID", NULL}},
    /* SLURM_STEP_ID: of srun; a script of sbatch has the others, and is one */
    {"SLURM_PROCID",
     "SLURM_STEP_NUM_TASKS",
     "SLURM_STEP_ID",
     {"SLURM_JOB_ID", "SLURM_STEP_ID"}},
};

static const char *variable(const char *name)
{
    const char *text = name != NULL ? getenv(name) : NULL;

    return text != NULL ? text : "";
}

run_ranks ranks_of(const flow_workflow_options *o)
{
    const char *alone = getenv("DRUPE_ALONE");
    run_ranks k = {0};

    if (!o->launched || (alone != NULL && strcmp(alone, "1") == 0))
        return k;
    for (size_t i = 0; i < DR_COUNT(launchers) && k.size == 0; i++) {
        const char *rank = variable(launchers[i].rank), *size = variable(launchers[i].size);
        if (*rank == '\0' || strtol(size, NULL, 10) < 2 ||
            (launchers[i].needs != NULL && *variable(launchers[i].needs) == '\0'))
            continue;
        k.rank = (int)strtol(rank, NULL, 10);
        k.size = (int)strtol(size, NULL, 10);
        char *text =
            dr_asprintf("%s %s %s %s %s %s", launchers[i].rank,
                        variable(launchers[i].job[0]), variable(launchers[i].job[1]), size,
                        o->config, o->output != NULL ? o->output : "");
        dr_sha256(k.id, text, strlen(text));
        free(text);
    }
    if (k.size > 0)
        (void)setenv("DRUPE_ALONE", "1", 1);
    return k;
}

char *ranks_meeting(const run_ranks *k, const char *cache)
{
    return dr_asprintf("%s/locks/ranks-%.16s.json", cache, k->id);
}

dr_status ranks_announce(const run_workers *all)
{
    char *tmp = dr_asprintf("%s.tmp", all->meeting);
    json_t *j = json_pack("{s:s, s:s}", "addresses", all->addresses, "secret", all->secret);
    char *text = json_dumps(j, JSON_COMPACT);
    int fd = -1;
    dr_status st = DR_OK;

    (void)unlink(tmp);
    fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    const size_t n = strlen(text);
    if (fd < 0 || write(fd, text, n) != (ssize_t)n || fsync(fd) != 0 ||
        rename(tmp, all->meeting) != 0) {
        st = dr_fail(DR_EIO, "%s: %s", all->meeting, strerror(errno));
        (void)unlink(tmp);
    }
    if (fd >= 0)
        (void)close(fd);
    json_decref(j);
    free(text);
    free(tmp);
    return st;
}

/* What is in the file now; *met: the run was there, and has ended. */
static dr_status try_meeting(bool *met, const char *path)
{
    json_t *j = dr_is_file(path) ? json_load_file(path, 0, NULL) : NULL;
    const char *addresses = json_string_value(json_object_get(j, "addresses"));
    const char *secret = json_string_value(json_object_get(j, "secret"));
    dr_status st = DR_OK;

    if (addresses != NULL && secret != NULL)
        st = remote_work(met, addresses, secret, try_s);
    json_decref(j);
    return st;
}

dr_status ranks_work(const run_ranks *k, const char *cache)
{
    const double began = dr_now_s();
    char *path = ranks_meeting(k, cache);
    bool met = false;
    dr_status st = DR_OK;

    while (!met) {
        DR_TRY(dr_cancelled_check());
        DR_TRY(try_meeting(&met, path));
        if (!met && dr_now_s() - began > wait_s) {
            st = dr_fail(DR_EDEVICE,
                         "this is rank %d of %d, and rank 0 has not come within "
                         "%.0f s",
                         k->rank, k->size, wait_s);
            dr_hint("if each is a run of its own, set DRUPE_ALONE=1; if not, cache_dir has "
                    "to be on a file system that all hosts share");
            goto done;
        }
        if (!met)
            (void)usleep(100000);
    }
done:
    free(path);
    return st;
}
