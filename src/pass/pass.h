/*
 * pass.h - the steps of a workflow, all of one shape: a model goes in, a folder comes out.
 *
 * A pass is a row of passes.def and a thin file: a struct of what the user may set, the
 * dr_param table that describes it, and a run function that opens, calls one algorithm of a
 * lower room and leaves its files in job->out_dir.  Names and defaults are Olive's.  Passes
 * never call passes; flow/ chains them and commits the folder.
 */
#ifndef DRUPE_PASS_H
#define DRUPE_PASS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/hash.h"
#include "core/param.h"
#include "core/resume.h"
#include "core/status.h"
#include "data/data.h"

/* PARTS: several graphs, which are run one after the other.  The others are of vendors:
 * OpenVINO's IR; of QNN, source files in C++, libraries made of them, a context binary. */
typedef enum {
    PASS_MODEL_HF,
    PASS_MODEL_ONNX,
    PASS_MODEL_PARTS,
    PASS_MODEL_OPENVINO,
    PASS_MODEL_QNN_CPP,
    PASS_MODEL_QNN_LIB,
    PASS_MODEL_QNN_BIN,
    PASS_MODEL_KINDS
} pass_kind;
const char *pass_kind_type(pass_kind kind);   /* Olive's: "HfModel", "CompositeModel" */
const char *pass_kind_format(pass_kind kind); /* its model_file_format; NULL: of no kind */
bool pass_kind_is_vendors(pass_kind kind);

typedef struct {
    const char *name; /* "travel"; NULL: the user gave none */
    const char *path; /* PEFT folder */
} pass_adapter;

/* What SelectiveMixedPrecision chose for the quantizer after it. */
typedef struct {
    int rule; /* of pass_mixes */
    double ratio;
    int bits, group_size;
    bool symmetric;
} pass_mix_choice;

/* A model between passes.  Strings live in the job's arena or longer. */
typedef struct {
    pass_kind kind;
    const char *path;         /* HF: folder or .gguf; the others: folder */
    const char *file;         /* ONNX: the graph's file in it; NULL: model.onnx.  Of a
                                 vendor's: its main file in it */
    const char *const *parts; /* PARTS: the graphs' files in it, in order; ends with NULL */
    const char *name;         /* as the user typed it, for messages */
    const pass_adapter *adapters;
    size_t adapter_count;
    const pass_mix_choice *mix; /* for a quantizer; NULL: its own */
    /* Olive's model_attributes, which later models have too unless a pass sets its own, and
     * inference_settings, which are this one's; JSON objects, NULL: none. */
    const char *attributes, *settings;
    const char *spent; /* a folder that is of no use once this is committed, or NULL */
} pass_model;

typedef struct pass_def pass_def;
struct pass_quant_plan; /* quantize_impl.h */
struct nn_device;

/* Where a run computes: opened by the first pass that asks for it (or by who filled this
 * in), closed by who made it. */
typedef struct {
    const char *kind;      /* of nn_device_open: "cpu", "ref", "cuda", ... */
    int threads;           /* 0: all */
    struct nn_device *dev; /* owned; NULL: not opened yet */
    struct dr_ranks *ranks; /* borrowed; NULL: one process (core/ranks.h) */
} pass_device;

typedef struct {
    const pass_def *def;        /* the pass that runs */
    const void *config;         /* its own struct, validated */
    const unsigned char *given; /* [params_count] 1: the user set it; NULL: unknown */
    const char *out_dir; /* exists, empty; the pass writes model/ and adapter/ there */
    const char
        *final_dir; /* where out_dir will be after the commit, for files that name it */
    const data_options *data; /* what the user said about data */
    const data_options *eval; /* what a training is judged on; NULL: nothing */
    const char *checkpoints;  /* the folder for those of a training */
    const char *resume;       /* "true", or one to go on from; NULL: from the start */
    pass_device *device;      /* where the run computes */
    int threads;              /* 0: all */
    uint64_t memory_bytes;    /* what this run may use; 0: unknown */
    bool memory_given;        /* the user said so */
    bool evaluate;            /* measure the result against the input */
    double max_kl;            /* of that, as in pass_evaluation */
    dr_resume *killed;        /* of a quantizer: what a killed run had done; may be NULL */
    bool check;               /* load the result in the runtime before it is committed */
    dr_arena *arena;          /* lives as long as the result */
    dr_buf *text;             /* the result for people: tables, sizes (stdout at the end) */
    json_t *report;           /* the same for programs */
} pass_job;

/* What a run will need; 0: unknown or little. */
typedef struct {
    uint64_t memory, disk; /* bytes */
    double seconds;        /* a rough guess on this machine */
} pass_need;

struct pass_def {
    const char *name; /* Olive's: "AutoAWQQuantizer" */
    int version;      /* part of the cache key: raised when the output bytes change */
    const char *summary;
    pass_kind takes, gives;
    bool needs_data;
    bool chooses; /* writes nothing: it says something to the quantizer after it */
    bool trains;  /* takes eval and resume */
    bool shared;  /* several processes may run it at once, each a share */
    bool each_part; /* of ONNX models: takes and gives those in parts, too */
    bool clocked; /* what it gives depends on how fast this machine is */
    bool judges;  /* takes evaluate and max_kl, as quantizers do */
    const char *program; /* that it runs, of vendor_programs.def; NULL: none */
    bool provided;       /* it runs the library of its parameter `provider` */
    size_t config_size;
    const dr_param *params;
    size_t params_count;
    /* Rules across fields, or with holes; given: as in pass_job.  NULL: none */
    dr_status (*validate)(const void *config, const unsigned char *given);
    dr_status (*estimate)(const pass_job *job, const pass_model *in, pass_need *need);
    dr_status (*run)(const pass_job *job, pass_model *out, const pass_model *in);
    /* Of a quantizer, whose run is pass_quantize: what it does.  NULL: it is none. */
    struct pass_quant_plan (*quant_plan)(const void *config);
};

/* ---- judging without making anything ---- */

typedef struct {
    const char *path; /* HF: folder or .gguf; ONNX: the .onnx file */
    const char *name; /* as the user typed it; NULL: there is none */
    bool onnx;
    const char *adapter; /* ONNX: a file; HF: a PEFT folder; NULL: none */
} pass_judged;

/*
 * A model on a text or on questions (of multiple choice, or with answers to write), alone
 * or beside a reference.  Strings live as long as the call.
 */
typedef struct {
    pass_judged model, reference;
    const data_options *data; /* no name: the built-in text's half that judges */
    const char *task;         /* JSON lines of questions, instead of a text; NULL: a text */
    int max_new_tokens;       /* of a written answer; 0: 32 */
    double max_kl, max_perplexity; /* 0: no limit */
    pass_device *device;
    int threads;
    dr_arena *arena;
    dr_buf *text;   /* the result for people */
    json_t *report; /* for programs: "limits" lists those that were set */
} pass_evaluation;

/* DR_EUSAGE: KL between models of other vocabularies, options that contradict each other;
 * DR_EFORMAT: a row of the task, by file and line. */
DR_MUST_USE dr_status pass_evaluate(const pass_evaluation *e);
DR_MUST_USE dr_status pass_evaluate_estimate(const pass_evaluation *e, pass_need *need);

/* ---- programs of vendors ---- */

/* A program that a pass runs, or the library of a provider.  Strings live in the arena of
 * the call or for ever. */
typedef struct {
    const char *name;        /* "ovc", "libonnxruntime_providers_qnn.so" */
    const char *path;        /* NULL: it is not installed */
    const char *root, *arch; /* its SDK's folder, its word for this machine; NULL: none */
    const char *runtime;     /* of a library: the version of onnxruntime; NULL: none */
    const char *looked;      /* where, for people: "in PATH" */
    const char *install;     /* what to install */
} pass_program;

/* What d runs; config: its parameters that are given, or NULL.  false: it runs none. */
bool pass_program_find(pass_program *out, dr_arena *a, const pass_def *d,
                       const json_t *config);
/* The same, which is there (or d runs none).  DR_EUNSUPPORTED: it is not; says where it was
 * looked for and what to install. */
DR_MUST_USE dr_status pass_program_need(pass_program *out, dr_arena *a, const pass_def *d,
                                        const json_t *config);
/* What changes with its version: for the keys of a cache. */
DR_MUST_USE dr_status pass_program_identity(char hex[DR_SHA256_HEX], const pass_program *p);

/* ---- the list ---- */

/* Whether a pass takes such a model, and what it gives of it. */
bool pass_takes(const pass_def *d, pass_kind kind);
pass_kind pass_gives(const pass_def *d, pass_kind kind);
/* By name, any case; NULL: no such pass. */
const pass_def *pass_find(const char *name);
/* Why a pass of Olive is not here; *instead: what to do.  NULL: it is none of those. */
const char *pass_refused(const char *name, const char **instead);
const pass_def *const *pass_list(size_t *count);

#include "pass/pass_page.h" /* a part of this door */

#endif
