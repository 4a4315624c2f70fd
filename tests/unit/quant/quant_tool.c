/*
 * quant_tool.c - quantizes a folder and measures the result, without the CLI.
 *
 *     quant_tool MODEL OUT rtn|hqq|kquant|awq|awq-exact|gptq|best IDS.bin [option=v ...]
 *     quant_tool MODEL QUANTIZED compare IDS.bin
 *
 * IDS.bin: int32 count, int32 seq_len, then count * seq_len ids.  Options: bits, group,
 * sym, threads, clip, duo, desc, static, prescale, minmax, damp, sweeps, upstream, device,
 * verbose.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "core/file.h"
#include "quant/quant.h"

typedef struct {
    const char *model, *out, *what;
    quant_calib calib;
    quant_grid grid;
    quant_awq_options awq;
    quant_gptq_options gptq;
    int threads, verbose;
    const char *device;
} tool;

static const char *value_of(int argc, char **argv, const char *name, const char *dflt)
{
    size_t n = strlen(name);

    for (int i = 5; i < argc; i++) {
        if (strncmp(argv[i], name, n) == 0 && argv[i][n] == '=')
            return argv[i] + n + 1;
    }
    return dflt;
}

static int int_of(int argc, char **argv, const char *name, const char *dflt)
{
    return (int)strtol(value_of(argc, argv, name, dflt), NULL, 10);
}

static bool is(const tool *t, const char *what)
{
    return strcmp(t->what, what) == 0;
}

static dr_status write_model(const tool *t, nn_device *dev, hf_model *m)
{
    static const hf_quant_method methods[] = {HF_QUANT_OLIVE, HF_QUANT_AWQ, HF_QUANT_GPTQ};
    bool awq = strncmp(t->what, "awq", 3) == 0;
    hf_quant format = {methods[awq ? 1 : (is(t, "gptq") || is(t, "best") ? 2 : 0)],
                       t->grid.bits, t->grid.group_size, t->grid.symmetric};
    hf_writer *w = NULL;
    dr_progress progress = {0};
    dr_status st = DR_OK;

    if (t->grid.bits != 4 || t->grid.symmetric)
        format.method = HF_QUANT_OLIVE;
    DR_TRY(dr_make_dirs(t->out));
    DR_TRY(hf_writer_open(&w, t->out, m, &format));
    dr_progress_begin(&progress, t->what, "layers", (size_t)hf_model_config(m)->layers);
    quant_site site = {.dev = dev, .in = m, .out = w, .progress = &progress};
    if (awq)
        DR_TRY(quant_awq(&site, &t->grid, &t->calib, &t->awq));
    else if (is(t, "gptq"))
        DR_TRY(quant_gptq(&site, &t->grid, &t->calib, &t->gptq));
    else if (is(t, "best"))
        DR_TRY(quant_best(&site, &t->grid, &t->calib, &t->gptq));
    else if (is(t, "hqq"))
        DR_TRY(quant_hqq(&site, &t->grid));
    else if (is(t, "kquant"))
        DR_TRY(quant_kquant(&site, &t->grid));
    else
        DR_TRY(quant_rtn(&site, &t->grid));
    DR_TRY(hf_writer_finish(w));
done:
    dr_progress_end(&progress);
    hf_writer_close(w);
    return st;
}

static dr_status compare(const tool *t, nn_device *dev, hf_model *m)
{
    hf_model *after = NULL;
    quant_quality q = {0};
    dr_status st = DR_OK;

    DR_TRY(hf_model_open(&after, t->out));
    DR_TRY(quant_compare(&q, dev, m, after, &t->calib));
    (void)printf("KL %.5f +- %.5f  ppl %.3f -> %.3f  top1 %.4f  (%zu tokens)\n", q.kl,
                 q.kl_stderr, q.ppl_before, q.ppl_after, q.top1, q.tokens);
done:
    hf_model_close(after);
    return st;
}

static dr_status run(tool *t)
{
    nn_device *dev = NULL;
    hf_model *m = NULL;
    double start = dr_now_s();
    struct rusage usage;
    dr_status st = DR_OK;

    DR_TRY(nn_device_open(&dev, t->device, t->threads));
    DR_TRY(hf_model_open(&m, t->model));
    int group = t->grid.group_size;
    DR_TRY(quant_fit_group(&t->grid.group_size, m, group));
    if (strcmp(t->what, "compare") == 0)
        DR_TRY(compare(t, dev, m));
    else
        DR_TRY(write_model(t, dev, m));
    (void)getrusage(RUSAGE_SELF, &usage);
    (void)printf("%s group %d: %.2f s wall, %ld.%02ld s cpu, %ld MB\n", t->what,
                 t->grid.group_size, dr_now_s() - start,
                 (long)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec),
                 (long)(usage.ru_utime.tv_usec / 10000), usage.ru_maxrss / 1024);
done:
    hf_model_close(m);
    nn_device_close(dev);
    return st;
}

int main(int argc, char **argv)
{
    tool t = {0};
    dr_map ids = {0};

    if (argc < 5) {
        (void)fprintf(stderr,
                      "quant_tool MODEL OUT rtn|awq|awq-exact|gptq|compare IDS.bin\n");
        return 2;
    }
    if (dr_map_open(&ids, argv[4]) != DR_OK)
        return 1;
    const int32_t *head = (const int32_t *)(const void *)ids.data;
    t = (tool){.model = argv[1],
               .out = argv[2],
               .what = argv[3],
               .calib = {head + 2, (size_t)head[0], (size_t)head[1]},
               .grid = {int_of(argc, argv, "bits", "4"), int_of(argc, argv, "group", "128"),
                        int_of(argc, argv, "sym", "0") != 0},
               .awq = {.duo_scaling = int_of(argc, argv, "duo", "1") != 0,
                       .clip = int_of(argc, argv, "clip", "1") != 0,
                       .exact = strcmp(argv[3], "awq-exact") == 0},
               .gptq = {.damp_percent = strtod(value_of(argc, argv, "damp", "0.01"), NULL),
                        .desc_act = int_of(argc, argv, "desc", "1") != 0,
                        .static_groups = int_of(argc, argv, "static", "0") != 0,
                        .prescale = int_of(argc, argv, "prescale", "1") != 0,
                        .minmax = int_of(argc, argv, "minmax", "0") != 0,
                        .sweeps = int_of(argc, argv, "sweeps", "3"),
                        .upstream = strtod(value_of(argc, argv, "upstream", "0"), NULL)},
               .device = value_of(argc, argv, "device", "cpu"),
               .threads = int_of(argc, argv, "threads", "0")};
    if (int_of(argc, argv, "verbose", "0") != 0)
        dr_log_level(DR_DEBUG);
    dr_status st = run(&t);
    const dr_trail *trail = dr_trail_get();
    for (int i = 0; st != DR_OK && i < trail->count; i++)
        (void)fprintf(stderr, "%s:%d: %s\n", trail->frames[i].file, trail->frames[i].line,
                      trail->frames[i].text);
    dr_map_close(&ids);
    return st == DR_OK ? 0 : 1;
}
