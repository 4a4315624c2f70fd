/*
 * forecast_test.c - what a user is told about a long training, from its first step.
 */
#include "check.h"
#include "tiny_train.h"
#include "train/train_impl.h"

static train_options options;
static trainer t;
static train_report report;

static void says(double step_seconds, const char *want)
{
    char text[256] = "nothing";

    (void)train_forecast_text(text, sizeof(text), &t, &report, step_seconds, 600);
    CHECK_STR(text, want);
}

int main(void)
{
    train_blocks blocks = {.seq_len = 128};
    nn_device *dev = NULL;
    hf_model *m = NULL;

    CHECK_OK(nn_device_open(&dev, "cpu", 1));
    CHECK_OK(hf_model_open(&m, GOLDEN "/tiny/llama"));
    CHECK_OK(nn_decoder_open(&t.dec, dev, m, 0));
    t.o = &options;
    t.blocks = &blocks;
    train_options_default(&options);
    report = (train_report){.steps = 1, .total = 101, .epoch_steps = 10};

    options.max_steps = 101; /* 100 steps are left */
    options.batch = 1;
    says(5, "nothing"); /* 500 s */
    says(36, "about 60 min on this CPU; --torch_dtype int8: 24 min");
    options.integers = true;
    says(36, "about 60 min on this CPU");
    options.integers = false;
    t.mem = dev; /* as if it had some */
    says(36, "about 60 min on this GPU");
    t.mem = NULL;
    t.state.adapter.dora = true;
    says(36, "about 60 min on this CPU");
    options.batch = 4;
    says(360, "about 10.0 h on this CPU; --per_device_train_batch_size 1: 2.5 h");
    options.accumulation = 4;
    says(360, "about 10.0 h on this CPU; --per_device_train_batch_size 1: 2.5 h");

    /* 512 tokens against 256: half the tokens, and attention of half the length */
    blocks.seq_len = 512;
    options.batch = options.accumulation = 1;
    const hf_config *c = hf_model_config(m);
    double weights = (double)(c->vocab * c->hidden), wide = c->heads * c->head_dim;
    for (int s = 0; s < HF_SLOT_COUNT; s++)
        weights += (double)(c->layers *
                            (int)(hf_slot_in(c, (hf_slot)s) * hf_slot_out(c, (hf_slot)s)));
    double whole = 512 * (6 * weights + 7 * 512 * c->layers * wide);
    double part = 256 * (6 * weights + 7 * 256 * c->layers * wide);
    char want[128];
    (void)snprintf(want, sizeof(want),
                   "about 10.0 h on this CPU; --max_seq_len 256: %.1f h",
                   10 * part / whole);
    says(360, want);

    options.max_steps = 0; /* epochs */
    says(36, "about 60 min on this CPU");
    says(360, "about 10.0 h on this CPU; --max_steps 10: 1 h");
    options.eval = &blocks; /* 10 evaluations and the last one, an hour each */
    options.eval_when = TRAIN_EPOCH;
    t.eval_seconds = 3600;
    says(360, "about 21.0 h on this CPU; --max_steps 10: 1 h");
    nn_decoder_close(t.dec);
    hf_model_close(m);
    nn_device_close(dev);
    return check_done();
}
