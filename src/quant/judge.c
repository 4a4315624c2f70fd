/*
 * judge.c - from the logits of one or two models over a text to perplexity, KL and top-1
 * agreement, each with the standard error of its mean.
 *
 * KL and agreement are judged at every position, perplexity at all but the last of a block,
 * whose next token is unknown.  The standard error is that of a mean over blocks: positions
 * of one block are not independent.  How much more the second model loses than the first is
 * judged block by block as well, which is much sharper than two intervals side by side.
 *
 * Rows are judged on the pool and summed in order: the same bytes for any number of
 * threads.
 */
#include <math.h>
#include <stdlib.h>

#include "core/mem.h"
#include "quant/quant_impl.h"

enum { KL, SAME, LOSS_BEFORE, LOSS_AFTER, LOSS_MORE, FIGURES };

struct quant_judge {
    dr_pool *pool;             /* borrowed */
    quant_calib text;          /* borrowed ids */
    size_t vocab;              /* logits of a row */
    float *logits[2];          /* owned: [QUANT_JUDGE_ROWS][V]; the first NULL: one model */
    double (*rows)[4];         /* owned: [QUANT_JUDGE_ROWS] KL, SAME and losses */
    double (*blocks)[FIGURES]; /* owned: sums of each block's rows, then their means */
    size_t block, at;          /* the next position */
};

typedef struct {
    float top;
    double log_sum; /* log sum exp(logit - top) */
    double over;    /* sum p (logit - other) */
    size_t at;      /* of the greatest; the first one in a tie */
} row_stats;

/* other may be NULL. */
static row_stats stats_of(const float *logits, const float *other, size_t n)
{
    row_stats s = {.top = logits[0]};
    double sum = 0, over = 0;

    for (size_t i = 1; i < n; i++) {
        if (logits[i] > s.top) {
            s.top = logits[i];
            s.at = i;
        }
    }
    for (size_t i = 0; i < n; i++) {
        double e = (double)expf(logits[i] - s.top);
        sum += e;
        if (other != NULL)
            over += e * ((double)logits[i] - (double)other[i]);
    }
    s.log_sum = log(sum);
    s.over = over / sum;
    return s;
}

double quant_log_prob(const float *logits, size_t vocab, int32_t id, bool *top)
{
    row_stats s = stats_of(logits, NULL, vocab);

    if (top != NULL)
        *top = s.at == (size_t)id;
    return (double)logits[id] - (double)s.top - s.log_sum;
}

static dr_status judge_row(void *ctx, size_t task, int worker)
{
    quant_judge *j = ctx;
    size_t n = j->vocab, next = j->at + task + 1;
    const int32_t *ids = j->text.ids + j->block * j->text.seq_len;
    size_t target = next < j->text.seq_len ? (size_t)ids[next] : 0; /* the last: not used */
    const float *a = j->logits[0] != NULL ? j->logits[0] + task * n : NULL;
    const float *b = j->logits[1] + task * n;
    row_stats sb = stats_of(b, NULL, n);
    double lse_b = (double)sb.top + sb.log_sum, *out = j->rows[task];

    (void)worker;
    out[KL] = out[SAME] = out[LOSS_BEFORE] = 0;
    out[LOSS_AFTER] = lse_b - (double)b[target];
    if (!isfinite(lse_b))
        return dr_fail(DR_EFORMAT, "a logit at position %zu is not finite", next - 1);
    if (a == NULL)
        return DR_OK;
    row_stats sa = stats_of(a, b, n);
    double lse_a = (double)sa.top + sa.log_sum;
    if (!isfinite(lse_a))
        return dr_fail(DR_EFORMAT, "a logit at position %zu is not finite", next - 1);
    out[KL] = sa.over - lse_a + lse_b;
    out[SAME] = sa.at == sb.at;
    out[LOSS_BEFORE] = lse_a - (double)a[target];
    return DR_OK;
}

void quant_judge_close(quant_judge *j)
{
    if (j == NULL)
        return;
    dr_big_free(j->logits[0]);
    dr_big_free(j->logits[1]);
    free(j->rows);
    free(j->blocks);
    free(j);
}

dr_status quant_judge_open(quant_judge **out, dr_pool *pool, size_t vocab, bool both,
                           const quant_calib *text)
{
    quant_judge *j = dr_calloc(1, sizeof(*j));
    dr_status st = DR_OK;

    *out = NULL;
    *j = (quant_judge){.pool = pool, .text = *text, .vocab = vocab};
    if (text->count == 0 || text->seq_len == 0)
        DR_FAIL(DR_EUSAGE,
                "text to compare on: expected blocks of tokens, found %zu of %zu",
                text->count, text->seq_len);
    for (size_t i = 0; i < text->count * text->seq_len; i++)
        if (text->ids[i] < 0 || (size_t)text->ids[i] >= vocab)
            DR_FAIL(DR_EFORMAT, "token %d is outside of the vocabulary of %zu",
                    text->ids[i], vocab);
    j->rows = dr_calloc(QUANT_JUDGE_ROWS, sizeof(*j->rows));
    j->blocks = dr_calloc(text->count, sizeof(*j->blocks));
    for (int i = both ? 0 : 1; i < 2; i++)
        DR_TRY(quant_floats(&j->logits[i], QUANT_JUDGE_ROWS, vocab, "logits"));
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

dr_status quant_judge_take(quant_judge *j)
{
    size_t n = quant_judge_wants(j), t = j->text.seq_len;
    double *sum = j->blocks[j->block];
    dr_status st = DR_OK;

    DR_TRY(dr_cancelled_check());
    DR_TRYF(dr_pool_run(j->pool, n, judge_row, j), "block %zu of %zu", j->block + 1,
            j->text.count);
    for (size_t i = 0; i < n; i++) {
        const double *row = j->rows[i];
        sum[KL] += row[KL];
        sum[SAME] += row[SAME];
        if (j->at + i + 1 == t)
            continue;
        sum[LOSS_BEFORE] += row[LOSS_BEFORE];
        sum[LOSS_AFTER] += row[LOSS_AFTER];
    }
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
