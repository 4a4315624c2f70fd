/*
 * pass_fixture.h - a pass run by itself, on a model in memory, into a folder.
 */
#ifndef DRUPE_TESTS_PASS_FIXTURE_H
#define DRUPE_TESTS_PASS_FIXTURE_H

#include "check.h"
#include "core/file.h"
#include "core/json.h"
#include "pass/pass.h"

/* Whether results are loaded and run in the runtime, as part of the pass. */
static bool run_pass_checks;
/* What programs are told; NULL: it is not kept. */
static json_t *run_pass_report;

/* "name" in the test's folder; arena memory. */
static inline char *in_tmp(dr_arena *a, const char *name)
{
    return dr_path_join(a, check_tmp(), name);
}

/* On one thread; what is found in out lives in a. */
static inline dr_status run_pass_on(dr_arena *a, pass_model *out, const char *name,
                                    const json_t *config, const pass_model *in,
                                    const char *to)
{
    const pass_def *def = pass_find(name);
    const data_options built_in = {0};
    dr_buf text;
    json_t *report = run_pass_report ? json_incref(run_pass_report) : json_object();
    dr_status st = DR_OK;

    dr_trail_clear();
    *out = (pass_model){0};
    dr_buf_init(&text, 1 << 20);
    if (def == NULL)
        DR_FAIL(DR_EUSAGE, "no pass %s", name);
    void *made = dr_arena_alloc(a, 1, def->config_size + 1);
    unsigned char *given = dr_arena_alloc(a, def->params_count + 1, 1);
    dr_params_defaults(def->params, def->params_count, made);
    DR_TRY(
        dr_params_from_json(def->params, def->params_count, made, config, name, given, a));
    if (def->validate != NULL)
        DR_TRY(def->validate(made, given));
    DR_TRY(dr_remove_tree(to));
    DR_TRY(dr_make_dirs(to));
    const pass_job job = {.def = def,
                          .data = &built_in,
                          .config = made,
                          .given = given,
                          .out_dir = to,
                          .final_dir = to,
                          .threads = 1,
                          .check = run_pass_checks,
                          .arena = a,
                          .text = &text,
                          .report = report};
    DR_TRY(def->run(&job, out, in));
done:
    json_decref(report);
    dr_buf_release(&text);
    return st;
}

#endif
