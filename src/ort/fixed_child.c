/*
 * fixed_child.c - a model of fixed shapes run over a text, window after window.
 *
 *     past  [ .  .  .  a  b ]  new [ c  d ]   attention_mask 0 0 0 1 1 1 1
 *     next  [ .  a  b  c  d ]  new [ e  f ]                  0 1 1 1 1 1 1
 *
 * The cache has a row of tokens somewhere among its dims: [outer, tokens, inner].  Either
 * the output is past and new, or (bytes) only what is new; both ways its end is pushed into
 * the past.
 *
 * On the CPU the graph is run as it is written, without the runtime's optimizations: these
 * round values to 8 bits where a DequantizeLinear feeds a MatMul (4 % of the logits of
 * small models), and what is asked here is what the graph says.
 */
#include "ort/fixed_impl.h"

#include <math.h>
#include <string.h>

#include "core/file.h"
#include "core/mem.h"
#include "ort/api_impl.h"
#include "ort/plugin_impl.h"

enum { CACHE_MAX = 2048 };

/* One tensor of the cache. */
typedef struct {
    size_t input;       /* among the inputs */
    const char *output; /* arena */
    size_t outer, tokens, inner_bytes;
} cache_row;

typedef struct {
    dr_arena arena;
    ort_session *session; /* owned */
    const char *path;
    ort_value *inputs; /* arena */
    size_t input_count, ids, mask, positions;
    cache_row *cache; /* arena */
    size_t cache_count;
    const char **outputs; /* arena: logits or scalars, then the cache's */
    size_t output_count;
    ort_value *values;     /* arena: of the last run */
    size_t seq, total, at; /* at: tokens since the cache was emptied */
} fixed;

/* ---- opening ---- */

static size_t product(const int64_t *dims, int from, int to)
{
    size_t n = 1;

    for (int i = from; i < to; i++)
        n *= (size_t)dims[i];
    return n;
}

static dr_status add_input(fixed *f, size_t i)
{
    ort_value *v = &f->inputs[i];
    bool optional = false;
    dr_status st = DR_OK;

    DR_TRY(ort_session_input(f->session, i, v, &optional));
    v->bytes = dr_dtype_bytes(v->dtype);
    for (int d = 0; d < v->ndim; d++)
        if (v->dims[d] < 1 || !dr_mul(&v->bytes, v->bytes, (size_t)v->dims[d]))
            DR_FAIL(DR_EFORMAT, "%s: input %s is not of a fixed shape", f->path, v->name);
    DR_TRY(dr_arena_big(&f->arena, &v->data, v->bytes, 1, v->name));
done:
    return st;
}

/* "past_key_values.0.key" and "present.0.key". */
static void add_cache(fixed *f, size_t i)
{
    const ort_value *v = &f->inputs[i];
    const char *rest = v->name + strlen("past_key_values");
    const bool key = strstr(rest, ".key") != NULL;
    const int axis = v->dtype == DR_DTYPE_U8 && key ? 3 : 2;

    f->cache[f->cache_count++] = (cache_row){
        .input = i,
        .output = dr_arena_printf(&f->arena, "present%s", rest),
        .outer = product(v->dims, 0, axis),
        .tokens = (size_t)v->dims[axis],
        .inner_bytes = product(v->dims, axis + 1, 4) * dr_dtype_bytes(v->dtype)};
}

static dr_status read_inputs(fixed *f)
{
    const size_t none = f->input_count;
    dr_status st = DR_OK;

    f->ids = f->mask = f->positions = none;
    for (size_t i = 0; i < f->input_count; i++) {
        DR_TRY(add_input(f, i));
        const char *name = f->inputs[i].name;
        if (strcmp(name, "input_ids") == 0)
            f->ids = i;
        else if (strcmp(name, "attention_mask") == 0)
            f->mask = i;
        else if (strcmp(name, "position_ids") == 0)
            f->positions = i;
        else if (strncmp(name, "past_key_values.", 16) == 0 && f->inputs[i].ndim == 4)
            add_cache(f, i);
        else
            DR_FAIL(DR_EFORMAT, "%s: input %s is none that is known", f->path, name);
    }
    if (f->ids == none || f->mask == none || f->positions == none ||
        f->inputs[f->ids].ndim != 2 || f->inputs[f->mask].ndim != 2)
        DR_FAIL(DR_EFORMAT, "%s: it has not input_ids, attention_mask and position_ids",
                f->path);
    f->seq = (size_t)f->inputs[f->ids].dims[1];
    f->total = (size_t)f->inputs[f->mask].dims[1];
done:
    return st;
}

static dr_status fixed_open(fixed *f, const ort_fixed_model *m, int threads,
                            const char *const *names, size_t name_count, bool *wholly)
{
    dr_status st = DR_OK;

    f->path = m->model_path;
    *wholly = true;
    if (m->provider == NULL)
        DR_TRY(ort_session_open(&f->session, m->model_path, threads, false));
    else
        DR_TRY(
            ort_session_open_on(&f->session, m->model_path, threads, m->provider, wholly));
    f->input_count = ort_session_input_count(f->session);
    f->inputs = dr_arena_alloc(&f->arena, f->input_count + 1, sizeof(*f->inputs));
    f->cache = dr_arena_alloc(&f->arena, f->input_count + 1, sizeof(*f->cache));
    DR_TRY(read_inputs(f));
    f->outputs =
        dr_arena_alloc(&f->arena, name_count + f->cache_count + 1, sizeof(*f->outputs));
    f->values =
        dr_arena_alloc(&f->arena, name_count + f->cache_count + 1, sizeof(*f->values));
    for (size_t i = 0; i < name_count; i++)
        f->outputs[f->output_count++] = names[i];
    for (size_t i = 0; i < f->cache_count; i++)
        f->outputs[f->output_count++] = f->cache[i].output;
done:
    return st;
}

static void fixed_close(fixed *f)
{
    ort_values_release(f->values, f->values != NULL ? f->output_count : 0);
    ort_session_close(f->session);
    dr_arena_release(&f->arena);
}

/* ---- a window ---- */

static void put_int(ort_value *v, size_t i, int64_t x)
{
    if (v->dtype == DR_DTYPE_I64)
        ((int64_t *)v->data)[i] = x;
    else
        ((int32_t *)v->data)[i] = (int32_t)x;
}

static void fill(fixed *f, const int32_t *ids)
{
    const size_t rows = (size_t)f->inputs[f->ids].dims[0];
    const size_t seen = f->at + f->seq;

    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < f->seq; i++) {
            put_int(&f->inputs[f->ids], r * f->seq + i, ids[i]);
            put_int(&f->inputs[f->positions], r * f->seq + i, (int64_t)(f->at + i));
        }
        for (size_t i = 0; i < f->total; i++)
            put_int(&f->inputs[f->mask], r * f->total + i, i + seen >= f->total);
    }
}

/* The end of what came out becomes the end of the past. */
static dr_status push(fixed *f, const cache_row *c, const ort_value *v)
{
    char *past = f->inputs[c->input].data;
    const char *present = v->data;
    const size_t row = c->inner_bytes, there = v->bytes / (c->outer * row);
    const size_t take = there < c->tokens ? there : c->tokens;

    if (v->bytes != c->outer * there * row || (there != f->total && there != f->seq))
        return dr_fail(DR_EFORMAT, "%s: output %s has not the shape of the cache", f->path,
                       v->name);
    for (size_t o = 0; o < c->outer; o++) {
        char *to = past + o * c->tokens * row;
        memmove(to, to + take * row, (c->tokens - take) * row);
        memcpy(to + (c->tokens - take) * row, present + ((o + 1) * there - take) * row,
               take * row);
    }
    return DR_OK;
}

/* The next S tokens; f->values has what came out until the next call. */
static dr_status step(fixed *f, const int32_t *ids)
{
    dr_status st = DR_OK;

    ort_values_release(f->values, f->output_count);
    if (f->at + f->seq > f->total) {
        f->at = 0;
        for (size_t i = 0; i < f->cache_count; i++)
            memset(f->inputs[f->cache[i].input].data, 0,
                   f->inputs[f->cache[i].input].bytes);
    }
    fill(f, ids);
    DR_TRY(ort_session_run(f->session, f->inputs, f->input_count, f->outputs, f->values,
                           f->output_count));
    for (size_t i = 0; i < f->cache_count; i++)
        DR_TRY(push(f, &f->cache[i], &f->values[f->output_count - f->cache_count + i]));
    f->at += f->seq;
done:
    return st;
}

static dr_status check_count(const fixed *f, size_t count)
{
    if (count == 0 || count % f->seq != 0)
        return dr_fail(DR_EUSAGE, "%s: %zu tokens are no multiple of its %zu", f->path,
                       count, f->seq);
    return DR_OK;
}

/* ---- ranges ---- */

static dr_status ranges(const fixed_job *j)
{
    const size_t n = j->name_count;
    dr_arena a = {0};
    const char **names = dr_arena_alloc(&a, 2 * n + 1, sizeof(*names));
    fixed f = {0};
    bool wholly = false;
    dr_status st = DR_OK;

    for (size_t i = 0; i < n; i++) {
        names[i] = dr_arena_printf(&a, "%s.min", j->names[i]);
        names[n + i] = dr_arena_printf(&a, "%s.max", j->names[i]);
    }
    DR_TRY(fixed_open(&f, &j->request->model, j->request->threads, names, 2 * n, &wholly));
    DR_TRY(check_count(&f, j->request->count));
    for (size_t at = 0; at < j->request->count; at += f.seq) {
        DR_TRY(step(&f, j->request->ids + at));
        for (size_t i = 0; i < n; i++) {
            const float least = *(const float *)f.values[i].data;
            const float largest = *(const float *)f.values[n + i].data;
            if (!(least >= j->least[i]))
                j->least[i] = least;
            if (!(largest <= j->largest[i]))
                j->largest[i] = largest;
        }
    }
done:
    fixed_close(&f);
    dr_arena_release(&a);
    return st;
}

/* ---- comparing ---- */

static size_t top(const float *v, size_t n)
{
    size_t best = 0;

    for (size_t i = 1; i < n; i++)
        best = v[i] > v[best] ? i : best;
    return best;
}

static dr_status compare_logits(ort_fixed_result *r, const fixed *f, const fixed *g)
{
    const ort_value *a = &f->values[0], *b = &g->values[0];
    const size_t vocab = a->ndim == 3 ? (size_t)a->dims[2] : 0;

    if (a->dtype != DR_DTYPE_F32 || b->dtype != DR_DTYPE_F32 || a->bytes != b->bytes ||
        vocab == 0 || a->bytes < f->seq * vocab * sizeof(float))
        return dr_fail(DR_EFORMAT, "%s and %s: their logits are not alike", f->path,
                       g->path);
    for (size_t t = 0; t < f->seq; t++) {
        const float *x = (const float *)a->data + t * vocab;
        const float *y = (const float *)b->data + t * vocab;
        for (size_t i = 0; i < vocab; i++) {
            const double d = fabs((double)x[i] - (double)y[i]);
            if (!isfinite(d))
                return dr_fail(DR_EDEVICE, "%s: logit %zu of token %zu is not finite",
                               f->path, i, t);
            r->max_diff = d > r->max_diff ? d : r->max_diff;
        }
        r->same_top += top(x, vocab) == top(y, vocab);
        r->tokens++;
    }
    return DR_OK;
}

static dr_status compare(const fixed_job *j)
{
    static const char *const logits[] = {"logits"};
    const ort_fixed_request *q = j->request;
    fixed f = {0}, g = {0};
    dr_status st = DR_OK;

    DR_TRY(fixed_open(&f, &q->model, q->threads, logits, 1, &j->result->wholly));
    DR_TRY(fixed_open(&g, j->other, q->threads, logits, 1, &j->result->other_wholly));
    DR_TRY(check_count(&f, q->count));
    if (f.seq != g.seq || f.total != g.total)
        DR_FAIL(DR_EUSAGE, "%s and %s are of different shapes", f.path, g.path);
    for (size_t at = 0; at < q->count; at += f.seq) {
        DR_TRY(step(&f, q->ids + at));
        DR_TRY(step(&g, q->ids + at));
        DR_TRY(compare_logits(j->result, &f, &g));
    }
done:
    fixed_close(&f);
    fixed_close(&g);
    return st;
}

dr_status fixed_run(const void *job, bool *runtime)
{
    const fixed_job *j = job;
    const char *providers[2] = {j->request->model.provider,
                                j->other != NULL ? j->other->provider : NULL};
    ort_runtime r = {0};
    dr_status st = DR_OK;

    *runtime = false;
    DR_TRY(ort_runtime_open(&r));
    for (int i = 0; i < 2; i++)
        if (providers[i] != NULL)
            DR_TRY(plugin_register(&r, providers[i]));
    *runtime = true;
    DR_TRY(j->other != NULL ? compare(j) : ranges(j));
done:
    ort_runtime_close(&r);
    return st;
}
