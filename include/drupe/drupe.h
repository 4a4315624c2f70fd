/*
 * drupe.h - the library's one public header.
 *
 * A job takes a model (a folder, a hub id, a GGUF file, an earlier result), runs passes
 * over it in order, and leaves a whole output folder or none:
 *
 *     const drupe_pass pass = {"AutoAWQQuantizer", "{\"bits\": 4}"};
 *     const drupe_job job = {.model = "models/phi", .output = "models/phi-awq",
 *                            .passes = &pass, .pass_count = 1, .evaluate = true};
 *     drupe_result *r = NULL;
 *     if (drupe_run(&r, &job) != DRUPE_OK)
 *         fprintf(stderr, "%s\n", drupe_error_message());
 *     else
 *         puts(drupe_result_text(r));
 *     drupe_result_free(r);
 *
 * Calls may be made from any thread, one job at a time in a thread; errors are kept for the
 * thread.  Strings are UTF-8 and borrowed for the call; result strings live as long as the
 * result.  Nothing is printed but progress and warnings, on stderr (drupe_log_level).
 */
#ifndef DRUPE_DRUPE_H
#define DRUPE_DRUPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DRUPE_API __attribute__((visibility("default")))

typedef enum {
    DRUPE_OK,
    DRUPE_EUSAGE,       /* an option or argument is wrong */
    DRUPE_EIO,          /* a file, the disk, the network */
    DRUPE_EFORMAT,      /* malformed input */
    DRUPE_EUNSUPPORTED, /* well-formed, but not something drupe can do */
    DRUPE_ENOMEM,
    DRUPE_EDEVICE,   /* a device or a runtime failed */
    DRUPE_ECANCELLED /* drupe_cancel was called */
} drupe_status;

DRUPE_API const char *drupe_version(void); /* "0.1.0" */

/* ---- errors of this thread's last failed call ---- */

/* What failed, with the value found. */
DRUPE_API const char *drupe_error_message(void);
/* What was being done, innermost first. */
DRUPE_API size_t drupe_error_context_count(void);
DRUPE_API const char *drupe_error_context(size_t i);
/* What to do about it; "" when there is no advice. */
DRUPE_API const char *drupe_error_hint(void);

/* 0 debug, 1 info, 2 warning, 3 error (the default), 4 critical. */
DRUPE_API void drupe_log_level(int at_least);
/* Makes running jobs of the process stop soon with DRUPE_ECANCELLED; signal-safe. */
DRUPE_API void drupe_cancel(void);

/* ---- results ---- */

typedef struct drupe_result drupe_result;
DRUPE_API const char *drupe_result_text(const drupe_result *r); /* for people: lines */
DRUPE_API const char *
drupe_result_json(const drupe_result *r); /* for programs: an object */
/* The limits (max_kl, ...) that it misses, with both figures; NULL: none.  A result that
 * misses one is as whole as any other. */
DRUPE_API const char *drupe_result_missed(const drupe_result *r);
DRUPE_API void drupe_result_free(drupe_result *r);

/* ---- several processes ---- */

/* Processes that mpirun of Open MPI started (or srun --mpi=pmix) and that share a job: all
 * make the same calls; the first writes the result, the others' results are empty. */
typedef struct dr_ranks drupe_ranks;
/* Once a process.  *out NULL: it was started alone. */
DRUPE_API drupe_status drupe_ranks_open(drupe_ranks **out);
DRUPE_API size_t drupe_ranks_id(const drupe_ranks *r); /* from 0, the first */
DRUPE_API void drupe_ranks_close(drupe_ranks *r);
/* Instead of it, after a failure: ends all of them. */
DRUPE_API void drupe_ranks_abort(drupe_ranks *r, int exit_status);

/* ---- jobs ---- */

typedef struct {
    const char *name;        /* Olive's: AutoAWQQuantizer, Gptq, Rtn, LoRA, ModelBuilder */
    const char *config_json; /* object of parameters; NULL: defaults */
} drupe_pass;

/* Text for calibration or training; all NULL or 0: the built-in text. */
typedef struct {
    const char *name;  /* "json", "csv" or "text" */
    const char *files; /* comma-separated paths */
    const char *split; /* rows of them: "train[:90%]", "train[90%:]"; NULL: all */
    const char *text_field;
    const char *text_template;
    bool use_chat_template;
    bool completion_only; /* training: only answers have a loss */
    bool add_special_tokens;
    const char *strategy; /* "join" (NULL), "line-by-line", ...: Olive's names */
    size_t stride;        /* of "join-sliding-window" */
    size_t max_seq_len;   /* tokens a block; 0: the pass's default */
    size_t max_samples;   /* blocks; 0: the pass's default */
    uint64_t random_seed; /* of what is drawn */
    bool self_written;    /* calibration: the model writes the text */
    double temperature;   /* of that; 0: always the likeliest token */
} drupe_data;

typedef struct {
    const char *model;
    const char *adapters; /* "PATH" or "NAME=PATH,NAME2=PATH2"; NULL: none */
    const char *output;
    const drupe_pass *passes;
    size_t pass_count;
    drupe_data data;
    drupe_data eval;    /* what a training is judged on; name NULL: nothing */
    const char *resume; /* a training goes on from a checkpoint: "true", the last one of
                           this output, or its folder; NULL: it begins */
    const char *device; /* "auto", "cpu", "cuda", "cuda:bf16"; NULL: "cpu" */
    int threads;        /* 0: all */
    const char *memory; /* a training keeps to it: "4GB"; NULL: half of what is free */
    bool evaluate;      /* measure a quantized model against the original */
    double max_kl;      /* limit for that, nats; 0: none (drupe_result_missed) */
    bool check;         /* load an exported model in ONNX Runtime before it is committed */
    drupe_ranks *ranks; /* that share it; NULL: this process alone */
    bool dry_run;       /* only say what would be run: a workflow file of Olive's form */
    bool save_config;   /* the same as config.json in output */
} drupe_job;

/* The output folder is replaced whole when drupe made it; any other folder is refused. */
DRUPE_API drupe_status drupe_run(drupe_result **out, const drupe_job *job);

/* The passes there are. */
DRUPE_API size_t drupe_pass_count(void);
DRUPE_API const char *drupe_pass_name(size_t i); /* NULL: there are fewer */
/* The same with what each takes, gives and has as parameters. */
DRUPE_API drupe_status drupe_list_passes(drupe_result **out);

/* ---- workflow files ---- */

/* Olive's form, JSON or YAML: passes in order, or a search among candidates. */
typedef struct {
    const char *config;
    const char *text; /* what the file holds, as JSON: config is its name; NULL: read it */
    const char *model, *output; /* stand in for the file's; NULL: the file's */
    const char *cache_dir;      /* likewise */
    /* A cache that others use, too, likewise: a folder, an http, https, azure or s3 URL; or
     * blobs of Azure (docs/WORKFLOWS.md).  What goes wrong with it is said, and no
     * error. */
    const char *shared_cache, *account_name, *container_name;
    bool keep_shared_cache;     /* nothing is sent there */
    int threads;                /* 0: all */
    const char *program; /* the drupe that mpirun or srun begin; NULL: that of PATH */
    bool launched; /* of several that mpirun or srun began one runs it, the others help */
    bool own_log_level;         /* the file's log_severity_level does not count */
    bool dry_run;               /* only say what would be run, and what is in the cache */
} drupe_workflow;
DRUPE_API drupe_status drupe_run_workflow(drupe_result **out, const drupe_workflow *w);
/* What mpirun or srun begin for such a run, until it ends: `drupe worker`. */
DRUPE_API drupe_status drupe_run_worker(void);
/* What the cache of such runs holds. */
typedef struct {
    const char *dir;      /* NULL: .drupe-cache */
    bool verify;          /* take away what is not as it was written */
    const char *max_size; /* "10G": take away what was used longest ago; NULL: no limit */
    bool clear;           /* take away all */
} drupe_cache_look;
DRUPE_API drupe_status drupe_cache(drupe_result **out, const drupe_cache_look *c);
/* What a cache that others use, too, has of them all. */
typedef struct {
    const char *url;                 /* as shared_cache of a workflow; or .. */
    const char *account, *container; /* .. blobs of Azure */
    const char *model_hash; /* an entry's, or how it begins; NULL: all that there are */
    bool remove;            /* take away what model_hash names, or .. */
    bool all;               /* .. everything */
} drupe_shared_look;
DRUPE_API drupe_status drupe_shared_cache(drupe_result **out, const drupe_shared_look *c);
/* What may stand in such a file, as JSON Schema. */
DRUPE_API drupe_status drupe_workflow_schema(drupe_result **out);

/* ---- judging ---- */

/* A model (Hugging Face, or ONNX through ONNX Runtime) on a text: its perplexity and, with
 * a reference, KL(reference || model) and the share of same top tokens; or on questions, of
 * multiple choice or with answers to write. */
typedef struct {
    const char *model;
    const char *reference; /* NULL: none */
    const char *adapter;   /* ONNX: its name in the folder, or a file; else a PEFT folder */
    drupe_data data;       /* all NULL or 0: the built-in text's half that judges */
    const char *task;      /* JSON lines {"context", "choices", "answer"} or {"context",
                              "target"}; NULL: a text */
    int max_new_tokens;    /* of a written answer; 0: 32 */
    double max_kl, max_perplexity; /* 0: no limit (drupe_result_missed) */
    const char *device;            /* "auto", "cpu" or "cuda"; NULL: "cpu" */
    int threads;                   /* 0: all */
    drupe_ranks *ranks;            /* that share it; NULL: this process alone */
} drupe_evaluation;
DRUPE_API drupe_status drupe_evaluate(drupe_result **out, const drupe_evaluation *e);

/* How good a model is on files of questions (as task above), how fast beside another one,
 * how large in memory and on the disk. */
typedef struct {
    const char *model, *reference, *adapter; /* as above */
    const char *tasks;                       /* "a.jsonl,b.jsonl"; NULL: none */
    double limit; /* questions of each: 1 and above so many, below 1 a share; 0: all */
    int max_length;      /* tokens that are seen of a question; 0: the model's */
    const char *backend; /* "auto", "ort" (no times) or "ortgenai"; NULL: "auto" */
    const char *device;  /* as above */
    int prompt_tokens, new_tokens; /* of what is timed; 0: 64 and 16 */
    int warmup, repeats;           /* warmup as it is; repeats 0: 20 */
    int threads;                   /* 0: all */
} drupe_benchmark_options;
DRUPE_API drupe_status drupe_benchmark(drupe_result **out,
                                       const drupe_benchmark_options *o);

/* ---- adapters ---- */

/* How an adapter is written; all NULL or 0: floats in onnxruntime's own format. */
typedef struct {
    const char *format; /* "onnx_adapter", "safetensors" or "numpy" */
    const char *dtype;  /* "float32" or "float16"; with int4 of the scales */
    bool int4;          /* blocks of 4 bits, in MatMulNBits' layout */
    int block_size;     /* of int4: 16 to 256; 0: 32 */
    bool asymmetric;    /* int4 with zero points */
} drupe_adapter_form;

/* A PEFT folder, or what a finetune made, as one file, which is replaced.  The format's
 * suffix is added to output where it is missing. */
typedef struct {
    const char *adapter;
    const char *model; /* its base, which DoRA needs; NULL: none */
    const char *output;
    drupe_adapter_form form;
    int threads; /* 0: all */
} drupe_adapter_conversion;
DRUPE_API drupe_status drupe_convert_adapter(drupe_result **out,
                                             const drupe_adapter_conversion *c);

/* All adapters of a model, a file each in the folder output. */
typedef struct {
    const char *model;    /* a PEFT folder, or a result or model that names its adapter */
    const char *adapters; /* "NAME=PATH,..."; NULL: what the model has */
    const char *output;
    drupe_adapter_form form;
    int threads;
} drupe_adapter_extraction;
DRUPE_API drupe_status drupe_extract_adapters(drupe_result **out,
                                              const drupe_adapter_extraction *e);

/* ---- generation with ONNX Runtime GenAI ---- */

typedef struct {
    const char *model; /* folder with genai_config.json, or a result that holds one */
    const char
        *adapter; /* a name (NAME.onnx_adapter in the folder) or a file; NULL: none */
    const char *prompt;
    const char *system; /* with chat; NULL: none */
    bool chat;          /* put the prompt into the model's chat template */
    int max_length;     /* tokens in all; 0: no limit of its own */
    int max_new_tokens; /* 0: 128, or what max_length leaves */
    bool do_sample;     /* else greedy, and the four below are not used */
    double temperature; /* 0: the model's */
    double top_p;       /* 0: the model's */
    int top_k;          /* 0: the model's */
    int64_t seed;       /* -1: none */
    int threads;        /* 0: the runtime's choice */
} drupe_generation;

/* Called with each finished piece of text; false stops. */
typedef bool (*drupe_text_fn)(void *ctx, const char *text);
DRUPE_API drupe_status drupe_generate(drupe_result **out, const drupe_generation *g,
                                      drupe_text_fn on_text, void *ctx);

/* ---- tokens ---- */

typedef struct drupe_tokenizer drupe_tokenizer;
DRUPE_API drupe_status drupe_tokenizer_open(drupe_tokenizer **out, const char *model);
DRUPE_API void drupe_tokenizer_close(drupe_tokenizer *t);
/* *ids is released by free(). */
DRUPE_API drupe_status drupe_tokenizer_encode(const drupe_tokenizer *t, int32_t **ids,
                                              size_t *count, const char *text, size_t bytes,
                                              bool add_special_tokens);
/* The token as the vocabulary spells it; NULL: no such id. */
DRUPE_API const char *drupe_tokenizer_piece(const drupe_tokenizer *t, int32_t id);

/* ---- a look ---- */

/* Any model folder, file or result. */
DRUPE_API drupe_status drupe_inspect(drupe_result **out, const char *path);
/* This machine: runtimes, processor, memory, disk, hub cache. */
DRUPE_API drupe_status drupe_doctor(drupe_result **out);

#ifdef __cplusplus
}
#endif

#endif
