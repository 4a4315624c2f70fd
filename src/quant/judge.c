/*
 * judge.c - from the logits of one or two models over a text to perplexity, KL and top-1
 * agreement, each with the standard error of its mean.
 *
 * KL and agreement are judged at every position, perplexity at all but the last of a block,
 * whose next token is unknown.  The standard error is that of a mean over blocks: positions
 * of one block are not independent.  How much more the second model loses than the first is
 * judged block by block as well, which is much sharper than two intervals side by side.
 *
 * Rows are judged on the device and summed here in order: the same bytes for any number
 * of threads.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "quant/quant_impl.h"

enum { KL, SAME, LOSS_BEFORE, LOSS_AFTER, LOSS_MORE, FIGURES };

struct quant_judge {
    nn_device *dev;   /* borrowed */
    nn_device *mem;   /* where the logits lie; NULL: here */
    quant_calib text; /* borrowed ids */
    size_t vocab;     /* logits of a row */
    float *logits[2]; /* owned, mem's: [QUANT_JUDGE_ROWS][V]; the first NULL: one model */
    nn_row_stat *rows[2];      /* owned: [QUANT_JUDGE_ROWS] of each side */
    int32_t *targets;          /* owned: [QUANT_JUDGE_ROWS] */
    double (*blocks)[FIGURES]; /* owned: sums of each block's rows, then their means */
    size_t block, at;          /* the next position */
};

void quant_judge_close(quant_judge *j)
{
    if (j == NULL)
        return;
    for (int i = 0; i < 2; i++) {
        nn_mem_free(j->mem, j->logits[i]);
        free(j->rows[i]);
    }
    free(j->targets);
    free(j->blocks);
    free(j);
}

dr_status quant_judge_open(quant_judge **out, nn_device *dev, size_t vocab, bool both,
                           bool there, const quant_calib *text)
{
    quant_judge *j = dr_calloc(1, sizeof(*j));
    dr_status st = DR_OK;

    *out = NULL;
    *j =
        (quant_judge){.dev = dev, .mem = there ? dev : NULL, .text = *text, .vocab = vocab};
    if (text->count == 0 || text->seq_len == 0)
        DR_FAIL(DR_EUSAGE,
                "text to compare on: expected blocks of tokens, found %zu of %zu",
                text->count, text->seq_len);
    for (size_t i = 0; i < text->count * text->seq_len; i++)
        if (text->ids[i] < 0 || (size_t)text->ids[i] >= vocab)
            DR_FAIL(DR_EFORMAT, "token %d is outside of the vocabulary of %zu",
                    text->ids[i], vocab);
    j->targets = dr_calloc(QUANT_JUDGE_ROWS, sizeof(*j->targets));
    j->blocks = dr_calloc(text->count, sizeof(*j->blocks));
    for (int i = 0; i < 2; i++) {
        j->rows[i] = dr_calloc(QUANT_JUDGE_ROWS, sizeof(*j->rows[i]));
        if (i == QUANT_AFTER || both)
            DR_TRY(
                quant_floats_at(j->mem, &j->logits[i], QUANT_JUDGE_ROWS, vocab, "logits"));
    }
    *out = j;
    j = NULL;
done:
    quant_judge_close(j);
    return st;
}

size_t quant_judge_wants(const quant_judge *j)
{
    size_t left = j->text.seq_len - j->at;

    if (j->block == j->text.count)
        return 0;
    return left < QUANT_JUDGE_ROWS ? left : QUANT_JUDGE_ROWS;
}

float *quant_judge_logits(quant_judge *j, quant_side side)
{
    return j->logits[side];
}

/* What each side says of the rows at hand. */
static dr_status ask_rows(quant_judge *j, size_t n)
{
    const int32_t *ids = j->text.ids + j->block * j->text.seq_len;
    const float *a = j->logits[QUANT_BEFORE], *b = j->logits[QUANT_AFTER];
    dr_status st = DR_OK;

    for (size_t i = 0; i < n; i++) {
        size_t next = j->at + i + 1;
        j->targets[i] = next < j->text.seq_len ? ids[next] : 0; /* the last: not used */
    }
    DR_TRY(nn_row_stats(j->dev, j->rows[QUANT_AFTER], b, NULL, j->targets, n, j->vocab));
    if (a != NULL)
        DR_TRY(nn_row_stats(j->dev, j->rows[QUANT_BEFORE], a, b, j->targets, n, j->vocab));
done:
    return st;
}

/* Adds row i, the last of the block or not. */
static dr_status add_row(quant_judge *j, size_t i, bool last)
{
    const nn_row_stat *b = &j->rows[QUANT_AFTER][i], *a = &j->rows[QUANT_BEFORE][i];
    const bool both = j->logits[QUANT_BEFORE] != NULL;
    double lse_b = b->top + b->log_sum, lse_a = both ? a->top + a->log_sum : 0;
    double *sum = j->blocks[j->block];

    if (!isfinite(lse_b) || !isfinite(lse_a))
        return dr_fail(DR_EFORMAT, "a logit at position %zu is not finite", j->at + i);
    sum[KL] += both ? a->over - lse_a + lse_b : 0;
    sum[SAME] += both && a->at == b->at;
    if (last)
        return DR_OK;
    sum[LOSS_BEFORE] += both ? lse_a - a->target : 0;
    sum[LOSS_AFTER] += lse_b - b->target;
    return DR_OK;
}

dr_status quant_judge_take(quant_judge *j)
{
    size_t n = quant_judge_wants(j), t = j->text.seq_len;
    double *sum = j->blocks[j->block];
    dr_status st = DR_OK;

    DR_TRY(dr_cancelled_check());
    DR_TRY(ask_rows(j, n));
    for (size_t i = 0; i < n; i++)
        DR_TRYF(add_row(j, i, j->at + i + 1 == t), "block %zu of %zu", j->block + 1,
                j->text.count);
    j->at += n;
    if (j->at < t)
        goto done;
    sum[KL] /= (double)t;
    sum[SAME] /= (double)t;
    sum[LOSS_BEFORE] /= t > 1 ? (double)(t - 1) : 1;
    sum[LOSS_AFTER] /= t > 1 ? (double)(t - 1) : 1;
    sum[LOSS_MORE] = sum[LOSS_AFTER] - sum[LOSS_BEFORE];
    j->at = 0;
    j->block++;
done:
    return st;
}

/* ---- several processes ---- */

dr_status quant_judge_share(quant_calib *own, const quant_calib *text,
                            const dr_ranks *ranks)
{
    size_t k = dr_ranks_id(ranks), first = quant_edge(ranks, k, text->count);

    *own = *text;
    if (dr_ranks_count(ranks) == 1)
        return DR_OK;
    if (text->count < dr_ranks_count(ranks))
        return dr_fail(DR_EUSAGE, "text to compare on: %zu blocks for %zu processes",
                       text->count, dr_ranks_count(ranks));
    own->ids += first * text->seq_len;
    own->count = quant_edge(ranks, k + 1, text->count) - first;
    return DR_OK;
}

dr_status quant_judge_gather(quant_judge *j, dr_ranks *ranks)
{
    size_t n = dr_ranks_count(ranks), own = j->text.count, *edges = NULL;
    double(*all)[FIGURES] = NULL;
    dr_status st = DR_OK;

    DR_BUG_IF(j->block != own);
    if (n == 1)
        return DR_OK;
    edges = dr_calloc(n + 1, sizeof(*edges));
    DR_TRY(dr_ranks_gather(ranks, edges + 1, &own, sizeof(own), "judged blocks"));
    for (size_t k = 0; k < n; k++)
        edges[k + 1] += edges[k];
    all = dr_calloc(edges[n], sizeof(*all));
    memcpy(all[edges[dr_ranks_id(ranks)]], j->blocks, own * sizeof(*all));
    DR_TRY(dr_ranks_share(ranks, all, sizeof(*all), edges, "judged blocks"));
    free(j->blocks);
    j->blocks = all;
    all = NULL;
    j->block = j->text.count = edges[n];
done:
    free(edges);
    free(all);
    return st;
}

/* ---- means and their errors ---- */

quant_mean quant_mean_of(const double *values, size_t count, size_t stride)
{
    double sum = 0, squares = 0, n = (double)count;
    quant_mean m = {0, (double)NAN, (double)NAN};

    for (size_t i = 0; i < count; i++)
        sum += values[i * stride];
    m.mean = sum / n;
    for (size_t i = 0; i < count; i++) {
        double d = values[i * stride] - m.mean;
        squares += d * d;
    }
    if (count < 2)
        return m;
    m.error = sqrt(squares / (n - 1) / n);
    m.half = m.error * quant_student(count - 1);
    return m;
}

/*
 * Student's t that 97.5 % lie below: closed forms for 1 and 2 degrees of freedom, a figure
 * for 3, then Hill's expansion in 1/v from the normal quantile (right to 0.001 from 4 on).
 */
double quant_student(size_t degrees)
{
    static const double few[] = {12.706204736, 4.302652730, 3.182446305};
    const double z = 1.959963985, z2 = z * z, v = (double)degrees;

    if (degrees == 0)
        return (double)NAN;
    if (degrees <= DR_COUNT(few))
        return few[degrees - 1];
    const double g1 = z * (z2 + 1) / 4;
    const double g2 = z * ((5 * z2 + 16) * z2 + 3) / 96;
    const double g3 = z * (((3 * z2 + 19) * z2 + 17) * z2 - 15) / 384;
    const double g4 = z * ((((79 * z2 + 776) * z2 + 1482) * z2 - 1920) * z2 - 945) / 92160;
    return z + (g1 + (g2 + (g3 + g4 / v) / v) / v) / v;
}

void quant_judge_result(const quant_judge *j, quant_quality *out)
{
    const size_t n = j->text.count;
    quant_mean m[FIGURES];

    DR_BUG_IF(j->block != n);
    for (int i = 0; i < FIGURES; i++)
        m[i] = quant_mean_of(&j->blocks[0][i], n, FIGURES);
    *out = (quant_quality){.tokens = n * j->text.seq_len,
                           .blocks = n,
                           .both = j->logits[0] != NULL,
                           .ppl_before = exp(m[LOSS_BEFORE].mean),
                           .ppl_after = exp(m[LOSS_AFTER].mean),
                           .kl = m[KL].mean,
                           .top1 = m[SAME].mean,
                           .kl_stderr = n > 1 ? m[KL].error : 0,
                           .kl_mean = m[KL],
                           .same = m[SAME],
                           .loss_before = m[LOSS_BEFORE],
                           .loss_after = m[LOSS_AFTER],
                           .loss_more = m[LOSS_MORE]};
}
