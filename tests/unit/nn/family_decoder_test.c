/*
 * family_decoder_test.c - the tiny model of every family against transformers: logits of
 * several lengths, on every device; configs with one number changed, which must show; loss
 * and LoRA gradients against torch's.
 *
 * Logits are those of tests/golden/families, gradients of nn/families_lora.json
 * (tools/oracle/family_lora_goldens.py): of each gradient its products with three fixed
 * directions, which follow by a formula from its name, and its length.
 */
#include "nn_check.h"

#include "family.h"

enum { TOKENS_MAX = 16, MODULES_MAX = 32, LAYERS_MAX = 4, PROBES = 3 };

static const double tol_logits = 1e-4, tol_loss = 1e-5, tol_grad = 1e-4;
static dr_arena arena;

static bool has_experts(const char *name)
{
    return strcmp(name, "qwen3_moe") == 0 || strcmp(name, "gpt_oss") == 0;
}

static size_t ids_of(int32_t *ids, const json_t *golden)
{
    const json_t *list = json_object_get(golden, "ids");
    size_t n = json_array_size(list);

    DR_BUG_IF(n > TOKENS_MAX);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return n;
}

/* ---- logits ---- */

static double row_far(const float *got, const json_t *want)
{
    double worst = 0.0;

    for (size_t i = 0; i < json_array_size(want); i++)
        worst =
            fmax(worst, fabs((double)got[i] - json_number_value(json_array_get(want, i))));
    return worst;
}

/* Largest difference to all logits; with runs, also of the last token of shorter texts. */
static double logits_far(nn_device *dev, const hf_model *m, const json_t *golden, bool runs)
{
    const hf_config *c = hf_model_config(m);
    const json_t *rows = json_object_get(golden, "logits"), *row = NULL;
    size_t v = (size_t)c->vocab, row_floats = (size_t)c->hidden, i = 0;
    int32_t ids[TOKENS_MAX];
    size_t n = ids_of(ids, golden);
    float *x = dr_calloc(TOKENS_MAX * row_floats, sizeof(*x));
    float *logits = dr_calloc(TOKENS_MAX * v, sizeof(*logits));
    nn_decoder *d = NULL;
    double worst = 0.0;
    const char *length = NULL;

    CHECK_OK(nn_decoder_open(&d, dev, m, 0));
    CHECK_OK(nn_decoder_hidden(d, x, ids, 1, n));
    CHECK_OK(nn_head_logits(d, logits, x, n));
    json_array_foreach(rows, i, row) worst = fmax(worst, row_far(logits + i * v, row));
    json_object_foreach((json_t *)(runs ? json_object_get(golden, "runs") : NULL), length,
                        row)
    {
        size_t t = (size_t)strtoul(length, NULL, 10);
        CHECK_OK(nn_decoder_hidden(d, x, ids, 1, t));
        CHECK_OK(nn_head_logits(d, logits, x, t));
        worst = fmax(worst, row_far(logits + (t - 1) * v, row));
    }
    nn_decoder_close(d);
    free(x);
    free(logits);
    return worst;
}

static void check_logits(const nn_devices *devs, const hf_model *m, const json_t *golden)
{
    CHECK_NEAR(logits_far(devs->ref, m, golden, true), 0.0, tol_logits);
    for (int k = 0; k < NN_KINDS && devs->dev[k][1] != NULL; k++)
        CHECK_NEAR(logits_far(devs->dev[k][1], m, golden, true), 0.0, tol_logits);
}

/* Every number of the config that the oracle saw a change of. */
static void check_mutations(nn_device *dev, const char *name, const json_t *golden)
{
    const json_t *changes = json_object_get(golden, "mutations"), *change = NULL;
    size_t i = 0;

    json_array_foreach(changes, i, change)
    {
        json_t *config =
            json_deep_copy(json_object_get(json_object_get(golden, "configs"), "5"));
        const json_t *path = json_array_get(change, 0);
        double factor = json_number_value(json_array_get(change, 1));
        size_t n = json_array_size(path);
        json_t *o = config;
        hf_model *m = NULL;
        for (size_t k = 0; k + 1 < n; k++)
            o = json_object_get(o, json_string_value(json_array_get(path, k)));
        const char *key = json_string_value(json_array_get(path, n - 1));
        json_t *v = json_object_get(o, key);
        json_object_set_new(o, key,
                            json_is_integer(v)
                                ? json_integer(llround(json_number_value(v) * factor))
                                : json_real(json_number_value(v) * factor));
        if (CHECK_OK(
                hf_model_open(&m, family_model(&arena, "mutated", golden, config, 1)))) {
            double far = logits_far(dev, m, golden, false);
            if (!CHECK(far > 1e-3 && far < 1000.0))
                (void)printf("  %s %s: %.3g\n", name, key, far);
        }
        hf_model_close(m);
        json_decref(config);
    }
}

/* ---- LoRA ---- */

/* All linears of a model with an adapter on each. */
typedef struct {
    const hf_model *m;
    nn_decoder *d;
    nn_lora loras[LAYERS_MAX][MODULES_MAX];
    const hf_linear *linears[LAYERS_MAX];
    size_t count, rank; /* of a layer */
    nn_acts acts[LAYERS_MAX];
} model;

static float *adapter_part(const hf_linear *l, const char *part, size_t rows, size_t cols)
{
    const char *name = dr_arena_printf(&arena, "%s.%s", l->path, part);

    return family_values(&arena, name, rows * cols, 0.25);
}

static void model_open(model *a, nn_device *dev, const hf_model *m, const json_t *lora,
                       size_t t)
{
    const hf_config *c = hf_model_config(m);
    size_t r = (size_t)json_integer_value(json_object_get(lora, "r"));
    double alpha = json_number_value(json_object_get(lora, "alpha"));

    *a = (model){.m = m, .rank = r};
    DR_BUG_IF(c->layers > LAYERS_MAX);
    CHECK_OK(nn_decoder_open(&a->d, dev, m, SIZE_MAX));
    for (int layer = 0; layer < c->layers; layer++) {
        a->count = hf_layer_linears(m, layer, &a->linears[layer]);
        for (size_t i = 0; i < a->count; i++) {
            const hf_linear *l = &a->linears[layer][i];
            a->loras[layer][i] = (nn_lora){.slot = l->slot,
                                           .row0 = l->row0,
                                           .n_out = l->n_out,
                                           .n_in = l->n_in,
                                           .r = r,
                                           .scale = (float)(alpha / (double)r),
                                           .a = adapter_part(l, "lora_A", r, l->n_in),
                                           .b = adapter_part(l, "lora_B", l->n_out, r),
                                           .da = dr_calloc(r * l->n_in, sizeof(float)),
                                           .db = dr_calloc(r * l->n_out, sizeof(float))};
        }
        CHECK_OK(nn_acts_new(&a->acts[layer], c, 1, t, a->count * r));
    }
}

static void model_close(model *a)
{
    for (int layer = 0; layer < hf_model_config(a->m)->layers; layer++) {
        for (size_t i = 0; i < a->count; i++) {
            free(a->loras[layer][i].da);
            free(a->loras[layer][i].db);
        }
        dr_big_free(a->acts[layer].x);
    }
    nn_decoder_close(a->d);
}

static void check_gradient(const float *grad, const char *name, size_t rows, size_t cols,
                           const json_t *want)
{
    double length = json_number_value(json_array_get(want, PROBES)), norm = 0.0;

    CHECK(length > 0.0);
    for (size_t i = 0; i < rows * cols; i++)
        norm += (double)grad[i] * (double)grad[i];
    bool ok = CHECK_NEAR(sqrt(norm) / length, 1.0, tol_grad);
    for (int k = 0; k < PROBES; k++) {
        const float *u = family_values(&arena, dr_arena_printf(&arena, "%s.%d", name, k),
                                       rows * cols, 1.0);
        double sum = 0.0;
        for (size_t i = 0; i < rows * cols; i++)
            sum += (double)grad[i] * (double)u[i];
        sum -= json_number_value(json_array_get(want, (size_t)k));
        ok = CHECK_NEAR(sum / length, 0.0, tol_grad) && ok;
    }
    if (!ok)
        (void)printf("  %s\n", name);
}

static void check_gradients(const model *a, const json_t *grads)
{
    CHECK_EQ_INT(json_object_size(grads),
                 2 * a->count * (size_t)hf_model_config(a->m)->layers);
    for (int layer = 0; layer < hf_model_config(a->m)->layers; layer++) {
        for (size_t i = 0; i < a->count; i++) {
            const nn_lora *l = &a->loras[layer][i];
            const char *path = a->linears[layer][i].path;
            const char *name = dr_arena_printf(&arena, "%s.lora_A", path);
            check_gradient(l->da, name, l->r, l->n_in, json_object_get(grads, name));
            name = dr_arena_printf(&arena, "%s.lora_B", path);
            check_gradient(l->db, name, l->n_out, l->r, json_object_get(grads, name));
        }
    }
}

static void check_lora(nn_device *dev, const hf_model *m, const json_t *golden,
                       const json_t *lora, const json_t *want)
{
    const hf_config *c = hf_model_config(m);
    int32_t ids[TOKENS_MAX], targets[TOKENS_MAX];
    size_t t = ids_of(ids, golden), counted = 0;
    float *x = dr_calloc(t * (size_t)c->hidden, sizeof(*x));
    float *dx = dr_calloc(t * (size_t)c->hidden, sizeof(*dx));
    const nn_layer *w = NULL;
    double loss = 0.0;
    model a;

    model_open(&a, dev, m, lora, t);
    for (size_t i = 0; i < t; i++)
        targets[i] = i + 1 < t ? ids[i + 1] : -100;
    CHECK_OK(nn_decoder_embed(a.d, x, ids, t));
    for (int i = 0; i < c->layers; i++) {
        CHECK_OK(nn_decoder_layer(a.d, i, &w));
        CHECK_OK(nn_layer_forward(a.d, w, 1, t, x, &a.acts[i], a.loras[i], a.count));
    }
    CHECK_OK(
        nn_head_loss(a.d, x, targets, t, &loss, &counted, dx, 1.0f / (float)(t - 1), 0));
    CHECK_NEAR(loss / (double)counted / json_number_value(json_object_get(want, "loss")),
               1.0, tol_loss);
    for (int i = c->layers - 1; i >= 0; i--) {
        CHECK_OK(nn_decoder_layer(a.d, i, &w));
        CHECK_OK(
            nn_layer_backward(a.d, w, 1, t, dx, &a.acts[i], a.loras[i], a.count, i > 0));
    }
    check_gradients(&a, json_object_get(want, "grads"));
    model_close(&a);
    free(x);
    free(dx);
}

static void one_family(const nn_devices *devs, const char *name, const json_t *lora)
{
    json_t *golden = family_golden(&arena, name);
    const json_t *config = json_object_get(json_object_get(golden, "configs"), "5");
    const json_t *want = json_object_get(json_object_get(lora, "cases"), name);
    size_t failed = check_failed;
    hf_model *m = NULL;

    if (CHECK_OK(hf_model_open(&m, family_model(&arena, name, golden, config, 1)))) {
        check_logits(devs, m, golden);
        check_mutations(devs->dev[0][0], name, golden);
        CHECK(want != NULL);
        check_lora(devs->ref, m, golden, lora, want);
        for (int k = 0; k < NN_KINDS && devs->dev[k][1] != NULL; k++)
            check_lora(devs->dev[k][1], m, golden, lora, want);
    }
    if (check_failed > failed)
        (void)printf("  in: %s\n", name);
    hf_model_close(m);
    json_decref(golden);
}

int main(void)
{
    nn_devices devs;
    json_t *lora = NULL;

    nn_devices_open(&devs);
    CHECK_OK(dr_json_read(&lora, DRUPE_SOURCE_DIR "/tests/golden/nn/families_lora.json"));
    for (size_t i = 0; i < DR_COUNT(family_names); i++) {
        if (!has_experts(family_names[i]))
            one_family(&devs, family_names[i], lora);
    }
    json_decref(lora);
    nn_devices_close(&devs);
    dr_arena_release(&arena);
    return check_done();
}
