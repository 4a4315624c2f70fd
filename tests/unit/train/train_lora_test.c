/*
 * train_lora_test.c - ten steps against PEFT and torch (tools/oracle/train_goldens.py), on
 * a plain base and, by equality with its dequantized twin, on a packed one.
 */
#include "check.h"
#include "core/mem.h"
#include "quant/quant.h"
#include "tiny_train.h"
#include "train/train_impl.h"

static train_options golden_options(void)
{
    train_options o = tiny_golden_options();

    o.from_adapter = GOLDEN "/train/start";
    return o;
}

static dr_status train(train_report *r, const char *base, const char *device, int threads,
                       const train_options *o, const char *out)
{
    const train_blocks blocks = {
        .ids = tiny_ids, .lengths = tiny_lengths, .count = TINY_BLOCKS, .seq_len = TINY_T};

    return tiny_train_base(r, base, device, threads, &blocks, o, out);
}

/* Largest difference of two adapters' values. */
static double distance(const char *a, const char *b)
{
    hf_adapter x = {0}, y = {0};
    double worst = 0;

    CHECK_OK(hf_adapter_open(&x, a, NULL));
    CHECK_OK(hf_adapter_open(&y, b, NULL));
    CHECK_EQ_INT(x.count, y.count);
    for (size_t i = 0; i < x.count && i < y.count; i++) {
        const hf_lora_module *p = &x.modules[i], *q = &y.modules[i];
        CHECK_STR(p->module, q->module);
        CHECK_NEAR(p->scale, q->scale, 0);
        for (size_t j = 0; j < (size_t)p->r * p->n_in; j++)
            worst = fmax(worst, fabs((double)p->a[j] - (double)q->a[j]));
        for (size_t j = 0; j < (size_t)p->r * p->n_out; j++)
            worst = fmax(worst, fabs((double)p->b[j] - (double)q->b[j]));
    }
    hf_adapter_release(&x);
    hf_adapter_release(&y);
    return worst;
}

/* The first step's loss is the mean over the tokens behind the context, as the head gives
 * it for the base (an adapter that begins at zero changes nothing). */
static void test_context(void)
{
    dr_arena a = {0};
    train_options o;
    nn_device *dev = NULL;
    nn_decoder *d = NULL;
    hf_model *m = NULL;

    train_options_default(&o);
    o.shuffle = false;
    o.batch = o.accumulation = o.max_steps = 1;
    CHECK_OK(nn_device_open(&dev, "ref", 1));
    CHECK_OK(hf_model_open(&m, GOLDEN "/tiny/llama"));
    CHECK_OK(nn_decoder_open(&d, dev, m, SIZE_MAX));
    float *x = calloc(24 * (size_t)hf_model_config(m)->hidden, sizeof(*x));
    CHECK_OK(nn_decoder_hidden(d, x, tiny_ids, 1, 24));
    for (size_t context = 0; context < 24; context += 9) {
        const train_blocks blocks = {.ids = tiny_ids,
                                     .lengths = tiny_lengths,
                                     .count = 1,
                                     .seq_len = 24,
                                     .context = context};
        const char *out = dr_arena_printf(&a, "%s/context-%zu", check_tmp(), context);
        int32_t targets[24];
        size_t counted = 0;
        double sum = 0;
        train_report r = {0};
        for (size_t i = 0; i < 24; i++)
            targets[i] = i < 23 && i + 1 >= context ? tiny_ids[i + 1] : -100;
        CHECK_OK(nn_head_loss(d, x, targets, 24, &sum, &counted, NULL, 0, 0));
        CHECK_EQ_INT(counted, context > 0 ? 24 - context : 23);
        CHECK_OK(dr_make_dirs(out));
        if (CHECK_OK(train_lora(&r, dev, m, "base", &blocks, &o, out)))
            CHECK_NEAR(r.losses[0], sum / (double)counted, 1e-4);
        train_report_release(&r);
    }
    free(x);
    nn_decoder_close(d);
    hf_model_close(m);
    nn_device_close(dev);
    dr_arena_release(&a);
}

/* With marks it is the mean over the marked ones, and the gradient theirs alone: the same
 * as context's when they are those behind it. */
static void test_marks(void)
{
    unsigned char marks[2 * TINY_T];
    train_options o = golden_options();
    train_report r = {0}, s = {0};
    train_blocks b = {
        .ids = tiny_ids, .lengths = tiny_lengths, .count = 2, .seq_len = TINY_T};

    o.accumulation = 1;
    o.max_steps = 3;
    b.context = 10;
    CHECK_OK(tiny_train_on(&r, "cpu", 2, &b, &o, "by-context"));
    b.context = 0;
    for (size_t i = 0; i < DR_COUNT(marks); i++)
        marks[i] = i % TINY_T >= 10;
    b.marks = marks;
    CHECK_OK(tiny_train_on(&s, "cpu", 2, &b, &o, "by-marks"));
    tiny_same("by-context", "by-marks");
    CHECK_MEM(r.losses, s.losses, 3 * sizeof(double));
    train_report_release(&s);
    marks[TINY_T - 1] = 0;
    CHECK_OK(tiny_train_on(&s, "cpu", 2, &b, &o, "by-marks"));
    CHECK(fabs(s.losses[0] - r.losses[0]) > 1e-4);
    train_report_release(&s);
    memset(marks, 0, sizeof(marks));
    CHECK_STATUS(tiny_train_on(&s, "cpu", 2, &b, &o, "by-marks"), DR_EFORMAT);
    CHECK_TRAIL("no token of the 2 blocks is of an answer");
    train_report_release(&r);
    train_report_release(&s);
}

/* Texts side by side in one block train as they do in blocks of their own: one's adapter is
 * the other's but for the order of sums. */
static void test_packed_rows(const char *device)
{
    enum { A = 9, B = 15 };
    int32_t alone_ids[2 * TINY_T] = {0};
    const size_t lengths[] = {A, B};
    uint32_t starts[TINY_T];
    train_options o = golden_options();
    train_report r[2] = {0};
    const train_blocks packed = {.ids = tiny_ids,
                                 .lengths = tiny_lengths,
                                 .count = 1,
                                 .seq_len = TINY_T,
                                 .starts = starts};
    const train_blocks alone = {
        .ids = alone_ids, .lengths = lengths, .count = 2, .seq_len = TINY_T};
    const train_blocks joined = {
        .ids = tiny_ids, .lengths = tiny_lengths, .count = 1, .seq_len = TINY_T};

    memcpy(alone_ids, tiny_ids, A * sizeof(int32_t));
    memcpy(alone_ids + TINY_T, tiny_ids + A, B * sizeof(int32_t));
    for (uint32_t i = 0; i < TINY_T; i++)
        starts[i] = i < A ? 0 : A;
    o.accumulation = 1;
    o.learning_rate = 1e-2;
    CHECK_OK(tiny_train_on(&r[0], device, 2, &packed, &o, "side-by-side"));
    CHECK_OK(tiny_train_on(&r[1], device, 2, &alone, &o, "alone"));
    for (size_t i = 0; i < r[0].steps; i++) {
        CHECK_NEAR(r[0].losses[i], r[1].losses[i], 1e-5);
        CHECK_NEAR(r[0].grad_norms[i], r[1].grad_norms[i], 1e-4);
    }
    CHECK_NEAR(distance(tiny_path("side-by-side"), tiny_path("alone")), 0, 1e-4);
    train_report_release(&r[1]);
    CHECK_OK(tiny_train_on(&r[1], device, 2, &joined, &o, "joined"));
    CHECK(fabs(r[1].losses[0] - r[0].losses[0]) > 1e-3); /* it is another text */
    train_report_release(&r[0]);
    train_report_release(&r[1]);
}

static void test_peft(const char *device)
{
    dr_arena a = {0};
    const char *out = dr_path_join(&a, check_tmp(), device);
    const train_options o = golden_options();
    train_report r = {0};
    json_t *want = NULL;

    CHECK_OK(train(&r, GOLDEN "/tiny/llama", device, 2, &o, out));
    CHECK_OK(dr_json_read(&want, GOLDEN "/train/losses.json"));
    CHECK_EQ_INT(r.steps, 10);
    for (size_t i = 0; i < r.steps; i++) {
        const json_t *loss = json_array_get(json_object_get(want, "losses"), i);
        const json_t *norm = json_array_get(json_object_get(want, "grad_norms"), i);
        CHECK_NEAR(r.losses[i], json_real_value(loss), 1e-5);
        CHECK_NEAR(r.grad_norms[i], json_real_value(norm), 1e-4);
    }
    CHECK_NEAR(distance(out, GOLDEN "/train/end"), 0, 1e-4);
    CHECK(distance(out, GOLDEN "/train/start") > 1e-2); /* it did train */
    json_decref(want);
    train_report_release(&r);
    dr_arena_release(&a);
}

/* The least that a training of golden_options takes in the device's memory. */
static size_t least_there(const char *kind)
{
    const train_options o = golden_options();
    nn_device *dev = NULL;
    hf_model *m = NULL;
    train_state s = {0};
    train_memory plan = {0};

    CHECK_OK(nn_device_open(&dev, kind, 1));
    CHECK_OK(hf_model_open(&m, GOLDEN "/tiny/llama"));
    CHECK_OK(train_state_open(&s, m, &o, nn_device_pool(dev)));
    const train_there t = {.dev = dev,
                           .c = hf_model_config(m),
                           .s = &s,
                           .seq = TINY_T,
                           .batch = o.batch,
                           .weights = nn_decoder_there_bytes(dev, m)};
    train_memory_plan_there(&plan, &t);
    train_state_release(&s);
    hf_model_close(m);
    nn_device_close(dev);
    return plan.least;
}

/* Rounded products: sequences at once or one by one, layers kept or run again, with the
 * same dropout; and the same bytes twice. */
static void test_rounded(void)
{
    static const char *const names[] = {"at-once", "again", "one-by-one"};
    train_report r[3] = {0};

    for (size_t i = 0; i < 3; i++) {
        train_options o = golden_options();
        o.dropout = 0.2;
        o.batch = 4;
        o.accumulation = 1;
        o.keep_bytes = i == 2 ? least_there("cuda:bf16") : 0;
        o.strict = i == 2;
        CHECK_OK(tiny_train(&r[i], "cuda:bf16", 1, 4, &o, names[i]));
    }
    tiny_same(names[0], names[1]);
    for (size_t i = 0; i < r[0].steps; i++)
        CHECK_NEAR(r[0].losses[i], r[2].losses[i], 1e-2);
    for (size_t i = 0; i < 3; i++)
        train_report_release(&r[i]);
}

/* On a GPU parameters, weights and activations are in its memory. */
static void test_gpu(void)
{
    nn_device *dev = NULL;
    train_options o = golden_options();
    train_report r[3] = {0};

    if (nn_device_open(&dev, "cuda", 1) != DR_OK) {
        SKIP("gpu: none to use");
        return;
    }
    nn_device_close(dev);
    test_peft("cuda");
    test_packed_rows("cuda");
    for (int i = 0; i < 3; i++) {
        o.keep_bytes = i == 1 ? least_there("cuda") : 0; /* layers run twice, streamed */
        o.strict = i == 1;
        CHECK_OK(tiny_train(&r[i], i < 2 ? "cuda" : "cuda:bf16", 1, 2, &o, "gpu"));
    }
    for (size_t i = 0; i < r[0].steps; i++) {
        CHECK(r[0].losses[i] == r[1].losses[i]);
        CHECK_NEAR(r[0].losses[i], r[2].losses[i], 2e-2); /* products of bf16 */
    }
    for (int i = 0; i < 3; i++)
        train_report_release(&r[i]);
    test_rounded();
}

/* Threads, and activations kept or computed twice, do not change a byte. */
static void test_same_bytes(void)
{
    static const struct {
        int threads;
        size_t keep;
    } cases[] = {{1, 0}, {2, 0}, {3, 0}, {2, 1}};
    dr_arena a = {0};
    const char *first = NULL;

    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        const char *out = dr_arena_printf(&a, "%s/bytes-%zu", check_tmp(), i);
        train_options o = golden_options();
        train_report r = {0};
        o.dropout = 0.3;
        o.shuffle = true;
        o.max_steps = 4;
        o.from_adapter = NULL;
        o.r = 8;
        o.keep_bytes = cases[i].keep;
        CHECK_OK(train(&r, GOLDEN "/tiny/llama", "cpu", cases[i].threads, &o, out));
        const char *file = dr_path_join(&a, out, "adapter_model.safetensors");
        if (first == NULL)
            first = file;
        tiny_same_file(first, file);
        train_report_release(&r);
    }
    dr_arena_release(&a);
}

/* Dropout and seed do change them. */
static void test_seed(void)
{
    dr_arena a = {0};
    char *out[3];

    for (size_t i = 0; i < 3; i++) {
        train_options o = golden_options();
        train_report r = {0};
        out[i] = dr_arena_printf(&a, "%s/seed-%zu", check_tmp(), i);
        o.max_steps = 2;
        o.seed = i == 1 ? 43 : 42;
        o.dropout = i == 2 ? 0.5 : 0.1;
        CHECK_OK(train(&r, GOLDEN "/tiny/llama", "cpu", 2, &o, out[i]));
        train_report_release(&r);
    }
    CHECK(distance(out[0], out[1]) > 1e-5);
    CHECK(distance(out[0], out[2]) > 1e-5);
    dr_arena_release(&a);
}

/* With weights in a device's own memory the losses on a packed base are the cpu's: the same
 * where the cpu computes, near them on a GPU, less near where its products round. */
static void test_packed_there(const char *packed, const train_report *want)
{
    static const struct {
        const char *kind;
        double far;
    } devices[] = {{"cpu:apart", 0}, {"cuda", 1e-5}, {"cuda:bf16", 6e-2}};

    for (size_t i = 0; i < DR_COUNT(devices); i++) {
        const char *out = tiny_path("packed-there");
        train_options o = golden_options();
        nn_device *dev = NULL;
        train_report r = {0};
        if (nn_device_open(&dev, devices[i].kind, 1) != DR_OK) {
            SKIP("gpu: none to use");
            return;
        }
        nn_device_close(dev);
        CHECK_OK(train(&r, packed, devices[i].kind, 2, &o, out));
        CHECK_EQ_INT(r.steps, want->steps);
        for (size_t k = 0; k < r.steps && k < want->steps; k++)
            CHECK_NEAR(r.losses[k], want->losses[k], devices[i].far);
        train_report_release(&r);
    }
}

/* A packed base trains as its dequantized twin does. */
static void test_packed(void)
{
    dr_arena a = {0};
    const char *packed = dr_path_join(&a, check_tmp(), "packed");
    const char *plain = dr_path_join(&a, check_tmp(), "plain");
    const char *out[2] = {dr_path_join(&a, check_tmp(), "on-packed"),
                          dr_path_join(&a, check_tmp(), "on-plain")};
    const quant_grid grid = {4, 16, false};
    const hf_quant layout = {HF_QUANT_GPTQ, 4, 16, false};
    hf_model *m = NULL, *q = NULL;
    hf_writer *w = NULL;
    nn_device *dev = NULL;
    const hf_linear *linears = NULL;
    train_report r[2] = {0};
    train_options o = golden_options();

    CHECK_OK(dr_make_dirs(packed));
    CHECK_OK(dr_make_dirs(plain));
    CHECK_OK(nn_device_open(&dev, "cpu", 2));
    CHECK_OK(hf_model_open(&m, GOLDEN "/tiny/llama"));
    CHECK_OK(hf_writer_open(&w, packed, m, &layout));
    const quant_site site = {.dev = dev, .in = m, .out = w};
    CHECK_OK(quant_rtn(&site, &grid));
    CHECK_OK(hf_writer_finish(w));
    hf_writer_close(w);
    w = NULL;
    CHECK_OK(hf_model_open(&q, packed));
    CHECK_OK(hf_writer_open(&w, plain, m, NULL));
    for (int layer = 0; layer < hf_model_config(q)->layers; layer++) {
        size_t n = hf_layer_linears(q, layer, &linears);
        const hf_linear *target = NULL;
        CHECK_EQ_INT(hf_layer_linears(m, layer, &target), n);
        for (size_t i = 0; i < n; i++) {
            void *rows = NULL;
            CHECK_OK(dr_big_alloc(&rows, linears[i].n_out * linears[i].n_in, 4, "rows"));
            CHECK_OK(hf_linear_read(q, &linears[i], rows, 0, linears[i].n_out));
            CHECK_OK(hf_writer_linear(w, &target[i], rows));
            dr_big_free(rows);
        }
    }
    CHECK_OK(hf_writer_finish(w));
    hf_writer_close(w);
    CHECK_OK(train(&r[0], packed, "cpu", 2, &o, out[0]));
    CHECK_OK(train(&r[1], plain, "cpu", 2, &o, out[1]));
    for (size_t i = 0; i < r[0].steps && i < r[1].steps; i++)
        CHECK_NEAR(r[0].losses[i], r[1].losses[i], 0);
    test_packed_there(packed, &r[0]);
    tiny_same_file(dr_path_join(&a, out[0], "adapter_model.safetensors"),
                   dr_path_join(&a, out[1], "adapter_model.safetensors"));
    CHECK(distance(out[0], GOLDEN "/train/end") > 1e-3); /* rounding was not a no-op */
    train_report_release(&r[0]);
    train_report_release(&r[1]);
    hf_model_close(q);
    hf_model_close(m);
    nn_device_close(dev);
    dr_arena_release(&a);
}

static void test_errors(void)
{
    static const char *const wrong[] = {"q_prj"};
    dr_arena a = {0};
    const char *out = dr_path_join(&a, check_tmp(), "errors");
    train_options o = golden_options();
    train_report r = {0};

    o.from_adapter = NULL;
    o.targets = wrong;
    o.target_count = 1;
    CHECK_STATUS(train(&r, GOLDEN "/tiny/llama", "cpu", 1, &o, out), DR_EUSAGE);
    CHECK_TRAIL("q_prj");
    CHECK_TRAIL("q_proj");
    tiny_ids[3] = 1 << 20;
    o = golden_options();
    CHECK_STATUS(train(&r, GOLDEN "/tiny/llama", "cpu", 1, &o, out), DR_EFORMAT);
    CHECK_TRAIL("1048576");
    dr_arena_release(&a);
}

int main(void)
{
    tiny_read_ids();
    test_context();
    test_marks();
    test_packed_rows("ref");
    test_packed_rows("cpu");
    test_peft("ref");
    test_peft("cpu");
    test_gpu();
    test_same_bytes();
    test_seed();
    test_packed();
    test_errors();
    return check_done();
}
