/*
 * workflow_data.c - data sets of a workflow file, as the engine's data options.
 */
#include <string.h>

#include "flow/workflow_impl.h"

static dr_status no_data(const workflow *w, const dr_node *n)
{
    const dr_node *all = dr_node_get(w->doc.top, "data_configs");
    const char *names[64];
    size_t count = 0;

    for (const dr_node *i = all ? all->first : NULL; i != NULL && count < 64; i = i->next) {
        const char *name = i->key != NULL ? i->key : wf_str(dr_node_get(i, "name"));
        if (name != NULL)
            names[count++] = name;
    }
    return wf_unknown(&w->doc, n, "data set of data_configs", wf_str(n), names, count);
}

const dr_node *wf_named(const dr_node *all, const char *name)
{
    for (const dr_node *i = all != NULL ? all->first : NULL; i != NULL; i = i->next) {
        const char *own = i->key != NULL ? i->key : wf_str(dr_node_get(i, "name"));
        if (own != NULL && strcmp(own, name) == 0)
            return i;
    }
    return NULL;
}

static dr_status cols(data_options *out, workflow *w, const dr_node *n)
{
    const char *text = wf_strs(&w->arena, n);

    if (text != NULL && strchr(text, ',') != NULL)
        return dr_node_fail(&w->doc, n,
                            "several columns; say how they are joined with text_template");
    out->text_field = text;
    return DR_OK;
}

dr_status wf_data(data_options *out, workflow *w, const dr_node *n)
{
    const dr_node *found = n;
    dr_status st = DR_OK;

    *out = (data_options){0};
    if (n == NULL)
        return DR_OK;
    if (json_is_string(n->value))
        found = wf_named(dr_node_get(w->doc.top, "data_configs"), wf_str(n));
    if (found == NULL)
        return no_data(w, n);
    const dr_node *load = dr_node_get(found, "load_dataset_config");
    const dr_node *pre = dr_node_get(found, "pre_process_data_config");
    out->data_name = wf_str(dr_node_get(load, "data_name"));
    out->data_files = wf_strs(&w->arena, dr_node_get(load, "data_files"));
    const char *split = wf_str(dr_node_get(load, "split"));
    out->split = split != NULL && strcmp(split, "train") != 0 ? split : NULL;
    out->answers_only = wf_bool(dr_node_get(pre, "completion_only_loss"), false);
    DR_TRY(cols(out, w, dr_node_get(pre, "text_cols")));
    out->text_template = wf_str(dr_node_get(pre, "text_template"));
    out->use_chat_template = wf_bool(dr_node_get(pre, "chat_template"), false);
    out->add_special_tokens = wf_bool(dr_node_get(pre, "add_special_tokens"), false);
    out->max_seq_len = (size_t)wf_num(dr_node_get(pre, "max_seq_len"), 0);
    out->max_samples = (size_t)wf_num(dr_node_get(pre, "max_samples"), 0);
    out->stride = (size_t)wf_num(dr_node_get(pre, "stride"), 0);
    out->random_seed = (uint64_t)wf_num(dr_node_get(pre, "random_seed"), 0);
    const dr_node *self = dr_node_get(pre, "self_written");
    out->self_written = self != NULL;
    out->temperature = wf_num(dr_node_get(self, "temperature"), 0);
    DR_TRY(data_strategy_named(&out->strategy, wf_str(dr_node_get(pre, "strategy"))));
    dr_arena a = {0};
    st = data_check(out);
    if (st != DR_OK)
        dr_note_at(__FILE__, __LINE__, "%s", dr_node_place(&a, &w->doc, found));
    dr_arena_release(&a);
done:
    return st;
}
