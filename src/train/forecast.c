/*
 * forecast.c - how long a training will take, once its first step is known.
 *
 * The first step also converts the weights, so the forecast is rather too long than too
 * short.  What a smaller setting would take follows from the work of a token: 6 operations
 * for each weight that it passes, and attention's, which grow with the block.
 */
#include <stdio.h>
#include <string.h>

#include "train/train_impl.h"

enum { SHORT_SEQ = 256 };
#define LONG_SECONDS   600.0
#define INTEGERS_SHARE 0.4 /* of the time with products of floats (docs/FINETUNE.md) */

/* Operations of a token in blocks of so many. */
static double work(const hf_config *c, size_t seq)
{
    double weights = (double)c->vocab * (double)c->hidden +
                     (double)c->layers * (double)hf_layer_weights(c);
    /* forward 2 T H C of each layer, on average over a causal block; backward 5/2 of it */
    double attention =
        7.0 * (double)seq * (double)c->layers * (double)c->heads * (double)c->head_dim;
    return 6 * weights + attention;
}

static size_t evaluations(const trainer *t, const train_report *r)
{
    size_t left = r->total - r->steps;

    if (t->o->eval == NULL)
        return 0;
    if (t->o->eval_when == TRAIN_STEPS && t->o->eval_steps > 0)
        return left / train_every(t->o->eval_steps, r->total) + 1;
    return t->o->eval_when == TRAIN_EPOCH ? left / r->epoch_steps + 1 : 1;
}

/* What would take a part of the time. */
static void smaller(char *text, size_t size, const trainer *t, double step_seconds,
                    double seconds)
{
    const hf_config *c = nn_decoder_config(t->dec);
    size_t seq = t->blocks->seq_len, small = seq < SHORT_SEQ ? seq : SHORT_SEQ;
    size_t batch = t->o->batch * t->o->accumulation;
    char time[32], options[96] = "";
    double share = 1;

    *text = '\0';
    if (t->o->max_steps == 0) { /* epochs: tokens count, not how they are cut */
        size_t steps = (size_t)(3600 / step_seconds);
        if (seconds > 7200 && steps > 0)
            (void)snprintf(text, size, "; --max_steps %zu: 1 h", steps);
        return;
    }
    if (small < seq) {
        share *= (double)small * work(c, small) / ((double)seq * work(c, seq));
        (void)snprintf(options, sizeof(options), " --max_seq_len %zu", small);
    }
    if (t->o->batch > 1) {
        size_t n = strlen(options);
        share *= (double)t->o->accumulation / (double)batch;
        (void)snprintf(options + n, sizeof(options) - n,
                       " --per_device_train_batch_size 1");
    }
    if (share < 0.7)
        (void)snprintf(text, size, ";%s: %s", options, dr_duration(time, share * seconds));
}

/* The same steps in less time. */
static void faster(char *text, size_t size, const trainer *t, double seconds)
{
    char time[32];

    *text = '\0';
    if (!t->o->integers && train_takes_integers(&t->state.adapter, t->mem != NULL))
        (void)snprintf(text, size, "; --torch_dtype int8: %s",
                       dr_duration(time, INTEGERS_SHARE * seconds));
}

bool train_forecast_text(char *text, size_t size, const trainer *t, const train_report *r,
                         double step_seconds, double least)
{
    double steps = step_seconds * (double)(r->total - r->steps);
    double seconds = steps + t->eval_seconds * (double)evaluations(t, r);
    char time[32], same[64], other[192];

    if (seconds < least)
        return false;
    faster(same, sizeof(same), t, steps);
    smaller(other, sizeof(other), t, step_seconds, steps);
    (void)snprintf(text, size, "about %s on this %s%s%s", dr_duration(time, seconds),
                   t->mem != NULL ? "GPU" : "CPU", same, other);
    return true;
}

void train_forecast(const trainer *t, const train_report *r, const dr_progress *p,
                    double step_seconds)
{
    char text[256];

    if (train_forecast_text(text, sizeof(text), t, r, step_seconds, LONG_SECONDS))
        dr_progress_note(p, "%s", text);
}
