/*
 * steps.c - a step of a workflow, by the cache: a model is made once, whoever asks for it.
 *
 * A step is a run of the engine (flow.c) with one pass, into the entry's folder.  The next
 * one takes that folder as it would take the result of any earlier command.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "core/file.h"
#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "flow/run_impl.h"

static double wall_s(void)
{
    struct timeval t;

    (void)gettimeofday(&t, NULL);
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

/* The pass's whole config, defaults too. */
static dr_status whole_config(json_t **out, const pass_def *d, const json_t *given)
{
    void *cfg = NULL;
    unsigned char *seen = NULL;
    dr_arena a = {0};
    dr_status st = DR_OK;

    DR_TRY(wf_config(&cfg, &seen, &a, d, given));
    if (d->validate != NULL)
        DR_TRYF(d->validate(cfg, seen), "%s", d->name);
    DR_TRY(dr_params_json(out, d->params, d->params_count, cfg));
done:
    dr_arena_release(&a);
    return st;
}

/* Files that stand for JSON count by their contents. */
static dr_status add_files(json_t *parts, const pass_def *d, const json_t *config)
{
    dr_arena a = {0};
    dr_status st = DR_OK;

    for (size_t i = 0; i < d->params_count; i++) {
        const char *path = json_string_value(json_object_get(config, d->params[i].name));
        if (d->params[i].json && path != NULL && dr_is_file(path))
            DR_TRY(flow_file_key(parts, dr_arena_printf(&a, "file %s", d->params[i].name),
                                 path));
    }
done:
    dr_arena_release(&a);
    return st;
}

/* Another version of a vendor's program makes another model.  A dry run may have none. */
static dr_status add_program(json_t *parts, const pass_def *d, const json_t *config)
{
    char identity[DR_SHA256_HEX];
    pass_program p = {0};
    dr_arena a = {0};
    dr_status st = DR_OK;

    if (!pass_program_find(&p, &a, d, config) || p.path == NULL)
        goto done;
    DR_TRY(pass_program_identity(identity, &p));
    json_object_set_new(parts, "program", json_string(identity));
done:
    dr_arena_release(&a);
    return st;
}

dr_status run_step_key(char key[DR_SHA256_HEX], const run *r, const char *in_id,
                       const wf_alternative *alt, const json_t *given)
{
    json_t *config = NULL, *data = NULL, *parts = NULL;
    dr_status st = DR_OK;

    DR_TRY(whole_config(&config, alt->def, given));
    parts = json_pack("{s:s, s:s, s:s, s:i, s:s, s:O, s:O}", "drupe", DRUPE_VERSION,
                      "input", in_id, "pass", alt->def->name, "version", alt->def->version,
                      "isa", r->isa, "config", config, "given", given);
    DR_TRY(add_files(parts, alt->def, config));
    DR_TRY(add_program(parts, alt->def, config));
    if (alt->def->clocked)
        json_object_set_new(parts, "machine", json_string(r->machine));
    if (alt->def->needs_data) {
        DR_TRY(flow_data_key(&data, &alt->data));
        json_object_set(parts, "data", data);
    }
    if (alt->has_eval) {
        json_decref(data);
        data = NULL;
        DR_TRY(flow_data_key(&data, &alt->eval));
        json_object_set(parts, "eval", data);
    }
    cache_key(key, parts);
done:
    json_decref(config);
    json_decref(data);
    json_decref(parts);
    return st;
}

static run_model *known_model(const run *r, const char *key)
{
    for (size_t i = 0; i < r->model_count; i++)
        if (strcmp(r->models[i]->id, key) == 0)
            return r->models[i];
    return NULL;
}

static run_model *add_model(run *r, const run_model *m)
{
    run_model *copy = dr_arena_alloc(&r->arena, 1, sizeof(*copy));

    if (r->model_count == r->model_room) {
        size_t room = 2 * r->model_room + 16;
        run_model **more = dr_arena_alloc(&r->arena, room, sizeof(*more));
        if (r->model_count > 0)
            memcpy(more, r->models, r->model_count * sizeof(*more));
        r->models = more;
        r->model_room = room;
    }
    *copy = *m;
    r->models[r->model_count++] = copy;
    return copy;
}

/* What `drupe cache` shows of an entry. */
static json_t *entry_info(const run_model *m)
{
    return json_pack("{s:s, s:s, s:O}", "pass", m->def->name, "input", m->parent->id,
                     "config", m->config);
}

/* Runs the pass; the entry is locked. */
static dr_status make(run *r, run_model *m, const wf_alternative *alt)
{
    const run_model *chosen =
        m->parent->def != NULL && m->parent->def->chooses ? m->parent : NULL;
    const flow_step steps[] = {{chosen != NULL ? chosen->def->name : alt->def->name,
                                chosen != NULL ? chosen->config : m->config},
                               {alt->def->name, m->config}};
    const flow_spec spec = {.model = m->parent->path,
                            .adapters = m->parent->adapters,
                            .output = m->path,
                            .steps = steps,
                            .step_count = chosen != NULL ? 2 : 1,
                            .data = alt->data,
                            .eval = alt->has_eval ? &alt->eval : NULL,
                            .resume = alt->resume,
                            .threads = r->o->threads};
    flow_result made = {0};
    json_t *info = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_remove_tree(m->path)); /* what a kill left: no entry */
    m->start_s = wall_s();
    dr_log(DR_INFO, "%s on %s", alt->def->name,
           m->parent->parent != NULL ? m->parent->def->name : m->parent->path);
    st = flow_run(&made, &spec);
    m->end_s = wall_s();
    DR_TRY(st);
    info = entry_info(m);
    json_object_set_new(info, "seconds", json_real(m->end_s - m->start_s));
    DR_TRY(cache_seal(&r->cache, m->id, info));
done:
    json_decref(info);
    flow_result_release(&made);
    return st;
}

/* From the cache or from a shared one; else *m is not cached. */
static dr_status look_up(run *r, run_model *m)
{
    json_t *info = NULL;
    dr_status st = DR_OK;

    m->cached = cache_has(&r->cache, m->id);
    if (m->cached || r->cache.shared == NULL)
        goto done;
    info = entry_info(m);
    DR_TRY(cache_fetch(&m->cached, &r->cache, m->id, info));
done:
    json_decref(info);
    return st;
}

/* A worker has made it for this run. */
static bool made_ahead(const run *r, run_model *m)
{
    const json_t *step = json_object_get(r->ahead, m->id);

    if (step == NULL)
        return false;
    m->cached = false;
    m->start_s = json_number_value(json_array_get(step, 1));
    m->end_s = json_number_value(json_array_get(step, 2));
    return true;
}

dr_status run_step_cached(run *r, run_model **out, const run_model *in,
                          const wf_alternative *alt, json_t *config)
{
    run_model m = {.kind = pass_gives(alt->def, in->kind),
                   .parent = in,
                   .def = alt->def,
                   .alt = alt,
                   .config = config};
    int lock = -1;
    dr_status st = DR_OK;

    DR_TRY(run_step_key(m.id, r, in->id, alt, config));
    *out = known_model(r, m.id);
    if (*out != NULL)
        goto done;
    if (alt->def->chooses) { /* it writes nothing: the next step runs both */
        m.path = in->path;
        m.adapters = in->adapters;
        *out = add_model(r, &m);
        goto done;
    }
    m.path = cache_folder(&r->arena, &r->cache, m.id);
    DR_TRY(cache_lock(&lock, &r->cache, m.id, true));
    DR_TRY(look_up(r, &m));
    if (!m.cached)
        DR_TRY(make(r, &m, alt));
    else if (!made_ahead(r, &m))
        dr_log(DR_INFO, "%s: in the cache", alt->def->name);
    DR_TRY(cache_use(&r->cache, m.id));
    *out = add_model(r, &m);
    (void)close(lock);
    lock = -1;
    DR_TRY(cache_send(&r->cache, m.id));
done:
    if (lock >= 0)
        (void)close(lock);
    return st;
}

/* ---- figures ---- */

/* What a metric's figures depend on; `beside` is what a model is timed beside. */
static json_t *figures_parts(const run *r, const wf_metric *metric, const run_model *m,
                             const run_model *beside)
{
    const bool timed = run_is_clocked(metric);
    json_t *parts =
        json_pack("{s:s, s:s, s:s, s:O}", "drupe", DRUPE_VERSION, "model", m->id,
                  "reference", timed ? "" : r->input.id, "metric", metric->canonical);

    if (!timed)
        return parts;
    json_object_set_new(parts, "machine", json_string(r->machine));
    json_object_set_new(parts, "threads", json_integer(r->o->threads));
    json_object_set_new(parts, "beside", json_string(beside ? beside->id : ""));
    return parts;
}

/* A number, null, or [value, low, high]; false: none of them. */
static bool value_from(run_value *out, const json_t *v)
{
    double low = NAN, high = NAN, x = NAN;

    if (json_is_array(v) && json_array_size(v) == 3) {
        x = json_number_value(json_array_get(v, 0));
        low = json_number_value(json_array_get(v, 1));
        high = json_number_value(json_array_get(v, 2));
    } else if (json_is_number(v)) {
        x = low = high = json_number_value(v);
    } else if (!json_is_null(v)) {
        return false;
    }
    *out = (run_value){x, low, high};
    return true;
}

static bool values_from(run_value *values, const wf_metric *metric, const json_t *kept)
{
    for (size_t i = 0; i < metric->figure_count; i++)
        if (!value_from(&values[i], json_object_get(kept, metric->figures[i].name)))
            return false;
    return true;
}

static json_t *value_json(run_value v)
{
    if (!isfinite(v.value))
        return json_null();
    if (v.low == v.value && v.high == v.value)
        return json_real(v.value);
    return json_pack("[f, f, f]", v.value, v.low, v.high);
}

/* "METRIC KEY", as workers call a command's figures of a model; new. */
static char *figured_name(const wf_metric *metric, const run_model *m)
{
    return dr_asprintf("%s %s", metric->name, m->id);
}

/* A worker has run the metric's command in this run. */
static bool figured_ahead(run_value *values, const run *r, const wf_metric *metric,
                          const run_model *m)
{
    char *name = figured_name(metric, m);
    const json_t *kept = json_object_get(r->figured, name);
    const bool good = kept != NULL && values_from(values, metric, kept);

    free(name);
    return good;
}

static json_t *values_json(const wf_metric *metric, const run_value *values)
{
    json_t *j = json_object();

    for (size_t i = 0; i < metric->figure_count; i++)
        json_object_set_new(j, metric->figures[i].name, value_json(values[i]));
    return j;
}

static dr_status judge_metric(run *r, run_value *values, const wf_metric *metric,
                              const run_model *m)
{
    const bool timed = run_is_clocked(metric);
    const run_model *beside = NULL;
    run_value *own = NULL;
    json_t *parts = NULL, *kept = NULL;
    char key[DR_SHA256_HEX];
    const bool shared = metric->kind == WF_ACCURACY; /* of any machine */
    bool good = metric->kind != WF_CUSTOM; /* what a program does is not known */
    dr_status st = DR_OK;

    if (!good && metric->parallel && figured_ahead(values, r, metric, m))
        return DR_OK;

    if (timed && m->kind == PASS_MODEL_ONNX) {
        if (r->timed == NULL)
            r->timed = m;
        beside = r->timed != m ? r->timed : NULL;
    }
    parts = figures_parts(r, metric, m, beside);
    cache_key(key, parts);
    if (good)
        DR_TRY(cache_figures(&kept, &r->cache, key));
    good = good && values_from(values, metric, kept);
    if (!good && shared) {
        json_decref(kept);
        kept = NULL;
        DR_TRY(cache_fetch_figures(&kept, &r->cache, key));
        good = values_from(values, metric, kept);
        if (good)
            DR_TRY(cache_keep_figures(&r->cache, key, kept));
    }
    if (good)
        goto done;
    if (beside != NULL) {
        own = dr_calloc(metric->figure_count + 1, sizeof(*own));
        DR_TRY(judge_metric(r, own, metric, beside));
    }
    DR_TRYF(run_measure(values, r, metric, m, beside, own), "measuring %s", metric->name);
    json_decref(kept);
    kept = values_json(metric, values);
    if (metric->kind != WF_CUSTOM)
        DR_TRY(cache_keep_figures(&r->cache, key, kept));
    if (shared)
        DR_TRY(cache_send_figures(&r->cache, key, kept));
done:
    free(own);
    json_decref(parts);
    json_decref(kept);
    return st;
}

/* The limit that a figure of these misses; NULL: none. */
static const wf_figure *missed(const run *r, const run_value *values, size_t from, size_t n)
{
    for (size_t i = from; i < from + n; i++)
        if (r->judged[i].limited && !search_limit_met(&r->judged[i], values[i].value))
            return r->figures[i];
    return NULL;
}

static void keep_values(run *r, run_model *m, const run_value *values)
{
    m->figures = json_object();
    m->bounds = json_object();
    json_array_append_new(r->owned, m->figures);
    json_array_append_new(r->owned, m->bounds);
    for (size_t i = 0; i < r->figure_count; i++) {
        const run_value v = values[i];
        json_object_set_new(m->figures, r->figures[i]->key,
                            isfinite(v.value) ? json_real(v.value) : json_null());
        if (isfinite(v.value) && v.low < v.high)
            json_object_set_new(m->bounds, r->figures[i]->key,
                                json_pack("[f, f]", v.low, v.high));
    }
}

static void known_values(const run *r, const run_model *m, run_value *values)
{
    for (size_t i = 0; i < r->figure_count; i++) {
        const json_t *v = json_object_get(m->figures, r->figures[i]->key);
        const json_t *b = json_object_get(m->bounds, r->figures[i]->key);
        (void)value_from(&values[i], v);
        if (b != NULL) {
            values[i].low = json_number_value(json_array_get(b, 0));
            values[i].high = json_number_value(json_array_get(b, 1));
        }
    }
}

/* Sizes cost nothing, times most: a model has to be loaded, and everything else to wait. */
static int cost_of(const wf_metric *m)
{
    static const int costs[] = {[WF_SIZE] = 0,   [WF_ACCURACY] = 1, [WF_CUSTOM] = 2,
                                [WF_MEMORY] = 3, [WF_LATENCY] = 4,  [WF_THROUGHPUT] = 4};

    return costs[m->kind];
}

enum { COSTS = 5 };

dr_status run_judge(run *r, run_value *values, run_model *m, bool may_stop)
{
    const wf_evaluator *e = &r->w.evaluator;
    const wf_figure *why = NULL;
    dr_status st = DR_OK;

    /* judged in this run already */
    if (m->figures != NULL && (m->unmeasured == NULL || may_stop)) {
        known_values(r, m, values);
        return DR_OK;
    }
    for (size_t i = 0; i < r->figure_count; i++)
        values[i] = (run_value){NAN, NAN, NAN};
    for (int cost = 0; cost < COSTS && why == NULL; cost++) {
        size_t at = 0;
        for (size_t i = 0; i < e->count && why == NULL; i++) {
            const size_t n = e->metrics[i].figure_count;
            if (cost_of(&e->metrics[i]) == cost) {
                DR_TRY(judge_metric(r, values + at, &e->metrics[i], m));
                why = may_stop ? missed(r, values, at, n) : NULL;
            }
            at += n;
        }
    }
    m->unmeasured = NULL;
    for (size_t i = 0; why != NULL && i < r->figure_count; i++)
        if (isnan(values[i].value))
            m->unmeasured = dr_arena_printf(
                &r->arena, "%s misses its limit, and others meet all: not measured further",
                why->key);
    keep_values(r, m, values);
done:
    return st;
}

void run_judge_ahead(run *r, json_t *figured, run_model *m)
{
    const wf_evaluator *e = &r->w.evaluator;
    dr_status st = DR_OK;

    for (size_t i = 0; i < e->count && st == DR_OK; i++) {
        const wf_metric *metric = &e->metrics[i];
        run_value *values = dr_calloc(metric->figure_count + 1, sizeof(*values));
        if (metric->kind == WF_ACCURACY || metric->parallel)
            st = judge_metric(r, values, metric, m);
        if (metric->parallel && st == DR_OK) {
            char *name = figured_name(metric, m);
            json_object_set_new(figured, name, values_json(metric, values));
            free(name);
        }
        free(values);
    }
}
