/*
 * api_evaluate_test.c - drupe_evaluate, and limits that a result misses.
 */
#include "api_fixture.h"

static dr_arena arena;

static const char *model_with_tokenizer(void)
{
    static const char *const files[][2] = {
        {TINY "/config.json", "config.json"},
        {TINY "/model.safetensors", "model.safetensors"},
        {DRUPE_SOURCE_DIR "/tests/cli/toy/tokenizer.json", "tokenizer.json"}};
    const char *dir = in_tmp(&arena, "m");

    CHECK_OK(dr_make_dirs(dir));
    for (size_t i = 0; i < DR_COUNT(files); i++)
        CHECK_OK(dr_copy_file(dr_path_join(&arena, dir, files[i][1]), files[i][0]));
    return dir;
}

static void evaluate(const char *model)
{
    drupe_evaluation e = {
        .model = model, .data = {.max_seq_len = 16, .max_samples = 2}, .max_perplexity = 1};
    drupe_result *r = NULL;

    if (CHECK_DRUPE(drupe_evaluate(&r, &e), DRUPE_OK)) {
        json_t *j = report_of(r);
        CHECK_EQ_INT(int_at(j, "judged_tokens"), 32);
        CHECK(drupe_result_missed(r) != NULL &&
              strstr(drupe_result_missed(r), "perplexity is ") != NULL &&
              strstr(drupe_result_missed(r), ", the limit is 1") != NULL);
        CHECK(strstr(drupe_result_text(r), " is above 1\n") != NULL);
        json_decref(j);
    }
    drupe_result_free(r);
    e.max_perplexity = 1e9;
    e.reference = model;
    e.max_kl = 0.001;
    if (CHECK_DRUPE(drupe_evaluate(&r, &e), DRUPE_OK))
        CHECK(drupe_result_missed(r) == NULL);
    drupe_result_free(r);
}

static void refused(const char *model)
{
    const drupe_evaluation bad[] = {{.model = NULL},
                                    {.model = model, .max_kl = 0.1},
                                    {.model = model, .max_perplexity = -1},
                                    {.model = model, .task = "x", .max_perplexity = 2},
                                    {.model = model, .data = {.files = "x"}}};
    static const char *const why[] = {
        "no model was named", "max_kl needs a reference", "expected 0 or more, found -1",
        "neither KL nor perplexity", "data_files needs data_name"};
    drupe_result *r = NULL;

    for (size_t i = 0; i < DR_COUNT(bad); i++) {
        CHECK_DRUPE(drupe_evaluate(&r, &bad[i]), DRUPE_EUSAGE);
        CHECK_ERROR(why[i]);
        CHECK(r == NULL);
    }
}

/* A job's limit: a missed one leaves the folder, one that nothing measures is refused. */
static void jobs(const char *model)
{
    const drupe_pass rtn = {"Rtn", "{\"group_size\": 32}"};
    drupe_job job = {.model = model,
                     .output = in_tmp(&arena, "out"),
                     .passes = &rtn,
                     .pass_count = 1,
                     .evaluate = true,
                     .max_kl = 1e-6};
    drupe_result *r = NULL;

    if (CHECK_DRUPE(drupe_run(&r, &job), DRUPE_OK)) {
        CHECK(drupe_result_missed(r) != NULL &&
              strstr(drupe_result_missed(r), "KL is ") != NULL);
        CHECK(dr_is_file(in_tmp(&arena, "out/drupe.json")));
        CHECK(dr_is_file(in_tmp(&arena, "out/report.html")));
    }
    drupe_result_free(r);
    job.evaluate = false;
    CHECK_DRUPE(drupe_run(&r, &job), DRUPE_EUSAGE);
    CHECK_ERROR("nothing of this run is measured");
    job.max_kl = -1;
    CHECK_DRUPE(drupe_run(&r, &job), DRUPE_EUSAGE);
    CHECK_ERROR("max_kl: expected 0 or more");
}

int main(void)
{
    const char *model = model_with_tokenizer();

    evaluate(model);
    refused(model);
    jobs(model);
    dr_arena_release(&arena);
    return check_done();
}
