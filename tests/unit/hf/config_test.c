/* config_test.c - config.json of three families in the spellings of transformers 4 and 5,
 * wrong ones, rotary tables against torch, and weights against torch. */
#include "make_model.h"

#define LLAMA                                                                              \
    "\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", "               \
    "\"hidden_size\": 16, \"intermediate_size\": 24, \"num_hidden_layers\": 1, "           \
    "\"num_attention_heads\": 4, \"vocab_size\": 20, \"torch_dtype\": \"float32\""
#define QWEN2                                                                              \
    "\"architectures\": [\"Qwen2ForCausalLM\"], \"model_type\": \"qwen2\", "               \
    "\"hidden_size\": 16, \"intermediate_size\": 24, \"num_hidden_layers\": 2, "           \
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": 20"
#define PHI3                                                                               \
    "\"architectures\": [\"Phi3ForCausalLM\"], \"model_type\": \"phi3\", "                 \
    "\"hidden_size\": 16, \"intermediate_size\": 24, \"num_hidden_layers\": 1, "           \
    "\"num_attention_heads\": 2, \"vocab_size\": 20"

static dr_arena arena;

static hf_model *open_made(const char *name, const char *config)
{
    hf_model *m = NULL;

    CHECK_OK(hf_model_open(&m, make_model(&arena, name, config, DR_DTYPE_F32)));
    return m;
}

static void test_llama(void)
{
    hf_model *m =
        open_made("llama4", "{" LLAMA ", \"rope_theta\": 500000.0, \"rope_scaling\": "
                            "{\"type\": \"linear\", \"factor\": 2.0}}");
    if (m == NULL)
        return;
    const hf_config *c = hf_model_config(m);
    CHECK_EQ_INT(c->arch, HF_ARCH_LLAMA);
    CHECK_STR(c->model_type, "llama");
    CHECK_EQ_INT(c->kv_heads, 4);
    CHECK_EQ_INT(c->head_dim, 4);
    CHECK_EQ_INT(c->max_position, 2048);
    CHECK_NEAR(c->norm_eps, 1e-6, 0);
    CHECK_NEAR(c->rope.theta, 500000, 0);
    CHECK_EQ_INT(c->rope.kind, HF_ROPE_LINEAR);
    CHECK_NEAR(c->rope.factor, 2, 0);
    CHECK(!c->tied && !c->fused && !c->qkv_bias && !c->o_bias && !c->mlp_bias);
    CHECK_EQ_INT(c->bos, 1);
    CHECK_EQ_INT(c->pad, -1);
    CHECK_EQ_INT(c->eos_count, 1);
    CHECK_EQ_INT(c->eos[0], 2);
    CHECK_EQ_INT(c->dtype, DR_DTYPE_F32);
    CHECK(hf_head_linear(m) != NULL);
    CHECK_STR(hf_model_origin(m), "f32");
    hf_model_close(m);

    m = open_made("llama5", "{" LLAMA ", \"attention_bias\": true, \"head_dim\": 6, "
                            "\"num_key_value_heads\": 2, \"tie_word_embeddings\": true, "
                            "\"eos_token_id\": [3, 4, 3], \"pad_token_id\": -1, "
                            "\"rope_parameters\": {\"rope_theta\": 1e5, \"rope_type\": "
                            "\"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0, "
                            "\"high_freq_factor\": 4.0, "
                            "\"original_max_position_embeddings\": 1024}}");
    if (m == NULL)
        return;
    c = hf_model_config(m);
    CHECK(c->tied && c->qkv_bias && c->o_bias && !c->mlp_bias);
    CHECK_EQ_INT(c->head_dim, 6);
    CHECK_EQ_INT(c->rope.rotary_dim, 6);
    CHECK_EQ_INT(c->rope.kind, HF_ROPE_LLAMA3);
    CHECK_EQ_INT(c->rope.original_max, 1024);
    CHECK_EQ_INT(c->eos_count, 2);
    CHECK_EQ_INT(c->pad, -1);
    CHECK(hf_head_linear(m) == NULL);
    CHECK_EQ_INT(hf_slot_out(c, HF_SLOT_QKV), 4 * 6 + 2 * 2 * 6);
    CHECK_EQ_INT(hf_slot_in(c, HF_SLOT_O), 24);
    hf_model_close(m);
}

static void test_qwen2(void)
{
    hf_model *m = open_made("qwen2", "{" QWEN2 ", \"sliding_window\": 8, \"dtype\": "
                                     "\"float16\", \"bos_token_id\": 5}");
    if (m == NULL)
        return;
    const hf_config *c = hf_model_config(m);
    const hf_linear *l = NULL;
    CHECK_EQ_INT(c->sliding_window, 0); /* use_sliding_window is not said */
    CHECK(c->qkv_bias && !c->o_bias);
    CHECK_EQ_INT(c->bos, 5);
    CHECK_EQ_INT(c->eos_count, 0);
    CHECK_EQ_INT(c->dtype, DR_DTYPE_F16);
    CHECK_EQ_INT(hf_layer_linears(m, 1, &l), 7);
    CHECK_STR(l[2].leaf, "v_proj");
    CHECK_EQ_INT(l[2].row0, 24);
    CHECK_EQ_INT(l[2].slot, HF_SLOT_QKV);
    CHECK(l[0].has_bias && !l[3].has_bias);
    CHECK_EQ_INT(l[5].row0, 24);
    hf_model_close(m);

    m = open_made("qwen2w",
                  "{" QWEN2 ", \"sliding_window\": 8, \"use_sliding_window\": true, "
                  "\"max_window_layers\": 1}");
    if (m == NULL)
        return;
    CHECK_EQ_INT(hf_model_config(m)->sliding_window, 8);
    CHECK_EQ_INT(hf_layer_window(hf_model_config(m), 0), 0);
    CHECK_EQ_INT(hf_layer_window(hf_model_config(m), 1), 8);
    CHECK_EQ_INT(hf_model_config(m)->dtype, DR_DTYPE_F32); /* from the weights */
    hf_model_close(m);

    m = open_made("qwen2t",
                  "{" QWEN2 ", \"sliding_window\": 8, \"use_sliding_window\": true, "
                  "\"layer_types\": [\"full_attention\", \"full_attention\"]}");
    if (m == NULL)
        return;
    CHECK_EQ_INT(hf_model_config(m)->sliding_window, 0);
    hf_model_close(m);
}

static void test_phi3(void)
{
    hf_model *m = open_made(
        "phi3", "{" PHI3 ", \"max_position_embeddings\": 131072, "
                "\"original_max_position_embeddings\": 4096, \"sliding_window\": 2047, "
                "\"partial_rotary_factor\": 0.75, \"eos_token_id\": 9, \"rope_scaling\": "
                "{\"type\": \"su\", \"short_factor\": [1, 1.5, 2], \"long_factor\": "
                "[2, 4, 8.5]}}");
    if (m == NULL)
        return;
    const hf_config *c = hf_model_config(m);
    const hf_linear *l = NULL;
    CHECK(c->fused && !c->tied);
    CHECK_NEAR(c->norm_eps, 1e-5, 0);
    CHECK_EQ_INT(c->rope.rotary_dim, 6);
    CHECK_EQ_INT(c->rope.kind, HF_ROPE_LONGROPE);
    CHECK(c->rope.long_factor[2] == 8.5f);
    CHECK_NEAR(c->rope.attention_factor, sqrt(1 + log(32) / log(4096)), 1e-15);
    CHECK_EQ_INT(c->sliding_window, 2047);
    CHECK_EQ_INT(hf_layer_window(c, 0), 2047);
    CHECK_EQ_INT(c->bos, 1);
    CHECK_EQ_INT(c->pad, -1); /* 32000 is outside this vocabulary */
    CHECK_EQ_INT(hf_layer_linears(m, 0, &l), 4);
    CHECK_STR(l[0].leaf, "qkv_proj");
    CHECK_EQ_INT(l[0].n_out, 48);
    CHECK_EQ_INT(l[2].n_out, 48);
    CHECK(hf_tensor_find(m, "model.layers.0.mlp.gate_up_proj.weight") != NULL);
    CHECK(hf_tensor_find(m, "model.layers.0.mlp.gate_proj.weight") == NULL);
    hf_model_close(m);
}

static void test_generation(void)
{
    const char *dir = make_model(&arena, "gen",
                                 "{" LLAMA ", \"eos_token_id\": 7, "
                                 "\"pad_token_id\": null}",
                                 DR_DTYPE_F32);
    hf_model *m = NULL;

    put_text(&arena, dir, "generation_config.json",
             "{\"eos_token_id\": [7, 8, 999], \"pad_token_id\": 3}");
    if (!CHECK_OK(hf_model_open(&m, dir)))
        return;
    CHECK_EQ_INT(hf_model_config(m)->eos_count, 2); /* 999 is outside the vocabulary */
    CHECK_EQ_INT(hf_model_config(m)->eos[1], 8);
    CHECK_EQ_INT(hf_model_config(m)->pad, 3);
    CHECK(hf_model_generation_json(m) != NULL);
    hf_model_close(m);
}

/* Configs that must be refused, and what the message must name. */
static void test_refused(void)
{
    static const struct {
        const char *config;
        dr_status st;
        const char *text;
    } cases[] = {
        {"[]", DR_EFORMAT, "expected an object"},
        {"{}", DR_EFORMAT, "neither architectures nor model_type"},
        {"{\"architectures\": [\"BertModel\"]}", DR_EUNSUPPORTED, "BertModel"},
        {"{\"model_type\": \"mamba\"}", DR_EUNSUPPORTED, "Phi3ForCausalLM"},
        {"{\"architectures\": [\"LlamaForCausalLM\"]}", DR_EFORMAT,
         "num_hidden_layers is missing"},
        {"{" LLAMA ", \"num_key_value_heads\": 3}", DR_EFORMAT, "not a multiple of"},
        {"{" LLAMA ", \"num_key_value_heads\": 0}", DR_EFORMAT, "num_key_value_heads: 0"},
        {"{" LLAMA ", \"head_dim\": 5}", DR_EUNSUPPORTED, "heads of 5"},
        {"{" LLAMA ", \"head_dim\": \"4\"}", DR_EFORMAT, "head_dim: expected an integer"},
        {"{" LLAMA ", \"hidden_act\": \"relu2\"}", DR_EUNSUPPORTED, "hidden_act: relu2"},
        {"{" LLAMA ", \"rms_norm_eps\": -1.0}", DR_EFORMAT, "rms_norm_eps: -1"},
        {"{" LLAMA ", \"max_position_embeddings\": 0}", DR_EFORMAT,
         "max_position_embeddings: 0"},
        {"{" LLAMA ", \"rope_theta\": 0.0}", DR_EFORMAT, "rope_theta: 0"},
        {"{" LLAMA ", \"rope_scaling\": {\"rope_type\": \"mrope\"}}", DR_EUNSUPPORTED,
         "rope type mrope"},
        {"{" LLAMA ", \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 0}}", DR_EFORMAT,
         "factor: 0"},
        {"{" LLAMA ", \"rope_scaling\": {\"type\": \"linear\"}}", DR_EFORMAT,
         "factor is missing"},
        {"{" LLAMA ", \"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8, "
         "\"low_freq_factor\": 4, \"high_freq_factor\": 1}}",
         DR_EFORMAT, "high_freq_factor"},
        {"{" LLAMA ", \"rope_scaling\": 3}", DR_EFORMAT,
         "rope_scaling: expected an object"},
        {"{" LLAMA ", \"partial_rotary_factor\": 0.5}", DR_EUNSUPPORTED,
         "partial_rotary_factor"},
        {"{" PHI3 ", \"partial_rotary_factor\": 0.4}", DR_EUNSUPPORTED,
         "not an even number"},
        {"{" PHI3 ", \"partial_rotary_factor\": 1.5}", DR_EFORMAT, "1.5"},
        {"{" PHI3 ", \"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [1, 1], "
         "\"long_factor\": [1, 1, 1, 1]}}",
         DR_EFORMAT, "expected 4 numbers"},
        {"{" PHI3 ", \"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": "
         "[1, 1, 0, 1], \"long_factor\": [1, 1, 1, 1]}}",
         DR_EFORMAT, "number 2"},
        {"{" PHI3 ", \"sliding_window\": -4}", DR_EFORMAT, "sliding_window: -4"},
        {"{" QWEN2 ", \"use_sliding_window\": true, \"layer_types\": "
         "[\"chunked_attention\", \"full_attention\"]}",
         DR_EUNSUPPORTED, "layer_types: chunked_attention"},
        {"{" QWEN2 ", \"use_sliding_window\": true, \"layer_types\": [\"full_attention\"]}",
         DR_EFORMAT, "expected 2 names"},
        {"{" QWEN2 ", \"dtype\": \"float8\"}", DR_EUNSUPPORTED, "float8"},
        {"{" QWEN2 ", \"eos_token_id\": \"x\"}", DR_EFORMAT, "eos_token_id"},
        {"{" QWEN2 ", \"tie_word_embeddings\": 1}", DR_EFORMAT, "tie_word_embeddings"},
        {"{" LLAMA ", \"quantization_config\": {\"quant_method\": \"bitsandbytes\"}}",
         DR_EUNSUPPORTED, "bitsandbytes"},
        {"{" LLAMA ", \"quantization_config\": {\"bits\": 4}}", DR_EFORMAT, "quant_method"},
        {"{" LLAMA ", \"quantization_config\": {\"quant_method\": \"awq\", \"bits\": 3}}",
         DR_EUNSUPPORTED, "3 bits"},
        {"{" LLAMA ", \"quantization_config\": {\"quant_method\": \"awq\", \"version\": "
         "\"gemv\"}}",
         DR_EUNSUPPORTED, "gemv"},
        {"{" LLAMA ", \"quantization_config\": {\"quant_method\": \"gptq\", \"bits\": 4, "
         "\"group_size\": 7}}",
         DR_EUNSUPPORTED, "group_size 7"},
        {"{" LLAMA ", \"mlp_bias\": true}", DR_EFORMAT, "gate_proj.bias is missing"},
        {"{" LLAMA ", \"num_key_value_heads\": 2}", DR_EFORMAT,
         "k_proj.weight: expected [8"},
        {"{" LLAMA ", \"vocab_size\": 21}", DR_EFORMAT, "expected [21, 16]"},
    };
    const char *dir = make_model(&arena, "refused", "{" LLAMA "}", DR_DTYPE_F32);

    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        hf_model *m = NULL;
        put_text(&arena, dir, "config.json", cases[i].config);
        if (!CHECK_STATUS(hf_model_open(&m, dir), cases[i].st) ||
            !CHECK_TRAIL(cases[i].text))
            (void)printf("  case %zu: %s\n", i, cases[i].config);
        CHECK(m == NULL);
        hf_model_close(m);
    }
}

/* Tables of transformers: torch's pow, cos and sin are within one unit of the last place of
 * the rounded value, and a unit in the frequency grows with the position. */
static void test_rope_table(const char *config, const char *table)
{
    dr_map map = {0};
    hf_model *m = NULL;
    dr_buf text;
    int32_t head[3];

    dr_buf_init(&text, 1 << 20);
    if (!CHECK_OK(dr_read_file(&text, dr_arena_printf(&arena, GOLDEN "rope/%s", config))) ||
        !CHECK_OK(dr_map_open(&map, dr_arena_printf(&arena, GOLDEN "rope/%s", table))))
        return;
    CHECK_OK(hf_model_open(&m, make_model(&arena, table, text.data, DR_DTYPE_F32)));
    if (m == NULL)
        return;
    memcpy(head, map.data, sizeof(head));
    size_t n = (size_t)head[0], half = (size_t)head[1], rows = 8192;
    const hf_config *c = hf_model_config(m);
    float *cos_out = calloc(rows * half, sizeof(float));
    float *sin_out = calloc(rows * half, sizeof(float));
    float *want = calloc(2 * n * half, sizeof(float));
    double worst = 0, exact = 0;
    CHECK_EQ_INT(c->rope.rotary_dim, 2 * half);
    CHECK_EQ_INT(map.size, 12 + 4 * n + 8 * n * half);
    memcpy(want, map.data + 12 + 4 * n, 8 * n * half);
    hf_rope_tables(&c->rope, head[2] != 0, rows, cos_out, sin_out);
    for (size_t i = 0; i < 2 * n * half; i++) {
        const float *got = i < n * half ? cos_out : sin_out;
        size_t k = i % (n * half);
        int32_t pos;
        memcpy(&pos, map.data + 12 + 4 * (k / half), 4);
        float g = got[(size_t)pos * half + k % half];
        double tol = 1.3e-7 + (double)pos *
                                  pow(c->rope.theta, -(double)(k % half) / (double)half) *
                                  0x1p-23;
        double off = fabs((double)g - (double)want[i]) / tol;
        worst = off > worst ? off : worst;
        exact += g == want[i];
    }
    CHECK(worst <= 1);
    CHECK(exact / (double)(2 * n * half) > 0.9);
    (void)printf("rope %s: %.1f%% bit for bit\n", table,
                 100 * exact / (double)(2 * n * half));
    free(cos_out);
    free(sin_out);
    free(want);
    hf_model_close(m);
    dr_map_close(&map);
    dr_buf_release(&text);
}

static void test_weights(const char *name, const char *other)
{
    hf_model *x = NULL, *y = NULL;

    if (CHECK_OK(hf_model_open(&x, dr_arena_printf(&arena, GOLDEN "%s", name))) &&
        CHECK_OK(hf_model_open(&y, dr_arena_printf(&arena, GOLDEN "%s", other))))
        check_same_values(x, y);
    hf_model_close(x);
    hf_model_close(y);
}

static void test_paths(void)
{
    hf_model *m = NULL;

    CHECK_STATUS(hf_model_open(&m, "/no/such/model"), DR_EIO);
    CHECK_TRAIL("no such folder");
    CHECK_STATUS(hf_model_open(&m, GOLDEN "manifest.json"), DR_EUSAGE);
    hf_model_close(NULL);
}

int main(void)
{
    test_llama();
    test_qwen2();
    test_phi3();
    test_generation();
    test_refused();
    test_rope_table("default.json", "default.bin");
    test_rope_table("linear.json", "linear.bin");
    test_rope_table("llama3.json", "llama3.bin");
    test_rope_table("longrope.json", "longrope_short.bin");
    test_rope_table("longrope.json", "longrope_long.bin");
    test_rope_table("longrope_given.json", "longrope_given_short.bin");
    test_rope_table("longrope_given.json", "longrope_given_long.bin");
    test_weights("llama", "llama_f32");
    test_weights("llama_shards", "llama_f32");
    test_weights("qwen2", "qwen2_f32");
    test_weights("phi3", "phi3_f32");
    test_paths();
    dr_arena_release(&arena);
    return check_done();
}
