/*
 * api_run_test.c - jobs through the public header: results, errors, the list of passes.
 */
#include "api_fixture.h"

static dr_arena arena;

static drupe_status run(drupe_result **r, const char *pass, const char *config,
                        drupe_job job)
{
    const drupe_pass step = {pass, config};

    job.passes = &step;
    job.pass_count = 1;
    return drupe_run(r, &job);
}

static void test_passes(void)
{
    size_t n = drupe_pass_count();
    bool rtn = false;

    CHECK(n >= 5);
    for (size_t i = 0; i < n; i++)
        rtn = rtn || strcmp(drupe_pass_name(i), "Rtn") == 0;
    CHECK(rtn);
    CHECK(drupe_pass_name(n) == NULL);
}

static void test_result(void)
{
    const char *out = in_tmp(&arena, "rtn");
    drupe_result *r = NULL;

    CHECK_DRUPE(
        run(&r, "Rtn", "{\"group_size\": 32}", (drupe_job){.model = TINY, .output = out}),
        DRUPE_OK);
    json_t *j = report_of(r);
    CHECK(r != NULL &&
          strstr(drupe_result_text(r), "grid           4 bits, group 32") != NULL);
    CHECK_STR(text_at(j, "model_path"), in_tmp(&arena, "rtn/model"));
    CHECK_EQ_INT(int_at(j, "bits"), 4);
    CHECK_EQ_INT(int_at(j, "group_size"), 32);
    CHECK(int_at(j, "bytes_after") > 0 &&
          int_at(j, "bytes_after") < int_at(j, "bytes_before"));
    json_decref(j);
    drupe_result_free(r);

    /* onward: the result's own folder is a model; an adapter goes beside the graph */
    CHECK_DRUPE(run(&r, "ModelBuilder", NULL,
                    (drupe_job){.model = out,
                                .output = in_tmp(&arena, "onnx"),
                                .adapters = "travel=" ADAPTER}),
                DRUPE_OK);
    j = report_of(r);
    CHECK_STR(text_at(j, "precision"), "int4");
    CHECK(int_at(j, "adapter_bytes") > 0);
    CHECK(dr_is_file(in_tmp(&arena, "onnx/model/travel.onnx_adapter")));
    json_decref(j);
    drupe_result_free(r);
    drupe_result_free(NULL);
}

/* No result, no folder, and an error that says why. */
static void fails(drupe_job job, const char *pass, const char *config, drupe_status want,
                  const char *text)
{
    drupe_result *r = (drupe_result *)(uintptr_t)text; /* any; it must be set to NULL */

    CHECK_DRUPE(run(&r, pass, config, job), want);
    CHECK_ERROR(text);
    CHECK(r == NULL);
}

static void test_errors(void)
{
    const char *out = in_tmp(&arena, "no");
    drupe_job job = {.model = TINY, .output = out};
    drupe_result *r = NULL;

    fails(job, "Rtm", NULL, DRUPE_EUSAGE, "no pass is called Rtm");
    CHECK_ERROR("did you mean Rtn?");
    fails(job, "Rtn", "{\"bits\": ", DRUPE_EFORMAT, "Rtn:1:");
    fails(job, "Rtn", "{\"bit\": 4}", DRUPE_EUSAGE, "unknown key \"bit\"");
    job.threads = -1;
    fails(job, "Rtn", NULL, DRUPE_EUSAGE, "threads: expected 0 (all) or more, found -1");
    job.threads = 0;
    job.device = "gpu";
    fails(job, "Rtn", NULL, DRUPE_EUSAGE, "gpu");
    job.device = NULL;
    job.model = in_tmp(&arena, "absent");
    fails(job, "Rtn", NULL, DRUPE_EUSAGE, "absent");
    CHECK(drupe_error_context_count() >= 1);
    CHECK_STR(drupe_error_context(100), "");
    job.model = "";
    fails(job, "Rtn", NULL, DRUPE_EUSAGE, "no model was named");
    job = (drupe_job){.model = TINY};
    fails(job, "Rtn", NULL, DRUPE_EUSAGE, "no output folder was named");
    job = (drupe_job){.model = TINY, .output = out};
    CHECK_DRUPE(drupe_run(&r, &job), DRUPE_EUSAGE);
    CHECK_ERROR("a job has at least one pass");
    CHECK(!dr_exists(out));
    CHECK(!dr_exists(in_tmp(&arena, "no.tmp")));
    /* a success leaves no error behind */
    CHECK_DRUPE(run(&r, "Rtn", NULL, job), DRUPE_OK);
    CHECK_EQ_INT(drupe_error_context_count(), 0);
    CHECK_STR(drupe_error_hint(), "");
    drupe_result_free(r);
}

/* Last: nothing runs after it. */
static void test_cancel(void)
{
    const char *out = in_tmp(&arena, "cancelled");
    drupe_result *r = NULL;

    drupe_cancel();
    CHECK_DRUPE(run(&r, "Rtn", NULL, (drupe_job){.model = TINY, .output = out}),
                DRUPE_ECANCELLED);
    CHECK(r == NULL);
    CHECK(!dr_exists(out));
    CHECK(!dr_exists(in_tmp(&arena, "cancelled.tmp")));
}

int main(void)
{
    CHECK(strcmp(drupe_version(), DRUPE_VERSION) == 0);
    drupe_log_level(-3);
    drupe_log_level(99);
    test_passes();
    test_result();
    test_errors();
    test_cancel();
    dr_arena_release(&arena);
    return check_done();
}
