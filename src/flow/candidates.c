/*
 * candidates.c - ways through a workflow's passes: which there are, which are tried, what
 * came of each.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "flow/run_impl.h"

enum { PLAN_POINTS = 4096, DIMS_MAX = 1024 };

/* What dimension d of the space decides. */
typedef struct {
    const wf_pass *pass; /* NULL: which flow */
    size_t alternative;
    const wf_choice *choice; /* NULL: which alternative */
} meaning;

typedef struct {
    search_space space;
    const meaning *what;
    const wf_flow *flows;
    size_t flow_count;
} ways;

/* A space that is being made. */
typedef struct {
    search_dim *dims;
    meaning *what;
    size_t count;
} ways_draft;

static bool is_ordered(const json_t *values)
{
    double last = -INFINITY;
    json_t *v;
    size_t i;

    json_array_foreach((json_t *)(uintptr_t)values, i, v)
    {
        if (!json_is_number(v) || json_number_value(v) <= last)
            return false;
        last = json_number_value(v);
    }
    return true;
}

static dr_status add_dim(ways_draft *w, search_dim dim, meaning what)
{
    if (w->count >= DIMS_MAX)
        return dr_fail(DR_EUSAGE, "more than %d choices", DIMS_MAX);
    w->dims[w->count] = dim;
    w->what[w->count++] = what;
    return DR_OK;
}

/* Choices of a pass, which are there where dimension `parent` has the value `flow`. */
static dr_status add_pass(ways_draft *w, const wf_pass *p, int parent, size_t flow)
{
    int value = parent >= 0 ? (int)flow : 0;
    dr_status st = DR_OK;

    if (p->count > 1) {
        int at = (int)w->count;
        DR_TRY(add_dim(w, (search_dim){(int)p->count, false, parent, value},
                       (meaning){p, 0, NULL}));
        parent = at;
    }
    for (size_t k = 0; k < p->count; k++) {
        const wf_alternative *alt = &p->alternatives[k];
        for (size_t c = 0; c < alt->choice_count; c++) {
            const json_t *values = alt->choices[c].values;
            DR_TRY(add_dim(w,
                           (search_dim){(int)json_array_size(values), is_ordered(values),
                                        parent, p->count > 1 ? (int)k : value},
                           (meaning){p, k, &alt->choices[c]}));
        }
    }
done:
    return st;
}

static dr_status ways_of(ways *out, run *r, const wf_flow *flows, size_t count)
{
    ways_draft w = {dr_arena_alloc(&r->arena, DIMS_MAX, sizeof(*w.dims)),
                    dr_arena_alloc(&r->arena, DIMS_MAX, sizeof(*w.what)), 0};
    dr_status st = DR_OK;

    if (count > 1)
        DR_TRY(add_dim(&w, (search_dim){(int)count, false, -1, 0}, (meaning){0}));
    for (size_t f = 0; f < count; f++)
        for (size_t i = 0; i < flows[f].count; i++)
            DR_TRY(add_pass(&w, flows[f].passes[i], count > 1 ? 0 : -1, f));
    *out = (ways){{w.dims, w.count}, w.what, flows, count};
done:
    return st;
}

static const wf_flow *flow_at(const ways *w, const int *point)
{
    return &w->flows[w->flow_count > 1 ? point[0] : 0];
}

/* The alternative of a pass and its config at a point; r keeps the config. */
static const wf_alternative *at_point(run *r, json_t **config, const ways *w,
                                      const wf_pass *pass, const int *point)
{
    size_t chosen = 0;

    for (size_t d = 0; d < w->space.count; d++)
        if (w->what[d].pass == pass && w->what[d].choice == NULL && point[d] >= 0)
            chosen = (size_t)point[d];
    const wf_alternative *alt = &pass->alternatives[chosen];
    *config = json_copy(alt->fixed);
    json_array_append_new(r->owned, *config);
    for (size_t d = 0; d < w->space.count; d++)
        if (w->what[d].pass == pass && w->what[d].choice != NULL && point[d] >= 0 &&
            w->what[d].alternative == chosen)
            json_object_set(*config, w->what[d].choice->name,
                            json_array_get(w->what[d].choice->values, (size_t)point[d]));
    return alt;
}

/* "a, b" */
static const char *flow_text(dr_arena *a, const wf_flow *f)
{
    const char *text = f->passes[0]->name;

    for (size_t i = 1; i < f->count; i++)
        text = dr_arena_printf(a, "%s, %s", text, f->passes[i]->name);
    return text;
}

/* "q.type": "Gptq", "q.bits": 4: what a point is, in the order of the file. */
static json_t *choices_of(run *r, const ways *w, const int *point)
{
    json_t *j = json_object();

    json_array_append_new(r->owned, j);
    for (size_t d = 0; d < w->space.count; d++) {
        const meaning *m = &w->what[d];
        const wf_pass *p = m->pass;
        dr_arena a = {0};
        if (p == NULL)
            json_object_set_new(j, "flow", json_string(flow_text(&a, flow_at(w, point))));
        else if (point[d] >= 0 && m->choice == NULL)
            json_object_set_new(j, dr_arena_printf(&a, "%s.type", p->name),
                                json_string(p->alternatives[point[d]].def->name));
        else if (point[d] >= 0)
            json_object_set(j, dr_arena_printf(&a, "%s.%s", p->name, m->choice->name),
                            json_array_get(m->choice->values, (size_t)point[d]));
        dr_arena_release(&a);
    }
    return j;
}

/* The trail's message and its lines, as one. */
static const char *trail_text(dr_arena *a)
{
    const dr_trail *t = dr_trail_get();
    const char *text = dr_arena_strdup(a, t->count > 0 ? t->frames[0].text : "failed");

    for (int i = 1; i < t->count; i++)
        text = dr_arena_printf(a, "%s; %s", text, t->frames[i].text);
    return text;
}

static dr_status walk(run *r, run_candidate *c, const run_model *in, const ways *w,
                      const int *point, bool judge, bool may_stop)
{
    const run_model *at = in;
    run_model *next = NULL;
    json_t *config = NULL;
    dr_status st = DR_OK;

    const wf_flow *flow = flow_at(w, point);
    c->choices = choices_of(r, w, point);
    for (size_t i = 0; i < flow->count; i++) {
        const wf_alternative *alt = at_point(r, &config, w, flow->passes[i], point);
        DR_TRYF(run_step_cached(r, &next, at, alt, config), "pass %s",
                flow->passes[i]->name);
        DR_TRY(dr_cancelled_check());
        at = next;
    }
    if (judge)
        DR_TRY(run_judge(r, c->values, next, may_stop));
    c->model = next;
done:
    return st;
}

static bool meets(const run *r, const run_value *values)
{
    for (size_t i = 0; i < r->figure_count; i++)
        if (isnan(values[i].value) || !search_limit_met(&r->judged[i], values[i].value))
            return false;
    return true;
}

static void tell_progress(const run *r, const run_candidate *c, size_t n, size_t of)
{
    char *text = json_dumps(c->choices, JSON_COMPACT);
    dr_buf b;

    dr_buf_init(&b, 1 << 16);
    for (size_t i = 0; i < r->figure_count && c->error == NULL; i++)
        if (dr_buf_addf(&b, "%s%s %.6g", i ? ", " : "", r->figures[i]->key,
                        c->values[i].value) != DR_OK)
            break;
    dr_log(DR_INFO, "candidate %zu of %zu: %s: %s", n, of, text,
           c->error != NULL ? c->error : b.data);
    dr_buf_release(&b);
    free(text);
}

/* Whether the search is over though points are left. */
static const char *over(const run *r, const run_candidate *last)
{
    if (r->w.stop_when_goals_met && last->error == NULL && meets(r, last->values))
        return "all goals are met";
    if (r->w.max_time_s > 0 && dr_now_s() - r->began_s >= r->w.max_time_s)
        return "max_time is over";
    return NULL;
}

/* None works: the first one's error is the run's. */
static dr_status none_works(const run_outcome *out, dr_status st, const dr_trail *first)
{
    dr_trail_set(first);
    if (out->count > 1)
        dr_note_at(__FILE__, __LINE__, "none of %zu candidates works; this is the first",
                   out->count);
    return st;
}

search_table run_table(dr_arena *a, const run *r, const run_outcome *o)
{
    const size_t m = r->figure_count;
    double *values = dr_arena_alloc(a, o->count * m + 1, sizeof(double));
    double *slack = dr_arena_alloc(a, o->count * m + 1, sizeof(double));

    for (size_t i = 0; i < o->count; i++)
        for (size_t k = 0; k < m; k++) {
            const run_value v = o->list[i].values[k];
            values[i * m + k] = v.value;
            slack[i * m + k] = v.high > v.low ? (v.high - v.low) / 2 : 0;
        }
    return (search_table){values, slack, o->count, r->judged, m};
}

/* One more candidate, not looked at yet. */
static run_candidate *add_candidate(run *r, run_outcome *out, size_t *room)
{
    if (out->count == *room) {
        run_candidate *more = dr_arena_alloc(&r->arena, 2 * *room + 16, sizeof(*more));
        if (*room > 0)
            memcpy(more, out->list, *room * sizeof(*more));
        out->list = more;
        *room = 2 * *room + 16;
    }
    run_candidate *c = &out->list[out->count++];
    *c = (run_candidate){
        .values = dr_arena_alloc(&r->arena, r->figure_count + 1, sizeof(*c->values))};
    for (size_t i = 0; i < r->figure_count; i++)
        c->values[i] = (run_value){NAN, NAN, NAN};
    return c;
}

static void tell_sampler(const run *r, search *s, const int *point, const run_candidate *c)
{
    double *values = dr_calloc(r->figure_count + 1, sizeof(*values));

    for (size_t i = 0; i < r->figure_count; i++)
        values[i] = c->values[i].value;
    search_tell(s, point, c->error == NULL ? values : NULL);
    free(values);
}

/* The order of all; without figures the first that works is the best. */
static void order_all(run *r, run_outcome *out, bool judge)
{
    const search_table t = run_table(&r->arena, r, out);

    out->order = dr_arena_alloc(&r->arena, out->count + 1, sizeof(size_t));
    search_order(out->order, &out->met, &t);
    for (size_t i = 0; i < out->count && (t.figure_count == 0 || !judge); i++)
        if (out->list[i].error == NULL) {
            out->order[0] = i;
            break;
        }
}

/* ---- ahead of time ---- */

/* The steps that made a model, from the input on. */
static void add_steps(json_t *steps, const run *r, const run_model *m)
{
    if (m->parent == NULL)
        return;
    add_steps(steps, r, m->parent);
    json_array_append_new(steps, run_step_json(r, m->alt, m->config));
}

static json_t *task_of(run *r, const run_model *in, const ways *w, const int *point,
                       bool judge)
{
    const wf_flow *flow = flow_at(w, point);
    json_t *steps = json_array(), *config = NULL;

    add_steps(steps, r, in);
    for (size_t i = 0; i < flow->count; i++) {
        const wf_alternative *alt = at_point(r, &config, w, flow->passes[i], point);
        json_array_append_new(steps, run_step_json(r, alt, config));
    }
    return json_pack("{s:o, s:b}", "steps", steps, "judge", judge);
}

/* Workers, if there are any, make the models of the next candidates, of those that do not
 * depend on figures; *left: how many that are.  One alone is the run's, unless a worker is
 * to look at the time. */
static dr_status make_ahead(run *r, size_t *left, const run_model *in, const ways *w,
                            const search *s, bool judge)
{
    size_t most = 0;
    const size_t least = r->w.task_timeout_s > 0 ? 1 : 2;
    int *points = NULL;
    json_t *tasks = NULL;
    dr_status st = DR_OK;

    DR_TRY(run_workers_look(&most, r));
    most *= 2;
    if (most == 0)
        goto done;
    points = dr_calloc(most * (w->space.count + 1), sizeof(*points));
    tasks = json_array();
    *left = search_ahead(s, points, most);
    for (size_t i = 0; i < *left; i++)
        json_array_append_new(tasks,
                              task_of(r, in, w, points + i * w->space.count, judge));
    if (*left >= least)
        DR_TRY(run_workers_do(r, tasks));
done:
    json_decref(tasks);
    free(points);
    return st;
}

/* A candidate that depends on figures, where a worker is to look at the time. */
static dr_status make_one(run *r, const run_model *in, const ways *w, const int *point,
                          bool judge)
{
    json_t *tasks = json_array();
    size_t count = 0;
    dr_status st = DR_OK;

    json_array_append_new(tasks, task_of(r, in, w, point, judge));
    DR_TRY(run_workers_look(&count, r));
    if (count > 0)
        DR_TRY(run_workers_do(r, tasks));
done:
    json_decref(tasks);
    return st;
}

/* Why workers could not even fail at a candidate. */
static dr_status lost(run *r, const run_model *in, const ways *w, const int *point)
{
    json_t *task = task_of(r, in, w, point, false);
    dr_status st = run_workers_lost(r, task);

    json_decref(task);
    return st;
}

dr_status run_candidates(run *r, run_outcome *out, const run_model *in,
                         const wf_flow *flows, size_t count, bool judge)
{
    ways w = {0};
    search *s = NULL;
    dr_trail *why = dr_calloc(1, sizeof(*why));
    size_t working = 0, winners = 0, room = 0, left = 0;
    dr_status st = DR_OK, failed = DR_OK;

    *out = (run_outcome){0};
    DR_TRY(ways_of(&w, r, flows, count));
    out->space = search_space_size(&w.space);
    size_t most = r->w.sampler.max_samples > 0 && r->w.sampler.max_samples < out->space
                      ? r->w.sampler.max_samples
                      : out->space;
    int *point = dr_arena_alloc(&r->arena, w.space.count + 1, sizeof(int));
    search_open(&s, &w.space, r->judged, r->figure_count, &r->w.sampler);
    while (out->stopped == NULL) {
        if (left == 0)
            DR_TRY(make_ahead(r, &left, in, &w, s, judge));
        if (!search_next(s, point))
            break;
        if (left == 0 && r->w.task_timeout_s > 0)
            DR_TRY(make_one(r, in, &w, point, judge));
        left -= left > 0;
        run_candidate *c = add_candidate(r, out, &room);
        st = lost(r, in, &w, point);
        if (st == DR_OK)
            st = walk(r, c, in, &w, point, judge, winners >= r->w.output_models);
        else
            c->choices = choices_of(r, &w, point);
        if (st == DR_ECANCELLED)
            goto done;
        if (st != DR_OK) {
            c->error = trail_text(&r->arena);
            if (failed == DR_OK) {
                failed = st;
                *why = *dr_trail_get();
            }
            dr_trail_clear();
            st = DR_OK;
        }
        working += c->error == NULL;
        winners += c->error == NULL && judge && meets(r, c->values);
        tell_sampler(r, s, point, c);
        tell_progress(r, c, out->count, most);
        out->stopped = over(r, c);
    }
    if (working == 0)
        DR_TRY(none_works(out, failed, why));
    order_all(r, out, judge);
done:
    search_close(s);
    free(why);
    return st;
}

/* ---- the plan ---- */

typedef struct {
    json_t *seen;                /* keys of steps */
    size_t steps, cached, whole; /* whole: points of which every step is in the cache */
} coverage;

static dr_status cover(run *r, coverage *c, const ways *w, const int *point)
{
    char at[DR_SHA256_HEX], key[DR_SHA256_HEX];
    json_t *config = NULL;
    bool all = true;
    dr_status st = DR_OK;

    const wf_flow *flow = flow_at(w, point);
    memcpy(at, r->input.id, sizeof(at));
    for (size_t i = 0; i < flow->count; i++) {
        const wf_alternative *alt = at_point(r, &config, w, flow->passes[i], point);
        if (run_step_key(key, r, at, alt, config) != DR_OK) {
            dr_trail_clear(); /* a point whose parameters contradict each other */
            return DR_OK;
        }
        bool has = cache_has(&r->cache, key);
        all = all && has;
        if (json_object_get(c->seen, key) == NULL) {
            json_object_set_new(c->seen, key, json_true());
            c->steps++;
            c->cached += has;
        }
        memcpy(at, key, sizeof(at));
    }
    c->whole += all;
    return st;
}

static dr_status tell_pass(dr_buf *text, json_t *programs, const wf_pass *p)
{
    dr_status st = DR_OK;

    DR_TRY(dr_buf_addf(text, "pass           %s:", p->name));
    for (size_t k = 0; k < p->count; k++) {
        const wf_alternative *alt = &p->alternatives[k];
        char *fixed = json_dumps(alt->fixed, JSON_COMPACT);
        st = dr_buf_addf(text, "%s %s %s", k ? " or" : "", alt->def->name, fixed);
        free(fixed);
        DR_TRY(st);
        for (size_t c = 0; c < alt->choice_count; c++) {
            char *values = json_dumps(alt->choices[c].values, JSON_COMPACT);
            st = dr_buf_addf(text, " %s of %s", alt->choices[c].name, values);
            free(values);
            DR_TRY(st);
        }
    }
    DR_TRY(dr_buf_adds(text, "\n"));
    for (size_t k = 0; k < p->count; k++)
        DR_TRY(flow_tell_program(text, programs, p->alternatives[k].def,
                                 p->alternatives[k].fixed));
done:
    return st;
}

dr_status run_tell_plan(run *r, flow_result *out, bool known_input)
{
    coverage c = {.seen = json_object()};
    ways w = {0};
    dr_status st = DR_OK;

    DR_TRY(ways_of(&w, r, r->w.flows, r->w.flow_count));
    size_t points = search_space_size(&w.space);
    DR_TRY(dr_buf_addf(&out->text, "model          %s\n", r->input.path));
    json_t *flows = json_array(), *programs = json_array();
    json_object_set_new(out->report, "flows", flows);
    json_object_set_new(out->report, "programs", programs);
    for (size_t f = 0; f < r->w.flow_count; f++) {
        const wf_flow *flow = &r->w.flows[f];
        json_t *names = json_array();
        json_array_append_new(flows, names);
        for (size_t i = 0; i < flow->count; i++)
            json_array_append_new(names, json_string(flow->passes[i]->name));
        if (r->w.flow_count > 1)
            DR_TRY(dr_buf_addf(&out->text, "flow           %zu\n", f + 1));
        for (size_t i = 0; i < flow->count; i++)
            DR_TRY(tell_pass(&out->text, programs, flow->passes[i]));
    }
    DR_TRY(dr_buf_addf(&out->text, "output         %s\n", r->w.output_dir));
    DR_TRY(run_tell_packages(r, out));
    size_t tried = r->w.sampler.max_samples;
    tried = tried == 0 || tried > points ? points : tried;
    DR_TRY(dr_buf_addf(&out->text, "search space   %zu point%s\n", points,
                       points == 1 ? "" : "s"));
    if (r->w.search && !r->w.pass_by_pass)
        DR_TRY(dr_buf_addf(&out->text, "candidates     %zu\n", tried));
    json_object_set_new(out->report, "points", json_integer((json_int_t)points));
    if (known_input && points <= PLAN_POINTS) {
        int *point = dr_arena_alloc(&r->arena, w.space.count + 1, sizeof(int));
        search_first(&w.space, point);
        do {
            DR_TRY(cover(r, &c, &w, point));
        } while (search_following(&w.space, point));
        DR_TRY(dr_buf_addf(&out->text,
                           "cache          %zu of %zu steps, %zu of %zu points\n", c.cached,
                           c.steps, c.whole, points));
        json_object_set_new(out->report, "steps", json_integer((json_int_t)c.steps));
        json_object_set_new(out->report, "steps_cached",
                            json_integer((json_int_t)c.cached));
        json_object_set_new(out->report, "points_cached",
                            json_integer((json_int_t)c.whole));
    } else {
        DR_TRY(dr_buf_addf(&out->text, "cache          not asked: %s\n",
                           known_input ? "too many points" : "the model is not here yet"));
    }
done:
    json_decref(c.seen);
    return st;
}
