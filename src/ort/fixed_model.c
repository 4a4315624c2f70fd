/*
 * fixed_model.c - models of fixed shapes, looked at in a child process: what their values
 * range over, how near the logits of two of them are.
 *
 * What the child finds comes back in memory that parent and child share.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/log.h"
#include "ort/check_impl.h"
#include "ort/fixed_impl.h"

static check_job child_job(const fixed_job *job)
{
    return (check_job){.what = job->request->model.model_path,
                       .run = fixed_run,
                       .request = job,
                       .timeout_s = job->request->timeout_s};
}

dr_status ort_fixed_ranges(float *least, float *largest, const char *const *names,
                           size_t name_count, const ort_fixed_request *request)
{
    const size_t bytes = (2 * name_count + 1) * sizeof(float);
    ort_check_result result = {0};
    void *shared = NULL;
    dr_status st = DR_OK;

    DR_TRY(check_share(&shared, bytes));
    float *found = shared;
    for (size_t i = 0; i < name_count; i++) {
        found[i] = INFINITY;
        found[name_count + i] = -INFINITY;
    }
    const fixed_job job = {.request = request,
                           .names = names,
                           .name_count = name_count,
                           .least = found,
                           .largest = found + name_count};
    const check_job child = child_job(&job);
    DR_TRY(check_in_child(&result, &child));
    if (!result.checked)
        DR_FAIL(DR_EDEVICE, "measuring values needs a runtime: %s", result.why);
    for (size_t i = 0; i < name_count; i++) {
        least[i] = found[i];
        largest[i] = found[name_count + i];
        if (!(least[i] <= largest[i]) || !isfinite(least[i]) || !isfinite(largest[i]))
            DR_FAIL(DR_EFORMAT, "%s: %s ranges from %g to %g on the calibration text",
                    request->model.model_path, names[i], (double)least[i],
                    (double)largest[i]);
    }
    dr_log(DR_INFO, "%zu values measured on %zu tokens in %.1f s", name_count,
           request->count, result.seconds);
done:
    check_unshare(shared, bytes);
    return st;
}

dr_status ort_fixed_compare(ort_fixed_result *out, const ort_fixed_request *request,
                            const ort_fixed_model *other)
{
    ort_check_result result = {0};
    void *shared = NULL;
    dr_status st = DR_OK;

    *out = (ort_fixed_result){0};
    DR_TRY(check_share(&shared, sizeof(*out)));
    const fixed_job job = {.request = request, .other = other, .result = shared};
    const check_job child = child_job(&job);
    DR_TRY(check_in_child(&result, &child));
    *out = *job.result;
    out->seconds = result.seconds;
    if (!result.checked) {
        out->tokens = 0;
        (void)snprintf(out->why, sizeof(out->why), "%s", result.why);
    }
done:
    check_unshare(shared, sizeof(*out));
    return st;
}
