/*
 * awq_golden_test.c - the exact search against AutoAWQ 0.2.9's own functions.
 *
 * Reads every folder of tests/golden/quant, and of DRUPE_QUANT_GOLDENS when that is set
 * (see tools/oracle/quant_awq_goldens.py).  Scales must be AutoAWQ's: each comes from the
 * same one of 20 ratios.  Of the clips a few may differ where two candidates cost nearly
 * the same, since AutoAWQ sums over tokens in float and drupe over a Gram matrix: for
 * those the two costs are compared in double.
 */
#include "family.h"
#include "quant/awq_impl.h"
#include "quant_fixture.h"

typedef struct {
    dr_map map;
    json_t *header;
    const unsigned char *data;
} golden;

static bool golden_open(golden *g, const char *path)
{
    uint64_t n = 0;

    if (!CHECK_OK(dr_map_open(&g->map, path)))
        return false;
    memcpy(&n, g->map.data, sizeof(n));
    g->data = g->map.data + 8 + n;
    return CHECK_OK(dr_json_parse(&g->header, (const char *)g->map.data + 8, n, path));
}

static void golden_close(golden *g)
{
    json_decref(g->header);
    dr_map_close(&g->map);
}

/* A tensor's data, NULL when there is none. */
static const void *golden_find(const golden *g, const char *name, size_t *count)
{
    const json_t *t = dr_json_get(g->header, name);
    const json_t *at = t == NULL ? NULL : dr_json_get(t, "data_offsets");

    if (at == NULL)
        return NULL;
    size_t from = (size_t)json_integer_value(json_array_get(at, 0));
    *count = ((size_t)json_integer_value(json_array_get(at, 1)) - from) / 4;
    return g->data + from;
}

typedef struct {
    dr_arena a;
    const char *name;
    golden g;
    json_t *manifest;
    awq_run run;
    nn_device *dev;
    hf_model *m;
    quant_grid grid;
    quant_awq_options o;
    quant_calib calib;
    size_t clips, differ, reported;
} fixture;

/* A model of the manifest's formulas, some rows being `factor` times as large. */
static const char *formula_model(fixture *f)
{
    const json_t *rows = dr_json_get(f->manifest, "tensors");
    const char *dir = dr_path_join(&f->a, check_tmp(), f->name);
    dr_tensor list[32];
    size_t n = json_array_size(rows);
    int64_t factor = 1;

    DR_BUG_IF(n > DR_COUNT(list));
    CHECK_OK(dr_json_int(f->manifest, "factor", &factor, f->name));
    for (size_t i = 0; i < n; i++) {
        const json_t *wild = json_array_get(json_array_get(rows, i), 4);
        list[i] = family_tensor(&f->a, json_array_get(rows, i));
        size_t cols = list[i].ndim == 2 ? (size_t)list[i].dims[1] : 1;
        float *v = (float *)(uintptr_t)list[i].data;
        for (size_t k = 0; k < json_array_size(wild); k++) {
            size_t row = (size_t)json_integer_value(json_array_get(wild, k));
            for (size_t c = 0; c < cols; c++)
                v[row * cols + c] *= (float)factor;
        }
    }
    CHECK_OK(dr_make_dirs(dir));
    CHECK_OK(dr_json_write(dr_path_join(&f->a, dir, "config.json"),
                           dr_json_get(f->manifest, "config")));
    CHECK_OK(hf_st_write(dr_path_join(&f->a, dir, "model.safetensors"), list, n));
    return dir;
}

static bool fixture_open(fixture *f, const char *dir)
{
    const json_t *shape = NULL;
    const char *model = dir;
    int64_t bits = 4, group = 64;
    bool zero_point = true;
    size_t count = 0;

    f->name = dr_path_base(dir);
    if (!CHECK_OK(dr_json_read(&f->manifest, dr_path_join(&f->a, dir, "manifest.json"))) ||
        !golden_open(&f->g, dr_path_join(&f->a, dir, "golden.safetensors")))
        return false;
    f->o = (quant_awq_options){true, true, true};
    CHECK_OK(dr_json_int(f->manifest, "bits", &bits, dir));
    CHECK_OK(dr_json_int(f->manifest, "group", &group, dir));
    CHECK_OK(dr_json_bool(f->manifest, "zero_point", &zero_point, dir));
    CHECK_OK(dr_json_bool(f->manifest, "duo_scaling", &f->o.duo_scaling, dir));
    CHECK_OK(dr_json_str(f->manifest, "model", &model, dir));
    model = dr_json_get(f->manifest, "tensors") != NULL ? formula_model(f) : model;
    f->grid = (quant_grid){(int)bits, (int)group, !zero_point};
    shape = dr_json_get(dr_json_get(f->g.header, "ids"), "shape");
    f->calib.ids = golden_find(&f->g, "ids", &count);
    f->calib.count = (size_t)json_integer_value(json_array_get(shape, 0));
    f->calib.seq_len = (size_t)json_integer_value(json_array_get(shape, 1));
    if (model != dir && !dr_is_dir(model)) {
        SKIP("oracle: the model of a golden is not on this machine");
        return false;
    }
    return CHECK_OK(nn_device_open(&f->dev, "cpu", 0)) &&
           CHECK_OK(hf_model_open(&f->m, model));
}

static void fixture_close(fixture *f)
{
    awq_run_close(&f->run);
    hf_model_close(f->m);
    nn_device_close(f->dev);
    golden_close(&f->g);
    json_decref(f->manifest);
    dr_arena_release(&f->a);
}

/* Tokens that AutoAWQ's clip search sees, in double: e^T G e of two clippings. */
static double clip_cost(const fixture *f, const float *w, float limit, const float *gram,
                        size_t n)
{
    const quant_rule rule = f->run.rule;
    float tile[256 * QUANT_LANES] = {0}, lo[QUANT_LANES], hi[QUANT_LANES];
    float limits[QUANT_LANES] = {limit}, codes[256 * QUANT_LANES];
    quant_lanes g;
    double cost = 0;

    quant_tile_load(tile, w, n, 1, n);
    quant_tile_clamp(tile, limits, n);
    (void)quant_tile_range(lo, hi, tile, n);
    quant_rule_fit(&g, &rule, lo, hi);
    quant_tile_codes(codes, &rule, &g, tile, n);
    quant_tile_values(codes, &g, codes, n);
    for (size_t i = 0; i < n; i++) {
        double dot = 0, e = (double)codes[i * QUANT_LANES] - (double)w[i];
        for (size_t j = 0; j < n; j++)
            dot +=
                (double)gram[i * n + j] * ((double)codes[j * QUANT_LANES] - (double)w[j]);
        cost += e * dot;
    }
    return cost;
}

static void check_clips(fixture *f, int layer, const hf_linear *l, const float *limits,
                        const float *row_scale)
{
    const awq_slot *slot = &f->run.slot[l->slot];
    size_t count = 0, groups = slot->k / slot->block, n = slot->block;
    const char *module = strchr(strchr(l->path, '.') + 8, '.') + 1;
    const float *want =
        golden_find(&f->g, dr_arena_printf(&f->a, "%d.clip.%s", layer, module), &count);
    float *w = dr_calloc(n, sizeof(*w));

    if (want == NULL) { /* not clipped */
        free(w);
        return;
    }
    CHECK_EQ_INT(count, l->n_out * groups);
    for (size_t i = 0; i < count; i++) {
        size_t r = l->row0 + i / groups, c0 = i % groups * n;
        float got = limits[r * groups + i % groups];
        f->clips++;
        if (fabsf(got - want[i]) <= 1e-5f * want[i])
            continue;
        f->differ++;
        for (size_t c = 0; c < n; c++)
            w[c] = f->run.layer.w[l->slot][r * slot->k + c0 + c] * slot->scale[c0 + c] /
                   row_scale[r];
        double a = clip_cost(f, w, got, slot->grams + c0 * n, n);
        double b = clip_cost(f, w, want[i], slot->grams + c0 * n, n);
        if (fabs(a - b) > 1e-4 * fabs(b) && f->reported++ < 3 &&
            !CHECK(fabs(a - b) <= 1e-4 * fabs(b)))
            (void)printf(
                "  %s row %zu group %zu: limit %g costs %g, AutoAWQ's %g costs %g\n",
                l->path, i / groups, i % groups, (double)got, a, (double)want[i], b);
    }
    free(w);
}

static void check_slot_clips(fixture *f, int layer, hf_slot s)
{
    awq_slot *slot = &f->run.slot[s];
    size_t count = 0, n = slot->n;
    const hf_linear *l = quant_slot_linears(f->m, layer, s, &count);
    float *limits = dr_calloc(n * slot->k / slot->block, sizeof(*limits));
    float *row_scale = dr_calloc(n, sizeof(*row_scale));
    dr_qtensor q = {0};

    for (size_t i = 0; i < n; i++)
        row_scale[i] = 1.0f;
    if (s == HF_SLOT_QKV || s == HF_SLOT_GATE_UP)
        quant_row_scale(row_scale, f->run.s.cfg, s,
                        f->run.slot[s == HF_SLOT_QKV ? HF_SLOT_O : HF_SLOT_DOWN].scale);
    awq_scale_grams(slot->grams, slot);
    CHECK_OK(
        dr_qtensor_new(&q, f->grid.bits, (int)slot->block, n, slot->k, f->grid.symmetric));
    awq_rounding job = {.q = &q,
                        .w = f->run.layer.w[s],
                        .scale = slot->scale,
                        .row_scale = row_scale,
                        .grams = slot->grams,
                        .search = f->run.rule,
                        .final = f->run.rule,
                        .exact = true,
                        .limits = limits};
    CHECK_OK(awq_round_rows(f->dev, &job, 0, n));
    for (size_t i = 0; i < count; i++)
        check_clips(f, layer, &l[i], limits, row_scale);
    dr_qtensor_release(&q);
    free(limits);
    free(row_scale);
}

static void check_layer(fixture *f, int layer)
{
    static const char *const names[] = {"qkv", "o", "gate_up", "down"};

    for (int s = 0; s < HF_SLOT_COUNT; s++) {
        const awq_slot *slot = &f->run.slot[s];
        const char *name = dr_arena_printf(&f->a, "%d.scale.%s", layer, names[s]);
        size_t count = slot->k;
        const float *want = golden_find(&f->g, name, &count);
        float worst = 0;
        CHECK_OK(awq_search_slot(&f->run, 0, (hf_slot)s));
        CHECK_EQ_INT(count, slot->k);
        for (size_t i = 0; i < slot->k; i++) {
            float e = fabsf(slot->scale[i] / (want == NULL ? 1.0f : want[i]) - 1.0f);
            worst = e > worst ? e : worst;
        }
        if (!CHECK_NEAR((double)worst, 0, 2e-4))
            (void)printf("  %s %s\n", f->name, name);
        if (want != NULL) /* to the last bit: a clip's zero point is often a tie */
            memcpy(slot->scale, want, count * sizeof(float));
    }
    for (int s = 0; s < HF_SLOT_COUNT; s++)
        check_slot_clips(f, layer, (hf_slot)s);
}

static void check_folder(const char *dir)
{
    fixture f = {0};
    const char *key = NULL;
    json_t *value = NULL;
    int last = -1;

    if (fixture_open(&f, dir) &&
        CHECK_OK(awq_run_open(&f.run, &(quant_site){.dev = f.dev, .in = f.m}, &f.grid,
                              &f.calib, &f.o, NULL))) {
        json_object_foreach(f.g.header, key, value)
        {
            if (strstr(key, ".scale.") != NULL) {
                int layer = (int)strtol(key, NULL, 10);
                last = layer > last ? layer : last;
            }
        }
        for (int i = 0; i <= last; i++) {
            CHECK_OK(awq_run_layer(&f.run, i));
            if (dr_json_get(f.g.header, dr_arena_printf(&f.a, "%d.scale.down", i)) != NULL)
                check_layer(&f, i);
        }
        CHECK(f.differ <= f.clips / 500);
        (void)printf("%s: %zu clips, %zu at near ties\n", f.name, f.clips, f.differ);
    }
    fixture_close(&f);
}

static void check_all(const char *dir)
{
    dr_arena a = {0};
    char **names = NULL;
    size_t count = 0;

    if (CHECK_OK(dr_list_dir(&a, dir, &names, &count))) {
        for (size_t i = 0; i < count; i++)
            check_folder(dr_path_join(&a, dir, names[i]));
    }
    dr_arena_release(&a);
}

int main(void)
{
    const char *more = getenv("DRUPE_QUANT_GOLDENS");

    check_all(DRUPE_SOURCE_DIR "/tests/golden/quant");
    if (more != NULL)
        check_all(more);
    return check_done();
}
