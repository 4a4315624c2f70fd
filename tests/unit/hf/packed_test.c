/* packed_test.c - AWQ, GPTQ and Olive layouts: read against files packed in Python, written
 * and read back unchanged, refused when they cannot be. */
#include "core/log.h"
#include "make_model.h"

static dr_arena arena;
static dr_pool *pool;

static void test_golden(const char *name, hf_quant_method method)
{
    hf_model *x = NULL, *y = NULL;
    const hf_linear *l = NULL;
    float whole[4096], part[4096];

    if (!CHECK_OK(hf_model_open(&x, dr_arena_printf(&arena, GOLDEN "%s", name))) ||
        !CHECK_OK(hf_model_open(&y, GOLDEN "packed_f32")))
        return;
    hf_quant q = hf_model_quant(x);
    CHECK_EQ_INT(q.method, method);
    CHECK_EQ_INT(q.bits, 4);
    CHECK_EQ_INT(q.group, 16);
    CHECK(!q.symmetric);
    check_same_values(x, y);
    /* Any range of rows, whatever words they lie in. */
    size_t n = hf_layer_linears(x, 0, &l);
    for (size_t i = 0; i < n; i++) {
        CHECK(l[i].packed);
        CHECK_OK(hf_linear_read(x, &l[i], whole, 0, l[i].n_out));
        for (size_t row = 0; row < l[i].n_out; row += 5) {
            size_t count = l[i].n_out - row < 11 ? l[i].n_out - row : 11;
            CHECK_OK(hf_linear_read(x, &l[i], part, row, count));
            CHECK_MEM(part, whole + row * l[i].n_in, count * l[i].n_in * sizeof(float));
        }
    }
    CHECK(strstr(hf_model_origin(x), "4 bit group 16") != NULL);
    hf_model_close(x);
    hf_model_close(y);
}

/* ---- write and read back ---- */

/* Random codes, zero points and scales that F16 holds. */
static void fill(dr_qtensor *q, dr_rng *rng)
{
    size_t kb = dr_qtensor_blocks(q);
    unsigned top = (1u << q->bits) - 1;

    for (size_t r = 0; r < q->rows; r++) {
        for (size_t b = 0; b < kb; b++) {
            q->scales[r * kb + b] =
                dr_f16_to_f32(dr_f32_to_f16(dr_rng_uniform(rng) + 0.01f));
            if (q->zeros != NULL)
                dr_qtensor_set_zero(q, r, b, (int)(dr_rng_u32(rng) & top));
        }
        for (size_t k = 0; k < kb * (size_t)q->block; k++)
            dr_qtensor_set_code(q, r, k,
                                k < q->cols ? (int)(dr_rng_u32(rng) & top)
                                            : dr_qtensor_zero(q, r, kb - 1));
    }
}

static bool same_qtensor(const dr_qtensor *a, const dr_qtensor *b)
{
    return CHECK_EQ_INT(a->bits, b->bits) && CHECK_EQ_INT(a->block, b->block) &&
           CHECK_EQ_INT(a->rows, b->rows) && CHECK_EQ_INT(a->cols, b->cols) &&
           CHECK_MEM(a->codes, b->codes, a->rows * dr_qtensor_row_bytes(a)) &&
           CHECK_MEM(a->scales, b->scales,
                     a->rows * dr_qtensor_blocks(a) * sizeof(float)) &&
           CHECK((a->zeros == NULL) == (b->zeros == NULL)) &&
           (a->zeros == NULL ||
            CHECK_MEM(a->zeros, b->zeros, a->rows * dr_qtensor_zero_bytes(a)));
}

static const char plain_config[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", "
    "\"hidden_size\": 96, \"intermediate_size\": 160, \"num_hidden_layers\": 1, "
    "\"num_attention_heads\": 6, \"num_key_value_heads\": 2, \"vocab_size\": 10, "
    "\"dtype\": \"float16\"}";
static const char fused_config[] =
    "{\"architectures\": [\"Phi3ForCausalLM\"], \"model_type\": \"phi3\", "
    "\"hidden_size\": 64, \"intermediate_size\": 192, \"num_hidden_layers\": 1, "
    "\"num_attention_heads\": 2, \"vocab_size\": 10, \"dtype\": \"bfloat16\"}";

/* The block that reading gives for groups of g along k inputs. */
static int block_of(int g, size_t k)
{
    size_t span = g == -1 ? k : (size_t)g;
    int block = 256;

    while (block > 8 && span % (size_t)block != 0)
        block /= 2;
    return block;
}

static void write_and_read(const hf_model *m, const hf_quant *quant)
{
    const char *dir = tmp_dir(&arena, "out");
    const hf_linear *l = NULL, *k = NULL;
    dr_qtensor given[8] = {0};
    hf_writer *w = NULL;
    hf_model *back = NULL;
    dr_rng rng;

    dr_rng_init(&rng, 3, (uint64_t)quant->bits);
    size_t n = hf_layer_linears(m, 0, &l);
    if (!CHECK_OK(hf_writer_open(&w, dir, m, quant)))
        return;
    for (size_t i = n; i-- > 0;) { /* in any order */
        CHECK_OK(dr_qtensor_new(&given[i], quant->bits, block_of(quant->group, l[i].n_in),
                                l[i].n_out, l[i].n_in, quant->symmetric));
        fill(&given[i], &rng);
        for (size_t r = 0; quant->group == -1 && r < given[i].rows; r++) {
            for (size_t b = 1; b < dr_qtensor_blocks(&given[i]); b++) {
                size_t kb = dr_qtensor_blocks(&given[i]);
                given[i].scales[r * kb + b] = given[i].scales[r * kb];
                if (given[i].zeros != NULL)
                    dr_qtensor_set_zero(&given[i], r, b, dr_qtensor_zero(&given[i], r, 0));
            }
        }
        CHECK_OK(hf_writer_packed(w, &l[i], &given[i]));
    }
    CHECK_OK(hf_writer_finish(w));
    hf_writer_close(w);
    if (CHECK_OK(hf_model_open(&back, dir))) {
        hf_quant q = hf_model_quant(back);
        CHECK(q.method == quant->method && q.bits == quant->bits);
        CHECK(q.group == quant->group && q.symmetric == quant->symmetric);
        CHECK_EQ_INT(hf_layer_linears(back, 0, &k), n);
        for (size_t i = 0; i < n; i++) {
            dr_qtensor got = {0};
            CHECK_OK(hf_linear_packed(back, &k[i], &got, i % 2 == 0 ? pool : NULL));
            if (!same_qtensor(&got, &given[i]))
                (void)printf("  %s, method %d, %d bits, group %d\n", k[i].path,
                             (int)quant->method, quant->bits, quant->group);
            dr_qtensor_release(&got);
        }
    }
    for (size_t i = 0; i < n; i++)
        dr_qtensor_release(&given[i]);
    hf_model_close(back);
}

static void test_identity(const char *name, const char *config)
{
    static const int groups[] = {-1, 16, 32};
    hf_model *m = NULL;

    CHECK_OK(hf_model_open(&m, make_model(&arena, name, config, DR_DTYPE_F16)));
    if (m == NULL)
        return;
    for (int method = HF_QUANT_AWQ; method <= HF_QUANT_COMPRESSED; method++) {
        for (int bits = 2; bits <= 8; bits *= 2) {
            for (size_t g = 0; g < DR_COUNT(groups); g++) {
                hf_quant q = {(hf_quant_method)method, bits, groups[g], false};
                if (method == HF_QUANT_AWQ && bits != 4)
                    continue;
                write_and_read(m, &q);
                q.symmetric = true;
                write_and_read(m, &q);
            }
        }
    }
    hf_model_close(m);
}

/* ---- other blocks than groups ---- */

static void test_blocks(void)
{
    const hf_quant wide = {HF_QUANT_OLIVE, 4, 32, false};
    hf_model *m = NULL, *back = NULL;
    hf_writer *w = NULL;
    const hf_linear *l = NULL, *k = NULL;
    dr_qtensor q = {0}, got = {0};
    dr_rng rng;

    dr_rng_init(&rng, 5, 0);
    CHECK_OK(hf_model_open(&m, make_model(&arena, "plain", plain_config, DR_DTYPE_F16)));
    if (m == NULL)
        return;
    size_t n = hf_layer_linears(m, 0, &l);
    CHECK_OK(hf_writer_open(&w, tmp_dir(&arena, "blocks"), m, &wide));
    for (size_t i = 0; i < n;
         i++) { /* all but o_proj plain; o_proj alone has groups of 16 */
        const hf_quant narrow = {HF_QUANT_OLIVE, 8, 16, true};
        CHECK_OK(hf_writer_format(w, &l[i], l[i].slot == HF_SLOT_O ? &narrow : NULL));
    }
    CHECK_OK(dr_qtensor_new(&q, 8, 32, l[3].n_out, l[3].n_in, true));
    fill(&q, &rng);
    CHECK_OK(hf_writer_packed(w, &l[3], &q)); /* long blocks become two groups */
    CHECK_OK(hf_writer_finish(w));
    hf_writer_close(w);
    CHECK_OK(hf_model_open(&back, tmp_dir(&arena, "blocks")));
    if (back != NULL) {
        float want[96 * 96], is[96 * 96];
        (void)hf_layer_linears(back, 0, &k);
        CHECK(!k[0].packed && k[3].packed && !k[6].packed);
        CHECK_OK(hf_linear_packed(back, &k[3], &got, NULL));
        CHECK_EQ_INT(got.block, 16);
        CHECK_EQ_INT(got.bits, 8);
        CHECK(got.zeros == NULL);
        dr_qtensor_to_f32(want, &q, 0, 96);
        dr_qtensor_to_f32(is, &got, 0, 96);
        CHECK_MEM(is, want, sizeof(want));
    }
    dr_qtensor_release(&q);
    dr_qtensor_release(&got);
    hf_model_close(back);
    hf_model_close(m);
}

static void test_write_refused(void)
{
    const hf_quant awq = {HF_QUANT_AWQ, 4, 32, true};
    hf_quant bad = awq;
    hf_model *m = NULL;
    hf_writer *w = NULL;
    const hf_linear *l = NULL;
    dr_qtensor q = {0};
    const char *dir = tmp_dir(&arena, "bad");

    CHECK_OK(hf_model_open(&m, make_model(&arena, "plain", plain_config, DR_DTYPE_F16)));
    if (m == NULL)
        return;
    (void)hf_layer_linears(m, 0, &l);
    bad.bits = 8;
    CHECK_STATUS(hf_writer_open(&w, dir, m, &bad), DR_EUNSUPPORTED);
    CHECK_TRAIL("8 bits");
    bad = (hf_quant){HF_QUANT_GPTQ, 4, 64, true};
    CHECK_OK(hf_writer_open(&w, dir, m, &bad));
    CHECK_STATUS(hf_writer_finish(w), DR_EUNSUPPORTED);
    CHECK_TRAIL("96 inputs are not a multiple of the group size 64");
    hf_writer_close(w);

    CHECK_OK(hf_writer_open(&w, dir, m, &awq));
    CHECK_STATUS(hf_writer_format(w, &l[0], &(hf_quant){HF_QUANT_AWQ, 4, 16, true}),
                 DR_EUNSUPPORTED);
    CHECK_STATUS(hf_writer_format(w, &l[0], &bad), DR_EUSAGE);
    CHECK_OK(dr_qtensor_new(&q, 4, 16, l[0].n_out, l[0].n_in, true));
    for (size_t i = 0; i < q.rows * dr_qtensor_blocks(&q); i++)
        q.scales[i] = 1.0f;
    q.scales[7] = 2.0f;
    CHECK_STATUS(hf_writer_packed(w, &l[0], &q), DR_EUSAGE);
    CHECK_TRAIL("group of 32 differ in row 1");
    q.scales[7] = 1.0f;
    q.scales[0] = q.scales[1] = 1e6f;
    CHECK_STATUS(hf_writer_packed(w, &l[0], &q), DR_EUNSUPPORTED);
    CHECK_TRAIL("does not fit fp16");
    q.scales[0] = q.scales[1] = 1.0f;
    CHECK_STATUS(hf_writer_packed(w, &l[1], &q), DR_EUSAGE); /* sizes */
    CHECK_OK(hf_writer_packed(w, &l[0], &q));
    CHECK_STATUS(hf_writer_packed(w, &l[0], &q), DR_EUSAGE);
    CHECK_TRAIL("already");
    CHECK_STATUS(hf_writer_finish(w), DR_EUSAGE);
    CHECK_TRAIL("k_proj was not given");
    dr_qtensor_release(&q);
    CHECK_OK(dr_qtensor_new(&q, 4, 32, l[2].n_out, l[2].n_in, false));
    CHECK_STATUS(hf_writer_packed(w, &l[2], &q), DR_EUSAGE);
    CHECK_TRAIL("zero points");
    dr_qtensor_release(&q);
    hf_writer_close(w);
    hf_model_close(m);

    const char *odd = dr_arena_printf(&arena, "%.*s, \"head_dim\": 2}",
                                      (int)strlen(plain_config) - 1, plain_config);
    CHECK_OK(hf_model_open(&m, make_model(&arena, "odd", odd, DR_DTYPE_F16)));
    CHECK_OK(hf_writer_open(&w, dir, m, &(hf_quant){HF_QUANT_AWQ, 4, -1, true}));
    CHECK_STATUS(hf_writer_finish(w), DR_EUNSUPPORTED);
    CHECK_TRAIL("outputs are not a multiple of 8");
    hf_writer_close(w);
    hf_model_close(m);
}

/* ---- damaged checkpoints ---- */

/* A copy of a golden checkpoint with one file changed. */
static const char *copy_of(const char *name, const char *from, const char *to)
{
    const char *dir = tmp_dir(&arena, "damaged");
    const char *src = dr_arena_printf(&arena, GOLDEN "%s", name);
    dr_buf text;

    dr_buf_init(&text, 1 << 20);
    CHECK_OK(dr_copy_file(dr_path_join(&arena, dir, "model.safetensors"),
                          dr_path_join(&arena, src, "model.safetensors")));
    CHECK_OK(dr_read_file(&text, dr_path_join(&arena, src, "config.json")));
    const char *at = strstr(text.data, from);
    if (CHECK(at != NULL))
        put_text(&arena, dir, "config.json",
                 dr_arena_printf(&arena, "%.*s%s%s", (int)(at - text.data), text.data, to,
                                 at + strlen(from)));
    dr_buf_release(&text);
    return dir;
}

static void check_refused(const char *dir, dr_status st, const char *text)
{
    hf_model *m = NULL;

    CHECK_STATUS(hf_model_open(&m, dir), st);
    CHECK_TRAIL(text);
    hf_model_close(m);
}

static void test_read_refused(void)
{
    dr_map map = {0};
    const char *dir = copy_of("gptq", "\"bits\": 4", "\"bits\": 8");

    check_refused(dir, DR_EFORMAT, "qweight: expected [8, 32], found [4, 32]");
    check_refused(copy_of("awq", "\"group_size\": 16", "\"group_size\": 32"), DR_EFORMAT,
                  "scales: expected [1, 32], found [2, 32]");
    check_refused(copy_of("olive", "\"group_size\": 16", "\"group_size\": 64"), DR_EFORMAT,
                  "not a multiple of group_size 64");
    check_refused(copy_of("gptq", "\"quantization_config\"", "\"other\""), DR_EFORMAT,
                  "has no quantization_config");
    check_refused(
        copy_of("gptq", "\"quant_method\": \"gptq\"", "\"quant_method\": \"awq\""),
        DR_EFORMAT, "qweight: expected [32, 4]");

    /* A group index that is not in order: one of its numbers changed in the file. */
    dir = copy_of("gptq", "\"bits\"", "\"bits\"");
    const char *path = dr_path_join(&arena, dir, "model.safetensors");
    hf_model *m = NULL;
    if (CHECK_OK(hf_model_open(&m, dir)) && CHECK_OK(dr_map_open(&map, path))) {
        const dr_tensor *t = hf_tensor_find(m, "model.layers.0.mlp.up_proj.g_idx");
        unsigned char *bytes = malloc(map.size);
        /* The same file at another address: found by its place from the end. */
        size_t back = 0;
        for (size_t i = 0; i < hf_tensor_count(m); i++) {
            if (hf_tensor_at(m, i)->data >= t->data)
                back += hf_tensor_at(m, i)->bytes;
        }
        memcpy(bytes, map.data, map.size);
        bytes[map.size - back + 4] = 1; /* input 1 into group 1 */
        CHECK_OK(dr_write_file(path, bytes, map.size));
        free(bytes);
    }
    hf_model_close(m);
    dr_map_close(&map);
    m = NULL;
    if (CHECK_OK(hf_model_open(&m, dir))) { /* that linear alone is read as floats */
        const hf_linear *l = NULL;
        size_t n = hf_layer_linears(m, 0, &l);
        CHECK_EQ_INT(hf_unordered_linears(m), 1);
        for (size_t i = 0; i < n; i++)
            CHECK_EQ_INT(l[i].packed, strcmp(l[i].leaf, "up_proj") != 0);
    }
    hf_model_close(m);
}

/* Olive's newer names: weight_qweight and so on; overrides by name and by pattern. */
static void test_olive_names(void)
{
    static const char none[] = "\"overrides\": null";
    static const char wide[] = "\"overrides\": {\"re:.*_proj\": {\"bits\": 8}, "
                               "\"re:model\\\\.layers.*proj\": {\"bits\": 4}}";
    static const char narrow[] =
        "\"overrides\": {\"model.layers.0.mlp.up_proj\": {\"bits\": 8}}";
    const char *dir = copy_of("olive", none, none);
    hf_model *old = NULL, *m = NULL, *plain = NULL;
    dr_tensor t[64];
    size_t n = 0;

    if (!CHECK_OK(hf_model_open(&old, GOLDEN "olive")))
        return;
    for (; n < hf_tensor_count(old) && n < DR_COUNT(t); n++) {
        t[n] = *hf_tensor_at(old, n);
        const char *dot = strrchr(t[n].name, '.');
        if (strcmp(dot, ".weight") != 0)
            t[n].name = dr_arena_printf(&arena, "%.*s.weight_%s", (int)(dot - t[n].name),
                                        t[n].name, dot + 1);
    }
    CHECK_OK(hf_st_write(dr_path_join(&arena, dir, "model.safetensors"), t, n));
    if (CHECK_OK(hf_model_open(&m, dir)) &&
        CHECK_OK(hf_model_open(&plain, GOLDEN "packed_f32")))
        check_same_values(m, plain);
    hf_model_close(plain);
    hf_model_close(m);
    hf_model_close(old);

    /* The longer pattern wins; a setting that is not the file's shows in the shape. */
    dir = copy_of("olive", none, wide);
    m = NULL;
    CHECK_OK(hf_model_open(&m, dir));
    hf_model_close(m);
    check_refused(copy_of("olive", none, narrow), DR_EFORMAT,
                  "up_proj.qweight: expected [48, 32], found [48, 16]");
}

/* GPTQ's dynamic. */
static void test_overrides(void)
{
    const hf_quant base = {HF_QUANT_GPTQ, 4, 16, true};
    const hf_quant other = {HF_QUANT_GPTQ, 8, 32, true};
    hf_model *m = NULL, *back = NULL;
    hf_writer *w = NULL;
    const hf_linear *l = NULL;
    dr_qtensor q = {0};
    dr_rng rng;

    dr_rng_init(&rng, 6, 0);
    CHECK_OK(hf_model_open(&m, make_model(&arena, "plain", plain_config, DR_DTYPE_F16)));
    if (m == NULL)
        return;
    size_t n = hf_layer_linears(m, 0, &l);
    CHECK_OK(hf_writer_open(&w, tmp_dir(&arena, "dynamic"), m, &base));
    CHECK_OK(hf_writer_format(w, &l[1], NULL));
    CHECK_OK(hf_writer_format(w, &l[6], &other));
    CHECK_OK(hf_writer_format(w, hf_head_linear(m), NULL));
    for (size_t i = 0; i < n; i++) {
        const hf_quant *f = i == 6 ? &other : &base;
        if (i == 1)
            continue;
        CHECK_OK(dr_qtensor_new(&q, f->bits, f->group, l[i].n_out, l[i].n_in, true));
        fill(&q, &rng);
        CHECK_OK(hf_writer_packed(w, &l[i], &q));
        dr_qtensor_release(&q);
    }
    CHECK_OK(hf_writer_finish(w));
    hf_writer_close(w);
    CHECK_OK(hf_model_open(&back, tmp_dir(&arena, "dynamic")));
    if (back != NULL) {
        CHECK_EQ_INT(hf_layer_linears(back, 0, &l), n);
        CHECK(!l[1].packed && l[6].packed);
        CHECK_OK(hf_linear_packed(back, &l[6], &q, NULL));
        CHECK(q.bits == 8 && q.block == 32);
        dr_qtensor_release(&q);
        const json_t *list = dr_json_get(
            dr_json_get(hf_model_config_json(back), "quantization_config"), "dynamic");
        CHECK(json_object_get(list, "-:^model\\.layers\\.0\\.self_attn\\.k_proj$") != NULL);
        CHECK_EQ_INT(json_object_size(list), 2);
    }
    hf_model_close(back);
    hf_model_close(m);
}

/* A model of millions of weights takes tens of milliseconds. */
static void test_speed(void)
{
    const char *config =
        "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", "
        "\"hidden_size\": 1024, \"intermediate_size\": 2816, \"num_hidden_layers\": 1, "
        "\"num_attention_heads\": 16, \"vocab_size\": 10}";
    hf_model *m = NULL, *back = NULL;
    const hf_linear *l = NULL;
    size_t weights = 0;

    CHECK_OK(hf_model_open(&m, make_model(&arena, "big", config, DR_DTYPE_F16)));
    for (int method = HF_QUANT_AWQ; m != NULL && method <= HF_QUANT_COMPRESSED; method++) {
        const hf_quant quant = {(hf_quant_method)method, 4, 128, false};
        hf_writer *w = NULL;
        double pack_s = 0, unpack_s = 0;
        CHECK_OK(hf_writer_open(&w, tmp_dir(&arena, "fast"), m, &quant));
        size_t n = hf_layer_linears(m, 0, &l);
        for (size_t i = 0; i < n; i++) {
            dr_qtensor q = {0};
            CHECK_OK(dr_qtensor_new(&q, 4, 128, l[i].n_out, l[i].n_in, false));
            double t = dr_now_s();
            CHECK_OK(hf_writer_packed(w, &l[i], &q));
            pack_s += dr_now_s() - t;
            dr_qtensor_release(&q);
            weights += method == HF_QUANT_AWQ ? l[i].n_out * l[i].n_in : 0;
        }
        CHECK_OK(hf_writer_finish(w));
        hf_writer_close(w);
        CHECK_OK(hf_model_open(&back, tmp_dir(&arena, "fast")));
        n = hf_layer_linears(back, 0, &l);
        for (size_t i = 0; i < n; i++) {
            dr_qtensor q = {0};
            double t = dr_now_s();
            CHECK_OK(hf_linear_packed(back, &l[i], &q, NULL));
            unpack_s += dr_now_s() - t;
            dr_qtensor_release(&q);
        }
        hf_model_close(back);
        (void)printf("method %d: %.1f M weights, packed and written %.2f s, read %.2f s "
                     "for 3.8 G\n",
                     method, (double)weights * 1e-6, pack_s * 3.8e9 / (double)weights,
                     unpack_s * 3.8e9 / (double)weights);
    }
    hf_model_close(m);
}

int main(void)
{
    CHECK_OK(dr_pool_open(&pool, 3));
    test_golden("awq", HF_QUANT_AWQ);
    test_golden("gptq", HF_QUANT_GPTQ);
    test_golden("gptq_v2", HF_QUANT_GPTQ);
    test_golden("olive", HF_QUANT_OLIVE);
    test_identity("plain", plain_config);
    test_identity("fused", fused_config);
    test_blocks();
    test_write_refused();
    test_read_refused();
    test_olive_names();
    test_overrides();
    test_speed();
    dr_pool_close(pool);
    dr_arena_release(&arena);
    return check_done();
}
