/*
 * logits_stream_test.c - logits of a bigram model over texts, more of them than a slot
 * takes; a child that dies on the way; graphs that are no decoder's.
 */
#include <signal.h>

#include "check.h"
#include "core/file.h"
#include "core/mem.h"
#include "ort/ort.h"
#include "ort_fixture.h"

enum { LONG = 300000 }; /* two slots of 131072 rows and some more */

static const char *in_tmp(const char *name)
{
    static char path[4][4400];
    static int next;
    char *p = path[next++ & 3];

    (void)snprintf(p, sizeof(path[0]), "%s/%s", check_tmp(), name);
    return p;
}

static int32_t top(const float *row)
{
    int32_t best = 0;

    for (int32_t i = 1; i < FIXTURE_VOCAB; i++)
        best = row[i] > row[best] ? i : best;
    return best;
}

/* After token i comes fixture_next(i): every row is known by its id. */
static void test_rows(const char *model)
{
    static const int32_t first[] = {3, 1, 4, 1, 5}, second[] = {9}, third[] = {2, 6, 5};
    static const int32_t wanted[] = {1, 4, 1, 5, 9, 5};
    const ort_text texts[] = {{first, 5, 1}, {second, 1, 0}, {third, 3, 2}};
    float rows[6 * FIXTURE_VOCAB];
    ort_logits *s = NULL;

    if (!CHECK_OK(ort_logits_open(&s, model, NULL, texts, 3, 1)))
        return;
    CHECK_EQ_INT(ort_logits_vocab(s), FIXTURE_VOCAB);
    CHECK_OK(ort_logits_next(s, rows, 2)); /* over the ends of texts */
    CHECK_OK(ort_logits_next(s, rows + 2 * FIXTURE_VOCAB, 4));
    for (size_t i = 0; i < DR_COUNT(wanted); i++)
        CHECK_EQ_INT(top(rows + i * FIXTURE_VOCAB), fixture_next(wanted[i]));
    ort_logits_close(s);
}

static void test_slots(const char *model)
{
    int32_t *ids = dr_calloc(LONG, sizeof(*ids));
    float *rows = dr_calloc((size_t)LONG * FIXTURE_VOCAB, sizeof(*rows));
    const ort_text text = {ids, LONG, 0};
    ort_logits *s = NULL;
    size_t wrong = 0;

    for (size_t i = 0; i < LONG; i++)
        ids[i] = (int32_t)(i * i % 27);
    if (CHECK_OK(ort_logits_open(&s, model, NULL, &text, 1, 2))) {
        for (size_t i = 0; i < LONG; i += 50000)
            CHECK_OK(ort_logits_next(s, rows + i * FIXTURE_VOCAB, 50000));
        for (size_t i = 0; i < LONG; i++)
            wrong += top(rows + i * FIXTURE_VOCAB) != fixture_next(ids[i]);
        CHECK_EQ_INT(wrong, 0);
    }
    ort_logits_close(s);

    /* closed before its end, and a child that is killed */
    CHECK_OK(ort_logits_open(&s, model, NULL, &text, 1, 2));
    CHECK_OK(ort_logits_next(s, rows, 1));
    ort_logits_close(s);
    if (CHECK_OK(ort_logits_open(&s, model, NULL, &text, 1, 2))) {
        FILE *f = fopen("/proc/thread-self/children", "r");
        int pid = 0;
        dr_status st = DR_OK;
        CHECK(f != NULL && fscanf(f, "%d", &pid) == 1 && pid > 0);
        if (pid > 0)
            CHECK(kill(pid, SIGKILL) == 0);
        for (size_t i = 0; i < LONG && st == DR_OK; i += 50000)
            st = ort_logits_next(s, rows, 50000);
        CHECK(st == DR_EDEVICE);
        CHECK_TRAIL("crashed on it with SIGKILL");
        if (f != NULL)
            (void)fclose(f);
    }
    ort_logits_close(s);
    free(ids);
    free(rows);
}

static void test_refused(void)
{
    static const int32_t ids[] = {1, 2};
    const ort_text text = {ids, 2, 0};
    ort_logits *s = NULL;

    fixture_add(in_tmp("add.onnx"));
    fixture_dims(in_tmp("dims.onnx"));
    CHECK_STATUS(ort_logits_open(&s, in_tmp("add.onnx"), NULL, &text, 1, 1),
                 DR_EUNSUPPORTED);
    CHECK_TRAIL("it has no output called logits");
    CHECK_STATUS(ort_logits_open(&s, in_tmp("dims.onnx"), NULL, &text, 1, 1),
                 DR_EUNSUPPORTED);
    CHECK_STATUS(ort_logits_open(&s, in_tmp("absent.onnx"), NULL, &text, 1, 1), DR_EIO);
    CHECK_TRAIL("absent.onnx: no such file");
    CHECK(s == NULL);
}

int main(void)
{
    if (!fixture_has_ort()) {
        SKIP("no runtime");
        return check_done();
    }
    fixture_genai(in_tmp("bigram"), false);
    test_rows(in_tmp("bigram/model.onnx"));
    test_slots(in_tmp("bigram/model.onnx"));
    test_refused();
    return check_done();
}
