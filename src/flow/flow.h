/*
 * flow.h - one run: a model, passes in order, an output folder.
 *
 * Every verb of the command line fills one flow_spec.  The engine resolves the model (a
 * folder, a hub id, an earlier result), checks that disk and memory can suffice, runs the
 * passes in X.tmp, writes drupe.json and Olive's model_config.json, and exchanges X.tmp
 * with X: a result is whole or absent.
 */
#ifndef DRUPE_FLOW_H
#define DRUPE_FLOW_H

#include <jansson.h>
#include <stdbool.h>

#include "core/arena.h"
#include "core/buf.h"
#include "core/status.h"
#include "data/data.h"

typedef struct {
    const char *pass;     /* name */
    const json_t *config; /* object of the pass's parameters; NULL: defaults */
} flow_step;

typedef struct {
    const char *model;    /* what the user typed */
    const char *adapters; /* "PATH" or "NAME=PATH,NAME2=PATH2"; NULL: none, or the one that
                             the model's model_config.json names */
    const char *output;   /* folder */
    const flow_step *steps;
    size_t step_count;
    data_options data;
    const char *device; /* NULL: "cpu" */
    int threads;
    bool evaluate, check;
} flow_spec;

typedef struct {
    const char *model_path;   /* arena: <output>/model */
    const char *adapter_path; /* arena; NULL: none was made */
    dr_buf text;              /* for people */
    json_t *report;           /* for programs */
    dr_arena arena;
} flow_result;
void flow_result_release(flow_result *r);

DR_MUST_USE dr_status flow_run(flow_result *out, const flow_spec *spec);

/* Splits "NAME=PATH,..." (a path alone has no name).  DR_EUSAGE: an empty or double name. */
DR_MUST_USE dr_status flow_parse_adapters(dr_arena *a, const char *text,
                                          const char ***names, const char ***paths,
                                          size_t *count);

#endif
