/*
 * workflow.c - a workflow file as the structs that the engine runs.
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/file.h"
#include "flow/workflow_impl.h"

static dr_status read_model(workflow *w, const char *model)
{
    const dr_node *n = dr_node_get(w->doc.top, "input_model");
    const char *file = wf_str(wf_get(n, "onnx_file_name"));

    w->model = (wf_model){.node = n};
    if (model != NULL) { /* the command line's stands in for all of it */
        w->model.path = model;
        return DR_OK;
    }
    if (n == NULL)
        return dr_node_fail(&w->doc, w->doc.top, "no input_model, and no model was named");
    w->model.path = wf_str(wf_get(n, "model_path"));
    w->model.type = wf_str(wf_get(n, "type"));
    w->model.format = wf_str(wf_get(n, "model_file_format"));
    w->model.adapter = wf_str(wf_get(n, "adapter_path"));
    if (file != NULL)
        w->model.path = dr_path_join(&w->arena, w->model.path, file);
    return DR_OK;
}

/* The system that key names; NULL: none. */
static dr_status find_system(const dr_node **out, const workflow *w, const char *key)
{
    const dr_node *n = wf_engine(&w->doc, key), *i;
    const dr_node *all = dr_node_get(w->doc.top, "systems");
    const char *names[64];
    size_t count = 0;

    *out = n;
    if (n == NULL || !json_is_string(n->value))
        return DR_OK;
    *out = dr_node_get(all, wf_str(n));
    for (i = all != NULL ? all->first : NULL; i != NULL && count < 64; i = i->next)
        names[count++] = i->key;
    if (*out == NULL)
        return wf_unknown(&w->doc, n, "system", wf_str(n), names, count);
    return DR_OK;
}

static dr_status read_target(workflow *w)
{
    const dr_node *host = NULL, *target = NULL;
    dr_status st = DR_OK;

    DR_TRY(find_system(&host, w, "host"));
    DR_TRY(find_system(&target, w, "target"));
    target = target != NULL ? target : host; /* as in Olive */
    const dr_node *list = wf_get(target, "accelerators");
    if (list == NULL || list->first == NULL)
        goto done;
    if (list->first->next != NULL)
        DR_TRY(dr_node_fail(&w->doc, list->first->next,
                            "a second accelerator: models are made for one"));
    const dr_node *eps = dr_node_get(list->first, "execution_providers");
    w->device = wf_str(dr_node_get(list->first, "device"));
    if (eps != NULL && json_is_array(eps->value) && json_array_size(eps->value) > 1)
        DR_TRY(dr_node_fail(&w->doc, eps, "several providers: models are made for one"));
    w->provider = wf_strs(&w->arena, eps);
done:
    return st;
}

static search_sampler sampler_named(const char *word)
{
    static const char *const words[] = {"sequential", "random", "tpe", "nsga2"};

    for (size_t i = 0; word != NULL && i < DR_COUNT(words); i++)
        if (strcasecmp(word, words[i]) == 0)
            return (search_sampler)i;
    return SEARCH_SEQUENTIAL; /* exhaustive is its older name */
}

/* A key of search_strategy, else its older place and name. */
static const dr_node *strategy_key(const dr_node *n, const char *key, const char *older)
{
    const dr_node *own = dr_node_get(n, key);

    return own != NULL ? own
                       : dr_node_get(dr_node_get(n, "search_algorithm_config"), older);
}

static dr_status read_launcher(workflow *w, const dr_node *strategy)
{
    const dr_node *n = dr_node_get(strategy, "launcher");
    const dr_node *args = dr_node_get(strategy, "launcher_args");
    const char *word = wf_str(n);

    w->launcher_node = n;
    w->launcher = word == NULL || strcasecmp(word, "local") == 0 ? WF_LOCAL
                  : strcasecmp(word, "mpirun") == 0              ? WF_MPIRUN
                                                                 : WF_SLURM;
    if (args == NULL)
        return DR_OK;
    if (w->launcher == WF_LOCAL)
        return dr_node_fail(&w->doc, args, "they belong to the launchers mpirun and slurm");
    const bool list = json_is_array(args->value);
    const size_t count = list ? json_array_size(args->value) : 1;
    w->launcher_args = dr_arena_alloc(&w->arena, count + 1, sizeof(char *));
    for (const dr_node *i = list ? args->first : args; i != NULL; i = list ? i->next : NULL)
        w->launcher_args[w->launcher_arg_count++] = wf_str(i);
    return DR_OK;
}

static dr_status read_search(workflow *w)
{
    const dr_node *n = wf_engine(&w->doc, "search_strategy");
    dr_status st = DR_OK;

    w->pass_params = true;
    w->output_models = 1;
    w->sampler = (search_options){.seed = 1, .multivariate = true, .group = true};
    w->search = n != NULL && !json_is_false(n->value);
    if (!w->search || json_is_true(n->value))
        return DR_OK;
    const char *order = wf_str(dr_node_get(n, "execution_order"));
    const char *sampler = wf_str(dr_node_get(n, "sampler"));
    const dr_node *older = dr_node_get(n, "search_algorithm");
    const dr_node *iterations = dr_node_get(n, "max_iter");
    const dr_node *time = dr_node_get(n, "max_time");
    if (sampler != NULL && older != NULL)
        DR_TRY(dr_node_fail(&w->doc, older, "sampler says it already"));
    w->sampler.sampler = sampler_named(sampler != NULL ? sampler : wf_str(older));
    w->sampler.seed = (uint64_t)wf_num(strategy_key(n, "seed", "seed"), 1);
    w->sampler.max_samples =
        (size_t)wf_num(strategy_key(n, "max_samples", "num_samples"), 0);
    w->sampler.multivariate =
        wf_bool(strategy_key(n, "multivariate", "multivariate"), true);
    w->sampler.group = wf_bool(strategy_key(n, "group", "group"), true);
    if (w->sampler.sampler != SEARCH_TPE)
        for (size_t i = 0; i < 2; i++) {
            const char *key = i == 0 ? "multivariate" : "group";
            const dr_node *k = strategy_key(n, key, key);
            if (k != NULL)
                DR_TRY(dr_node_fail(&w->doc, k, "it belongs to the sampler tpe"));
        }
    w->pass_by_pass = order != NULL && strcasecmp(order, "pass-by-pass") == 0;
    if (w->pass_by_pass && (iterations != NULL || time != NULL))
        DR_TRY(dr_node_fail(&w->doc, iterations != NULL ? iterations : time,
                            "it belongs to execution_order joint"));
    size_t max = (size_t)wf_num(iterations, 0);
    if (max > 0 && (w->sampler.max_samples == 0 || max < w->sampler.max_samples))
        w->sampler.max_samples = max;
    w->max_time_s = wf_num(time, 0);
    w->output_models = (size_t)wf_num(dr_node_get(n, "output_model_num"), 1);
    w->num_workers = (size_t)wf_num(dr_node_get(n, "num_workers"), 0);
    w->task_timeout_s = wf_num(dr_node_get(n, "task_timeout"), 0);
    DR_TRY(read_launcher(w, n));
    w->stop_when_goals_met = wf_bool(dr_node_get(n, "stop_when_goals_met"), false);
    w->pass_params = wf_bool(dr_node_get(n, "include_pass_params"), true);
done:
    return st;
}

/* The search chooses by figures with priorities. */
static dr_status check_search(workflow *w)
{
    const dr_node *n = wf_engine(&w->doc, "search_strategy");
    bool any = false, goal = false;

    for (size_t i = 0; i < w->evaluator.count; i++)
        for (size_t k = 0; k < w->evaluator.metrics[i].figure_count; k++) {
            const wf_figure *f = &w->evaluator.metrics[i].figures[k];
            any = any || f->priority > 0;
            goal = goal || f->goal.kind != SEARCH_NO_GOAL;
        }
    if (w->search && !any)
        return dr_node_fail(
            &w->doc, n, "a search needs an evaluator with a figure that has a priority");
    if (w->stop_when_goals_met && !goal)
        return dr_node_fail(&w->doc, n, "stop_when_goals_met, and no figure has a goal");
    return DR_OK;
}

static void read_engine(workflow *w, const char *output)
{
    const dr_node *cache = wf_engine(&w->doc, "cache_config");
    const dr_node *dir = wf_engine(&w->doc, "cache_dir");
    const dr_node *clean = wf_engine(&w->doc, "clean_cache");
    const dr_node *forget = wf_engine(&w->doc, "clean_evaluation_cache");

    dir = dir != NULL ? dir : dr_node_get(cache, "cache_dir");
    clean = clean != NULL ? clean : dr_node_get(cache, "clean_cache");
    forget = forget != NULL ? forget : dr_node_get(cache, "clean_evaluation_cache");
    w->id = wf_str(dr_node_get(w->doc.top, "workflow_id"));
    w->output_dir = output != NULL ? output : wf_str(wf_engine(&w->doc, "output_dir"));
    w->cache_dir = wf_str(dir);
    w->clean_cache = wf_bool(clean, false);
    w->clean_evaluations = wf_bool(forget, false);
    w->no_artifacts = wf_bool(wf_engine(&w->doc, "no_artifacts"), false);
    w->evaluate_input = wf_bool(wf_engine(&w->doc, "evaluate_input_model"), true);
    w->log_level = (int)wf_num(wf_engine(&w->doc, "log_severity_level"), -1);
}

/* A place that others reach, too: named, and not switched off. */
static dr_status read_shared(workflow *w)
{
    const dr_node *cache = wf_engine(&w->doc, "cache_config");
    const char *url = wf_str(dr_node_get(cache, "shared_cache"));
    const char *account = wf_str(dr_node_get(cache, "account_name"));
    const char *container = wf_str(dr_node_get(cache, "container_name"));
    const dr_node *on = dr_node_get(cache, "enable_shared_cache");
    dr_status st = DR_OK;

    on = on != NULL ? on : wf_engine(&w->doc, "enable_shared_cache");
    w->update_shared = wf_bool(dr_node_get(cache, "update_shared_cache"), true);
    w->shared_cache = url;
    if (account != NULL || container != NULL) {
        if (url != NULL)
            DR_TRY(dr_node_fail(&w->doc, cache,
                                "shared_cache and account_name: two places"));
        st = flow_azure_url(&w->arena, &w->shared_cache, account, container);
        DR_TRYF(st, "%s: cache_config", w->doc.name);
    }
    if (wf_bool(on, false) && w->shared_cache == NULL) {
        st = dr_node_fail(&w->doc, on, "no shared_cache, and no account_name");
        dr_hint("Olive's public container has nothing of drupe's: name one of your own");
    }
    if (!wf_bool(on, true))
        w->shared_cache = NULL;
done:
    return st;
}

/* A file's name in the output folder. */
static dr_status read_package(wf_package *out, const workflow *w, const dr_node *n)
{
    const dr_node *name = wf_get(n, "name");
    const char *text = wf_str(name);

    *out = (wf_package){text != NULL ? text : "OutputModels"};
    if (text != NULL && (*text == '\0' || *text == '.' || strchr(text, '/') != NULL))
        return dr_node_fail(&w->doc, name, "\"%s\" is no name of a file", text);
    return DR_OK;
}

static dr_status read_packages(workflow *w)
{
    const dr_node *n = wf_engine(&w->doc, "packaging_config");
    dr_status st = DR_OK;

    if (n == NULL || json_is_null(n->value))
        return DR_OK;
    const bool list = json_is_array(n->value);
    size_t count = list ? json_array_size(n->value) : 1;
    wf_package *packages = dr_arena_alloc(&w->arena, count + 1, sizeof(*packages));
    for (const dr_node *i = list ? n->first : n; i != NULL; i = list ? i->next : NULL) {
        DR_TRY(read_package(&packages[w->package_count], w, i));
        for (size_t k = 0; k < w->package_count; k++)
            if (strcmp(packages[k].name, packages[w->package_count].name) == 0)
                DR_TRY(dr_node_fail(&w->doc, i, "two packages are called %s",
                                    packages[k].name));
        w->package_count++;
    }
    w->packages = packages;
done:
    return st;
}

dr_status workflow_read(workflow *w, const char *path, const char *text, const char *model,
                        const char *output)
{
    dr_status st = DR_OK;

    *w = (workflow){.owned = json_array()};
    if (text != NULL)
        DR_TRY(dr_doc_parse(&w->doc, text, strlen(text), path));
    else
        DR_TRY(dr_doc_read(&w->doc, path));
    DR_TRY(wf_check(&w->doc));
    DR_TRY(read_model(w, model));
    read_engine(w, output);
    if (w->output_dir == NULL || *w->output_dir == '\0')
        DR_TRY(dr_node_fail(&w->doc, w->doc.top, "no output_dir, and none was named"));
    DR_TRY(read_shared(w));
    DR_TRY(read_target(w));
    DR_TRY(read_search(w));
    DR_TRY(read_packages(w));
    DR_TRY(wf_read_evaluator(w));
    DR_TRY(wf_read_passes(w));
    DR_TRY(check_search(w));
done:
    return st;
}

void workflow_release(workflow *w)
{
    json_decref(w->owned);
    dr_doc_release(&w->auto_doc);
    dr_doc_release(&w->doc);
    dr_arena_release(&w->arena);
    *w = (workflow){0};
}
