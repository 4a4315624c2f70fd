/*
 * openvino_io_pass.c - the OpenVINOIoUpdate pass: other names and fixed shapes for the
 * inputs of an IR.
 *
 * OpenVINO works out all shapes anew when it reads an IR: what counts is the shape of each
 * Parameter.  So the pass changes these few places of the XML's text and nothing else
 * (sizes that are written at ports within the graph stay as they were, and are not read);
 * weights are linked, not rounded again.
 */
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "pass/openvino_impl.h"
#include "pass/rewrite_impl.h"
#include "pass/shared_impl.h"

enum { XML_BYTES = 1 << 28 };

typedef struct {
    const char *input_names, *input_shapes;
    bool is_static, reuse_cache;
} io_update;

static const dr_param params[] = {
    DR_STR(io_update, input_names, .dflt = "null", .listed = true,
           .help = "names of all inputs, in order; null: those that they have"),
    DR_STR(io_update, input_shapes, .dflt = "null", .json = true, .listed = true,
           .help = "with static: [[1, 128], ...], the shapes of all inputs, in order"),
    {.name = "static",
     .offset = offsetof(io_update, is_static),
     .type = DR_PARAM_BOOL,
     .dflt = "false",
     .help = "inputs have the shapes of input_shapes"},
    DR_REFUSED("extra_configs", "nothing is converted here; OpenVINOConversion has it",
               NULL),
    DR_BOOL(io_update, reuse_cache, .dflt = "false",
            .help = "files of the cache are linked and not copied, whatever it says"),
    DR_REFUSED("user_script", "no Python is run", NULL),
    DR_REFUSED("script_dir", "no Python is run", NULL),
};

/* ---- what is asked for ---- */

static dr_status read_shapes(json_t **out, const char *text)
{
    json_t *j = NULL, *shape, *size;
    size_t i, k;
    dr_status st = DR_OK;

    DR_TRY(dr_json_parse(&j, text, strlen(text), "input_shapes"));
    if (!json_is_array(j))
        DR_FAIL(DR_EUSAGE, "input_shapes: expected a list of shapes, found %s",
                dr_json_type(j));
    json_array_foreach(j, i, shape)
    {
        if (!json_is_array(shape))
            DR_FAIL(DR_EUSAGE, "input_shapes[%zu]: expected a list of sizes, found %s", i,
                    dr_json_type(shape));
        json_array_foreach(shape, k, size) if (!json_is_integer(size) ||
                                               json_integer_value(size) < -1)
            DR_FAIL(DR_EUSAGE, "input_shapes[%zu][%zu]: expected a size or -1", i, k);
    }
    *out = json_incref(j);
done:
    json_decref(j);
    return st;
}

static dr_status validate(const void *config, const unsigned char *given)
{
    const io_update *c = config;
    json_t *shapes = NULL;
    dr_arena a = {0};
    size_t count = 0;
    dr_status st = DR_OK;

    (void)given;
    if (c->is_static != (c->input_shapes != NULL))
        DR_FAIL(DR_EUSAGE, c->is_static ? "static true needs input_shapes"
                                        : "input_shapes are set with static true");
    if (c->input_shapes != NULL)
        DR_TRY(read_shapes(&shapes, c->input_shapes));
    const char **names =
        pass_words(&count, &a, c->input_names != NULL ? c->input_names : "", ",");
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < i; k++)
            if (strcmp(names[i], names[k]) == 0)
                DR_FAIL(DR_EUSAGE, "input_names: %s is there twice", names[i]);
done:
    json_decref(shapes);
    dr_arena_release(&a);
    return st;
}

/* ---- the text ---- */

typedef struct {
    size_t from, to; /* of the text, which this takes the place of */
    const char *text;
} change;

typedef struct {
    change *list; /* arena */
    size_t count;
    dr_arena *a;
} changes;

static void add(changes *c, size_t from, size_t to, const char *text)
{
    c->list[c->count++] = (change){from, to, text};
}

static int by_place(const void *a, const void *b)
{
    const change *x = a, *y = b;

    return (x->from > y->from) - (x->from < y->from);
}

/* A tensor's name as an attribute has it. */
static dr_status escaped(const char **out, dr_arena *a, const char *name)
{
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, 1 << 20);
    for (const char *p = name; *p != '\0'; p++) {
        const char one[] = {*p, '\0'};
        const char *word = *p == '&'    ? "&amp;"
                           : *p == '<'  ? "&lt;"
                           : *p == '"'  ? "&quot;"
                           : *p == '\'' ? "&apos;"
                           : *p == ','  ? "\\,"
                           : *p == '\\' ? "\\\\"
                                        : one;
        DR_TRY(dr_buf_adds(&b, word));
    }
    *out = dr_arena_strdup(a, b.data);
done:
    dr_buf_release(&b);
    return st;
}

/* `attribute` is the one that the value's tag has its names in. */
static dr_status rename_value(changes *c, const pass_ir_value *v, const char *name,
                              const char *attribute)
{
    const char *text = NULL;
    dr_status st = DR_OK;

    DR_TRY(escaped(&text, c->a, name));
    if (v->names.to != 0)
        add(c, v->names.from, v->names.to, text);
    else
        add(c, v->tag_end, v->tag_end,
            dr_arena_printf(c->a, " %s=\"%s\"", attribute, text));
done:
    return st;
}

static dr_status set_shape(changes *c, const pass_ir_value *v, const json_t *shape)
{
    const char *list = "", *dims = "";
    json_t *size;
    size_t i;

    if (v->rank >= 0 && (size_t)v->rank != json_array_size(shape))
        return dr_fail(DR_EUSAGE, "input_shapes: %s has %d sizes, found %zu",
                       v->name != NULL ? v->name : v->layer, v->rank,
                       json_array_size(shape));
    json_array_foreach(shape, i, size)
    {
        const long long n = (long long)json_integer_value(size);
        list = n < 0 ? dr_arena_printf(c->a, "%s%s?", list, i > 0 ? "," : "")
                     : dr_arena_printf(c->a, "%s%s%lld", list, i > 0 ? "," : "", n);
        dims = dr_arena_printf(c->a, "%s%s<dim>%lld</dim>", dims,
                               i > 0 ? "\n\t\t\t\t\t" : "", n);
        if (n >= 0 && v->rank >= 0 && v->dims[i] >= 0 && v->dims[i] != n)
            return dr_fail(DR_EUSAGE, "input_shapes: size %zu of %s is %lld, found %lld", i,
                           v->name != NULL ? v->name : v->layer, (long long)v->dims[i], n);
    }
    add(c, v->shape.from, v->shape.to, list);
    if (v->port_dims.to != 0)
        add(c, v->port_dims.from, v->port_dims.to, dims);
    return DR_OK;
}

static dr_status collect(changes *c, const io_update *o, const pass_ir *ir)
{
    size_t count = 0;
    const char **names =
        pass_words(&count, c->a, o->input_names != NULL ? o->input_names : "", ",");
    json_t *shapes = NULL;
    dr_status st = DR_OK;

    c->list =
        dr_arena_alloc(c->a, 3 * ir->input_count + ir->output_count + 1, sizeof(*c->list));
    if (count > 0 && count != ir->input_count)
        DR_FAIL(DR_EUSAGE, "input_names: %zu names, and the model has %zu inputs", count,
                ir->input_count);
    if (o->is_static) {
        DR_TRY(read_shapes(&shapes, o->input_shapes));
        if (json_array_size(shapes) != ir->input_count)
            DR_FAIL(DR_EUSAGE, "input_shapes: %zu shapes, and the model has %zu inputs",
                    json_array_size(shapes), ir->input_count);
    }
    for (size_t i = 0; i < ir->input_count; i++) {
        const pass_ir_value *v = &ir->inputs[i];
        if (count > 0 || v->name == NULL)
            DR_TRY(rename_value(
                c, v, count > 0 ? names[i] : dr_arena_printf(c->a, "input_%zu", i),
                "names"));
        if (shapes != NULL)
            DR_TRY(set_shape(c, v, json_array_get(shapes, i)));
    }
    for (size_t i = 0; i < ir->output_count; i++)
        if (ir->outputs[i].name == NULL)
            DR_TRY(rename_value(c, &ir->outputs[i], dr_arena_printf(c->a, "output_%zu", i),
                                "output_names"));
done:
    json_decref(shapes);
    return st;
}

static dr_status write_changed(const char *path, const dr_buf *xml, changes *c)
{
    dr_buf b;
    size_t at = 0;
    dr_status st = DR_OK;

    dr_buf_init(&b, XML_BYTES);
    qsort(c->list, c->count, sizeof(*c->list), by_place);
    for (size_t i = 0; i < c->count; i++) {
        DR_TRY(dr_buf_add(&b, xml->data + at, c->list[i].from - at));
        DR_TRY(dr_buf_adds(&b, c->list[i].text));
        at = c->list[i].to;
    }
    DR_TRY(dr_buf_add(&b, xml->data + at, xml->len - at));
    DR_TRY(dr_write_file(path, b.data, b.len));
done:
    dr_buf_release(&b);
    return st;
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    const io_update *o = job->config;
    dr_arena *a = job->arena;
    const char *dir = dr_path_join(a, job->out_dir, "model");
    const char *from = dr_path_join(a, in->path, in->file);
    const char *name =
        dr_arena_printf(a, "%.*s_%s.xml", (int)(strlen(in->file) - strlen(".xml")),
                        in->file, o->is_static ? "st" : "dy");
    changes c = {.a = a};
    pass_ir ir = {0};
    dr_buf xml;
    dr_status st = DR_OK;

    dr_buf_init(&xml, XML_BYTES);
    DR_TRY(dr_read_file(&xml, from));
    DR_TRY(pass_ir_parse(&ir, a, xml.data, xml.len, from));
    DR_TRY(collect(&c, o, &ir));
    DR_TRY(dr_make_dirs(dir));
    DR_TRY(write_changed(dr_path_join(a, dir, name), &xml, &c));
    DR_TRYF(pass_ir_read(&ir, a, dr_path_join(a, dir, name)), "reading the result");
    DR_TRY(dr_place_file(dr_path_join(a, dir, pass_ir_weights(a, name)),
                         pass_ir_weights(a, from), NULL));
    DR_TRY(pass_openvino_folders(job, dir, in->path));
    DR_TRY(pass_place_files(job, dir, in->path, NULL));
    DR_TRY(dr_buf_addf(job->text, "openvino       %s: %zu changes\n", name, c.count));
    json_object_set_new(job->report, "changes", json_integer((json_int_t)c.count));
    *out = (pass_model){
        .kind = PASS_MODEL_OPENVINO, .path = dir, .file = name, .name = in->name};
done:
    dr_buf_release(&xml);
    return st;
}

extern const pass_def pass_openvino_io; /* PASS(openvino_io) */
const pass_def pass_openvino_io = {
    .name = "OpenVINOIoUpdate",
    .version = 1,
    .summary = "names and fixed shapes for the inputs of an OpenVINO model",
    .takes = PASS_MODEL_OPENVINO,
    .gives = PASS_MODEL_OPENVINO,
    .config_size = sizeof(io_update),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = validate,
    .run = run,
};
