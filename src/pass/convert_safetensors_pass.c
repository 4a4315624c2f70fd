/*
 * convert_safetensors_pass.c - the ConvertToSafetensors pass: a model of any source as a
 * plain Hugging Face folder.  Olive has no such pass; with Python it is save_pretrained.
 */
#include "core/file.h"
#include "pass/convert_impl.h"

typedef struct {
    int outtype;
} convert;

enum { AUTO, F32, F16, BF16 };
static const char *const outtypes[] = {"auto", "f32", "f16", "bf16", NULL};
static const dr_dtype dtypes[] = {DR_DTYPE_COUNT, DR_DTYPE_F32, DR_DTYPE_F16,
                                  DR_DTYPE_BF16};

static const dr_param params[] = {
    DR_CHOICE(convert, outtype, .dflt = "auto", .choices = outtypes,
              .help = "type of the weights; auto: the source's, that of its config.json "
                      "where they are packed"),
};

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    const convert *c = job->config;
    const char *dir = dr_path_join(job->arena, job->out_dir, "model");
    hf_model *m = NULL, *made = NULL;
    hf_writer *w = NULL;
    dr_status st = DR_OK;

    DR_TRY(pass_convert_open(&m, in));
    DR_TRY(dr_make_dirs(dir));
    DR_TRY(hf_writer_open(&w, dir, m, NULL));
    if (c->outtype != AUTO)
        hf_writer_dtype(w, dtypes[c->outtype]);
    DR_TRY(hf_writer_finish(w));
    DR_TRYF(hf_model_open(&made, dir), "reading the result back");
    DR_TRY(pass_convert_tell(
        job, m, dr_arena_printf(job->arena, "safetensors %s", hf_model_origin(made)),
        hf_model_weight_bytes(made)));
    *out = (pass_model){.kind = PASS_MODEL_HF, .path = dir, .name = in->name};
done:
    hf_writer_close(w);
    hf_model_close(made);
    hf_model_close(m);
    return st;
}

static dr_status estimate(const pass_job *job, const pass_model *in, pass_need *need)
{
    const convert *c = job->config;
    hf_model *m = NULL;
    dr_status st = DR_OK;

    DR_TRY(pass_convert_open(&m, in));
    const hf_config *config = hf_model_config(m);
    dr_dtype t = c->outtype == AUTO ? config->dtype : dtypes[c->outtype];
    need->disk = pass_model_elements(config) * dr_dtype_bytes(t);
done:
    hf_model_close(m);
    return st;
}

extern const pass_def pass_convert_safetensors; /* PASS(convert_safetensors) */
const pass_def pass_convert_safetensors = {
    .name = "ConvertToSafetensors",
    .version = 1,
    .summary = "a model of any source as plain safetensors",
    .takes = PASS_MODEL_HF,
    .gives = PASS_MODEL_HF,
    .config_size = sizeof(convert),
    .params = params,
    .params_count = DR_COUNT(params),
    .estimate = estimate,
    .run = run,
};
