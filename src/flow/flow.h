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
#include "pass/pass.h"

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
    const data_options *eval; /* what a training is judged on; NULL: nothing */
    const char *memory;       /* of a training: "4GB"; NULL: half of what is free */
    const char *resume;       /* of a training: "true", or a checkpoint; NULL: none */
    const char *device;       /* of flow_compute; NULL: "cpu" */
    int threads;
    struct dr_ranks *ranks; /* borrowed; NULL: one process (core/ranks.h) */
    bool evaluate, check;
    double
        max_kl;   /* of what is evaluated; 0: no limit.  Missing it is a result, no error */
    bool dry_run; /* check all that can be checked, say what would be run, run nothing */
    bool save_config; /* config.json in output: the run as a workflow file */
} flow_spec;

typedef struct {
    const char *model_path;   /* arena: <output>/model, or a file in it; NULL: dry_run */
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

/* ---- workflow files ---- */

typedef struct {
    const char *config;         /* the file: .json, else YAML */
    const char *text;           /* NULL, or what the file would hold, as JSON */
    const char *model, *output; /* stand in for the file's; NULL: the file's */
    const char *cache_dir;      /* likewise; neither: .drupe-cache */
    const char *shared_cache;   /* likewise: a folder or a URL of net_store.h; or .. */
    const char *account_name, *container_name; /* .. blobs of Azure; NULL: the file's */
    bool keep_shared;                          /* nothing is sent there */
    int threads;
    const char *program; /* that launchers begin as workers; NULL: "drupe" */
    bool launched; /* of several that mpirun or srun began one runs, the others work */
    bool own_log_level; /* the file's log_severity_level does not count */
    bool dry_run;       /* say what would be run and what is in the cache; run nothing */
} flow_workflow_options;

/*
 * Everything that the file says: passes, the search, its evaluator; results in output_dir.
 * DR_EUSAGE with file, line, column and the key: the file is wrong; DR_EFORMAT: it is no
 * JSON or YAML.  Both before anything runs.  A candidate that fails is no error while
 * another one works.
 */
DR_MUST_USE dr_status flow_workflow(flow_result *out, const flow_workflow_options *o);

/*
 * A worker of a run elsewhere, which DRUPE_WORKER names: "SECRET@address:port,...".  Comes
 * back when that run has ended, or does not take it.  DR_EUSAGE: the variable is not set;
 * DR_EDEVICE: no run is there.
 */
DR_MUST_USE dr_status flow_worker(void);

typedef struct {
    const char *dir;
    bool verify;        /* hash everything; what is not as it was written is taken away */
    uint64_t max_bytes; /* take away what was used longest ago; 0: no limit */
    bool clear;         /* take away all */
} flow_cache_options;
/* DR_EUSAGE: no such folder, or it is no cache. */
DR_MUST_USE dr_status flow_look_at_cache(flow_result *out, const flow_cache_options *o);

/* A place that runs share (docs/WORKFLOWS.md). */
typedef struct {
    const char *url;                 /* as shared_cache of a workflow; or .. */
    const char *account, *container; /* .. blobs of Azure */
    const char *model_hash; /* an entry's, or how it begins; NULL: all that there are */
    bool remove;            /* takes away what model_hash names, or .. */
    bool all;               /* .. everything */
} flow_shared_options;
/* DR_EUSAGE: no such place or entry can be; DR_EIO: it does not answer. */
DR_MUST_USE dr_status flow_look_at_shared(flow_result *out, const flow_shared_options *o);

/* The workflow file's schema, as JSON Schema. */
json_t *flow_workflow_schema(void);

/* ---- folders of ONNX models ---- */

/* The graph that genai_config.json calls the decoder, else model.onnx; it may be absent. */
DR_MUST_USE dr_status flow_onnx_graph(dr_arena *a, const char **file, const char *folder);
/* An adapter by its name in the folder, or a file.  DR_EUSAGE: neither is there. */
DR_MUST_USE dr_status flow_onnx_adapter(dr_arena *a, const char **path, const char *folder,
                                        const char *adapter);

/* ---- judging ---- */

typedef struct {
    const char *model,
        *reference; /* as typed: a Hugging Face model, an ONNX file or folder,
                                      a result; reference NULL: none */
    data_options data;
    const char
        *adapter; /* of an ONNX model: its name in the folder, or a file; NULL: none */
    const char *task;
    int max_new_tokens; /* of the task's written answers; 0: 32 */
    double max_kl, max_perplexity; /* 0: no limit; missing one is a result, no error */
    const char *device;            /* of flow_compute; NULL: "cpu" */
    int threads;
    struct dr_ranks *ranks; /* borrowed; NULL: one process; each judges a share */
} flow_evaluation;

/* Errors of hf_resolve and pass_evaluate.  Nothing is written. */
DR_MUST_USE dr_status flow_evaluate(flow_result *out, const flow_evaluation *e);

typedef struct {
    const char *model, *adapter, *reference; /* as in flow_evaluation */
    const char *tasks;   /* "a.jsonl,b.jsonl"; NULL: none */
    double limit;        /* questions of each: 1 or more so many, below 1 a share; 0: all */
    int max_length;      /* tokens that are seen of a question; 0: the model's */
    const char *backend; /* "auto", "ort" (no times) or "ortgenai"; NULL: "auto" */
    const char *device;  /* of flow_compute; NULL: "cpu" */
    int prompt_tokens, new_tokens, warmup, repeats;
    int threads;
} flow_benchmark_options;

/* Tasks, times beside the reference where both are of ORT GenAI, bytes, memory. */
DR_MUST_USE dr_status flow_benchmark(flow_result *out, const flow_benchmark_options *o);

/* Splits "NAME=PATH,..." (a path alone has no name).  DR_EUSAGE: an empty or double name, a
 * name that cannot be a file's, several paths without names. */
DR_MUST_USE dr_status flow_parse_adapters(dr_arena *a, const char *text,
                                          const char ***names, const char ***paths,
                                          size_t *count);

/*
 * The adapters of a model, by name: those of `adapters` (as in flow_spec), else the model's
 * own.  A PEFT folder is an adapter itself ("default", as PEFT calls it), and so is each
 * PEFT folder in it, by its name.
 * DR_EUSAGE: there is none, or a folder is not there.
 */
DR_MUST_USE dr_status flow_find_adapters(dr_arena *a, const pass_adapter **list,
                                         size_t *count, const char *model,
                                         const char *adapters);

/* Memory that can be had without swapping, in the machine or its container; 0: unknown. */
uint64_t flow_memory_available(void);

/* The device that runs use by default, in words: "cpu, 2 threads, avx512"; arena. */
DR_MUST_USE dr_status flow_describe_device(dr_arena *a, const char **text);

#endif
