/*
 * awq_race.c - which candidates are worth judging on the rest of the sample.
 *
 * AutoAWQ judges all 20 on all tokens to keep one.  Their losses follow each other from
 * sequence to sequence, so far fewer tell most of them apart: after 16 sequences, and after
 * each doubling, a candidate is dropped that is behind the least loss by more than ERRORS
 * standard errors of their differences' mean.  Sequences come in random order, so those
 * judged are a sample without replacement of all, n of N, and a mean's standard error is
 * s sqrt((1 - n/N) / n) (Cochran, Sampling Techniques, 1977, 2.6) however the text is
 * ordered: none when all are judged.  What is near the least is judged on all.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/rng.h"
#include "quant/awq_impl.h"

enum { FIRST = 16, ERRORS = 6 };

void awq_race_order(size_t *place, size_t count)
{
    dr_rng rng;

    dr_rng_init(&rng, 0, count);
    for (size_t i = 0; i < count; i++) {
        size_t k = (size_t)dr_rng_below(&rng, i + 1);
        place[i] = place[k];
        place[k] = i;
    }
}

void awq_race_open(awq_race *race, const awq_run *r, const bool *wanted)
{
    size_t sums = AWQ_CANDIDATES * r->sample_all + 1;

    *race = (awq_race){.all = r->sample_all,
                       .own = r->sample_count,
                       .first = r->sample_first,
                       .to_end = r->judge_to_end || !r->o->exact};
    memcpy(race->alive, wanted, sizeof(race->alive));
    race->sums = dr_calloc(2 * sums, sizeof(*race->sums));
    race->seen = race->sums + sums;
}

void awq_race_close(awq_race *race)
{
    free(race->sums);
    *race = (awq_race){0};
}

double *awq_race_sums(awq_race *race, size_t candidate)
{
    return race->sums + candidate * race->all + race->first;
}

bool awq_race_next(awq_race *race)
{
    size_t alive = 0;

    for (size_t c = 0; c < AWQ_CANDIDATES; c++)
        alive += race->alive[c];
    if (race->done == race->all || (race->done > 0 && alive < 2 && !race->to_end))
        return false;
    race->from = race->to;
    race->to = race->to == 0 ? FIRST : 2 * race->to;
    race->to = race->to < race->own ? race->to : race->own;
    return true;
}

static double total(const double *sums, size_t count)
{
    double sum = 0;

    for (size_t i = 0; i < count; i++)
        sum += sums[i];
    return sum;
}

/* Is the mean of b - a over `all` sequences above zero for certain, by those `done` of them
 * that are not zero in both? */
static bool is_behind(const double *a, const double *b, size_t all, size_t done)
{
    double n = (double)done, mean = (total(b, all) - total(a, all)) / n, squares = 0;

    for (size_t i = 0; i < all; i++)
        squares += (b[i] - a[i]) * (b[i] - a[i]);
    double variance = (squares - n * mean * mean) / (n - 1);
    return mean > ERRORS * sqrt(fmax(variance, 0) * (1 - n / (double)all) / n);
}

void awq_race_drop(bool alive[AWQ_CANDIDATES], const double *sums, size_t all, size_t done)
{
    double least = HUGE_VAL;
    size_t best = AWQ_CANDIDATES;

    for (size_t c = 0; c < AWQ_CANDIDATES; c++) {
        double sum = alive[c] ? total(sums + c * all, all) : HUGE_VAL;
        if (sum < least) {
            least = sum;
            best = c;
        }
    }
    for (size_t c = 0; best < AWQ_CANDIDATES && c < AWQ_CANDIDATES; c++)
        alive[c] = alive[c] &&
                   (c == best || !is_behind(sums + best * all, sums + c * all, all, done));
}

dr_status awq_race_meet(awq_race *race, dr_ranks *ranks)
{
    size_t count = AWQ_CANDIDATES * race->all;
    dr_status st = DR_OK;

    race->sums[count] = (double)race->to;
    memcpy(race->seen, race->sums, (count + 1) * sizeof(*race->seen));
    DR_TRY(dr_ranks_sum_doubles(ranks, race->seen, count + 1, "losses"));
    race->done = (size_t)race->seen[count];
    if (race->done >= FIRST && race->done < race->all && !race->to_end)
        awq_race_drop(race->alive, race->seen, race->all, race->done);
done:
    return st;
}

double awq_race_loss(const awq_race *race, size_t candidate, size_t values)
{
    if (!race->alive[candidate])
        return HUGE_VAL;
    return total(race->seen + candidate * race->all, race->all) /
           ((double)race->done * (double)values);
}
