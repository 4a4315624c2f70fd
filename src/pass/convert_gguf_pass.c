/*
 * convert_gguf_pass.c - the ConvertHfToGGUF pass: a model as a file for llama.cpp.
 */
#include <string.h>

#include "core/file.h"
#include "core/mem.h"
#include "pass/convert_impl.h"

typedef struct {
    const char *gguf_file_name;
    int outtype;
} convert;

/* In the order of hf_gguf_type. */
static const char *const outtypes[] = {"auto", "f32",  "f16",  "bf16",
                                       "q8_0", "q4_0", "q4_1", NULL};
static const double bits[] = {16, 32, 16, 16, 8.5, 5, 5};

static const dr_param params[] = {
    DR_STR(convert, gguf_file_name, .dflt = "model.gguf", .help = "name of the file"),
    DR_CHOICE(convert, outtype, .dflt = "auto", .choices = outtypes,
              .help =
                  "type of the matrices; auto: packed weights keep their codes, else bf16 "
                  "where the source has it, f16 otherwise"),
    DR_REFUSED("llama_cpp_env_path", "no Python is run", NULL),
};

static dr_status validate(const void *config, const unsigned char *given)
{
    const convert *c = config;
    const char *name = c->gguf_file_name;

    (void)given;
    if (name == NULL || !dr_ends_with(name, ".gguf") || name[0] == '.' ||
        strchr(name, '/') != NULL)
        return dr_fail(DR_EUSAGE,
                       "gguf_file_name: expected a name that ends in .gguf, found \"%s\"",
                       name != NULL ? name : "");
    return DR_OK;
}

/* general.name: the model's last name, without what tells files apart. */
static const char *name_of(dr_arena *a, const char *model)
{
    char *path = dr_arena_strdup(a, model);
    size_t n = strlen(path);

    while (n > 1 && path[n - 1] == '/')
        path[--n] = '\0';
    if (n > strlen(".gguf") && dr_ends_with(path, ".gguf"))
        path[n - strlen(".gguf")] = '\0';
    const char *base = dr_path_base(path);
    return *base == '\0' || *base == '.' ? "model" : base;
}

static dr_status tell(const pass_job *job, const hf_model *m, const hf_gguf_report *r)
{
    dr_status st = DR_OK;

    DR_TRY(pass_convert_tell(job, m, dr_arena_printf(job->arena, "gguf %s", r->type),
                             r->bytes));
    if (r->kept + r->rounded > 0)
        DR_TRY(dr_buf_addf(job->text,
                           "matrices       %zu keep their codes, %zu are rounded\n",
                           r->kept, r->rounded));
    json_object_set_new(job->report, "matrices_kept", json_integer((json_int_t)r->kept));
    json_object_set_new(job->report, "matrices_rounded",
                        json_integer((json_int_t)r->rounded));
done:
    return st;
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    const convert *c = job->config;
    const char *dir = dr_path_join(job->arena, job->out_dir, "model");
    const char *path = dr_path_join(job->arena, dir, c->gguf_file_name);
    hf_gguf_report report = {0};
    hf_model *m = NULL, *made = NULL;
    dr_status st = DR_OK;

    DR_TRY(pass_convert_open(&m, in));
    DR_TRY(dr_make_dirs(dir));
    DR_TRY(hf_gguf_write(path, m, (hf_gguf_type)c->outtype, name_of(job->arena, in->name),
                         &report));
    DR_TRYF(hf_model_open(&made, path), "reading the result back");
    DR_TRY(tell(job, m, &report));
    *out = (pass_model){.kind = PASS_MODEL_HF, .path = path, .name = in->name};
done:
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
    double elements = (double)pass_model_elements(hf_model_config(m));
    bool small = c->outtype == HF_GGUF_AUTO && hf_model_quant(m).method != HF_QUANT_NONE &&
                 hf_model_quant(m).bits <= 4;
    need->disk = (uint64_t)(elements * (small ? 5 : bits[c->outtype]) / 8);
done:
    hf_model_close(m);
    return st;
}

extern const pass_def pass_convert_gguf; /* PASS(convert_gguf) in pass/passes.def */
const pass_def pass_convert_gguf = {
    .name = "ConvertHfToGGUF",
    .version = 1,
    .summary = "a model as a GGUF file for llama.cpp",
    .takes = PASS_MODEL_HF,
    .gives = PASS_MODEL_HF,
    .config_size = sizeof(convert),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = validate,
    .estimate = estimate,
    .run = run,
};
