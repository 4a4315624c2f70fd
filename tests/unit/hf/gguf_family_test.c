/*
 * gguf_family_test.c - GGUF files of the families that differ from Llama, made from the
 * tiny models of tests/golden/families: the same config and the same numbers come out.
 */
#include "check.h"
#include "family.h"
#include "gguf_make.h"
#include "make_model.h"

static dr_arena arena;

static const struct {
    const char *hf, *gguf;
} names[] = {
    {"input_layernorm", "attn_norm"},
    {"post_attention_layernorm", "post_attention_norm"},
    {"pre_feedforward_layernorm", "ffn_norm"},
    {"post_feedforward_layernorm", "post_ffw_norm"},
    {"self_attn.q_norm", "attn_q_norm"},
    {"self_attn.k_norm", "attn_k_norm"},
    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},
    {"self_attn.o_proj", "attn_output"},
    {"mlp.gate_proj", "ffn_gate"},
    {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
};

/* four: a layer has four norms, where the second is no ffn_norm. */
static const char *gguf_name(const char *name, bool four)
{
    int layer = 0, at = 0;

    if (strncmp(name, "model.embed_tokens.", 19) == 0)
        return "token_embd.weight";
    if (strncmp(name, "model.norm.", 11) == 0)
        return "output_norm.weight";
    if (sscanf(name, "model.layers.%d.%n", &layer, &at) != 1)
        return "output.weight";
    if (!four && strncmp(name + at, "post_attention_layernorm.", 25) == 0)
        return dr_arena_printf(&arena, "blk.%d.ffn_norm.weight", layer);
    for (size_t i = 0; i < DR_COUNT(names); i++) {
        size_t n = strlen(names[i].hf);
        if (strncmp(name + at, names[i].hf, n) == 0 && name[at + (int)n] == '.')
            return dr_arena_printf(&arena, "blk.%d.%s%s", layer, names[i].gguf,
                                   name + at + n);
    }
    CHECK(false);
    return "";
}

static void put_key(maker *m, const char *arch, const char *name, const json_t *config,
                    const char *key)
{
    const json_t *v = dr_json_get(config, key);
    const char *full = dr_arena_printf(&arena, "%s.%s", arch, name);

    if (json_is_integer(v))
        key_u32(m, full, (uint32_t)json_integer_value(v));
    else if (json_is_real(v))
        key_f32(m, full, (float)json_real_value(v));
}

static void put_keys(maker *m, const char *arch, const json_t *c)
{
    const json_t *rope = dr_json_get(c, "rope_parameters");
    const json_t *full = dr_json_get(rope, "full_attention");

    rope = full != NULL ? full : rope;
    key_str(m, "general.architecture", arch);
    put_key(m, arch, "block_count", c, "num_hidden_layers");
    put_key(m, arch, "context_length", c, "max_position_embeddings");
    put_key(m, arch, "embedding_length", c, "hidden_size");
    put_key(m, arch, "feed_forward_length", c, "intermediate_size");
    put_key(m, arch, "attention.head_count", c, "num_attention_heads");
    put_key(m, arch, "attention.head_count_kv", c, "num_key_value_heads");
    put_key(m, arch, "attention.key_length", c, "head_dim");
    put_key(m, arch, "attention.value_length", c,
            dr_json_get(c, "value_dim") != NULL ? "value_dim" : "head_dim");
    put_key(m, arch, "attention.layer_norm_rms_epsilon", c, "rms_norm_eps");
    put_key(m, arch, "attention.sliding_window", c, "sliding_window");
    put_key(m, arch, "attn_logit_softcapping", c, "attn_logit_softcapping");
    put_key(m, arch, "final_logit_softcapping", c, "final_logit_softcapping");
    put_key(m, arch, "attention.sliding_window_pattern", c, "sliding_window_pattern");
    put_key(m, arch, "rope.freq_base", rope, "rope_theta");
    if (full != NULL) {
        key_f32(m, "gemma3.rope.freq_base_swa", 100);
        key_str(m, "gemma3.rope.scaling.type", "linear");
        put_key(m, arch, "rope.scaling.factor", rope, "factor");
    }
}

/* SentencePiece pieces as Gemma's file has them: blanks of user-defined ones as spaces. */
static void put_tokenizer(maker *m, size_t vocab)
{
    static const char *const first[] = {"<pad>", "<eos>", "<bos>", "<unk>",
                                        "  ",    "<td>",  "a",     "\xe2\x96\x81"};
    const char **pieces = dr_arena_alloc(&arena, vocab, sizeof(*pieces));
    int32_t *kinds = dr_arena_alloc(&arena, vocab, sizeof(*kinds));
    float *scores = dr_arena_alloc(&arena, vocab, sizeof(*scores));

    for (size_t i = 0; i < vocab; i++) {
        pieces[i] = i < DR_COUNT(first) ? first[i] : dr_arena_printf(&arena, "t%zu", i);
        kinds[i] = i < 4 ? 3 : i < 6 ? 4 : 1;
        scores[i] = -(float)i;
    }
    key_str(m, "tokenizer.ggml.model", "llama");
    key_strs(m, "tokenizer.ggml.tokens", pieces, vocab);
    key_i32s(m, "tokenizer.ggml.token_type", kinds, vocab);
    key_f32s(m, "tokenizer.ggml.scores", scores, vocab);
    key_u32(m, "tokenizer.ggml.bos_token_id", 2);
    key_u32(m, "tokenizer.ggml.eos_token_id", 1);
    key_u32(m, "tokenizer.ggml.unknown_token_id", 3);
    key_u32(m, "tokenizer.ggml.padding_token_id", 0);
    key_bool(m, "tokenizer.ggml.add_bos_token", true);
    key_bool(m, "tokenizer.ggml.add_space_prefix", false);
}

/* plus_one: norms are stored so, as the converter of Gemma does. */
static void put_tensors(maker *m, const json_t *golden, bool four, bool plus_one)
{
    const json_t *rows = json_object_get(golden, "tensors");

    for (size_t i = 0; i < json_array_size(rows); i++) {
        dr_tensor t = family_tensor(&arena, json_array_get(rows, i));
        size_t n = t.bytes / sizeof(float);
        float *v = dr_arena_alloc(&arena, n, sizeof(float));
        memcpy(v, t.data, t.bytes);
        for (size_t k = 0; plus_one && strstr(t.name, "norm.weight") != NULL && k < n; k++)
            v[k] += 1.0f;
        tensor(m, gguf_name(t.name, four), t.ndim == 2 ? (uint64_t)t.dims[0] : 0,
               (uint64_t)t.dims[t.ndim - 1], 0, v, t.bytes);
    }
}

static void check_tokenizer(const hf_model *m, bool gemma)
{
    json_t *t = NULL, *c = NULL;

    if (!CHECK_OK(hf_model_tokenizer(m, &t, &c)))
        return;
    const json_t *added = dr_json_get(t, "added_tokens"), *row = json_array_get(added, 4);
    CHECK_EQ_INT(json_array_size(added), 6);
    CHECK_STR(json_string_value(json_object_get(row, "content")), "  ");
    CHECK(json_is_false(json_object_get(row, "special")));
    CHECK(json_is_false(json_object_get(row, "normalized")));
    const json_t *steps = dr_json_get(dr_json_get(t, "normalizer"), "normalizers");
    CHECK_EQ_INT(json_array_size(steps), 1); /* no blank is put before a text */
    CHECK_STR(json_string_value(json_object_get(c, "tokenizer_class")),
              gemma ? "GemmaTokenizer" : "PreTrainedTokenizerFast");
    json_decref(t);
    json_decref(c);
}

static void check_config(const hf_config *a, const hf_config *b)
{
    CHECK_EQ_INT(a->arch, b->arch);
    CHECK_EQ_INT(a->act, b->act);
    CHECK_EQ_INT(a->head_dim, b->head_dim);
    CHECK_EQ_INT(a->tied, b->tied);
    CHECK_NEAR(a->embed_scale, b->embed_scale, 0);
    CHECK_NEAR(a->attn_softcap, b->attn_softcap, 0);
    CHECK_NEAR(a->logit_softcap, b->logit_softcap, 0);
    CHECK_NEAR(a->norm_eps, b->norm_eps, 0);
    CHECK_NEAR(a->attn_scale, 1 / sqrt(a->head_dim), 0); /* what llama.cpp takes */
    for (int i = 0; i < b->layers; i++) {
        const hf_rope *r = hf_layer_rope(a, i), *s = hf_layer_rope(b, i);
        CHECK_EQ_INT(hf_layer_window(a, i), hf_layer_window(b, i));
        CHECK_EQ_INT(r->kind, s->kind);
        CHECK_NEAR(r->theta, s->theta, 0);
        CHECK_NEAR(r->factor, s->factor, 0);
    }
}

static void test_family(const char *name)
{
    bool gemma = strncmp(name, "gemma", 5) == 0, four = gemma && name[5] != '\0';
    json_t *golden = family_golden(&arena, name);
    const json_t *config = json_object_get(json_object_get(golden, "configs"), "5");
    const char *path = dr_arena_printf(&arena, "%s/%s.gguf", check_tmp(), name);
    hf_model *folder = NULL, *file = NULL;
    maker m;

    make_begin(&m);
    put_keys(&m, name, config);
    put_tokenizer(&m, (size_t)json_integer_value(json_object_get(config, "vocab_size")));
    put_tensors(&m, golden, four, gemma);
    make_file(&m, path);
    make_release(&m);
    if (CHECK_OK(hf_model_open(&folder, family_model(&arena, name, golden, config, 1))) &&
        CHECK_OK(hf_model_open(&file, path))) {
        check_config(hf_model_config(file), hf_model_config(folder));
        check_same_values(file, folder);
        check_tokenizer(file, gemma);
        /* A norm less than it is in the file is not shown as that file's floats. */
        const dr_tensor *t = hf_tensor_find(file, "model.norm.weight");
        CHECK_EQ_INT(t->dtype, gemma ? DR_DTYPE_U8 : DR_DTYPE_F32);
    }
    hf_model_close(folder);
    hf_model_close(file);
    json_decref(golden);
}

/* A Llama has no norm of q; Gemma's values are as long as its keys. */
static void test_refused(void)
{
    json_t *golden = family_golden(&arena, "qwen3");
    json_t *config =
        json_deep_copy(json_object_get(json_object_get(golden, "configs"), "5"));
    const char *path = dr_arena_printf(&arena, "%s/bad.gguf", check_tmp());
    hf_model *model = NULL;

    for (int i = 0; i < 3; i++) {
        static const char *const text[] = {
            "blk.0.attn_q_norm.weight: a qwen2 model has no such tensor",
            "attention.value_length: 24, but keys have 32",
            "architecture falcon is not supported"};
        static const char *const arch[] = {"qwen2", "gemma2", "falcon"};
        maker m;
        make_begin(&m);
        if (i == 1)
            json_object_set_new(config, "value_dim", json_integer(24));
        put_keys(&m, arch[i], config);
        put_tokenizer(&m, 40);
        put_tensors(&m, golden, false, false);
        make_file(&m, path);
        make_release(&m);
        dr_status st = hf_model_open(&model, path);
        CHECK(st == DR_EUNSUPPORTED || st == DR_EFORMAT);
        CHECK_TRAIL(text[i]);
        CHECK(model == NULL);
    }
    json_decref(config);
    json_decref(golden);
}

int main(void)
{
    test_family("gemma");
    test_family("gemma2");
    test_family("gemma3");
    test_family("qwen3");
    test_refused();
    dr_arena_release(&arena);
    return check_done();
}
