/*
 * verb_benchmark.c - drupe benchmark: tasks, speed, memory and size of a model.
 */
#include "cli/cli_impl.h"

typedef struct {
    cli_common common;
    const char *model_name_or_path, *reference_model, *adapter_path;
    const char *tasks;
    int device, backend;
    double limit;
    int max_length, prompt_tokens, new_tokens, warmup_num, repeat_test_num;
    bool disable_telemetry;
} options;

static const char *const devices[] = {"cpu", "gpu", NULL};
static const char *const backends[] = {"auto", "ort", "ortgenai", NULL};

static const dr_param params[] = {
    DR_STR(options, model_name_or_path, .short_name = 'm', .required = true,
           .help = "folder, GGUF file, ONNX folder or file, or an earlier result"),
    DR_STR(options, reference_model,
           .help = "another one: answers are compared, and the two are timed in turns"),
    DR_STR(options, adapter_path, .short_name = 'a',
           .help = "of the tasks: PEFT adapter; of an ONNX model its name or a file"),
    DR_STR(options, tasks, .words = true,
           .help = "files of questions, as evaluate --task takes them"),
    DR_CHOICE(options, device, .dflt = "cpu", .choices = devices,
              .help = "gpu: tasks of a Hugging Face model on an Nvidia GPU"),
    DR_CHOICE(options, backend, .dflt = "auto", .choices = backends,
              .help = "ortgenai: what has genai_config.json is timed; ort: nothing is"),
    DR_FLOAT(options, limit, .dflt = "0", .max = 1e9,
             .help = "questions of each task; below 1 a share of them; 0: all"),
    DR_INT(options, max_length, .dflt = "0", .max = 1 << 24,
           .help = "tokens of a question that are seen; 0: the model's context"),
    DR_INT(options, prompt_tokens, .dflt = "64", .min = 1, .max = 1 << 20,
           .help = "of what is timed"),
    DR_INT(options, new_tokens, .dflt = "16", .min = 2, .max = 1 << 20,
           .help = "that are generated behind it"),
    DR_INT(options, warmup_num, .dflt = "10", .max = 10000,
           .help = "runs before the clock"),
    DR_INT(options, repeat_test_num, .dflt = "20", .min = 2, .max = 100000,
           .help = "runs on the clock"),
    CLI_THREADS(options),
    CLI_COMMON(options),
    DR_BOOL(options, disable_telemetry, .dflt = "false", .hidden = true,
            .help = "accepted; there is none"),
    CLI_REFUSED_SHORT('o', "output_path", "nothing is written; the result is printed",
                      "json"),
    DR_REFUSED("batch_size", "drupe chooses the batches", "limit"),
};

static dr_status run(const void *cfg, const unsigned char *given)
{
    const options *o = cfg;
    const drupe_benchmark_options b = {.model = o->model_name_or_path,
                                       .reference = o->reference_model,
                                       .adapter = o->adapter_path,
                                       .tasks = o->tasks,
                                       .limit = o->limit,
                                       .max_length = o->max_length,
                                       .backend = backends[o->backend],
                                       .device = o->device == 1 ? "cuda" : "cpu",
                                       .prompt_tokens = o->prompt_tokens,
                                       .new_tokens = o->new_tokens,
                                       .warmup = o->warmup_num,
                                       .repeats = o->repeat_test_num,
                                       .threads = o->common.threads};
    drupe_result *r = NULL;
    dr_status st = DR_OK;

    (void)given;
    DR_TRY((dr_status)drupe_benchmark(&r, &b));
    DR_TRY(cli_print(&o->common, r));
done:
    drupe_result_free(r);
    return st;
}

extern const cli_verb verb_benchmark; /* VERB(benchmark, ...) in cli/verbs.def */
const cli_verb verb_benchmark = {
    "drupe benchmark -m MODEL [--tasks FILE ...] [--reference_model MODEL]",
    sizeof(options), params, DR_COUNT(params), run};
