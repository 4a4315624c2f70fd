/*
 * scores_test.c - f1, precision, recall, auroc and word errors against scikit-learn and
 * jiwer (tools/oracle/score_goldens.py), and closed forms.
 */
#include "check.h"

#include "core/file.h"
#include "core/json.h"
#include "pass/eval_impl.h"

#define GOLDEN DRUPE_SOURCE_DIR "/tests/golden/evaluate/scores.json"

static size_t *indices(dr_arena *a, const json_t *list)
{
    size_t *out = dr_arena_alloc(a, json_array_size(list), sizeof(*out));

    for (size_t i = 0; i < json_array_size(list); i++)
        out[i] = (size_t)json_integer_value(json_array_get(list, i));
    return out;
}

static double number(const json_t *j, const char *key)
{
    return json_number_value(json_object_get(j, key));
}

static void check_case(dr_arena *a, const json_t *c)
{
    static const char *const names[] = {"binary", "macro", "micro", "weighted"};
    const json_t *truth = json_object_get(c, "truth"), *rows = json_object_get(c, "scores");
    const size_t n = json_array_size(truth), classes = (size_t)number(c, "classes");
    const size_t *t = indices(a, truth), *p = indices(a, json_object_get(c, "chosen"));
    double *scores = dr_arena_alloc(a, n * classes, sizeof(*scores));

    for (size_t i = 0; i < n * classes; i++)
        scores[i] = json_number_value(
            json_array_get(json_array_get(rows, i / classes), i % classes));
    for (int k = 0; k < 4; k++) {
        const json_t *want = json_object_get(c, names[k]);
        const eval_classes got = eval_class_scores(t, p, n, classes, (eval_average)k);
        if (want == NULL)
            continue;
        CHECK_NEAR(got.f1, number(want, "f1"), 1e-12);
        CHECK_NEAR(got.precision, number(want, "precision"), 1e-12);
        CHECK_NEAR(got.recall, number(want, "recall"), 1e-12);
    }
    const json_t *auroc = json_object_get(c, "auroc");
    if (json_is_number(auroc))
        CHECK_NEAR(eval_auroc(scores, t, n, classes), json_number_value(auroc), 1e-12);
    else
        CHECK(isnan(eval_auroc(scores, t, n, classes)));
}

static void check_words(const char *text, const char *target, size_t wrong, size_t words)
{
    const eval_words w = eval_word_errors(text, target);

    CHECK_EQ_INT(w.wrong, wrong);
    CHECK_EQ_INT(w.words, words);
}

int main(void)
{
    json_t *golden = NULL;
    dr_arena a = {0};

    if (CHECK_OK(dr_json_read(&golden, GOLDEN))) {
        const json_t *cases = json_object_get(golden, "cases");
        const json_t *pairs = json_object_get(golden, "words");
        CHECK(json_array_size(cases) > 8 && json_array_size(pairs) > 20);
        for (size_t i = 0; i < json_array_size(cases); i++)
            check_case(&a, json_array_get(cases, i));
        for (size_t i = 0; i < json_array_size(pairs); i++) {
            const json_t *w = json_array_get(pairs, i);
            check_words(json_string_value(json_object_get(w, "text")),
                        json_string_value(json_object_get(w, "target")),
                        (size_t)number(w, "wrong"), (size_t)number(w, "words"));
        }
    }
    check_words("", "a b c", 3, 3); /* nothing, everything, one word in the middle */
    check_words(" a\tb  c\n", "a b c", 0, 3);
    check_words("a x c", "a b c", 1, 3);
    json_decref(golden);
    dr_arena_release(&a);
    return check_done();
}
