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
#include <stdint.h>

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
    const char *model_path;   /* arena: <output>/model, or a file in it */
    const char *adapter_path; /* arena; NULL: none was made */
    dr_buf text;              /* for people */
    json_t *report;           /* for programs */
    dr_arena arena;
} flow_result;
void flow_result_release(flow_result *r);

/*
 * DR_EUSAGE: an unknown pass or parameter, passes that do not fit together, options that
 * contradict each other, an output folder that is not drupe's or that holds the input;
 * DR_ENOMEM, DR_EIO: what the machine has cannot suffice (see DRUPE_MEMORY_LIMIT and
 * DRUPE_DISK_LIMIT in docs/cli.md).  All of that is said before the first pass runs.
 */
DR_MUST_USE dr_status flow_run(flow_result *out, const flow_spec *spec);

/* Splits "NAME=PATH,..." (a path alone has no name).  DR_EUSAGE: an empty or double name, a
 * name that cannot be a file's, several paths without names. */
DR_MUST_USE dr_status flow_parse_adapters(dr_arena *a, const char *text,
                                          const char ***names, const char ***paths,
                                          size_t *count);

/* Memory that can be had without swapping, in the machine or its container; 0: unknown. */
uint64_t flow_memory_available(void);

/* The device that runs use by default, in words: "cpu, 2 threads, avx512"; arena. */
DR_MUST_USE dr_status flow_describe_device(dr_arena *a, const char **text);

#endif
