/*
 * schedule.c - learning rates over the steps, as transformers 5.24 computes them
 * (optimization.py); all but constant begin with a warmup from 0.
 *
 *     linear, cosine                 to 0 at the last step
 *     cosine_with_restarts           num_cycles (1) falls to 0, each from the top
 *     polynomial                     (1 - done)^power (1) down to lr_end (1e-7)
 *     constant_with_warmup           nothing more
 *     inverse_sqrt                   1 / sqrt of steps over timescale (the warmup's, or
 *                                    10,000)
 *     cosine_with_min_lr             cosine down to min_lr, or min_lr_rate of the rate
 *     warmup_stable_decay            the last num_decay_steps fall, as a cosine, to
 *                                    min_lr_ratio of the rate, where the warmup begins
 *     reduce_lr_on_plateau           without a warmup; times factor (0.1), to min_lr at
 *                                    least, after more than patience (10) evaluations that
 *                                    were not better by threshold (1e-4 of the best); then
 *                                    cooldown (0) of them do not count (torch 2.15)
 *
 * The last is computed anew from all evaluations, so that a checkpoint need not hold it.
 */
#include <math.h>

#include "train/train_impl.h"

const char *const train_schedule_names[] = {"constant",
                                            "linear",
                                            "cosine",
                                            "cosine_with_restarts",
                                            "polynomial",
                                            "constant_with_warmup",
                                            "inverse_sqrt",
                                            "cosine_with_min_lr",
                                            "warmup_stable_decay",
                                            "reduce_lr_on_plateau",
                                            NULL};

static const double pi = 3.14159265358979323846;

/* From 1 at done = 0 to 0 at 1/2 a cycle. */
static double cosine(double done, double cycles)
{
    double v = 0.5 * (1 + cos(2 * pi * cycles * done));

    return v > 0 ? v : 0;
}

/* Of the rate, for step k behind the warmup; done: the share of what is left then. */
static double share(const train_options *o, size_t k, size_t warmup, size_t total)
{
    const train_schedule_shape *s = &o->shape;
    double done = total > warmup ? (double)(k - warmup) / (double)(total - warmup) : 1;
    double half = s->num_cycles > 0 ? s->num_cycles : 0.5;

    done = done < 1 ? done : 1;
    switch (o->schedule) {
    case TRAIN_CONSTANT:
    case TRAIN_CONSTANT_WARMUP:
    case TRAIN_PLATEAU:
        break;
    case TRAIN_LINEAR:
        return 1 - done;
    case TRAIN_COSINE:
        return cosine(done, half);
    case TRAIN_COSINE_RESTARTS:
        if (done >= 1)
            return 0;
        return cosine(fmod((s->num_cycles > 0 ? s->num_cycles : 1) * done, 1), 0.5);
    case TRAIN_POLYNOMIAL:
        return (1 - s->lr_end / o->learning_rate) * pow(1 - done, s->power) +
               s->lr_end / o->learning_rate;
    case TRAIN_INVERSE_SQRT: {
        double scale = s->timescale > 0 ? (double)s->timescale
                       : warmup > 0     ? (double)warmup
                                        : 10000;
        return 1 / sqrt((double)(k - warmup) / scale + 1);
    }
    case TRAIN_COSINE_MIN: {
        double low = s->min_lr_ratio > 0 ? s->min_lr_ratio : s->min_lr / o->learning_rate;
        return cosine(done, half) * (1 - low) + low;
    }
    case TRAIN_STABLE_DECAY: {
        size_t decay = s->num_decay_steps, begin = total > decay ? total - decay : 0;
        begin = begin > warmup ? begin : warmup;
        if (k < begin)
            return 1;
        double fallen = decay > 0 ? (double)(k - begin) / (double)decay : 1;
        if (fallen >= 1)
            return s->min_lr_ratio;
        return cosine(fallen, half) * (1 - s->min_lr_ratio) + s->min_lr_ratio;
    }
    }
    return 1;
}

double train_rate(const train_options *o, size_t k, size_t total)
{
    size_t warmup = o->warmup_steps;

    if (o->schedule == TRAIN_CONSTANT || o->schedule == TRAIN_PLATEAU)
        return o->learning_rate;
    if (warmup == 0)
        warmup = (size_t)ceil((double)total * o->warmup_ratio);
    if (k < warmup) {
        double low = o->schedule == TRAIN_STABLE_DECAY ? o->shape.min_lr_ratio : 0;
        return o->learning_rate * (low + (1 - low) * (double)k / (double)warmup);
    }
    return o->learning_rate * share(o, k, warmup, total);
}

double train_plateau_rate(const train_options *o, const train_eval *evals, size_t count)
{
    const train_schedule_shape *s = &o->shape;
    double rate = o->learning_rate, best = (double)INFINITY;
    size_t waited = 0, cooling = 0;

    for (size_t i = 1; i < count; i++) {
        double loss = evals[i].loss;
        double least = s->absolute ? best - s->threshold : best * (1 - s->threshold);
        waited = loss < least ? 0 : waited + 1;
        best = loss < least ? loss : best;
        if (cooling > 0) {
            cooling--;
            waited = 0;
        }
        if (waited <= s->patience)
            continue;
        double next = fmax(rate * s->factor, s->min_lr);
        rate = rate - next > s->eps ? next : rate;
        cooling = s->cooldown;
        waited = 0;
    }
    return rate;
}

double train_rate_of(const train_options *o, const train_report *r, size_t k)
{
    if (o->schedule == TRAIN_PLATEAU)
        return train_plateau_rate(o, r->evals, r->eval_count);
    return train_rate(o, k, r->total);
}
