/*
 * verb_adapters.c - drupe convert-adapters and drupe extract-adapters: PEFT adapters as
 * files for ONNX Runtime.  Names of options and their defaults are Olive's.
 */
#include "cli/cli_impl.h"
#include "core/log.h"

enum { FLOAT32, FLOAT16, INT4 };
enum { SYMMETRIC, ASYMMETRIC };
static const char *const dtypes[] = {"float32", "float16", NULL};
static const char *const extract_dtypes[] = {"float32", "float16", "int4", NULL};
const char *const cli_adapter_formats[] = {"onnx_adapter", "safetensors", "numpy", "pt",
                                           NULL};
static const char *const modes[] = {"symmetric", "asymmetric", NULL};

typedef struct {
    bool quantize_int4;
    int block_size;
    int mode;
} int4_options;

#define INT4_ROWS(s)                                                                       \
    CLI_ROW(s, int4.quantize_int4, "quantize_int4", DR_PARAM_BOOL, .dflt = "false",        \
            .help = "blocks of 4 bits, for a graph that takes them"),                      \
        CLI_ROW(s, int4.block_size, "int4_block_size", DR_PARAM_INT, .dflt = "32",         \
                .min = 16, .max = 256, .help = "values that share a scale"),               \
        CLI_ROW(s, int4.mode, "int4_quantization_mode", DR_PARAM_CHOICE,                   \
                .dflt = "symmetric", .choices = modes,                                     \
                .help = "with or without zero points")

static dr_status check_int4(bool int4, const unsigned char *given, const dr_param *params,
                            size_t n)
{
    static const char *const names[] = {"int4_block_size", "int4_quantization_mode"};

    for (size_t i = 0; i < DR_COUNT(names) && !int4; i++) {
        if (dr_param_given(params, n, given, names[i]))
            return dr_fail(DR_EUSAGE, "--%s needs --quantize_int4", names[i]);
    }
    return DR_OK;
}

static drupe_adapter_form form_of(const char *format, int dtype, const int4_options *o)
{
    return (drupe_adapter_form){.format = format,
                                .dtype = dtype == FLOAT16 ? "float16" : "float32",
                                .int4 = o->quantize_int4 || dtype == INT4,
                                .block_size = o->block_size,
                                .asymmetric = o->mode == ASYMMETRIC};
}

/* ---- convert-adapters ---- */

typedef struct {
    cli_common common;
    const char *adapter_path;
    const char *model_name_or_path;
    const char *output_path;
    int adapter_format;
    int dtype;
    int4_options int4;
    bool disable_telemetry;
} convert_options;

static const dr_param convert_params[] = {
    DR_STR(convert_options, adapter_path, .short_name = 'a', .required = true,
           .help = "PEFT folder, or what finetune made"),
    DR_STR(convert_options, output_path, .short_name = 'o', .required = true,
           .help = "file for the result; the format's suffix is added when missing"),
    DR_CHOICE(convert_options, adapter_format, .dflt = "onnx_adapter",
              .choices = cli_adapter_formats,
              .help = "of the file; pt is refused: pickled files are not written"),
    DR_CHOICE(convert_options, dtype, .dflt = "float32", .choices = dtypes,
              .help = "of the values; with --quantize_int4 of their scales"),
    INT4_ROWS(convert_options),
    DR_STR(convert_options, model_name_or_path, .short_name = 'm',
           .help = "the adapter's base model, which DoRA needs"),
    DR_BOOL(convert_options, disable_telemetry, .dflt = "false", .hidden = true,
            .help = "accepted; there is none"),
    CLI_THREADS(convert_options),
    CLI_COMMON(convert_options),
};

static dr_status run_convert(const void *cfg, const unsigned char *given)
{
    const convert_options *o = cfg;
    const drupe_adapter_conversion c = {
        .adapter = o->adapter_path,
        .model = o->model_name_or_path,
        .output = o->output_path,
        .form = form_of(cli_adapter_formats[o->adapter_format], o->dtype, &o->int4),
        .threads = o->common.threads};
    drupe_result *r = NULL;
    dr_status st = DR_OK;

    DR_TRY(check_int4(c.form.int4, given, convert_params, DR_COUNT(convert_params)));
    DR_TRY((dr_status)drupe_convert_adapter(&r, &c));
    DR_TRY(cli_print(&o->common, r));
done:
    drupe_result_free(r);
    return st;
}

extern const cli_verb verb_convert_adapters; /* VERB(convert_adapters, ...) */
const cli_verb verb_convert_adapters = {
    "drupe convert-adapters -a FOLDER -o FILE [--adapter_format onnx_adapter]",
    sizeof(convert_options), convert_params, DR_COUNT(convert_params), run_convert};

/* ---- extract-adapters ---- */

typedef struct {
    cli_common common;
    const char *model;
    const char *adapter_path;
    const char *output;
    int format;
    int dtype;
    int4_options int4;
    bool disable_telemetry;
} extract_options;

static const dr_param extract_params[] = {
    DR_STR(extract_options, model, .short_name = 'm', .required = true,
           .help = "PEFT folder, what finetune made, or the base of --adapter_path"),
    CLI_ROW(extract_options, format, "format", DR_PARAM_CHOICE, .short_name = 'f',
            .required = true, .choices = cli_adapter_formats,
            .help = "of the files; pt is refused: pickled files are not written"),
    DR_STR(extract_options, output, .short_name = 'o', .required = true,
           .help = "folder for the files, one NAME.suffix an adapter"),
    DR_STR(extract_options, adapter_path, .short_name = 'a',
           .help = "NAME=PATH,NAME2=PATH2; default: what the model has"),
    DR_CHOICE(extract_options, dtype, .dflt = "float32", .choices = extract_dtypes,
              .help = "of the values; int4 is --quantize_int4"),
    INT4_ROWS(extract_options),
    DR_BOOL(extract_options, disable_telemetry, .dflt = "false", .hidden = true,
            .help = "accepted; there is none"),
    CLI_THREADS(extract_options),
    CLI_COMMON(extract_options),
    DR_REFUSED("cache_dir", "nothing temporary is kept", NULL),
};

static dr_status run_extract(const void *cfg, const unsigned char *given)
{
    const extract_options *o = cfg;
    const drupe_adapter_extraction e = {
        .model = o->model,
        .adapters = o->adapter_path,
        .output = o->output,
        .form = form_of(cli_adapter_formats[o->format], o->dtype, &o->int4),
        .threads = o->common.threads};
    drupe_result *r = NULL;
    dr_status st = DR_OK;

    DR_TRY(check_int4(e.form.int4, given, extract_params, DR_COUNT(extract_params)));
    DR_TRY((dr_status)drupe_extract_adapters(&r, &e));
    DR_TRY(cli_print(&o->common, r));
    dr_log(DR_INFO, "extracted: %s", o->output);
done:
    drupe_result_free(r);
    return st;
}

extern const cli_verb verb_extract_adapters; /* VERB(extract_adapters, ...) */
const cli_verb verb_extract_adapters = {
    "drupe extract-adapters -m MODEL -f FORMAT -o FOLDER", sizeof(extract_options),
    extract_params, DR_COUNT(extract_params), run_extract};
