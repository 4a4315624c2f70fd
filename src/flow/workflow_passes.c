/*
 * workflow_passes.c - the passes of a workflow file: parameters with one value, and those
 * with several, which a search chooses from.
 *
 * Every value of every alternative is tried against the pass's own table here, so that no
 * candidate of a long search is the first to learn that a value is out of range.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/json.h"
#include "core/log.h"
#include "flow/workflow_impl.h"

enum { NAMES_MAX = 96, POINTS_TRIED = 1024 };

/* Keys of a pass entry that are no parameters. */
static bool is_entry_key(const char *key)
{
    return strcmp(key, "type") == 0 || strcmp(key, "host") == 0;
}

static bool is_data_key(const char *key)
{
    return strcmp(key, "data_config") == 0 || strcmp(key, "train_data_config") == 0 ||
           strcmp(key, "calibration_data_config") == 0 ||
           strcmp(key, "eval_data_config") == 0;
}

/* The trail's message, behind the place of what it is about. */
static dr_status at_place(const workflow *w, const dr_node *n, dr_status st)
{
    const dr_trail *t = dr_trail_get();
    char text[DR_TRAIL_TEXT], hint[DR_TRAIL_TEXT];

    (void)snprintf(text, sizeof(text), "%s", t->frames[0].text);
    (void)snprintf(hint, sizeof(hint), "%s", t->hint);
    st = dr_fail(st, "%s:%d:%d: %s", w->doc.name, n->line, n->column, text);
    if (hint[0] != '\0')
        dr_hint("%s", hint);
    return st;
}

/* One value against its row. */
static dr_status try_value(workflow *w, const pass_def *d, const dr_param *row,
                           const dr_node *n, const json_t *value)
{
    void *config = dr_arena_alloc(&w->arena, 1, d->config_size);
    dr_status st =
        dr_param_set_json(row, config, value, dr_node_path(&w->arena, n), &w->arena);

    return st == DR_OK ? st : at_place(w, n, st);
}

static dr_status unknown_parameter(const workflow *w, const pass_def *d, const dr_node *n)
{
    const char *names[NAMES_MAX];
    size_t count = 0;

    for (size_t i = 0; i < d->params_count && count < NAMES_MAX; i++)
        if (d->params[i].type != DR_PARAM_REFUSED)
            names[count++] = d->params[i].name;
    dr_arena a = {0};
    dr_status st = wf_unknown(&w->doc, n, dr_arena_printf(&a, "parameter of %s", d->name),
                              n->key, names, count);
    dr_arena_release(&a);
    return st;
}

static dr_status add_choice(workflow *w, wf_alternative *alt, wf_choice *choices,
                            const dr_node *n, const json_t *values)
{
    const dr_param *row = dr_param_find(alt->def->params, alt->def->params_count, n->key);
    json_t *value;
    size_t i, k;
    dr_status st = DR_OK;

    if (json_array_size(values) == 0)
        DR_TRY(dr_node_fail(&w->doc, n, "an empty list of values"));
    json_array_foreach((json_t *)(uintptr_t)values, i, value)
    {
        DR_TRY(try_value(w, alt->def, row, n, value));
        for (k = 0; k < i; k++)
            if (json_equal(json_array_get(values, k), value))
                DR_TRY(dr_node_fail(&w->doc, n, "a value is here twice"));
    }
    choices[alt->choice_count++] = (wf_choice){row->name, values, n};
done:
    return st;
}

/* A list that is the value itself: of a parameter that takes lists, unless its items are
 * lists or objects, too. */
static bool is_one_value(const dr_param *row, const json_t *v)
{
    const json_t *first = json_array_get(v, 0);

    if (row->json)
        return row->listed && !json_is_array(json_array_get(first, 0)) &&
               (json_is_object(first) || json_is_array(first));
    return (row->listed || row->words) && !json_is_array(first) && !json_is_object(first);
}

/* The search default of a row; w keeps it. */
static const json_t *searchable(workflow *w, const dr_param *row)
{
    json_t *list = NULL;

    if (row->type == DR_PARAM_BOOL && row->search == NULL)
        list = json_pack("[b, b]", 0, 1);
    else if (row->search != NULL)
        list = json_loads(row->search, 0, NULL);
    if (list != NULL)
        json_array_append_new(w->owned, list);
    return list;
}

static dr_status read_parameter(workflow *w, wf_alternative *alt, wf_choice *choices,
                                const dr_node *n)
{
    const pass_def *d = alt->def;
    const dr_param *row = dr_param_find(d->params, d->params_count, n->key);
    const char *word = json_string_value(n->value);
    const json_t *values = n->value;
    dr_status st = DR_OK;

    if (row == NULL)
        return unknown_parameter(w, d, n);
    if (word != NULL && strcmp(word, "DEFAULT_VALUE") == 0)
        return DR_OK;
    if (word != NULL && strcmp(word, "SEARCHABLE_VALUES") == 0) {
        values = searchable(w, row);
        if (values == NULL)
            return dr_node_fail(&w->doc, n, "%s of %s has no values of its own to search",
                                row->name, d->name);
    }
    if (json_is_array(values) && !is_one_value(row, values) &&
        row->type != DR_PARAM_REFUSED) {
        if (json_array_size(values) != 1) {
            DR_TRY(add_choice(w, alt, choices, n, values));
            goto done;
        }
        values = json_array_get(values, 0);
    }
    DR_TRY(try_value(w, d, row, n, values));
    json_object_set(alt->fixed, row->name, (json_t *)(uintptr_t)values);
done:
    return st;
}

/* true: the last checkpoint of this step's entry in the cache; or a checkpoint's folder. */
static dr_status read_resume(workflow *w, wf_alternative *alt, const dr_node *n)
{
    const char *text = wf_str(n);

    if (json_is_null(n->value) || json_is_false(n->value) ||
        (text != NULL && strcasecmp(text, "false") == 0))
        return DR_OK;
    if (text == NULL && !json_is_true(n->value))
        return dr_node_fail(&w->doc, n, "expected true, or a checkpoint's folder");
    alt->resume = text != NULL ? text : "true";
    return DR_OK;
}

/* Of an entry, its "config" and LoRA's "training_args". */
static dr_status read_members(workflow *w, wf_alternative *alt, wf_choice *choices,
                              const dr_node *entry)
{
    dr_status st = DR_OK;

    for (const dr_node *n = entry->first; n != NULL; n = n->next) {
        bool inner = strcmp(n->key, "config") == 0 ||
                     (strcmp(n->key, "training_args") == 0 && alt->def->params_count > 0 &&
                      dr_param_find(alt->def->params, alt->def->params_count,
                                    "learning_rate") != NULL);
        if (is_entry_key(n->key))
            continue;
        if (is_data_key(n->key)) {
            if (!alt->def->needs_data)
                DR_TRY(dr_node_fail(&w->doc, n, "%s reads no data", alt->def->name));
            if (json_is_null(n->value))
                continue;
            if (!json_is_string(n->value) && !json_is_object(n->value))
                DR_TRY(dr_node_fail(&w->doc, n, "expected a data set or its name"));
            bool eval = strcmp(n->key, "eval_data_config") == 0;
            if (eval && !alt->def->trains)
                DR_TRY(dr_node_fail(&w->doc, n, "%s evaluates nothing", alt->def->name));
            DR_TRY(wf_data(eval ? &alt->eval : &alt->data, w, n));
            if (!alt->def->trains && alt->data.answers_only)
                DR_TRY(dr_node_fail(&w->doc, n, "completion_only_loss is of trainings"));
            if (!alt->def->trains && alt->data.strategy == DATA_PACKING)
                DR_TRY(dr_node_fail(&w->doc, n, "strategy packing is of trainings"));
            alt->has_data = alt->has_data || !eval;
            alt->has_eval = alt->has_eval || eval;
        } else if (alt->def->trains && strcmp(n->key, "resume_from_checkpoint") == 0) {
            DR_TRY(read_resume(w, alt, n));
        } else if (inner && json_is_object(n->value)) {
            DR_TRY(read_members(w, alt, choices, n));
        } else if (inner) {
            DR_TRY(dr_node_fail(&w->doc, n, "expected an object of parameters"));
        } else {
            DR_TRY(read_parameter(w, alt, choices, n));
        }
    }
done:
    return st;
}

/* What an export is made for, where the pass does not say it itself. */
static dr_status apply_target(workflow *w, wf_alternative *alt, const dr_node *entry)
{
    const pass_def *d = alt->def;
    const char *const keys[] = {"provider", "device"};
    const char *const values[] = {w->provider, w->device};
    dr_status st = DR_OK;

    for (size_t i = 0; i < DR_COUNT(keys); i++) {
        const dr_param *row = dr_param_find(d->params, d->params_count, keys[i]);
        if (row == NULL || row->type == DR_PARAM_REFUSED || values[i] == NULL ||
            wf_get(entry, keys[i]) != NULL)
            continue;
        json_t *v = json_string(values[i]);
        st = try_value(w, d, row, entry, v);
        json_object_set_new(alt->fixed, row->name, v);
        DR_TRY(st);
    }
done:
    return st;
}

static size_t members_of(const dr_node *n)
{
    size_t count = 0;

    for (const dr_node *i = n->first; i != NULL; i = i->next)
        count += 1 + members_of(i);
    return count;
}

dr_status wf_config(void **cfg, unsigned char **given, dr_arena *a, const pass_def *d,
                    const json_t *config)
{
    *cfg = dr_arena_alloc(a, 1, d->config_size);
    *given = dr_arena_alloc(a, d->params_count, 1);
    dr_params_defaults(d->params, d->params_count, *cfg);
    return dr_params_from_json(d->params, d->params_count, *cfg, config, d->name, *given,
                               a);
}

/* The pass's own rules, for one choice of each list. */
static dr_status validate(workflow *w, const wf_alternative *alt, const size_t *chosen)
{
    const pass_def *d = alt->def;
    json_t *config = json_copy(alt->fixed);
    void *cfg = NULL;
    unsigned char *given = NULL;
    dr_arena a = {0};
    dr_status st = DR_OK;

    for (size_t i = 0; i < alt->choice_count; i++)
        json_object_set(config, alt->choices[i].name,
                        json_array_get(alt->choices[i].values, chosen[i]));
    st = wf_config(&cfg, &given, &a, d, config);
    if (st == DR_OK && d->validate != NULL)
        st = d->validate(cfg, given);
    if (st != DR_OK)
        st = at_place(w, alt->node, st);
    json_decref(config);
    dr_arena_release(&a);
    return st;
}

/* Some point of an alternative is sound; the first one's error, if none of the first few
 * is.  A point that is not fails as a candidate. */
static dr_status validate_some(workflow *w, const wf_alternative *alt)
{
    size_t *chosen = dr_arena_alloc(&w->arena, alt->choice_count + 1, sizeof(*chosen));
    dr_trail *first = dr_arena_alloc(&w->arena, 1, sizeof(*first));
    dr_status st = DR_OK, failed = DR_OK;

    for (int i = 0; i < POINTS_TRIED; i++) {
        st = validate(w, alt, chosen);
        if (st == DR_OK)
            break;
        if (failed == DR_OK) {
            failed = st;
            *first = *dr_trail_get();
        }
        size_t d = alt->choice_count;
        while (d > 0 && ++chosen[d - 1] == json_array_size(alt->choices[d - 1].values))
            chosen[--d] = 0;
        if (d == 0)
            break;
    }
    if (st != DR_OK)
        dr_trail_set(first);
    else
        dr_trail_clear();
    return st;
}

static dr_status read_alternative(workflow *w, wf_alternative *alt, const dr_node *entry)
{
    const char *name = wf_str(dr_node_get(entry, "type"));
    const char *names[NAMES_MAX], *instead = NULL;
    size_t count = 0;
    const pass_def *const *list = pass_list(&count);
    dr_status st = DR_OK;

    alt->def = pass_find(name);
    for (size_t i = 0; i < count && i < NAMES_MAX; i++)
        names[i] = list[i]->name;
    const char *why = alt->def == NULL ? pass_refused(name, &instead) : NULL;
    if (why != NULL) {
        st = dr_node_fail(&w->doc, dr_node_get(entry, "type"), "%s is not supported: %s",
                          name, why);
        dr_hint("%s", instead);
        goto done;
    }
    if (alt->def == NULL)
        return wf_unknown(&w->doc, dr_node_get(entry, "type"), "pass", name, names, count);
    alt->node = entry;
    alt->fixed = json_object();
    json_array_append_new(w->owned, alt->fixed);
    wf_choice *choices = dr_arena_alloc(&w->arena, members_of(entry) + 1, sizeof(*choices));
    alt->choices = choices;
    DR_TRY(read_members(w, alt, choices, entry));
    DR_TRY(apply_target(w, alt, entry));
    if (!w->pass_params)
        alt->choice_count = 0;
    if (alt->choice_count > 0 && !w->search)
        DR_TRY(dr_node_fail(&w->doc, choices[0].node,
                            "a list of values needs a search_strategy"));
    DR_TRY(validate_some(w, alt));
done:
    return st;
}

/* One entry of "passes". */
static dr_status read_pass(workflow *w, wf_pass *p, const dr_node *n)
{
    bool list = json_is_array(n->value);
    size_t count = list ? json_array_size(n->value) : 1;
    wf_alternative *alts = dr_arena_alloc(&w->arena, count, sizeof(*alts));
    const dr_node *entry = list ? n->first : n;
    dr_status st = DR_OK;

    if (count > 1 && !w->search)
        DR_TRY(dr_node_fail(&w->doc, n, "alternatives need a search_strategy"));
    *p = (wf_pass){n->key, alts, count};
    for (size_t i = 0; i < count; i++) {
        DR_TRY(read_alternative(w, &alts[i], entry));
        entry = entry->next;
    }
done:
    return st;
}

/* Every alternative of a step takes what every one before it gives. */
static dr_status check_step(const workflow *w, const wf_flow *f, size_t i, pass_kind *kind)
{
    const wf_pass *p = f->passes[i];
    const pass_def *first = p->alternatives[0].def;
    const pass_def *before = i > 0 ? f->passes[i - 1]->alternatives[0].def : NULL;
    dr_status st = DR_OK;

    if (before != NULL && !pass_takes(first, *kind))
        DR_TRY(dr_node_fail(&w->doc, p->alternatives[0].node,
                            "%s takes %s, and %s before it gives %s", first->name,
                            flow_kind_text(first->takes), before->name,
                            flow_kind_text(*kind)));
    for (size_t k = 0; k < p->count; k++) {
        const wf_alternative *alt = &p->alternatives[k];
        if (!pass_takes(alt->def, *kind) ||
            pass_gives(alt->def, *kind) != pass_gives(first, *kind))
            DR_TRY(dr_node_fail(
                &w->doc, alt->node, "%s cannot stand for %s: it takes %s and gives %s",
                alt->def->name, first->name, flow_kind_text(alt->def->takes),
                flow_kind_text(alt->def->gives)));
    }
    if (first->chooses && (i + 1 == f->count || w->pass_by_pass))
        DR_TRY(dr_node_fail(&w->doc, p->alternatives[0].node,
                            "%s writes nothing: a quantizer comes after it, in one search",
                            first->name));
    *kind = pass_gives(first, *kind);
done:
    return st;
}

static dr_status check_flows(const workflow *w)
{
    const wf_alternative *one = &w->flows[0].passes[0]->alternatives[0];
    dr_status st = DR_OK;

    for (size_t i = 0; i < w->flow_count; i++) {
        const wf_alternative *other = &w->flows[i].passes[0]->alternatives[0];
        pass_kind kind = PASS_MODEL_HF;
        DR_TRY(flow_input_kind(&kind, other->def, w->model.path));
        for (size_t k = 0; k < w->flows[i].count; k++)
            DR_TRY(check_step(w, &w->flows[i], k, &kind));
        if (other->def->takes != one->def->takes)
            DR_TRY(dr_node_fail(&w->doc, other->node,
                                "%s takes %s, and %s, which begins another flow, takes %s",
                                other->def->name, flow_kind_text(other->def->takes),
                                one->def->name, flow_kind_text(one->def->takes)));
    }
done:
    return st;
}

static const wf_pass *pass_named(const wf_pass *passes, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(passes[i].name, name) == 0)
            return &passes[i];
    return NULL;
}

static dr_status read_flow(const wf_pass **list, const workflow *w, const wf_pass *passes,
                           size_t count, const dr_node *n)
{
    const char *names[NAMES_MAX];
    size_t have = 0;
    dr_status st = DR_OK;

    for (const dr_node *i = n->first; i != NULL; i = i->next) {
        const wf_pass *p = pass_named(passes, count, wf_str(i));
        for (size_t k = 0; k < count && k < NAMES_MAX; k++)
            names[k] = passes[k].name;
        if (p == NULL)
            DR_TRY(wf_unknown(&w->doc, i, "pass of this file", wf_str(i), names,
                              count < NAMES_MAX ? count : NAMES_MAX));
        for (size_t k = 0; k < have; k++)
            if (list[k] == p)
                DR_TRY(dr_node_fail(&w->doc, i, "%s is in this flow twice", p->name));
        list[have++] = p;
    }
done:
    return st;
}

/* Ways through the passes; n NULL: one, through all in order. */
static dr_status read_flows(workflow *w, const wf_pass *passes, size_t count,
                            const dr_node *n)
{
    size_t flows = n != NULL ? json_array_size(n->value) : 1;
    wf_flow *list = dr_arena_alloc(&w->arena, flows, sizeof(*list));
    const dr_node *at = n != NULL ? n->first : NULL;
    dr_status st = DR_OK;

    if (flows > 1 && (!w->search || w->pass_by_pass))
        DR_TRY(dr_node_fail(&w->doc, n, "several flows need a search_strategy%s",
                            w->search ? " with execution_order joint" : ""));
    w->flows = list;
    w->flow_count = flows;
    for (size_t i = 0; i < flows; i++) {
        size_t steps = at != NULL ? json_array_size(at->value) : count;
        const wf_pass **own = dr_arena_alloc(&w->arena, steps + 1, sizeof(*own));
        for (size_t k = 0; k < steps && at == NULL; k++)
            own[k] = &passes[k];
        if (at != NULL)
            DR_TRY(read_flow(own, w, passes, count, at));
        list[i] = (wf_flow){own, steps};
        at = at != NULL ? at->next : NULL;
    }
    DR_TRY(check_flows(w));
done:
    return st;
}

bool wf_in_flows(const workflow *w, size_t n, const wf_pass *p)
{
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < w->flows[i].count; k++)
            if (w->flows[i].passes[k] == p)
                return true;
    return false;
}

static dr_status read_all(workflow *w, const dr_node *all, const dr_node *flows)
{
    size_t count = json_object_size(all->value), i = 0;
    wf_pass *passes = dr_arena_alloc(&w->arena, count + 1, sizeof(*passes));
    dr_status st = DR_OK;

    if (count == 0)
        DR_TRY(dr_node_fail(&w->doc, all, "a workflow has one pass at least"));
    for (const dr_node *n = all->first; n != NULL; n = n->next, i++)
        DR_TRY(read_pass(w, &passes[i], n));
    DR_TRY(read_flows(w, passes, count, flows));
    for (i = 0; i < count; i++)
        if (!wf_in_flows(w, w->flow_count, &passes[i]))
            dr_log(DR_WARNING, "%s: the pass %s is in no flow and does not run",
                   w->doc.name, passes[i].name);
done:
    return st;
}

/* Passes that the file stands for: read as a file of their own. */
static dr_status read_auto(workflow *w, const dr_node *n)
{
    const dr_doc file = w->doc;
    const char *name = dr_arena_printf(&w->arena, "%s (auto_optimizer_config)", file.name);
    json_t *made = NULL;
    char *text = NULL;
    dr_status st = DR_OK;

    DR_TRY(wf_auto_passes(&made, w, n));
    text = json_dumps(made, JSON_INDENT(2));
    DR_TRY(dr_doc_parse(&w->auto_doc, text, strlen(text), name));
    w->doc = w->auto_doc; /* for messages */
    st = read_all(w, dr_node_get(w->auto_doc.top, "passes"),
                  dr_node_get(w->auto_doc.top, "pass_flows"));
    w->doc = file;
done:
    free(text);
    return st;
}

dr_status wf_read_passes(workflow *w)
{
    const dr_node *all = dr_node_get(w->doc.top, "passes");
    const dr_node *flows = dr_node_get(w->doc.top, "pass_flows");
    const dr_node *chosen = dr_node_get(w->doc.top, "auto_optimizer_config");

    if (all != NULL && chosen != NULL)
        return dr_node_fail(&w->doc, chosen,
                            "passes are named; auto_optimizer_config is for files without");
    if (all == NULL && flows != NULL)
        return dr_node_fail(&w->doc, flows, "flows of passes, and there are no passes");
    if (all == NULL && chosen == NULL)
        return dr_node_fail(&w->doc, w->doc.top,
                            "workflow needs \"passes\" or \"auto_optimizer_config\"");
    return chosen != NULL ? read_auto(w, chosen) : read_all(w, all, flows);
}
