/*
 * integers_test.c - training with products of 8-bit integers: near PEFT's losses of
 * floats (tools/oracle/train_goldens.py), and the same bytes whatever the memory.
 */
#include "tiny_train.h"

enum { STEPS = 10 };

static train_options options(void)
{
    train_options o = tiny_golden_options();

    o.integers = true;
    return o;
}

/* Ten steps from PEFT's start, whose losses fall by forty times the limit. */
static void test_losses(void)
{
    train_options o = options();
    json_t *want = NULL;
    train_report r = {0};
    double apart = 0, fall = 0;

    o.from_adapter = GOLDEN "/train/start";
    CHECK_OK(dr_json_read(&want, GOLDEN "/train/losses.json"));
    CHECK_OK(tiny_train(&r, "cpu", 2, TINY_BLOCKS, &o, "losses"));
    CHECK_EQ_INT(r.steps, STEPS);
    for (size_t i = 0; i < STEPS; i++) {
        const json_t *loss = json_array_get(json_object_get(want, "losses"), i);
        double gap = fabs(r.losses[i] - json_real_value(loss));
        CHECK_NEAR(gap, 0.0, 6e-2);
        apart = fmax(apart, gap);
        fall = json_real_value(json_array_get(json_object_get(want, "losses"), 0)) -
               json_real_value(loss);
    }
    CHECK(apart > 1e-5); /* of integers they are */
    CHECK(fall > 2);
    train_report_release(&r);
    json_decref(want);
}

/* Kept or made again for every block, by one thread or three. */
static void test_same(void)
{
    static const char *const names[] = {"kept", "one", "three", "streamed"};

    for (size_t i = 0; i < DR_COUNT(names); i++) {
        train_options o = options();
        train_report r = {0};
        o.dropout = 0.3;
        o.max_steps = 3;
        o.keep_bytes = i == 3 ? 1 : 0;
        CHECK_OK(tiny_train(&r, "cpu", i == 1 ? 1 : 3, TINY_BLOCKS, &o, names[i]));
        tiny_same(names[0], names[i]);
        train_report_release(&r);
    }
}

static void test_refused(void)
{
    train_options o = options();
    train_report r = {0};

    o.dora = true;
    CHECK_STATUS(tiny_train(&r, "cpu", 1, TINY_BLOCKS, &o, "dora"), DR_EUSAGE);
    CHECK_TRAIL("DoRA needs the base's weights as floats");
    o.dora = false;
    o.kind = HF_ADAPTER_LOKR;
    CHECK_STATUS(tiny_train(&r, "cpu", 1, TINY_BLOCKS, &o, "lokr"), DR_EUSAGE);
    CHECK_TRAIL("LoKr needs the base's weights as floats");
}

int main(void)
{
    tiny_read_ids();
    test_losses();
    test_same();
    test_refused();
    return check_done();
}
