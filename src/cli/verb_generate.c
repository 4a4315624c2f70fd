/*
 * verb_generate.c - drupe generate: text from an exported model, as it comes.
 */
#include <string.h>

#include "cli/cli_impl.h"
#include "core/log.h"

typedef struct {
    cli_common common;
    const char *model_name_or_path;
    const char *adapter_path;
    const char *prompt;
    const char *system;
    bool chat;
    int max_length;
    int max_new_tokens;
    bool do_sample;
    double temperature;
    double top_p;
    int top_k;
    int seed;
} options;

static const dr_param params[] = {
    DR_STR(options, model_name_or_path, .short_name = 'm', .required = true,
           .help = "folder made by auto-opt --use_ort_genai"),
    DR_STR(options, prompt, .short_name = 'p', .required = true,
           .help = "text to go on from"),
    DR_STR(options, adapter_path, .short_name = 'a',
           .help = "adapter: its name in the folder, or a file"),
    DR_BOOL(options, chat, .dflt = "false", .help = "ask in the model's chat template"),
    DR_STR(options, system, .help = "system message, with --chat"),
    DR_INT(options, max_length, .dflt = "0", .max = 1 << 24,
           .help = "tokens in all; 0: no limit of its own"),
    DR_INT(options, max_new_tokens, .dflt = "0", .max = 1 << 24,
           .help = "tokens to generate; 0: what max_length leaves, else 128"),
    DR_BOOL(options, do_sample, .dflt = "false",
            .help = "sample; else the likeliest token"),
    DR_FLOAT(options, temperature, .dflt = "0", .max = 100,
             .help = "with --do_sample; 0: the model's"),
    DR_FLOAT(options, top_p, .dflt = "0", .max = 1,
             .help = "with --do_sample; 0: the model's"),
    DR_INT(options, top_k, .dflt = "0", .max = 1 << 20,
           .help = "with --do_sample; 0: the model's"),
    DR_INT(options, seed, .dflt = "-1", .min = -1, .max = 2147483647,
           .help = "with --do_sample; -1: none"),
    CLI_THREADS(options),
    CLI_COMMON(options),
};

static bool print_piece(void *ctx, const char *text)
{
    const options *o = ctx;

    return o->common.json || cli_write(text, strlen(text)) == DR_OK;
}

static dr_status check(const options *o, const unsigned char *given)
{
    static const char *const sampling[] = {"temperature", "top_p", "top_k", "seed"};

    for (size_t i = 0; i < DR_COUNT(sampling) && !o->do_sample; i++) {
        if (dr_param_given(params, DR_COUNT(params), given, sampling[i]))
            return dr_fail(DR_EUSAGE, "--%s needs --do_sample", sampling[i]);
    }
    if (o->system != NULL && !o->chat)
        return dr_fail(DR_EUSAGE, "--system needs --chat");
    return DR_OK;
}

static dr_status run(const void *cfg, const unsigned char *given)
{
    options o = *(const options *)cfg;
    drupe_generation g = {.model = o.model_name_or_path,
                          .adapter = o.adapter_path,
                          .prompt = o.prompt,
                          .system = o.system,
                          .chat = o.chat,
                          .max_length = o.max_length,
                          .max_new_tokens = o.max_new_tokens,
                          .do_sample = o.do_sample,
                          .temperature = o.temperature,
                          .top_p = o.top_p,
                          .top_k = o.top_k,
                          .seed = o.seed,
                          .threads = o.common.threads};
    drupe_result *r = NULL;
    dr_status st = DR_OK;

    DR_TRY(check(&o, given));
    DR_TRY((dr_status)drupe_generate(&r, &g, print_piece, &o));
    if (o.common.json) {
        DR_TRY(cli_print(&o.common, r));
    } else {
        DR_TRY(cli_write("\n", 1));
        dr_log_text(DR_INFO, drupe_result_text(r));
    }
done:
    drupe_result_free(r);
    return st;
}

extern const cli_verb verb_generate; /* VERB(generate, ...) in cli/verbs.def */
const cli_verb verb_generate = {"drupe generate -m FOLDER -p TEXT [-a ADAPTER] [--chat]",
                                sizeof(options), params, DR_COUNT(params), run};
