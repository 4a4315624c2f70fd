/* quant_format_test.c - quantized checkpoints of other tools (compressed-tensors,
 * bitsandbytes, GPTQ with desc_act): the very floats that those tools mean; what is not
 * read is refused by name. */
#include "make_model.h"

static dr_arena arena;

#define FORMATS GOLDEN "formats/"

typedef struct {
    const char *name;
    hf_quant_method method;
    int bits, group;
    bool symmetric;
    int packed; /* of the seven linears */
    size_t unordered;
    const char *origin;
} format;

static const format formats[] = {
    {"ct_group", HF_QUANT_COMPRESSED, 4, 16, true, 7, 0,
     "compressed-tensors 4 bit group 16"},
    {"ct_zeros", HF_QUANT_COMPRESSED, 4, 16, false, 7, 0,
     "compressed-tensors 4 bit group 16"},
    {"ct_channel", HF_QUANT_COMPRESSED, 4, -1, false, 7, 0, "compressed-tensors 4 bit"},
    {"ct_mixed", HF_QUANT_COMPRESSED, 8, 16, false, 6, 0,
     "compressed-tensors 8 bit group 16"},
    {"nf4", HF_QUANT_NONE, 0, 0, false, 0, 0, "bitsandbytes nf4"},
    {"nf4_double", HF_QUANT_NONE, 0, 0, false, 0, 0,
     "bitsandbytes nf4, double quantization"},
    {"fp4", HF_QUANT_NONE, 0, 0, false, 0, 0, "bitsandbytes fp4"},
    {"gptq_act", HF_QUANT_GPTQ, 4, 16, false, 1, 6,
     "gptq 4 bit group 16, inputs out of order"},
};

static const float *expected_of(const hf_model *want, const char *path)
{
    const dr_tensor *t = hf_tensor_find(want, dr_arena_printf(&arena, "%s.weight", path));

    return t != NULL ? t->data : NULL;
}

/* expected.safetensors over the plain model: a model whose linears are what is meant. */
static hf_model *open_expected(const char *name)
{
    const char *dir = tmp_dir(&arena, name), *from = dr_path_join(&arena, FORMATS, name);
    const char *one = dr_path_join(&arena, dir, "model-1.safetensors");
    hf_model *plain = NULL, *m = NULL;
    json_t *map = json_object(), *index = NULL;
    dr_tensor rest[64];
    size_t n = 0;

    CHECK_OK(dr_copy_file(one, dr_path_join(&arena, from, "expected.safetensors")));
    CHECK_OK(dr_copy_file(dr_path_join(&arena, dir, "config.json"),
                          GOLDEN "packed_f32/config.json"));
    CHECK_OK(hf_model_open(&plain, GOLDEN "packed_f32"));
    for (size_t i = 0; i < hf_tensor_count(plain); i++) {
        const dr_tensor *t = hf_tensor_at(plain, i);
        bool given = strstr(t->name, "_proj.weight") != NULL;
        if (strcmp(name, "ct_mixed") == 0 && strstr(t->name, "v_proj") != NULL)
            given = false;
        json_object_set_new(
            map, t->name,
            json_string(given ? "model-1.safetensors" : "model-2.safetensors"));
        if (!given)
            rest[n++] = *t;
    }
    CHECK_OK(hf_st_write(dr_path_join(&arena, dir, "model-2.safetensors"), rest, n));
    index = json_pack("{s:o}", "weight_map", map);
    CHECK_OK(
        dr_json_write(dr_path_join(&arena, dir, "model.safetensors.index.json"), index));
    json_decref(index);
    hf_model_close(plain);
    CHECK_OK(hf_model_open(&m, dir));
    return m;
}

/* Every linear, whole and in pieces; those in the file alone, since the rest is bf16. */
static void check_linears(const hf_model *m, const hf_model *want, int packed)
{
    float whole[4096], part[4096];
    const hf_linear *l = NULL;
    size_t n = hf_layer_linears(m, 0, &l);
    int found = 0;

    for (size_t i = 0; i < n; i++) {
        const float *values = expected_of(want, l[i].path);
        found += l[i].packed;
        CHECK_OK(hf_linear_read(m, &l[i], whole, 0, l[i].n_out));
        if (hf_tensor_find(m, dr_arena_printf(&arena, "%s.weight", l[i].path)) == NULL ||
            hf_model_quant(m).method == HF_QUANT_NONE)
            CHECK_MEM(whole, values, l[i].n_out * l[i].n_in * sizeof(float));
        for (size_t row = 0; row < l[i].n_out; row += 5) {
            size_t count = l[i].n_out - row < 11 ? l[i].n_out - row : 11;
            CHECK_OK(hf_linear_read(m, &l[i], part, row, count));
            CHECK_MEM(part, whole + row * l[i].n_in, count * l[i].n_in * sizeof(float));
        }
    }
    CHECK_EQ_INT(found, packed);
}

/* Written plain, the linears are what was read, and nothing of the format is left. */
static void check_written(const hf_model *m, const char *name)
{
    const char *dir = tmp_dir(&arena, dr_arena_printf(&arena, "%s-plain", name));
    hf_writer *w = NULL;
    hf_model *back = NULL;
    const hf_linear *l = NULL, *k = NULL;
    float x[4096], y[4096];

    if (!CHECK_OK(hf_writer_open(&w, dir, m, NULL)) || !CHECK_OK(hf_writer_finish(w)) ||
        !CHECK_OK(hf_model_open(&back, dir)))
        return;
    hf_writer_close(w);
    CHECK_EQ_INT(hf_tensor_count(back), 12);
    CHECK_EQ_INT(hf_model_quant(back).method, HF_QUANT_NONE);
    size_t n = hf_layer_linears(m, 0, &l);
    CHECK_EQ_INT(hf_layer_linears(back, 0, &k), n);
    for (size_t i = 0; i < n; i++) {
        CHECK_OK(hf_linear_read(m, &l[i], x, 0, l[i].n_out));
        CHECK_OK(hf_linear_read(back, &k[i], y, 0, l[i].n_out));
        for (size_t e = 0; e < l[i].n_out * l[i].n_in; e++)
            x[e] = dr_bf16_to_f32(dr_f32_to_bf16(x[e]));
        CHECK_MEM(x, y, l[i].n_out * l[i].n_in * sizeof(float));
    }
    hf_model_close(back);
}

/* Of ct_mixed: v_proj plain, down_proj in 8 bits with zero points (the base), the others in
 * 4 without. */
static void plain_formats(hf_writer *w, const hf_model *m, const hf_quant *base)
{
    hf_quant four = *base;
    const hf_linear *l = NULL;
    size_t n = hf_layer_linears(m, 0, &l);

    four.bits = 4;
    four.symmetric = true;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(l[i].leaf, "v_proj") == 0)
            CHECK_OK(hf_writer_format(w, &l[i], NULL));
        else if (strcmp(l[i].leaf, "down_proj") != 0)
            CHECK_OK(hf_writer_format(w, &l[i], &four));
    }
}

static void test_golden(const format *f)
{
    hf_model *m = NULL, *want = open_expected(f->name);

    if (want == NULL ||
        !CHECK_OK(hf_model_open(&m, dr_path_join(&arena, FORMATS, f->name))))
        return;
    hf_quant q = hf_model_quant(m);
    CHECK_EQ_INT(q.method, f->method);
    CHECK_EQ_INT(q.bits, f->bits);
    CHECK_EQ_INT(q.group, f->group);
    CHECK_EQ_INT(q.symmetric, f->symmetric);
    CHECK_EQ_INT(hf_unordered_linears(m), f->unordered);
    CHECK_STR(hf_model_origin(m), f->origin);
    check_linears(m, want, f->packed);
    check_written(m, f->name);
    hf_model_close(m);
    hf_model_close(want);
}

/* Packed as it is in the file: the codes go into another format unchanged, and into their
 * own as the very bytes that compressed-tensors' package packed. */
static void test_convert(const char *name, int packed)
{
    hf_model *m = NULL, *want = open_expected(name);

    if (!CHECK_OK(hf_model_open(&m, dr_path_join(&arena, FORMATS, name))))
        return;
    for (int k = 0; k < 2; k++) {
        hf_quant to = hf_model_quant(m);
        const char *dir = tmp_dir(&arena, "converted");
        hf_model *back = NULL;
        hf_writer *w = NULL;
        to.method = k == 0 ? HF_QUANT_OLIVE : HF_QUANT_COMPRESSED;
        CHECK_OK(hf_writer_open(&w, dir, m, &to));
        if (packed != 7)
            plain_formats(w, m, &to);
        CHECK_OK(hf_writer_finish(w));
        hf_writer_close(w);
        if (CHECK_OK(hf_model_open(&back, dir)))
            check_linears(back, want, packed);
        for (size_t i = 0; k == 1 && back != NULL && i < hf_tensor_count(m); i++) {
            const dr_tensor *t = hf_tensor_at(m, i), *b = hf_tensor_find(back, t->name);
            if (strstr(t->name, "_scale") != NULL) /* bf16 there */
                continue;
            CHECK(b != NULL && b->dtype == t->dtype && b->dims[0] == t->dims[0] &&
                  CHECK_MEM(b->data, t->data, t->bytes));
        }
        hf_model_close(back);
    }
    hf_model_close(m);
    hf_model_close(want);
}

/* ---- refusals ---- */

/* A copy of a golden whose config.json has `from` replaced. */
static const char *with_config(const char *name, const char *from, const char *to)
{
    const char *dir = tmp_dir(&arena, "wrong"), *src = dr_path_join(&arena, FORMATS, name);
    dr_buf b, out;

    dr_buf_init(&b, 1 << 20);
    dr_buf_init(&out, 1 << 20);
    CHECK_OK(dr_copy_file(dr_path_join(&arena, dir, "model.safetensors"),
                          dr_path_join(&arena, src, "model.safetensors")));
    CHECK_OK(dr_read_file(&b, dr_path_join(&arena, src, "config.json")));
    const char *at = strstr(b.data, from);
    if (CHECK(at != NULL))
        CHECK_OK(dr_buf_addf(&out, "%.*s%s%s", (int)(at - b.data), b.data, to,
                             at + strlen(from)));
    CHECK_OK(dr_write_file(dr_path_join(&arena, dir, "config.json"), out.data, out.len));
    dr_buf_release(&b);
    dr_buf_release(&out);
    return dir;
}

static void check_refused(const char *dir, dr_status st, const char *text)
{
    hf_model *m = NULL;

    if (!CHECK_STATUS(hf_model_open(&m, dir), st) || !CHECK_TRAIL(text))
        (void)printf("  wanted: %s\n", text);
    hf_model_close(m);
}

static void test_configs(void)
{
    static const struct {
        const char *name, *from, *to;
        dr_status st;
        const char *text;
    } cases[] = {
        {"ct_group", "\"pack-quantized\"", "\"int-quantized\"", DR_EUNSUPPORTED,
         "format \"int-quantized\" of compressed-tensors is not supported"},
        {"ct_group", "\"format\": \"pack-quantized\"", "\"format\": \"float-quantized\"",
         DR_EUNSUPPORTED, "format \"float-quantized\""},
        {"ct_group", "\"input_activations\": null",
         "\"input_activations\": {\"num_bits\": 8}", DR_EUNSUPPORTED,
         "quantized activations are not supported"},
        {"ct_group", "\"type\": \"int\"", "\"type\": \"float\"", DR_EUNSUPPORTED,
         "weights of type float"},
        {"ct_group", "\"strategy\": \"group\"", "\"strategy\": \"tensor\"", DR_EUNSUPPORTED,
         "strategy \"tensor\""},
        {"ct_group", "\"num_bits\": 4", "\"num_bits\": 3", DR_EUNSUPPORTED, "3 bits"},
        {"ct_group", "\"num_bits\": 4", "\"num_bits\": 8", DR_EFORMAT,
         "weight_packed: expected"},
        {"ct_group", "\"kv_cache_scheme\": null", "\"kv_cache_scheme\": {\"num_bits\": 8}",
         DR_EUNSUPPORTED, "kv_cache_scheme"},
        {"ct_group", "\"kv_cache_scheme\": null",
         "\"transform_config\": {\"config_groups\": {}}", DR_EUNSUPPORTED,
         "transform_config"},
        {"ct_group", "\"kv_cache_scheme\": null",
         "\"sparsity_config\": {\"format\": \"sparse-24\"}", DR_EUNSUPPORTED,
         "sparsity_config: format sparse-24"},
        {"ct_group", "\"Linear\"", "\"re:.*up_proj$\"", DR_EFORMAT,
         "none is for model.layers.0."},
        {"ct_group", "\"Linear\"", "\"re:(\"", DR_EFORMAT, "config_groups: group_0"},
        {"ct_group", "\"Linear\"", "7", DR_EFORMAT, "targets: expected text"},
        {"ct_group", "\"symmetric\": true", "\"symmetric\": false", DR_EFORMAT,
         "weight_zero_point is missing"},
        {"nf4", "\"load_in_4bit\": true,\n", "\"load_in_4bit\": false,\n", DR_EUNSUPPORTED,
         "bitsandbytes with 8 bits"},
        {"nf4", "\"bitsandbytes\"", "\"fp8\"", DR_EUNSUPPORTED, "quant_method fp8"},
        {"nf4", "\"bitsandbytes\"", "\"hqq\"", DR_EUNSUPPORTED, "quant_method hqq"},
    };

    for (size_t i = 0; i < DR_COUNT(cases); i++)
        check_refused(with_config(cases[i].name, cases[i].from, cases[i].to), cases[i].st,
                      cases[i].text);
}

/* A copy of a golden in which one tensor (its name ends so) is left out or changed. */
static const char *with_tensor(const char *name, const char *end, const void *data,
                               size_t bytes)
{
    const char *dir = tmp_dir(&arena, "wrong"), *src = dr_path_join(&arena, FORMATS, name);
    hf_model *m = NULL;
    dr_tensor list[128];
    size_t n = 0, hits = 0;

    if (!CHECK_OK(hf_model_open(&m, src)))
        return dir;
    for (size_t i = 0; i < hf_tensor_count(m); i++) {
        dr_tensor t = *hf_tensor_at(m, i);
        size_t len = strlen(t.name), k = strlen(end);
        bool hit = hits == 0 && len > k && strcmp(t.name + len - k, end) == 0;
        hits += hit;
        if (hit && data == NULL)
            continue;
        if (hit) {
            t.data = data;
            t.bytes = bytes;
            t.ndim = 1;
            t.dims[0] = (int64_t)(bytes / dr_dtype_bytes(t.dtype));
        }
        list[n++] = t;
    }
    CHECK_EQ_INT(hits, 1);
    CHECK_OK(hf_st_write(dr_path_join(&arena, dir, "model.safetensors"), list, n));
    CHECK_OK(dr_copy_file(dr_path_join(&arena, dir, "config.json"),
                          dr_path_join(&arena, src, "config.json")));
    hf_model_close(m);
    return dir;
}

static void test_tensors(void)
{
    static const char state[] = "down_proj.weight.quant_state.bitsandbytes__nf4";
    static const char *const states[] = {
        "{\"blocksize\": 64}",
        "{\"shape\": [32, 48], \"blocksize\": 48}",
        "{\"shape\": [32, 48], \"blocksize\": 0}",
        "{\"shape\": [48, 32], \"blocksize\": 64}",
        "{\"shape\": [32, 48], \"blocksize\": 128}",
        "[",
    };
    static const char *const words[] = {
        "shape: expected [32, 48]", "blocksize: 48 is out", "blocksize: 0 is out",
        "shape: expected [32, 48]", "absmax: expected 12",  "not JSON",
    };
    static const float few[15];
    static const int64_t shape[2] = {32, 47};
    static const int32_t far[48] = {[47] = 3};

    for (size_t i = 0; i < DR_COUNT(states); i++)
        check_refused(with_tensor("nf4", state, states[i], strlen(states[i])), DR_EFORMAT,
                      words[i]);
    check_refused(with_tensor("nf4", "down_proj.weight.absmax", NULL, 0), DR_EFORMAT,
                  "down_proj.weight.absmax is missing");
    check_refused(with_tensor("nf4", "down_proj.weight.quant_map", few, sizeof(few)),
                  DR_EFORMAT, "quant_map: expected 16");
    check_refused(with_tensor("nf4", "down_proj.weight", few, 15), DR_EFORMAT,
                  "expected 768 bytes, found 15");
    check_refused(with_tensor("nf4", state, NULL, 0), DR_EFORMAT,
                  "down_proj.weight: expected [32, 48]");
    check_refused(with_tensor("nf4_double", "down_proj.weight.nested_quant_map", few, 60),
                  DR_EFORMAT, "nested_quant_map: expected 256");
    check_refused(with_tensor("ct_group", "down_proj.weight_shape", shape, 16), DR_EFORMAT,
                  "expected [32, 48] in I64, found [32, 47]");
    check_refused(with_tensor("ct_group", "down_proj.weight_scale", NULL, 0), DR_EFORMAT,
                  "down_proj.weight_scale is missing");
    check_refused(with_tensor("gptq_act", "down_proj.g_idx", far, sizeof(far)), DR_EFORMAT,
                  "input 47 is in group 3 of 3");
}

int main(void)
{
    for (size_t i = 0; i < DR_COUNT(formats); i++)
        test_golden(&formats[i]);
    test_convert("ct_zeros", 7);
    test_convert("ct_group", 7);
    test_convert("ct_channel", 7);
    test_convert("ct_mixed", 6);
    test_configs();
    test_tensors();
    dr_arena_release(&arena);
    return check_done();
}
