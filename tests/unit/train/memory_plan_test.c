/*
 * memory_plan_test.c - what is kept in memory: as much as fits, from the top; and whatever
 * is kept, the same bytes.
 */
#include "check.h"
#include "tiny_train.h"
#include "train/train_impl.h"

enum { LAYERS = 2 };

static train_state state;
static hf_model *model;
static size_t one; /* bytes of a layer's activations */

static train_options options(size_t keep)
{
    train_options o;

    train_options_default(&o);
    o.r = 4;
    o.batch = 3;
    o.max_steps = 3;
    o.dropout = 0.3;
    o.keep_bytes = keep;
    o.strict = keep > 0;
    return o;
}

static train_memory plan(size_t budget, bool best)
{
    train_memory p = {0};

    train_memory_plan(&p, hf_model_config(model), &state, TINY_T, budget, best, false);
    return p;
}

static void test_plan(void)
{
    const train_memory least = plan(0, false);
    train_memory p;

    CHECK_EQ_INT(least.kept, 0);
    CHECK_EQ_INT(least.weights, 0);
    CHECK_EQ_INT(least.bytes, least.least);
    for (size_t k = 0; k <= LAYERS; k++) {
        p = plan(least.least + k * one, false);
        CHECK_EQ_INT(p.kept, k);
        CHECK_EQ_INT(p.weights, 0);
        CHECK_EQ_INT(p.bytes, least.least + k * one);
        p = plan(least.least + (k + 1) * one - 1, false);
        CHECK_EQ_INT(p.kept, k);
    }
    p = plan(least.least + ((size_t)1 << 30), false);
    CHECK_EQ_INT(p.kept, LAYERS);
    CHECK(p.bytes > least.least + LAYERS * one); /* weights too */
    CHECK_EQ_INT(plan(0, true).least, least.least + 4 * state.count);
}

/* Integers: the head in codes of a byte both ways, beside it two times in floats, and the
 * widest of a layer's weights; what stays is less than with floats. */
static void test_integers(void)
{
    const hf_config *c = hf_model_config(model);
    const size_t head = (size_t)c->vocab * (size_t)c->hidden, room = (size_t)1 << 30;
    const size_t gate_up = 2 * (size_t)c->intermediate * (size_t)c->hidden;
    train_memory p = {0}, all = {0};

    train_memory_plan(&p, c, &state, TINY_T, 0, false, true);
    const size_t more = p.least - plan(0, false).least;
    CHECK(more >= 2 * head + (2 * head + gate_up) * sizeof(float));
    CHECK(more <= 16 * head + (2 * head + gate_up) * sizeof(float)); /* columns padded */
    train_memory_plan(&all, c, &state, TINY_T, room, false, true);
    CHECK_EQ_INT(all.kept, LAYERS);
    CHECK(all.bytes > p.least);
}

static void test_same(void)
{
    const size_t least = plan(0, false).least;
    const size_t budgets[] = {0, least, least + one, least + 2 * one, least + (64 << 20)};
    const char *first = NULL;

    for (size_t i = 0; i < DR_COUNT(budgets); i++) {
        static const char *const names[] = {"a", "b", "c", "d", "e"};
        train_options o = options(budgets[i]);
        train_report r = {0};
        CHECK_OK(tiny_train(&r, "cpu", 2, TINY_BLOCKS, &o, names[i]));
        CHECK(budgets[i] == 0 || r.peak_bytes <= budgets[i]);
        first = first != NULL ? first : names[i];
        tiny_same(first, names[i]);
        train_report_release(&r);
    }
}

/* In memory of a device's own: weights, then the largest group with all layers kept, then
 * layers of one sequence; and no plan is more than its budget. */
static void test_there(void)
{
    nn_device *dev = NULL;
    train_there t = {.c = hf_model_config(model), .s = &state, .seq = TINY_T, .batch = 4};
    train_memory p = {0}, least = {0};

    CHECK_OK(nn_device_open(&dev, "cpu:apart", 1));
    t.dev = dev;
    t.weights = nn_decoder_there_bytes(dev, model);
    train_memory_plan_there(&least, &t);
    CHECK_EQ_INT(least.kept, 0);
    CHECK_EQ_INT(least.weights, 0);
    for (t.budget = least.least; t.budget < least.least + t.weights + 4 * one;
         t.budget += one / 2) {
        train_memory_plan_there(&p, &t);
        CHECK(p.bytes <= t.budget);
        CHECK(p.weights == 0 || p.weights == t.weights);
    }
    CHECK_EQ_INT(p.kept, LAYERS);
    CHECK_EQ_INT(p.weights, t.weights);
    CHECK_EQ_INT(p.group, 1); /* products of this device do not round */
    CHECK_EQ_INT(p.unpacked, 1);
    size_t all = p.bytes;
    t.unpacked = one / 3; /* what is left is for unpacked layers, one being there already */
    for (t.budget = all; t.budget < all + 10 * t.unpacked; t.budget += t.unpacked / 2) {
        size_t more = (t.budget - all) / t.unpacked;
        train_memory_plan_there(&p, &t);
        CHECK(p.bytes <= t.budget);
        CHECK_EQ_INT(p.kept, LAYERS);
        CHECK_EQ_INT(p.unpacked, more < 7 ? more + 1 : 8);
    }
    nn_device_close(dev);
    for (size_t i = 0; i < 3; i++) {
        static const char *const names[] = {"there-all", "there-least", "there-little"};
        const size_t budgets[] = {0, least.least, least.least - 1};
        train_options o = options(budgets[i]);
        train_report r = {0};
        dr_status st = tiny_train(&r, "cpu:apart", 2, TINY_BLOCKS, &o, names[i]);
        CHECK_STATUS(st, i < 2 ? DR_OK : DR_ENOMEM);
        if (i == 2)
            CHECK_TRAIL("a shorter max_seq_len or a smaller rank needs less");
        train_report_release(&r);
    }
    tiny_same("there-all", "there-least");
}

static void test_too_little(void)
{
    train_options o = options(plan(0, false).least - 1);
    train_report r = {0};

    CHECK_STATUS(tiny_train(&r, "cpu", 2, TINY_BLOCKS, &o, "little"), DR_ENOMEM);
    CHECK_TRAIL("a shorter max_seq_len or a smaller rank needs less");
    train_report_release(&r);
}

int main(void)
{
    const train_options o = options(0);
    dr_pool *pool = NULL;

    tiny_read_ids();
    CHECK_OK(dr_pool_open(&pool, 2));
    CHECK_OK(hf_model_open(&model, GOLDEN "/tiny/llama"));
    CHECK_OK(train_state_open(&state, model, &o, pool));
    CHECK_EQ_INT(hf_model_config(model)->layers, LAYERS);
    one = nn_acts_bytes(hf_model_config(model), 1, TINY_T, state.max_kept);
    test_plan();
    test_integers();
    test_same();
    test_too_little();
    test_there();
    train_state_release(&state);
    hf_model_close(model);
    dr_pool_close(pool);
    return check_done();
}
