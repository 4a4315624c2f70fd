/*
 * kinds_test.c - ten steps of each kind of adapter against PEFT and torch
 * (tools/oracle/train_goldens.py), and what must hold of each.
 */
#include "check.h"
#include "core/mem.h"
#include "tiny_train.h"

static dr_arena arena;

static double widest(const float *a, const float *b, size_t n)
{
    double worst = 0;

    for (size_t i = 0; i < n && a != NULL && b != NULL; i++)
        worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
    return (a == NULL) == (b == NULL) ? worst : 1e9;
}

/* Largest difference of two adapters' values. */
static double distance(const char *a, const char *b)
{
    hf_adapter x = {0}, y = {0};
    double worst = 0;

    CHECK_OK(hf_adapter_open_any(&x, a, NULL));
    CHECK_OK(hf_adapter_open_any(&y, b, NULL));
    CHECK_EQ_INT(x.count, y.count);
    CHECK_EQ_INT(x.dora, y.dora);
    CHECK_EQ_INT(x.kind, y.kind);
    for (size_t i = 0; i < x.count && i < y.count; i++) {
        const hf_lora_module *p = &x.modules[i], *q = &y.modules[i];
        size_t r = (size_t)p->r;
        CHECK_STR(p->module, q->module);
        CHECK_EQ_INT(p->r, q->r);
        CHECK(p->scale == q->scale);
        worst = fmax(worst, widest(p->a, q->a, r * p->n_in));
        worst = fmax(worst, widest(p->b, q->b, r * p->n_out));
        worst = fmax(worst, widest(p->magnitude, q->magnitude, p->n_out));
        for (size_t k = 0; k < HF_FACTORS; k++) {
            CHECK_EQ_INT(p->f[k].rows, q->f[k].rows);
            CHECK_EQ_INT(p->f[k].cols, q->f[k].cols);
            worst = fmax(worst,
                         widest(p->f[k].data, q->f[k].data, p->f[k].rows * p->f[k].cols));
        }
    }
    hf_adapter_release(&x);
    hf_adapter_release(&y);
    return worst;
}

static const char *golden(const char *name, const char *part)
{
    return dr_arena_printf(&arena, GOLDEN "/train/%s/%s", name, part);
}

static void check_losses(const train_report *r, const char *name)
{
    json_t *want = NULL;

    CHECK_OK(dr_json_read(&want, golden(name, "losses.json")));
    CHECK_EQ_INT(r->steps, 10);
    for (size_t i = 0; i < r->steps; i++) {
        const json_t *loss = json_array_get(json_object_get(want, "losses"), i);
        const json_t *norm = json_array_get(json_object_get(want, "grad_norms"), i);
        bool good = CHECK_NEAR(r->losses[i], json_real_value(loss), 1e-5);
        good = CHECK_NEAR(r->grad_norms[i], json_real_value(norm), 1e-4) && good;
        if (!good)
            (void)printf("  %s, step %zu\n", name, i + 1);
    }
    json_decref(want);
}

/* The ids of a family whose vocabulary is smaller. */
static void ids_below(int32_t *out, int32_t vocab)
{
    for (size_t i = 0; i < DR_COUNT(tiny_ids); i++)
        out[i] = tiny_ids[i] % vocab;
}

/* set: what the options of the kind are. */
static void test_steps(const char *name, const char *family, int32_t vocab,
                       const char *device, void (*set)(train_options *o))
{
    int32_t ids[DR_COUNT(tiny_ids)];
    const train_blocks b = {
        .ids = ids, .lengths = tiny_lengths, .count = TINY_BLOCKS, .seq_len = TINY_T};
    const char *base = dr_arena_printf(&arena, GOLDEN "/tiny/%s", family);
    const char *out = dr_arena_printf(&arena, "%s/%s-%s", check_tmp(), name, device);
    train_options o = tiny_golden_options();
    train_report r = {0};

    ids_below(ids, vocab);
    o.from_adapter = golden(name, "start");
    if (set != NULL)
        set(&o);
    CHECK_OK(tiny_train_base(&r, base, device, 2, &b, &o, out));
    check_losses(&r, name);
    CHECK_NEAR(distance(out, golden(name, "end")), 0, 1e-4);
    CHECK(distance(out, o.from_adapter) > 1e-2);
    train_report_release(&r);
}

static void targets_all(train_options *o)
{
    static const char *const all[] = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                      "gate_proj", "up_proj", "down_proj"};

    o->targets = all;
    o->target_count = DR_COUNT(all);
}

/* ---- DoRA ---- */

static void as_dora(train_options *o)
{
    o->dora = true;
}

/* A fresh DoRA adapter changes nothing: its first loss is LoRA's. */
static void test_dora_start(void)
{
    train_options o = tiny_golden_options();
    train_report r[2] = {0};

    o.max_steps = 1;
    CHECK_OK(tiny_train(&r[0], "cpu", 2, 4, &o, "start-lora"));
    o.dora = true;
    CHECK_OK(tiny_train(&r[1], "cpu", 2, 4, &o, "start-dora"));
    CHECK_NEAR(r[0].losses[0], r[1].losses[0], 1e-6);
    CHECK(r[1].trainable > r[0].trainable);
    train_report_release(&r[1]);
    o.from_adapter = golden("rslora", "start");
    CHECK_STATUS(tiny_train(&r[1], "cpu", 2, 4, &o, "start-other"), DR_EUSAGE);
    CHECK_TRAIL("a LoRA adapter does not go on as DoRA");
    train_report_release(&r[0]);
    train_report_release(&r[1]);
}

/* ---- LoHa, LoKr ---- */

static void as_loha(train_options *o)
{
    o->kind = HF_ADAPTER_LOHA;
}

static void as_lokr(train_options *o)
{
    o->kind = HF_ADAPTER_LOKR;
}

static void mlp_and_attention(train_options *o)
{
    static const char *const names[] = {"q_proj", "o_proj", "gate_proj", "down_proj"};

    o->targets = names;
    o->target_count = DR_COUNT(names);
}

/* A fresh one changes nothing, its factors have PEFT's shapes, and it is the base's again
 * with all modules dropped; with init_weights false it changes something. */
static void test_large_start(const char *name, hf_adapter_kind kind, int r)
{
    train_options o = tiny_golden_options();
    train_report base = {0}, run = {0};
    hf_adapter x = {0}, y = {0};

    o.max_steps = 1;
    mlp_and_attention(&o);
    CHECK_OK(tiny_train(&base, "cpu", 2, 4, &o, "start-lora"));
    o.kind = kind;
    o.r = r;
    CHECK_OK(tiny_train(&run, "cpu", 2, 4, &o, "start-large"));
    CHECK_NEAR(run.losses[0], base.losses[0], 1e-6);
    CHECK(run.grad_norms[0] > 1e-6);
    train_report_release(&run);
    CHECK_OK(hf_adapter_open_any(&x, tiny_path("start-large"), NULL));
    CHECK_OK(hf_adapter_open_any(&y, golden(name, "start"), NULL));
    for (size_t i = 0; i < x.count && i < y.count && kind == HF_ADAPTER_LOKR; i++)
        for (size_t k = 0; k < HF_FACTORS; k++)
            CHECK_EQ_INT(x.modules[i].f[k].cols, y.modules[i].f[k].cols);
    o.random_start = true;
    CHECK_OK(tiny_train(&run, "cpu", 2, 4, &o, "start-large"));
    CHECK(fabs(run.losses[0] - base.losses[0]) > 1e-6);
    train_report_release(&run);
    o.module_dropout = 0.999999;
    CHECK_OK(tiny_train(&run, "cpu", 2, 4, &o, "start-large"));
    CHECK_NEAR(run.losses[0], base.losses[0], 1e-6);
    train_report_release(&run);
    train_report_release(&base);
    hf_adapter_release(&x);
    hf_adapter_release(&y);
}

/* The adapter in a linear of its base is PEFT's. */
static void test_merged(const char *name)
{
    hf_adapter ad = {0};
    hf_model *m = NULL;
    dr_map map = {0};
    uint64_t header = 0;
    const hf_linear *linears = NULL;
    float *w = NULL;
    size_t at = 0;

    CHECK_OK(hf_model_open(&m, GOLDEN "/tiny/llama"));
    CHECK_OK(hf_adapter_open_any(&ad, golden(name, "end"), m));
    (void)hf_layer_linears(m, 1, &linears); /* q_proj first */
    while (at + 1 < ad.count && strcmp(ad.modules[at].module, linears[0].path) != 0)
        at++;
    size_t count = linears[0].n_out * linears[0].n_in;
    w = dr_calloc(count, sizeof(*w));
    CHECK_OK(hf_linear_read(m, &linears[0], w, 0, linears[0].n_out));
    CHECK_OK(hf_merge_rows(w, &ad.modules[at], 0, linears[0].n_out));
    CHECK_OK(dr_map_open(&map, golden(name, "merged.safetensors")));
    memcpy(&header, map.data, sizeof(header));
    if (CHECK_EQ_INT(map.size, 8 + header + count * sizeof(float)))
        CHECK_NEAR(widest(w, (const float *)(const void *)(map.data + 8 + header), count),
                   0, 1e-6);
    dr_map_close(&map);
    hf_adapter_release(&ad);
    hf_model_close(m);
    free(w);
}

/* Kept or computed twice, on any threads: the same bytes, with dropouts. */
static void test_large_bytes(hf_adapter_kind kind)
{
    train_options o = tiny_golden_options();
    train_report r = {0};

    o.kind = kind;
    o.r = 3;
    o.dropout = 0.3;
    o.module_dropout = 0.2;
    o.max_steps = 3;
    o.random_start = true;
    CHECK_OK(tiny_train(&r, "cpu", 1, 4, &o, "large-one"));
    train_report_release(&r);
    o.keep_bytes = 1;
    CHECK_OK(tiny_train(&r, "cpu", 3, 4, &o, "large-three"));
    train_report_release(&r);
    tiny_same("large-one", "large-three");
}

/* ---- QLoRA ---- */

static const hf_bnb nf4 = {false, false}, nf4_double = {false, true};

static void as_smoothed(train_options *o)
{
    o->from_adapter = GOLDEN "/train/start";
    o->label_smoothing = 0.1;
}

static void as_qlora(train_options *o)
{
    o->base_grid = &nf4;
}

static void as_qlora_double(train_options *o)
{
    o->base_grid = &nf4_double;
}

/* One linear rounded here is NumPy's, bit for bit but for a unit in the last place. */
static void test_rounding(const char *name, const hf_bnb *g)
{
    const hf_linear *linears = NULL;
    hf_model *m = NULL;
    dr_map map = {0};
    uint64_t header = 0;
    float *w = NULL, *want = NULL;

    CHECK_OK(hf_model_open(&m, GOLDEN "/tiny/llama"));
    size_t n = hf_layer_linears(m, 1, &linears), at = 0;
    while (at + 1 < n && strcmp(linears[at].leaf, "k_proj") != 0)
        at++;
    size_t count = linears[at].n_out * linears[at].n_in;
    w = dr_calloc(count, sizeof(*w));
    want = dr_calloc(count, sizeof(*want));
    CHECK_OK(hf_linear_read(m, &linears[at], w, 0, linears[at].n_out));
    hf_bnb_round(w, count, g);
    CHECK_OK(dr_map_open(&map, golden(name, "base.safetensors")));
    memcpy(&header, map.data, sizeof(header));
    CHECK_EQ_INT(map.size, 8 + header + count * sizeof(float));
    memcpy(want, map.data + 8 + header, count * sizeof(float));
    for (size_t i = 0; i < count; i++)
        CHECK_NEAR((double)w[i], (double)want[i], 2e-7 * fabs((double)want[i]));
    dr_map_close(&map);
    hf_model_close(m);
    free(w);
    free(want);
}

/* A base rounded in memory trains as the same one in a file does. */
static void test_rounded_file(const hf_bnb *g, const char *origin)
{
    const char *dir =
        dr_arena_printf(&arena, "%s/rounded-%d-%d", check_tmp(), g->fp4, g->nested);
    train_options o = tiny_golden_options();
    train_report r[2] = {0};
    hf_model *m = NULL;
    hf_writer *w = NULL;
    const train_blocks b = {
        .ids = tiny_ids, .lengths = tiny_lengths, .count = 4, .seq_len = TINY_T};

    CHECK_OK(hf_model_open(&m, GOLDEN "/tiny/llama"));
    CHECK_OK(hf_writer_open(&w, dir, m, NULL));
    hf_writer_bnb(w, g);
    CHECK_OK(hf_writer_finish(w));
    hf_writer_close(w);
    hf_model_close(m);
    CHECK_OK(hf_model_open(&m, dir));
    CHECK_STR(hf_model_origin(m), origin);
    hf_model_close(m);
    o.max_steps = 2;
    CHECK_OK(tiny_train_base(&r[0], dir, "cpu", 2, &b, &o, tiny_path("from-file")));
    o.base_grid = g;
    CHECK_OK(tiny_train(&r[1], "cpu", 2, 4, &o, "in-memory"));
    CHECK_NEAR(r[0].losses[1], r[1].losses[1], 0);
    tiny_same("from-file", "in-memory");
    o.base_grid = NULL;
    train_report_release(&r[1]);
    CHECK_OK(tiny_train(&r[1], "cpu", 2, 4, &o, "plain"));
    CHECK(fabs(r[0].losses[1] - r[1].losses[1]) > 1e-4);
    train_report_release(&r[0]);
    train_report_release(&r[1]);
}

/* ---- starts from the weights: PiSSA, LoftQ ---- */

static double dot(const float *x, const float *y, size_t n, size_t step)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += (double)x[i * step] * (double)y[i * step];
    return sum;
}

/* Largest difference of the factors of a module, each row of A and its column of B turned
 * round where that is nearer. */
static double apart(const hf_lora_module *p, const hf_lora_module *q)
{
    double worst = 0;
    size_t r = (size_t)p->r;

    for (size_t i = 0; i < r; i++) {
        const float *x = p->a + i * p->n_in, *y = q->a + i * p->n_in;
        double sign = dot(x, y, p->n_in, 1) < 0 ? -1 : 1;
        for (size_t k = 0; k < p->n_in; k++)
            worst = fmax(worst, fabs((double)x[k] - sign * (double)y[k]));
        for (size_t k = 0; k < p->n_out; k++)
            worst =
                fmax(worst, fabs((double)p->b[k * r + i] - sign * (double)q->b[k * r + i]));
    }
    return worst;
}

/* Largest element of the difference of s B A. */
static double apart_whole(const hf_lora_module *p, const hf_lora_module *q)
{
    double worst = 0;

    for (size_t i = 0; i < p->n_out; i++) {
        for (size_t k = 0; k < p->n_in; k++) {
            double sum = 0;
            for (size_t j = 0; j < (size_t)p->r; j++)
                sum += (double)p->scale * (double)p->b[i * (size_t)p->r + j] *
                       (double)p->a[j * p->n_in + k];
            for (size_t j = 0; j < (size_t)q->r; j++)
                sum -= (double)q->scale * (double)q->b[i * (size_t)q->r + j] *
                       (double)q->a[j * q->n_in + k];
            worst = fmax(worst, fabs(sum));
        }
    }
    return worst;
}

static void compare(const char *got, const char *want,
                    double (*measure)(const hf_lora_module *, const hf_lora_module *))
{
    hf_adapter x = {0}, y = {0};

    CHECK_OK(hf_adapter_open(&x, got, NULL));
    CHECK_OK(hf_adapter_open(&y, want, NULL));
    CHECK_EQ_INT(x.count, y.count);
    for (size_t i = 0; i < x.count && i < y.count; i++) {
        CHECK_STR(x.modules[i].module, y.modules[i].module);
        CHECK_EQ_INT(x.modules[i].r, y.modules[i].r);
        CHECK(x.modules[i].scale == y.modules[i].scale);
        CHECK_NEAR(measure(&x.modules[i], &y.modules[i]), 0, 1e-4);
    }
    hf_adapter_release(&x);
    hf_adapter_release(&y);
}

static void test_pissa(const char *device)
{
    static const char *const targets[] = {"q_proj", "v_proj", "down_proj"};
    train_options o = tiny_golden_options();
    train_report r = {0};
    hf_adapter first = {0}, want = {0};

    o.r = 4;
    o.alpha = 6;
    o.targets = targets;
    o.target_count = DR_COUNT(targets);
    o.init = TRAIN_INIT_PISSA;
    for (int i = 0; i < 2; i++) {
        o.pissa_niter = i * 300; /* so many, and it is the same */
        CHECK_OK(tiny_train(&r, device, 2, TINY_BLOCKS, &o, "pissa"));
        check_losses(&r, "pissa");
        compare(tiny_path("pissa"), golden("pissa", "end"), apart_whole);
        train_report_release(&r);
    }
    o.pissa_niter = 0;
    /* a rate of nothing leaves the start, both halves of it */
    o.learning_rate = 0;
    o.max_steps = 1;
    CHECK_OK(tiny_train(&r, "cpu", 2, TINY_BLOCKS, &o, "pissa-start"));
    CHECK_OK(hf_adapter_open(&first, tiny_path("pissa-start"), NULL));
    CHECK_OK(hf_adapter_open(&want, golden("pissa", "start"), NULL));
    for (size_t i = 0; i < first.count && i < want.count; i++) {
        hf_lora_module *p = &first.modules[i];
        float *b = dr_calloc(p->n_out * 4, sizeof(*b));
        CHECK_EQ_INT(p->r, 8);
        CHECK_MEM(p->a, p->a + 4 * p->n_in, 4 * p->n_in * sizeof(float));
        for (size_t k = 0; k < p->n_out * 4; k++)
            b[k] = p->b[k / 4 * 8 + k % 4];
        p->b = b;
        p->r = 4;
        CHECK_NEAR(apart(p, &want.modules[i]), 0, 1e-4);
        free(b);
    }
    train_report_release(&r);
    hf_adapter_release(&first);
    hf_adapter_release(&want);
    o.r = 64; /* down_proj has 64, k_proj fewer */
    targets_all(&o);
    CHECK_STATUS(tiny_train(&r, "cpu", 2, TINY_BLOCKS, &o, "pissa-wide"), DR_EUSAGE);
    CHECK_TRAIL("have no more than");
}

static void test_loftq(const char *name, int iterations)
{
    const hf_bnb grid = {false, false};
    const char *base = dr_arena_printf(&arena, "%s/base-%s", check_tmp(), name);
    const char *out = dr_arena_printf(&arena, "%s/out-%s", check_tmp(), name);
    const train_blocks b = {
        .ids = tiny_ids, .lengths = tiny_lengths, .count = TINY_BLOCKS, .seq_len = TINY_T};
    train_options o = tiny_golden_options();
    train_report r = {0};
    hf_adapter start = {0}, want = {0};
    hf_model *m = NULL;
    hf_writer *w = NULL;
    nn_device *dev = NULL;

    o.r = 4;
    o.alpha = 6;
    o.loftq_iter = iterations;
    targets_all(&o);
    CHECK_OK(nn_device_open(&dev, "cpu", 2));
    CHECK_OK(hf_model_open(&m, GOLDEN "/tiny/llama"));
    CHECK_OK(hf_writer_open(&w, base, m, NULL));
    hf_writer_bnb(w, &grid);
    CHECK_OK(train_loftq(&start, m, &o, nn_device_pool(dev), w));
    CHECK_OK(hf_writer_finish(w));
    hf_writer_close(w);
    CHECK_OK(hf_adapter_open(&want, golden(name, "start"), NULL));
    CHECK_EQ_INT(start.count, want.count);
    for (size_t i = 0; i < start.count && i < want.count; i++)
        CHECK_NEAR(apart(&start.modules[i], &want.modules[i]), 0, 1e-4);
    o.start = &start;
    CHECK_OK(tiny_train_base(&r, base, "cpu", 2, &b, &o, out));
    check_losses(&r, name);
    compare(out, golden(name, "end"), apart_whole);
    train_report_release(&r);
    hf_adapter_release(&start);
    hf_adapter_release(&want);
    hf_model_close(m);
    nn_device_close(dev);
}

int main(void)
{
    static const hf_bnb fp4 = {true, false};
    static const char *const devices[] = {"ref", "cpu", "cpu:apart", "cuda"};
    size_t count = DR_COUNT(devices);
    nn_device *gpu = NULL;

    tiny_read_ids();
    if (nn_device_open(&gpu, "cuda", 1) != DR_OK) {
        SKIP("gpu: none to use");
        count--;
    }
    nn_device_close(gpu);
    for (size_t i = 0; i < count; i++) {
        test_steps("rslora", "llama", 128, devices[i], NULL);
        test_steps("dora", "llama", 128, devices[i], as_dora);
        test_steps("dora_qwen2", "qwen2", 112, devices[i], as_dora);
    }
    for (size_t i = 0; i < count; i++) {
        test_steps("smoothed", "llama", 128, devices[i], as_smoothed);
        test_steps("qlora", "llama", 128, devices[i], as_qlora);
        test_steps("qlora_double", "llama", 128, devices[i], as_qlora_double);
    }
    for (size_t i = 0; i < count; i++) {
        test_steps("loha", "llama", 128, devices[i], as_loha);
        test_steps("lokr", "llama", 128, devices[i], as_lokr);
        test_steps("lokr_both", "llama", 128, devices[i], as_lokr);
        test_steps("lokr_whole", "llama", 128, devices[i], as_lokr);
    }
    test_large_start("loha", HF_ADAPTER_LOHA, 3);
    test_large_start("lokr", HF_ADAPTER_LOKR, 3);
    test_merged("loha");
    test_merged("lokr");
    test_merged("lokr_both");
    test_merged("lokr_whole");
    test_large_bytes(HF_ADAPTER_LOHA);
    test_large_bytes(HF_ADAPTER_LOKR);
    test_dora_start();
    test_pissa("cpu");
    test_pissa("cpu:apart");
    if (count == DR_COUNT(devices))
        test_pissa("cuda");
    test_loftq("loftq", 1);
    test_loftq("loftq_3", 3);
    test_rounding("qlora", &nf4);
    test_rounding("qlora_double", &nf4_double);
    test_rounded_file(&nf4, "bitsandbytes nf4");
    test_rounded_file(&nf4_double, "bitsandbytes nf4, double quantization");
    test_rounded_file(&fp4, "bitsandbytes fp4");
    dr_arena_release(&arena);
    return check_done();
}
