/*
 * train_watch_test.c - evaluations, the best adapter, the end before the end, the log.
 */
#include "check.h"
#include "core/file.h"
#include "core/json.h"
#include "tiny_train.h"
#include "train/train.h"

enum { TRAINED = 4, JUDGED = 2 };

static const train_blocks judged = {.ids = tiny_ids + TRAINED * TINY_T,
                                    .lengths = tiny_lengths + TRAINED,
                                    .count = JUDGED,
                                    .seq_len = TINY_T};

static const train_blocks learned = {
    .ids = tiny_ids, .lengths = tiny_lengths, .count = TRAINED, .seq_len = TINY_T};

static train_options options(void)
{
    train_options o;

    train_options_default(&o);
    o.r = 4;
    o.batch = 2;
    o.max_steps = 6;
    o.learning_rate = 1e-2;
    o.eval = &judged;
    o.eval_when = TRAIN_STEPS;
    o.eval_steps = 2;
    return o;
}

static dr_status train(train_report *r, const train_options *o, const char *name)
{
    return tiny_train(r, "cpu", 2, TRAINED, o, name);
}

/* The mean loss of the blocks, by what nn has for it; adapter NULL: of the base. */
static double loss_of(const train_blocks *b, const char *adapter)
{
    train_options o;
    train_report r = {0};
    double loss = 0;

    /* A step of rate 0 on one batch of all blocks: its loss is a mean over all targets. */
    train_options_default(&o);
    o.r = 4;
    o.batch = b->count;
    o.max_steps = 1;
    o.learning_rate = 0;
    o.dropout = 0;
    o.from_adapter = adapter;
    if (CHECK_OK(tiny_train_on(&r, "ref", 1, b, &o, "loss")))
        loss = r.losses[0];
    train_report_release(&r);
    return loss;
}

static void test_evaluations(void)
{
    static const size_t steps[] = {0, 2, 4, 6};
    train_options o = options();
    train_report r = {0};
    double mean = 0;

    if (!CHECK_OK(train(&r, &o, "evals")))
        return;
    CHECK_EQ_INT(r.eval_count, DR_COUNT(steps));
    for (size_t i = 0; i < DR_COUNT(steps) && i < r.eval_count; i++)
        CHECK_EQ_INT(r.evals[i].step, steps[i]);
    CHECK_NEAR(r.evals[0].loss, loss_of(&judged, NULL), 1e-5);
    CHECK_NEAR(r.evals[3].loss, loss_of(&judged, tiny_path("evals")), 1e-5);
    for (size_t i = 0; i < JUDGED; i++)
        mean += r.base_losses[i] / JUDGED;
    CHECK_NEAR(mean, r.evals[0].loss, 1e-9); /* blocks of one length */
    CHECK_EQ_INT(r.made_step, 6);
    train_report_release(&r);
}

/* Evaluations change nothing, though there is dropout; an epoch has two steps. */
static void test_no_effect(void)
{
    train_options o = options(), plain = options();
    train_report r = {0}, s = {0};

    o.eval_when = TRAIN_EPOCH;
    o.max_steps = plain.max_steps = 5;
    plain.eval = NULL;
    o.dropout = plain.dropout = 0.3;
    CHECK_OK(train(&r, &o, "epochs"));
    CHECK_OK(train(&s, &plain, "plain"));
    CHECK_EQ_INT(r.eval_count, 4); /* 0, 2, 4 and the end */
    CHECK_EQ_INT(s.eval_count, 0);
    tiny_same("epochs", "plain");
    train_report_release(&r);
    train_report_release(&s);
}

/* What is learnt is no use for the blocks that are judged: the best is not the last. */
static void test_best(void)
{
    train_options o = options();
    train_report r = {0}, s = {0};
    size_t best = 1;

    o.learning_rate = 1e-3;
    o.load_best = true;
    if (!CHECK_OK(train(&r, &o, "best")))
        return;
    for (size_t i = 2; i < r.eval_count; i++)
        best = r.evals[i].loss < r.evals[best].loss ? i : best;
    CHECK(r.evals[best].step < 6);
    CHECK_EQ_INT(r.best_step, r.evals[best].step);
    CHECK_NEAR(r.best_loss, r.evals[best].loss, 0);
    CHECK_EQ_INT(r.made_step, r.best_step);
    CHECK_NEAR(loss_of(&judged, tiny_path("best")), r.best_loss, 1e-4);
    o.max_steps = r.best_step; /* what training to there and no further gives */
    CHECK_OK(train(&s, &o, "to-best"));
    tiny_same("best", "to-best");
    for (size_t i = 0; i < JUDGED; i++)
        CHECK_NEAR(r.made_losses[i], s.made_losses[i], 0);
    train_report_release(&r);
    train_report_release(&s);
}

static void test_patience(void)
{
    train_options o = options();
    train_report r = {0};

    o.max_steps = 40;
    o.learning_rate = 0;
    o.patience = 3; /* the first is the best, the next three are equal to it */
    CHECK_OK(train(&r, &o, "patience"));
    CHECK_EQ_INT(r.steps, 8);
    CHECK_EQ_INT(r.best_step, 2);
    CHECK(r.stopped);
    train_report_release(&r);

    o.learning_rate = 1e-3;
    o.eval = &learned; /* which gets better all the time */
    CHECK_OK(train(&r, &o, "patience"));
    CHECK_EQ_INT(r.steps, 40);
    train_report_release(&r);
    o.threshold = 1; /* but never by so much */
    CHECK_OK(train(&r, &o, "patience"));
    CHECK_EQ_INT(r.steps, 8);
    CHECK_EQ_INT(r.best_step, 8);
    train_report_release(&r);
}

static double real(const json_t *history, size_t i, const char *key)
{
    return json_real_value(json_object_get(json_array_get(history, i), key));
}

static void test_history(void)
{
    train_options o = options();
    train_report r = {0};

    o.eval = NULL;
    o.log_when = TRAIN_STEPS;
    o.logging_steps = 3;
    o.log_first = true;
    if (!CHECK_OK(train(&r, &o, "history")))
        return;
    CHECK_EQ_INT(json_array_size(r.history), 3); /* 1, 3, 6 */
    CHECK_NEAR(real(r.history, 0, "loss"), r.losses[0], 0);
    CHECK_NEAR(real(r.history, 1, "loss"), (r.losses[1] + r.losses[2]) / 2, 1e-12);
    CHECK_NEAR(real(r.history, 2, "loss"), (r.losses[3] + r.losses[4] + r.losses[5]) / 3,
               1e-12);
    CHECK_NEAR(real(r.history, 2, "grad_norm"), r.grad_norms[5], 0);
    CHECK_NEAR(real(r.history, 1, "epoch"), 1.5, 0);
    CHECK_NEAR(real(r.history, 1, "learning_rate"), 1e-2, 0);
    train_report_release(&r);
}

/* A rate that blows the weights up: the step is named. */
static void test_not_finite(void)
{
    train_options o = options();
    train_report r = {0};

    o.eval = NULL;
    o.learning_rate = 1e38;
    o.alpha = 1e6;
    CHECK_STATUS(train(&r, &o, "nan"), DR_EDEVICE);
    CHECK_TRAIL("step 2:");
    CHECK_TRAIL("lower learning_rate");
    train_report_release(&r);
}

int main(void)
{
    tiny_read_ids();
    test_evaluations();
    test_no_effect();
    test_best();
    test_patience();
    test_history();
    test_not_finite();
    return check_done();
}
