/*
 * qnn_lib_pass.c - the QNNModelLibGenerator pass: QNN's C++ sources as libraries, one for
 * each target, in a folder of its name.
 */
#include <string.h>

#include "core/file.h"
#include "core/mem.h"
#include "pass/vendor_impl.h"

typedef struct {
    const char *lib_targets, *lib_name;
} lib;

static const dr_param params[] = {
    DR_STR(lib, lib_targets, .dflt = "null",
           .help = "targets with blanks between; null: aarch64-android x86_64-linux-clang"),
    DR_STR(lib, lib_name, .dflt = "null",
           .help = "name of the libraries; null: that of the sources"),
};

static dr_status validate(const void *config, const unsigned char *given)
{
    static const char *const none[] = {NULL};
    const lib *c = config;
    dr_status st = DR_OK;

    (void)given;
    DR_TRY(vendor_check_words(c->lib_targets, "lib_targets", none));
    if (c->lib_name != NULL)
        DR_TRY(vendor_check_name(c->lib_name, "lib_name"));
done:
    return st;
}

/* TARGET/libNAME.so in dir: this machine's, where there is one. */
static dr_status find_library(const char **file, dr_arena *a, const char *dir)
{
    char **targets = NULL, **names = NULL;
    size_t count = 0, n = 0;
    dr_status st = DR_OK;

    *file = NULL;
    DR_TRY(dr_list_dir(a, dir, &targets, &count));
    for (size_t i = 0; i < count; i++) {
        const char *inside = dr_path_join(a, dir, targets[i]);
        if (!dr_is_dir(inside))
            continue;
        DR_TRY(dr_list_dir(a, inside, &names, &n));
        for (size_t k = 0; k < n; k++)
            if (dr_ends_with(names[k], ".so") &&
                (*file == NULL || strncmp(targets[i], "x86_64-linux", 12) == 0))
                *file = dr_path_join(a, targets[i], names[k]);
    }
    if (*file == NULL)
        DR_FAIL(DR_EDEVICE, "qnn-model-lib-generator ended with status 0 and wrote no "
                            "library");
done:
    return st;
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    const lib *c = job->config;
    dr_arena *a = job->arena;
    const char *dir = NULL, *cpp = NULL, *file = NULL;
    const char *model = dr_path_join(a, job->out_dir, "model");
    vendor_args args = vendor_args_new(a);
    dr_status st = DR_OK;

    DR_TRY(dr_make_dirs(model));
    DR_TRY(vendor_absolute(&dir, a, model));
    DR_TRY(vendor_absolute(&cpp, a, dr_path_join(a, in->path, in->file)));
    const char *bin =
        dr_arena_printf(a, "%.*s.bin", (int)(strlen(cpp) - strlen(".cpp")), cpp);
    vendor_arg(&args, "-c");
    vendor_arg(&args, cpp);
    if (dr_is_file(bin)) {
        vendor_arg(&args, "-b");
        vendor_arg(&args, bin);
    }
    if (c->lib_targets != NULL) {
        vendor_arg(&args, "-t");
        DR_TRY(vendor_arg_words(&args, c->lib_targets, "lib_targets"));
    }
    if (c->lib_name != NULL) {
        vendor_arg(&args, "-l");
        vendor_arg(&args, c->lib_name);
    }
    vendor_arg(&args, "-o");
    vendor_arg(&args, dir);
    DR_TRY(vendor_run(job, &args, &(vendor_work){0}));
    DR_TRY(find_library(&file, a, model));
    DR_TRY(vendor_tell(job));
    *out = (pass_model){
        .kind = PASS_MODEL_QNN_LIB, .path = model, .file = file, .name = in->name};
done:
    return st;
}

extern const pass_def pass_qnn_lib; /* PASS(qnn_lib) */
const pass_def pass_qnn_lib = {
    .name = "QNNModelLibGenerator",
    .version = 1,
    .summary = "QNN's C++ sources as libraries, by qnn-model-lib-generator",
    .takes = PASS_MODEL_QNN_CPP,
    .gives = PASS_MODEL_QNN_LIB,
    .program = "qnn-model-lib-generator",
    .config_size = sizeof(lib),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = validate,
    .run = run,
};
