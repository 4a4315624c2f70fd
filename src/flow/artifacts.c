/*
 * artifacts.c - what a workflow leaves: the best model's folder, others beside it, Olive's
 * footprints, metrics and history.
 *
 * The folder is made of hard links to the cache's entry where the file system has them: no
 * byte is there twice.  drupe.json names all passes from the input on.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "flow/run_impl.h"

enum { SHORT_ID = 16, TEXT_BYTES = 16 << 20 };

const char *run_short_id(dr_arena *a, const run_model *m)
{
    return m != NULL ? dr_arena_strndup(a, m->id, SHORT_ID) : "";
}

/* drupe.json of a model: the last step's, with the passes of all before it. */
static dr_status chain_json(json_t **out, const run_model *m)
{
    dr_arena a = {0};
    json_t *own = NULL, *before = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_json_read(&own, dr_path_join(&a, m->path, "drupe.json")));
    const run_model *in = m->parent; /* what chooses is in the next one's own file */
    in = in->def != NULL && in->def->chooses ? in->parent : in;
    if (in->parent != NULL) {
        DR_TRY(chain_json(&before, in));
        json_array_extend(json_object_get(before, "passes"),
                          json_object_get(own, "passes"));
        if (json_object_get(own, "data") != NULL)
            json_object_set(before, "data", json_object_get(own, "data"));
        *out = json_incref(before);
    } else {
        *out = json_incref(own);
    }
done:
    json_decref(own);
    json_decref(before);
    dr_arena_release(&a);
    return st;
}

/* ---- figures as Olive writes them ---- */

/* Times have the interval that they are known to, too. */
static json_t *figure_json(const run *r, size_t i, const run_model *m)
{
    const char *key = r->figures[i]->key;
    json_t *bounds = json_object_get(m->bounds, key);
    json_t *j = json_pack("{s:O, s:i, s:b}", "value", json_object_get(m->figures, key),
                          "priority", r->figures[i]->priority, "higher_is_better",
                          r->figures[i]->higher_is_better);

    if (bounds != NULL)
        json_object_set(j, "confidence_95", bounds);
    return j;
}

json_t *run_metrics_json(const run *r, const run_model *m)
{
    json_t *j = json_object();

    for (size_t i = 0; i < r->figure_count; i++)
        json_object_set_new(j, r->figures[i]->key, figure_json(r, i, m));
    return j;
}

/* Values, directions, and whether each goal is met. */
static json_t *footprint_metrics(const run *r, const run_model *m)
{
    json_t *values = json_object(), *directions = json_object();
    bool all = true;

    for (size_t i = 0; i < r->figure_count; i++) {
        const json_t *v = json_object_get(m->figures, r->figures[i]->key);
        json_object_set_new(values, r->figures[i]->key, figure_json(r, i, m));
        json_object_set_new(directions, r->figures[i]->key,
                            json_integer(r->judged[i].higher_is_better ? 1 : -1));
        all = all && json_is_number(v) &&
              search_limit_met(&r->judged[i], json_number_value(v));
    }
    return json_pack("{s:o, s:o, s:b}", "value", values, "cmp_direction", directions,
                     "if_goals_met", all);
}

static json_t *node_json(const run *r, const run_model *m, bool front)
{
    dr_arena a = {0};
    json_t *j = json_pack(
        "{s:s, s:o, s:{s:s, s:{s:s}}, s:o, s:o, s:b, s:o}", "model_id", run_short_id(&a, m),
        "parent_model_id",
        m->parent ? json_string(run_short_id(&a, m->parent)) : json_null(), "model_config",
        "type", pass_kind_type(m->kind), "config", "model_path", m->path, "from_pass",
        m->def ? json_string(m->def->name) : json_null(), "pass_run_config",
        m->config ? json_incref(m->config) : json_null(), "is_pareto_frontier", front,
        "metrics", m->figures ? footprint_metrics(r, m) : json_null());

    json_object_set_new(j, "start_time", json_real(m->start_s));
    json_object_set_new(j, "end_time", json_real(m->end_s));
    dr_arena_release(&a);
    return j;
}

static bool in_front(const run_outcome *o, const bool *front, const run_model *m)
{
    for (size_t i = 0; i < o->count; i++)
        if (front[i] && o->list[i].model == m)
            return true;
    return false;
}

/* All models; or, with only_best, the ones that are kept and the input. */
static json_t *footprint(const run *r, const run_outcome *o, const bool *front, size_t kept)
{
    json_t *j = json_object();
    dr_arena a = {0};

    json_object_set_new(j, run_short_id(&a, &r->input), node_json(r, &r->input, false));
    for (size_t i = 0; i < r->model_count; i++) {
        const run_model *m = r->models[i];
        bool wanted = kept == 0;
        for (size_t k = 0; k < kept; k++)
            wanted = wanted || o->list[o->order[k]].model == m;
        if (wanted)
            json_object_set_new(j, run_short_id(&a, m),
                                node_json(r, m, in_front(o, front, m)));
    }
    dr_arena_release(&a);
    return j;
}

/* ---- run_history.txt ---- */

enum { COLUMNS = 5 };

static dr_status rule(dr_buf *b, const size_t *width, char c)
{
    dr_status st = DR_OK;

    for (size_t k = 0; k < COLUMNS; k++) {
        DR_TRY(dr_buf_adds(b, "+"));
        for (size_t i = 0; i < width[k] + 2; i++)
            DR_TRY(dr_buf_add(b, &c, 1));
    }
    DR_TRY(dr_buf_adds(b, "+\n"));
done:
    return st;
}

static const char *figures_text(dr_arena *a, const run *r, const run_model *m)
{
    const char *text = "";

    for (size_t i = 0; m->figures != NULL && i < r->figure_count; i++) {
        const json_t *v = json_object_get(m->figures, r->figures[i]->key);
        const json_t *b = json_object_get(m->bounds, r->figures[i]->key);
        const char *one =
            json_is_number(v)
                ? dr_arena_printf(a, "%s %.6g", r->figures[i]->key, json_number_value(v))
                : dr_arena_printf(a, "%s -", r->figures[i]->key);
        if (b != NULL)
            one = dr_arena_printf(a, "%s (%.6g to %.6g)", one,
                                  json_number_value(json_array_get(b, 0)),
                                  json_number_value(json_array_get(b, 1)));
        text = *text ? dr_arena_printf(a, "%s, %s", text, one) : one;
    }
    return text;
}

static void history_row(const char **cells, dr_arena *a, const run *r, const run_model *m)
{
    cells[0] = run_short_id(a, m);
    cells[1] = run_short_id(a, m->parent);
    cells[2] = m->def != NULL ? m->def->name : "";
    cells[3] = m->def == NULL ? ""
               : m->cached    ? "cached"
                              : dr_arena_printf(a, "%.3f", m->end_s - m->start_s);
    cells[4] = figures_text(a, r, m);
}

static dr_status history(dr_buf *b, const run *r)
{
    static const char *const head[COLUMNS] = {"model_id", "parent_model_id", "from_pass",
                                              "duration_sec", "metrics"};
    size_t rows = r->model_count + 2, width[COLUMNS] = {0};
    dr_arena a = {0};
    const char *(*cells)[COLUMNS] = dr_arena_alloc(&a, rows, sizeof(*cells));
    dr_status st = DR_OK;

    memcpy(cells[0], head, sizeof(head));
    history_row(cells[1], &a, r, &r->input);
    for (size_t i = 0; i < r->model_count; i++)
        history_row(cells[i + 2], &a, r, r->models[i]);
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < COLUMNS; k++)
            width[k] = strlen(cells[i][k]) > width[k] ? strlen(cells[i][k]) : width[k];
    DR_TRY(rule(b, width, '-'));
    for (size_t i = 0; i < rows; i++) {
        for (size_t k = 0; k < COLUMNS; k++)
            DR_TRY(dr_buf_addf(b, "| %-*s ", (int)width[k], cells[i][k]));
        DR_TRY(dr_buf_adds(b, "|\n"));
        DR_TRY(rule(b, width, i == 0 ? '=' : '-'));
    }
done:
    dr_arena_release(&a);
    return st;
}

/* ---- the folder ---- */

static dr_status write_json(const char *dir, const char *name, json_t *j)
{
    dr_arena a = {0};
    dr_status st = dr_json_write(dr_path_join(&a, dir, name), j);

    json_decref(j);
    dr_arena_release(&a);
    return st;
}

static bool *front_of(const run *r, const run_outcome *o)
{
    bool *front = dr_calloc(o->count + 1, 1);
    dr_arena a = {0};
    const search_table t = run_table(&a, r, o);

    if (r->figure_count > 0)
        search_front(front, &t, o->met > 0);
    dr_arena_release(&a);
    return front;
}

static dr_status write_artifacts(run *r, const run_outcome *o, const char *dir, size_t kept)
{
    const run_model *best = o->list[o->order[0]].model;
    bool *front = front_of(r, o);
    dr_arena a = {0};
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, TEXT_BYTES);
    DR_TRY(write_json(dir, "footprint.json", footprint(r, o, front, 0)));
    DR_TRY(write_json(dir, "output_footprint.json", footprint(r, o, front, kept)));
    if (best->figures != NULL)
        DR_TRY(write_json(dir, "metrics.json", run_metrics_json(r, best)));
    if (r->input.figures != NULL)
        DR_TRY(write_json(dir, "input_model_metrics.json", run_metrics_json(r, &r->input)));
    DR_TRY(history(&b, r));
    DR_TRY(dr_write_file(dr_path_join(&a, dir, "run_history.txt"), b.data, b.len));
    DR_TRY(run_report(r, o, front, dir));
done:
    free(front);
    dr_buf_release(&b);
    dr_arena_release(&a);
    return st;
}

/* Of a file of m's or of a model before it: its place in that one's folder; else NULL. */
static const char *place_in(const run_model *m, const char *path)
{
    for (; m->parent != NULL; m = m->parent) {
        size_t n = strlen(m->path);
        if (strncmp(path, m->path, n) == 0 && path[n] == '/')
            return path + n + 1;
    }
    return NULL;
}

/* An adapter's settings name the model beside it: in the output, not in the cache. */
static dr_status name_base(const char *dir, const char *final_dir, const run_model *m)
{
    static const char key[] = "base_model_name_or_path";
    json_t *settings = NULL;
    dr_arena a = {0};
    const char *path = dr_path_join(&a, dir, "adapter/adapter_config.json");
    dr_status st = DR_OK;

    if (!dr_is_file(path))
        return DR_OK;
    DR_TRY(dr_json_read(&settings, path));
    const char *base = json_string_value(json_object_get(settings, key));
    base = base != NULL ? place_in(m, base) : NULL;
    if (base != NULL) {
        json_object_set_new(settings, key, json_string(dr_path_join(&a, final_dir, base)));
        DR_TRY(dr_json_write(path, settings));
    }
done:
    json_decref(settings);
    dr_arena_release(&a);
    return st;
}

/* A model's folder, dir until it is final_dir; its drupe.json comes last. */
static dr_status place(const char *dir, const char *final_dir, const run_model *m)
{
    json_t *chain = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_place_tree(dir, m->path));
    DR_TRY(name_base(dir, final_dir, m));
    DR_TRY(chain_json(&chain, m));
    DR_TRY(write_json(dir, "drupe.json", json_incref(chain)));
done:
    json_decref(chain);
    return st;
}

/* The candidates that work, at most as many as are asked for. */
static size_t kept_of(const run *r, const run_outcome *o)
{
    size_t n = 0;

    while (n < o->count && n < r->w.output_models && o->list[o->order[n]].error == NULL)
        n++;
    return n;
}

dr_status run_write(run *r, flow_result *out, const run_outcome *o)
{
    const run_model *best = o->list[o->order[0]].model;
    dr_arena *a = &out->arena;
    size_t kept = kept_of(r, o);
    dr_outdir *dir = NULL;
    dr_status st = DR_OK;

    DR_TRYF(dr_outdir_open(&dir, r->w.output_dir), "opening the output folder");
    const char *tmp = dr_outdir_tmp(dir);
    DR_TRYF(place(tmp, r->w.output_dir, best), "placing the best model");
    for (size_t i = 1; i < kept; i++) {
        const char *name = dr_arena_printf(a, "candidates/%zu", i + 1);
        DR_TRY(place(dr_path_join(a, tmp, name), dr_path_join(a, r->w.output_dir, name),
                     o->list[o->order[i]].model));
    }
    if (!r->w.no_artifacts)
        DR_TRY(write_artifacts(r, o, tmp, kept));
    for (size_t i = 0; i < r->w.package_count; i++)
        DR_TRYF(run_package(r, o, kept, tmp, &r->w.packages[i]), "packing %s",
                r->w.packages[i].name);
    DR_TRYF(dr_outdir_commit(dir), "committing %s", r->w.output_dir);
    out->model_path = dr_path_join(a, r->w.output_dir, "model");
    const char *adapter = dr_path_join(a, r->w.output_dir, "adapter");
    out->adapter_path = dr_is_dir(adapter) ? adapter : NULL;
done:
    dr_outdir_close(dir);
    return st;
}

/* ---- for people and programs ---- */

static json_t *candidate_json(const run *r, const run_candidate *c)
{
    json_t *figures = json_object();
    dr_arena a = {0};

    for (size_t i = 0; i < r->figure_count; i++)
        json_object_set_new(figures, r->figures[i]->key,
                            isfinite(c->values[i].value) ? json_real(c->values[i].value)
                                                         : json_null());
    json_t *j = json_pack("{s:O, s:o, s:o, s:o}", "choices", c->choices, "figures", figures,
                          "model_id",
                          c->model ? json_string(run_short_id(&a, c->model)) : json_null(),
                          "error", c->error ? json_string(c->error) : json_null());
    if (c->model != NULL && json_object_size(c->model->bounds) > 0)
        json_object_set(j, "confidence_95", c->model->bounds);
    if (c->model != NULL && c->model->unmeasured != NULL)
        json_object_set_new(j, "unmeasured", json_string(c->model->unmeasured));
    dr_arena_release(&a);
    return j;
}

static dr_status tell_candidate(dr_buf *text, const run *r, const run_candidate *c,
                                const char *mark)
{
    char *choices = json_dumps(c->choices, JSON_COMPACT);
    dr_arena a = {0};
    dr_status st = DR_OK;

    if (json_object_size(c->choices) > 0)
        DR_TRY(dr_buf_addf(text, "%-3s %s\n", mark, choices));
    if (c->error != NULL)
        DR_TRY(dr_buf_addf(text, "    failed: %s\n", c->error));
    else if (c->model->figures != NULL)
        DR_TRY(dr_buf_addf(text, "%-14s %s\n",
                           json_object_size(c->choices) > 0 ? "" : "output",
                           figures_text(&a, r, c->model)));
    if (c->model != NULL && c->model->unmeasured != NULL)
        DR_TRY(dr_buf_addf(text, "    %s\n", c->model->unmeasured));
done:
    free(choices);
    dr_arena_release(&a);
    return st;
}

dr_status run_tell_packages(const run *r, flow_result *out)
{
    json_t *list = json_array();
    dr_arena a = {0};
    dr_status st = DR_OK;

    for (size_t i = 0; i < r->w.package_count; i++) {
        const char *path = dr_path_join(&a, r->w.output_dir, r->w.packages[i].name);
        path = dr_arena_printf(&a, "%s.zip", path);
        json_array_append_new(list, json_string(path));
        DR_TRY(dr_buf_addf(&out->text, "package        %s\n", path));
    }
    if (r->w.package_count > 0)
        json_object_set(out->report, "packages", list);
done:
    json_decref(list);
    dr_arena_release(&a);
    return st;
}

dr_status run_tell(run *r, flow_result *out, const run_outcome *o)
{
    json_t *list = json_array();
    dr_arena a = {0};
    bool *front = front_of(r, o);
    size_t steps = 0, failed = 0, goals = 0;
    dr_status st = DR_OK;

    for (size_t i = 0; i < r->model_count; i++)
        steps += r->models[i]->cached;
    for (size_t i = 0; i < r->figure_count; i++)
        goals += r->judged[i].limited;
    if (r->w.id != NULL)
        json_object_set_new(out->report, "workflow_id", json_string(r->w.id));
    json_object_set_new(out->report, "candidates", list);
    if (r->input.figures != NULL)
        DR_TRY(
            dr_buf_addf(&out->text, "input          %s\n", figures_text(&a, r, &r->input)));
    for (size_t i = 0; i < o->count; i++) { /* without an order past the first: by number */
        const run_candidate *c = &o->list[o->order[i]];
        failed += c->error != NULL;
        json_array_append_new(list, candidate_json(r, c));
        DR_TRY(tell_candidate(&out->text, r, c, front[o->order[i]] ? "*" : ""));
    }
    if (o->count > 1)
        DR_TRY(dr_buf_addf(&out->text, "* not beaten in every figure by another one\n"));
    DR_TRY(dr_buf_addf(&out->text, "candidates     %zu of %zu, %zu failed%s%s\n", o->count,
                       o->space, failed, o->stopped ? ": " : "",
                       o->stopped ? o->stopped : ""));
    DR_TRY(dr_buf_addf(&out->text, "steps          %zu, %zu from the cache\n",
                       r->model_count, steps));
    if (goals > 0)
        DR_TRY(dr_buf_addf(&out->text, "goals          met by %zu\n", o->met));
    if (failed > 0)
        dr_warn_result("%zu of %zu candidates failed; the result has the reasons", failed,
                       o->count);
    if (goals > 0 && o->met == 0)
        dr_warn_result("no candidate meets all goals; the best of the others is taken");
    json_object_set_new(out->report, "goals_met", json_boolean(o->met > 0 || goals == 0));
    json_object_set_new(out->report, "steps", json_integer((json_int_t)r->model_count));
    json_object_set_new(out->report, "steps_cached", json_integer((json_int_t)steps));
    json_object_set_new(out->report, "model_path", json_string(out->model_path));
    DR_TRY(run_tell_packages(r, out));
done:
    free(front);
    dr_arena_release(&a);
    return st;
}
