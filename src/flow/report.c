/*
 * report.c - report.html of a workflow: the best candidate and how to make it, the Pareto
 * chart, all candidates, what the passes took.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "flow/run_impl.h"

enum { PAGE_MAX = 64 << 20 };

/* "bits 4, group_size 32": a candidate for people. */
static const char *choices_text(dr_arena *a, const json_t *choices)
{
    const char *key, *text = "";
    json_t *v;

    json_object_foreach((json_t *)(uintptr_t)choices, key, v)
    {
        char *value =
            json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(6));
        const char *plain = json_is_string(v) ? json_string_value(v) : value;
        text = dr_arena_printf(a, "%s%s%s %s", text, *text ? ", " : "", key, plain);
        free(value);
    }
    return *text ? text : "all passes as they are";
}

static const char *value_text(dr_arena *a, const run_value *v)
{
    if (!isfinite(v->value))
        return "";
    if (v->low < v->high)
        return dr_arena_printf(a, "%.5g (%.5g to %.5g)", v->value, v->low, v->high);
    return dr_arena_printf(a, "%.6g", v->value);
}

/* ---- the best ---- */

static dr_status tell_best(dr_buf *b, dr_arena *a, const run *r, const run_candidate *c)
{
    const size_t m = r->figure_count;
    const char **cells = dr_arena_alloc(a, 4 * (m + 1), sizeof(*cells));
    dr_status st = DR_OK;

    DR_TRY(page_section(b, "The best candidate", choices_text(a, c->choices)));
    if (m == 0)
        goto done;
    cells[0] = "figure";
    cells[1] = "value (95 % interval)";
    cells[2] = "input model";
    cells[3] = "limit";
    for (size_t i = 0; i < m; i++) {
        const json_t *v = json_object_get(r->input.figures, r->figures[i]->key);
        const search_figure *f = &r->judged[i];
        cells[4 * i + 4] = r->figures[i]->key;
        cells[4 * i + 5] = value_text(a, &c->values[i]);
        cells[4 * i + 6] =
            json_is_number(v) ? dr_arena_printf(a, "%.6g", json_number_value(v)) : "";
        cells[4 * i + 7] =
            f->limited
                ? dr_arena_printf(a, "%s %.6g",
                                  f->higher_is_better ? "at least" : "at most", f->limit)
                : "";
    }
    DR_TRY(page_table(b, cells, m + 1, 4));
done:
    return st;
}

/* The same model, pass by pass. */
static dr_status tell_commands(dr_buf *b, dr_arena *a, const run_model *m)
{
    const run_model *chain[64];
    const char *in = "MODEL";
    size_t n = 0;
    dr_status st = DR_OK;

    for (; m->def != NULL && n < DR_COUNT(chain); m = m->parent)
        chain[n++] = m;
    DR_TRY(page_section(b, "How to make it", "From the input model, here MODEL:"));
    DR_TRY(dr_buf_adds(b, "<pre>"));
    for (size_t i = n; i-- > 0;) {
        char *config = json_dumps(chain[i]->config, JSON_COMPACT | JSON_REAL_PRECISION(17));
        const char *out = i == 0 ? "OUTPUT" : dr_arena_printf(a, "step-%zu", n - i);
        st = page_text(
            b, dr_arena_printf(
                   a, "drupe run-pass --pass_name %s --pass_config '%s' -m %s -o %s\n",
                   chain[i]->def->name, config, in, out));
        free(config);
        DR_TRY(st);
        in = out;
    }
    DR_TRY(dr_buf_adds(b, "</pre>\n"));
done:
    return st;
}

/* ---- the chart ---- */

/* The figures with the first and the second priority, else any others. */
static size_t axis(const run *r, size_t other)
{
    size_t found = SIZE_MAX;

    for (size_t i = 0; i < r->figure_count; i++) {
        int p = r->figures[i]->priority;
        if (i == other)
            continue;
        if (found == SIZE_MAX ||
            (p > 0 && (r->figures[found]->priority < 1 || p < r->figures[found]->priority)))
            found = i;
    }
    return found;
}

static const char *axis_name(dr_arena *a, const run *r, size_t figure)
{
    return dr_arena_printf(a, "%s (%s is better)", r->figures[figure]->key,
                           r->figures[figure]->higher_is_better ? "more" : "less");
}

static dr_status tell_front(dr_buf *b, dr_arena *a, const run *r, const run_outcome *o,
                            const bool *front)
{
    const size_t y = axis(r, SIZE_MAX), x = axis(r, y);
    page_point *points = dr_arena_alloc(a, o->count + 1, sizeof(*points));
    size_t n = 0;
    dr_status st = DR_OK;

    for (size_t i = 0; x != SIZE_MAX && i < o->count; i++) {
        const size_t at = o->order[i];
        const run_candidate *c = &o->list[at];
        if (c->error == NULL && isfinite(c->values[x].value) &&
            isfinite(c->values[y].value))
            points[n++] = (page_point){.x = c->values[x].value,
                                       .y = c->values[y].value,
                                       .number = i + 1,
                                       .name = choices_text(a, c->choices),
                                       .front = front[at],
                                       .best = i == 0};
    }
    if (n < 2)
        return DR_OK;
    DR_TRY(page_section(b, "Candidates over two figures",
                        "The line goes through those that no other one beats in every "
                        "figure with a priority; the ring is around the best."));
    DR_TRY(page_scatter(b, points, n, axis_name(a, r, x), axis_name(a, r, y)));
done:
    return st;
}

/* ---- tables ---- */

static dr_status tell_all(dr_buf *b, dr_arena *a, const run *r, const run_outcome *o,
                          const bool *front)
{
    const size_t wide = r->figure_count + 3;
    const char **cells = dr_arena_alloc(a, wide * (o->count + 1), sizeof(*cells));
    dr_status st = DR_OK;

    cells[0] = "number";
    cells[1] = "choices";
    for (size_t k = 0; k < r->figure_count; k++)
        cells[2 + k] = r->figures[k]->key;
    cells[wide - 1] = "";
    for (size_t i = 0; i < o->count; i++) {
        const run_candidate *c = &o->list[o->order[i]];
        const char **row = cells + wide * (i + 1);
        row[0] = dr_arena_printf(a, "%zu%s", i + 1, front[o->order[i]] ? " *" : "");
        row[1] = choices_text(a, c->choices);
        for (size_t k = 0; k < r->figure_count; k++)
            row[2 + k] = value_text(a, &c->values[k]);
        row[wide - 1] = c->error != NULL               ? c->error
                        : c->model->unmeasured != NULL ? c->model->unmeasured
                                                       : "";
    }
    DR_TRY(page_section(b, "All candidates", "Best first; * no other one beats it."));
    DR_TRY(dr_buf_adds(b, "<div class=\"w\">\n"));
    DR_TRY(page_table(b, cells, o->count + 1, wide));
    DR_TRY(dr_buf_adds(b, "</div>\n"));
done:
    return st;
}

/* What each pass took, over all models that this run made with it. */
static dr_status tell_times(dr_buf *b, dr_arena *a, const run *r)
{
    const char **cells = dr_arena_alloc(a, 5 * (r->model_count + 1), sizeof(*cells));
    const pass_def **seen = dr_arena_alloc(a, r->model_count + 1, sizeof(*seen));
    static const char *const head[] = {"pass", "models", "from the cache", "seconds",
                                       "seconds, the slowest"};
    size_t n = 0;
    dr_status st = DR_OK;

    memcpy(cells, head, sizeof(head));
    for (size_t i = 0; i < r->model_count; i++) {
        const pass_def *d = r->models[i]->def;
        size_t made = 0, cached = 0, k = 0;
        double sum = 0, most = 0;
        while (k < n && seen[k] != d)
            k++;
        if (k < n)
            continue;
        seen[n++] = d;
        for (size_t j = i; j < r->model_count; j++) {
            const run_model *m = r->models[j];
            if (m->def != d)
                continue;
            made++;
            cached += m->cached;
            sum += m->end_s - m->start_s;
            most = fmax(most, m->end_s - m->start_s);
        }
        const char **row = cells + 5 * n;
        row[0] = d->name;
        row[1] = dr_arena_printf(a, "%zu", made);
        row[2] = dr_arena_printf(a, "%zu", cached);
        row[3] = made > cached ? dr_arena_printf(a, "%.3f", sum) : "";
        row[4] = made > cached ? dr_arena_printf(a, "%.3f", most) : "";
    }
    DR_TRY(page_section(b, "What the passes took", NULL));
    DR_TRY(page_table(b, cells, n + 1, 5));
done:
    return st;
}

dr_status run_report(const run *r, const run_outcome *o, const bool *front, const char *dir)
{
    const run_candidate *best = &o->list[o->order[0]];
    dr_arena a = {0};
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, PAGE_MAX);
    DR_TRY(page_begin(&b, r->w.id != NULL ? r->w.id : "A workflow's candidates"));
    if (o->met == 0)
        DR_TRY(page_section(&b, "No candidate meets all goals",
                            "What follows is the best of the others."));
    DR_TRY(tell_best(&b, &a, r, best));
    DR_TRY(tell_commands(&b, &a, best->model));
    DR_TRY(tell_front(&b, &a, r, o, front));
    if (o->count > 1)
        DR_TRY(tell_all(&b, &a, r, o, front));
    DR_TRY(tell_times(&b, &a, r));
    DR_TRY(page_end(&b));
    DR_TRY(dr_write_file(dr_path_join(&a, dir, "report.html"), b.data, b.len));
done:
    dr_buf_release(&b);
    dr_arena_release(&a);
    return st;
}
