/*
 * quant_report.c - report.html beside a quantized model: how good it is, where the errors
 * are, where the bytes went, what was asked for.
 *
 * It holds no time and no path: the same run gives the same bytes.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "pass/eval_impl.h"
#include "pass/page_impl.h"
#include "pass/quant_report_impl.h"

enum { REPORT_MAX = 64 << 20, FIGURES = 5 };

/* Where bytes are: the slots of all layers, then the rest. */
enum { EMBEDDING = HF_SLOT_COUNT, HEAD, NORMS, OTHER, PARTS };
static const char *const part_names[PARTS] = {"q, k, v",   "o",    "gate, up", "down",
                                              "embedding", "head", "norms",    "other"};

/* ---- where the bytes went ---- */

static bool starts(const char *name, const char *path)
{
    size_t n = strlen(path);

    return strncmp(name, path, n) == 0 && name[n] == '.';
}

static int part_of(const hf_model *m, const char *name)
{
    const hf_linear *head = hf_head_linear(m), *l = NULL;

    for (int layer = 0; layer < hf_model_config(m)->layers; layer++) {
        size_t n = hf_layer_linears(m, layer, &l);
        for (size_t i = 0; i < n; i++)
            if (starts(name, l[i].path))
                return (int)l[i].slot;
    }
    if (head != NULL && starts(name, head->path))
        return HEAD;
    if (strstr(name, "embed") != NULL)
        return EMBEDDING;
    return strstr(name, "norm") != NULL ? NORMS : OTHER;
}

static void part_bytes(double bytes[PARTS], const hf_model *m)
{
    for (int p = 0; p < PARTS; p++)
        bytes[p] = 0;
    for (size_t i = 0; i < hf_tensor_count(m); i++) {
        const dr_tensor *t = hf_tensor_at(m, i);
        bytes[part_of(m, t->name)] += (double)t->bytes;
    }
}

static double part_weights(const hf_config *c, int part)
{
    const double embedding = (double)c->vocab * (double)c->hidden;

    if (part < HF_SLOT_COUNT)
        return (double)c->layers * (double)hf_slot_in(c, (hf_slot)part) *
               (double)hf_slot_out(c, (hf_slot)part);
    return part == EMBEDDING || part == HEAD ? embedding : 0;
}

static dr_status tell_bytes(dr_buf *b, dr_arena *a, const pass_quant_outcome *o)
{
    const hf_config *c = hf_model_config(o->after);
    double before[PARTS], after[PARTS];
    const char *cells[(PARTS + 1) * 4] = {"", "bytes before", "bytes after",
                                          "bits a weight"};
    page_pair pairs[PARTS];
    size_t n = 0;
    dr_status st = DR_OK;

    part_bytes(before, o->before);
    part_bytes(after, o->after);
    for (int p = 0; p < PARTS; p++) {
        double weights = part_weights(c, p);
        if (before[p] == 0 && after[p] == 0)
            continue;
        pairs[n] = (page_pair){part_names[p], {before[p] / 1e6, after[p] / 1e6}};
        const char **row = cells + 4 * ++n;
        row[0] = part_names[p];
        row[1] = dr_arena_printf(a, "%.0f", before[p]);
        row[2] = dr_arena_printf(a, "%.0f", after[p]);
        row[3] = weights > 0 ? dr_arena_printf(a, "%.3f", 8 * after[p] / weights) : "";
    }
    DR_TRY(page_section(b, "Where the bytes went",
                        "Scales and zero points count with their weights."));
    DR_TRY(page_pairs(b, pairs, n, (const char *const[2]){"before", "after"}, " MB"));
    DR_TRY(page_table(b, cells, n + 1, 4));
done:
    return st;
}

/* ---- how good it is ---- */

static void figure_row(const char **row, dr_arena *a, const char *name, double scale,
                       eval_figure f)
{
    row[0] = name;
    row[1] = dr_arena_printf(a, "%.4f", scale * f.value);
    row[2] = isfinite(f.error) ? dr_arena_printf(a, "%.4f", scale * f.error) : "";
    row[3] = isfinite(f.error)
                 ? dr_arena_printf(a, "%.4f to %.4f", scale * f.low, scale * f.high)
                 : "";
}

static dr_status tell_quality(dr_buf *b, dr_arena *a, const quant_quality *q)
{
    const char *cells[(FIGURES + 1) * 4] = {"", "value", "standard error", "95 % interval"};
    dr_status st = DR_OK;

    figure_row(cells + 4, a, "perplexity before", 1, eval_of_loss(q->loss_before));
    figure_row(cells + 8, a, "perplexity after", 1, eval_of_loss(q->loss_after));
    figure_row(cells + 12, a, "one by the other", 1, eval_of_loss(q->loss_more));
    figure_row(cells + 16, a, "KL(before || after), nats a token", 1,
               eval_of_mean(q->kl_mean));
    figure_row(cells + 20, a, "same most likely token, %", 100, eval_of_share(q->same, 0));
    DR_TRY(page_section(b, "How close it is",
                        dr_arena_printf(a,
                                        "On %zu tokens of built-in text that did not "
                                        "calibrate; errors over %zu blocks.",
                                        q->tokens, q->blocks)));
    DR_TRY(page_table(b, cells, FIGURES + 1, 4));
done:
    return st;
}

static dr_status tell_errors(dr_buf *b, const quant_layer_error *errors, size_t layers)
{
    const size_t stride = sizeof(*errors) / sizeof(double);
    const page_series stream = {"residual stream", &errors[0].stream, layers, stride};
    page_series slots[HF_SLOT_COUNT];
    dr_status st = DR_OK;

    for (int s = 0; s < HF_SLOT_COUNT; s++)
        slots[s] = (page_series){part_names[s], &errors[0].slot[s], layers, stride};
    DR_TRY(page_section(b, "Error by layer",
                        "Of each product's output, relative to its size, when its input "
                        "is the original's."));
    DR_TRY(page_bars(b, slots, HF_SLOT_COUNT, "layer"));
    DR_TRY(page_section(b, "What adds up",
                        "Error of the residual stream behind each layer, relative to its "
                        "size, when all layers before are the quantized ones."));
    DR_TRY(page_lines(b, &stream, 1, "layer"));
done:
    return st;
}

/* ---- what was asked for ---- */

static dr_status tell_settings(dr_buf *b, dr_arena *a, const pass_job *job,
                               const pass_quant_outcome *o)
{
    const char *cells[2 * PAGE_SETTINGS_MAX] = {"setting", "value"};
    size_t n = 1;
    dr_status st = DR_OK;

    cells[2] = "pass";
    cells[3] = dr_arena_printf(a, "%s, version %d", job->def->name, job->def->version);
    cells[4] = "weights before";
    cells[5] = hf_model_origin(o->before);
    n = 3;
    if (hf_model_quant(o->after).method != HF_QUANT_NONE) {
        cells[2 * n] = "grid";
        cells[2 * n++ + 1] =
            dr_arena_printf(a, "%d bits, group %d, %s", o->grid->bits, o->grid->group_size,
                            o->grid->symmetric ? "symmetric" : "zero points");
    }
    if (o->calib_blocks > 0) {
        cells[2 * n] = "calibration";
        cells[2 * n++ + 1] = dr_arena_printf(
            a, "%zu blocks of %zu tokens, %s", o->calib_blocks, o->calib_seq_len,
            job->data->data_name != NULL ? "files" : "built-in text");
    }
    DR_TRY(page_settings(b, a, cells, n, job));
done:
    return st;
}

dr_status pass_quant_report(const pass_job *job, const pass_quant_outcome *o)
{
    dr_arena a = {0};
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, REPORT_MAX);
    DR_TRY(page_begin(&b, dr_arena_printf(&a, "%s, quantized by %s",
                                          hf_model_config(o->after)->arch_name,
                                          job->def->name)));
    if (o->quality != NULL)
        DR_TRY(tell_quality(&b, &a, o->quality));
    else
        DR_TRY(page_section(&b, "How close it is", "Not measured: --no_evaluate."));
    if (o->errors != NULL)
        DR_TRY(tell_errors(&b, o->errors, (size_t)hf_model_config(o->after)->layers));
    DR_TRY(tell_bytes(&b, &a, o));
    DR_TRY(tell_settings(&b, &a, job, o));
    DR_TRY(page_write(&b, job));
done:
    dr_buf_release(&b);
    dr_arena_release(&a);
    return st;
}
