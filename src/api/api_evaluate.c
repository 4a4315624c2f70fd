/*
 * api_evaluate.c - judging a model, alone or beside another.
 */
#include "api/drupe_impl.h"

drupe_status drupe_benchmark(drupe_result **out, const drupe_benchmark_options *o)
{
    const flow_benchmark_options f = {.model = o->model != NULL ? o->model : "",
                                      .reference = o->reference,
                                      .adapter = o->adapter,
                                      .tasks = o->tasks,
                                      .limit = o->limit,
                                      .max_length = o->max_length,
                                      .backend = o->backend,
                                      .device = o->device,
                                      .prompt_tokens =
                                          o->prompt_tokens > 0 ? o->prompt_tokens : 64,
                                      .new_tokens = o->new_tokens > 0 ? o->new_tokens : 16,
                                      .warmup = o->warmup,
                                      .repeats = o->repeats > 0 ? o->repeats : 20,
                                      .threads = o->threads};
    flow_result made = {0};
    dr_status st = DR_OK;

    *out = NULL;
    dr_trail_clear();
    st = flow_benchmark(&made, &f);
    return api_result_taken(out, &made, st);
}

drupe_status drupe_evaluate(drupe_result **out, const drupe_evaluation *e)
{
    flow_evaluation f = {.model = e->model != NULL ? e->model : "",
                         .reference = e->reference,
                         .adapter = e->adapter,
                         .task = e->task,
                         .max_new_tokens = e->max_new_tokens,
                         .max_kl = e->max_kl,
                         .max_perplexity = e->max_perplexity,
                         .device = e->device,
                         .threads = e->threads,
                         .ranks = e->ranks};
    flow_result made = {0};
    dr_status st = DR_OK;

    *out = NULL;
    dr_trail_clear();
    DR_TRY(api_data(&f.data, &e->data));
    DR_TRY(flow_evaluate(&made, &f));
done:
    return api_result_taken(out, &made, st);
}
