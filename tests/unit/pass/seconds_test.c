/*
 * seconds_test.c - the guess of a run's time: by threads, and by a GPU's rate where a GPU
 * computes.
 */
#include "check.h"
#include "pass/shared_impl.h"

int main(void)
{
    pass_device cpu = {.kind = "cpu"}, gpu = {.kind = "cuda:bf16"};
    pass_job job = {.threads = 4, .device = &cpu};
    /* 100 LoRA steps of 8 x 1024 tokens through 3.7e9 weights, 6 operations each: 27 s on
     * an H100 */
    const double flops = 6.0 * 100 * 8 * 1024 * 3.7e9;

    CHECK_NEAR(pass_seconds(&job, 2e11), 1, 1e-9);
    job.threads = 1;
    CHECK_NEAR(pass_seconds(&job, 2e11), 4, 1e-9);
    job.device = NULL;
    CHECK_NEAR(pass_seconds(&job, 2e11), 4, 1e-9);
    job.device = &gpu;
    CHECK(pass_seconds(&job, flops) > 27.0 / 4 && pass_seconds(&job, flops) < 27.0 * 4);
    return check_done();
}
