/* gguf_out_test.c - models written as GGUF: blocks as the package gguf makes them, the same
 * numbers, config and tokenizer when the file is read back, packed codes kept. */
#include "make_model.h"

#include "hf/gguf_out_impl.h"

static dr_arena arena;

#define LLAMA(more)                                                                        \
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", "              \
    "\"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": 2, "           \
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": 128, "        \
    "\"max_position_embeddings\": 64, \"bos_token_id\": 1, \"eos_token_id\": 2, "          \
    "\"dtype\": \"bfloat16\"" more "}"

static const char phi3_config[] =
    "{\"architectures\": [\"Phi3ForCausalLM\"], \"model_type\": \"phi3\", "
    "\"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": 2, "
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": 128, "
    "\"max_position_embeddings\": 128, \"original_max_position_embeddings\": 64, "
    "\"sliding_window\": 40, \"dtype\": \"float16\", \"rope_scaling\": {\"type\": "
    "\"longrope\", \"short_factor\": [1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5], \"long_factor\": "
    "[2, 3, 4, 5, 6, 7, 8, 9.25]}}";
static const char qwen2_config[] =
    "{\"architectures\": [\"Qwen2ForCausalLM\"], \"model_type\": \"qwen2\", "
    "\"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": 1, "
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": 128, "
    "\"max_position_embeddings\": 64, \"tie_word_embeddings\": true, \"rope_theta\": "
    "1000000.0, \"dtype\": \"float16\"}";

#define SMOLLM3(more)                                                                      \
    "{\"architectures\": [\"SmolLM3ForCausalLM\"], \"model_type\": \"smollm3\", "          \
    "\"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": 5, "           \
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": 128, "        \
    "\"max_position_embeddings\": 64, \"pad_token_id\": null, \"dtype\": \"float16\"" more \
    "}"

/* ---- blocks ---- */

static size_t from_hex(void *dst, const char *hex)
{
    unsigned char *p = dst;
    size_t n = strlen(hex) / 2;

    for (size_t i = 0; i < n; i++) {
        unsigned v = 0;
        (void)sscanf(hex + 2 * i, "%2x", &v);
        p[i] = (unsigned char)v;
    }
    return n;
}

static void test_blocks(void)
{
    static const struct {
        const char *name;
        int type;
    } types[] = {{"F16", GGUF_OUT_F16},
                 {"BF16", GGUF_OUT_BF16},
                 {"Q8_0", GGUF_OUT_Q8_0},
                 {"Q4_0", GGUF_OUT_Q4_0},
                 {"Q4_1", GGUF_OUT_Q4_1}};
    json_t *g = NULL;
    float x[512];
    unsigned char want[2048], got[2048];

    if (!CHECK_OK(dr_json_read(&g, GOLDEN "gguf_quantized.json")))
        return;
    CHECK_EQ_INT(from_hex(x, json_string_value(json_object_get(g, "floats"))), sizeof(x));
    for (size_t i = 0; i < DR_COUNT(types); i++) {
        const char *hex =
            json_string_value(json_object_get(json_object_get(g, "types"), types[i].name));
        size_t n = from_hex(want, hex);
        CHECK_EQ_INT(gguf_out_bytes(types[i].type, 512), n);
        gguf_quantize(got, x, types[i].type, 512);
        if (!CHECK_MEM(got, want, n))
            (void)printf("  type %s\n", types[i].name);
    }
    json_decref(g);
}

/* ---- there and back ---- */

static const char *with_tokenizer(const char *dir)
{
    static const char toy[] = DRUPE_SOURCE_DIR "/tests/cli/toy";
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json"};

    for (size_t i = 0; i < DR_COUNT(names); i++)
        CHECK_OK(dr_copy_file(dr_path_join(&arena, dir, names[i]),
                              dr_path_join(&arena, toy, names[i])));
    return dir;
}

/* Writes m and opens what was written; NULL: a check failed. */
static hf_model *write_and_open(const hf_model *m, hf_gguf_type type,
                                hf_gguf_report *report)
{
    const char *path = dr_path_join(&arena, check_tmp(), "out.gguf");
    hf_model *back = NULL;
    uint64_t bytes = 0;

    if (!CHECK_OK(hf_gguf_write(path, m, type, "test", report)) ||
        !CHECK_OK(hf_model_open(&back, path)))
        return NULL;
    CHECK_OK(dr_file_size(&bytes, path));
    CHECK_EQ_INT(report->bytes, bytes);
    return back;
}

static void check_config(const hf_config *x, const hf_config *y)
{
    CHECK_EQ_INT(x->arch, y->arch);
    CHECK_EQ_INT(x->max_position, y->max_position);
    CHECK_EQ_INT(x->sliding_window, y->sliding_window);
    CHECK_NEAR(x->norm_eps, y->norm_eps, 1e-12);
    CHECK_EQ_INT(x->tied, y->tied);
    CHECK_EQ_INT(x->head_dim, y->head_dim);
    CHECK_EQ_INT(x->rope.kind, y->rope.kind);
    CHECK_EQ_INT(x->rope.rotary_dim, y->rope.rotary_dim);
    CHECK_NEAR(x->rope.theta, y->rope.theta, 1e-3);
    CHECK_NEAR(x->rope.factor, y->rope.factor, 1e-6);
    if (x->rope.kind == HF_ROPE_LONGROPE) {
        size_t n = (size_t)x->rope.rotary_dim / 2 * sizeof(float);
        CHECK_MEM(x->rope.short_factor, y->rope.short_factor, n);
        CHECK_MEM(x->rope.long_factor, y->rope.long_factor, n);
        CHECK_EQ_INT(x->rope.original_max, y->rope.original_max);
        CHECK_NEAR(x->rope.attention_factor, y->rope.attention_factor, 1e-6);
    }
}

/* The parts of the two tokenizers that decide ids; the template and the special ones. */
static void check_tokenizers(const hf_model *x, const hf_model *y)
{
    static const char *const parts[] = {"ignore_merges", "byte_fallback", "unk_token"};
    static const char *const specials[] = {"bos_token", "eos_token", "chat_template"};
    json_t *t[2] = {NULL}, *c[2] = {NULL}, *id = NULL;
    const char *text = NULL;

    if (!CHECK_OK(hf_model_tokenizer(x, &t[0], &c[0])) ||
        !CHECK_OK(hf_model_tokenizer(y, &t[1], &c[1])))
        return;
    const json_t *p = dr_json_get(t[0], "model"), *q = dr_json_get(t[1], "model");
    for (size_t i = 0; i < DR_COUNT(parts); i++)
        if (json_object_get(p, parts[i]) != NULL)
            CHECK(json_equal(json_object_get(p, parts[i]), json_object_get(q, parts[i])));
    json_object_foreach(json_object_get(p, "vocab"), text, id)
        CHECK(json_equal(id, json_object_get(json_object_get(q, "vocab"), text)));
    CHECK_EQ_INT(json_array_size(dr_json_get(p, "merges")),
                 json_array_size(dr_json_get(q, "merges")));
    CHECK(json_equal(json_object_get(t[0], "added_tokens"),
                     json_object_get(t[1], "added_tokens")));
    for (size_t i = 0; i < DR_COUNT(specials); i++)
        CHECK(json_equal(json_object_get(c[0], specials[i]),
                         json_object_get(c[1], specials[i])));
    for (int i = 0; i < 2; i++) {
        json_decref(t[i]);
        json_decref(c[i]);
    }
}

static void test_plain(const char *name, const char *config, dr_dtype dtype,
                       hf_gguf_type type, const char *type_name)
{
    const char *dir = with_tokenizer(make_model(&arena, name, config, dtype));
    hf_model *m = NULL, *back = NULL;
    hf_gguf_report report;

    if (!CHECK_OK(hf_model_open(&m, dir)))
        return;
    back = write_and_open(m, type, &report);
    if (back != NULL) {
        CHECK_STR(report.type, type_name);
        CHECK_EQ_INT(report.kept + report.rounded, 0);
        check_same_values(m, back);
        check_config(hf_model_config(m), hf_model_config(back));
        check_tokenizers(m, back);
    }
    hf_model_close(back);
    hf_model_close(m);
}

/* Every fourth layer is not rotated, which no key says. */
static void test_not_rotated(void)
{
    const char *dir =
        with_tokenizer(make_model(&arena, "smollm3", SMOLLM3(""), DR_DTYPE_F16));
    hf_model *m = NULL, *back = NULL;
    hf_gguf_report report;

    if (!CHECK_OK(hf_model_open(&m, dir)))
        return;
    back = write_and_open(m, HF_GGUF_F16, &report);
    for (int i = 0; back != NULL && i < 5; i++) {
        CHECK((hf_layer_rope(hf_model_config(m), i) == NULL) == (i == 3));
        CHECK((hf_layer_rope(hf_model_config(back), i) == NULL) == (i == 3));
    }
    if (back != NULL)
        check_same_values(m, back);
    hf_model_close(back);
    hf_model_close(m);
}

/* Blocks: as near as their steps; the head of a 4-bit file has 8. */
static void test_rounded(void)
{
    static const struct {
        hf_gguf_type type;
        const char *name, *outer;
        double step; /* of the largest value of a block */
    } cases[] = {{HF_GGUF_Q8_0, "Q8_0", "Q8_0", 0.5 / 127 + 1e-3},
                 {HF_GGUF_Q4_0, "Q4_0", "Q8_0", 1.0 / 8 + 1e-3},
                 {HF_GGUF_Q4_1, "Q4_1", "Q8_0", 1.0 / 15 + 1e-3}};
    const char *dir = with_tokenizer(make_model(&arena, "round", LLAMA(""), DR_DTYPE_F32));
    hf_model *m = NULL, *back = NULL;
    const hf_linear *l = NULL, *k = NULL;
    static float x[128 * 64], y[128 * 64];
    hf_gguf_report report;

    if (!CHECK_OK(hf_model_open(&m, dir)))
        return;
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        back = write_and_open(m, cases[i].type, &report);
        if (back == NULL)
            continue;
        CHECK_EQ_INT(report.rounded, 16);
        CHECK_STR(hf_model_origin(back), dr_arena_printf(&arena, "gguf %s", cases[i].name));
        CHECK_STR(hf_tensor_type(back, 0), cases[i].outer);
        size_t n = hf_layer_linears(m, 1, &l);
        CHECK_EQ_INT(hf_layer_linears(back, 1, &k), n);
        for (size_t j = 0; j < n; j++) {
            CHECK_OK(hf_linear_read(m, &l[j], x, 0, l[j].n_out));
            CHECK_OK(hf_linear_read(back, &k[j], y, 0, k[j].n_out));
            double most = 0, error = 0;
            for (size_t e = 0; e < l[j].n_out * l[j].n_in; e++) {
                most = fmax(most, fabs((double)x[e]));
                error = fmax(error, fabs((double)x[e] - (double)y[e]));
            }
            CHECK(error <= most * cases[i].step && error > 0);
        }
        hf_model_close(back);
    }
    hf_model_close(m);
}

/* ---- packed ---- */

/* A packed model of this grid, made by the writer. */
static hf_model *packed_model(const hf_quant *quant, const char *name)
{
    const char *plain =
        with_tokenizer(make_model(&arena, "plain", LLAMA(""), DR_DTYPE_BF16));
    const char *dir = tmp_dir(&arena, name);
    hf_model *m = NULL, *out = NULL;
    hf_writer *w = NULL;
    const hf_linear *l = NULL;
    dr_rng rng;

    dr_rng_init(&rng, 11, 0);
    if (!CHECK_OK(hf_model_open(&m, plain)) || !CHECK_OK(hf_writer_open(&w, dir, m, quant)))
        return NULL;
    for (int layer = 0; layer < 2; layer++) {
        size_t n = hf_layer_linears(m, layer, &l);
        for (size_t i = 0; i < n; i++) {
            int top = (1 << quant->bits) - 1;
            dr_qtensor q = {0};
            CHECK_OK(dr_qtensor_new(&q, quant->bits, quant->group, l[i].n_out, l[i].n_in,
                                    quant->symmetric));
            size_t kb = dr_qtensor_blocks(&q);
            for (size_t r = 0; r < q.rows; r++) {
                for (size_t b = 0; b < kb; b++) {
                    float s = dr_rng_uniform(&rng) * 0.1f + 0.01f;
                    q.scales[r * kb + b] = dr_f16_to_f32(dr_f32_to_f16(s));
                    if (q.zeros != NULL)
                        dr_qtensor_set_zero(&q, r, b, (int)(dr_rng_u32(&rng)) & top);
                }
                for (size_t c = 0; c < q.cols; c++)
                    dr_qtensor_set_code(&q, r, c, (int)(dr_rng_u32(&rng)) & top);
            }
            CHECK_OK(hf_writer_packed(w, &l[i], &q));
            dr_qtensor_release(&q);
        }
    }
    CHECK_OK(hf_writer_finish(w));
    hf_writer_close(w);
    hf_model_close(m);
    CHECK_OK(hf_model_open(&out, dir));
    return out;
}

static void test_packed(const hf_quant *quant, const char *name, hf_gguf_type type,
                        const char *want_type, size_t kept, double error_max)
{
    hf_model *m = packed_model(quant, name), *back = NULL;
    static float x[96 * 96], y[96 * 96];
    const hf_linear *l = NULL, *k = NULL;
    hf_gguf_report report;
    double error = 0;

    if (m == NULL)
        return;
    back = write_and_open(m, type, &report);
    if (back == NULL) {
        hf_model_close(m);
        return;
    }
    CHECK_STR(report.type, want_type);
    CHECK_EQ_INT(report.kept, kept);
    CHECK_EQ_INT(report.kept + report.rounded, 16); /* embedding and head, too */
    for (int layer = 0; layer < 2; layer++) {
        size_t n = hf_layer_linears(m, layer, &l);
        CHECK_EQ_INT(hf_layer_linears(back, layer, &k), n);
        for (size_t i = 0; i < n; i++) {
            CHECK_OK(hf_linear_read(m, &l[i], x, 0, l[i].n_out));
            CHECK_OK(hf_linear_read(back, &k[i], y, 0, k[i].n_out));
            for (size_t e = 0; e < l[i].n_out * l[i].n_in; e++)
                error = fmax(error, fabs((double)x[e] - (double)y[e]));
        }
    }
    if (!CHECK(error <= error_max))
        (void)printf("  %s: error %g\n", name, error);
    hf_model_close(back);
    hf_model_close(m);
}

static void test_all_packed(void)
{
    const hf_quant sym = {HF_QUANT_OLIVE, 4, 32, true},
                   zeros = {HF_QUANT_GPTQ, 4, 32, false};
    const hf_quant two = {HF_QUANT_OLIVE, 2, 32, false},
                   wide = {HF_QUANT_OLIVE, 8, 32, true};
    const hf_quant small = {HF_QUANT_OLIVE, 4, 16, true},
                   bytes = {HF_QUANT_OLIVE, 8, 32, false};
    const double half = 15 * 0.11 / 2048; /* half precision of zero * scale */

    test_packed(&sym, "sym", HF_GGUF_AUTO, "q4_0", 14, 0);
    test_packed(&sym, "sym", HF_GGUF_Q4_1, "q4_1", 14, 0); /* 8 * scale is exact */
    test_packed(&sym, "sym", HF_GGUF_Q8_0, "q8_0", 14, 0);
    test_packed(&zeros, "zeros", HF_GGUF_AUTO, "q4_1", 14, half);
    test_packed(&zeros, "zeros", HF_GGUF_Q8_0, "q8_0", 14, 0);
    test_packed(&zeros, "zeros", HF_GGUF_Q4_0, "q4_0", 0, 0.25);
    test_packed(&two, "two", HF_GGUF_AUTO, "q4_0", 14, 0);
    test_packed(&wide, "wide", HF_GGUF_AUTO, "q8_0", 14, 0);
    test_packed(&bytes, "bytes", HF_GGUF_AUTO, "q8_0", 0, 0.2);
    test_packed(&small, "small", HF_GGUF_AUTO, "q4_0", 0, 0.12); /* blocks of 16 */
}

/* ---- tokenizers ---- */

#define ADDED(id, text)                                                                    \
    "{\"id\": " id ", \"content\": \"" text "\", \"single_word\": false, \"lstrip\": "     \
    "false, \"rstrip\": false, \"normalized\": false, \"special\": true}"

static const char pieces[] =
    "{\"added_tokens\": [" ADDED("0", "<unk>") ", " ADDED("1", "<s>") ", " ADDED(
        "2", "</s>") "], \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": "
                     "[{\"type\": \"Prepend\", \"prepend\": \"\xe2\x96\x81\"}, {\"type\": "
                     "\"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": "
                     "\"\xe2\x96\x81\"}]}, \"pre_tokenizer\": null, \"post_processor\": "
                     "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": "
                     "{\"id\": \"<s>\", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", "
                     "\"type_id\": 0}}]}, \"model\": {\"type\": \"BPE\", \"unk_token\": "
                     "\"<unk>\", \"fuse_unk\": true, \"byte_fallback\": true, "
                     "\"ignore_merges\": false, \"vocab\": {\"<unk>\": 0, \"<s>\": 1, "
                     "\"</s>\": 2, \"<0x0A>\": 3, \"\xe2\x96\x81\": 4, \"a\": 5, \"b\": 6, "
                     "\"ab\": 7, \"\xe2\x96\x81"
                     "a\": 8, \"\xe2\x96\x81"
                     "ab\": 9}, \"merges\": [[\"a\", \"b\"], [\"\xe2\x96\x81\", \"a\"], "
                     "[\"\xe2\x96\x81"
                     "a\", \"b\"], [\"\xe2\x96\x81\", \"ab\"]]}}";

/* SentencePiece's: scores from the merges, and merges from the scores again. */
static void test_pieces(void)
{
    const char *dir = make_model(&arena, "pieces", LLAMA(""), DR_DTYPE_BF16);
    json_t *t = NULL, *c = NULL, *want = NULL;
    hf_model *m = NULL, *back = NULL;
    hf_gguf_report report;

    put_text(&arena, dir, "tokenizer.json", pieces);
    CHECK_OK(dr_json_parse(&want, pieces, strlen(pieces), "pieces"));
    if (!CHECK_OK(hf_model_open(&m, dir)))
        return;
    back = write_and_open(m, HF_GGUF_AUTO, &report);
    if (back != NULL && CHECK_OK(hf_model_tokenizer(back, &t, &c))) {
        const json_t *x = dr_json_get(want, "model"), *y = dr_json_get(t, "model");
        CHECK(json_equal(json_object_get(x, "vocab"), json_object_get(y, "vocab")));
        CHECK(json_equal(json_object_get(x, "merges"), json_object_get(y, "merges")));
        CHECK(json_equal(json_object_get(want, "added_tokens"),
                         json_object_get(t, "added_tokens")));
        CHECK(json_is_true(json_object_get(c, "add_bos_token")));
        CHECK_STR(json_string_value(json_object_get(c, "bos_token")), "<s>");
        CHECK_STR(json_string_value(json_object_get(c, "unk_token")), "<unk>");
    }
    json_decref(want);
    json_decref(t);
    json_decref(c);
    hf_model_close(back);
    hf_model_close(m);
}

/* Every name that a pre-tokenizer has: written as JSON and found again. */
static void test_pretok(void)
{
    static const char *const names[] = {
        "gpt-2",     "smollm",    "qwen2",  "deepseek-r1-qwen",
        "llama-bpe", "smaug-bpe", "gpt-4o", "tekken"};
    const char *why = NULL;

    for (size_t i = 0; i < DR_COUNT(names); i++) {
        const gguf_pretok *p = gguf_pretok_find(names[i]);
        json_t *t = json_object();
        if (!CHECK(p != NULL))
            continue;
        gguf_pretok_put(t, p);
        const gguf_pretok *q = gguf_pretok_match(&arena, t, p->ignore_merges, &why);
        CHECK(q != NULL);
        CHECK_STR(q ? q->name : "", names[i]);
        json_decref(t);
    }
}

static void check_refused(const char *tokenizer, dr_status st, const char *text)
{
    const char *dir = make_model(&arena, "refused", LLAMA(""), DR_DTYPE_BF16);
    const char *path = dr_path_join(&arena, check_tmp(), "refused.gguf");
    hf_model *m = NULL;
    hf_gguf_report report;

    if (tokenizer != NULL)
        put_text(&arena, dir, "tokenizer.json", tokenizer);
    if (CHECK_OK(hf_model_open(&m, dir))) {
        CHECK_STATUS(hf_gguf_write(path, m, HF_GGUF_AUTO, "x", &report), st);
        if (!CHECK_TRAIL(text))
            (void)printf("  wanted: %s\n", text);
    }
    hf_model_close(m);
}

/* What llama.cpp would compute otherwise, or not load. */
static void test_no_form(void)
{
    static const struct {
        const char *config, *text;
    } rows[] = {
        {SMOLLM3(", \"no_rope_layer_interval\": 5"),
         "a choice of layers that are not rotated has no form in a GGUF of smollm3"},
        {SMOLLM3(", \"use_sliding_window\": true, \"sliding_window\": 8"),
         "attention in a window has no form in a GGUF of smollm3"},
        {SMOLLM3(", \"hidden_act\": \"gelu\""),
         "its activation has no form in a GGUF of smollm3"},
        {SMOLLM3(", \"attention_bias\": true"),
         "a bias of its linears has no form in a GGUF of smollm3"},
        {LLAMA(", \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4.0, "
               "\"truncate\": false, \"original_max_position_embeddings\": 16}"),
         "this rotary scaling has no form in a GGUF of llama"},
    };
    const char *path = dr_path_join(&arena, check_tmp(), "refused.gguf");
    hf_gguf_report report;

    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        const char *dir =
            with_tokenizer(make_model(&arena, "none", rows[i].config, DR_DTYPE_BF16));
        hf_model *m = NULL;
        if (CHECK_OK(hf_model_open(&m, dir))) {
            CHECK_STATUS(hf_gguf_write(path, m, HF_GGUF_AUTO, "x", &report),
                         DR_EUNSUPPORTED);
            CHECK_TRAIL(rows[i].text);
        }
        hf_model_close(m);
    }
}

#define BYTE_LEVEL                                                                         \
    "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}, "

static void test_refused(void)
{
    check_refused(NULL, DR_EUNSUPPORTED, "tokenizer.json is missing");
    check_refused("{\"model\": {\"type\": \"Unigram\"}}", DR_EUNSUPPORTED,
                  "a Unigram model has no form in GGUF");
    check_refused("{\"pre_tokenizer\": {\"type\": \"Whitespace\"}, \"model\": {\"type\": "
                  "\"BPE\"}}",
                  DR_EUNSUPPORTED, "its way to cut text has no form in GGUF");
    check_refused("{\"normalizer\": {\"type\": \"Lowercase\"}, " BYTE_LEVEL
                  "\"model\": {\"type\": \"BPE\"}}",
                  DR_EUNSUPPORTED, "its normalizer (Lowercase) has");
    check_refused(
        "{" BYTE_LEVEL
        "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 128}, \"merges\": []}}",
        DR_EFORMAT, "token 128, the embedding has 128 rows");
    check_refused("{" BYTE_LEVEL
                  "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 1}, \"merges\": [7]}}",
                  DR_EFORMAT, "merge 0 is no pair");
    check_refused("{\"model\": {\"type\": \"BPE\", \"byte_fallback\": true, \"vocab\": "
                  "{\"a\": 1}, \"merges\": [[\"a\", \"a\"]]}}",
                  DR_EFORMAT, "merge 0 makes no token");
}

int main(void)
{
    test_blocks();
    test_plain("llama", LLAMA(", \"attention_bias\": true"), DR_DTYPE_BF16, HF_GGUF_AUTO,
               "bf16");
    test_plain("llama32", LLAMA(""), DR_DTYPE_F32, HF_GGUF_F32, "f32");
    test_plain("llama3",
               LLAMA(", \"rope_theta\": 500000.0, \"rope_scaling\": {\"rope_type\": "
                     "\"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0, "
                     "\"high_freq_factor\": 4.0, "
                     "\"original_max_position_embeddings\": 8192}"),
               DR_DTYPE_BF16, HF_GGUF_BF16, "bf16");
    test_plain("linear",
               LLAMA(", \"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 4.0}"),
               DR_DTYPE_BF16, HF_GGUF_AUTO, "bf16");
    test_plain("phi3", phi3_config, DR_DTYPE_F16, HF_GGUF_AUTO, "f16");
    test_plain("qwen2", qwen2_config, DR_DTYPE_F16, HF_GGUF_F16, "f16");
    test_not_rotated();
    test_no_form();
    test_rounded();
    test_all_packed();
    test_pieces();
    test_pretok();
    test_refused();
    dr_arena_release(&arena);
    return check_done();
}
