/*
 * drupe_impl.h - what the public functions share.
 */
#ifndef DRUPE_API_DRUPE_IMPL_H
#define DRUPE_API_DRUPE_IMPL_H

#include <jansson.h>

#include "core/arena.h"
#include "core/buf.h"
#include "drupe/drupe.h"
#include "flow/flow.h"
#include "tok/tok.h"

struct drupe_result {
    dr_buf text;
    json_t *report; /* owned */
    char *json;     /* owned: report as text */
    char *missed;   /* owned: the limits that it misses; NULL: none */
};

/* An empty result with an object for the report. */
drupe_result *api_result_new(void);
/* The report as text; then the result is ready to be handed out. */
void api_result_seal(drupe_result *r);

/* The inner form of the data options. */
DR_MUST_USE dr_status api_data(data_options *out, const drupe_data *d);
/* What a run left, as a result. */
DR_MUST_USE dr_status api_result_of(drupe_result **out, const flow_result *made);
/* The same where the run's status is DR_OK; made is released, *out is NULL otherwise. */
drupe_status api_result_taken(drupe_result **out, flow_result *made, dr_status st);

/* The folder with genai_config.json: dir itself, or its model/. */
const char *api_genai_folder(dr_arena *a, const char *dir);

/* An integer into the report. */
void api_set_int(json_t *j, const char *key, uint64_t v);

/* One `key value` line for people; the same into the report. */
DR_MUST_USE dr_status api_line(drupe_result *r, const char *key, const char *fmt, ...)
    DR_PRINTF(3, 4);
DR_MUST_USE dr_status api_number(drupe_result *r, const char *key, int64_t v);

/* Single files; DR_EFORMAT when they are not what their name says. */
DR_MUST_USE dr_status api_inspect_safetensors(drupe_result *r, const char *path);
dr_status api_inspect_torch(drupe_result *r, const char *path);
DR_MUST_USE dr_status api_inspect_onnx_adapter(drupe_result *r, const char *path);

#endif
