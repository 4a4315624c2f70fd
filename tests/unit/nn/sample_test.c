/*
 * sample_test.c - text from a decoder: with kept keys and values it is what whole forward
 * passes over each beginning say, and the same for any number of threads.
 *
 * The oracle is nn_decoder_hidden, which keeps nothing, and a draw written out here.
 */
#include "nn_check.h"

#include "family.h"

#include "core/mem.h"
#include "core/rng.h"

enum { SEQUENCES = 3, LEN = 14 };

static const char *const models[] = {"tiny/llama", "tiny/qwen2", "tiny/phi3",
                                     "nn/phi3_window", "nn/llama3_rope"};

/* Norms, rotations, windows, caps, blocks of every kind; Gemma's logits are far apart. */
static const struct {
    const char *name;
    double heat;
} families[] = {{"gemma", 30},         {"gemma2", 0.7},
                {"gemma3", 30},        {"granite", 0.7},
                {"llama_linear", 0.7}, {"llama_yarn", 0.7},
                {"mistral", 0.7},      {"olmo2", 0.7},
                {"phi2", 0.7},         {"phi3", 0.7},
                {"phi4mini", 0.7},     {"qwen3", 0.7},
                {"smollm3", 0.7},      {"smollm3_window", 0.7},
                {"stablelm", 0.7},     {"stablelm_parallel", 0.7}};

static bool sample(int32_t *ids, const hf_model *m, const nn_sample_options *o, int threads)
{
    nn_device *dev = NULL;
    nn_decoder *d = NULL;
    bool ok = CHECK_OK(nn_device_open(&dev, "cpu", threads)) &&
              CHECK_OK(nn_decoder_open(&d, dev, m, SIZE_MAX)) &&
              CHECK_OK(nn_sample(d, ids, o, NULL));

    nn_decoder_close(d);
    nn_device_close(dev);
    return ok;
}

/* How likely each token is behind the first n of ids, by a forward pass over all LEN (what
 * comes later is not seen, but longrope's tables go by the whole length). */
static void whole(double *p, nn_decoder *d, const int32_t *ids, size_t n, double heat)
{
    size_t vocab = (size_t)nn_decoder_config(d)->vocab,
           hidden = (size_t)nn_decoder_config(d)->hidden;
    float *x = dr_calloc(LEN * hidden, sizeof(*x)), *logits = dr_calloc(vocab, sizeof(*x));
    double top = -1e30, sum = 0;

    CHECK_OK(nn_decoder_hidden(d, x, ids, 1, LEN));
    CHECK_OK(nn_head_logits(d, logits, x + (n - 1) * hidden, 1));
    for (size_t i = 0; i < vocab; i++)
        top = (double)logits[i] > top ? (double)logits[i] : top;
    for (size_t i = 0; i < vocab; i++)
        sum += p[i] = exp(((double)logits[i] - top) / heat);
    for (size_t i = 0; i < vocab; i++)
        p[i] /= sum;
    free(x);
    free(logits);
}

/* Token i of sequence s lies where its number says, but for rounding. */
static void check_token(const double *p, const int32_t *ids, size_t s, size_t i,
                        const nn_sample_options *o)
{
    uint32_t r[4];
    double below = 0;
    int32_t id = ids[s * LEN + i];

    if (o->temperature < 0.01) {
        CHECK(p[id] > 0.499); /* at this heat the likeliest has all of it, or half */
        return;
    }
    for (int32_t k = 0; k < id; k++)
        below += p[k];
    dr_philox(r, o->seed, s, i - 1);
    double u = ((double)r[0] + 0.5) / 4294967296.0;
    CHECK(below - 1e-4 <= u && u <= below + p[id] + 1e-4);
}

static void test_model(const char *path, double heat)
{
    nn_sample_options o = {
        .count = SEQUENCES, .len = LEN, .temperature = 0.7, .seed = 9, .first = 1};
    int32_t ids[SEQUENCES * LEN], two[SEQUENCES * LEN];
    nn_device *dev = NULL;
    nn_decoder *d = NULL;
    hf_model *m = NULL;
    size_t failed = check_failed;

    if (!CHECK_OK(hf_model_open(&m, path)))
        return;
    double *p = dr_calloc((size_t)hf_model_config(m)->vocab, sizeof(*p));
    CHECK_OK(nn_device_open(&dev, "ref", 1));
    CHECK_OK(nn_decoder_open(&d, dev, m, SIZE_MAX));
    for (int warm = 0; warm < 2; warm++) {
        o.temperature = warm ? heat : 0;
        if (!sample(ids, m, &o, 1))
            break;
        for (size_t s = 0; s < SEQUENCES; s++) {
            CHECK_EQ_INT(ids[s * LEN], 1);
            for (size_t i = 1; i < LEN; i++) {
                whole(p, d, ids + s * LEN, i, warm ? heat : 1e-5);
                check_token(p, ids, s, i, &o);
            }
        }
    }
    if (sample(two, m, &o, 2))
        CHECK_MEM(ids, two, sizeof(ids));
    o.seed = 10;
    if (sample(two, m, &o, 2))
        CHECK(memcmp(ids, two, sizeof(ids)) != 0);
    o.seed = 9;
    o.temperature = 2 * heat;
    if (sample(two, m, &o, 2))
        CHECK(memcmp(ids, two, sizeof(ids)) != 0);
    if (check_failed > failed)
        (void)printf("  %s\n", path);
    free(p);
    nn_decoder_close(d);
    nn_device_close(dev);
    hf_model_close(m);
}

/* More sequences than a batch: those that both have are the same. */
static void test_batches(void)
{
    enum { MANY = NN_SAMPLE_BATCH + 5 };
    nn_sample_options o = {.count = MANY, .len = 6, .temperature = 1, .first = 1};
    int32_t *many = dr_calloc(MANY * 6, sizeof(*many)), few[6 * 6];
    hf_model *m = NULL;

    if (CHECK_OK(hf_model_open(&m, DRUPE_SOURCE_DIR "/tests/golden/tiny/llama")) &&
        sample(many, m, &o, 2)) {
        CHECK(memcmp(many, many + 6 * NN_SAMPLE_BATCH, 6 * sizeof(*many)) != 0);
        o.count = 6;
        if (sample(few, m, &o, 1))
            CHECK_MEM(few, many, sizeof(few));
    }
    hf_model_close(m);
    free(many);
}

int main(void)
{
    dr_arena a = {0};

    for (size_t i = 0; i < DR_COUNT(models); i++)
        test_model(dr_arena_printf(&a, "%s/tests/golden/%s", DRUPE_SOURCE_DIR, models[i]),
                   0.7);
    for (size_t i = 0; i < DR_COUNT(families); i++) {
        json_t *golden = family_golden(&a, families[i].name);
        const json_t *configs = json_object_get(golden, "configs");
        test_model(
            family_model(&a, families[i].name, golden, json_object_get(configs, "5"), 1),
            families[i].heat);
        json_decref(golden);
    }
    dr_arena_release(&a);
    test_batches();
    return check_done();
}
