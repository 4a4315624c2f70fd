/*
 * workflow_json.c - a run as a workflow file, in Olive's form: input_model, data_configs,
 * passes, output_dir.  Only what the user gave stands in it: defaults are the passes' own.
 */
#include <ctype.h>
#include <string.h>

#include "flow/flow_impl.h"

static void set_string(json_t *j, const char *key, const char *text)
{
    if (text != NULL)
        json_object_set_new(j, key, json_string(text));
}

static void set_count(json_t *j, const char *key, size_t n)
{
    if (n > 0)
        json_object_set_new(j, key, json_integer((json_int_t)n));
}

static json_t *file_list(const char *files)
{
    json_t *list = json_array();

    for (const char *p = files; *p != '\0';) {
        size_t n = strcspn(p, ",");
        json_array_append_new(list, json_stringn(p, n));
        p += n + (p[n] == ',');
    }
    return list;
}

static json_t *data_json(const data_options *d, const char *name)
{
    json_t *load = json_object(), *pre = json_object();

    set_string(load, "data_name", d->data_name);
    if (d->data_files != NULL)
        json_object_set_new(load, "data_files", file_list(d->data_files));
    json_object_set_new(load, "split", json_string(d->split ? d->split : "train"));
    set_string(pre, "text_cols", d->text_field);
    set_string(pre, "text_template", d->text_template);
    if (d->use_chat_template)
        json_object_set_new(pre, "chat_template", json_true());
    if (d->answers_only)
        json_object_set_new(pre, "completion_only_loss", json_true());
    set_string(pre, "strategy", data_strategy_name(d->strategy));
    set_count(pre, "stride", d->stride);
    set_count(pre, "random_seed", (size_t)d->random_seed);
    if (d->self_written)
        json_object_set_new(pre, "self_written",
                            json_pack("{s:f}", "temperature", d->temperature));
    json_object_set_new(pre, "add_special_tokens", json_boolean(d->add_special_tokens));
    set_count(pre, "max_seq_len", d->max_seq_len);
    set_count(pre, "max_samples", d->max_samples);
    return json_pack("{s:s, s:s, s:o, s:o}", "name", name, "type", "HuggingfaceContainer",
                     "load_dataset_config", load, "pre_process_data_config", pre);
}

static dr_status pass_json(json_t **out, const flow_planned *s)
{
    const pass_def *d = s->def;
    json_t *j = json_pack("{s:s}", "type", d->name), *one = NULL;
    dr_status st = DR_OK;

    for (size_t i = 0; i < d->params_count; i++) {
        if (!s->given[i])
            continue;
        DR_TRY(dr_params_json(&one, &d->params[i], 1, s->config));
        json_object_set(j, d->params[i].name, json_object_get(one, d->params[i].name));
        json_decref(one);
        one = NULL;
    }
    *out = j;
    j = NULL;
done:
    json_decref(j);
    return st;
}

/* "gptq", or "gptq_2" for the second step of that pass. */
static const char *step_name(dr_arena *a, const json_t *passes, const char *pass)
{
    char *name = dr_arena_strdup(a, pass);
    const char *free_name = name;

    for (char *p = name; *p != '\0'; p++)
        *p = (char)tolower((unsigned char)*p);
    for (int i = 2; json_object_get(passes, free_name) != NULL; i++)
        free_name = dr_arena_printf(a, "%s_%d", name, i);
    return free_name;
}

dr_status flow_workflow_json(json_t **out, const flow_spec *spec, const flow_planned *steps,
                             bool reads_data)
{
    const data_options *d = &spec->data; /* without a name: the built-in text */
    bool has_data =
        reads_data && (d->data_name != NULL || d->max_seq_len > 0 || d->max_samples > 0 ||
                       d->strategy != DATA_JOIN || d->random_seed > 0 || d->self_written);
    json_t *j = json_object(), *passes = json_object(), *pass = NULL;
    json_t *model = json_pack("{s:s, s:s}", "type", pass_kind_type(steps[0].def->takes),
                              "model_path", spec->model);
    dr_arena a = {0};
    dr_status st = DR_OK;

    set_string(model, "adapter_path", spec->adapters);
    json_object_set_new(j, "input_model", model);
    if (has_data)
        json_object_set_new(j, "data_configs",
                            json_pack("[o]", data_json(&spec->data, "data")));
    if (spec->eval != NULL)
        json_array_append_new(json_object_get(j, "data_configs"),
                              data_json(spec->eval, "eval_data"));
    json_object_set_new(j, "passes", passes);
    for (size_t i = 0; i < spec->step_count; i++) {
        DR_TRY(pass_json(&pass, &steps[i]));
        bool trains = steps[i].def->trains;
        if (has_data && steps[i].def->needs_data)
            set_string(pass, trains ? "train_data_config" : "data_config", "data");
        if (spec->eval != NULL && trains)
            set_string(pass, "eval_data_config", "eval_data");
        if (trains)
            set_string(pass, "resume_from_checkpoint", spec->resume);
        json_object_set_new(passes, step_name(&a, passes, steps[i].def->name), pass);
    }
    set_string(j, "output_dir", spec->output);
    *out = j;
    j = NULL;
done:
    json_decref(j);
    dr_arena_release(&a);
    return st;
}
