/*
 * openvino_conversion_pass.c - the OpenVINOConversion pass: an ONNX graph as OpenVINO's IR,
 * by OpenVINO's own converter.
 *
 * ovc writes its arguments into the IR.  It works in the result's folder and is given the
 * name of its file alone, so that the same graph gives the same bytes wherever it lies.
 */
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "core/log.h"
#include "pass/openvino_impl.h"
#include "pass/rewrite_impl.h"
#include "pass/vendor_impl.h"

typedef struct {
    const char *input_shapes;
    bool compress_to_fp16;
    const char *extra_configs, *model_name;
    bool is_static;
} conversion;

static const dr_param params[] = {
    DR_STR(conversion, input_shapes, .dflt = "null", .json = true, .listed = true,
           .help =
               "[[1, 3, 224, 224], ...] in the order of the inputs, {\"NAME\": [1, 3]}, "
               "or text as ovc --input takes it; -1 is open"),
    DR_BOOL(conversion, compress_to_fp16, .dflt = "true",
            .help = "weights are float16 in the IR"),
    DR_STR(conversion, extra_configs, .dflt = "null", .json = true,
           .help = "more of ovc's options: {\"input\": ..., \"output\": ..., "
                   "\"extension\": ..., \"verbose\": true}"),
    DR_STR(conversion, model_name, .dflt = "ov_model", .help = "name of the .xml and .bin"),
    {.name = "static",
     .offset = offsetof(conversion, is_static),
     .type = DR_PARAM_BOOL,
     .dflt = "true",
     .help = "shapes are those of input_shapes; false: they stay as the graph has them"},
    DR_REFUSED("example_input_func", "no Python is run; an ONNX graph needs none", NULL),
    DR_REFUSED("user_script", "no Python is run", NULL),
    DR_REFUSED("script_dir", "no Python is run", NULL),
};

/* "[1,3,?]" */
static dr_status add_shape(dr_buf *b, const json_t *shape)
{
    json_t *size;
    size_t i;
    dr_status st = DR_OK;

    if (!json_is_array(shape))
        DR_FAIL(DR_EUSAGE, "input_shapes: expected a list of sizes, found %s",
                dr_json_type(shape));
    DR_TRY(dr_buf_adds(b, "["));
    json_array_foreach((json_t *)(uintptr_t)shape, i, size)
    {
        const char *text = json_string_value(size);
        if (text != NULL && strspn(text, "0123456789.?-") == strlen(text) && *text != '\0')
            DR_TRY(dr_buf_addf(b, "%s%s", i > 0 ? "," : "", text)); /* "1..8" */
        else if (json_is_integer(size) && json_integer_value(size) >= -1)
            DR_TRY(dr_buf_addf(b, i > 0 ? ",%lld" : "%lld",
                               (long long)json_integer_value(size)));
        else
            DR_FAIL(DR_EUSAGE, "input_shapes: expected a size or -1, found %s",
                    text != NULL ? text : dr_json_type(size));
    }
    DR_TRY(dr_buf_adds(b, "]"));
done:
    return st;
}

/* ovc's --input of what the user gave: "[1,3],[1,4]", "x[1,3],y[1,4]". */
static dr_status input_text(const char **out, dr_arena *a, const char *given)
{
    json_t *j = NULL, *shape;
    const char *name;
    dr_buf b;
    size_t i;
    dr_status st = DR_OK;

    dr_buf_init(&b, 1 << 20);
    *out = given;
    if (*given != '{' && strncmp(given, "[[", 2) != 0 && strncmp(given, "[\"", 2) != 0 &&
        strcmp(given, "[]") != 0)
        goto done; /* as ovc takes it */
    DR_TRY(dr_json_parse(&j, given, strlen(given), "input_shapes"));
    if (json_array_size(j) + json_object_size(j) == 0)
        DR_FAIL(DR_EUSAGE, "input_shapes: there is no shape in it");
    json_array_foreach(j, i, shape)
    {
        DR_TRY(dr_buf_adds(&b, i > 0 ? "," : ""));
        if (json_is_string(shape))
            DR_TRY(dr_buf_adds(&b, json_string_value(shape)));
        else
            DR_TRY(add_shape(&b, shape));
    }
    json_object_foreach(j, name, shape)
    {
        DR_TRY(dr_buf_addf(&b, "%s%s", b.len > 0 ? "," : "", name));
        DR_TRY(add_shape(&b, shape));
    }
    *out = dr_arena_strdup(a, b.data);
done:
    json_decref(j);
    dr_buf_release(&b);
    return st;
}

/* One of extra_configs: args NULL: it is looked at alone. */
static dr_status add_extra(vendor_args *args, const char *key, const json_t *value,
                           const conversion *c)
{
    const char *text = json_string_value(value), *path = NULL;
    dr_status st = DR_OK;

    if (strcmp(key, "verbose") == 0 && json_is_boolean(value)) {
        if (json_is_true(value) && args != NULL)
            vendor_arg(args, "--verbose");
        goto done;
    }
    if (strcmp(key, "share_weights") == 0 || strcmp(key, "example_input") == 0)
        DR_FAIL(
            DR_EUNSUPPORTED,
            "extra_configs: %s is of OpenVINO's Python function; ovc has no such option",
            key);
    if (strcmp(key, "input") != 0 && strcmp(key, "output") != 0 &&
        strcmp(key, "extension") != 0)
        DR_FAIL(DR_EUSAGE,
                "extra_configs: expected input, output, extension or verbose, found %s",
                key);
    if (text == NULL || *text == '\0')
        DR_FAIL(DR_EUSAGE, "extra_configs: %s: expected text, found %s", key,
                dr_json_type(value));
    if (strcmp(key, "input") == 0 && c->input_shapes != NULL)
        DR_FAIL(DR_EUSAGE, "extra_configs: input: the inputs are in input_shapes already");
    if (args == NULL)
        goto done;
    if (strcmp(key, "extension") == 0) { /* the program works in another folder */
        DR_TRY(vendor_absolute(&path, args->arena, text));
        text = path;
    }
    vendor_argf(args, "--%s", key);
    vendor_arg(args, text);
done:
    return st;
}

static dr_status add_extras(vendor_args *args, const conversion *c)
{
    json_t *j = NULL, *value;
    const char *key;
    dr_status st = DR_OK;

    if (c->extra_configs == NULL)
        return DR_OK;
    DR_TRY(dr_json_parse(&j, c->extra_configs, strlen(c->extra_configs), "extra_configs"));
    if (!json_is_object(j))
        DR_FAIL(DR_EUSAGE, "extra_configs: expected an object, found %s", dr_json_type(j));
    json_object_foreach(j, key, value) DR_TRY(add_extra(args, key, value, c));
done:
    json_decref(j);
    return st;
}

static dr_status validate(const void *config, const unsigned char *given)
{
    const conversion *c = config;
    const char *text = NULL;
    dr_arena a = {0};
    dr_status st = DR_OK;

    (void)given;
    DR_TRY(vendor_check_name(c->model_name, "model_name"));
    DR_TRY(add_extras(NULL, c));
    if (c->input_shapes == NULL)
        goto done;
    if (!c->is_static)
        DR_FAIL(DR_EUSAGE, "static false keeps the graph's shapes; leave input_shapes out");
    DR_TRY(input_text(&text, &a, c->input_shapes));
done:
    dr_arena_release(&a);
    return st;
}

/* A graph whose sizes are open stays so, and it is said. */
static void warn_open(const conversion *c, const pass_ir *ir)
{
    for (size_t i = 0; c->is_static && i < ir->input_count; i++) {
        const pass_ir_value *v = &ir->inputs[i];
        bool open = v->rank < 0;
        for (int k = 0; k < v->rank; k++)
            open = open || v->dims[k] < 0;
        if (!open)
            continue;
        dr_log(
            DR_WARNING,
            "static: the size of the input %s is open and stays so; input_shapes sets it",
            v->name != NULL ? v->name : v->layer);
        return;
    }
}

static dr_status tell(const pass_job *job, const pass_ir *ir, const char *xml)
{
    uint64_t bytes = 0;
    dr_status st = DR_OK;

    DR_TRY(vendor_tell(job));
    DR_TRY(dr_file_size(&bytes, pass_ir_weights(job->arena, xml)));
    DR_TRY(dr_buf_addf(job->text, "openvino       %s: %zu inputs, %zu outputs, %.1f MB\n",
                       dr_path_base(xml), ir->input_count, ir->output_count,
                       (double)bytes / 1e6));
    json_object_set_new(job->report, "inputs", json_integer((json_int_t)ir->input_count));
    json_object_set_new(job->report, "outputs", json_integer((json_int_t)ir->output_count));
    json_object_set_new(job->report, "weight_bytes", json_integer((json_int_t)bytes));
done:
    return st;
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    const conversion *c = job->config;
    dr_arena *a = job->arena;
    const char *dir = dr_path_join(a, job->out_dir, "model");
    const char *file = dr_arena_printf(a, "%s.xml", c->model_name);
    const char *const outputs[] = {file, pass_ir_weights(a, file), NULL};
    vendor_args args = vendor_args_new(a);
    const char *graph = NULL, *text = NULL;
    pass_ir ir = {0};
    dr_status st = DR_OK;

    DR_TRY(dr_make_dirs(dir));
    DR_TRY(vendor_absolute(&graph, a, pass_graph_path(job, in)));
    vendor_arg(&args, graph);
    vendor_arg(&args, "--output_model");
    vendor_arg(&args, file);
    vendor_argf(&args, "--compress_to_fp16=%s", c->compress_to_fp16 ? "True" : "False");
    if (c->input_shapes != NULL) {
        DR_TRY(input_text(&text, a, c->input_shapes));
        vendor_arg(&args, "--input");
        vendor_arg(&args, text);
    }
    DR_TRY(add_extras(&args, c));
    DR_TRY(vendor_run(job, &args, &(vendor_work){.dir = dir, .outputs = outputs}));
    DR_TRYF(pass_ir_read(&ir, a, dr_path_join(a, dir, file)), "reading the result");
    warn_open(c, &ir);
    DR_TRY(pass_place_files(job, dir, in->path, NULL));
    DR_TRY(tell(job, &ir, dr_path_join(a, dir, file)));
    *out = (pass_model){
        .kind = PASS_MODEL_OPENVINO, .path = dir, .file = file, .name = in->name};
done:
    return st;
}

extern const pass_def pass_openvino_conversion; /* PASS(openvino_conversion) */
const pass_def pass_openvino_conversion = {
    .name = "OpenVINOConversion",
    .version = 1,
    .summary = "an ONNX graph as OpenVINO's IR, by ovc",
    .takes = PASS_MODEL_ONNX,
    .gives = PASS_MODEL_OPENVINO,
    .program = "ovc",
    .config_size = sizeof(conversion),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = validate,
    .run = run,
};
