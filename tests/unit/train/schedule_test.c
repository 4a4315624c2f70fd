/*
 * schedule_test.c - learning rates against transformers'
 * (tools/oracle/schedule_goldens.py), and at points where its formulas are numbers that can
 * be seen: 10 steps of warmup, 90 behind them.
 */
#include "check.h"
#include "core/json.h"
#include "train/train_impl.h"

static train_options options;

static void rate(size_t k, double want)
{
    CHECK_NEAR(train_rate(&options, k, 100), want, 1e-12);
}

static void begin(train_schedule schedule)
{
    train_options_default(&options);
    options.schedule = schedule;
    options.learning_rate = 2;
    options.warmup_steps = 10;
    if (schedule == TRAIN_CONSTANT)
        return;
    rate(0, 0);
    rate(5, 1);
    if (schedule != TRAIN_STABLE_DECAY)
        rate(10, 2);
}

static double number(const json_t *j, const char *key, double otherwise)
{
    const json_t *v = json_object_get(j, key);

    return v != NULL ? json_number_value(v) : otherwise;
}

/* The rate before all evaluations and after each of them. */
static void check_plateau(const json_t *losses, const json_t *rates)
{
    size_t n = json_array_size(losses);
    train_eval *evals = calloc(n + 1, sizeof(*evals));
    bool falls = false;

    CHECK_EQ_INT(json_array_size(rates), n + 1);
    evals[0].loss = 0; /* the base's, which does not count */
    for (size_t i = 0; i <= n; i++) {
        double want = json_number_value(json_array_get(rates, i));
        if (i > 0)
            evals[i].loss = json_number_value(json_array_get(losses, i - 1));
        CHECK_NEAR(train_plateau_rate(&options, evals, i + 1), want, 1e-12);
        falls = falls || want < options.learning_rate;
    }
    CHECK(falls);
    free(evals);
}

static void test_transformers(void)
{
    json_t *j = NULL;

    if (!CHECK_OK(dr_json_read(&j, DRUPE_SOURCE_DIR "/tests/golden/train/schedules.json")))
        return;
    const json_t *cases = json_object_get(j, "cases");
    size_t steps = (size_t)number(j, "steps", 0);
    CHECK_EQ_INT(json_array_size(cases), 20);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i), *kwargs = json_object_get(c, "kwargs");
        const char *name = json_string_value(json_object_get(c, "name"));
        int schedule = 0;
        train_options_default(&options);
        while (strcmp(train_schedule_names[schedule], name) != 0)
            schedule++;
        options.schedule = (train_schedule)schedule;
        options.learning_rate = number(j, "learning_rate", 0);
        options.warmup_steps = (size_t)number(j, "warmup", 0);
        options.shape = (train_schedule_shape){
            .num_cycles = number(kwargs, "num_cycles", 0),
            .power = number(kwargs, "power", 1),
            .lr_end = number(kwargs, "lr_end", 1e-7),
            .min_lr = number(kwargs, "min_lr", 0),
            .min_lr_ratio =
                number(kwargs, "min_lr_ratio", number(kwargs, "min_lr_rate", 0)),
            .timescale = (size_t)number(kwargs, "timescale", 0),
            .num_decay_steps = (size_t)number(kwargs, "num_decay_steps", 0),
            .factor = number(kwargs, "factor", 0.1),
            .threshold = number(kwargs, "threshold", 1e-4),
            .eps = number(kwargs, "eps", 1e-8),
            .patience = (size_t)number(kwargs, "patience", 10),
            .cooldown = (size_t)number(kwargs, "cooldown", 0),
            .absolute = json_object_get(kwargs, "threshold_mode") != NULL};
        if (options.schedule == TRAIN_PLATEAU) {
            check_plateau(json_object_get(j, "losses"), json_object_get(c, "rates"));
            continue;
        }
        for (size_t k = 0; k <= steps; k++)
            CHECK_NEAR(train_rate(&options, k, steps),
                       json_real_value(json_array_get(json_object_get(c, "rates"), k)),
                       1e-12);
    }
    json_decref(j);
}

static void test_plain(void)
{
    begin(TRAIN_CONSTANT);
    rate(0, 2);
    rate(99, 2);
    begin(TRAIN_CONSTANT_WARMUP);
    rate(99, 2);
    begin(TRAIN_LINEAR);
    rate(55, 1);
    rate(100, 0);
    begin(TRAIN_POLYNOMIAL);
    rate(55, 1 + 0.5e-7);
    rate(100, 1e-7);
    options.shape.power = 2;
    options.shape.lr_end = 1;
    rate(55, 1.25);
    begin(TRAIN_INVERSE_SQRT); /* its timescale is the warmup */
    rate(40, 1);
    options.shape.timescale = 30; /* 1 / sqrt(90 / 30 + 1) */
    rate(100, 1);
    options.warmup_steps = 0;
    options.warmup_ratio = 0;
    options.shape.timescale = 0; /* then it is 10,000 */
    CHECK_NEAR(train_rate(&options, 30000, 40000), 1, 1e-12);
}

static void test_cosines(void)
{
    begin(TRAIN_COSINE);
    rate(40, 1.5); /* a third of the way: cos 60 degrees */
    rate(55, 1);
    rate(100, 0);
    options.shape.num_cycles = 1; /* down and up again */
    rate(55, 0);
    rate(100, 2);
    begin(TRAIN_COSINE_RESTARTS);
    rate(55, 1);
    rate(100, 0);
    options.shape.num_cycles = 3;
    rate(25, 1);
    rate(40, 2);
    rate(55, 1);
    begin(TRAIN_COSINE_MIN);
    options.shape.min_lr = 0.5;
    rate(55, 1.25);
    rate(100, 0.5);
    options.shape.min_lr_ratio = 0.5; /* of the rate */
    rate(100, 1);
    begin(TRAIN_STABLE_DECAY);
    options.shape.num_decay_steps = 30;
    rate(69, 2);
    rate(70, 2);
    rate(80, 1.5);
    rate(85, 1);
    rate(100, 0);
    options.shape.min_lr_ratio = 0.25;
    rate(85, 1.25);
    rate(100, 0.5);
}

/* The ratio is rounded up, and warmup_steps wins over it. */
static void test_warmup(void)
{
    train_options_default(&options);
    options.schedule = TRAIN_LINEAR;
    options.learning_rate = 1;
    options.warmup_ratio = 0.031;
    rate(2, 0.5); /* of 4 */
    rate(4, 1);
    options.warmup_steps = 8;
    rate(4, 0.5);
}

int main(void)
{
    test_transformers();
    test_plain();
    test_cosines();
    test_warmup();
    return check_done();
}
