/*
 * ort.h - ONNX Runtime and ONNX Runtime GenAI, loaded at run time.
 *
 * No header of theirs is used: OrtApi is a table whose slot numbers never change, OGA is a
 * set of plain exports.  Libraries are looked for in DRUPE_LIB_PATH, beside the program
 * (../lib/drupe, the build's .deps/lib), then by the loader.
 */
#ifndef DRUPE_ORT_H
#define DRUPE_ORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/dtype.h"
#include "core/status.h"

/* ---- what is here ---- */

/* An execution provider in a library of its own. */
typedef struct {
    const char *name, *path;
} ort_plugin;

typedef struct {
    bool ort_found, genai_found;
    const char *ort_path, *ort_version;     /* arena; NULL when not found */
    const char *genai_path, *genai_version; /* version as far as the library tells */
    const char **providers;                 /* of onnxruntime */
    size_t provider_count;
    ort_plugin *plugins; /* found beside it or where libraries are looked for */
    size_t plugin_count;
    const char *why; /* where it was looked for, when something is missing */
} ort_info;
void ort_probe(dr_arena *a, ort_info *out);

/* ---- sessions ---- */

typedef struct ort_session ort_session;
typedef struct {
    const char *name; /* borrowed */
    dr_dtype dtype;
    int ndim;
    int64_t dims[8];
    void *data; /* inputs: borrowed; outputs: inside owner */
    size_t bytes;
    void *owner; /* inputs: not looked at; outputs: the runtime's tensor */
} ort_value;

/*
 * threads 0: the runtime's default.  optimize false: graph optimizations off.
 * DR_EDEVICE: no runtime, or it refuses the model; DR_EIO: no such file.
 */
DR_MUST_USE dr_status ort_session_open(ort_session **out, const char *model_path,
                                       int threads, bool optimize);
/* How a session runs; start from ORT_SETTINGS_DEFAULTS, which leave it to the runtime. */
typedef struct {
    int intra_threads, inter_threads; /* within a node, among nodes; 0: the runtime's */
    bool parallel;                    /* nodes beside each other */
    int level;                        /* graph optimizations: 0, 1, 2, 99; -1: all */
} ort_settings;
#define ORT_SETTINGS_DEFAULTS ((ort_settings){.level = -1})
DR_MUST_USE dr_status ort_session_open_set(ort_session **out, const char *model_path,
                                           const ort_settings *set);
/*
 * On a provider that comes as a library (plugins.def): *wholly is whether all of the model
 * runs there, or some of it on the CPU.  NULL: the CPU, as above.
 * DR_EDEVICE: also when the provider is not here, with why.
 */
DR_MUST_USE dr_status ort_session_open_on(ort_session **out, const char *model_path,
                                          int threads, const char *provider, bool *wholly);
void ort_session_close(ort_session *s);
/* Inputs that must be fed come first, then the optional ones. */
size_t ort_session_input_count(const ort_session *s);
const char *ort_session_input_name(const ort_session *s, size_t i);
/*
 * Declared type and dims (-1: symbolic); *optional is true when it has a default (an
 * initializer).  DR_EUNSUPPORTED: a type that drupe has no name for.
 */
DR_MUST_USE dr_status ort_session_input(const ort_session *s, size_t i, ort_value *out,
                                        bool *optional);
size_t ort_session_output_count(const ort_session *s);
const char *ort_session_output_name(const ort_session *s, size_t i);
/* As ort_session_input: what is declared, with the sizes that the runtime worked out. */
DR_MUST_USE dr_status ort_session_output(const ort_session *s, size_t i, ort_value *out);
/* Adapter file whose parameters are fed to every later run; NULL: none.  One at a time. */
DR_MUST_USE dr_status ort_session_adapter(ort_session *s, const char *path);
/*
 * Runs; outputs[i].data are released by ort_values_release.  All dims of an input are
 * given; bytes must be their product times the element's size (DR_EUSAGE).
 */
DR_MUST_USE dr_status ort_session_run(ort_session *s, const ort_value *inputs,
                                      size_t input_count, const char *const *output_names,
                                      ort_value *outputs, size_t output_count);
void ort_values_release(ort_value *values, size_t count);

/* The graph that the runtime makes of src for the CPU, written to dst (weights in
 * dst.data, beside it), with the shapes that it worked out.  DR_EDEVICE as at an open. */
enum { ORT_LEVEL_NONE = 0, ORT_LEVEL_BASIC = 1, ORT_LEVEL_EXTENDED = 2 };
DR_MUST_USE dr_status ort_optimize(const char *dst, const char *src, int level);

/* src compiled by a provider (plugins.def): a graph of EPContext nodes, dst, and what they
 * name, beside it or (embed) inside; in a child process.  strict: nothing is left for the
 * CPU.  Options are the provider's and the runtime's own.
 * DR_EUNSUPPORTED: no runtime, or no such provider in it; DR_EDEVICE: it fails. */
typedef struct {
    const char *key, *value;
} ort_option;
typedef struct {
    const char *dst, *src, *provider;
    bool embed, strict;
    const ort_option *provider_options, *session_options;
    size_t provider_count, session_count;
} ort_context_request;
DR_MUST_USE dr_status ort_context(const ort_context_request *q);
/* NULL: no provider of this name comes as a library. */
const char *ort_plugin_library(const char *provider);

/*
 * How long runs take, in a child process, on dummy inputs of so many tokens and an empty
 * cache.  seconds: [count][2][repeats]: of the defaults, and of list[i], by turns.
 * DR_EDEVICE: no runtime, or it refuses the model or a setting, or fails.
 */
typedef struct {
    const char *model_path;
    const ort_settings *list;
    size_t count;
    int warmup, repeats, tokens;
} ort_tune_request;
DR_MUST_USE dr_status ort_tune(double *seconds, const ort_tune_request *request);

/* ---- generation with a model folder ---- */

/* Model, tokenizer and adapter in GenAI.  One call at a time (GenAI's own rule). */
typedef struct ort_generator ort_generator;

/* Start from ORT_GENERATE_DEFAULTS: not every default is zero. */
typedef struct {
    const char *adapter_path; /* .onnx_adapter; NULL: base model */
    int max_length;           /* tokens in all; 0: the config's */
    bool do_sample;           /* false: greedy, and the three below are not used */
    double temperature;       /* 0: the config's, likewise below */
    double top_p;
    int top_k;
    int64_t seed;     /* -1: not set; GenAI takes 31 bits of it */
    int share_buffer; /* past_present_share_buffer: 1, 0; -1: the config's */
    int threads;      /* 0: GenAI's choice */
} ort_generate_options;

#define ORT_GENERATE_DEFAULTS ((ort_generate_options){.seed = -1, .share_buffer = -1})

typedef struct {
    size_t prompt_tokens, new_tokens;
    double load_s;    /* of the open: libraries, model, adapter */
    double prefill_s; /* to the first new token */
    double decode_s;  /* from the first new token to the last */
    bool ended;       /* by an end-of-sequence id */
} ort_generate_stats;

/*
 * o is copied; NULL: the defaults.
 * DR_EDEVICE: no runtime, or it refuses the model or the adapter; DR_EIO: no such file;
 * DR_EFORMAT: the folder has no genai_config.json.
 */
DR_MUST_USE dr_status ort_generator_open(ort_generator **out, const char *model_dir,
                                         const ort_generate_options *o);
void ort_generator_close(ort_generator *g);
/* For later calls of ort_generate; adapter and threads stay as they are. */
void ort_generator_set(ort_generator *g, const ort_generate_options *o);
/*
 * For later calls of ort_generate: the adapter in the file path, which is loaded once,
 * whatever was used between; NULL: the base alone.  DR_EIO: no such file; DR_EDEVICE: GenAI
 * refuses it.  After an error the base alone is used.
 */
DR_MUST_USE dr_status ort_generator_use(ort_generator *g, const char *path);
/* Ids of text by GenAI's own tokenizer (special tokens not added); free() releases. */
DR_MUST_USE dr_status ort_generator_encode(ort_generator *g, const char *text,
                                           int32_t **ids, size_t *count);
/*
 * Calls on_token (may be NULL) for each new id (true: go on); ids_out (may be NULL)
 * receives all new ids, released by free(); new_count and stats may be NULL.  Ends at an
 * end-of-sequence id, which is not handed out, at max_length, or when told to.
 * DR_EUSAGE: no prompt, or it fills max_length.  DR_ECANCELLED: dr_cancel() was called.
 */
typedef bool (*ort_token_fn)(void *ctx, int32_t id);
DR_MUST_USE dr_status ort_generate(ort_generator *g, const int32_t *prompt, size_t count,
                                   ort_token_fn on_token, void *ctx, int32_t **ids_out,
                                   size_t *new_count, ort_generate_stats *stats);

/* ---- models of fixed shapes ---- */

/*
 * A model with input_ids and position_ids [B, S], attention_mask [B, T] and a cache of the
 * T less S tokens before, run on S tokens after S tokens, the cache pushed on each time and
 * emptied after T; in a child process, as ort_check is.  ids: a multiple of S; every row of
 * a batch has them.
 */
typedef struct {
    const char *model_path;
    const char *provider; /* NULL: the CPU */
} ort_fixed_model;

typedef struct {
    ort_fixed_model model;
    const int32_t *ids;
    size_t count;
    int threads;
    double timeout_s; /* 0: 120 */
} ort_fixed_request;

/* Least and largest of each value NAME that has the scalar outputs NAME.min and NAME.max;
 * least and largest are [names]. */
DR_MUST_USE dr_status ort_fixed_ranges(float *least, float *largest,
                                       const char *const *names, size_t name_count,
                                       const ort_fixed_request *request);

/* The logits of two models on the same tokens; 0 tokens: *why says why not. */
typedef struct {
    size_t tokens, same_top; /* positions; those with the same most likely token */
    double max_diff;         /* of logits */
    bool wholly;             /* request->model: all of it ran on its provider */
    bool other_wholly;
    double seconds;
    char why[DR_TRAIL_TEXT]; /* no runtime, or the provider is not in it */
} ort_fixed_result;
DR_MUST_USE dr_status ort_fixed_compare(ort_fixed_result *out,
                                        const ort_fixed_request *request,
                                        const ort_fixed_model *other);

/* ---- logits over texts ---- */

/* Ids that are run with an empty cache; the logits at positions from.. are wanted. */
typedef struct {
    const int32_t *ids;
    size_t count, from;
} ort_text;

/*
 * The logits of a decoder's graph (of any length) over texts, in order; a child process
 * runs it, as with ort_check, and is a little ahead.  texts are borrowed; adapter (a file)
 * may be NULL.
 * DR_EDEVICE: no runtime, or it fails, crashes or hangs; DR_EUNSUPPORTED: not such a graph.
 */
typedef struct ort_logits ort_logits;
DR_MUST_USE dr_status ort_logits_open(ort_logits **out, const char *model_path,
                                      const char *adapter, const ort_text *texts,
                                      size_t count, int threads);
void ort_logits_close(ort_logits *s);
size_t ort_logits_vocab(const ort_logits *s);
/* logits[rows][vocab] of the next wanted positions, of which there must be so many. */
DR_MUST_USE dr_status ort_logits_next(ort_logits *s, float *logits, size_t rows);

/* Least and largest over texts of each value NAME that has the scalar outputs NAME.min and
 * NAME.max; least and largest are [count].  DR_EUNSUPPORTED: not a graph over text. */
DR_MUST_USE dr_status ort_text_ranges(float *least, float *largest,
                                      const char *const *names, size_t count,
                                      const char *model, const ort_text *texts,
                                      size_t text_count, int threads);

/* ---- the check before a commit ---- */

/*
 * Loads a finished model folder in a child process, runs one step (with each adapter, and
 * without), compares GenAI's ids with ours on probe texts, and reports the child's time and
 * memory.  genai false: a plain session run on dummy inputs only.
 * DR_EDEVICE: it does not load or run, or ids differ (the text and both ids are named), or
 * the runtime crashed or took longer than timeout_s.  DR_ECANCELLED: dr_cancel().
 * *checked false with *why when there is no runtime.
 */
typedef struct {
    const char *dir;
    bool genai;
    const char *model_file;           /* inside dir, without genai; NULL: "model.onnx" */
    const char *const *parts; /* or several, one after the other, each value by its name;
                                 ends with NULL; NULL: one */
    const char *const *adapter_files; /* names inside dir */
    size_t adapter_count;
    const char *const *texts;  /* probe texts */
    const int32_t *const *ids; /* ours */
    const size_t *id_counts;
    size_t text_count;
    double timeout_s; /* 0: 120 */
} ort_check_request;
typedef struct {
    bool checked;
    char why[DR_TRAIL_TEXT];
    double seconds;    /* of the child's life */
    size_t peak_bytes; /* resident memory that the child added to what it was born with */
} ort_check_result;
DR_MUST_USE dr_status ort_check(ort_check_result *out, const ort_check_request *request);

#endif
