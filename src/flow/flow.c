/*
 * flow.c - the engine in its simplest form: passes in a row.
 *
 * What must hold:
 *   1. nothing under the output's own name changes before dr_outdir_commit;
 *   2. every option and every pass is known to be valid before the first one runs;
 *   3. drupe.json is the last file written, so that a folder which has it is whole.
 *
 * A run that is killed leaves X.tmp with what its quantizing steps had done, in
 * X.tmp/resume/step-N; the same command goes on from there.  An error, a full disk
 * included, Ctrl-C and SIGTERM leave nothing: what was asked for is over, and its disk is
 * free again.
 */
#include "flow/flow.h"

#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "core/log.h"
#include "flow/flow_impl.h"
#include "hf/hf.h"
#include "nn/nn.h"

typedef struct {
    flow_planned *steps; /* arena: [step_count] */
    json_t *json;        /* owned: for drupe.json */
    pass_kind kind;      /* of what goes in */
    bool reads_data;
    bool resumes;   /* a step can go on where a killed run stopped */
    char key[65];   /* of the state that it left */
    const char *in; /* borrowed: the folder of all states */
} plan;

const char *flow_kind_text(pass_kind kind)
{
    static const char *const texts[PASS_MODEL_KINDS] = {
        "a Hugging Face model", "an ONNX model",      "an ONNX model in parts",
        "an OpenVINO model",    "a QNN model in C++", "a QNN model library",
        "a QNN context binary"};

    return texts[kind];
}

void flow_result_release(flow_result *r)
{
    dr_buf_release(&r->text);
    json_decref(r->report);
    dr_arena_release(&r->arena);
    *r = (flow_result){0};
}

static dr_status no_pass(const char *name)
{
    const char *names[128];
    const char *instead = NULL, *why = pass_refused(name, &instead);
    size_t n = 0;
    const pass_def *const *list = pass_list(&n);
    dr_status st = why != NULL ? dr_fail(DR_EUSAGE, "%s is not supported: %s", name, why)
                               : dr_fail(DR_EUSAGE, "no pass is called %s", name);

    DR_BUG_IF(n > DR_COUNT(names));
    for (size_t i = 0; i < n; i++)
        names[i] = list[i]->name;
    const char *near = why == NULL ? dr_nearest(name, names, n) : NULL;
    if (instead != NULL)
        dr_hint("%s", instead);
    if (near != NULL)
        dr_hint("did you mean %s?", near);
    return st;
}

/* A step's pass, its config struct filled and checked, and which rows the user gave. */
static dr_status prepare(flow_planned *p, dr_arena *a, const flow_step *step)
{
    dr_status st = DR_OK;

    p->def = pass_find(step->pass);
    if (p->def == NULL)
        return no_pass(step->pass);
    const pass_def *d = p->def;
    p->config = dr_arena_alloc(a, 1, d->config_size);
    p->given = dr_arena_alloc(a, d->params_count, 1);
    dr_params_defaults(d->params, d->params_count, p->config);
    if (step->config != NULL)
        DR_TRY(dr_params_from_json(d->params, d->params_count, p->config, step->config,
                                   d->name, p->given, a));
    if (d->validate != NULL)
        DR_TRYF(d->validate(p->config, p->given), "%s", d->name);
done:
    return st;
}

/* Removes trailing slashes: the folder's own name matters. */
const char *flow_clean_output(dr_arena *a, const char *path)
{
    size_t n = strlen(path);

    while (n > 1 && path[n - 1] == '/')
        n--;
    return dr_arena_strndup(a, path, n);
}

static dr_status make_plan(plan *p, dr_arena *a, const flow_spec *spec)
{
    pass_kind kind = PASS_MODEL_HF;
    dr_status st = DR_OK;

    p->steps = dr_arena_alloc(a, spec->step_count, sizeof(*p->steps));
    p->json = json_array();
    for (size_t i = 0; i < spec->step_count; i++) {
        json_t *config = NULL, *step = json_object();
        json_array_append_new(p->json, step);
        DR_TRY(prepare(&p->steps[i], a, &spec->steps[i]));
        const pass_def *d = p->steps[i].def;
        DR_TRY(dr_params_json(&config, d->params, d->params_count, p->steps[i].config));
        json_object_set_new(step, "type", json_string(d->name));
        json_object_set_new(step, "version", json_integer(d->version));
        json_object_set_new(step, "config", config);
        if (i == 0) {
            DR_TRY(flow_input_kind(&kind, d, spec->model));
            p->kind = kind;
        }
        if (!pass_takes(d, kind))
            DR_FAIL(DR_EUSAGE, "%s takes %s, and %s before it gives %s", d->name,
                    flow_kind_text(d->takes), p->steps[i - 1].def->name,
                    flow_kind_text(kind));
        if (d->chooses && i + 1 == spec->step_count)
            DR_FAIL(DR_EUSAGE, "%s writes nothing: a quantizer comes after it", d->name);
        if (i > 0 && p->steps[i - 1].def->chooses && d->quant_plan == NULL)
            DR_FAIL(DR_EUSAGE, "%s chooses for a quantizer, and %s is none",
                    p->steps[i - 1].def->name, d->name);
        kind = pass_gives(d, kind);
        p->reads_data = p->reads_data || d->needs_data;
        p->resumes = p->resumes || d->quant_plan != NULL;
    }
done:
    return st;
}

static const json_t *config_of(const plan *p, size_t i)
{
    return json_object_get(json_array_get(p->json, i), "config");
}

/* Programs of vendors are there before anything runs. */
static dr_status need_programs(const plan *p, size_t count)
{
    dr_arena a = {0};
    pass_program found = {0};
    dr_status st = DR_OK;

    for (size_t i = 0; i < count; i++)
        DR_TRY(pass_program_need(&found, &a, p->steps[i].def, config_of(p, i)));
done:
    dr_arena_release(&a);
    return st;
}

/* A limit without a quantizer that is measured would be forgotten. */
static dr_status check_limit(const plan *p, const flow_spec *spec)
{
    bool measured = false;

    for (size_t i = 0; i < spec->step_count; i++)
        measured =
            measured || p->steps[i].def->quant_plan != NULL || p->steps[i].def->judges;
    if (spec->max_kl < 0)
        return dr_fail(DR_EUSAGE, "max_kl: expected 0 or more, found %g", spec->max_kl);
    if (spec->max_kl != 0 && (!measured || !spec->evaluate))
        return dr_fail(DR_EUSAGE, "max_kl: nothing of this run is measured");
    return DR_OK;
}

/* Data options: sound by themselves, and of use to some pass. */
static dr_status check_data(const plan *p, const flow_spec *spec)
{
    const data_options *d = &spec->data;
    bool trains = false;
    uint64_t bytes = 0;
    dr_status st = DR_OK;

    if (!p->reads_data &&
        (d->data_name != NULL || d->data_files != NULL || d->split != NULL ||
         d->text_field != NULL || d->text_template != NULL || d->use_chat_template ||
         d->add_special_tokens || d->max_seq_len > 0 || d->max_samples > 0 ||
         d->strategy != DATA_JOIN || d->stride > 0 || d->random_seed > 0 ||
         d->self_written))
        DR_FAIL(DR_EUSAGE, "%s reads no data; leave the data options out",
                p->steps[0].def->name);
    DR_TRY(data_check(d));
    for (size_t i = 0; i < spec->step_count; i++)
        trains = trains || p->steps[i].def->trains;
    if (!trains && (spec->eval != NULL || spec->resume != NULL || spec->memory != NULL))
        DR_FAIL(DR_EUSAGE, "%s does not train: %s has no effect", p->steps[0].def->name,
                spec->eval != NULL     ? "evaluation data"
                : spec->resume != NULL ? "resume_from_checkpoint"
                                       : "memory");
    if (!trains && d->strategy == DATA_PACKING)
        DR_FAIL(DR_EUSAGE, "strategy packing: %s does not keep rows apart in a block",
                p->steps[0].def->name);
    if (spec->memory != NULL)
        DR_TRY(dr_parse_size(&bytes, spec->memory, "memory"));
    if (spec->eval != NULL)
        DR_TRYF(data_check(spec->eval), "evaluation data");
done:
    return st;
}

/* The device that was asked for; with bfloat16 one that rounds operands to it, a GPU, with
 * int8 the cpu. */
static const char *device_for(dr_arena *a, const plan *p, size_t count, const char *asked)
{
    bool rounds = false, integers = false;

    for (size_t i = 0; i < count; i++) {
        const json_t *config = json_object_get(json_array_get(p->json, i), "config");
        const char *dtype = json_string_value(json_object_get(config, "torch_dtype"));
        if (!p->steps[i].def->trains || dtype == NULL)
            continue;
        rounds = rounds || strcmp(dtype, "bfloat16") == 0;
        integers = integers || strcmp(dtype, "int8") == 0;
    }
    if (integers && asked != NULL && strcmp(asked, "auto") == 0)
        return "cpu";
    if (!rounds || (asked != NULL && strchr(asked, ':') != NULL))
        return asked;
    return dr_arena_printf(a, "%s:bf16", asked != NULL ? asked : "auto");
}

/* Runs one pass into its folder: the last one's is the output itself. */
static dr_status run_step(const plan *p, size_t i, const flow_spec *spec, flow_result *out,
                          pass_device *device, const char *tmp, const char *final,
                          pass_model *model)
{
    const flow_planned *s = &p->steps[i];
    bool last = i + 1 == spec->step_count;
    const char *name = dr_arena_printf(&out->arena, "step-%zu", i);
    const char *dir = last ? tmp : dr_path_join(&out->arena, tmp, name);
    uint64_t memory = 0, disk = 0, given = 0;
    pass_need need = {0};
    pass_model made = {0};
    dr_resume *resume = NULL;
    dr_status st = DR_OK;

    if (!last)
        DR_TRY(dr_make_dirs(dir));
    if (s->def->quant_plan != NULL && dr_ranks_count(spec->ranks) == 1)
        DR_TRY(dr_resume_open(&resume, dr_path_join(&out->arena, p->in, name), p->key,
                              spec->output));
    DR_TRY(flow_limits(&memory, &disk, tmp));
    memory /= dr_ranks_local_count(spec->ranks);
    if (spec->memory != NULL) {
        DR_TRY(dr_parse_size(&given, spec->memory, "memory"));
        memory = memory == 0 || given < memory ? given : memory;
    }
    const pass_job job = {.def = s->def,
                          .config = s->config,
                          .given = s->given,
                          .out_dir = dir,
                          .final_dir = last ? final : dir,
                          .data = &spec->data,
                          .eval = spec->eval,
                          .checkpoints =
                              dr_arena_printf(&out->arena, "%s.checkpoints", final),
                          .resume = spec->resume,
                          .device = device,
                          .threads = spec->threads,
                          .memory_bytes = memory,
                          .memory_given = given > 0,
                          .evaluate = spec->evaluate,
                          .killed = resume,
                          .check = spec->check,
                          .max_kl = spec->max_kl,
                          .arena = &out->arena,
                          .text = &out->text,
                          .report = out->report};
    if (s->def->estimate != NULL) {
        DR_TRY(s->def->estimate(&job, model, &need));
        DR_TRY(flow_check_resources(&need, final, memory, disk));
    }
    DR_TRYF(s->def->run(&job, &made, model), "%s on %s", s->def->name, spec->model);
    made.spent = made.spent != NULL ? made.spent : model->spent;
    made.attributes = made.attributes != NULL ? made.attributes : model->attributes;
    *model = made;
done:
    dr_resume_close(resume);
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

/* What would be run, and nothing is. */
static dr_status tell_plan(flow_result *out, const flow_spec *spec, const plan *p)
{
    json_t *workflow = NULL, *programs = json_array();
    char *text = NULL;
    dr_buf lines;
    dr_status st = DR_OK;

    dr_buf_init(&lines, 1 << 16);
    DR_TRY(flow_workflow_json(&workflow, spec, p->steps, p->reads_data));
    for (size_t i = 0; i < spec->step_count; i++)
        DR_TRY(flow_tell_program(&lines, programs, p->steps[i].def, config_of(p, i)));
    if (lines.len > 0) { /* not among the result, which is a file as it is */
        dr_tell("%.*s", (int)lines.len - 1, lines.data);
        json_object_set(out->report, "programs", programs);
    }
    text = json_dumps(workflow, JSON_INDENT(2));
    if (text == NULL)
        DR_FAIL(DR_EUSAGE, "a name that is not UTF-8 cannot be in a workflow");
    DR_TRY(dr_buf_addf(&out->text, "%s\n", text));
    json_object_set(out->report, "workflow", workflow);
done:
    free(text);
    dr_buf_release(&lines);
    json_decref(programs);
    json_decref(workflow);
    return st;
}

static dr_status save_workflow(const char *dir, const flow_spec *spec, const plan *p)
{
    json_t *workflow = NULL;
    dr_arena a = {0};
    dr_status st = DR_OK;

    DR_TRY(flow_workflow_json(&workflow, spec, p->steps, p->reads_data));
    DR_TRY(dr_json_write(dr_path_join(&a, dir, "config.json"), workflow));
done:
    json_decref(workflow);
    dr_arena_release(&a);
    return st;
}

/* The folder of a step that is not the last goes; its report is kept. */
static dr_status drop_step(dr_arena *a, const char *tmp, const char *step)
{
    const char *dir = dr_path_join(a, tmp, step);
    const char *report = dr_path_join(a, dir, "report.html");
    dr_status st = DR_OK;

    if (dr_is_file(report))
        DR_TRY(dr_place_file(dr_path_join(a, tmp, "report.html"), report, NULL));
    DR_TRY(dr_remove_tree(dir));
done:
    return st;
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
        DR_TRY(drop_step(a, tmp, dr_arena_printf(a, "step-%zu", i)));
    if (made->kind == PASS_MODEL_HF) /* paths as they are in the folder */
        DR_TRY(hf_write_model_config(tmp, made->path + strlen(tmp) + 1,
                                     out->adapter_path ? "adapter" : NULL));
    else if (pass_kind_is_vendors(made->kind))
        DR_TRY(flow_write_vendor_config(tmp, made));
    else
        DR_TRY(flow_write_onnx_config(tmp));
    DR_TRY(flow_write_settings(tmp, made));
    if (spec->save_config)
        DR_TRY(save_workflow(tmp, spec, p));
    DR_TRY(flow_write_footprint(tmp, spec, hash, p->json, p->reads_data));
    json_object_set_new(out->report, "model_path", json_string(out->model_path));
    if (out->adapter_path != NULL)
        json_object_set_new(out->report, "adapter_path", json_string(out->adapter_path));
done:
    return st;
}

static dr_status open_output(dr_outdir **dir, const plan *p, const char *path)
{
    dr_status st = DR_OK;

    DR_TRYF(p->resumes ? dr_outdir_open_kept(dir, path) : dr_outdir_open(dir, path),
            "opening the output folder");
done:
    return st;
}

/* Checkpoints that are in the result, too: all of them go at once, for the next run to find
 * all or none.  What is left of them then has a name that it clears away. */
static void drop_spent(dr_arena *a, const char *path)
{
    const char *tmp = dr_arena_printf(a, "%s.tmp", path != NULL ? path : "");

    if (path == NULL || (dr_rename(tmp, path) == DR_OK && dr_remove_tree(tmp) == DR_OK))
        return;
    dr_log(DR_WARNING, "%s is left over: %s", path, dr_trail_get()->frames[0].text);
    dr_trail_clear();
}

dr_status flow_run(flow_result *out, const flow_spec *asked)
{
    flow_spec resolved = *asked;
    const flow_spec *spec = &resolved;
    const bool first = dr_ranks_first(asked->ranks);
    const char *tmp = NULL, *final = NULL;
    dr_outdir *dir = NULL;
    plan p = {0};
    pass_model model = {0};
    pass_device device = {0};
    char hash[65];
    dr_status st = DR_OK;

    *out = (flow_result){.report = json_object()};
    dr_buf_init(&out->text, (size_t)16 << 20);
    DR_TRY(make_plan(&p, &out->arena, spec));
    DR_TRY(check_data(&p, spec));
    DR_TRY(check_limit(&p, spec));
    DR_TRY(flow_ranks_check(spec->ranks, p.steps, spec->step_count));
    p.resumes = p.resumes && dr_ranks_count(spec->ranks) == 1;
    final = flow_clean_output(&out->arena, spec->output);
    DR_TRY(flow_open_input(&model, &out->arena, spec, p.kind));
    DR_TRY(flow_check_apart(spec, &model, final));
    if (spec->dry_run) {
        DR_TRY(tell_plan(out, spec, &p));
        goto done;
    }
    DR_TRY(need_programs(&p, spec->step_count));
    DR_TRY(flow_compute(&device,
                        device_for(&out->arena, &p, spec->step_count, asked->device),
                        spec->threads, spec->ranks));
    DR_TRY(flow_ranks_device(spec->ranks, &device));
    resolved.device = device.kind;
    if (first)
        flow_ranks_anew(spec->ranks, &p.steps[0], final);
    if (first && dr_exists(final)) /* refused, if it is, before a model is downloaded */
        DR_TRY(open_output(&dir, &p, final));
    if (model.kind == PASS_MODEL_HF)
        DR_TRYF(hf_resolve(&out->arena, &model.path, spec->model), "finding the model");
    DR_TRY(flow_check_apart(spec, &model, final));
    if (first && dir == NULL)
        DR_TRY(open_output(&dir, &p, final));
    DR_TRY(flow_fingerprint(hash, &model, p.reads_data ? &spec->data : NULL, spec->eval));
    DR_TRY(flow_ranks_same(spec, hash, p.json, p.reads_data));
    if (p.resumes)
        DR_TRY(flow_state_key(p.key, spec, &model, p.json, p.reads_data));
    if (first)
        DR_TRY(dr_remove_tree(dr_arena_printf(&out->arena, "%s.checkpoints.tmp", final)));
    DR_TRY(flow_ranks_output(&tmp, &out->arena, spec, dir, final));
    p.in = first ? dr_outdir_resume(dir) : dr_path_join(&out->arena, tmp, "resume");
    for (size_t i = 0; i < spec->step_count; i++) {
        DR_TRY(run_step(&p, i, spec, out, &device, tmp, final, &model));
        DR_TRY(dr_cancelled_check());
    }
    if (!first)
        flow_ranks_drop(tmp, final);
    DR_TRY(dr_ranks_meet(spec->ranks, "the end of the pass"));
    if (first) {
        DR_TRY(finish(out, spec, &p, tmp, final, &model, hash));
        DR_TRYF(dr_outdir_commit(dir), "committing %s", final);
        drop_spent(&out->arena, model.spent);
    }
    DR_TRY(dr_ranks_meet(spec->ranks, "the output folder"));
done:
    if (st != DR_OK && !first && tmp != NULL)
        flow_ranks_drop(tmp, final);
    json_decref(p.json);
    dr_outdir_close(dir);
    nn_device_close(device.dev);
    return st;
}

dr_status flow_describe_device(dr_arena *a, const char **text)
{
    nn_device *dev = NULL;
    dr_status st = DR_OK;

    DR_TRY(nn_device_open(&dev, "cpu", 0));
    *text = dr_arena_strdup(a, nn_device_describe(dev));
done:
    nn_device_close(dev);
    return st;
}
