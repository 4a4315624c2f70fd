/*
 * qnn_conversion_pass.c - the QNNConversion pass: an ONNX graph as QNN's C++ sources, by
 * the converter of Qualcomm's SDK.  With --input_list in extra_args it quantizes, too.
 */
#include <string.h>

#include "core/file.h"
#include "pass/rewrite_impl.h"
#include "pass/shared_impl.h"
#include "pass/vendor_impl.h"

typedef struct {
    const char *input_dim, *out_node, *extra_args;
} conversion;

static const dr_param params[] = {
    DR_STR(conversion, input_dim, .dflt = "null", .listed = true,
           .help =
               "[\"NAME 1,3,224,224\", ...]: sizes of inputs; null: those of the graph"),
    DR_STR(conversion, out_node, .dflt = "null", .listed = true,
           .help = "names of outputs; null: those of the graph"),
    DR_STR(conversion, extra_args, .dflt = "null",
           .help = "more options of qnn-onnx-converter, as its command line has them"),
};

/* "a 1,2,b 3": a word with a blank in it begins the next input. */
static dr_status add_dims(vendor_args *args, dr_arena *a, const char *text)
{
    size_t count = 0;
    const char **words = pass_words(&count, a, text, ",");
    const char *dims = NULL;
    dr_status st = DR_OK;

    for (size_t i = 0; i < count; i++) {
        const char *blank = strrchr(words[i], ' ');
        const char *size = blank != NULL ? blank + 1 : words[i];
        if (*size == '\0' || strspn(size, "0123456789") != strlen(size) ||
            (blank == NULL && dims == NULL))
            DR_FAIL(DR_EUSAGE, "input_dim: expected NAME SIZE,SIZE,..., found \"%s\"",
                    words[i]);
        if (blank == NULL) {
            dims = dr_arena_printf(a, "%s,%s", dims, size);
        } else {
            if (dims != NULL && args != NULL)
                vendor_arg(args, dims);
            dims = size;
            if (args == NULL)
                continue;
            vendor_arg(args, "--input_dim");
            vendor_arg(args, dr_arena_strndup(a, words[i], (size_t)(blank - words[i])));
        }
    }
    if (dims != NULL && args != NULL)
        vendor_arg(args, dims);
done:
    return st;
}

static dr_status validate(const void *config, const unsigned char *given)
{
    static const char *const own[] = {"--input_network", "-i", "--output_path", "-o", NULL};
    const conversion *c = config;
    dr_arena a = {0};
    dr_status st = DR_OK;

    (void)given;
    if (c->input_dim != NULL)
        DR_TRY(add_dims(NULL, &a, c->input_dim));
    DR_TRY(vendor_check_words(c->extra_args, "extra_args", own));
done:
    dr_arena_release(&a);
    return st;
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    const conversion *c = job->config;
    dr_arena *a = job->arena;
    const char *dir = NULL, *graph = NULL;
    vendor_args args = vendor_args_new(a);
    dr_status st = DR_OK;

    DR_TRY(dr_make_dirs(dr_path_join(a, job->out_dir, "model")));
    DR_TRY(vendor_absolute(&dir, a, dr_path_join(a, job->out_dir, "model")));
    DR_TRY(vendor_absolute(&graph, a, pass_graph_path(job, in)));
    const char *cpp = dr_path_join(a, dir, "model.cpp");
    const char *const outputs[] = {cpp, NULL};
    vendor_arg(&args, "--input_network");
    vendor_arg(&args, graph);
    vendor_arg(&args, "--output_path");
    vendor_arg(&args, cpp);
    if (c->input_dim != NULL)
        DR_TRY(add_dims(&args, a, c->input_dim));
    vendor_arg_each(&args, "--out_node", c->out_node);
    DR_TRY(vendor_arg_words(&args, c->extra_args, "extra_args"));
    DR_TRY(vendor_run(job, &args, &(vendor_work){.outputs = outputs}));
    DR_TRY(vendor_tell(job));
    *out = (pass_model){.kind = PASS_MODEL_QNN_CPP,
                        .path = dr_path_join(a, job->out_dir, "model"),
                        .file = "model.cpp",
                        .name = in->name};
done:
    return st;
}

extern const pass_def pass_qnn_conversion; /* PASS(qnn_conversion) */
const pass_def pass_qnn_conversion = {
    .name = "QNNConversion",
    .version = 1,
    .summary = "an ONNX graph as QNN's C++ sources, by qnn-onnx-converter",
    .takes = PASS_MODEL_ONNX,
    .gives = PASS_MODEL_QNN_CPP,
    .program = "qnn-onnx-converter",
    .config_size = sizeof(conversion),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = validate,
    .run = run,
};
