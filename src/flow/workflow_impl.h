/*
 * workflow_impl.h - workflow files of Olive's form: their schema, what is read from them.
 *
 * A file is read in two steps.  The schema (workflow_schema.def) says which keys there are,
 * of which types; workflow_check holds a file to it and is where nearly every error of a
 * user is found.  workflow_read then builds the structs below and need not ask for types.
 */
#ifndef DRUPE_FLOW_WORKFLOW_IMPL_H
#define DRUPE_FLOW_WORKFLOW_IMPL_H

#include "core/doc.h"
#include "flow/flow.h"
#include "flow/flow_impl.h"
#include "search/search.h"

/* ---- the schema (workflow_schema.c) ---- */

typedef enum {
    WF_STR,
    WF_STRS, /* a string or a list of strings */
    WF_INT,
    WF_NUM,
    WF_BOOL,
    WF_OFF,    /* false, or nothing; true is refused, and help says why */
    WF_WORD,   /* one of words, in any case */
    WF_ANY,    /* read by somebody else: a pass's own table, a program */
    WF_OBJECT, /* of */
    WF_LIST,   /* of objects */
    WF_SOME,   /* an object or a list of them */
    WF_MAP,    /* names to objects */
    WF_MAPS,   /* names to objects or lists of them */
    WF_FLOWS,  /* a list of lists of names */
    WF_NAMED,  /* a list of objects with names, or a map of them */
    WF_REF,    /* a name, or the object itself */
    WF_SEARCH, /* the object, true or false */
    WF_REFUSED
} wf_kind;

typedef struct wf_object wf_object;

/* A word of Olive's that drupe cannot honour. */
typedef struct {
    const char *word, *why;
} wf_refusal;

typedef struct {
    const char *key;
    wf_kind kind;
    const wf_object *of;
    const char *const *words;  /* ends with NULL */
    const wf_refusal *refused; /* words, too; ends with NULL; NULL: none */
    double min, max;           /* both 0: any */
    const char *help;          /* of a refused one: why */
    bool required;
} wf_row;

struct wf_object {
    const char *name;
    const wf_row *rows;
    size_t count;
    bool nested; /* its keys may also stand in an object "config" of it */
    bool open;   /* other keys are looked at elsewhere: passes */
};

extern const wf_object wf_workflow;

/* DR_EUSAGE with the place: an unknown key, a type or value that the schema has not, a key
 * that is missing. */
DR_MUST_USE dr_status wf_check(const dr_doc *d);
/* The schema as JSON Schema (draft 2020-12), passes with their parameters included. */
json_t *wf_json_schema(void);

/* The member, or that of its "config"; NULL: none. */
const dr_node *wf_get(const dr_node *node, const char *key);
/* The same in "engine", else at the top. */
const dr_node *wf_engine(const dr_doc *d, const char *key);
const char *wf_str(const dr_node *n); /* NULL: there is none */
double wf_num(const dr_node *n, double dflt);
bool wf_bool(const dr_node *n, bool dflt);
/* A string, or a list's with commas between; NULL: none. */
const char *wf_strs(dr_arena *a, const dr_node *n);

/* "no key is called x" and the like, with the nearest of the names; at the key. */
dr_status wf_unknown(const dr_doc *d, const dr_node *n, const char *what, const char *found,
                     const char *const *names, size_t count);

/* ---- what is read ---- */

/* A parameter of a pass with more than one value. */
typedef struct {
    const char *name;
    const json_t *values; /* borrowed array */
    const dr_node *node;
} wf_choice;

/* One way to do a step. */
typedef struct {
    const pass_def *def;
    json_t *fixed; /* parameters with one value */
    const wf_choice *choices;
    size_t choice_count;
    bool has_data;
    data_options data;
    bool has_eval; /* of a training */
    data_options eval;
    const char *resume; /* of a training: as in flow_spec */
    const dr_node *node;
} wf_alternative;

typedef struct {
    const char *name;
    const wf_alternative *alternatives;
    size_t count;
} wf_pass;

/* Passes, one after the other. */
typedef struct {
    const wf_pass *const *passes;
    size_t count;
} wf_flow;

typedef struct {
    const char *path, *adapter;
    const char *type, *format; /* NULL: not given */
    const dr_node *node;
} wf_model;

/* Who begins the processes of a search. */
typedef enum {
    WF_LOCAL,
    WF_MPIRUN,
    WF_SLURM
} wf_launcher;

typedef enum {
    WF_ACCURACY,
    WF_LATENCY,
    WF_THROUGHPUT,
    WF_SIZE,
    WF_MEMORY,
    WF_CUSTOM
} wf_metric_kind;

/* A figure of a metric: one sub-type. */
typedef struct {
    const char *name; /* "perplexity", "avg" */
    const char *key;  /* "METRIC-SUBTYPE", as Olive's files call it */
    int priority;     /* -1: none */
    bool higher_is_better;
    search_goal goal;
    const dr_node *node;
} wf_figure;

typedef struct {
    wf_metric_kind kind;
    const char *name;
    data_options data;    /* of accuracy */
    const char *task;     /* of accuracy: questions; NULL: a text */
    const char *average;  /* of f1_score and the like; NULL: binary or macro */
    int max_new_tokens;   /* of exact_match and wer; 0: 32 */
    const char **command; /* of custom: ends with NULL */
    bool parallel;        /* of custom: workers may run it */
    int warmup, repeats;  /* of latency and throughput */
    int prompt_tokens, new_tokens;
    double sleep_s;
    const wf_figure *figures;
    size_t figure_count;
    const dr_node *node;
    json_t *canonical; /* what decides the figures, for the cache's key */
} wf_metric;

typedef struct {
    const char *name;
    const wf_metric *metrics;
    size_t count;
} wf_evaluator;

/* An archive beside the result. */
typedef struct {
    const char *name; /* of the file, without .zip */
} wf_package;

typedef struct {
    dr_doc doc;
    dr_arena arena;
    json_t *owned;  /* array: values that are not the document's */
    const char *id; /* NULL: the file has no name for it */
    wf_model model;
    dr_doc auto_doc; /* passes that no file has: of auto_optimizer_config */
    const wf_flow
        *flows; /* one; several: of pass_flows.  All take the same kind of model */
    size_t flow_count;
    wf_evaluator evaluator; /* count 0: none */
    bool evaluate_input;
    const char *output_dir, *cache_dir;
    const char *shared_cache; /* NULL: none */
    bool update_shared;       /* what is made goes there */
    bool clean_cache, clean_evaluations, no_artifacts;
    int log_level;                 /* -1: not given */
    const char *device, *provider; /* of the target; NULL: not given */
    bool search;                   /* there is a strategy */
    bool pass_by_pass, stop_when_goals_met, pass_params;
    search_options sampler;
    size_t output_models;
    size_t num_workers; /* 0: as many as there is room for */
    wf_launcher launcher;
    const char **launcher_args; /* ends with NULL */
    size_t launcher_arg_count;
    const dr_node *launcher_node; /* NULL: not given */
    double task_timeout_s; /* of a worker's task; 0: none */
    double max_time_s;     /* 0: none */
    const wf_package *packages;
    size_t package_count;
} workflow;

/* Everything of the file, or of text where that is not NULL; model and output, where not
 * NULL, stand in for the file's. */
DR_MUST_USE dr_status workflow_read(workflow *out, const char *path, const char *text,
                                    const char *model, const char *output);
void workflow_release(workflow *w);

/* By its key, or by its "name" in a list; NULL: none. */
const dr_node *wf_named(const dr_node *all, const char *name);
/* workflow_data.c: the data set that n names or is; n NULL: none. */
DR_MUST_USE dr_status wf_data(data_options *out, workflow *w, const dr_node *n);
/* workflow_passes.c */
DR_MUST_USE dr_status wf_read_passes(workflow *w);
/* Whether one of the first n flows has it. */
bool wf_in_flows(const workflow *w, size_t n, const wf_pass *p);
/* A pass's struct: its defaults, then config; *given: which rows that has.  It is not
 * validated. */
DR_MUST_USE dr_status wf_config(void **cfg, unsigned char **given, dr_arena *a,
                                const pass_def *d, const json_t *config);
/* workflow_auto.c: the passes and flows that auto_optimizer_config stands for, as JSON:
 * {"passes": {...}, "pass_flows": [[...], ...]}; *out is owned by w. */
DR_MUST_USE dr_status wf_auto_passes(json_t **out, workflow *w, const dr_node *n);
/* workflow_metrics.c */
DR_MUST_USE dr_status wf_read_evaluator(workflow *w);

#endif
