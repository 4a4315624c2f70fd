/*
 * run.c - a workflow file, from the first line to the output folder.
 *
 *   read   everything that can be wrong with the file is said here
 *   input  found, hashed, judged where goals or the user ask for it
 *   search all candidates, or pass by pass; without a strategy there is one
 *   write  the best as a folder, in one exchange
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/file.h"
#include "core/json.h"
#include "core/log.h"
#include "flow/run_impl.h"
#include "hf/hf.h"

const pass_def *run_first_pass(const run *r)
{
    return r->w.flows[0].passes[0]->alternatives[0].def;
}

/* A vendor's model is run by the vendor's runtime, which is not here. */
static dr_status refuse_vendors(const run *r, const wf_metric *m, const wf_pass *p)
{
    dr_status st =
        dr_node_fail(&r->w.doc, m->node,
                     "the pass %s gives %s, which nothing here runs: no %s is measured "
                     "of it",
                     p->name, flow_kind_text(p->alternatives[0].def->gives), m->name);

    dr_hint("size_on_disk and a command of your own can be measured of it");
    return st;
}

/* A figure that nothing of this workflow can have. */
static dr_status check_metric(const run *r, const wf_metric *m)
{
    const workflow *w = &r->w;
    dr_status st = DR_OK;

    for (size_t f = 0; f < w->flow_count; f++)
        for (size_t i = 0; i < w->flows[f].count; i++) {
            const wf_pass *p = w->flows[f].passes[i];
            bool judged = i + 1 == w->flows[f].count || w->pass_by_pass;
            const pass_kind gives = p->alternatives[0].def->gives;
            if (judged && m->kind != WF_SIZE && m->kind != WF_CUSTOM &&
                pass_kind_is_vendors(gives))
                DR_TRY(refuse_vendors(r, m, p));
            if (judged && run_is_timed(m) && gives != PASS_MODEL_ONNX)
                DR_TRY(dr_node_fail(
                    &w->doc, m->node,
                    "ONNX models are timed, and the pass %s gives another one", p->name));
        }
    pass_kind takes = run_first_pass(r)->takes;
    for (size_t k = 0; run_is_timed(m) && k < m->figure_count; k++)
        if (search_goal_needs_baseline(m->figures[k].goal) && takes != PASS_MODEL_ONNX)
            DR_TRY(dr_node_fail(&w->doc, m->figures[k].node,
                                "this goal counts from the input model, which is no ONNX "
                                "model and is not timed; give a threshold"));
done:
    return st;
}

static dr_status collect_figures(run *r)
{
    const wf_evaluator *e = &r->w.evaluator;
    size_t n = 0;
    dr_status st = DR_OK;

    for (size_t i = 0; i < e->count; i++) {
        DR_TRY(check_metric(r, &e->metrics[i]));
        n += e->metrics[i].figure_count;
    }
    r->figures = dr_arena_alloc(&r->arena, n + 1, sizeof(*r->figures));
    r->judged = dr_arena_alloc(&r->arena, n + 1, sizeof(*r->judged));
    for (size_t i = 0; i < e->count; i++)
        for (size_t k = 0; k < e->metrics[i].figure_count; k++) {
            const wf_figure *f = &e->metrics[i].figures[k];
            r->figures[r->figure_count] = f;
            r->judged[r->figure_count++] =
                (search_figure){f->higher_is_better, f->priority,
                                f->goal.kind == SEARCH_THRESHOLD, f->goal.value};
        }
done:
    return st;
}

/* The model where it is, and its contents; not *known: a dry run, and it is on the net. */
static dr_status find_input(run *r, bool *known)
{
    pass_kind kind = PASS_MODEL_HF;
    const flow_spec spec = {.model = r->w.model.path,
                            .adapters = r->w.model.adapter,
                            .output = r->w.output_dir};
    const char *type = r->w.model.type, *format = r->w.model.format;
    pass_model in = {0};
    dr_status st = DR_OK;

    DR_TRY(flow_input_kind(&kind, run_first_pass(r), r->w.model.path));
    if (type != NULL && !flow_type_fits(kind, type))
        DR_TRY(dr_node_fail(&r->w.doc, r->w.model.node, "%s takes %s, and this is %s",
                            run_first_pass(r)->name, flow_kind_text(kind), type));
    if (format != NULL &&
        (pass_kind_format(kind) == NULL || strcasecmp(format, pass_kind_format(kind)) != 0))
        DR_TRY(dr_node_fail(&r->w.doc, r->w.model.node, "%s takes %s, and this is %s",
                            run_first_pass(r)->name, flow_kind_text(kind), format));
    DR_TRY(flow_open_input(&in, &r->arena, &spec, kind));
    DR_TRY(flow_check_apart(&spec, &in, r->w.output_dir));
    r->input = (run_model){.path = in.path, .adapters = r->w.model.adapter, .kind = kind};
    *known = kind != PASS_MODEL_HF || dr_exists(in.path) || !r->o->dry_run;
    if (!*known)
        goto done;
    if (kind == PASS_MODEL_HF)
        DR_TRYF(hf_resolve(&r->arena, &in.path, r->w.model.path), "finding the model");
    DR_TRY(flow_check_apart(&spec, &in, r->w.output_dir));
    DR_TRYF(cache_model_id(r->input.id, &r->cache, &in), "reading %s", in.path);
    r->input.path = in.path;
    if ((kind == PASS_MODEL_ONNX || pass_kind_is_vendors(kind)) && in.file != NULL)
        r->input.path = dr_path_join(&r->arena, in.path, in.file);
    else if (kind != PASS_MODEL_HF || dr_is_dir(r->w.model.path))
        r->input.path = r->w.model.path; /* an earlier result keeps its model_config */
done:
    return st;
}

/* Goals that count from it become limits. */
static dr_status judge_input(run *r)
{
    run_value *values = dr_arena_alloc(&r->arena, r->figure_count + 1, sizeof(*values));
    dr_status st = DR_OK;

    if (r->figure_count == 0 || !r->w.evaluate_input)
        return DR_OK;
    DR_TRYF(run_judge(r, values, &r->input, false), "judging the input model");
    for (size_t i = 0; i < r->figure_count; i++) {
        const wf_figure *f = r->figures[i];
        if (!search_goal_needs_baseline(f->goal))
            continue;
        r->judged[i].limited = true;
        r->judged[i].limit =
            search_goal_limit(f->goal, f->higher_is_better, values[i].value);
    }
done:
    return st;
}

/* Each pass on the best model of the one before it. */
static dr_status pass_by_pass(run *r, run_outcome *out)
{
    const wf_flow *all = &r->w.flows[0];
    const run_model *at = &r->input;
    size_t space = 0;
    dr_status st = DR_OK;

    for (size_t p = 0; p < all->count; p++) {
        const wf_flow one = {all->passes + p, 1};
        DR_TRYF(run_candidates(r, out, at, &one, 1, r->figure_count > 0), "pass %s",
                all->passes[p]->name);
        at = out->list[out->order[0]].model;
        space += out->space;
    }
    out->space = space;
done:
    return st;
}

dr_status run_describe_isa(run *r)
{
    const char *text = NULL;
    dr_status st = DR_OK;

    DR_TRY(flow_describe_device(&r->arena, &text));
    const char *comma = strrchr(text, ','); /* "cpu, 2 threads, avx512" */
    r->machine = text;
    r->isa = comma != NULL ? comma + 2 : text;
done:
    return st;
}

static const char *cache_dir(const run *r)
{
    const char *own = getenv("OLIVE_CACHE_DIR");

    return r->o->cache_dir != NULL  ? r->o->cache_dir
           : own != NULL && *own    ? own
           : r->w.cache_dir != NULL ? r->w.cache_dir
                                    : ".drupe-cache";
}

/* Programs of vendors are there before anything runs. */
static dr_status need_programs(const run *r)
{
    dr_arena a = {0};
    pass_program found = {0};
    dr_status st = DR_OK;

    for (size_t f = 0; f < r->w.flow_count; f++)
        for (size_t i = 0; i < r->w.flows[f].count; i++) {
            const wf_pass *p = r->w.flows[f].passes[i];
            for (size_t k = 0; k < p->count; k++)
                DR_TRYF(pass_program_need(&found, &a, p->alternatives[k].def,
                                          p->alternatives[k].fixed),
                        "%s: the pass %s", r->w.doc.name, p->name);
        }
done:
    dr_arena_release(&a);
    return st;
}

dr_status flow_azure_url(dr_arena *a, const char **url, const char *account,
                         const char *container)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                "0123456789-$";

    if (account == NULL || container == NULL)
        return dr_fail(DR_EUSAGE, "account_name and container_name belong together");
    if (*account == '\0' || account[strspn(account, plain)] != '\0')
        return dr_fail(DR_EUSAGE, "account_name: \"%s\" is no account's name", account);
    if (*container == '\0' || container[strspn(container, plain)] != '\0')
        return dr_fail(DR_EUSAGE, "container_name: \"%s\" is no container's name",
                       container);
    *url = dr_arena_printf(a, "azure://%s/%s", account, container);
    return DR_OK;
}

/* The command line's place stands in for the file's. */
static dr_status open_shared(run *r)
{
    const flow_workflow_options *o = r->o;
    const char *url = r->w.shared_cache;
    dr_status st = DR_OK;

    if (o->shared_cache != NULL)
        url = o->shared_cache;
    if (o->account_name != NULL || o->container_name != NULL) {
        if (o->shared_cache != NULL)
            DR_FAIL(DR_EUSAGE, "shared_cache and account_name: two places");
        DR_TRY(flow_azure_url(&r->arena, &url, o->account_name, o->container_name));
    }
    const bool update = r->w.update_shared && !o->keep_shared;
    if (url != NULL)
        DR_TRY(cache_share_with(&r->cache, url, update));
    r->sent_to = update ? url : NULL;
done:
    return st;
}

static dr_status run_it(run *r, flow_result *out)
{
    run_outcome outcome = {0};
    dr_outdir *dir = NULL;
    bool known = false;
    dr_status st = DR_OK;

    DR_TRY(workflow_read(&r->w, r->o->config, r->o->text, r->o->model, r->o->output));
    if (r->w.log_level >= 0 && !r->o->own_log_level)
        dr_log_level((dr_level)r->w.log_level);
    r->w.output_dir = flow_clean_output(&r->arena, r->w.output_dir);
    DR_TRY(collect_figures(r));
    if (!r->o->dry_run)
        DR_TRY(need_programs(r));
    DR_TRY(run_workers_check(r));
    DR_TRY(run_describe_isa(r));
    if (!r->o->dry_run || dr_is_dir(cache_dir(r)))
        DR_TRY(cache_open(&r->cache, cache_dir(r)));
    DR_TRY(open_shared(r));
    if (!r->o->dry_run)
        DR_TRY(cache_clear(&r->cache, r->w.clean_cache,
                           r->w.clean_cache || r->w.clean_evaluations));
    if (!r->o->dry_run)
        DR_TRY(run_workers_announce(r));
    DR_TRY(find_input(r, &known));
    if (r->o->dry_run) {
        DR_TRY(run_tell_plan(r, out, known));
        if (known)
            DR_TRY(run_tell_need(r, out));
        goto done;
    }
    if (dr_exists(r->w.output_dir)) /* refused, if it is, before anything runs */
        DR_TRYF(dr_outdir_open(&dir, r->w.output_dir), "opening the output folder");
    dr_outdir_close(dir);
    DR_TRY(run_workers_open(r));
    DR_TRY(judge_input(r));
    if (r->w.pass_by_pass)
        DR_TRY(pass_by_pass(r, &outcome));
    else
        DR_TRY(run_candidates(r, &outcome, &r->input, r->w.flows, r->w.flow_count,
                              r->figure_count > 0));
    DR_TRY(run_write(r, out, &outcome));
    DR_TRY(run_tell(r, out, &outcome));
done:
    return st;
}

/* A rank behind the first one: the same file, for the cache's folder.  What is wrong with
 * it the first one says. */
static dr_status run_rank(run *r, const run_ranks *k)
{
    dr_status st = DR_OK;

    if (r->o->dry_run)
        return DR_OK;
    st = workflow_read(&r->w, r->o->config, r->o->text, r->o->model, r->o->output);
    if (st == DR_OK)
        return ranks_work(k, cache_dir(r));
    dr_log(DR_WARNING, "rank %d: %s", k->rank, dr_trail_get()->frames[0].text);
    dr_trail_clear();
    return DR_OK;
}

dr_status flow_workflow(flow_result *out, const flow_workflow_options *o)
{
    run r = {.o = o, .owned = json_array(), .began_s = dr_now_s()};
    dr_status st = DR_OK;

    *out = (flow_result){.report = json_object()};
    dr_buf_init(&out->text, (size_t)16 << 20);
    r.ranks = ranks_of(o);
    st = r.ranks.rank > 0 ? run_rank(&r, &r.ranks) : run_it(&r, out);
    run_workers_close(&r);
    cache_close(&r.cache);
    json_decref(r.owned);
    workflow_release(&r.w);
    dr_arena_release(&r.arena);
    return st;
}

json_t *flow_workflow_schema(void)
{
    return wf_json_schema();
}
