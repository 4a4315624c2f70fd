/* writer_test.c - model folders written: the same again, changed, in shards, converted. */
#include "make_model.h"

#include <signal.h>
#include <sys/resource.h>

static dr_arena arena;

static const char qwen_config[] =
    "{\"architectures\": [\"Qwen2ForCausalLM\"], \"model_type\": \"qwen2\", "
    "\"auto_map\": {\"AutoConfig\": \"x.py\"}, \"unknown_key\": [1, {\"a\": null}], "
    "\"hidden_size\": 32, \"intermediate_size\": 48, \"num_hidden_layers\": 2, "
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": 20}";

static hf_model *open_in(const char *dir)
{
    hf_model *m = NULL;

    CHECK_OK(hf_model_open(&m, dir));
    return m;
}

static bool same_file(const char *dir, const char *other, const char *name)
{
    dr_map a = {0}, b = {0};
    bool same = CHECK_OK(dr_map_open(&a, dr_path_join(&arena, dir, name))) &&
                CHECK_OK(dr_map_open(&b, dr_path_join(&arena, other, name))) &&
                CHECK_EQ_INT(a.size, b.size) && CHECK_MEM(a.data, b.data, a.size);

    dr_map_close(&a);
    dr_map_close(&b);
    return same;
}

/* Nothing given: every tensor, every key and every side file comes over. */
static void test_copy(void)
{
    const char *src = make_model(&arena, "src", qwen_config, DR_DTYPE_BF16);
    const char *dst = tmp_dir(&arena, "copy");
    hf_writer *w = NULL;

    put_text(&arena, src, "tokenizer.json", "{\"model\": {}}\n");
    put_text(&arena, src, "chat_template.jinja", "{{ x }}");
    put_text(&arena, src, "generation_config.json", "{\"eos_token_id\":  3}");
    put_text(&arena, src, "modeling_x.py", "import os");
    hf_model *m = open_in(src);
    if (m == NULL || !CHECK_OK(hf_writer_open(&w, dst, m, NULL)))
        return;
    CHECK_OK(hf_writer_finish(w));
    hf_writer_close(w);
    CHECK(same_file(src, dst, "model.safetensors"));
    CHECK(same_file(src, dst, "tokenizer.json"));
    CHECK(same_file(src, dst, "chat_template.jinja"));
    CHECK(same_file(src, dst, "generation_config.json"));
    CHECK(!dr_exists(dr_path_join(&arena, dst, "modeling_x.py")));
    hf_model *back = open_in(dst);
    if (back != NULL) {
        const json_t *c = hf_model_config_json(back);
        CHECK(json_object_get(c, "auto_map") == NULL);
        CHECK(json_equal(json_object_get(c, "unknown_key"),
                         json_object_get(hf_model_config_json(m), "unknown_key")));
        CHECK(json_object_get(c, "quantization_config") == NULL);
    }
    json_t *tok = NULL, *tok_config = NULL;
    CHECK_OK(hf_model_tokenizer(m, &tok, &tok_config));
    CHECK(json_is_object(json_object_get(tok, "model")));
    CHECK_STR(json_string_value(json_object_get(tok_config, "chat_template")), "{{ x }}");
    json_decref(tok);
    json_decref(tok_config);
    hf_model_close(back);
    hf_model_close(m);
}

/* What is given replaces the source's, at its place, in the source's type. */
static void test_change(void)
{
    hf_model *m = open_in(make_model(&arena, "change", qwen_config, DR_DTYPE_BF16));
    const hf_linear *l = NULL, *k = NULL;
    hf_writer *w = NULL;
    float rows[48 * 32], got[48 * 32], v[32], is[32];

    if (m == NULL || !CHECK_OK(hf_writer_open(&w, tmp_dir(&arena, "changed"), m, NULL)))
        return;
    for (size_t i = 0; i < DR_COUNT(rows); i++)
        rows[i] = (float)i / 8;
    for (size_t i = 0; i < DR_COUNT(v); i++)
        v[i] = -(float)i;
    (void)hf_layer_linears(m, 1, &l);
    CHECK_OK(hf_writer_norm(w, HF_NORM_FINAL, 0, v));
    CHECK_OK(hf_writer_linear(w, &l[4], rows));
    CHECK_OK(hf_writer_norm(w, HF_NORM_MLP, 0, v));
    CHECK_OK(hf_writer_bias(w, &l[0], v));
    CHECK_OK(hf_writer_linear(w, hf_head_linear(m), rows));
    CHECK_STATUS(hf_writer_norm(w, HF_NORM_MLP, 0, v), DR_EUSAGE);
    CHECK_TRAIL("model.layers.0.post_attention_layernorm.weight was written already");
    CHECK_STATUS(hf_writer_linear(w, &l[4], rows), DR_EUSAGE);
    CHECK_STATUS(hf_writer_bias(w, &l[3], v), DR_EUSAGE);
    CHECK_TRAIL("has no bias");
    dr_qtensor q = {.bits = 4, .block = 32, .rows = 48, .cols = 32};
    CHECK_STATUS(hf_writer_packed(w, &l[5], &q), DR_EUSAGE);
    CHECK_TRAIL("to be written plain");
    CHECK_OK(hf_writer_finish(w));
    hf_writer_close(w);
    hf_model *back = open_in(tmp_dir(&arena, "changed"));
    if (back == NULL)
        return;
    CHECK_EQ_INT(hf_tensor_count(back), hf_tensor_count(m));
    for (size_t i = 0; i < hf_tensor_count(m); i++) {
        const dr_tensor *a = hf_tensor_at(m, i), *b = hf_tensor_at(back, i);
        CHECK_STR(b->name, a->name);
        CHECK(a->dtype == b->dtype && a->bytes == b->bytes);
    }
    (void)hf_layer_linears(back, 1, &k);
    CHECK_OK(hf_linear_read(back, &k[4], got, 0, 48));
    for (size_t i = 0; i < DR_COUNT(rows); i++)
        rows[i] = dr_bf16_to_f32(dr_f32_to_bf16(rows[i]));
    CHECK_MEM(got, rows, sizeof(rows));
    CHECK_OK(hf_linear_read(back, hf_head_linear(back), got, 0, 20));
    CHECK_MEM(got, rows, 20 * 32 * sizeof(float));
    CHECK_OK(hf_linear_bias(back, &k[0], is));
    CHECK_MEM(is, v, sizeof(v));
    CHECK_OK(hf_norm_read(back, HF_NORM_FINAL, 0, is));
    CHECK_MEM(is, v, sizeof(v));
    CHECK_OK(hf_norm_read(back, HF_NORM_MLP, 0, is));
    CHECK_MEM(is, v, sizeof(v));
    CHECK_OK(hf_norm_read(back, HF_NORM_MLP, 1, is));
    CHECK_OK(hf_norm_read(m, HF_NORM_MLP, 1, v));
    CHECK_MEM(is, v, sizeof(v));
    hf_model_close(back);
    hf_model_close(m);
}

/* A head that is only the embedding again is not written. */
static void test_spare_head(void)
{
    const char *dir = tmp_dir(&arena, "spare"), *out = dr_path_join(&arena, dir, "out");
    hf_model *m = NULL, *x = NULL, *y = NULL;
    dr_tensor list[64];
    size_t n = 0;

    if (!CHECK_OK(hf_model_open(&m, GOLDEN "qwen2")))
        return;
    for (; n < hf_tensor_count(m) && n + 1 < DR_COUNT(list); n++)
        list[n] = *hf_tensor_at(m, n);
    list[n] = *hf_tensor_find(m, "model.embed_tokens.weight");
    list[n++].name = "lm_head.weight";
    CHECK_OK(hf_st_write(dr_path_join(&arena, dir, "model.safetensors"), list, n));
    CHECK_OK(
        dr_copy_file(dr_path_join(&arena, dir, "config.json"), GOLDEN "qwen2/config.json"));
    hf_writer *w = NULL;
    if (CHECK_OK(hf_model_open(&x, dir)) && CHECK_OK(hf_writer_open(&w, out, x, NULL)) &&
        CHECK_OK(hf_writer_finish(w)) && CHECK_OK(hf_model_open(&y, out))) {
        CHECK(hf_tensor_find(x, "lm_head.weight") != NULL);
        CHECK(hf_tensor_find(y, "lm_head.weight") == NULL);
        CHECK_EQ_INT(hf_tensor_count(y), n - 1);
        check_same_values(m, y);
    }
    hf_writer_close(w);
    hf_model_close(m);
    hf_model_close(x);
    hf_model_close(y);
}

static void test_shards(void)
{
    const char *dir = tmp_dir(&arena, "shards");
    hf_model *m = open_in(GOLDEN "phi3");
    hf_writer *w = NULL;
    json_t *index = NULL;

    if (m == NULL || !CHECK_OK(hf_writer_open(&w, dir, m, NULL)))
        return;
    hf_writer_shard_bytes(w, 2000);
    CHECK_OK(hf_writer_finish(w));
    hf_writer_close(w);
    CHECK(!dr_exists(dr_path_join(&arena, dir, "model.safetensors")));
    CHECK_OK(
        dr_json_read(&index, dr_path_join(&arena, dir, "model.safetensors.index.json")));
    CHECK_EQ_INT(json_integer_value(
                     json_object_get(json_object_get(index, "metadata"), "total_size")),
                 hf_model_weight_bytes(m));
    json_decref(index);
    hf_model *back = open_in(dir);
    if (back != NULL)
        check_same_values(m, back);
    hf_model_close(back);
    hf_model_close(m);
}

/* A packed source, written plain, in its own format, and in the others. */
static void test_convert(const char *name)
{
    static const hf_quant formats[] = {
        {HF_QUANT_NONE, 0, 0, false},        {HF_QUANT_AWQ, 4, 16, false},
        {HF_QUANT_GPTQ, 4, 16, false},       {HF_QUANT_OLIVE, 4, 16, false},
        {HF_QUANT_COMPRESSED, 4, 16, false},
    };
    const char *src = dr_arena_printf(&arena, GOLDEN "%s", name);
    hf_model *m = open_in(src);

    for (size_t i = 0; m != NULL && i < DR_COUNT(formats); i++) {
        const char *dir = tmp_dir(&arena, "convert");
        hf_writer *w = NULL;
        CHECK_OK(hf_writer_open(&w, dir, m, &formats[i]));
        CHECK_OK(hf_writer_finish(w));
        hf_writer_close(w);
        hf_model *back = open_in(dir);
        if (back == NULL)
            continue;
        hf_quant q = hf_model_quant(back);
        CHECK_EQ_INT(q.method, formats[i].method);
        /* Plain ones are rounded to the model's float16. */
        if (q.method != HF_QUANT_NONE)
            check_same_values(m, back);
        if (q.method == hf_model_quant(m).method && strcmp(name, "gptq_v2") != 0)
            for (size_t k = 0; k < hf_tensor_count(m); k++) {
                const dr_tensor *t = hf_tensor_at(m, k);
                const dr_tensor *b = hf_tensor_find(back, t->name);
                CHECK(b != NULL && b->dtype == t->dtype &&
                      CHECK_MEM(b->data, t->data, t->bytes));
            }
        hf_model_close(back);
    }
    hf_model_close(m);
}

static void test_config(void)
{
    static const struct {
        hf_quant q;
        const char *key;
        json_type type;
    } cases[] = {
        {{HF_QUANT_AWQ, 4, 16, false}, "modules_to_not_convert", JSON_NULL},
        {{HF_QUANT_AWQ, 4, 16, true}, "version", JSON_STRING},
        {{HF_QUANT_AWQ, 4, 16, false}, "zero_point", JSON_TRUE},
        {{HF_QUANT_GPTQ, 4, 16, false}, "desc_act", JSON_FALSE},
        {{HF_QUANT_GPTQ, 4, 16, true}, "sym", JSON_TRUE},
        {{HF_QUANT_GPTQ, 4, 16, true}, "checkpoint_format", JSON_STRING},
        {{HF_QUANT_OLIVE, 4, 16, true}, "overrides", JSON_NULL},
        {{HF_QUANT_OLIVE, 4, 16, true}, "symmetric", JSON_TRUE},
        {{HF_QUANT_COMPRESSED, 4, 16, true}, "config_groups", JSON_OBJECT},
        {{HF_QUANT_COMPRESSED, 4, 16, true}, "ignore", JSON_ARRAY},
        {{HF_QUANT_COMPRESSED, 4, 16, true}, "format", JSON_STRING},
    };
    hf_model *m = open_in(GOLDEN "packed_f32");
    const hf_linear *l = NULL;

    for (size_t i = 0; m != NULL && i < DR_COUNT(cases); i++) {
        const char *dir = tmp_dir(&arena, "config");
        hf_writer *w = NULL;
        size_t n = hf_layer_linears(m, 0, &l);
        CHECK_OK(hf_writer_open(&w, dir, m, &cases[i].q));
        for (size_t k = 0; k < n; k++) {
            dr_qtensor q = {0};
            CHECK_OK(
                dr_qtensor_new(&q, 4, 16, l[k].n_out, l[k].n_in, cases[i].q.symmetric));
            CHECK_OK(hf_writer_packed(w, &l[k], &q));
            dr_qtensor_release(&q);
        }
        CHECK_OK(hf_writer_finish(w));
        hf_writer_close(w);
        hf_model *back = open_in(dir);
        const json_t *o =
            back ? json_object_get(hf_model_config_json(back), "quantization_config")
                 : NULL;
        const json_t *v = json_object_get(o, cases[i].key);
        CHECK(v != NULL && json_typeof(v) == cases[i].type);
        if (cases[i].q.method != HF_QUANT_COMPRESSED)
            CHECK_EQ_INT(json_integer_value(json_object_get(o, "group_size")), 16);
        hf_model_close(back);
    }
    hf_model_close(m);
}

static void test_model_config(void)
{
    const char *dir = tmp_dir(&arena, "olive");
    const char *path = dr_path_join(&arena, dir, "model_config.json");
    json_t *o = NULL;

    CHECK_OK(hf_write_model_config(dir, "model", NULL));
    CHECK_OK(dr_json_read(&o, path));
    CHECK_STR(json_string_value(json_object_get(o, "type")), "HfModel");
    const json_t *c = json_object_get(o, "config");
    CHECK_STR(json_string_value(json_object_get(c, "model_path")), "model");
    CHECK_STR(json_string_value(json_object_get(c, "task")), "text-generation-with-past");
    CHECK(json_object_get(c, "adapter_path") == NULL);
    json_decref(o);
    CHECK_OK(hf_write_model_config(dir, "org/name", "adapter"));
    CHECK_OK(dr_json_read(&o, path));
    c = json_object_get(o, "config");
    CHECK_STR(json_string_value(json_object_get(c, "adapter_path")), "adapter");
    json_decref(o);
}

/* Written by threads of the writer's: the same file, and their error comes back. */
static void test_behind(void)
{
    const hf_quant quant = {HF_QUANT_OLIVE, 4, 16, false};
    hf_model *m = open_in(GOLDEN "packed_f32");
    const char *dirs[] = {tmp_dir(&arena, "here"), tmp_dir(&arena, "behind"),
                          tmp_dir(&arena, "full")};
    const hf_linear *l = NULL;
    dr_map files[2] = {{0}};
    struct rlimit was;

    CHECK_EQ_INT(getrlimit(RLIMIT_FSIZE, &was), 0);
    (void)signal(SIGXFSZ, SIG_IGN);
    for (int i = 0; m != NULL && i < 3; i++) {
        const struct rlimit little = {4096, was.rlim_max};
        hf_writer *w = NULL;
        dr_status st = DR_OK;
        CHECK_OK(hf_writer_open(&w, dirs[i], m, &quant));
        if (i > 0)
            CHECK_OK(hf_writer_behind(w, 3));
        for (int twice = 0; i == 1 && twice < 2; twice++) /* the second does nothing */
            CHECK_OK(hf_writer_stays(w, hf_embed_linear(m)));
        size_t n = hf_layer_linears(m, 0, &l);
        for (size_t k = 0; k < n && st == DR_OK; k++) {
            dr_qtensor q = {0};
            const hf_linear one = l[k], *const list[] = {&l[k]};
            CHECK_OK(dr_qtensor_new(&q, 4, 16, one.row0 + one.n_out, one.n_in, false));
            for (size_t c = 0; c < q.rows * q.cols; c++)
                dr_qtensor_set_code(&q, c / q.cols, c % q.cols, (int)((c + k) % 16));
            if (i == 2 && k == 1) /* the file is begun, and may not grow */
                CHECK_EQ_INT(setrlimit(RLIMIT_FSIZE, &little), 0);
            st = hf_writer_rows(w, list, 1, &q);
            CHECK(q.codes == NULL);
        }
        if (st == DR_OK)
            st = hf_writer_finish(w);
        CHECK_EQ_INT(setrlimit(RLIMIT_FSIZE, &was), 0);
        CHECK_EQ_INT(st, i == 2 ? DR_EIO : DR_OK);
        hf_writer_close(w);
        if (i < 2)
            CHECK_OK(
                dr_map_open(&files[i], dr_path_join(&arena, dirs[i], "model.safetensors")));
    }
    CHECK(files[0].size == files[1].size &&
          CHECK_MEM(files[0].data, files[1].data, files[0].size));
    dr_trail_clear();
    dr_map_close(&files[0]);
    dr_map_close(&files[1]);
    hf_model_close(m);
}

/* A writer that ends in the middle, and one that goes on in its files. */
static void test_resume(void)
{
    hf_model *m = open_in(make_model(&arena, "killed", qwen_config, DR_DTYPE_BF16));
    const char *keep = tmp_dir(&arena, "keep"), *shard = NULL;
    const char *dst = tmp_dir(&arena, "gone_on"), *whole = tmp_dir(&arena, "undisturbed");
    const hf_linear *l = NULL;
    float rows[48 * 32];
    char **names = NULL;
    size_t count = 0;
    dr_buf state;
    bool taken = false;

    dr_buf_init(&state, 1 << 20);
    for (size_t i = 0; i < DR_COUNT(rows); i++)
        rows[i] = (float)i / 8;
    if (m == NULL)
        return;
    /* 0: undisturbed; 1: killed; 2, 3: weights changed behind the state; 4: gone on */
    for (int run = 0; run < 5; run++) {
        hf_writer *w = NULL;
        if (!CHECK_OK(hf_writer_open(&w, run == 0 ? whole : dst, m, NULL)))
            return;
        hf_writer_shard_bytes(w, 20000);
        (void)hf_layer_linears(m, 0, &l);
        if (run > 0)
            hf_writer_keep(w, keep);
        if (run > 1) {
            CHECK_OK(hf_writer_resume(w, &taken, state.data, state.len));
            CHECK_EQ_INT(taken, run == 4);
        }
        if (!taken) {
            CHECK_OK(hf_writer_linear(w, &l[4], rows));
            CHECK_OK(hf_writer_linear(w, &l[5], rows));
        } else {
            CHECK_STATUS(hf_writer_linear(w, &l[5], rows), DR_EUSAGE);
        }
        if (run > 0 && run < 4) {
            dr_buf_reset(&state);
            CHECK_OK(hf_writer_save(w, &state));
        }
        (void)hf_layer_linears(m, 1, &l);
        CHECK_OK(hf_writer_linear(w, &l[4], rows)); /* the state has not heard of it */
        if (run == 0 || run == 4)
            CHECK_OK(hf_writer_finish(w));
        hf_writer_close(w);
        if (run == 1 || run == 2) { /* a byte of a header; the last shard with data cut */
            CHECK_OK(dr_list_dir(&arena, keep, &names, &count));
            CHECK(count > 1);
            shard = dr_path_join(&arena, keep, names[run == 1 ? 0 : 1]);
            dr_map map = {0};
            CHECK_OK(dr_map_open(&map, shard));
            unsigned char *copy = malloc(map.size);
            size_t size = map.size;
            memcpy(copy, map.data, size);
            copy[20] ^= 1;
            dr_map_close(&map);
            CHECK_OK(dr_write_file(shard, copy, run == 1 ? size : 4));
            free(copy);
        }
        if (run == 3) { /* a second name may be somebody's own file: not written into */
            const char *name = dr_path_join(&arena, tmp_dir(&arena, "other"), "name");
            CHECK_OK(dr_place_file(name, shard, NULL));
            CHECK_OK(hf_writer_open(&w, dst, m, NULL));
            hf_writer_shard_bytes(w, 20000);
            hf_writer_keep(w, keep);
            CHECK_OK(hf_writer_resume(w, &taken, state.data, state.len));
            CHECK(!taken);
            (void)hf_layer_linears(m, 0, &l);
            CHECK_OK(hf_writer_linear(w, &l[4], rows));
            CHECK_OK(hf_writer_linear(w, &l[5], rows));
            dr_buf_reset(&state);
            CHECK_OK(hf_writer_save(w, &state));
            hf_writer_close(w);
        }
    }
    CHECK_OK(dr_list_dir(&arena, whole, &names, &count));
    CHECK(count > 3);
    for (size_t i = 0; i < count; i++)
        CHECK(same_file(whole, dst, names[i]));
    dr_buf_release(&state);
    hf_model_close(m);
}

int main(void)
{
    test_copy();
    test_change();
    test_spare_head();
    test_shards();
    test_resume();
    test_behind();
    test_convert("awq");
    test_convert("gptq");
    test_convert("gptq_v2");
    test_convert("olive");
    test_config();
    test_model_config();
    dr_arena_release(&arena);
    return check_done();
}
