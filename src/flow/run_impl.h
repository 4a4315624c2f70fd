/*
 * run_impl.h - a workflow that is being run: models and what is known of them.
 */
#ifndef DRUPE_FLOW_RUN_IMPL_H
#define DRUPE_FLOW_RUN_IMPL_H

#include "flow/cache_impl.h"
#include "flow/workflow_impl.h"

/* A model: the input, or what a step made of another. */
typedef struct run_model run_model;
struct run_model {
    const char *path;     /* what a run takes: as typed, or the entry's folder */
    const char *adapters; /* of the input */
    pass_kind kind;
    char id[DR_SHA256_HEX];  /* the input's contents, or the step's key */
    const run_model *parent; /* NULL: the input */
    const pass_def *def;     /* that made it; NULL: the input */
    const wf_alternative *alt; /* likewise */
    json_t *config;          /* of that pass: what was given */
    double start_s, end_s;   /* since 1970; both 0: it was in the cache */
    bool cached;
    json_t *figures;        /* owned: key to value or null; NULL: not judged */
    json_t *bounds;         /* owned: key to [low, high], of figures that are not exact */
    const char *unmeasured; /* why figures are missing; NULL: none is */
};

/* A figure; low and high: its 95 % interval, both the value where it is exact.  NAN: there
 * is none. */
typedef struct {
    double value, low, high;
} run_value;

typedef struct run_workers run_workers;

/* A run that mpirun or srun has begun several times: the first one runs it, the others work
 * for it. */
typedef struct {
    int rank, size; /* size 0: it was begun once */
    char id[DR_SHA256_HEX];
} run_ranks;

typedef struct {
    const flow_workflow_options *o;
    workflow w;
    flow_cache cache;
    dr_arena arena;
    run_model input;
    run_model **models; /* arena, each once, in the order that they were made */
    size_t model_count, model_room;
    const wf_figure **figures; /* of all metrics, in order */
    search_figure *judged;     /* the same with limits */
    size_t figure_count;
    const char *isa;        /* the processor's kernels, for keys */
    const char *machine;    /* its name and cores: of what is timed */
    const run_model *timed; /* the model that others are timed beside; NULL: none yet */
    run_ranks ranks;
    const char *sent_to;    /* the shared cache where results go; NULL: none */
    run_workers *workers;   /* NULL: none */
    json_t *ahead;          /* owned: key to [key, start, end] of steps that workers made */
    json_t *figured;        /* owned: "METRIC KEY" to figures of workers' commands */
    json_t *lost;           /* owned: steps of a task to why its candidate has failed */
    json_t *owned;
    double began_s;
} run;

/* run.c: what the processor computes with. */
DR_MUST_USE dr_status run_describe_isa(run *r);
/* The first one of all; the other flows' first ones take the same kind of model. */
const pass_def *run_first_pass(const run *r);

/* ---- measure.c ---- */

/* It needs an ONNX model. */
bool run_is_timed(const wf_metric *m);
bool run_is_clocked(const wf_metric *m); /* seconds are counted */
/* values: [figure_count of m].  beside: the model that times are taken beside, whose own
 * figures are in `own`; NULL: by itself. */
DR_MUST_USE dr_status run_measure(run_value *values, const run *r, const wf_metric *m,
                                  const run_model *model, const run_model *beside,
                                  const run_value *own);
/* Of a model's files; what loading it and one step add to a process. */
DR_MUST_USE dr_status run_bytes(double *value, const run_model *model);
DR_MUST_USE dr_status run_peak_bytes(double *value, const run_model *model);
/* The folder with its genai_config.json, if it has one. */
const char *run_graph_folder(dr_arena *a, const run_model *model);

/* ---- timing.c ---- */

/* What is timed, and how. */
typedef struct {
    const char *model, *beside; /* folders; beside NULL: by itself */
    int warmup, repeats, prompt_tokens;
    int new_tokens; /* 0: times to the first token alone */
    int threads;
    double sleep_s;
} timing_plan;

/* Seconds to the first token, and of a token after it: [2][repeats], of the model and of
 * the one beside it; run i of the one is next to run i of the other. */
typedef struct {
    double *first[2], *later[2]; /* owned */
    size_t count;
} timing;
DR_MUST_USE dr_status timing_take(timing *out, const timing_plan *p);
void timing_release(timing *t);

/* avg, min, max, p50 to p999 of values, which it sorts. */
double timing_statistic(const char *name, double *values, size_t n);
/*
 * A statistic of scale[0] a figure's: of model[n], in what `own` says of the model beside;
 * that is own times the ratio of both statistics, so that a machine that has become slower
 * since does not count.  beside NULL: of the values as they are.
 * The interval: the middle 95 % of the same from draws of n pairs with replacement.
 */
run_value timing_figure(const char *name, const double *model, const double *beside,
                        size_t n, double own);

/* ---- steps.c ---- */

/* The model that a step makes of another, from the cache or by running it. */
DR_MUST_USE dr_status run_step_cached(run *r, run_model **out, const run_model *in,
                                      const wf_alternative *alt, json_t *config);
/* The key of that, without running it. */
DR_MUST_USE dr_status run_step_key(char key[DR_SHA256_HEX], const run *r, const char *in_id,
                                   const wf_alternative *alt, const json_t *config);
/*
 * All figures of a model, from the cache or measured, what costs least first:
 * [figure_count].  may_stop: the rest is left out, NAN, once a limit is missed.
 */
DR_MUST_USE dr_status run_judge(run *r, run_value *values, run_model *m, bool may_stop);
/* A worker's part of that: what needs no quiet machine, into the cache, and figures of
 * commands into `figured`, until one fails. */
void run_judge_ahead(run *r, json_t *figured, run_model *m);

/* ---- candidates.c ---- */

/* One way through the passes of a flow, a point of their space. */
typedef struct {
    const run_model *model; /* NULL: it failed */
    run_value *values;      /* [figure_count] */
    const char *error;      /* NULL: none */
    json_t *choices;        /* what was chosen, for people and programs */
} run_candidate;

typedef struct {
    run_candidate *list; /* arena */
    size_t *order;       /* best first */
    size_t count, met;
    size_t space;        /* points there are */
    const char *stopped; /* why not all were tried; NULL: all that were asked for */
} run_outcome;

/* Of the candidates; values and slack are in a. */
search_table run_table(dr_arena *a, const run *r, const run_outcome *o);

/* All candidates of these flows on a model, judged where `judge` says. */
DR_MUST_USE dr_status run_candidates(run *r, run_outcome *out, const run_model *in,
                                     const wf_flow *flows, size_t count, bool judge);
/* What would be run: points, steps, those in the cache. */
DR_MUST_USE dr_status run_tell_plan(run *r, flow_result *out, bool known_input);

/* plan_need.c: memory and time of each pass on the model that goes in, which is here. */
DR_MUST_USE dr_status run_tell_need(const run *r, flow_result *out);

/* The most that a step takes by its pass's estimate, on the model that goes in; for passes
 * on graphs twice its bytes. */
DR_MUST_USE dr_status run_most_memory(uint64_t *bytes, const run *r);

/* ---- workers.c ---- */

/* DR_EUSAGE: the file's launcher is not here. */
DR_MUST_USE dr_status run_workers_check(const run *r);
/* The port of workers that come from elsewhere: early, as they may be waiting. */
DR_MUST_USE dr_status run_workers_announce(run *r);
/* Of a search, where there is room for two or more. */
DR_MUST_USE dr_status run_workers_open(run *r);
void run_workers_close(run *r);
/* *count: as many as there are now. */
DR_MUST_USE dr_status run_workers_look(size_t *count, run *r);
/* Tasks: [{"steps": [...], "judge": bool}, ...], steps from the input on; comes back when
 * all were tried. */
DR_MUST_USE dr_status run_workers_do(run *r, const json_t *tasks);
/* DR_EDEVICE: workers died of the task, or took too long, which the message says. */
DR_MUST_USE dr_status run_workers_lost(const run *r, const json_t *task);

/* run_ranks.c: what the launcher of this process says. */
run_ranks ranks_of(const flow_workflow_options *o);
/* What those behind the first one do.  DR_EDEVICE: the first one does not come. */
DR_MUST_USE dr_status ranks_work(const run_ranks *k, const char *cache);

/* worker.c: a step of a task, by names alone; new. */
json_t *run_step_json(const run *r, const wf_alternative *alt, json_t *config);

/* report.c: report.html in dir. */
DR_MUST_USE dr_status run_report(const run *r, const run_outcome *o, const bool *front,
                                 const char *dir);

/* ---- artifacts.c ---- */

/* The best candidates as folders, with footprints and tables. */
DR_MUST_USE dr_status run_write(run *r, flow_result *out, const run_outcome *o);
DR_MUST_USE dr_status run_tell(run *r, flow_result *out, const run_outcome *o);
DR_MUST_USE dr_status run_tell_packages(const run *r, flow_result *out);
/* The name of a model in files; "" of NULL. */
const char *run_short_id(dr_arena *a, const run_model *m);
/* Its figures as Olive writes them; new. */
json_t *run_metrics_json(const run *r, const run_model *m);

/* package.c: dir/NAME.zip of the `kept` best candidates. */
DR_MUST_USE dr_status run_package(const run *r, const run_outcome *o, size_t kept,
                                  const char *dir, const wf_package *p);

#endif
