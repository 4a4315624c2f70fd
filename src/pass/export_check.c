/*
 * export_check.c - an export is loaded and run in a child process before it is committed.
 */
#include <string.h>

#include "ort/ort.h"
#include "pass/export_impl.h"

/* Texts whose ids must be ours in the runtime too. */
static const char *const probes[] = {
    "what is the best thing to see in chicago",
    "Hello, world! It's 3:45 pm on 2024-12-31; the price is 1,234.50 EUR.",
    "  two spaces,\ttab,\nline; caf\xc3\xa9 \xe6\x97\xa5\xe6\x9c\xac \xf0\x9f\x99\x82",
    "def f(x):\n    return [i ** 2 for i in range(x)]  # squares\n",
};

dr_status pass_tell_not_checked(const pass_job *job, const char *why)
{
    json_object_set_new(job->report, "not_checked", json_string(why));
    return dr_buf_addf(job->text, "check          not checked: %s\n", why);
}

dr_status pass_tell_check(const pass_job *job, const ort_check_result *result)
{
    if (!result->checked)
        return pass_tell_not_checked(job, result->why);
    json_object_set_new(job->report, "check_seconds", json_real(result->seconds));
    json_object_set_new(job->report, "check_peak_bytes",
                        json_integer((json_int_t)result->peak_bytes));
    return dr_buf_addf(job->text, "check          loaded and run in %.2f s, %.0f MB\n",
                       result->seconds, (double)result->peak_bytes / 1e6);
}

dr_status pass_tell_not_run(const pass_job *job, const char *provider)
{
    const char *why = "sessions are opened on the CPU here";
    bool there = false;
    ort_info info;

    ort_probe(job->arena, &info);
    for (size_t i = 0; i < info.provider_count; i++)
        there = there || strcmp(info.providers[i], provider) == 0;
    if (!there)
        why = dr_arena_printf(job->arena, "provider %s is not in this runtime", provider);
    json_object_set_new(job->report, "not_run", json_string(why));
    return dr_buf_addf(job->text, "check          not run: %s\n", why);
}

dr_status pass_check_export(const pass_job *job, const char *dir,
                            const onnx_named_adapter *named, size_t count,
                            const tok_tokenizer *tok)
{
    size_t n = DR_COUNT(probes);
    const char **files = dr_arena_alloc(job->arena, count, sizeof(char *));
    tok_ids ids[DR_COUNT(probes)] = {0};
    const int32_t *id_lists[DR_COUNT(probes)];
    size_t id_counts[DR_COUNT(probes)];
    ort_check_result result = {0};
    dr_status st = DR_OK;

    for (size_t i = 0; i < count; i++)
        files[i] = dr_arena_printf(job->arena, "%s.onnx_adapter", named[i].name);
    for (size_t i = 0; tok != NULL && i < n; i++) {
        DR_TRY(tok_encode(tok, &ids[i], probes[i], strlen(probes[i]), false));
        id_lists[i] = ids[i].ids;
        id_counts[i] = ids[i].count;
    }
    const ort_check_request request = {.dir = dir,
                                       .genai = tok != NULL,
                                       .adapter_files = files,
                                       .adapter_count = count,
                                       .texts = probes,
                                       .ids = id_lists,
                                       .id_counts = id_counts,
                                       .text_count = tok != NULL ? n : 0};
    DR_TRYF(ort_check(&result, &request), "checking the exported model");
    DR_TRY(pass_tell_check(job, &result));
done:
    for (size_t i = 0; i < n; i++)
        tok_ids_release(&ids[i]);
    return st;
}
