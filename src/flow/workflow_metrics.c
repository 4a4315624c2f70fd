/*
 * workflow_metrics.c - the evaluator of a workflow file: metrics, their figures, goals.
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "flow/workflow_impl.h"

enum { WARMUP = 10, REPEATS = 20, PROMPT_TOKENS = 64, NEW_TOKENS = 16 };

/* What a figure of accuracy is judged on. */
typedef enum { ON_TEXT, ON_CHOICES, ON_TARGETS } ground;
static const char *const grounds[] = {"a text", "questions with choices",
                                      "questions with a target"};

/* A figure that a kind of metric has. */
typedef struct {
    const char *name;
    bool higher_is_better;
} known;

/* By ground, in order. */
static const known accuracies[] = {
    {"perplexity", false},    {"kl", false},      {"top_1_agreement", true},
    {"accuracy_score", true}, {"acc_norm", true}, {"f1_score", true},
    {"precision", true},      {"recall", true},   {"auroc", true},
    {"exact_match", true},    {"wer", false}};
enum { FIRST_ON_CHOICES = 3, FIRST_ON_TARGETS = 9 };
static const known latencies[] = {{"avg", false}, {"min", false}, {"max", false},
                                  {"p50", false}, {"p75", false}, {"p90", false},
                                  {"p95", false}, {"p99", false}, {"p999", false}};
static const known throughputs[] = {{"avg", true},     {"min", true},   {"max", true},
                                    {"p50", true},     {"p75", true},   {"p90", true},
                                    {"p95", true},     {"p99", true},   {"p999", true},
                                    {"prefill", true}, {"decode", true}};
static const known sizes[] = {{"bytes", false}};

/* By wf_metric_kind; of custom ones the file says it. */
static const struct {
    const char *word;
    const known *figures;
    size_t count;
} kinds[] = {{"accuracy", accuracies, DR_COUNT(accuracies)},
             {"latency", latencies, DR_COUNT(latencies)},
             {"throughput", throughputs, DR_COUNT(throughputs)},
             {"size_on_disk", sizes, DR_COUNT(sizes)},
             {"peak_memory", sizes, DR_COUNT(sizes)},
             {"custom", NULL, 0}};

static const char *const goal_words[] = {
    "",
    "threshold",
    "min-improvement",
    "percent-min-improvement",
    "max-degradation",
    "percent-max-degradation",
};

static void read_goal(search_goal *g, const dr_node *n)
{
    const char *type = wf_str(dr_node_get(n, "type"));

    for (size_t i = 1; type != NULL && i < DR_COUNT(goal_words); i++)
        if (strcasecmp(type, goal_words[i]) == 0)
            g->kind = (search_goal_kind)i;
    g->value = wf_num(dr_node_get(n, "value"), 0);
}

static dr_status direction(const workflow *w, wf_figure *f, const wf_metric *m,
                           const dr_node *n)
{
    const dr_node *says = dr_node_get(n, "higher_is_better");
    const char *names[16];
    size_t count = kinds[m->kind].count;

    for (size_t i = 0; i < count; i++) {
        names[i] = kinds[m->kind].figures[i].name;
        if (strcmp(names[i], f->name) != 0)
            continue;
        f->higher_is_better = kinds[m->kind].figures[i].higher_is_better;
        if (says != NULL && wf_bool(says, false) != f->higher_is_better)
            return dr_node_fail(&w->doc, says, "%s is better when it is %s", f->name,
                                f->higher_is_better ? "higher" : "lower");
        return DR_OK;
    }
    if (m->kind == WF_CUSTOM) {
        f->higher_is_better = wf_bool(says, true);
        return DR_OK;
    }
    dr_arena a = {0};
    dr_status st = wf_unknown(&w->doc, dr_node_get(n, "name"),
                              dr_arena_printf(&a, "figure of %s", kinds[m->kind].word),
                              f->name, names, count);
    dr_arena_release(&a);
    return st;
}

/* Of one figure that is known. */
static ground ground_of(const char *name)
{
    for (size_t i = 0; i < DR_COUNT(accuracies); i++)
        if (strcmp(accuracies[i].name, name) == 0)
            return i < FIRST_ON_CHOICES   ? ON_TEXT
                   : i < FIRST_ON_TARGETS ? ON_CHOICES
                                          : ON_TARGETS;
    return ON_TEXT;
}

/* A metric's figures are of one kind, and that is what it names. */
static dr_status check_ground(const workflow *w, const wf_metric *m, const dr_node *n)
{
    const ground first = ground_of(m->figures[0].name);
    dr_status st = DR_OK;

    if (m->kind != WF_ACCURACY)
        return DR_OK;
    for (size_t i = 1; i < m->figure_count; i++) {
        const ground g = ground_of(m->figures[i].name);
        if (g != first)
            DR_TRY(dr_node_fail(
                &w->doc, m->figures[i].node, "%s is of %s, and %s of %s: make two metrics",
                m->figures[0].name, grounds[first], m->figures[i].name, grounds[g]));
    }
    if ((first != ON_TEXT) != (m->task != NULL))
        DR_TRY(dr_node_fail(&w->doc, n, "%s is of %s: %s", m->figures[0].name,
                            grounds[first],
                            first == ON_TEXT ? "it takes no user_config.task"
                                             : "it needs user_config.task"));
    if (m->max_new_tokens > 0 && first != ON_TARGETS)
        DR_TRY(dr_node_fail(&w->doc, n, "max_new_tokens is of questions with a target"));
    if (m->average != NULL && first != ON_CHOICES)
        DR_TRY(dr_node_fail(&w->doc, n, "an average is of questions with choices"));
done:
    return st;
}

/* warmup_num and so on, of a metric or of its first figure, as older files have it. */
static void read_timing(wf_metric *m, const dr_node *n)
{
    const dr_node *subs = dr_node_get(n, "sub_types");
    const dr_node *c = dr_node_get(n, "metric_config");

    for (const dr_node *i = subs != NULL ? subs->first : NULL; c == NULL && i != NULL;
         i = i->next)
        c = dr_node_get(i, "metric_config");
    m->warmup = (int)wf_num(dr_node_get(c, "warmup_num"), WARMUP);
    m->repeats = (int)wf_num(dr_node_get(c, "repeat_test_num"), REPEATS);
    m->sleep_s = wf_num(dr_node_get(c, "sleep_num"), 0);
    m->average = wf_str(dr_node_get(c, "average"));
    const char *task = wf_str(dr_node_get(c, "task"));
    if (m->average == NULL && task != NULL)
        m->average = strcasecmp(task, "binary") == 0 ? "binary" : "macro";
}

static dr_status read_user(workflow *w, wf_metric *m, const dr_node *n)
{
    const dr_node *u = dr_node_get(n, "user_config");
    const dr_node *command = dr_node_get(u, "command"), *task = dr_node_get(u, "task");
    const dr_node *parallel = dr_node_get(u, "parallel");
    dr_status st = DR_OK;

    if ((m->kind == WF_CUSTOM) != (command != NULL))
        DR_TRY(dr_node_fail(&w->doc, n,
                            m->kind == WF_CUSTOM
                                ? "a custom metric needs user_config with a command"
                                : "user_config.command belongs to a custom metric"));
    if (task != NULL && m->kind != WF_ACCURACY)
        DR_TRY(dr_node_fail(&w->doc, task, "it belongs to an accuracy metric"));
    if (parallel != NULL && m->kind != WF_CUSTOM)
        DR_TRY(dr_node_fail(&w->doc, parallel, "it belongs to a custom metric"));
    m->parallel = wf_bool(parallel, false);
    m->task = wf_str(task);
    m->max_new_tokens = (int)wf_num(dr_node_get(u, "max_new_tokens"), 0);
    m->prompt_tokens = (int)wf_num(dr_node_get(u, "prompt_tokens"), PROMPT_TOKENS);
    m->new_tokens = (int)wf_num(dr_node_get(u, "new_tokens"), NEW_TOKENS);
    if (command == NULL)
        goto done;
    size_t count = json_is_array(command->value) ? json_array_size(command->value) : 1;
    if (count == 0)
        DR_TRY(dr_node_fail(&w->doc, command, "an empty command"));
    m->command = dr_arena_alloc(&w->arena, count + 1, sizeof(char *));
    if (json_is_string(command->value)) {
        m->command[0] = wf_str(command);
    } else {
        size_t k = 0;
        for (const dr_node *i = command->first; i != NULL; i = i->next)
            m->command[k++] = wf_str(i);
    }
done:
    return st;
}

static dr_status read_figures(workflow *w, wf_metric *m, const dr_node *n)
{
    const dr_node *subs = dr_node_get(n, "sub_types");
    size_t count = subs != NULL ? json_array_size(subs->value) : 0, k = 0;
    wf_figure *list = dr_arena_alloc(&w->arena, count + 1, sizeof(*list));
    dr_status st = DR_OK;

    if (count == 0 && kinds[m->kind].count != 1)
        DR_TRY(dr_node_fail(&w->doc, n, "no sub_types: which figures?"));
    for (const dr_node *i = subs ? subs->first : NULL; i != NULL; i = i->next) {
        wf_figure *f = &list[k];
        *f = (wf_figure){.name = wf_str(dr_node_get(i, "name")), .node = i};
        f->key = dr_arena_printf(&w->arena, "%s-%s", m->name, f->name);
        f->priority = (int)wf_num(dr_node_get(i, "priority"), -1);
        if (f->priority == 0)
            DR_TRY(dr_node_fail(&w->doc, dr_node_get(i, "priority"), "1 is the first"));
        DR_TRY(direction(w, f, m, i));
        for (size_t j = 0; j < k; j++)
            if (strcmp(list[j].name, f->name) == 0)
                DR_TRY(dr_node_fail(&w->doc, i, "%s is here twice", f->name));
        read_goal(&f->goal, dr_node_get(i, "goal"));
        k++;
    }
    if (count == 0) {
        list[k] =
            (wf_figure){.name = kinds[m->kind].figures[0].name, .priority = -1, .node = n};
        list[k].key = dr_arena_printf(&w->arena, "%s-%s", m->name, list[k].name);
        k++;
    }
    m->figures = list;
    m->figure_count = k;
    DR_TRY(check_ground(w, m, n));
done:
    return st;
}

/* What a metric measures, without names, priorities and goals. */
static dr_status canonical(workflow *w, wf_metric *m)
{
    json_t *j = json_object(), *names = json_array(), *data = NULL;
    dr_status st = DR_OK;

    json_array_append_new(w->owned, j);
    json_object_set_new(j, "type", json_string(kinds[m->kind].word));
    json_object_set_new(j, "figures", names);
    for (size_t i = 0; i < m->figure_count; i++)
        json_array_append_new(names, json_string(m->figures[i].name));
    if (m->kind == WF_ACCURACY && m->task == NULL) {
        DR_TRY(flow_data_key(&data, &m->data));
        json_object_set_new(j, "data", data);
    }
    if (m->task != NULL)
        DR_TRY(flow_file_key(j, "task", m->task));
    if (m->average != NULL)
        json_object_set_new(j, "average", json_string(m->average));
    if (m->max_new_tokens > 0)
        json_object_set_new(j, "max_new_tokens", json_integer(m->max_new_tokens));
    if (m->kind == WF_LATENCY || m->kind == WF_THROUGHPUT) {
        json_object_set_new(j, "warmup", json_integer(m->warmup));
        json_object_set_new(j, "repeats", json_integer(m->repeats));
        json_object_set_new(j, "sleep", json_real(m->sleep_s));
        json_object_set_new(j, "prompt", json_integer(m->prompt_tokens));
        json_object_set_new(j, "new", json_integer(m->new_tokens));
    }
    m->canonical = j;
done:
    return st;
}

static dr_status read_metric(workflow *w, wf_metric *m, const dr_node *n)
{
    const dr_node *data = dr_node_get(n, "data_config");
    const char *type = wf_str(dr_node_get(n, "type"));
    dr_status st = DR_OK;

    m->node = n;
    m->name = wf_str(dr_node_get(n, "name"));
    for (size_t i = 0; i < DR_COUNT(kinds); i++)
        if (strcasecmp(type, kinds[i].word) == 0)
            m->kind = (wf_metric_kind)i;
    DR_TRY(read_user(w, m, n));
    read_timing(m, n);
    if (data != NULL && (m->kind != WF_ACCURACY || m->task != NULL))
        DR_TRY(dr_node_fail(&w->doc, data, "%s reads no data set", type));
    DR_TRY(wf_data(&m->data, w, data));
    if (m->data.answers_only)
        DR_TRY(dr_node_fail(&w->doc, data, "completion_only_loss is of trainings"));
    DR_TRY(read_figures(w, m, n));
    DR_TRY(canonical(w, m));
done:
    return st;
}

/* Priorities are all different; a goal that counts from the input needs it judged. */
static dr_status check_figures(const workflow *w)
{
    const wf_evaluator *e = &w->evaluator;
    const wf_figure *seen[256];
    size_t n = 0;
    dr_status st = DR_OK;

    for (size_t i = 0; i < e->count; i++) {
        for (size_t k = 0; k < e->metrics[i].figure_count; k++) {
            const wf_figure *f = &e->metrics[i].figures[k];
            if (search_goal_needs_baseline(f->goal) && !w->evaluate_input)
                DR_TRY(dr_node_fail(&w->doc, f->node,
                                    "%s counts from the input model, which "
                                    "evaluate_input_model false leaves out",
                                    goal_words[f->goal.kind]));
            for (size_t j = 0; j < n; j++) {
                if (strcmp(seen[j]->key, f->key) == 0)
                    DR_TRY(dr_node_fail(&w->doc, f->node, "%s is here twice", f->key));
                if (f->priority > 0 && seen[j]->priority == f->priority)
                    DR_TRY(dr_node_fail(&w->doc, f->node, "%s has priority %d, too",
                                        seen[j]->key, f->priority));
            }
            if (n == DR_COUNT(seen))
                DR_TRY(dr_node_fail(&w->doc, f->node, "more than 256 figures"));
            seen[n++] = f;
        }
    }
done:
    return st;
}

dr_status wf_read_evaluator(workflow *w)
{
    const dr_node *says = wf_engine(&w->doc, "evaluator"), *found = says;
    const dr_node *all = dr_node_get(w->doc.top, "evaluators");
    const char *names[64];
    size_t count = 0, i = 0;
    dr_status st = DR_OK;

    if (says == NULL)
        return DR_OK;
    if (json_is_string(says->value)) {
        found = wf_named(all, wf_str(says));
        for (const dr_node *n = all ? all->first : NULL; n != NULL && count < 64;
             n = n->next)
            if (n->key != NULL)
                names[count++] = n->key;
        if (found == NULL)
            return wf_unknown(&w->doc, says, "evaluator", wf_str(says), names, count);
    }
    const dr_node *metrics = wf_get(found, "metrics");
    wf_metric *list =
        dr_arena_alloc(&w->arena, json_array_size(metrics->value) + 1, sizeof(*list));
    w->evaluator = (wf_evaluator){wf_str(says), list, json_array_size(metrics->value)};
    for (const dr_node *n = metrics->first; n != NULL; n = n->next)
        DR_TRY(read_metric(w, &list[i++], n));
    DR_TRY(check_figures(w));
done:
    return st;
}
