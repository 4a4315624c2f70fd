/*
 * quality.c - how good a model is, as a table for people and as JSON for programs; one form
 * for quantize's last lines and for evaluate.
 */
#include "pass/eval_impl.h"

#include <math.h>

#include "core/log.h"

dr_status eval_head(dr_buf *text)
{
    return dr_buf_addf(text, "%-20s %12s %10s %12s %12s\n", "", "value", "std. error",
                       "95 % from", "to");
}

static void set(json_t *report, const char *key, const char *what, double v)
{
    dr_arena a = {0};

    json_object_set_new(report, dr_arena_printf(&a, "%s%s", key, what),
                        isfinite(v) ? json_real(v) : json_null());
    dr_arena_release(&a);
}

/* What would be printed as -0.0000 is 0. */
static double shown(double v)
{
    return fabs(v) < 0.00005 ? 0 : v;
}

/* low and high are not numbers where there is one block. */
static dr_status row(dr_buf *text, json_t *report, const char *name, const char *key,
                     double scale, eval_figure f)
{
    dr_status st = DR_OK;

    set(report, key, "", f.value);
    set(report, key, "_stderr", f.error);
    set(report, key, "_low", isfinite(f.error) ? f.low : f.error);
    set(report, key, "_high", isfinite(f.error) ? f.high : f.error);
    DR_TRY(dr_buf_addf(text, "%-20s %12.4f", name, shown(scale * f.value)));
    if (isfinite(f.error))
        DR_TRY(dr_buf_addf(text, " %10.4f %12.4f %12.4f", shown(scale * f.error),
                           shown(scale * f.low), shown(scale * f.high)));
    DR_TRY(dr_buf_adds(text, "\n"));
done:
    return st;
}

eval_figure eval_of_mean(quant_mean m)
{
    return (eval_figure){m.mean, m.error, m.mean - m.half, m.mean + m.half};
}

eval_figure eval_of_share(quant_mean m, double floor)
{
    return (eval_figure){m.mean, m.error, fmax(m.mean - m.half, floor),
                         fmin(m.mean + m.half, 1)};
}

eval_figure eval_of_loss(quant_mean loss)
{
    const double value = exp(loss.mean);

    return (eval_figure){value, value * loss.error, exp(loss.mean - loss.half),
                         exp(loss.mean + loss.half)};
}

dr_status eval_row(dr_buf *text, json_t *report, const char *name, const char *key,
                   double scale, quant_mean m)
{
    return row(text, report, name, key, scale, eval_of_mean(m));
}

dr_status eval_share_row(dr_buf *text, json_t *report, const char *name, const char *key,
                         double floor, quant_mean m)
{
    return row(text, report, name, key, 100, eval_of_share(m, floor));
}

dr_status eval_exp_row(dr_buf *text, json_t *report, const char *name, const char *key,
                       quant_mean loss)
{
    return row(text, report, name, key, 1, eval_of_loss(loss));
}

dr_status eval_quality(dr_buf *text, json_t *report, const quant_quality *q,
                       const eval_names *names)
{
    dr_status st = DR_OK;

    DR_TRY(eval_head(text));
    if (q->both)
        DR_TRY(
            eval_exp_row(text, report, names->before, names->before_key, q->loss_before));
    DR_TRY(eval_exp_row(text, report, names->after, names->after_key, q->loss_after));
    if (q->both) {
        DR_TRY(eval_exp_row(text, report, "  one by the other", "perplexity_ratio",
                            q->loss_more));
        DR_TRY(eval_row(text, report, "KL (nats)", "kl", 1, q->kl_mean));
        DR_TRY(eval_share_row(text, report, "same top token (%)", "top1_agreement", 0,
                              q->same));
    }
    json_object_set_new(report, "judged_tokens", json_integer((json_int_t)q->tokens));
    json_object_set_new(report, "judged_blocks", json_integer((json_int_t)q->blocks));
done:
    return st;
}

dr_status eval_limit(dr_buf *text, json_t *report, const char *name, double value,
                     double limit)
{
    json_t *list = json_object_get(report, "limits");
    const bool met = value <= limit; /* not a number: missed */
    dr_status st = DR_OK;

    if (limit == 0)
        return DR_OK;
    if (list == NULL) {
        list = json_array();
        json_object_set_new(report, "limits", list);
    }
    json_t *one = json_pack("{s:s, s:f, s:b}", "figure", name, "limit", limit, "met", met);
    set(one, "value", "", value);
    json_array_append_new(list, one);
    DR_TRY(dr_buf_addf(text, "limit          %s %.6g is %s %.6g\n", name, value,
                       met ? "within" : "above", limit));
done:
    return st;
}
