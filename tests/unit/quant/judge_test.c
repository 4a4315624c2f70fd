/*
 * judge_test.c - means with their errors, the judge on logits made by hand, logits of texts
 * of several lengths against those of each text alone.
 */
#include "check.h"

#include "quant/quant.h"
#include "quant_fixture.h"

static const fix_shape llama = {false, true, 64, 96, 4, 4, 2, 96};

/* Quantiles of tables of Student's t; of the normal distribution far out. */
static void student(void)
{
    CHECK_NEAR(quant_student(1), 12.7062, 1e-4);
    CHECK_NEAR(quant_student(2), 4.30265, 1e-5);
    CHECK_NEAR(quant_student(3), 3.18245, 1e-5);
    CHECK_NEAR(quant_student(4), 2.77645, 2e-3);
    CHECK_NEAR(quant_student(7), 2.36462, 1e-4);
    CHECK_NEAR(quant_student(15), 2.13145, 1e-5);
    CHECK_NEAR(quant_student(30), 2.04227, 1e-5);
    CHECK_NEAR(quant_student(1000000), 1.95996, 1e-5);
    CHECK(isnan(quant_student(0)));
}

static void means(void)
{
    const double v[] = {1, -9, 2, -9, 6, -9};
    quant_mean m = quant_mean_of(v, 3, 2);

    CHECK_NEAR(m.mean, 3, 1e-15);
    CHECK_NEAR(m.error, sqrt(7.0 / 3), 1e-15); /* squares 4 1 9, over 2, over 3 */
    CHECK_NEAR(m.half, 4.302652730 * sqrt(7.0 / 3), 1e-9);
    m = quant_mean_of(v, 1, 2);
    CHECK_NEAR(m.mean, 1, 0);
    CHECK(isnan(m.error) && isnan(m.half));
}

/* Two ids, two blocks of two positions: p of id 1 is 0.5 or 0.75 before, 0.5 after. */
static void by_hand(void)
{
    const int32_t ids[] = {0, 1, 1, 0};
    const quant_calib text = {ids, 2, 2};
    const float three = logf(3.0F), even[] = {0, 0, 0, 0};
    const float before[2][4] = {{0, 0, 0, three}, {0, three, 0, 0}};
    const double kl = 0.25 * log(0.5) + 0.75 * log(1.5);
    quant_judge *j = NULL;
    quant_quality q = {0};
    nn_device *dev = NULL;

    CHECK_OK(nn_device_open(&dev, "cpu", 2));
    if (!CHECK_OK(quant_judge_open(&j, dev, 2, true, true, &text)))
        return;
    for (int b = 0; b < 2; b++) {
        CHECK_EQ_INT(quant_judge_wants(j), 2);
        memcpy(quant_judge_logits(j, QUANT_BEFORE), before[b], sizeof(before[b]));
        memcpy(quant_judge_logits(j, QUANT_AFTER), even, sizeof(even));
        CHECK_OK(quant_judge_take(j));
    }
    CHECK_EQ_INT(quant_judge_wants(j), 0);
    quant_judge_result(j, &q);
    /* targets: 1 at even odds, then 0 at a quarter: losses log 2 and log 4 */
    CHECK_NEAR(q.loss_before.mean, (log(2) + log(4)) / 2, 1e-7);
    CHECK_NEAR(q.loss_before.error, log(2) / 2, 1e-7);
    CHECK_NEAR(q.ppl_after, 2, 1e-7);
    CHECK_NEAR(q.loss_more.mean, log(2) - (log(2) + log(4)) / 2, 1e-7);
    CHECK_NEAR(q.kl, -kl / 2 + kl, 1e-7); /* one position of two in each block */
    CHECK_NEAR(q.kl_mean.error, 0, 1e-7);
    CHECK_NEAR(q.top1, 0.5, 0);
    CHECK_EQ_INT(q.tokens, 4);
    CHECK_EQ_INT(q.blocks, 2);
    quant_judge_close(j);
    nn_device_close(dev);
}

static void refused(void)
{
    const int32_t ids[] = {0, 5};
    const quant_calib text = {ids, 1, 2}, none = {ids, 0, 2};
    quant_judge *j = NULL;
    nn_device *dev = NULL;

    CHECK_OK(nn_device_open(&dev, "cpu", 1));
    CHECK_STATUS(quant_judge_open(&j, dev, 5, true, true, &text), DR_EFORMAT);
    CHECK_TRAIL("token 5 is outside of the vocabulary of 5");
    CHECK_STATUS(quant_judge_open(&j, dev, 6, true, true, &none), DR_EUSAGE);
    if (CHECK_OK(quant_judge_open(&j, dev, 6, false, true, &text))) {
        CHECK(quant_judge_logits(j, QUANT_BEFORE) == NULL);
        quant_judge_logits(j, QUANT_AFTER)[8] = INFINITY;
        CHECK_STATUS(quant_judge_take(j), DR_EFORMAT);
        CHECK_TRAIL("a logit at position 1 is not finite");
    }
    quant_judge_close(j);
    nn_device_close(dev);
}

/* Padding and batches change nothing: the wanted rows of each text, alone and together. */
static void texts(dr_arena *a)
{
    enum { TEXTS = 5, MOST = 40 };
    static const size_t lengths[TEXTS] = {40, 37, 9, 3, 1}, from[TEXTS] = {0, 30, 8, 1, 0};
    const char *in = fix_model(a, "texts", &llama);
    quant_calib ids = fix_ids(a, &llama, TEXTS, MOST, 7);
    quant_text list[TEXTS];
    float *together = dr_arena_alloc(a, TEXTS * MOST * 96, sizeof(float));
    float *alone = dr_arena_alloc(a, MOST * 96, sizeof(float)), *at = together;
    quant_logits *s = NULL;
    nn_device *dev = NULL;
    hf_model *m = NULL;
    size_t rows = 0;

    for (size_t i = 0; i < TEXTS; i++) {
        list[i] = (quant_text){ids.ids + i * MOST, lengths[i], from[i]};
        rows += lengths[i] - from[i];
    }
    CHECK_OK(nn_device_open(&dev, "cpu", 2));
    if (!CHECK_OK(hf_model_open(&m, in)))
        return;
    CHECK_OK(quant_logits_open(&s, dev, m, list, TEXTS));
    for (size_t done = 0, n; done < rows; done += n) { /* across the ends of texts */
        n = rows - done < 7 ? rows - done : 7;
        CHECK_OK(quant_logits_next(s, together + done * 96, n));
    }
    quant_logits_close(s);
    for (size_t i = 0; i < TEXTS; i++) {
        size_t n = lengths[i] - from[i];
        CHECK_OK(quant_logits_open(&s, dev, m, &list[i], 1));
        CHECK_OK(quant_logits_next(s, alone, n));
        for (size_t k = 0; k < n * 96; k++)
            if (!CHECK_NEAR((double)at[k], (double)alone[k], 1e-4))
                break;
        at += n * 96;
        quant_logits_close(s);
    }
    hf_model_close(m);
    nn_device_close(dev);
}

int main(void)
{
    dr_arena a = {0};

    student();
    means();
    by_hand();
    refused();
    texts(&a);
    dr_arena_release(&a);
    return check_done();
}
