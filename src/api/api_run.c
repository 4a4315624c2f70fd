/*
 * api_run.c - errors, results, jobs and tokens of the public header.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/drupe_impl.h"
#include "core/file.h"
#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/ranks.h"
#include "flow/flow.h"
#include "hf/hf.h"
#include "pass/pass.h"

_Static_assert((int)DRUPE_ECANCELLED == (int)DR_ECANCELLED, "public and inner codes agree");

const char *drupe_version(void)
{
    return DRUPE_VERSION;
}

const char *drupe_error_message(void)
{
    const dr_trail *t = dr_trail_get();

    return t->count > 0 ? t->frames[0].text : dr_status_text(t->status);
}

size_t drupe_error_context_count(void)
{
    int n = dr_trail_get()->count;

    return n > 1 ? (size_t)n - 1 : 0;
}

const char *drupe_error_context(size_t i)
{
    return i < drupe_error_context_count() ? dr_trail_get()->frames[i + 1].text : "";
}

const char *drupe_error_hint(void)
{
    return dr_trail_get()->hint;
}

void drupe_log_level(int at_least)
{
    dr_log_level(at_least < 0 ? DR_DEBUG : at_least > 4 ? DR_CRITICAL : (dr_level)at_least);
}

void drupe_cancel(void)
{
    dr_cancel();
}

/* ---- results ---- */

drupe_result *api_result_new(void)
{
    drupe_result *r = dr_calloc(1, sizeof(*r));

    dr_buf_init(&r->text, (size_t)64 << 20);
    r->report = json_object();
    return r;
}

/* The limits of the report that are not met, as a message. */
static void find_missed(drupe_result *r)
{
    const json_t *list = json_object_get(r->report, "limits");

    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i);
        if (json_is_true(json_object_get(one, "met")))
            continue;
        char *text = dr_asprintf("%s%s%s is %.6g, the limit is %.6g",
                                 r->missed ? r->missed : "", r->missed ? "; " : "",
                                 json_string_value(json_object_get(one, "figure")),
                                 json_is_number(json_object_get(one, "value"))
                                     ? json_number_value(json_object_get(one, "value"))
                                     : (double)INFINITY,
                                 json_number_value(json_object_get(one, "limit")));
        free(r->missed);
        r->missed = text;
    }
}

void api_result_seal(drupe_result *r)
{
    find_missed(r);
    r->json = json_dumps(r->report, JSON_INDENT(2));
    DR_BUG_IF(r->json == NULL);
}

void api_set_int(json_t *j, const char *key, uint64_t v)
{
    json_object_set_new(j, key, json_integer((json_int_t)v));
}

const char *drupe_result_text(const drupe_result *r)
{
    return r->text.data;
}

const char *drupe_result_json(const drupe_result *r)
{
    return r->json;
}

const char *drupe_result_missed(const drupe_result *r)
{
    return r->missed;
}

void drupe_result_free(drupe_result *r)
{
    if (r == NULL)
        return;
    dr_buf_release(&r->text);
    json_decref(r->report);
    free(r->json);
    free(r->missed);
    free(r);
}

/* ---- several processes ---- */

drupe_status drupe_ranks_open(drupe_ranks **out)
{
    dr_trail_clear();
    return (drupe_status)dr_ranks_open(out);
}

size_t drupe_ranks_id(const drupe_ranks *r)
{
    return dr_ranks_id(r);
}

void drupe_ranks_close(drupe_ranks *r)
{
    dr_ranks_close(r);
}

void drupe_ranks_abort(drupe_ranks *r, int exit_status)
{
    dr_ranks_abort(r, exit_status);
}

/* ---- jobs ---- */

size_t drupe_pass_count(void)
{
    size_t n = 0;

    (void)pass_list(&n);
    return n;
}

const char *drupe_pass_name(size_t i)
{
    size_t n = 0;
    const pass_def *const *list = pass_list(&n);

    return i < n ? list[i]->name : NULL;
}

static dr_status read_steps(flow_step *steps, json_t **configs, const drupe_job *job)
{
    dr_status st = DR_OK;

    for (size_t i = 0; i < job->pass_count; i++) {
        const drupe_pass *p = &job->passes[i];
        if (p->config_json != NULL)
            DR_TRY(dr_json_parse(&configs[i], p->config_json, strlen(p->config_json),
                                 p->name));
        steps[i] = (flow_step){p->name, configs[i]};
    }
done:
    return st;
}

static dr_status check_job(const drupe_job *job)
{
    if (job->model == NULL || *job->model == '\0')
        return dr_fail(DR_EUSAGE, "no model was named");
    if (job->output == NULL || *job->output == '\0')
        return dr_fail(DR_EUSAGE, "no output folder was named");
    if (job->pass_count == 0)
        return dr_fail(DR_EUSAGE, "a job has at least one pass");
    if (job->threads < 0)
        return dr_fail(DR_EUSAGE, "threads: expected 0 (all) or more, found %d",
                       job->threads);
    return DR_OK;
}

dr_status api_data(data_options *out, const drupe_data *d)
{
    *out = (data_options){.data_name = d->name,
                          .data_files = d->files,
                          .split = d->split,
                          .text_field = d->text_field,
                          .text_template = d->text_template,
                          .use_chat_template = d->use_chat_template,
                          .answers_only = d->completion_only,
                          .add_special_tokens = d->add_special_tokens,
                          .max_seq_len = d->max_seq_len,
                          .max_samples = d->max_samples,
                          .stride = d->stride,
                          .random_seed = d->random_seed,
                          .self_written = d->self_written,
                          .temperature = d->temperature};
    return data_strategy_named(&out->strategy, d->strategy);
}

dr_status api_result_of(drupe_result **out, const flow_result *made)
{
    drupe_result *r = api_result_new();
    dr_status st = DR_OK;

    *out = r;
    json_object_update(r->report, made->report);
    DR_TRY(dr_buf_add(&r->text, made->text.data, made->text.len));
    if (made->model_path != NULL)
        DR_TRY(dr_buf_addf(&r->text, "model          %s\n", made->model_path));
    if (made->adapter_path != NULL)
        DR_TRY(dr_buf_addf(&r->text, "adapter        %s\n", made->adapter_path));
    api_result_seal(r);
done:
    return st;
}

drupe_status api_result_taken(drupe_result **out, flow_result *made, dr_status st)
{
    if (st == DR_OK)
        st = api_result_of(out, made);
    flow_result_release(made);
    if (st != DR_OK) {
        drupe_result_free(*out);
        *out = NULL;
    }
    return (drupe_status)st;
}

drupe_status drupe_run(drupe_result **out, const drupe_job *job)
{
    flow_step *steps = dr_calloc(job->pass_count, sizeof(*steps));
    json_t **configs = dr_calloc(job->pass_count, sizeof(json_t *));
    data_options data = {0}, eval = {0};
    flow_result made = {0};
    dr_status st = DR_OK;

    *out = NULL;
    dr_trail_clear();
    DR_TRY(check_job(job));
    DR_TRY(read_steps(steps, configs, job));
    DR_TRY(api_data(&data, &job->data));
    DR_TRY(api_data(&eval, &job->eval));
    const flow_spec spec = {.model = job->model,
                            .adapters = job->adapters,
                            .output = job->output,
                            .steps = steps,
                            .step_count = job->pass_count,
                            .data = data,
                            .resume = job->resume,
                            .memory = job->memory,
                            .eval = job->eval.name != NULL ? &eval : NULL,
                            .device = job->device,
                            .threads = job->threads,
                            .ranks = job->ranks,
                            .evaluate = job->evaluate,
                            .check = job->check,
                            .max_kl = job->max_kl,
                            .dry_run = job->dry_run,
                            .save_config = job->save_config};
    DR_TRY(flow_run(&made, &spec));
done:
    for (size_t i = 0; i < job->pass_count; i++)
        json_decref(configs[i]);
    free(configs);
    free(steps);
    return api_result_taken(out, &made, st);
}

/* ---- tokens ---- */

struct drupe_tokenizer {
    tok_tokenizer *tok; /* owned */
};

/* The folder that holds tokenizer.json: path, or what hf_resolve makes of it. */
static dr_status open_tok(tok_tokenizer **out, dr_arena *a, const char *model)
{
    const char *path = model, *inside = api_genai_folder(a, model);
    json_t *tokenizer = NULL, *config = NULL;
    hf_model *m = NULL;
    dr_status st = DR_OK;

    if (inside != NULL)
        return tok_open(out, inside);
    if (dr_exists(dr_path_join(a, model, "tokenizer.json")))
        return tok_open(out, model);
    DR_TRY(hf_resolve(a, &path, model));
    if (dr_is_dir(path))
        return tok_open(out, path);
    DR_TRY(hf_model_open(&m, path));
    DR_TRY(hf_model_tokenizer(m, &tokenizer, &config));
    DR_TRY(tok_open_json(out, tokenizer, config, path));
done:
    json_decref(tokenizer);
    json_decref(config);
    hf_model_close(m);
    return st;
}

drupe_status drupe_tokenizer_open(drupe_tokenizer **out, const char *model)
{
    drupe_tokenizer *t = dr_calloc(1, sizeof(*t));
    dr_arena a = {0};
    dr_status st = DR_OK;

    *out = NULL;
    dr_trail_clear();
    DR_TRY(open_tok(&t->tok, &a, model));
    *out = t;
    t = NULL;
done:
    dr_arena_release(&a);
    drupe_tokenizer_close(t);
    return (drupe_status)st;
}

void drupe_tokenizer_close(drupe_tokenizer *t)
{
    if (t == NULL)
        return;
    tok_close(t->tok);
    free(t);
}

drupe_status drupe_tokenizer_encode(const drupe_tokenizer *t, int32_t **ids, size_t *count,
                                    const char *text, size_t bytes, bool add_special_tokens)
{
    tok_ids list = {0};
    dr_status st = DR_OK;

    *ids = NULL;
    *count = 0;
    dr_trail_clear();
    DR_TRY(tok_encode(t->tok, &list, text, bytes, add_special_tokens));
    *ids = list.ids;
    *count = list.count;
    list = (tok_ids){0};
done:
    tok_ids_release(&list);
    return (drupe_status)st;
}

const char *drupe_tokenizer_piece(const drupe_tokenizer *t, int32_t id)
{
    return tok_piece(t->tok, id);
}
