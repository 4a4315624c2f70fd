/*
 * checkpoint_test.c - a training that goes on from a checkpoint is the one that was never
 * stopped; damaged checkpoints and those of other runs.
 */
#include "check.h"
#include "tiny_train.h"
#include "train/train_impl.h"

enum { TRAINED = 5, STEPS = 9 };

static dr_arena arena;
static enum { LORA, DORA, QLORA, PISSA, LOHA, LOKR, KINDS } kind;
static const train_blocks judged = {.ids = tiny_ids + TRAINED * TINY_T,
                                    .lengths = tiny_lengths + TRAINED,
                                    .count = 1,
                                    .seq_len = TINY_T};

/* All that has a state: order, dropout, moments, a rate that moves, the best so far. */
static train_options options(const char *folder)
{
    static const hf_bnb nf4 = {false, true};
    train_options o;

    train_options_default(&o);
    o.base_grid = kind == QLORA ? &nf4 : NULL;
    o.dora = kind == DORA;
    o.kind = kind == LOHA   ? HF_ADAPTER_LOHA
             : kind == LOKR ? HF_ADAPTER_LOKR
                            : HF_ADAPTER_LORA;
    o.init = kind == PISSA ? TRAIN_INIT_PISSA : TRAIN_INIT_UNIFORM;
    o.r = 4;
    o.dropout = 0.2;
    o.batch = 2;
    o.accumulation = 2;
    o.max_steps = STEPS;
    o.learning_rate = 5e-3;
    o.schedule = TRAIN_COSINE;
    o.weight_decay = 0.1;
    o.log_when = TRAIN_STEPS;
    o.logging_steps = 4;
    o.eval = &judged;
    o.eval_when = TRAIN_STEPS;
    o.eval_steps = 2;
    o.load_best = true;
    o.checkpoints = tiny_path(folder);
    o.save_when = TRAIN_STEPS;
    o.save_steps = 2;
    return o;
}

static dr_status train(train_report *r, const train_options *o, const char *name)
{
    dr_trail_clear();
    return tiny_train(r, "cpu", 2, TRAINED, o, name);
}

static const char *checkpoint(const char *folder, size_t step)
{
    return dr_arena_printf(&arena, "%s/checkpoint-%zu", tiny_path(folder), step);
}

static void same_report(const train_report *a, const train_report *b)
{
    CHECK_EQ_INT(a->steps, b->steps);
    CHECK_MEM(a->losses, b->losses, STEPS * sizeof(double));
    CHECK_MEM(a->grad_norms, b->grad_norms, STEPS * sizeof(double));
    CHECK_EQ_INT(a->eval_count, b->eval_count);
    for (size_t i = 0; i < a->eval_count && i < b->eval_count; i++) {
        CHECK_EQ_INT(a->evals[i].step, b->evals[i].step);
        CHECK_NEAR(a->evals[i].loss, b->evals[i].loss, 0);
    }
    CHECK_EQ_INT(a->best_step, b->best_step);
    CHECK_EQ_INT(a->made_step, b->made_step);
    CHECK_EQ_INT(a->tokens, b->tokens);
    CHECK_NEAR(a->base_losses[0], b->base_losses[0], 0);
    CHECK_NEAR(a->made_losses[0], b->made_losses[0], 0);
    CHECK(json_equal(a->history, b->history));
}

/* From each checkpoint, as if every earlier run had been killed after it. */
static void test_same(void)
{
    train_options o = options("whole.checkpoints");
    train_report whole = {0}, r = {0};

    CHECK_OK(dr_remove_tree(o.checkpoints));
    if (!CHECK_OK(train(&whole, &o, "whole")))
        return;
    for (size_t step = 2; step < STEPS; step += 2) {
        const char *folder = dr_arena_printf(&arena, "again-%zu", step);
        o = options(folder);
        CHECK_OK(dr_remove_tree(o.checkpoints));
        o.resume = checkpoint("whole.checkpoints", step);
        if (!CHECK_OK(train(&r, &o, "again")))
            continue;
        same_report(&r, &whole);
        tiny_same("again", "whole");
        for (size_t k = step + 2; k < STEPS; k += 2)
            for (size_t i = 0; i < TRAIN_CHECKPOINT_FILES; i++)
                tiny_same_file(
                    dr_path_join(&arena, checkpoint(folder, k), train_checkpoint_files[i]),
                    dr_path_join(&arena, checkpoint("whole.checkpoints", k),
                                 train_checkpoint_files[i]));
        train_report_release(&r);
    }
    train_report_release(&whole);
}

/* From behind the last step and its evaluation, which is the best or not. */
static void test_end(void)
{
    for (int best = 0; best < 2; best++) {
        train_options o = options("end.checkpoints");
        train_report whole = {0}, r = {0};
        CHECK_OK(dr_remove_tree(tiny_path("end.checkpoints")));
        o.eval_steps = o.save_steps = 3;
        o.load_best = best != 0;
        CHECK_OK(train(&whole, &o, "end"));
        o.resume = checkpoint("end.checkpoints", STEPS);
        if (CHECK_OK(train(&r, &o, "end-again")))
            same_report(&r, &whole);
        tiny_same("end-again", "end");
        train_report_release(&r);
        train_report_release(&whole);
    }
}

static void copy_tree(const char *to, const char *from)
{
    char **names = NULL;
    size_t n = 0;

    CHECK_OK(dr_make_dirs(to));
    CHECK_OK(dr_list_dir(&arena, from, &names, &n));
    for (size_t i = 0; i < n; i++)
        CHECK_OK(dr_copy_file(dr_path_join(&arena, to, names[i]),
                              dr_path_join(&arena, from, names[i])));
}

/* Each file of the last checkpoint changed, cut and taken away: the one before is taken. */
static void test_damaged(void)
{
    train_options o = options("whole.checkpoints");
    train_report r = {0};
    dr_buf b;

    dr_buf_init(&b, 1 << 24);
    for (size_t i = 0; i <= TRAIN_CHECKPOINT_FILES; i++) {
        for (int how = 0; how < 3; how++) {
            const char *folder = dr_arena_printf(&arena, "damaged-%zu-%d", i, how);
            copy_tree(checkpoint(folder, 4), checkpoint("whole.checkpoints", 4));
            copy_tree(checkpoint(folder, 6), checkpoint("whole.checkpoints", 6));
            const char *name =
                i < TRAIN_CHECKPOINT_FILES ? train_checkpoint_files[i] : "drupe.json";
            const char *path = dr_path_join(&arena, checkpoint(folder, 6), name);
            dr_buf_reset(&b);
            CHECK_OK(dr_read_file(&b, path));
            b.data[b.len / 2] ^= 1;
            if (how < 2)
                CHECK_OK(dr_write_file(path, b.data, how == 0 ? b.len : b.len / 2));
            else
                CHECK_OK(dr_remove_tree(path));
            o.checkpoints = o.resume = tiny_path(folder);
            if (CHECK_OK(train(&r, &o, "damaged")))
                tiny_same("damaged", "whole");
            tiny_same_file(path, /* it was written again */
                           dr_path_join(&arena, checkpoint("whole.checkpoints", 6), name));
            train_report_release(&r);
        }
    }
    CHECK_OK(dr_remove_tree(checkpoint("damaged-0-0", 8)));
    for (size_t step = 4; step < 8; step += 2)
        CHECK_OK(dr_write_file(
            dr_path_join(&arena, checkpoint("damaged-0-0", step), "drupe.json"), "{}", 2));
    o.resume = tiny_path("damaged-0-0");
    CHECK_STATUS(train(&r, &o, "none"), DR_EUSAGE);
    CHECK_TRAIL("no checkpoint that is whole");
    train_report_release(&r);
    dr_buf_release(&b);
}

static void refused(const train_options *o, const char *text)
{
    train_report r = {0};

    CHECK_STATUS(train(&r, o, "refused"), DR_EUSAGE);
    CHECK_TRAIL(text);
    train_report_release(&r);
}

static void test_refused(void)
{
    json_t *was = json_pack("{s:f, s:i}", "learning_rate", 5e-3, "max_steps", 9);
    json_t *is = json_pack("{s:f, s:i}", "learning_rate", 4e-3, "max_steps", 9);
    json_t *longer = json_pack("{s:f, s:i}", "learning_rate", 5e-3, "max_steps", 12);
    train_options o = options("settings");
    train_report r = {0};

    o.settings = was;
    CHECK_OK(train(&r, &o, "settings"));
    train_report_release(&r);
    refused(&o, "checkpoint-8 of a run that did not end");
    o.resume = tiny_path("settings");
    CHECK_OK(train(&r, &o, "settings"));
    train_report_release(&r);
    o.settings = is;
    refused(&o, "made with learning_rate 0.005");
    o.settings = longer;
    o.max_steps = 12;
    refused(&o, "made with max_steps 9, this run has 12"); /* a cosine has an end */
    o.settings = was;
    o.max_steps = STEPS;
    o.eval = NULL;
    refused(&o, "another evaluation data");
    o = options("settings");
    o.settings = was;
    o.resume = tiny_path("settings");
    o.from_adapter = GOLDEN "/train/start";
    refused(&o, "another starting adapter");
    o.from_adapter = NULL;
    tiny_ids[3]++;
    refused(&o, "another training data");
    tiny_ids[3]--;
    o.resume = checkpoint("settings", 5);
    refused(&o, "is not there");
    o.resume = tiny_path("nowhere");
    refused(&o, "no checkpoint is there");
    o.resume = checkpoint("settings", 6);
    o.max_steps = 5;
    refused(&o, "6 steps are done, this run has 5");
    json_decref(was);
    json_decref(is);
    json_decref(longer);
}

/* The hash of a model asks for all of it. */
static void test_model(void)
{
    static const char *const names[] = {"llama", "qwen2", "phi3"};
    char hex[3][DR_SHA256_HEX];

    for (size_t i = 0; i < 3; i++) {
        hf_model *m = NULL;
        CHECK_OK(hf_model_open(&m, dr_arena_printf(&arena, GOLDEN "/tiny/%s", names[i])));
        CHECK_OK(train_model_hash(hex[i], m));
        hf_model_close(m);
    }
    CHECK(strcmp(hex[0], hex[1]) != 0 && strcmp(hex[1], hex[2]) != 0);
}

/* A constant rate may go on for longer: as if it had been meant from the start. */
static void test_longer(void)
{
    json_t *nine = json_pack("{s:i}", "max_steps", 9);
    json_t *six = json_pack("{s:i}", "max_steps", 6);
    train_options o = options("longer");
    train_report r = {0};

    o.schedule = TRAIN_CONSTANT;
    o.load_best = false;
    o.max_steps = 6;
    o.settings = six;
    CHECK_OK(train(&r, &o, "longer"));
    train_report_release(&r);
    o.resume = tiny_path("longer");
    o.max_steps = 9;
    o.settings = nine;
    CHECK_OK(train(&r, &o, "longer"));
    train_report_release(&r);
    o.resume = NULL;
    o.checkpoints = NULL;
    CHECK_OK(train(&r, &o, "at-once"));
    tiny_same("longer", "at-once");
    train_report_release(&r);
    json_decref(nine);
    json_decref(six);
}

static void test_limit(void)
{
    train_options o = options("limit");
    train_report r = {0};
    size_t *steps = NULL, count = 0;

    o.save_limit = 2;
    CHECK_OK(train(&r, &o, "limit"));
    train_report_release(&r);
    CHECK_OK(train_checkpoint_list(&arena, &steps, &count, tiny_path("limit")));
    CHECK_EQ_INT(count, 2);
    CHECK_EQ_INT(steps[0], 8);
    CHECK_EQ_INT(steps[1], 6);
    o = options("epochs");
    o.save_when = TRAIN_EPOCH; /* three micro-batches: two steps */
    o.max_steps = 5;
    CHECK_OK(train(&r, &o, "epochs"));
    train_report_release(&r);
    CHECK_OK(train_checkpoint_list(&arena, &steps, &count, tiny_path("epochs")));
    CHECK_EQ_INT(count, 3);
    CHECK_EQ_INT(steps[0], 5);
    CHECK_EQ_INT(steps[1], 4);
}

/* What stands beside them is none. */
static void test_names(void)
{
    size_t step = 0;

    CHECK(train_checkpoint_step(&step, "checkpoint-12") && step == 12);
    CHECK(!train_checkpoint_step(&step, "checkpoint-12.tmp"));
    CHECK(!train_checkpoint_step(&step, "checkpoint-"));
    CHECK(!train_checkpoint_step(&step, "checkpoint--1"));
    CHECK(!train_checkpoint_step(&step, "checkpoint-99999999999999999999999"));
    CHECK(!train_checkpoint_step(&step, "model"));
}

int main(void)
{
    tiny_read_ids();
    for (kind = KINDS; kind-- > LORA;)
        test_same();
    kind = LORA;
    test_end();
    test_damaged();
    test_refused();
    test_model();
    test_longer();
    test_limit();
    test_names();
    dr_arena_release(&arena);
    return check_done();
}
