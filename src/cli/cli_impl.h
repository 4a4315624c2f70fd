/*
 * cli_impl.h - what the verbs share: option rows that many of them have, the frame that
 * parses, runs and prints.
 */
#ifndef DRUPE_CLI_CLI_IMPL_H
#define DRUPE_CLI_CLI_IMPL_H

#include <jansson.h>
#include <limits.h>

#include "core/arena.h"
#include "core/buf.h"
#include "core/param.h"
#include "core/status.h"
#include "drupe/drupe.h"

/* ---- verbs ---- */

/* One command.  config begins with cli_common. */
typedef struct {
    const char *usage; /* "drupe quantize -m MODEL [options]" */
    size_t config_size;
    const dr_param *params;
    size_t params_count;
    dr_status (*run)(const void *config, const unsigned char *given);
} cli_verb;

/* verbs.def as a list; verb is NULL for a command that is refused: summary says why. */
typedef struct {
    const char *name, *summary;
    const cli_verb *verb;
} cli_verb_row;
extern const cli_verb_row cli_verbs[];
extern const size_t cli_verb_count;

/* ---- option rows ---- */

/* First member of every verb's config. */
typedef struct {
    int log_level;
    bool json;
    int threads;
    int compute;
    drupe_ranks *ranks; /* borrowed; NULL: one process */
} cli_common;

/* Row names come from field names; nested structs are reached by their offset. */
#define CLI_ROW(s, member, option, kind, ...)                                              \
    {                                                                                      \
        .name = option, .offset = offsetof(s, member), .type = kind, __VA_ARGS__           \
    }

/* A refused option with a short form. */
#define CLI_REFUSED_SHORT(letter, option, reason, instead)                                 \
    {                                                                                      \
        .name = option, .short_name = letter, .type = DR_PARAM_REFUSED, .refused = reason, \
        .nearest = instead                                                                 \
    }

#define CLI_COMMON(s)                                                                      \
    CLI_ROW(s, common.log_level, "log_level", DR_PARAM_INT, .dflt = "3", .max = 4,         \
            .help = "0 debug, 1 info, 2 warning, 3 error, 4 critical"),                    \
        CLI_ROW(s, common.json, "json", DR_PARAM_BOOL, .dflt = "false",                    \
                .help = "the result as one JSON object")

#define CLI_THREADS(s)                                                                     \
    CLI_ROW(s, common.threads, "threads", DR_PARAM_INT, .dflt = "0", .max = 4096,          \
            .help = "threads to use; 0: all")

/* Where drupe itself computes (--device is what a graph is made for). */
#define CLI_COMPUTE(s)                                                                     \
    CLI_ROW(s, common.compute, "compute", DR_PARAM_CHOICE, .dflt = "auto",                 \
            .choices = cli_computes,                                                       \
            .help = "where drupe computes; auto: on an Nvidia GPU that can be used")
extern const char *const cli_computes[];

typedef struct {
    const char *model_name_or_path;
    const char *output_path;
    int task;
    bool trust_remote_code;
    bool disable_telemetry;
    bool dry_run, save_config_file;
} cli_model;

extern const char *const cli_tasks[];

#define CLI_MODEL(s, output)                                                               \
    CLI_ROW(s, model.model_name_or_path, "model_name_or_path", DR_PARAM_STR,               \
            .short_name = 'm', .required = true,                                           \
            .help = "folder, GGUF file, hub id, or an earlier result"),                    \
        CLI_ROW(s, model.output_path, "output_path", DR_PARAM_STR, .short_name = 'o',      \
                .dflt = output, .help = "folder for the result"),                          \
        CLI_ROW(s, model.task, "task", DR_PARAM_CHOICE, .short_name = 't',                 \
                .dflt = "text-generation-with-past", .choices = cli_tasks,                 \
                .help = "what the model does"),                                            \
        CLI_ROW(s, model.trust_remote_code, "trust_remote_code", DR_PARAM_BOOL,            \
                .dflt = "false", .help = "accepted; code in model folders is never run"),  \
        CLI_ROW(s, model.dry_run, "dry_run", DR_PARAM_BOOL, .dflt = "false",               \
                .help = "print the run as a workflow file, and do nothing"),               \
        CLI_ROW(s, model.save_config_file, "save_config_file", DR_PARAM_BOOL,              \
                .dflt = "false", .help = "write the same to config.json of the result"),   \
        CLI_ROW(s, model.disable_telemetry, "disable_telemetry", DR_PARAM_BOOL,            \
                .dflt = "false", .hidden = true, .help = "accepted; there is none")

/* Options of Olive that every model verb has or had, and that come later or never. */
#define CLI_MODEL_REFUSED                                                                  \
    DR_REFUSED("model_script", "code in Python is never run", "model_name_or_path"),       \
        DR_REFUSED("script_dir", "code in Python is never run", "model_name_or_path"),     \
        DR_REFUSED("account_name", "shared caches are of drupe run", NULL),                \
        DR_REFUSED("container_name", "shared caches are of drupe run", NULL),              \
        DR_REFUSED("model_variant", "diffusion models come later", NULL),                  \
        DR_REFUSED("is_generative_model", "every supported model is one", "task"),         \
        DR_REFUSED("test", "comparison runs come with the evaluators", NULL),              \
        DR_REFUSED("test_metrics", "comparison runs come with the evaluators", NULL),      \
        DR_REFUSED("test_llama_path", "comparison runs come with the evaluators", NULL),   \
        DR_REFUSED("resource_group", "nothing is run on AzureML", NULL),                   \
        DR_REFUSED("workspace_name", "nothing is run on AzureML", NULL),                   \
        DR_REFUSED("keyvault_name", "nothing is run on AzureML", NULL),                    \
        DR_REFUSED("aml_compute", "nothing is run on AzureML", NULL)

typedef struct {
    const char *data_name, *data_files, *text_field, *text_template;
    bool use_chat_template, add_special_tokens;
    int max_seq_len, max_samples;
    int strategy, stride, random_seed;
} cli_data;

/* Olive's; and those of training, which begin with them. */
extern const char *const cli_strategies[], *const cli_train_strategies[];

#define CLI_DATA(s, seq_help, samples_help)                                                \
    CLI_DATA_OF(s, seq_help, samples_help, cli_strategies)
#define CLI_DATA_OF(s, seq_help, samples_help, strategies)                                 \
    CLI_ROW(s, data.data_name, "data_name", DR_PARAM_STR, .short_name = 'd',               \
            .help = "json, csv or text"),                                                  \
        CLI_ROW(s, data.data_files, "data_files", DR_PARAM_STR,                            \
                .help = "comma list of files"),                                            \
        CLI_ROW(s, data.text_field, "text_field", DR_PARAM_STR,                            \
                .help = "the column with the text (default: text)"),                       \
        CLI_ROW(s, data.text_template, "text_template", DR_PARAM_STR,                      \
                .help = "text from columns: \"{prompt}\\n{response}\""),                   \
        CLI_ROW(s, data.use_chat_template, "use_chat_template", DR_PARAM_BOOL,             \
                .dflt = "false",                                                           \
                .help = "chat template over messages or prompt, response"),                \
        CLI_ROW(s, data.add_special_tokens, "add_special_tokens", DR_PARAM_BOOL,           \
                .dflt = "false", .help = "begin and end of text around each row"),         \
        CLI_ROW(s, data.max_seq_len, "max_seq_len", DR_PARAM_INT, .max = 1 << 20,          \
                .help = seq_help),                                                         \
        CLI_ROW(s, data.max_samples, "max_samples", DR_PARAM_INT, .max = 1 << 24,          \
                .help = samples_help),                                                     \
        CLI_ROW(s, data.strategy, "strategy", DR_PARAM_CHOICE, .dflt = "join",             \
                .choices = strategies, .help = "how rows become blocks"),                  \
        CLI_ROW(s, data.stride, "stride", DR_PARAM_INT, .max = 1 << 20,                    \
                .help = "tokens between the beginnings of sliding windows"),               \
        CLI_ROW(s, data.random_seed, "random_seed", DR_PARAM_INT, .max = INT_MAX,          \
                .help = "of what is drawn at random"),                                     \
        DR_REFUSED("input_cols", "it is for models other than decoders", "text_field")

/* Rows of files are chosen by finetune only. */
#define CLI_NO_SPLITS                                                                      \
    DR_REFUSED("train_subset", "data sets of the hub are not read yet", "data_files"),     \
        DR_REFUSED("train_split", "data sets of the hub are not read yet", "data_files"),  \
        DR_REFUSED("subset", "data sets of the hub are not read yet", "data_files"),       \
        DR_REFUSED("split", "data sets of the hub are not read yet", "data_files"),        \
        DR_REFUSED("eval_subset", "only finetune trains", NULL),                           \
        DR_REFUSED("eval_split", "only finetune trains", NULL)

/* ---- adapters (verb_adapters.c) ---- */

/* Of the file; pt is refused. */
extern const char *const cli_adapter_formats[];

/* ---- quantizers (quantizer.c) ---- */

typedef struct {
    int algorithm;      /* of cli_algorithms */
    int implementation; /* of cli_implementations; -1: drupe's */
    int bits;           /* 0: the pass's own */
    int group_size;     /* 0: likewise */
    bool symmetric, exact;
    int format; /* read by its row, as the next ones */
    bool lm_head, embeds;
    const char *modules_to_not_convert, *overrides;
    int mixed; /* likewise, of cli_mixes */
    double ratio;
    const char *max_size;
    int distill_steps;
    double distill_learning_rate;
} cli_quantizer;
extern const char *const cli_algorithms[], *const cli_implementations[],
                                               *const cli_layouts[], *const cli_mixes[];

/* For a struct with a cli_quantizer called quantizer. */
#define CLI_QUANTIZER(s)                                                                   \
    CLI_ROW(s, quantizer.exact, "exact", DR_PARAM_BOOL, .dflt = "false",                   \
            .help = "awq: AutoAWQ's very search; gptq: Olive's very grids and order"),     \
        CLI_ROW(s, quantizer.lm_head, "lm_head", DR_PARAM_BOOL, .dflt = "false",           \
                .help = "round the head too, where it is not the embedding"),              \
        CLI_ROW(s, quantizer.embeds, "embeds", DR_PARAM_BOOL, .dflt = "false",             \
                .help = "round the embedding too, with the head where they are one"),      \
        CLI_ROW(s, quantizer.modules_to_not_convert, "modules_to_not_convert",             \
                DR_PARAM_STR, .words = true,                                               \
                .help = "modules that stay: parts of names, or re:EXPRESSION"),            \
        CLI_ROW(s, quantizer.overrides, "overrides", DR_PARAM_STR, .json = true,           \
                .help = "by name or re:EXPRESSION: '{\"re:.*down_proj\": {\"bits\": 8}}'")
#define CLI_GROUP(s)                                                                       \
    CLI_ROW(s, quantizer.group_size, "group_size", DR_PARAM_INT, .dflt = "128", .min = -1, \
            .max = 1024,                                                                   \
            .help = "inputs that share a scale; -1: a whole row (kquant's default: 32)"),  \
        CLI_ROW(s, quantizer.symmetric, "symmetric", DR_PARAM_BOOL, .dflt = "false",       \
                .help = "a grid without zero points")

/* DR_EUSAGE: an algorithm, or an implementation of it, that there is not. */
DR_MUST_USE dr_status cli_quantizer_check(const cli_quantizer *q);
/* It leaves floats in another basis: options of a grid and of text mean nothing to it. */
bool cli_quantizer_rotates(const cli_quantizer *q);
/* The pass and its config; checked first. */
DR_MUST_USE dr_status cli_quantizer_config(json_t **out, const char **pass,
                                           const cli_quantizer *q, const cli_verb *verb,
                                           const void *config, const unsigned char *given);

/* The same before an export in one run: the layout between them holds all that there is;
 * rows: the graph has one scale an output, DR_EUSAGE with another group_size, or for what
 * rounds nothing. */
DR_MUST_USE dr_status cli_quantizer_between(json_t *config, const cli_quantizer *q,
                                            bool rows);

/* ---- a search that auto-opt makes (auto_search.c) ---- */

/* What is asked for; 0 or NULL: nothing. */
typedef struct {
    double target_latency, target_throughput, max_degradation;
    const char *max_size, *max_memory;
    int enable_search; /* of cli_searches; -1: tpe */
    int seed, search_samples, max_time;
    const char *cache_dir;
} cli_targets;
extern const char *const cli_searches[];

#define CLI_TARGETS(s)                                                                     \
    CLI_ROW(s, targets.target_latency, "target_latency", DR_PARAM_FLOAT, .dflt = "0",      \
            .max = 1e9,                                                                    \
            .help = "search for a model that has its first token in so many ms, at the "   \
                    "median"),                                                             \
        CLI_ROW(s, targets.target_throughput, "target_throughput", DR_PARAM_FLOAT,         \
                .dflt = "0", .max = 1e9,                                                   \
                .help = "likewise: that writes so many tokens per second"),                \
        CLI_ROW(s, targets.max_degradation, "max_degradation", DR_PARAM_FLOAT,             \
                .dflt = "0", .max = 1e6,                                                   \
                .help = "likewise: whose perplexity is so many percent worse at most"),    \
        CLI_ROW(s, targets.max_size, "max_size", DR_PARAM_STR,                             \
                .help = "likewise: of so many bytes at most, such as 90M"),                \
        CLI_ROW(s, targets.max_memory, "max_memory", DR_PARAM_STR,                         \
                .help = "likewise: that adds so much to a process at most"),               \
        CLI_ROW(s, targets.enable_search, "enable_search", DR_PARAM_CHOICE,                \
                .dflt = "null", .choices = cli_searches,                                   \
                .help = "search without a target, too (with one: tpe)"),                   \
        CLI_ROW(s, targets.seed, "seed", DR_PARAM_INT, .dflt = "1", .max = INT_MAX,        \
                .help = "of the search"),                                                  \
        CLI_ROW(s, targets.search_samples, "search_samples", DR_PARAM_INT, .dflt = "0",    \
                .max = 100000, .help = "candidates of the search; 0: 16, exhaustive all"), \
        CLI_ROW(s, targets.max_time, "max_time", DR_PARAM_INT, .dflt = "0",                \
                .max = 1 << 30, .help = "seconds after which none is begun; 0: no limit"), \
        CLI_ROW(s, targets.cache_dir, "cache_dir", DR_PARAM_STR,                           \
                .help = "of the search (default: .drupe-cache)")

bool cli_is_search(const cli_targets *t);
/*
 * Runs it and prints the best with the evidence: passes are the quantizer (NULL: those
 * there are, by bits; 0: 4 and 8) and ModelBuilder with export.  Configs are taken over.
 * DR_EUNSUPPORTED: no candidate meets all targets; the best of the others is kept.
 */
DR_MUST_USE dr_status cli_search(const cli_common *c, const cli_targets *t,
                                 const cli_model *m, const char *quantizer,
                                 json_t *quantizer_config, int bits, json_t *export);

/* ---- the frame ---- */

drupe_data cli_data_of(const cli_data *d);
/* What --trust_remote_code says. */
void cli_model_notes(const cli_model *m);
/* A job with what these options say of it: model, output, what is only planned. */
drupe_job cli_model_job(const cli_model *m);

/* A parameter of a pass, and the option that sets it where that has another name. */
typedef struct {
    const char *key, *option; /* option NULL: the same */
} cli_key;

/* The options that were given, as a pass's config. */
DR_MUST_USE dr_status cli_pass_config(json_t **out, const dr_param *params, size_t n,
                                      const void *config, const unsigned char *given,
                                      const cli_key *keys, size_t count);

/* The providers whose graphs have fixed shapes. */
#define CLI_OPENVINO  "OpenVINOExecutionProvider"
#define CLI_QNN       "QNNExecutionProvider"
#define CLI_VITISAI   "VitisAIExecutionProvider"
#define CLI_NOT_FIXED "but on graphs of fixed shapes, which OpenVINO, QNN and VitisAI have"
/* The one of them that is meant, by NpuModelBuilder's name; NULL: graphs of any shape. */
const char *cli_fixed_provider(const char *name);
/* Refuses the first of the names that was given: "--name has no effect <why>". */
DR_MUST_USE dr_status cli_refuse_given(const dr_param *params, size_t count,
                                       const unsigned char *given, const char *const *names,
                                       size_t n, const char *why);

/* Runs the job with one pass and prints the result.  config is taken over. */
DR_MUST_USE dr_status cli_run_job(const cli_common *c, const drupe_job *options,
                                  const char *pass, json_t *config, const char *done);
/* The same with a pass before it, where first is not NULL. */
DR_MUST_USE dr_status cli_run_two(const cli_common *c, const drupe_job *options,
                                  const char *first, json_t *first_config,
                                  const char *second, json_t *second_config,
                                  const char *done);
/* The same with the passes of the job. */
DR_MUST_USE dr_status cli_run_passes(const cli_common *c, const drupe_job *options,
                                     const char *done);
/* Prints a result as asked: text or JSON. */
DR_MUST_USE dr_status cli_print(const cli_common *c, const drupe_result *r);
/* A limit that a printed result misses is a failure; output: the folder that is kept, NULL:
 * none was written. */
DR_MUST_USE dr_status cli_missed(const drupe_result *r, const char *output);
/* Writes to stdout; a failure (a closed pipe, a full disk) is DR_EIO. */
DR_MUST_USE dr_status cli_write(const char *text, size_t n);

/* Help for the program, and for one verb. */
DR_MUST_USE dr_status cli_help_main(void);
DR_MUST_USE dr_status cli_help_verb(const cli_verb_row *row);
/* docs/cli.md and docs/passes.md. */
DR_MUST_USE dr_status cli_docs(void);
DR_MUST_USE dr_status cli_pass_docs(void);
/* Text in a table's cell. */
DR_MUST_USE dr_status cli_cell(dr_buf *b, const char *text);
/* drupe(1), and completion for a shell: bash, zsh or fish; NULL is refused. */
DR_MUST_USE dr_status cli_man(void);
DR_MUST_USE dr_status cli_completion(const char *shell);

#endif
