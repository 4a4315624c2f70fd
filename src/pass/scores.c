/*
 * scores.c - figures of answers: classes chosen, texts written.
 *
 * f1, precision and recall as scikit-learn and torchmetrics define them: binary is that of
 * class 1; micro counts all questions together; macro is the mean over the classes that
 * somebody chose or that are an answer, weighted by how often they are one; nothing by
 * nothing is 0.  auroc is the chance that a question of the class has a greater score for
 * it than one of another, ties half (Mann and Whitney); of more than two classes the mean
 * over them, each against the rest.  wer is the Levenshtein distance in words.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "pass/eval_impl.h"

/* Of one class: both, chosen, an answer. */
typedef struct {
    double hit, chosen, truth;
} counts;

static eval_classes of_counts(const counts *c)
{
    return (eval_classes){
        .precision = c->chosen > 0 ? c->hit / c->chosen : 0,
        .recall = c->truth > 0 ? c->hit / c->truth : 0,
        .f1 = c->chosen + c->truth > 0 ? 2 * c->hit / (c->chosen + c->truth) : 0};
}

eval_classes eval_class_scores(const size_t *truth, const size_t *chosen, size_t n,
                               size_t classes, eval_average average)
{
    counts *c = dr_calloc(classes + 1, sizeof(*c)), all = {0, 0, 0};
    eval_classes sum = {0, 0, 0};
    double weights = 0;

    for (size_t i = 0; i < n; i++) {
        c[truth[i]].truth++;
        c[chosen[i]].chosen++;
        c[truth[i]].hit += truth[i] == chosen[i];
        all.hit += truth[i] == chosen[i];
    }
    all.truth = all.chosen = (double)n;
    for (size_t k = 0; k < classes; k++) {
        const eval_classes one = of_counts(&c[k]);
        double weight = average == EVAL_WEIGHTED       ? c[k].truth
                        : c[k].truth + c[k].chosen > 0 ? 1
                                                       : 0;
        sum.f1 += weight * one.f1;
        sum.precision += weight * one.precision;
        sum.recall += weight * one.recall;
        weights += weight;
    }
    if (average == EVAL_BINARY)
        sum = of_counts(&c[1]);
    else if (average == EVAL_MICRO)
        sum = of_counts(&all);
    else
        sum =
            (eval_classes){sum.f1 / weights, sum.precision / weights, sum.recall / weights};
    free(c);
    return sum;
}

/* Whether class k has greater scores where it is the answer; NAN: it always or never is. */
static double auroc_of(const double *scores, const size_t *truth, size_t n, size_t classes,
                       size_t k)
{
    double sum = 0, pairs = 0;

    for (size_t i = 0; i < n; i++) {
        if (truth[i] != k)
            continue;
        for (size_t j = 0; j < n; j++) {
            double a = scores[i * classes + k], b = scores[j * classes + k];
            if (truth[j] == k)
                continue;
            sum += a > b ? 1 : a == b ? 0.5 : 0;
            pairs++;
        }
    }
    return pairs > 0 ? sum / pairs : (double)NAN;
}

double eval_auroc(const double *scores, const size_t *truth, size_t n, size_t classes)
{
    double sum = 0;

    if (classes == 2)
        return auroc_of(scores, truth, n, classes, 1);
    for (size_t k = 0; k < classes; k++)
        sum += auroc_of(scores, truth, n, classes, k);
    return sum / (double)classes;
}

/* ---- texts ---- */

static const char spaces[] = " \t\r\n\v\f";

/* The next word from *at on, which goes behind it; NULL: none. */
static const char *next_word(const char **at, size_t *length)
{
    const char *word = *at + strspn(*at, spaces);

    *length = strcspn(word, spaces);
    *at = word + *length;
    return *length > 0 ? word : NULL;
}

static size_t words_of(const char ***out, size_t **lengths, const char *text)
{
    size_t n = 0, length = 0;

    for (const char *at = text; next_word(&at, &length) != NULL;)
        n++;
    *out = dr_calloc(n + 1, sizeof(**out));
    *lengths = dr_calloc(n + 1, sizeof(**lengths));
    for (size_t i = 0; i < n; i++)
        (*out)[i] = next_word(&text, &(*lengths)[i]);
    return n;
}

eval_words eval_word_errors(const char *text, const char *target)
{
    const char **a, **b;
    size_t *na, *nb, n = words_of(&a, &na, text), m = words_of(&b, &nb, target);
    size_t *row = dr_calloc(m + 1, sizeof(*row));

    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t corner = row[0]; /* of the row before */
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            bool same =
                na[i - 1] == nb[j - 1] && memcmp(a[i - 1], b[j - 1], nb[j - 1]) == 0;
            size_t least = corner + !same;
            least = row[j] + 1 < least ? row[j] + 1 : least;
            least = row[j - 1] + 1 < least ? row[j - 1] + 1 : least;
            corner = row[j];
            row[j] = least;
        }
    }
    const eval_words w = {row[m], m};
    free(row);
    free(a);
    free(b);
    free(na);
    free(nb);
    return w;
}
