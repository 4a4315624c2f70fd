/*
 * lora_report.c - report.html beside an adapter: how good it is, how the losses went, what
 * was asked for.
 *
 * It holds no time and no path, and is the same for a training that was stopped and went
 * on.
 */
#include <math.h>
#include <stdlib.h>

#include "core/file.h"
#include "core/mem.h"
#include "pass/eval_impl.h"
#include "pass/lora_impl.h"
#include "pass/page_impl.h"

enum { PAGE_MAX = 64 << 20, POINTS_MAX = 1000 };

static void figure(const char **row, dr_arena *a, const char *name, quant_mean loss)
{
    eval_figure f = eval_of_loss(loss);

    row[0] = name;
    row[1] = dr_arena_printf(a, "%.4f", loss.mean);
    row[2] = dr_arena_printf(a, "%.4f", f.value);
    row[3] = isfinite(f.error) ? dr_arena_printf(a, "%.4f to %.4f", f.low, f.high) : "";
}

static dr_status tell_perplexity(dr_buf *b, dr_arena *a, const pass_training *t)
{
    const char *cells[4 * 4] = {"", "loss", "perplexity", "95 % interval"};
    const train_report *r = t->report;
    size_t rows = 1;
    dr_status st = DR_OK;

    if (r->eval_count == 0)
        return page_section(b, "How good it is",
                            "Not measured: --eval_split 'train[90%:]' --train_split "
                            "'train[:90%]' judges it by rows that are not trained on.");
    if (r->original_losses != NULL)
        figure(cells + 4 * rows++, a, "the base's original",
               pass_eval_mean(r->original_losses, t->eval->count));
    figure(cells + 4 * rows++, a, "base", pass_eval_mean(r->base_losses, t->eval->count));
    figure(cells + 4 * rows++, a, "base and adapter",
           pass_eval_mean(r->made_losses, t->eval->count));
    DR_TRY(page_section(b, "How good it is",
                        dr_arena_printf(a,
                                        "On %zu blocks of %zu tokens that were held out; "
                                        "the adapter is that of step %zu of %zu%s. Errors "
                                        "are over blocks.",
                                        t->eval->count, t->eval->seq_len, r->made_step,
                                        r->steps,
                                        r->stopped && r->steps < r->total
                                            ? ", where nothing got better any more"
                                            : "")));
    DR_TRY(page_table(b, cells, rows, 4));
done:
    return st;
}

/* values[0..steps] thinned to means of `every` points, so that a page stays small. */
static double *thin(double *values, size_t steps, size_t every)
{
    for (size_t i = 0; i * every <= steps; i++) {
        double sum = 0;
        size_t n = 0;
        for (size_t k = i * every; k < (i + 1) * every && k <= steps; k++)
            if (isfinite(values[k])) {
                sum += values[k];
                n++;
            }
        values[i] = n > 0 ? sum / (double)n : (double)NAN;
    }
    return values;
}

/* out[0..steps]: the evaluations, joined by straight lines. */
static void join_evaluations(double *out, const train_report *r)
{
    for (size_t k = 0; k <= r->steps; k++)
        out[k] = (double)NAN;
    for (size_t i = 0; i < r->eval_count; i++) {
        const train_eval *e = &r->evals[i], *next = e + (i + 1 < r->eval_count);
        for (size_t k = e->step; k <= next->step; k++) {
            size_t wide = next->step - e->step;
            double at = wide > 0 ? (double)(k - e->step) / (double)wide : 0;
            out[k] = e->loss + at * (next->loss - e->loss);
        }
    }
}

static dr_status tell_curves(dr_buf *b, dr_arena *a, const train_report *r)
{
    size_t n = r->steps + 1, every = (n + POINTS_MAX - 1) / POINTS_MAX;
    size_t points = (n + every - 1) / every;
    double *losses = dr_calloc(n, sizeof(double)), *evals = dr_calloc(n, sizeof(double));
    double *norms = dr_calloc(n, sizeof(double));
    const char *unit =
        every > 1 ? dr_arena_printf(a, "%zu steps", every) : (const char *)"step";
    dr_status st = DR_OK;

    losses[0] = norms[0] = (double)NAN;
    for (size_t k = 1; k <= r->steps; k++) {
        losses[k] = r->losses[k - 1];
        norms[k] = r->grad_norms[k - 1];
    }
    join_evaluations(evals, r);
    const page_series curves[] = {{"training", thin(losses, r->steps, every), points, 1},
                                  {"evaluation", thin(evals, r->steps, every), points, 1}};
    const page_series norm = {"gradient norm, before clipping",
                              thin(norms, r->steps, every), points, 1};
    DR_TRY(page_section(b, "Loss", "Nats a token, by step."));
    DR_TRY(page_lines(b, curves, r->eval_count > 0 ? 2 : 1, unit));
    DR_TRY(page_section(b, "Gradient", "Its norm over all that trains."));
    DR_TRY(page_lines(b, &norm, 1, unit));
done:
    free(losses);
    free(evals);
    free(norms);
    return st;
}

static dr_status tell_settings(dr_buf *b, dr_arena *a, const pass_job *job,
                               const pass_training *t)
{
    const char *cells[2 * PAGE_SETTINGS_MAX] = {"setting", "value"};
    const train_report *r = t->report;
    size_t n = 1;

    const char *const rows[][2] = {
        {"pass", dr_arena_printf(a, "%s, version %d", job->def->name, job->def->version)},
        {"base", hf_model_origin(t->base)},
        {"data", dr_arena_printf(a, "%zu blocks of %zu tokens", t->blocks->count,
                                 t->blocks->seq_len)},
        {"steps", dr_arena_printf(a, "%zu, %zu an epoch", r->steps, r->epoch_steps)},
        {"tokens trained on", dr_arena_printf(a, "%zu", r->tokens)},
        {"parameters", dr_arena_printf(a, "%zu", r->trainable)},
        {"loss on", t->blocks->marks != NULL ? "answers" : "all tokens"}};
    for (size_t i = 0; i < DR_COUNT(rows); i++, n++) {
        cells[2 * n] = rows[i][0];
        cells[2 * n + 1] = rows[i][1];
    }
    return page_settings(b, a, cells, n, job);
}

dr_status pass_training_report(const pass_job *job, const pass_training *t)
{
    dr_arena a = {0};
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, PAGE_MAX);
    DR_TRY(page_begin(&b, dr_arena_printf(&a, "%s, trained by %s",
                                          hf_model_config(t->base)->arch_name,
                                          job->def->name)));
    DR_TRY(tell_perplexity(&b, &a, t));
    DR_TRY(tell_curves(&b, &a, t->report));
    DR_TRY(tell_settings(&b, &a, job, t));
    DR_TRY(page_write(&b, job));
done:
    dr_buf_release(&b);
    dr_arena_release(&a);
    return st;
}
