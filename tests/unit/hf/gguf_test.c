/*
 * gguf_test.c - GGUF files as models, through hf.h: values, names, rebuilt config and
 * tokenizer, and files that are damaged in every way that could be thought of.
 *
 * The tiny model: 1 layer, D 32, 2 heads of 16 over 1 kv head, I 32, V 8.
 */
#include <sys/stat.h>

#include "check.h"
#include "core/hash.h"
#include "core/json.h"
#include "core/mem.h"
#include "gguf_make.h"
#include "hf/hf.h"

enum { D = 32, I = 32, V = 8, HEADS = 2, KV_HEADS = 1, HEAD = 16 };

static const char *const tokens[V] = {"<|endoftext|>", "<|im_end|>", "a",     "b", "ab",
                                      "\xc4\xa0",      "x",          "[PAD7]"};
static const int32_t types[V] = {3, 3, 1, 1, 1, 1, 4, 5};

static const char *file_in(const char *name)
{
    static char path[8192];

    (void)snprintf(path, sizeof(path), "%s/%s", check_tmp(), name);
    return path;
}

/* ---- the tiny model ---- */

static void arch_u32(maker *m, const char *arch, const char *name, uint32_t v)
{
    char key[128];

    (void)snprintf(key, sizeof(key), "%s.%s", arch, name);
    key_u32(m, key, v);
}

static void sizes(maker *m, const char *arch)
{
    key_str(m, "general.architecture", arch);
    arch_u32(m, arch, "block_count", 1);
    arch_u32(m, arch, "context_length", 64);
    arch_u32(m, arch, "embedding_length", D);
    arch_u32(m, arch, "feed_forward_length", I);
    arch_u32(m, arch, "attention.head_count", HEADS);
    arch_u32(m, arch, "attention.head_count_kv", KV_HEADS);
}

static void byte_tokenizer(maker *m, const char *pre)
{
    static const char *const merges[] = {"a b"};

    key_str(m, "tokenizer.ggml.model", "gpt2");
    key_str(m, "tokenizer.ggml.pre", pre);
    key_strs(m, "tokenizer.ggml.tokens", tokens, V);
    key_i32s(m, "tokenizer.ggml.token_type", types, V);
    key_strs(m, "tokenizer.ggml.merges", merges, 1);
    key_u32(m, "tokenizer.ggml.eos_token_id", 1);
}

static void rest_of_layer(maker *m)
{
    tensor_f32(m, "blk.0.attn_norm.weight", 0, D, 1);
    tensor_f32(m, "blk.0.ffn_norm.weight", 0, D, 2);
    tensor_f32(m, "blk.0.attn_output.weight", D, D, 40000);
    tensor_f32(m, "blk.0.ffn_down.weight", D, I, 70000);
    tensor_f32(m, "output_norm.weight", 0, D, 3);
}

static void split_tensors(maker *m)
{
    tensor_f32(m, "token_embd.weight", V, D, 0);
    tensor_f32(m, "blk.0.attn_q.weight", D, D, 10000);
    tensor_f32(m, "blk.0.attn_k.weight", HEAD, D, 20000);
    tensor_f32(m, "blk.0.attn_v.weight", HEAD, D, 30000);
    tensor_f32(m, "blk.0.ffn_gate.weight", I, D, 50000);
    tensor_f32(m, "blk.0.ffn_up.weight", I, D, 60000);
    rest_of_layer(m);
}

static void tiny(maker *m, const char *arch)
{
    make_begin(m);
    sizes(m, arch);
    byte_tokenizer(m, "smollm");
    split_tensors(m);
}

/* Opens what was made and releases it. */
static dr_status open_made(maker *m, hf_model **out)
{
    const char *path = file_in("made.gguf");

    make_file(m, path);
    make_release(m);
    return hf_model_open(out, path);
}

static void refused(maker *m, dr_status want, const char *text)
{
    hf_model *model = NULL;

    if (!CHECK_STATUS(open_made(m, &model), want) || !CHECK_TRAIL(text))
        (void)printf("  wanted: %s\n", text);
    CHECK(model == NULL);
    hf_model_close(model);
}

/* ---- values ---- */

static void from_hex(unsigned char *dst, const char *hex, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned v = 0;

        (void)sscanf(hex + 2 * i, "%2x", &v);
        dst[i] = (unsigned char)v;
    }
}

/* A model whose embedding [2, 256] is of this type. */
static void check_type(const json_t *row)
{
    const char *name = json_string_value(json_object_get(row, "name"));
    const char *blocks = json_string_value(json_object_get(row, "blocks"));
    const char *floats = json_string_value(json_object_get(row, "floats"));
    uint32_t number = (uint32_t)json_integer_value(json_object_get(row, "number"));
    unsigned char raw[2048];
    float want[512], got[512];
    hf_model *model = NULL;
    maker m;

    if (!CHECK(strlen(blocks) / 2 <= sizeof(raw) && strlen(floats) / 2 == sizeof(want)))
        return;
    from_hex(raw, blocks, strlen(blocks) / 2);
    from_hex((unsigned char *)want, floats, sizeof(want));
    make_begin(&m);
    key_str(&m, "general.architecture", "qwen2");
    arch_u32(&m, "qwen2", "block_count", 1);
    arch_u32(&m, "qwen2", "context_length", 8);
    arch_u32(&m, "qwen2", "embedding_length", 256);
    arch_u32(&m, "qwen2", "feed_forward_length", 2);
    arch_u32(&m, "qwen2", "attention.head_count", 8);
    arch_u32(&m, "qwen2", "attention.head_count_kv", 1);
    static const char *const two[] = {"a", "b"};
    key_str(&m, "tokenizer.ggml.model", "gpt2");
    key_strs(&m, "tokenizer.ggml.tokens", two, 2);
    key_strs(&m, "tokenizer.ggml.merges", two, 0);
    tensor(&m, "token_embd.weight", 2, 256, number, raw, strlen(blocks) / 2);
    tensor_f32(&m, "blk.0.attn_norm.weight", 0, 256, 0);
    tensor_f32(&m, "blk.0.ffn_norm.weight", 0, 256, 0);
    tensor_f32(&m, "blk.0.attn_q.weight", 256, 256, 0);
    tensor_f32(&m, "blk.0.attn_k.weight", 32, 256, 0);
    tensor_f32(&m, "blk.0.attn_v.weight", 32, 256, 0);
    tensor_f32(&m, "blk.0.attn_q.bias", 0, 256, 0);
    tensor_f32(&m, "blk.0.attn_k.bias", 0, 32, 0);
    tensor_f32(&m, "blk.0.attn_v.bias", 0, 32, 0);
    tensor_f32(&m, "blk.0.attn_output.weight", 256, 256, 0);
    tensor_f32(&m, "blk.0.ffn_gate.weight", 2, 256, 0);
    tensor_f32(&m, "blk.0.ffn_up.weight", 2, 256, 0);
    tensor_f32(&m, "blk.0.ffn_down.weight", 256, 2, 0);
    tensor_f32(&m, "output_norm.weight", 0, 256, 0);
    if (!CHECK_OK(open_made(&m, &model)))
        return;
    CHECK_STR(hf_tensor_type(model, 0), name);
    CHECK_OK(hf_embed_read(model, got, 0, 2));
    if (!CHECK_MEM(got, want, sizeof(want)))
        (void)printf("  type %s\n", name);
    CHECK_OK(hf_embed_read(model, got, 1, 1)); /* the second row alone */
    CHECK_MEM(got, want + 256, 256 * sizeof(float));
    hf_model_close(model);
}

static json_t *golden(void)
{
    json_t *g = NULL;

    if (dr_json_read(&g, DRUPE_SOURCE_DIR "/tests/golden/hf/gguf_blocks.json") != DR_OK) {
        SKIP("tests/golden/hf/gguf_blocks.json is missing");
        return NULL;
    }
    return g;
}

static void test_types(const json_t *g)
{
    const json_t *rows = json_object_get(g, "types");

    if (g == NULL)
        return;
    CHECK_EQ_INT(json_array_size(rows), 15);
    for (size_t i = 0; i < json_array_size(rows); i++)
        check_type(json_array_get(rows, i));
}

/* llama.cpp keeps x0 y0 x1 y1 ..; Hugging Face x0 x1 .. y0 y1 .. */
static void test_row_order(void)
{
    hf_model *model = NULL;
    const hf_linear *l = NULL;
    float rows[D * D], bias[D];
    maker m;

    tiny(&m, "llama");
    tensor_f32(&m, "blk.0.attn_q.bias", 0, D, 0);
    tensor_f32(&m, "blk.0.attn_k.bias", 0, HEAD, 0);
    tensor_f32(&m, "blk.0.attn_v.bias", 0, HEAD, 0);
    tensor_f32(&m, "blk.0.attn_output.bias", 0, D, 0);
    if (!CHECK_OK(open_made(&m, &model)))
        return;
    CHECK_EQ_INT(hf_layer_linears(model, 0, &l), 7);
    CHECK_STR(l[0].path, "model.layers.0.self_attn.q_proj");
    CHECK(l[0].has_bias);
    CHECK_OK(hf_linear_read(model, &l[0], rows, 0, D));
    CHECK_OK(hf_linear_bias(model, &l[0], bias));
    for (int r = 0; r < D; r++) {
        int in = r % HEAD, from = r - in + in % (HEAD / 2) * 2 + in / (HEAD / 2);

        CHECK(rows[r * D] == (float)(10000 + from * D));
        CHECK(rows[r * D + 5] == (float)(10000 + from * D + 5));
        CHECK(bias[r] == (float)(from));
    }
    CHECK_OK(hf_linear_read(model, &l[1], rows, 9, 2)); /* k, from the middle */
    CHECK(rows[0] == (float)(20000 + 3 * D));
    CHECK(rows[D] == (float)(20000 + 5 * D));
    CHECK_OK(hf_linear_read(model, &l[2], rows, 9, 1)); /* v is as it was */
    CHECK(rows[0] == (float)(30000 + 9 * D));
    /* Turned rows are not shown as what they are not. */
    const dr_tensor *t = hf_tensor_find(model, "model.layers.0.self_attn.q_proj.weight");
    CHECK(t != NULL && t->dtype == DR_DTYPE_U8 && t->ndim == 1 && t->bytes == 4 * D * D);
    t = hf_tensor_find(model, "model.layers.0.self_attn.v_proj.weight");
    CHECK(t != NULL && t->dtype == DR_DTYPE_F32 && t->ndim == 2 && t->dims[0] == HEAD);
    hf_model_close(model);
}

/* ---- config ---- */

static json_int_t int_of(const json_t *o, const char *key)
{
    return json_is_integer(json_object_get(o, key))
               ? json_integer_value(json_object_get(o, key))
               : -999;
}

static double real_of(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static const char *str_of(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static void test_config(void)
{
    hf_model *model = NULL;
    maker m;

    tiny(&m, "llama");
    key_f32(&m, "llama.rope.freq_base", 500000);
    key_f32(&m, "llama.attention.layer_norm_rms_epsilon", 1e-5F);
    tensor_f32(&m, "output.weight", V, D, 0);
    if (!CHECK_OK(open_made(&m, &model)))
        return;
    const json_t *c = hf_model_config_json(model),
                 *rope = dr_json_get(c, "rope_parameters");
    CHECK_STR(str_of(c, "model_type"), "llama");
    CHECK_STR(json_string_value(json_array_get(dr_json_get(c, "architectures"), 0)),
              "LlamaForCausalLM");
    CHECK_EQ_INT(int_of(c, "vocab_size"), V);
    CHECK_EQ_INT(int_of(c, "num_key_value_heads"), KV_HEADS);
    CHECK_EQ_INT(int_of(c, "max_position_embeddings"), 64);
    CHECK_EQ_INT(int_of(c, "eos_token_id"), 1);
    CHECK(json_is_null(json_object_get(c, "bos_token_id")));
    CHECK(json_is_false(json_object_get(c, "tie_word_embeddings")));
    CHECK(json_is_null(json_object_get(c, "rope_scaling")));
    CHECK(real_of(c, "rms_norm_eps") == 1e-5); /* the shortest, not 9.99999974e-06 */
    CHECK(real_of(c, "rope_theta") == 500000);
    CHECK(real_of(rope, "rope_theta") == 500000);
    CHECK_STR(str_of(rope, "rope_type"), "default");
    CHECK_STR(str_of(c, "torch_dtype"), "float32");
    CHECK_STR(hf_model_origin(model), "gguf F32");
    CHECK(hf_model_is_gguf(model));
    CHECK(!hf_model_config(model)->tied);
    /* What ends a turn: eos first, then by text. */
    const json_t *eos = json_object_get(hf_model_generation_json(model), "eos_token_id");
    CHECK_EQ_INT(json_array_size(eos), 2);
    CHECK_EQ_INT(json_integer_value(json_array_get(eos, 0)), 1);
    CHECK_EQ_INT(json_integer_value(json_array_get(eos, 1)), 0);
    hf_model_close(model);
}

static void test_llama3_rope(void)
{
    /* theta 500000, 16 dimensions, factor 8: what llama.cpp's converter writes. */
    static const float table[HEAD / 2] = {1, 1, 1, 1, 2.6945300F, 8, 8, 8};
    float wrong[HEAD / 2];
    hf_model *model = NULL;
    maker m;

    tiny(&m, "llama");
    key_f32(&m, "llama.rope.freq_base", 500000);
    tensor(&m, "rope_freqs.weight", 0, HEAD / 2, 0, table, sizeof(table));
    if (CHECK_OK(open_made(&m, &model))) {
        const json_t *c = hf_model_config_json(model);
        const json_t *s = dr_json_get(c, "rope_scaling");
        CHECK_STR(str_of(s, "rope_type"), "llama3");
        CHECK_NEAR(real_of(s, "factor"), 8, 0);
        CHECK_EQ_INT(int_of(s, "original_max_position_embeddings"), 8192);
        CHECK_STR(str_of(dr_json_get(c, "rope_parameters"), "rope_type"), "llama3");
        CHECK(hf_model_config(model)->rope.kind == HF_ROPE_LLAMA3);
        CHECK(hf_tensor_find(model, "rope_freqs.weight") == NULL);
    }
    hf_model_close(model);

    /* Element 4 turns once in 4442.88 positions; s = (16384 / 4442.88 - 1) / 3 = 0.8958985
     * where the context was 16384, and 1 / ((1 - s) / 8 + s) is this. */
    memcpy(wrong, table, sizeof(wrong));
    wrong[4] = 1.1002175F;
    tiny(&m, "llama");
    key_f32(&m, "llama.rope.freq_base", 500000);
    tensor(&m, "rope_freqs.weight", 0, HEAD / 2, 0, wrong, sizeof(wrong));
    if (CHECK_OK(open_made(&m, &model)))
        CHECK_EQ_INT(hf_model_config(model)->rope.original_max, 16384);
    hf_model_close(model);

    memcpy(wrong, table, sizeof(wrong));
    wrong[3] = wrong[4] = 2; /* no context gives both */
    tiny(&m, "llama");
    key_f32(&m, "llama.rope.freq_base", 500000);
    tensor(&m, "rope_freqs.weight", 0, HEAD / 2, 0, wrong, sizeof(wrong));
    refused(&m, DR_EUNSUPPORTED, "Llama 3's formula");
}

static void test_phi3(void)
{
    static const float shrt[4] = {1, 1.5F, 2, 3}, lng[4] = {2, 3, 4, 5};
    hf_model *model = NULL;
    const hf_linear *l = NULL;
    float row[D];
    maker m;

    make_begin(&m);
    sizes(&m, "phi3");
    byte_tokenizer(&m, "gpt-4o");
    key_u32(&m, "phi3.rope.dimension_count", 8);
    key_u32(&m, "phi3.rope.scaling.original_context_length", 16);
    key_u32(&m, "phi3.attention.sliding_window", 32);
    tensor_f32(&m, "token_embd.weight", V, D, 0);
    tensor_f32(&m, "blk.0.attn_qkv.weight", 2 * D, D, 0);
    tensor_f32(&m, "blk.0.ffn_up.weight", 2 * I, D, 100);
    rest_of_layer(&m);
    tensor(&m, "rope_factors_short.weight", 0, 4, 0, shrt, sizeof(shrt));
    tensor(&m, "rope_factors_long.weight", 0, 4, 0, lng, sizeof(lng));
    if (!CHECK_OK(open_made(&m, &model)))
        return;
    const json_t *c = hf_model_config_json(model), *s = dr_json_get(c, "rope_scaling");
    CHECK_EQ_INT(json_object_size(s), 3); /* transformers 4 takes no other number */
    CHECK_STR(str_of(s, "type"), "longrope");
    CHECK_NEAR(json_number_value(json_array_get(dr_json_get(s, "short_factor"), 1)), 1.5,
               0);
    CHECK_EQ_INT(int_of(c, "original_max_position_embeddings"), 16);
    CHECK_NEAR(real_of(c, "partial_rotary_factor"), 0.5, 0);
    CHECK_EQ_INT(int_of(c, "sliding_window"), 32);
    CHECK_EQ_INT(hf_model_config(model)->rope.rotary_dim, 8);
    CHECK_EQ_INT(hf_layer_linears(model, 0, &l), 4);
    CHECK_STR(l[2].path, "model.layers.0.mlp.gate_up_proj");
    CHECK_OK(hf_linear_read(model, &l[2], row, 1, 1));
    CHECK(row[0] == (float)(100 + D));
    hf_model_close(model);
}

static void test_linear_rope(void)
{
    hf_model *model = NULL;
    maker m;

    tiny(&m, "llama");
    key_str(&m, "llama.rope.scaling.type", "linear");
    key_f32(&m, "llama.rope.scaling.factor", 4);
    if (CHECK_OK(open_made(&m, &model)))
        CHECK(hf_model_config(model)->rope.kind == HF_ROPE_LINEAR &&
              hf_model_config(model)->rope.factor == 4);
    hf_model_close(model);
    tiny(&m, "llama");
    key_str(&m, "llama.rope.scaling.type", "dynamic");
    refused(&m, DR_EUNSUPPORTED, "rope.scaling.type: dynamic");
}

/* attn_factor is on top of yarn's own, 1 + ln(factor) / 10. */
static void test_yarn_rope(void)
{
    hf_model *model = NULL;
    maker m;

    tiny(&m, "llama");
    key_str(&m, "llama.rope.scaling.type", "yarn");
    key_f32(&m, "llama.rope.scaling.factor", 4);
    key_u32(&m, "llama.rope.scaling.original_context_length", 16);
    key_f32(&m, "llama.rope.scaling.yarn_beta_fast", 8);
    key_f32(&m, "llama.rope.scaling.attn_factor", 0.5F);
    if (CHECK_OK(open_made(&m, &model))) {
        const hf_rope *r = &hf_model_config(model)->rope;
        CHECK(r->kind == HF_ROPE_YARN);
        CHECK_NEAR(r->factor, 4, 0);
        CHECK_EQ_INT(r->original_max, 16);
        CHECK_NEAR(r->beta_fast, 8, 0);
        CHECK_NEAR(r->beta_slow, 1, 0);
        CHECK_NEAR(r->attention_factor, 0.5 * (1 + 0.1 * log(4)), 1e-6);
    }
    hf_model_close(model);
    tiny(&m, "llama");
    key_str(&m, "llama.rope.scaling.type", "yarn");
    key_f32(&m, "llama.rope.scaling.factor", 4);
    refused(&m, DR_EFORMAT, "llama.rope.scaling.original_context_length is missing");
}

/* ---- tokenizer ---- */

static const char *step_type(const json_t *tokenizer, const char *key, const char *list,
                             size_t i)
{
    const json_t *steps = dr_json_get(dr_json_get(tokenizer, key), list);

    return str_of(json_array_get(steps, i), "type");
}

static void test_byte_level(void)
{
    hf_model *model = NULL;
    json_t *t = NULL, *c = NULL;
    maker m;

    tiny(&m, "llama");
    key_str(&m, "tokenizer.chat_template", "{{ messages }}");
    if (!CHECK_OK(open_made(&m, &model)) || !CHECK_OK(hf_model_tokenizer(model, &t, &c)))
        return;
    const json_t *bpe = dr_json_get(t, "model"), *vocab = dr_json_get(bpe, "vocab");
    CHECK_EQ_INT(json_object_size(vocab), V - 1); /* without [PAD7] */
    CHECK_EQ_INT(int_of(vocab, "ab"), 4);
    CHECK_STR(json_string_value(json_array_get(dr_json_get(bpe, "merges"), 0)), "a b");
    CHECK_EQ_INT(json_array_size(dr_json_get(t, "added_tokens")), 3);
    const json_t *x = json_array_get(dr_json_get(t, "added_tokens"), 2);
    CHECK_EQ_INT(int_of(x, "id"), 6);
    CHECK(json_is_false(json_object_get(x, "special")));
    CHECK_STR(step_type(t, "pre_tokenizer", "pretokenizers", 0), "Digits");
    CHECK_STR(step_type(t, "pre_tokenizer", "pretokenizers", 1), "ByteLevel");
    CHECK_STR(str_of(dr_json_get(t, "decoder"), "type"), "ByteLevel");
    CHECK(json_is_null(json_object_get(t, "post_processor")));
    CHECK_STR(str_of(c, "eos_token"), "<|im_end|>");
    CHECK(json_is_null(json_object_get(c, "bos_token")));
    CHECK_STR(str_of(c, "chat_template"), "{{ messages }}");
    CHECK_EQ_INT(int_of(c, "model_max_length"), 64);
    json_decref(t);
    json_decref(c);
    hf_model_close(model);
}

static void test_qwen_split(void)
{
    hf_model *model = NULL;
    json_t *t = NULL, *c = NULL;
    maker m;

    make_begin(&m);
    sizes(&m, "llama");
    byte_tokenizer(&m, "qwen2");
    split_tensors(&m);
    if (!CHECK_OK(open_made(&m, &model)) || !CHECK_OK(hf_model_tokenizer(model, &t, &c)))
        return;
    const json_t *steps = dr_json_get(dr_json_get(t, "pre_tokenizer"), "pretokenizers");
    CHECK_STR(str_of(dr_json_get(json_array_get(steps, 0), "pattern"), "Regex"),
              "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
              "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+");
    CHECK_STR(str_of(dr_json_get(t, "normalizer"), "type"), "NFC");
    CHECK_STR(str_of(c, "tokenizer_class"), "Qwen2Tokenizer");
    json_decref(t);
    json_decref(c);
    hf_model_close(model);
}

/* SentencePiece: merges by score, bos by default. */
static void test_scores(void)
{
    static const char *const pieces[V] = {"<unk>", "<s>", "</s>", "a",
                                          "b",     "ab",  "aba",  "<0x0A>"};
    static const int32_t kinds[V] = {2, 3, 3, 1, 1, 1, 1, 6};
    static const float scores[V] = {0, 0, 0, -4, -5, -2, -1, 0};
    static const char *const want[][2] = {{"ab", "a"}, {"a", "b"}};
    hf_model *model = NULL;
    json_t *t = NULL, *c = NULL;
    maker m;

    make_begin(&m);
    sizes(&m, "llama");
    key_str(&m, "tokenizer.ggml.model", "llama");
    key_strs(&m, "tokenizer.ggml.tokens", pieces, V);
    key_i32s(&m, "tokenizer.ggml.token_type", kinds, V);
    key_f32s(&m, "tokenizer.ggml.scores", scores, V);
    key_u32(&m, "tokenizer.ggml.bos_token_id", 1);
    key_u32(&m, "tokenizer.ggml.eos_token_id", 2);
    key_u32(&m, "tokenizer.ggml.unknown_token_id", 0);
    split_tensors(&m);
    if (!CHECK_OK(open_made(&m, &model)) || !CHECK_OK(hf_model_tokenizer(model, &t, &c)))
        return;
    const json_t *bpe = dr_json_get(t, "model"), *merges = dr_json_get(bpe, "merges");
    CHECK_EQ_INT(json_array_size(merges), 2);
    for (size_t i = 0; i < 2; i++)
        for (size_t j = 0; j < 2; j++)
            CHECK_STR(json_string_value(json_array_get(json_array_get(merges, i), j)),
                      want[i][j]);
    CHECK(json_is_true(json_object_get(bpe, "byte_fallback")));
    CHECK_STR(str_of(bpe, "unk_token"), "<unk>");
    CHECK_STR(step_type(t, "normalizer", "normalizers", 0), "Prepend");
    CHECK_STR(step_type(t, "decoder", "decoders", 1), "ByteFallback");
    const json_t *single = dr_json_get(dr_json_get(t, "post_processor"), "single");
    CHECK_EQ_INT(json_array_size(single), 2);
    CHECK_STR(str_of(dr_json_get(json_array_get(single, 0), "SpecialToken"), "id"), "<s>");
    CHECK(json_is_true(json_object_get(c, "add_bos_token")));
    json_decref(t);
    json_decref(c);
    hf_model_close(model);
}

/* ---- refused ---- */

static void test_refused(void)
{
    static const char *const twice[] = {"a"};
    maker m;

    tiny(&m, "llama");
    m.version = 1;
    refused(&m, DR_EUNSUPPORTED, "GGUF version 1");
    tiny(&m, "llama");
    m.version = 2; /* the same as 3 */
    hf_model *two = NULL;
    CHECK_OK(open_made(&m, &two));
    hf_model_close(two);
    tiny(&m, "llama");
    m.version = 0x03000000;
    refused(&m, DR_EUNSUPPORTED, "big-endian");
    tiny(&m, "llama");
    m.key_count = 1ULL << 60;
    refused(&m, DR_EFORMAT, "keys in");
    tiny(&m, "llama");
    m.tensor_count = 1ULL << 60;
    refused(&m, DR_EFORMAT, "tensors in");
    make_begin(&m);
    sizes(&m, "mamba");
    refused(&m, DR_EUNSUPPORTED, "architecture mamba");
    tiny(&m, "llama");
    key_u32(&m, "llama.expert_count", 8);
    refused(&m, DR_EUNSUPPORTED, "8 experts");
    tiny(&m, "llama");
    key_u32(&m, "split.count", 3);
    refused(&m, DR_EUNSUPPORTED, "parts of a model");
    tiny(&m, "llama");
    key_u32(&m, "llama.block_count", 1);
    refused(&m, DR_EFORMAT, "llama.block_count: the key is there twice");
    tiny(&m, "llama");
    key_array(&m, "nested", T_ARR, 0);
    refused(&m, DR_EUNSUPPORTED, "nested: an array of arrays");
    tiny(&m, "llama");
    key_array(&m, "long", T_F32, 1ULL << 62);
    refused(&m, DR_EFORMAT, "long: ");
    tiny(&m, "llama");
    key(&m, "strange", 77);
    refused(&m, DR_EFORMAT, "strange: value type 77");
    tiny(&m, "llama");
    key_u32(&m, "tokenizer.chat_template", 1);
    refused(&m, DR_EFORMAT, "tokenizer.chat_template: expected a string, found uint32");
    tiny(&m, "llama");
    key_str(&m, "tokenizer.chat_template", "\xff\xfe");
    refused(&m, DR_EFORMAT, "tokenizer.chat_template: not UTF-8");
    tiny(&m, "llama");
    key_u32(&m, "general.alignment", 24);
    refused(&m, DR_EFORMAT, "general.alignment: 24");
    tiny(&m, "llama");
    key_u32(&m, "tokenizer.ggml.bos_token_id", V);
    refused(&m, DR_EFORMAT, "bos_token_id: token 8 of 8");
    make_begin(&m);
    sizes(&m, "llama");
    byte_tokenizer(&m, "jais");
    split_tensors(&m);
    refused(&m, DR_EUNSUPPORTED, "tokenizer.ggml.pre: jais");
    make_begin(&m);
    sizes(&m, "llama");
    key_str(&m, "tokenizer.ggml.model", "gpt2");
    key_strs(&m, "tokenizer.ggml.tokens", twice, 1);
    key_strs(&m, "tokenizer.ggml.merges", tokens + 2, 1);
    split_tensors(&m);
    refused(&m, DR_EFORMAT, "merge 0 is no pair");
}

static void test_refused_tensors(void)
{
    maker m;

    tiny(&m, "llama");
    info(&m, "blk.0.attn_q_norm.weight", 0, D, 0, 0);
    refused(&m, DR_EUNSUPPORTED,
            "blk.0.attn_q_norm.weight: a llama model has no such tensor");
    tiny(&m, "llama");
    info(&m, "blk.1.attn_norm.weight", 0, D, 0, 0);
    refused(&m, DR_EUNSUPPORTED, "blk.1.attn_norm.weight");
    tiny(&m, "llama");
    info(&m, "t", 1, 256, 16, 0);
    refused(&m, DR_EUNSUPPORTED, "t: tensor type IQ2_XXS is not supported");
    tiny(&m, "llama");
    info(&m, "t", 1, 32, 99, 0);
    refused(&m, DR_EFORMAT, "t: tensor type 99");
    tiny(&m, "llama");
    info(&m, "t", 1, 33, 2, 0);
    refused(&m, DR_EFORMAT, "t: a row of 33 is not whole blocks of Q4_0");
    tiny(&m, "llama");
    info(&m, "t", 1ULL << 40, 1ULL << 40, 0, 0);
    refused(&m, DR_EFORMAT, "t: ");
    tiny(&m, "llama");
    info(&m, "t", 4, 0, 0, 0);
    refused(&m, DR_EFORMAT, "t: dimension 0 is 0");
    tiny(&m, "llama");
    info(&m, "t", 0, D, 0, 1ULL << 40);
    refused(&m, DR_EFORMAT, "t: 128 bytes at 1099511627776 pass the file's end");
    tiny(&m, "llama");
    info(&m, "t", 0, D, 0, 8);
    refused(&m, DR_EFORMAT, "t: offset 8 is not a multiple of 32");
    tiny(&m, "llama");
    info(&m, "token_embd.weight", V, D, 0, 0);
    refused(&m, DR_EFORMAT, "model.embed_tokens.weight");
}

/* Without waiting for the disk, as dr_write_file and a truncated file on ext4 do. */
static void put_bytes(const char *path, const char *data, size_t n)
{
    (void)unlink(path);
    FILE *f = fopen(path, "wb");

    if (CHECK(f != NULL)) {
        CHECK(fwrite(data, 1, n, f) == n);
        CHECK(fclose(f) == 0);
    }
}

/* Cut at every length, and every byte of the head turned over: a status, never a crash. */
static void test_damaged(void)
{
    const char *path = file_in("damaged.gguf");
    dr_buf whole = {0};
    hf_model *model = NULL;
    size_t opened = 0;
    maker m;

    tiny(&m, "llama");
    dr_buf_init(&whole, 1 << 24);
    make_bytes(&m, &whole);
    size_t head = whole.len - m.data.len;
    make_release(&m);
    for (size_t n = 0; n < whole.len; n += n < head ? 1 : 997) {
        put_bytes(path, whole.data, n);
        if (!CHECK(hf_model_open(&model, path) != DR_OK))
            hf_model_close(model);
    }
    for (size_t i = 0; i < head; i++) {
        whole.data[i] ^= (char)0xff;
        put_bytes(path, whole.data, whole.len);
        if (hf_model_open(&model, path) == DR_OK) {
            opened++; /* a letter of a token, say */
            hf_model_close(model);
        }
        whole.data[i] ^= (char)0xff;
    }
    CHECK(opened < head / 2);
    dr_buf_release(&whole);
}

/* ---- packaged models ---- */

static void check_hash(const json_t *want, const char *name, const float *v, size_t n)
{
    char hex[DR_SHA256_HEX];

    dr_sha256(hex, v, n * sizeof(float));
    if (!CHECK_STR(hex, str_of(want, name)))
        (void)printf("  %s\n", name);
}

static void check_linear(const hf_model *model, const json_t *want, int layer, size_t index)
{
    const hf_linear *l = NULL;
    char name[256];

    CHECK(index < hf_layer_linears(model, layer, &l));
    l += index;
    float *v = dr_calloc(l->n_out * l->n_in, sizeof(float));
    CHECK_OK(hf_linear_read(model, l, v, 0, l->n_out));
    (void)snprintf(name, sizeof(name), "%s.weight", l->path);
    check_hash(want, name, v, l->n_out * l->n_in);
    free(v);
}

static void check_packaged(const char *dir, const char *file, const json_t *want,
                           size_t token_count, size_t merge_count)
{
    hf_model *model = NULL;
    json_t *t = NULL, *c = NULL;
    char path[4096];

    (void)snprintf(path, sizeof(path), "%s/%s", dir ? dir : "", file);
    if (dir == NULL || want == NULL || !dr_is_file(path)) {
        if (strncmp(file, "smollm2", 7) == 0) /* tools/setup fetches it */
            SKIP("DRUPE_TEST_MODELS names no folder with smollm2-135m.gguf");
        else
            SKIP("oracle: DRUPE_TEST_MODELS holds no such GGUF file");
        return;
    }
    if (!CHECK_OK(hf_model_open(&model, path)))
        return;
    size_t width = (size_t)hf_model_config(model)->hidden;
    float *v = dr_calloc(1024 * width, sizeof(float));
    CHECK_OK(hf_embed_read(model, v, 0, 1024));
    check_hash(want, "model.embed_tokens.weight", v, 1024 * width);
    CHECK_OK(hf_norm_read(model, HF_NORM_FINAL, 0, v));
    check_hash(want, "model.norm.weight", v, width);
    free(v);
    check_linear(model, want, 0, 0);
    check_linear(model, want, 0, 1);
    check_linear(model, want, 1, 6);
    check_linear(model, want, 17, 2);
    if (CHECK_OK(hf_model_tokenizer(model, &t, &c))) {
        const json_t *bpe = dr_json_get(t, "model");
        CHECK_EQ_INT(json_object_size(dr_json_get(bpe, "vocab")), token_count);
        CHECK_EQ_INT(json_array_size(dr_json_get(bpe, "merges")), merge_count);
    }
    json_decref(t);
    json_decref(c);
    hf_model_close(model);
}

int main(void)
{
    const char *dir = getenv("DRUPE_TEST_MODELS");
    json_t *g = golden();
    const json_t *models = json_object_get(g, "models");

    test_types(g);
    test_row_order();
    test_config();
    test_llama3_rope();
    test_phi3();
    test_linear_rope();
    test_yarn_rope();
    test_byte_level();
    test_qwen_split();
    test_scores();
    test_refused();
    test_refused_tensors();
    test_damaged();
    check_packaged(dir, "smollm2-135m.gguf", json_object_get(models, "smollm2-135m.gguf"),
                   49152, 48900);
    check_packaged(dir, "qwen2.5-coder-0.5b.gguf",
                   json_object_get(models, "qwen2.5-coder-0.5b.gguf"), 151665, 151387);
    json_decref(g);
    return check_done();
}
