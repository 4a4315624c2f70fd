/*
 * ranks_train_test.c - a training that several processes share is the one that a single
 * process makes with a batch so many times as large.
 */
#include "check.h"
#include "ranks_check.h"
#include "tiny_train.h"

enum { STEPS = 10 };

typedef struct {
    const char *device, *name; /* name: of the folder with what the first rank writes */
    train_options o;
    size_t blocks;
    bool evaluated;
} task;

/* What the first rank found, for the parent. */
static void write_report(const train_report *r, const char *name)
{
    double all[2 * STEPS + 8] = {0};
    dr_arena a = {0};

    CHECK_EQ_INT(r->steps, STEPS);
    memcpy(all, r->losses, STEPS * sizeof(double));
    memcpy(all + STEPS, r->grad_norms, STEPS * sizeof(double));
    for (size_t i = 0; i < r->eval_count && i < 3; i++)
        all[2 * STEPS + i] = r->evals[i].loss;
    all[2 * STEPS + 3] = (double)r->tokens;
    CHECK_OK(
        dr_write_file(dr_arena_printf(&a, "%s.report", tiny_path(name)), all, sizeof(all)));
    dr_arena_release(&a);
}

static void read_report(double *all, const char *name)
{
    dr_arena a = {0};
    dr_map map = {0};

    if (CHECK_OK(dr_map_open(&map, dr_arena_printf(&a, "%s.report", tiny_path(name)))))
        memcpy(all, map.data, (2 * STEPS + 8) * sizeof(double));
    dr_map_close(&map);
    dr_arena_release(&a);
}

static void train(dr_ranks *r, void *ctx)
{
    const task *k = ctx;
    const train_blocks b = {
        .ids = tiny_ids, .lengths = tiny_lengths, .count = k->blocks, .seq_len = TINY_T};
    train_options o = k->o;
    train_report report = {0};
    nn_device *dev = NULL;
    hf_model *m = NULL;

    if (k->evaluated)
        o.eval = &b;
    CHECK_OK(dr_make_dirs(tiny_path(k->name)));
    CHECK_OK(nn_device_open_rank(&dev, k->device, 1, r));
    CHECK_OK(nn_device_join(dev));
    CHECK_OK(hf_model_open(&m, GOLDEN "/tiny/llama"));
    if (CHECK_OK(train_lora(&report, dev, m, "base", &b, &o, tiny_path(k->name))) &&
        dr_ranks_first(r))
        write_report(&report, k->name);
    train_report_release(&report);
    hf_model_close(m);
    nn_device_close(dev);
}

/* One process with `ranks` times the batch, and so many processes. */
static void compare(task *k, size_t ranks, double tolerance)
{
    double one[2 * STEPS + 8] = {0}, several[2 * STEPS + 8] = {0};
    size_t batch = k->o.batch;

    k->name = "one";
    k->o.batch = batch * ranks;
    train(NULL, k);
    read_report(one, k->name);
    k->name = "several";
    k->o.batch = batch;
    ranks_run(ranks, train, k, NULL);
    read_report(several, k->name);
    for (size_t i = 0; i < STEPS; i++) {
        CHECK_NEAR(several[i], one[i], tolerance);
        CHECK_NEAR(several[STEPS + i], one[STEPS + i], 1e-4 * one[STEPS + i]);
    }
    for (size_t i = 0; i < 3; i++)
        CHECK_NEAR(several[2 * STEPS + i], one[2 * STEPS + i], tolerance);
    CHECK((several[2 * STEPS] > 0) == k->evaluated);
    CHECK_EQ_INT(several[2 * STEPS + 3], one[2 * STEPS + 3]);
    k->o.batch = batch;
}

int main(void)
{
    task k = {.device = "cpu", .blocks = TINY_BLOCKS, .o = tiny_golden_options()};

    tiny_read_ids();
    k.o.max_steps = STEPS;
    k.o.from_adapter = GOLDEN "/train/start";
    k.o.batch = 1;
    compare(&k, 2, 1e-6); /* two micro-batches a step; the last of an epoch are fewer */
    k.o.shuffle = true;
    k.evaluated = true;
    compare(&k, 3, 1e-6);
    k.o.accumulation = 1; /* the last rank has no block in an epoch's last step */
    k.blocks = 5;
    compare(&k, 3, 1e-6);
    k.o.dropout = 0.3; /* masks are of the block's place in the step, not of the rank */
    k.device = "cpu:apart";
    compare(&k, 2, 1e-6);

    /* blocks with other numbers of targets: each token counts the same */
    k.o.dropout = 0;
    tiny_lengths[1] = 7;
    tiny_lengths[4] = 15;
    compare(&k, 2, 1e-6);
    return check_done();
}
