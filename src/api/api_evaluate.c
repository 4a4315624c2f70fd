/*
 * api_evaluate.c - judging a model, alone or beside another.
 */
#include "api/drupe_impl.h"

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
                         .threads = e->threads};
    flow_result made = {0};
    dr_status st = DR_OK;

    *out = NULL;
    dr_trail_clear();
    DR_TRY(api_data(&f.data, &e->data));
    DR_TRY(flow_evaluate(&made, &f));
done:
    return api_result_taken(out, &made, st);
}
