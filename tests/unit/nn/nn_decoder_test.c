/*
 * nn_decoder_test.c - whole tiny models against transformers and PEFT: hidden states of
 * every layer, logits, loss, LoRA gradients; and that small mistakes in a model's numbers
 * would not pass.
 *
 * The goldens come from tools/oracle/nn_goldens.py; manifest.json there has the tolerances.
 */
#include "nn_check.h"

#include "core/arena.h"

enum { RANK = 3, ALPHA = 8, MODULES_MAX = 32 };

static const double tol_logits = 1e-4, tol_hidden = 1e-4, tol_loss = 1e-5, tol_grad = 1e-5;

typedef struct {
    const char *name, *dir;
} golden_model;

static const golden_model models[] = {
    {"llama", "tiny/llama"},
    {"qwen2", "tiny/qwen2"},
    {"phi3", "tiny/phi3"},
    {"phi3_window", "nn/phi3_window"},
    {"llama3_rope", "nn/llama3_rope"},
};

static bool open_model(hf_model **m, const char *dir)
{
    char path[4096];

    (void)snprintf(path, sizeof(path), "%s/tests/golden/%s", DRUPE_SOURCE_DIR, dir);
    if (!dr_is_dir(path)) {
        SKIP(path);
        return false;
    }
    return CHECK_OK(hf_model_open(m, path));
}

/* ---- logits ---- */

/* Largest difference to the golden logits; infinite when something fails. */
static double logits_far(nn_device *dev, const hf_model *m, const char *dir,
                         const char *file, size_t keep)
{
    nn_golden g;
    nn_decoder *d = NULL;
    size_t t = 0, count = 0;
    double worst = (double)INFINITY;
    char name[256];

    (void)snprintf(name, sizeof(name), "%s/%s", dir, file);
    if (!nn_golden_open(&g, name))
        return worst;
    const int32_t *ids = nn_golden_get(&g, "input_ids", &t);
    const float *want = nn_golden_get(&g, "logits", &count);
    float *logits = dr_calloc(count, sizeof(*logits));
    float *x = dr_calloc(t * (size_t)hf_model_config(m)->hidden, sizeof(*x));
    if (CHECK_OK(nn_decoder_open(&d, dev, m, keep)) &&
        CHECK_OK(nn_decoder_hidden(d, x, ids, 1, t)) &&
        CHECK_OK(nn_head_logits(d, logits, x, t))) {
        worst = 0.0;
        for (size_t i = 0; i < count; i++)
            worst = fmax(worst, fabs((double)logits[i] - (double)want[i]));
    }
    nn_decoder_close(d);
    nn_golden_close(&g);
    free(logits);
    free(x);
    return worst;
}

static void test_logits(const nn_devices *devs)
{
    for (size_t i = 0; i < DR_COUNT(models); i++) {
        hf_model *m = NULL;
        const char *dir = models[i].dir;
        if (!open_model(&m, dir))
            continue;
        CHECK_NEAR(logits_far(devs->ref, m, dir, "logits.safetensors", 0), 0.0, tol_logits);
        for (int k = 0; k < NN_KINDS && devs->dev[k][1] != NULL; k++) {
            nn_device *dev = devs->dev[k][1];
            CHECK_NEAR(logits_far(dev, m, dir, "logits.safetensors", 0), 0.0, tol_logits);
            CHECK_NEAR(logits_far(dev, m, dir, "logits.safetensors", SIZE_MAX), 0.0,
                       tol_logits);
        }
        if (strcmp(models[i].name, "phi3") == 0)
            CHECK_NEAR(logits_far(devs->dev[0][0], m, dir, "logits_short.safetensors", 0),
                       0.0, tol_logits);
        hf_model_close(m);
    }
}

/* ---- loss and LoRA ---- */

/* A model's adapter out of a golden, with room for gradients. */
typedef struct {
    nn_lora modules[MODULES_MAX];
    int layer[MODULES_MAX];
    char path[MODULES_MAX][128];
    size_t count;
} adapter;

static bool load_adapter(adapter *a, const nn_golden *g, const hf_model *m)
{
    char name[256];

    a->count = 0;
    for (int layer = 0; layer < hf_model_config(m)->layers; layer++) {
        const hf_linear *l = NULL;
        size_t n = hf_layer_linears(m, layer, &l), count = 0;
        for (size_t i = 0; i < n; i++) {
            (void)snprintf(name, sizeof(name), "%s.lora_A", l[i].path);
            if (json_object_get(g->header, name) == NULL)
                continue;
            nn_lora *to = &a->modules[a->count];
            *to = (nn_lora){.slot = l[i].slot,
                            .row0 = l[i].row0,
                            .n_out = l[i].n_out,
                            .n_in = l[i].n_in,
                            .r = RANK,
                            .scale = (float)ALPHA / RANK};
            to->a = nn_golden_get(g, name, &count);
            if (!CHECK_EQ_INT(count, RANK * l[i].n_in))
                return false;
            (void)snprintf(name, sizeof(name), "%s.lora_B", l[i].path);
            to->b = nn_golden_get(g, name, &count);
            to->da = dr_calloc(RANK * l[i].n_in, sizeof(float));
            to->db = dr_calloc(RANK * l[i].n_out, sizeof(float));
            (void)snprintf(a->path[a->count], sizeof(a->path[0]), "%s", l[i].path);
            a->layer[a->count++] = layer;
        }
    }
    return CHECK(a->count > 0);
}

static void free_adapter(adapter *a)
{
    for (size_t i = 0; i < a->count; i++) {
        free(a->modules[i].da);
        free(a->modules[i].db);
    }
}

/* The modules of one layer: they are in order of layers. */
static nn_lora *layer_modules(adapter *a, int layer, size_t *count)
{
    size_t from = 0;

    while (from < a->count && a->layer[from] < layer)
        from++;
    *count = 0;
    while (from + *count < a->count && a->layer[from + *count] == layer)
        ++*count;
    return &a->modules[from];
}

typedef struct {
    nn_decoder *d;
    const nn_golden *g;
    adapter *a;
    size_t b, t, row;
    nn_acts *acts; /* one a layer */
    float *x, *dx;
} run;

/* Forward through all layers with the adapter; checks each layer's input. */
static void run_forward(run *r, const int32_t *ids, int layers)
{
    size_t m = r->b * r->t;

    CHECK_OK(nn_decoder_embed(r->d, r->x, ids, m));
    for (int i = 0; i < layers; i++) {
        size_t n = 0, count = 0;
        const nn_layer *w = NULL;
        char name[64];
        nn_lora *loras = layer_modules(r->a, i, &n);
        (void)snprintf(name, sizeof(name), "hidden.%d", i);
        const float *want = nn_golden_get(r->g, name, &count);
        CHECK_NEAR(nn_far(r->x, want, count), 0.0, tol_hidden);
        CHECK_OK(nn_acts_new(&r->acts[i], nn_decoder_config(r->d), r->b, r->t, n * RANK));
        CHECK_OK(nn_decoder_layer(r->d, i, &w));
        CHECK_OK(nn_layer_forward(r->d, w, r->b, r->t, r->x, &r->acts[i], loras, n));
    }
}

static void run_loss(run *r, const int32_t *labels)
{
    size_t m = r->b * r->t, counted = 0, n = 0;
    int32_t *targets = dr_calloc(m, sizeof(*targets));
    double sum = 0.0;
    const float *want = nn_golden_get(r->g, "loss", &n);

    for (size_t i = 0; i < m; i++)
        targets[i] = i % r->t + 1 < r->t ? labels[i + 1] : -100;
    for (size_t i = 0; i < m; i++)
        counted += targets[i] != -100;
    float scale = 1.0f / (float)counted;
    counted = 0;
    CHECK_OK(nn_head_loss(r->d, r->x, targets, m, &sum, &counted, r->dx, scale, 0));
    CHECK_NEAR(sum / (double)counted / (double)want[0], 1.0, tol_loss);
    free(targets);
}

static void run_backward(run *r, int layers)
{
    for (int i = layers - 1; i >= 0; i--) {
        size_t n = 0;
        const nn_layer *w = NULL;
        nn_lora *loras = layer_modules(r->a, i, &n);
        CHECK_OK(nn_decoder_layer(r->d, i, &w));
        CHECK_OK(
            nn_layer_backward(r->d, w, r->b, r->t, r->dx, &r->acts[i], loras, n, i > 0));
    }
}

static void check_grads(const run *r)
{
    char name[256];
    size_t count = 0;

    for (size_t i = 0; i < r->a->count; i++) {
        const nn_lora *l = &r->a->modules[i];
        (void)snprintf(name, sizeof(name), "%s.grad_A", r->a->path[i]);
        const float *da = nn_golden_get(r->g, name, &count);
        CHECK_NEAR(nn_far(l->da, da, count), 0.0, tol_grad);
        (void)snprintf(name, sizeof(name), "%s.grad_B", r->a->path[i]);
        const float *db = nn_golden_get(r->g, name, &count);
        CHECK_NEAR(nn_far(l->db, db, count), 0.0, tol_grad);
    }
}

static void check_lora(nn_device *dev, const hf_model *m, const char *model)
{
    nn_golden g;
    adapter a;
    char name[128];
    size_t count = 0;
    const hf_config *c = hf_model_config(m);
    run r = {.g = &g, .a = &a, .b = 2, .row = (size_t)c->hidden};

    (void)snprintf(name, sizeof(name), "nn/%s_lora.safetensors", model);
    if (!nn_golden_open(&g, name))
        return;
    const int32_t *ids = nn_golden_get(&g, "input_ids", &count);
    const int32_t *labels = nn_golden_get(&g, "labels", &count);
    r.t = count / r.b;
    r.acts = dr_calloc((size_t)c->layers, sizeof(*r.acts));
    r.x = dr_calloc(count * r.row, sizeof(*r.x));
    r.dx = dr_calloc(count * r.row, sizeof(*r.dx));
    if (CHECK_OK(nn_decoder_open(&r.d, dev, m, 0)) && load_adapter(&a, &g, m)) {
        run_forward(&r, ids, c->layers);
        run_loss(&r, labels);
        run_backward(&r, c->layers);
        check_grads(&r);
    }
    for (int i = 0; i < c->layers; i++)
        dr_big_free(r.acts[i].x);
    free_adapter(&a);
    free(r.acts);
    free(r.x);
    free(r.dx);
    nn_decoder_close(r.d);
    nn_golden_close(&g);
}

static void test_lora(const nn_devices *devs)
{
    for (size_t i = 0; i < DR_COUNT(models); i++) {
        hf_model *m = NULL;
        if (!open_model(&m, models[i].dir))
            continue;
        check_lora(devs->ref, m, models[i].name);
        for (int k = 0; k < NN_KINDS && devs->dev[k][1] != NULL; k++)
            check_lora(devs->dev[k][1], m, models[i].name);
        hf_model_close(m);
    }
}

/* ---- mutations: a number of the model off by 10 % must be seen ---- */

/* Copies the model with one number of config.json (key, or inside.key) times 1.1. */
static bool mutated_copy(dr_arena *arena, char **dir, const char *from, const char *inside,
                         const char *key)
{
    json_t *config = NULL;

    *dir = dr_path_join(arena, check_tmp(), "mutated");
    if (!CHECK_OK(dr_remove_tree(*dir)) || !CHECK_OK(dr_make_dirs(*dir)) ||
        !CHECK_OK(dr_json_read(&config, dr_path_join(arena, from, "config.json"))))
        return false;
    json_t *o = inside != NULL ? json_object_get(config, inside) : config;
    double v = json_number_value(json_object_get(o, key));
    bool ok = CHECK(v > 0.0) &&
              CHECK(json_object_set_new(o, key, json_real(v * 1.1)) == 0) &&
              CHECK_OK(dr_json_write(dr_path_join(arena, *dir, "config.json"), config)) &&
              CHECK_OK(dr_copy_file(dr_path_join(arena, *dir, "model.safetensors"),
                                    dr_path_join(arena, from, "model.safetensors")));
    json_decref(config);
    return ok;
}

static void test_mutations(nn_device *dev)
{
    static const struct {
        const char *model, *inside, *key;
    } cases[] = {
        {"tiny/llama", NULL, "rope_theta"},
        {"tiny/qwen2", NULL, "rope_theta"},
        {"tiny/phi3", NULL, "rope_theta"},
        {"nn/llama3_rope", NULL, "rms_norm_eps"},
        {"nn/llama3_rope", "rope_scaling", "factor"},
        {"nn/llama3_rope", "rope_scaling", "high_freq_factor"},
    };
    dr_arena arena = {0};

    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        hf_model *m = NULL;
        char *from =
            dr_arena_printf(&arena, "%s/tests/golden/%s", DRUPE_SOURCE_DIR, cases[i].model);
        char *dir = NULL;
        if (!dr_is_dir(from)) {
            SKIP(from);
            continue;
        }
        if (!mutated_copy(&arena, &dir, from, cases[i].inside, cases[i].key) ||
            !CHECK_OK(hf_model_open(&m, dir)))
            continue;
        double far = logits_far(dev, m, cases[i].model, "logits.safetensors", 0);
        if (!CHECK(far > 2.0 * tol_logits && far < 100.0))
            (void)printf("  %s %s: %.3g\n", cases[i].model, cases[i].key, far);
        hf_model_close(m);
    }
    dr_arena_release(&arena);
}

/* Attention's scale has no key: queries 10 % larger are the same mistake. */
static void test_scale_mutation(nn_device *dev)
{
    hf_model *m = NULL;
    nn_decoder *d = NULL;
    const nn_layer *w = NULL;
    nn_acts acts = {0};
    size_t t = 0;
    nn_golden g;

    if (!open_model(&m, "tiny/llama") ||
        !nn_golden_open(&g, "tiny/llama/logits.safetensors"))
        return;
    const hf_config *c = hf_model_config(m);
    const int32_t *ids = nn_golden_get(&g, "input_ids", &t);
    size_t n = t * (size_t)c->hidden, rows = (size_t)(c->heads * c->head_dim);
    float *x = dr_calloc(n, sizeof(*x)), *y = dr_calloc(n, sizeof(*y));
    CHECK_OK(nn_decoder_open(&d, dev, m, 0));
    CHECK_OK(nn_acts_new(&acts, c, 1, t, 0));
    CHECK_OK(nn_decoder_layer(d, 0, &w));
    CHECK_OK(nn_decoder_embed(d, x, ids, t));
    CHECK_OK(nn_layer_forward(d, w, 1, t, x, &acts, NULL, 0));
    CHECK_OK(nn_decoder_embed(d, y, ids, t));
    for (size_t i = 0; i < rows * (size_t)c->hidden; i++)
        w->w[HF_SLOT_QKV][i] *= 1.1f;
    CHECK_OK(nn_layer_forward(d, w, 1, t, y, &acts, NULL, 0));
    CHECK(nn_far(y, x, n) > 10.0 * tol_hidden);
    dr_big_free(acts.x);
    free(x);
    free(y);
    nn_decoder_close(d);
    hf_model_close(m);
    nn_golden_close(&g);
}

int main(void)
{
    nn_devices devs;

    nn_devices_open(&devs);
    test_logits(&devs);
    test_lora(&devs);
    test_mutations(devs.ref);
    test_scale_mutation(devs.dev[0][0]);
    nn_devices_close(&devs);
    return check_done();
}
