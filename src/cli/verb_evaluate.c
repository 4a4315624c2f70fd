/*
 * verb_evaluate.c - drupe evaluate: how good a model is, alone or beside another.
 */
#include "cli/cli_impl.h"

typedef struct {
    cli_common common;
    const char *model_name_or_path;
    const char *reference_model;
    const char *adapter_path;
    const char *task;
    int max_new_tokens;
    cli_data data;
    double max_kl;
    double max_perplexity;
} options;

static const dr_param params[] = {
    DR_STR(options, model_name_or_path, .short_name = 'm', .required = true,
           .help = "folder, GGUF file, hub id, ONNX folder or file, or an earlier result"),
    DR_STR(options, reference_model,
           .help = "the model to compare with, of any of these kinds"),
    DR_STR(options, adapter_path, .short_name = 'a',
           .help = "PEFT adapter; of an ONNX model: its name in the folder, or a file"),
    CLI_DATA(options, "tokens a block (default: 512)",
             "blocks, or questions of --task "
             "(default: 16, or all)"),
    CLI_NO_SPLITS,
    DR_STR(options, task,
           .help = "JSON lines of questions, instead of a text: context or question, and "
                   "choices with answer, or target"),
    DR_INT(options, max_new_tokens, .dflt = "0", .max = 1 << 20,
           .help = "of an answer to a question with a target; 0: 32"),
    DR_FLOAT(options, max_kl, .dflt = "0", .max = 1000,
             .help = "exit 1 when KL to the reference is above; 0: no limit"),
    DR_FLOAT(options, max_perplexity, .dflt = "0", .max = 1e9,
             .help = "exit 1 when the model's perplexity is above; 0: no limit"),
    CLI_COMPUTE(options),
    CLI_THREADS(options),
    CLI_COMMON(options),
};

/* A text's options that mean nothing to questions, and the other way round. */
static dr_status check(const options *o, const unsigned char *given)
{
    static const char *const of_text[] = {"data_name",  "data_files",
                                          "text_field", "use_chat_template",
                                          "max_kl",     "max_perplexity"};

    if (o->task != NULL)
        return cli_refuse_given(params, DR_COUNT(params), given, of_text, DR_COUNT(of_text),
                                "on --task");
    if (o->max_new_tokens != 0)
        return dr_fail(DR_EUSAGE, "--max_new_tokens has no effect but on --task");
    if (o->max_kl != 0 && o->reference_model == NULL)
        return dr_fail(DR_EUSAGE, "--max_kl needs --reference_model");
    return DR_OK;
}

static dr_status run(const void *cfg, const unsigned char *given)
{
    const options *o = cfg;
    const drupe_evaluation e = {.model = o->model_name_or_path,
                                .reference = o->reference_model,
                                .adapter = o->adapter_path,
                                .data = cli_data_of(&o->data),
                                .task = o->task,
                                .max_new_tokens = o->max_new_tokens,
                                .max_kl = o->max_kl,
                                .max_perplexity = o->max_perplexity,
                                .device = cli_computes[o->common.compute],
                                .threads = o->common.threads,
                                .ranks = o->common.ranks};
    drupe_result *r = NULL;
    dr_status st = DR_OK;

    DR_TRY(check(o, given));
    DR_TRY((dr_status)drupe_evaluate(&r, &e));
    if (drupe_ranks_id(o->common.ranks) > 0)
        goto done;
    DR_TRY(cli_print(&o->common, r));
    DR_TRY(cli_missed(r, NULL));
done:
    drupe_result_free(r);
    return st;
}

extern const cli_verb verb_evaluate; /* VERB(evaluate, ...) in cli/verbs.def */
const cli_verb verb_evaluate = {
    "drupe evaluate -m MODEL [-a ADAPTER] [--reference_model MODEL]", sizeof(options),
    params, DR_COUNT(params), run};
