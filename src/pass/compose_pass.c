/*
 * compose_pass.c - the ComposeOnnxModels pass: graphs that are run one after the other as
 * one; what SplitModel took apart is whole again.
 */
#include "core/file.h"
#include "pass/parts_impl.h"

typedef struct {
    pass_external external;
} compose;

static const dr_param params[] = {PASS_EXTERNAL_ROWS};

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    static const char *const whole[] = {"model.onnx", NULL};
    const char *dir = dr_path_join(job->arena, job->out_dir, "model");
    size_t count = 0;
    dr_status st = DR_OK;

    while (in->parts[count] != NULL)
        count++;
    onnx_edit **parts = dr_arena_alloc(job->arena, count + 1, sizeof(onnx_edit *));
    DR_TRY(dr_make_dirs(dir));
    for (size_t i = 0; i < count; i++)
        DR_TRY(onnx_rewrite_open(&parts[i],
                                 dr_path_join(job->arena, in->path, in->parts[i]), dir));
    DR_TRY(onnx_compose(parts, count));
    DR_TRY(onnx_rewrite_save(parts[0]));
    DR_TRY(pass_place_external(job, dir, dr_path_join(job->arena, in->path, in->parts[0]),
                               parts[0]));
    DR_TRY(dr_buf_addf(job->text, "graph          %zu nodes of %zu parts\n",
                       onnx_rewrite_nodes(parts[0]), count));
    DR_TRY(pass_place_files(job, dir, in->path, NULL));
    DR_TRY(pass_check_parts(job, dir, whole));
    json_object_set_new(job->report, "nodes",
                        json_integer((json_int_t)onnx_rewrite_nodes(parts[0])));
    *out = (pass_model){.kind = PASS_MODEL_ONNX, .path = dir, .name = in->name};
done:
    for (size_t i = 0; i < count; i++)
        onnx_rewrite_close(parts[i]);
    return st;
}

extern const pass_def pass_compose; /* PASS(compose) */
const pass_def pass_compose = {
    .name = "ComposeOnnxModels",
    .version = 1,
    .summary = "graphs that are run one after the other as one",
    .takes = PASS_MODEL_PARTS,
    .gives = PASS_MODEL_ONNX,
    .config_size = sizeof(compose),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = pass_external_validate,
    .run = run,
};
