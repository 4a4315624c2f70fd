/*
 * compute.c - where drupe computes: the device that a run was asked to take, or finds.
 */
#include <string.h>

#include "core/log.h"
#include "flow/flow_impl.h"
#include "nn/nn.h"

static const char bf16[] = ":bf16";

/* A GPU that works is said once; why there is none is for --log_level 1. */
static dr_status try_gpu(const char *kind, bool must)
{
    nn_device *dev = NULL;
    dr_status st = nn_device_open(&dev, kind, 1);

    if (st == DR_OK)
        dr_tell("computing on %s", strchr(nn_device_describe(dev), ',') + 2);
    else if (!must && dr_trail_get()->count > 0)
        dr_log(DR_INFO, "computing on the cpu: %s", dr_trail_get()->frames[0].text);
    nn_device_close(dev);
    return st;
}

dr_status flow_compute(const char **kind, const char *asked)
{
    bool rounded = asked != NULL && strstr(asked, bf16) != NULL;
    const char *gpu = rounded ? "cuda:bf16" : "cuda";
    dr_status st = DR_OK;

    *kind = asked != NULL ? asked : "cpu";
    if (strncmp(*kind, "auto", 4) == 0) {
        *kind = gpu;
        if (try_gpu(gpu, false) == DR_OK)
            return DR_OK;
        dr_trail_clear();
        *kind = "cpu";
    } else if (strncmp(*kind, "cuda", 4) == 0) {
        st = try_gpu(*kind, true);
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
