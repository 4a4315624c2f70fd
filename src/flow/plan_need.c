/*
 * plan_need.c - what the passes of a workflow will need, for a plan: memory, and a rough
 * time, of each on the model that goes in.  A pass's own estimate says it; those on graphs
 * have none, since their time is that of reading and writing the weights.
 */
#include "flow/run_impl.h"
#include "hf/hf.h"

/* Its parameters, of each list the first value. */
static dr_status first_config(json_t **out, void **cfg, unsigned char **given, dr_arena *a,
                              const wf_alternative *alt)
{
    const pass_def *d = alt->def;
    dr_status st = DR_OK;

    *out = json_copy(alt->fixed);
    for (size_t i = 0; i < alt->choice_count; i++)
        json_object_set(*out, alt->choices[i].name,
                        json_array_get(alt->choices[i].values, 0));
    *cfg = dr_arena_alloc(a, 1, d->config_size);
    *given = dr_arena_alloc(a, d->params_count, 1);
    dr_params_defaults(d->params, d->params_count, *cfg);
    DR_TRY(dr_params_from_json(d->params, d->params_count, *cfg, *out, d->name, *given, a));
done:
    return st;
}

static dr_status need_of(pass_need *need, dr_arena *a, const run *r, const pass_model *in,
                         const wf_alternative *alt)
{
    json_t *config = NULL;
    void *cfg = NULL;
    unsigned char *given = NULL;
    dr_status st = DR_OK;

    *need = (pass_need){0};
    DR_TRY(first_config(&config, &cfg, &given, a, alt));
    const pass_job job = {.def = alt->def,
                          .config = cfg,
                          .given = given,
                          .data = &alt->data,
                          .eval = alt->has_eval ? &alt->eval : NULL,
                          .threads = r->o->threads,
                          .arena = a};
    DR_TRY(alt->def->estimate(&job, in, need));
done:
    json_decref(config);
    return st;
}

/* The estimates of a pass's alternatives, where it has not been told in another flow. */
static dr_status tell_pass(flow_result *out, json_t *list, dr_arena *a, const run *r,
                           const pass_model *in, const wf_pass *p)
{
    dr_status st = DR_OK;

    for (size_t k = 0; k < p->count; k++) {
        const wf_alternative *alt = &p->alternatives[k];
        pass_need need;
        if (alt->def->estimate == NULL || alt->def->takes != PASS_MODEL_HF)
            continue;
        DR_TRYF(need_of(&need, a, r, in, alt), "estimating %s", alt->def->name);
        DR_TRY(dr_buf_addf(&out->text, "estimate       %s: %.0f MB of memory, %.1f s\n",
                           alt->def->name, (double)need.memory / 1e6, need.seconds));
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:I, s:f}", "pass", p->name, "type",
                                        alt->def->name, "memory_bytes",
                                        (json_int_t)need.memory, "seconds", need.seconds));
    }
done:
    return st;
}

dr_status run_most_memory(uint64_t *bytes, const run *r)
{
    const flow_spec spec = {.model = r->input.path, .adapters = r->input.adapters};
    pass_model in = {0};
    pass_need need = {0};
    double own = 0;
    dr_arena a = {0};
    dr_status st = DR_OK;

    DR_TRY(run_bytes(&own, &r->input));
    *bytes = (uint64_t)(2 * own);
    if (run_first_pass(r)->takes != PASS_MODEL_HF)
        goto done;
    *bytes = 0;
    DR_TRY(flow_open_input(&in, &a, &spec, PASS_MODEL_HF));
    DR_TRY(hf_resolve(&a, &in.path, spec.model));
    for (size_t f = 0; f < r->w.flow_count; f++)
        for (size_t i = 0; i < r->w.flows[f].count; i++) {
            const wf_pass *p = r->w.flows[f].passes[i];
            for (size_t k = 0; k < p->count; k++) {
                const pass_def *d = p->alternatives[k].def;
                if (d->estimate == NULL || d->takes != PASS_MODEL_HF)
                    continue;
                DR_TRYF(need_of(&need, &a, r, &in, &p->alternatives[k]), "estimating %s",
                        d->name);
                *bytes = need.memory > *bytes ? need.memory : *bytes;
            }
        }
done:
    dr_arena_release(&a);
    return st;
}

/* Whether an earlier flow than f has it. */
static bool is_told(const workflow *w, size_t f, const wf_pass *p)
{
    for (size_t i = 0; i < f; i++)
        for (size_t k = 0; k < w->flows[i].count; k++)
            if (w->flows[i].passes[k] == p)
                return true;
    return false;
}

dr_status run_tell_need(const run *r, flow_result *out)
{
    const flow_spec spec = {.model = r->input.path, .adapters = r->input.adapters};
    json_t *list = json_array();
    pass_model in = {0};
    dr_arena a = {0};
    dr_status st = DR_OK;

    if (run_first_pass(r)->takes != PASS_MODEL_HF)
        goto done;
    DR_TRY(flow_open_input(&in, &a, &spec, PASS_MODEL_HF));
    DR_TRY(hf_resolve(&a, &in.path, spec.model));
    for (size_t f = 0; f < r->w.flow_count; f++)
        for (size_t i = 0; i < r->w.flows[f].count; i++)
            if (!is_told(&r->w, f, r->w.flows[f].passes[i]))
                DR_TRY(tell_pass(out, list, &a, r, &in, r->w.flows[f].passes[i]));
    json_object_set(out->report, "estimates", list);
done:
    json_decref(list);
    dr_arena_release(&a);
    return st;
}
