/*
 * flow.c - the engine in its simplest form: passes in a row.
 *
 * What must hold:
 *   1. nothing under the output's own name changes before dr_outdir_commit;
 *   2. every option and every pass is known to be valid before the first one runs;
 *   3. drupe.json is the last file written, so that a folder which has it is whole.
 */
#include "flow/flow.h"

#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "flow/flow_impl.h"
#include "hf/hf.h"
#include "pass/pass.h"

void flow_result_release(flow_result *r)
{
    dr_buf_release(&r->text);
    json_decref(r->report);
    dr_arena_release(&r->arena);
    *r = (flow_result){0};
}

dr_status flow_parse_adapters(dr_arena *a, const char *text, const char ***names,
                              const char ***paths, size_t *count)
{
    size_t max = 1, n = 0;
    dr_status st = DR_OK;

    for (const char *p = text; *p; p++)
        max += *p == ',';
    *names = dr_arena_alloc(a, max, sizeof(char *));
    *paths = dr_arena_alloc(a, max, sizeof(char *));
    char *list = dr_arena_strdup(a, text);
    for (char *p = list, *next; p != NULL; p = next, n++) {
        next = strchr(p, ',');
        if (next != NULL)
            *next++ = '\0';
        char *eq = strchr(p, '=');
        if (eq != NULL)
            *eq = '\0';
        (*names)[n] = eq != NULL ? p : NULL;
        (*paths)[n] = eq != NULL ? eq + 1 : p;
        if (*(*paths)[n] == '\0' || (eq != NULL && *p == '\0'))
            DR_FAIL(DR_EUSAGE, "adapter_path: an empty name or path in \"%s\"", text);
        if (eq != NULL && strchr(p, '/') != NULL)
            DR_FAIL(DR_EUSAGE, "adapter_path: a name has no slash: \"%s\"", p);
        for (size_t i = 0; i < n; i++) {
            if (eq != NULL && (*names)[i] != NULL && strcmp((*names)[i], p) == 0)
                DR_FAIL(DR_EUSAGE, "adapter_path: the name %s is given twice", p);
        }
    }
    *count = n;
done:
    return st;
}

/* A step's pass and its config struct, filled and checked. */
static dr_status prepare(const pass_def **def, void **config, dr_arena *a,
                         const flow_step *step)
{
    dr_status st = DR_OK;

    *def = pass_find(step->pass);
    if (*def == NULL) {
        size_t n = 0;
        const pass_def *const *list = pass_list(&n);
        const char **names = dr_arena_alloc(a, n, sizeof(char *));
        for (size_t i = 0; i < n; i++)
            names[i] = list[i]->name;
        const char *near = dr_nearest(step->pass, names, n);
        st = dr_fail(DR_EUSAGE, "no pass is called %s", step->pass);
        if (near != NULL)
            dr_hint("did you mean %s?", near);
        goto done;
    }
    *config = dr_arena_alloc(a, 1, (*def)->config_size);
    dr_params_defaults((*def)->params, (*def)->params_count, *config);
    if (step->config != NULL)
        DR_TRY(dr_params_from_json((*def)->params, (*def)->params_count, *config,
                                   step->config, (*def)->name, NULL, a));
    if ((*def)->validate != NULL)
        DR_TRYF((*def)->validate(*config), "%s", (*def)->name);
done:
    return st;
}

/* An adapter path as given: a PEFT folder, or the folder of an earlier finetune. */
static const char *adapter_folder(dr_arena *a, const char *path)
{
    const char *inside = dr_path_join(a, path, "adapter");

    if (!dr_exists(dr_path_join(a, path, "adapter_config.json")) && dr_is_dir(inside))
        return inside;
    return path;
}

static dr_status open_input(pass_model *in, dr_arena *a, const flow_spec *spec)
{
    const char **names = NULL, **paths = NULL, *path = NULL;
    size_t n = 0;
    dr_status st = DR_OK;

    DR_TRYF(hf_resolve(a, &path, spec->model), "finding the model");
    *in = (pass_model){.kind = PASS_MODEL_HF, .path = path, .name = spec->model};
    if (spec->adapters != NULL) {
        DR_TRY(flow_parse_adapters(a, spec->adapters, &names, &paths, &n));
        pass_adapter *list = dr_arena_alloc(a, n, sizeof(*list));
        for (size_t i = 0; i < n; i++)
            list[i] = (pass_adapter){names[i], adapter_folder(a, paths[i])};
        in->adapters = list;
        in->adapter_count = n;
    }
done:
    return st;
}

/* Removes trailing slashes: the folder's own name matters. */
static const char *clean_output(dr_arena *a, const char *path)
{
    size_t n = strlen(path);

    while (n > 1 && path[n - 1] == '/')
        n--;
    return dr_arena_strndup(a, path, n);
}

typedef struct {
    const pass_def **defs;
    void **configs;
    json_t *steps; /* owned: for drupe.json */
} plan;

static dr_status make_plan(plan *p, dr_arena *a, const flow_spec *spec)
{
    dr_status st = DR_OK;

    p->defs = dr_arena_alloc(a, spec->step_count, sizeof(*p->defs));
    p->configs = dr_arena_alloc(a, spec->step_count, sizeof(*p->configs));
    p->steps = json_array();
    for (size_t i = 0; i < spec->step_count; i++) {
        json_t *config = NULL, *step = json_object();
        json_array_append_new(p->steps, step);
        DR_TRY(prepare(&p->defs[i], &p->configs[i], a, &spec->steps[i]));
        DR_TRY(dr_params_json(&config, p->defs[i]->params, p->defs[i]->params_count,
                              p->configs[i]));
        json_object_set_new(step, "type", json_string(p->defs[i]->name));
        json_object_set_new(step, "version", json_integer(p->defs[i]->version));
        json_object_set_new(step, "config", config);
    }
done:
    return st;
}

/* Runs one pass into its folder: the last one's is the output itself. */
static dr_status run_step(const plan *p, size_t i, const flow_spec *spec, flow_result *out,
                          const char *tmp, const char *final, pass_model *model)
{
    bool last = i + 1 == spec->step_count;
    const char *dir = last ? tmp : dr_path_join(&out->arena, tmp,
                                                dr_arena_printf(&out->arena, "step-%zu", i));
    pass_need need = {0};
    pass_model made = {0};
    dr_status st = DR_OK;

    if (!last)
        DR_TRY(dr_make_dirs(dir));
    const pass_job job = {.config = p->configs[i],
                          .out_dir = dir,
                          .final_dir = last ? final : dir,
                          .data = &spec->data,
                          .device = spec->device ? spec->device : "cpu",
                          .threads = spec->threads,
                          .evaluate = spec->evaluate,
                          .check = spec->check,
                          .arena = &out->arena,
                          .text = &out->text,
                          .report = out->report};
    if (p->defs[i]->estimate != NULL) {
        DR_TRY(p->defs[i]->estimate(&job, model, &need));
        DR_TRY(flow_check_resources(&need, tmp));
    }
    DR_TRYF(p->defs[i]->run(&job, &made, model), "%s on %s", p->defs[i]->name, spec->model);
    *model = made;
done:
    return st;
}

/* A path inside X.tmp as it will be inside X. */
static const char *after_commit(dr_arena *a, const char *path, const char *tmp,
                                const char *final)
{
    size_t n = strlen(tmp);

    DR_BUG_IF(strncmp(path, tmp, n) != 0);
    return dr_arena_printf(a, "%s%s", final, path + n);
}

static dr_status finish(flow_result *out, const flow_spec *spec, const plan *p,
                        const char *tmp, const char *final, const pass_model *made,
                        const char *hash)
{
    dr_arena *a = &out->arena;
    dr_status st = DR_OK;

    out->model_path = after_commit(a, made->path, tmp, final);
    if (made->kind == PASS_MODEL_HF && made->adapter_count > 0)
        out->adapter_path = after_commit(a, made->adapters[0].path, tmp, final);
    for (size_t i = 0; i + 1 < spec->step_count; i++)
        DR_TRY(dr_remove_tree(dr_path_join(a, tmp, dr_arena_printf(a, "step-%zu", i))));
    if (made->kind == PASS_MODEL_HF)
        DR_TRY(hf_write_model_config(tmp, "model", out->adapter_path ? "adapter" : NULL));
    DR_TRY(flow_write_footprint(tmp, spec, hash, p->steps));
    json_object_set_new(out->report, "model_path", json_string(out->model_path));
    if (out->adapter_path != NULL)
        json_object_set_new(out->report, "adapter_path", json_string(out->adapter_path));
done:
    return st;
}

dr_status flow_run(flow_result *out, const flow_spec *spec)
{
    dr_outdir *dir = NULL;
    plan p = {0};
    pass_model model = {0};
    char hash[65];
    dr_status st = DR_OK;

    *out = (flow_result){.report = json_object()};
    dr_buf_init(&out->text, (size_t)16 << 20);
    DR_TRY(make_plan(&p, &out->arena, spec));
    DR_TRY(open_input(&model, &out->arena, spec));
    const char *final = clean_output(&out->arena, spec->output);
    DR_TRYF(dr_outdir_open(&dir, final), "opening the output folder");
    DR_TRY(flow_fingerprint(hash, model.path));
    const char *tmp = dr_outdir_tmp(dir);
    for (size_t i = 0; i < spec->step_count; i++) {
        DR_TRY(run_step(&p, i, spec, out, tmp, final, &model));
        DR_TRY(dr_cancelled_check());
    }
    DR_TRY(finish(out, spec, &p, tmp, final, &model, hash));
    DR_TRYF(dr_outdir_commit(dir), "committing %s", final);
done:
    json_decref(p.steps);
    dr_outdir_close(dir);
    return st;
}
