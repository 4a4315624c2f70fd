/*
 * experts_test.c - experts in their files' forms: stacked floats with inputs down the rows,
 * MXFP4 blocks, single tensors; and what is not there.  Logits are tested in
 * onnx/family_test.
 */
#include "family.h"

enum { E = 4, D = 32, INNER = 32, LAYERS = 2, LIST = 128 };

typedef struct {
    dr_arena arena;
    json_t *golden;
    dr_tensor list[LIST];
    size_t count;
} files;

static void add_bytes(files *f, const char *name, const int64_t *dims, int ndim,
                      uint8_t first)
{
    dr_tensor *t = &f->list[f->count++];
    size_t n = 1;

    *t = (dr_tensor){.name = name, .dtype = DR_DTYPE_U8, .ndim = ndim};
    for (int i = 0; i < ndim; i++) {
        t->dims[i] = dims[i];
        n *= (size_t)dims[i];
    }
    uint8_t *v = dr_arena_alloc(&f->arena, n, 1);
    for (size_t i = 0; i < n; i++)
        v[i] = ndim == 4 ? (uint8_t)(i * 37 + first) : (uint8_t)(126 + i % 4);
    t->data = v;
    t->bytes = n;
}

/* Every tensor of the golden but those whose names hold `without` (NULL: none). */
static void gather(files *f, const char *name, const char *without)
{
    const json_t *rows = NULL;

    f->golden = family_golden(&f->arena, name);
    rows = json_object_get(f->golden, "tensors");
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        if (without == NULL ||
            strstr(json_string_value(json_array_get(row, 0)), without) == NULL)
            f->list[f->count++] = family_tensor(&f->arena, row);
    }
}

static const char *folder(files *f, const char *name, json_t *config)
{
    const char *dir = dr_path_join(&f->arena, check_tmp(), name);

    CHECK_OK(dr_make_dirs(dir));
    CHECK_OK(dr_json_write(dr_path_join(&f->arena, dir, "config.json"), config));
    CHECK_OK(
        hf_st_write(dr_path_join(&f->arena, dir, "model.safetensors"), f->list, f->count));
    return dir;
}

static void release(files *f)
{
    json_decref(f->golden);
    dr_arena_release(&f->arena);
}

static json_t *config_of(const files *f)
{
    return json_object_get(json_object_get(f->golden, "configs"), "5");
}

static const dr_tensor *tensor(const files *f, const char *name)
{
    for (size_t i = 0; i < f->count; i++) {
        if (strcmp(f->list[i].name, name) == 0)
            return &f->list[i];
    }
    return NULL;
}

/* [E][in][out] turned, whatever rows are asked for. */
static void stacked_floats(void)
{
    files f = {0};
    hf_model *m = NULL;
    float got[7 * D];

    gather(&f, "gpt_oss", NULL);
    if (CHECK_OK(hf_model_open(&m, folder(&f, "stacked", config_of(&f))))) {
        const float *all = tensor(&f, "model.layers.1.mlp.experts.gate_up_proj")->data;
        size_t out = 2 * INNER, row0 = 2 * out - 3; /* across two experts */
        CHECK_OK(hf_expert_read(m, 1, HF_EXPERT_GATE_UP, got, row0, 7));
        for (size_t r = 0; r < 7; r++) {
            size_t e = (row0 + r) / out, at = (row0 + r) % out;
            for (size_t i = 0; i < D; i++)
                CHECK(got[r * D + i] == all[(e * D + i) * out + at]);
        }
    }
    hf_model_close(m);
    release(&f);
}

/* The values of OCP's E2M1. */
static float mx_value(int code)
{
    static const float magnitudes[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};

    return code & 8 ? -magnitudes[code & 7] : magnitudes[code & 7];
}

static void mxfp4(void)
{
    static const char *const parts[] = {"gate_up_proj", "down_proj"};
    files f = {0};
    hf_model *m = NULL;
    float got[D];

    gather(&f, "gpt_oss", NULL);
    size_t kept = 0; /* biases stay, weights of experts go */
    for (size_t i = 0; i < f.count; i++) {
        const char *end = strrchr(f.list[i].name, '.') + 1;
        if (strcmp(end, parts[0]) != 0 && strcmp(end, parts[1]) != 0)
            f.list[kept++] = f.list[i];
    }
    f.count = kept;
    for (int layer = 0; layer < LAYERS; layer++) {
        for (int p = 0; p < 2; p++) {
            int64_t out = p == 0 ? 2 * INNER : D;
            const char *at = dr_arena_printf(&f.arena, "model.layers.%d.mlp.experts.%s",
                                             layer, parts[p]);
            add_bytes(&f, dr_arena_printf(&f.arena, "%s_blocks", at),
                      (int64_t[]){E, out, 1, 16}, 4, (uint8_t)(11 * layer + p));
            add_bytes(&f, dr_arena_printf(&f.arena, "%s_scales", at),
                      (int64_t[]){E, out, 1}, 3, 0);
        }
    }
    json_t *config = json_deep_copy(config_of(&f));
    json_object_set_new(config, "quantization_config",
                        json_pack("{s:s}", "quant_method", "mxfp4"));
    if (CHECK_OK(hf_model_open(&m, folder(&f, "mxfp4", config)))) {
        for (int p = 0; p < 2; p++) {
            size_t out = p == 0 ? 2 * INNER : D, row = 3 * out + 5;
            CHECK_OK(hf_expert_read(m, 1, (hf_expert_part)p, got, row, 1));
            for (size_t i = 0; i < D; i++) {
                uint8_t byte = (uint8_t)((row * 16 + i / 2) * 37 + 11 + (size_t)p);
                float scale = ldexpf(1, (int)(row % 4) - 1);
                CHECK(got[i] == mx_value(i % 2 ? byte >> 4 : byte & 15) * scale);
            }
        }
    }
    hf_model_close(m);
    json_decref(config);
    release(&f);
}

static void refused(const char *name, const char *without, const char *words)
{
    files f = {0};
    hf_model *m = NULL;

    gather(&f, name, without);
    CHECK(hf_model_open(&m, folder(&f, "refused", config_of(&f))) == DR_EFORMAT);
    CHECK(strstr(dr_trail_get()->frames[0].text, words) != NULL);
    hf_model_close(m);
    release(&f);
}

static void changed(const char *name, const char *key, int value, dr_status want)
{
    files f = {0};
    hf_model *m = NULL;

    gather(&f, name, NULL);
    json_t *config = json_deep_copy(config_of(&f));
    json_object_set_new(config, key, json_integer(value));
    CHECK(hf_model_open(&m, folder(&f, "changed", config)) == want);
    hf_model_close(m);
    json_decref(config);
    release(&f);
}

int main(void)
{
    stacked_floats();
    mxfp4();
    refused("gpt_oss", "layers.1.mlp.experts.down_proj", "layers.1.mlp.experts.down_proj");
    refused("gpt_oss", "layers.0.self_attn.sinks", "layers.0.self_attn.sinks");
    refused("qwen3_moe", "layers.1.mlp.experts.2.up_proj", "experts.2.up_proj.weight");
    refused("qwen3_moe", "mlp.gate.", "layers.0.mlp.gate.weight");
    changed("qwen3_moe", "num_local_experts", 5, DR_EFORMAT);
    changed("qwen3_moe", "num_experts_per_tok", 5, DR_EFORMAT);
    changed("qwen3_moe", "decoder_sparse_step", 2, DR_EUNSUPPORTED);
    changed("gpt_oss", "intermediate_size", 48, DR_EFORMAT);
    return check_done();
}
