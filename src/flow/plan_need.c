/*
 * plan_need.c - what the passes of a workflow will need, for a plan: memory, and a rough
 * time, of each on the model that goes in.  A pass's own estimate says it; those on graphs
 * have none, since their time is that of reading and writing the weights.
 */
#include "flow/run_impl.h"
#include "hf/hf.h"

/* The estimate of an alternative, of each list of values with the first. */
static dr_status need_of(pass_need *need, dr_arena *a, const run *r, const pass_model *in,
                         const wf_alternative *alt)
{
    json_t *config = json_copy(alt->fixed);
    void *cfg = NULL;
    unsigned char *given = NULL;
    dr_status st = DR_OK;

    *need = (pass_need){0};
    for (size_t i = 0; i < alt->choice_count; i++)
        json_object_set(config, alt->choices[i].name,
                        json_array_get(alt->choices[i].values, 0));
    DR_TRY(wf_config(&cfg, &given, a, alt->def, config));
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

/* The estimates of a pass's alternatives. */
static dr_status add_needs(json_t *list, dr_arena *a, const run *r, const pass_model *in,
                           const wf_pass *p)
{
    dr_status st = DR_OK;

    for (size_t k = 0; k < p->count; k++) {
        const wf_alternative *alt = &p->alternatives[k];
        pass_need need;
        if (alt->def->estimate == NULL || alt->def->takes != PASS_MODEL_HF)
            continue;
        DR_TRYF(need_of(&need, a, r, in, alt), "estimating %s", alt->def->name);
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:I, s:f}", "pass", p->name, "type",
                                        alt->def->name, "memory_bytes",
                                        (json_int_t)need.memory, "seconds", need.seconds));
    }
done:
    return st;
}

/* The estimates of all passes on the model that goes in, a Hugging Face model; a pass of
 * several flows once. */
static dr_status all_needs(json_t *list, const run *r)
{
    const flow_spec spec = {.model = r->input.path, .adapters = r->input.adapters};
    pass_model in = {0};
    dr_arena a = {0};
    dr_status st = DR_OK;

    DR_TRY(flow_open_input(&in, &a, &spec, PASS_MODEL_HF));
    DR_TRY(hf_resolve(&a, &in.path, spec.model));
    for (size_t f = 0; f < r->w.flow_count; f++)
        for (size_t i = 0; i < r->w.flows[f].count; i++)
            if (!wf_in_flows(&r->w, f, r->w.flows[f].passes[i]))
                DR_TRY(add_needs(list, &a, r, &in, r->w.flows[f].passes[i]));
done:
    dr_arena_release(&a);
    return st;
}

dr_status run_most_memory(uint64_t *bytes, const run *r)
{
    json_t *list = json_array(), *need;
    double own = 0;
    size_t i;
    dr_status st = DR_OK;

    DR_TRY(run_bytes(&own, &r->input));
    *bytes = (uint64_t)(2 * own);
    if (run_first_pass(r)->takes != PASS_MODEL_HF)
        goto done;
    *bytes = 0;
    DR_TRY(all_needs(list, r));
    json_array_foreach(list, i, need)
    {
        const uint64_t n =
            (uint64_t)json_integer_value(json_object_get(need, "memory_bytes"));
        *bytes = n > *bytes ? n : *bytes;
    }
done:
    json_decref(list);
    return st;
}

dr_status run_tell_need(const run *r, flow_result *out)
{
    json_t *list = json_array(), *need;
    size_t i;
    dr_status st = DR_OK;

    if (run_first_pass(r)->takes != PASS_MODEL_HF)
        goto done;
    DR_TRY(all_needs(list, r));
    json_array_foreach(list, i, need)
    {
        DR_TRY(dr_buf_addf(
            &out->text, "estimate       %s: %.0f MB of memory, %.1f s\n",
            json_string_value(json_object_get(need, "type")),
            (double)json_integer_value(json_object_get(need, "memory_bytes")) / 1e6,
            json_real_value(json_object_get(need, "seconds"))));
    }
    json_object_set(out->report, "estimates", list);
done:
    json_decref(list);
    return st;
}
