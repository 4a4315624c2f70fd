/*
 * context.c - a graph compiled by a provider, as a graph of EPContext nodes and what the
 * provider made: a session that is told to write them.
 *
 * A child process does it, since a vendor's compiler is a library that can take it down,
 * hours included.
 */
#include <string.h>

#include "core/file.h"
#include "core/mem.h"
#include "ort/api_impl.h"
#include "ort/check_impl.h"
#include "ort/plugin_impl.h"

enum { LIMIT_S = 24 * 3600 };

static dr_status compile(ort_runtime *rt, const ort_context_request *q)
{
    const ort_api *api = &rt->api;
    const char *const keys[] = {"ep.context_enable", "ep.context_file_path",
                                "ep.context_embed_mode"};
    const char *const values[] = {"1", q->dst, q->embed ? "1" : "0"};
    OrtSessionOptions *o = NULL;
    OrtSession *session = NULL;
    dr_status st = DR_OK;

    DR_TRY(ort_result(api, api->CreateSessionOptions(&o), q->src));
    for (size_t i = 0; i < DR_COUNT(keys); i++)
        DR_TRY(ort_result(api, api->AddSessionConfigEntry(o, keys[i], values[i]), q->src));
    for (size_t i = 0; i < q->session_count; i++)
        DR_TRY(ort_result(api,
                          api->AddSessionConfigEntry(o, q->session_options[i].key,
                                                     q->session_options[i].value),
                          q->session_options[i].key));
    DR_TRY(plugin_append(rt, o, q->provider, q->strict, q->provider_options,
                         q->provider_count));
    DR_TRY(ort_result(api, api->CreateSession(rt->env, q->src, o, &session), q->src));
done:
    if (session != NULL)
        api->ReleaseSession(session);
    if (o != NULL)
        api->ReleaseSessionOptions(o);
    return st;
}

static dr_status compile_in_child(const void *request, bool *runtime)
{
    const ort_context_request *q = request;
    ort_runtime rt = {0};
    dr_status st = DR_OK;

    DR_TRY(ort_runtime_open(&rt));
    DR_TRY(plugin_register(&rt, q->provider));
    *runtime = true;
    DR_TRY(compile(&rt, q));
done:
    ort_runtime_close(&rt);
    return st;
}

dr_status ort_context(const ort_context_request *q)
{
    const check_job job = {q->src, compile_in_child, q, LIMIT_S};
    ort_check_result result = {0};
    dr_status st = DR_OK;

    if (!dr_is_file(q->src))
        DR_FAIL(DR_EIO, "%s: no such file", q->src);
    DR_TRY(check_in_child(&result, &job));
    if (!result.checked) {
        st = dr_fail(DR_EUNSUPPORTED, "%s", result.why);
        dr_hint("set DRUPE_LIB_PATH to the folders of the runtime and of the provider");
        goto done;
    }
    if (!dr_is_file(q->dst))
        DR_FAIL(DR_EDEVICE, "%s wrote no graph of what it compiled", q->provider);
done:
    return st;
}
