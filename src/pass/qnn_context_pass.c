/*
 * qnn_context_pass.c - the QNNContextBinaryGenerator pass: a model library of QNN, or a
 * DLC, as a context binary of one backend.
 *
 * A DLC is read by a library of the SDK's own, which stands for the model's then.
 */
#include <string.h>

#include "core/file.h"
#include "core/mem.h"
#include "pass/vendor_impl.h"

typedef struct {
    const char *backend, *binary_file, *extra_args;
} context;

static const dr_param params[] = {
    DR_STR(context, backend, .required = true,
           .help = "library of the backend: PATH/libQnnHtp.so"),
    DR_STR(context, binary_file, .dflt = "null",
           .help = "name of the file, without .bin; null: model.serialized"),
    DR_STR(context, extra_args, .dflt = "null",
           .help = "more options of qnn-context-binary-generator, as its command line has "
                   "them; with --dlc_path the SDK's library reads that DLC"),
};

static dr_status validate(const void *config, const unsigned char *given)
{
    static const char *const own[] = {"--model", "--backend", "--output_dir",
                                      "--binary_file", NULL};
    const context *c = config;
    dr_status st = DR_OK;

    (void)given;
    DR_TRY(vendor_check_words(c->extra_args, "extra_args", own));
    if (c->binary_file != NULL)
        DR_TRY(vendor_check_name(c->binary_file, "binary_file"));
done:
    return st;
}

/* The library that reads DLCs. */
static dr_status dlc_reader(const char **out, const pass_job *job)
{
    pass_program p = {0};
    dr_status st = DR_OK;

    DR_TRY(pass_program_need(&p, job->arena, job->def, NULL));
    if (p.root == NULL)
        DR_FAIL(DR_EUNSUPPORTED,
                "a DLC is read by libQnnModelDlc.so of the SDK, and QNN_SDK_ROOT does not "
                "name it");
    *out = dr_arena_printf(job->arena, "%s/lib/%s/libQnnModelDlc.so", p.root, p.arch);
    if (!dr_is_file(*out))
        DR_FAIL(DR_EUNSUPPORTED, "%s: no such file; it would read the DLC", *out);
done:
    return st;
}

/* *dlc_path: of a model that is a DLC. */
static dr_status add_model(vendor_args *args, const char **dlc_path, const pass_job *job,
                           const pass_model *in)
{
    const context *c = job->config;
    const char *model = NULL, *reader = NULL;
    const bool dlc = dr_ends_with(in->file, ".dlc");
    const bool named = c->extra_args != NULL && strstr(c->extra_args, "--dlc_path") != NULL;
    dr_status st = DR_OK;

    DR_TRY(
        vendor_absolute(&model, job->arena, dr_path_join(job->arena, in->path, in->file)));
    if (dlc && named)
        DR_FAIL(DR_EUSAGE, "extra_args: --dlc_path: the model is a DLC already");
    if (dlc || named)
        DR_TRY(dlc_reader(&reader, job));
    vendor_arg(args, "--model");
    vendor_arg(args, reader != NULL ? reader : model);
    *dlc_path = dlc ? model : NULL;
done:
    return st;
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    const context *c = job->config;
    dr_arena *a = job->arena;
    const char *name = c->binary_file != NULL ? c->binary_file : "model.serialized";
    const char *file = dr_arena_printf(a, "%s.bin", name), *dir = NULL, *more = NULL;
    const char *dlc = NULL;
    const char *model = dr_path_join(a, job->out_dir, "model");
    vendor_args args = vendor_args_new(a);
    dr_status st = DR_OK;

    DR_TRY(dr_make_dirs(model));
    DR_TRY(vendor_absolute(&dir, a, model));
    DR_TRY(vendor_attributes(&more, job, in, json_pack("{s:s}", "backend", c->backend)));
    DR_TRY(add_model(&args, &dlc, job, in));
    vendor_arg(&args, "--backend");
    vendor_arg(&args, c->backend);
    vendor_arg(&args, "--output_dir");
    vendor_arg(&args, dir);
    vendor_arg(&args, "--binary_file");
    vendor_arg(&args, name);
    if (dlc != NULL) {
        vendor_arg(&args, "--dlc_path");
        vendor_arg(&args, dlc);
    }
    DR_TRY(vendor_arg_words(&args, c->extra_args, "extra_args"));
    const char *const outputs[] = {dr_path_join(a, dir, file), NULL};
    DR_TRY(vendor_run(job, &args, &(vendor_work){.outputs = outputs}));
    DR_TRY(vendor_tell(job));
    *out = (pass_model){.kind = PASS_MODEL_QNN_BIN,
                        .path = model,
                        .file = file,
                        .name = in->name,
                        .attributes = more};
done:
    return st;
}

extern const pass_def pass_qnn_context; /* PASS(qnn_context) */
const pass_def pass_qnn_context = {
    .name = "QNNContextBinaryGenerator",
    .version = 1,
    .summary = "a QNN library as a context binary, by qnn-context-binary-generator",
    .takes = PASS_MODEL_QNN_LIB,
    .gives = PASS_MODEL_QNN_BIN,
    .program = "qnn-context-binary-generator",
    .config_size = sizeof(context),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = validate,
    .run = run,
};
