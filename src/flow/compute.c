/*
 * compute.c - where drupe computes: the device that a run was asked to take, or finds.
 */
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "flow/flow_impl.h"
#include "nn/nn.h"

static const char bf16[] = ":bf16";

/* A GPU that works is said once; why there is none is for --log_level 1. */
static dr_status try_gpu(pass_device *to, const char *kind, bool must)
{
    dr_status st = nn_device_open_rank(&to->dev, kind, to->threads, to->ranks);

    to->kind = kind;
    if (st == DR_OK)
        dr_tell("computing on %s", strchr(nn_device_describe(to->dev), ',') + 2);
    else if (!must && dr_trail_get()->count > 0)
        dr_log(DR_INFO, "computing on the cpu: %s", dr_trail_get()->frames[0].text);
    return st;
}

/* Threads of one of several processes of this host: they share its processors, unless each
 * is bound to some. */
static int threads_of(const dr_ranks *ranks, int threads)
{
    int all = dr_cpu_count(), local = (int)dr_ranks_local_count(ranks);

    if (threads > 0 || local == 1 || all < sysconf(_SC_NPROCESSORS_ONLN))
        return threads;
    return all > local ? all / local : 1;
}

dr_status flow_compute(pass_device *to, const char *asked, int threads, dr_ranks *ranks)
{
    bool rounded = asked != NULL && strstr(asked, bf16) != NULL;
    const char *gpu = rounded ? "cuda:bf16" : "cuda";
    dr_status st = DR_OK;

    *to = (pass_device){.kind = asked != NULL ? asked : "cpu",
                        .threads = threads_of(ranks, threads),
                        .ranks = ranks};
    if (strncmp(to->kind, "auto", 4) == 0) {
        if (try_gpu(to, gpu, false) == DR_OK)
            return DR_OK;
        dr_trail_clear();
        to->kind = "cpu";
    } else if (strncmp(to->kind, "cuda", 4) == 0) {
        st = try_gpu(to, to->kind, true);
        if (st != DR_OK)
            dr_note_at(__FILE__, __LINE__, "--compute cuda");
        return st;
    }
    if (rounded) {
        st = dr_fail(DR_EUSAGE, "--torch_dtype bfloat16 needs a GPU: the cpu computes in "
                                "float32");
        dr_hint("--compute cuda says what is missing; the nearest is --torch_dtype "
                "float32");
    }
    return st;
}
