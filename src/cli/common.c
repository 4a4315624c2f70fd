/*
 * common.c - what the verbs share.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli_impl.h"
#include "core/log.h"

const char *const cli_tasks[] = {"text-generation-with-past", "text-generation", NULL};

const char *const cli_strategies[] = {
    "join",         "join-random",         "join-sliding-window",
    "line-by-line", "line-by-line-random", NULL};

const char *const cli_train_strategies[] = {
    "join",    "join-random", "join-sliding-window", "line-by-line", "line-by-line-random",
    "packing", NULL};

drupe_data cli_data_of(const cli_data *d)
{
    return (drupe_data){.name = d->data_name,
                        .files = d->data_files,
                        .text_field = d->text_field,
                        .text_template = d->text_template,
                        .use_chat_template = d->use_chat_template,
                        .add_special_tokens = d->add_special_tokens,
                        .max_seq_len = (size_t)d->max_seq_len,
                        .max_samples = (size_t)d->max_samples,
                        .strategy = cli_train_strategies[d->strategy],
                        .stride = (size_t)d->stride,
                        .random_seed = (uint64_t)d->random_seed};
}

void cli_model_notes(const cli_model *m)
{
    if (m->trust_remote_code)
        dr_log(DR_INFO,
               "--trust_remote_code: accepted; code in model folders is never run");
}

const char *const cli_computes[] = {"auto", "cpu", "cuda", NULL};

drupe_job cli_model_job(const cli_model *m)
{
    return (drupe_job){.model = m->model_name_or_path,
                       .output = m->output_path,
                       .dry_run = m->dry_run,
                       .save_config = m->save_config_file};
}

dr_status cli_pass_config(json_t **out, const dr_param *params, size_t n,
                          const void *config, const unsigned char *given,
                          const cli_key *keys, size_t count)
{
    json_t *j = json_object(), *one = NULL;
    dr_status st = DR_OK;

    for (size_t i = 0; i < count; i++) {
        const char *option = keys[i].option != NULL ? keys[i].option : keys[i].key;
        const dr_param *row = dr_param_find(params, n, option);
        DR_BUG_IF(row == NULL);
        if (!given[row - params])
            continue;
        DR_TRYF(dr_params_json(&one, row, 1, config), "--%s", option);
        json_object_set(j, keys[i].key, json_object_get(one, row->name));
        json_decref(one);
    }
    *out = j;
    j = NULL;
done:
    json_decref(j);
    return st;
}

dr_status cli_write(const char *text, size_t n)
{
    if (fwrite(text, 1, n, stdout) != n || fflush(stdout) != 0)
        return dr_fail(DR_EIO, "cannot write the result to standard output: %s",
                       strerror(errno));
    return DR_OK;
}

dr_status cli_print(const cli_common *c, const drupe_result *r)
{
    const char *text = c->json ? drupe_result_json(r) : drupe_result_text(r);
    dr_status st = DR_OK;

    DR_TRY(cli_write(text, strlen(text)));
    if (c->json)
        DR_TRY(cli_write("\n", 1));
done:
    return st;
}

dr_status cli_missed(const drupe_result *r, const char *output)
{
    const char *missed = drupe_result_missed(r);
    dr_status st = DR_OK;

    if (missed == NULL)
        return DR_OK;
    st = dr_fail(DR_EUNSUPPORTED, "a limit is missed: %s", missed);
    if (output != NULL)
        dr_hint("the result is whole and kept: %s", output);
    return st;
}

dr_status cli_run_passes(const cli_common *c, const drupe_job *options, const char *done)
{
    drupe_job job = *options;
    drupe_result *r = NULL;
    dr_status st = DR_OK;

    job.threads = c->threads;
    job.ranks = c->ranks;
    DR_TRY((dr_status)drupe_run(&r, &job));
    if (drupe_ranks_id(c->ranks) > 0)
        goto done;
    DR_TRY(cli_print(c, r));
    if (!job.dry_run)
        dr_log(DR_INFO, "%s: %s", done, job.output);
    DR_TRY(cli_missed(r, job.output));
done:
    drupe_result_free(r);
    return st;
}

dr_status cli_run_two(const cli_common *c, const drupe_job *options, const char *first,
                      json_t *first_config, const char *second, json_t *second_config,
                      const char *done)
{
    drupe_job job = *options;
    char *texts[2] = {json_dumps(first_config, JSON_COMPACT),
                      json_dumps(second_config, JSON_COMPACT)};
    const drupe_pass steps[2] = {{first, texts[0]}, {second, texts[1]}};
    size_t skip = first_config == NULL;

    job.passes = steps + skip;
    job.pass_count = 2 - skip;
    dr_status st = cli_run_passes(c, &job, done);
    free(texts[0]);
    free(texts[1]);
    json_decref(first_config);
    json_decref(second_config);
    return st;
}

dr_status cli_run_job(const cli_common *c, const drupe_job *options, const char *pass,
                      json_t *config, const char *done)
{
    return cli_run_two(c, options, NULL, NULL, pass, config, done);
}
