/*
 * writer_outer_test.c - the embedding and the head written by rows, and a tied model that
 * gets a head of its own: from safetensors, in shards, in another type, from a GGUF file.
 */
#include "make_model.h"

static dr_arena arena;

static hf_model *opened(const char *path)
{
    hf_model *m = NULL;

    CHECK_OK(hf_model_open(&m, path));
    return m;
}

/* [V][D] of out-up numbers that every type holds. */
static float *table(const hf_model *m, float first)
{
    const hf_config *c = hf_model_config(m);
    size_t n = (size_t)c->vocab * (size_t)c->hidden;
    float *v = dr_arena_alloc(&arena, n, sizeof(*v));

    for (size_t i = 0; i < n; i++)
        v[i] = first + (float)(i % 97) / 8;
    return v;
}

/* In pieces of three rows. */
static void give(hf_writer *w, const hf_model *m, hf_outer which, const float *v)
{
    size_t d = (size_t)hf_model_config(m)->hidden,
           vocab = (size_t)hf_model_config(m)->vocab;

    for (size_t i = 0; i < vocab; i += 3) {
        size_t n = vocab - i < 3 ? vocab - i : 3;
        CHECK_OK(hf_writer_outer(w, which, v + i * d, i, n));
    }
}

static void check_tables(const hf_model *out, const float *embed, const float *head)
{
    const hf_config *c = hf_model_config(out);
    size_t vocab = (size_t)c->vocab, n = vocab * (size_t)c->hidden;
    float *got = dr_arena_alloc(&arena, n, sizeof(*got));

    CHECK(!c->tied);
    CHECK_OK(hf_embed_read(out, got, 0, vocab));
    CHECK_MEM(got, embed, n * sizeof(*got));
    if (CHECK(hf_head_linear(out) != NULL))
        CHECK_OK(hf_linear_read(out, hf_head_linear(out), got, 0, vocab));
    CHECK_MEM(got, head, n * sizeof(*got));
}

/* All else is as it was. */
static void check_rest(const hf_model *m, const hf_model *out)
{
    for (size_t i = 0; i < hf_tensor_count(m); i++) {
        const dr_tensor *t = hf_tensor_at(m, i), *o = hf_tensor_find(out, t->name);
        bool outer = strcmp(t->name, "model.embed_tokens.weight") == 0 ||
                     strcmp(t->name, "lm_head.weight") == 0;
        if (CHECK(o != NULL) && !outer && t->dtype == o->dtype)
            CHECK_MEM(o->data, t->data, t->bytes);
    }
}

static void untie(const char *source, const char *name, uint64_t shard, dr_dtype dtype)
{
    const char *dir = tmp_dir(&arena, name);
    hf_model *m = opened(source), *out = NULL;
    hf_writer *w = NULL;

    if (m == NULL || !CHECK_OK(hf_writer_open(&w, dir, m, NULL)))
        return;
    const float *embed = table(m, -3), *head = table(m, 2);
    CHECK(hf_model_config(m)->tied);
    hf_writer_untie(w);
    if (shard > 0)
        hf_writer_shard_bytes(w, shard);
    if (dtype != DR_DTYPE_COUNT)
        hf_writer_dtype(w, dtype);
    give(w, m, HF_OUTER_HEAD, head);
    give(w, m, HF_OUTER_EMBED, embed);
    CHECK_STATUS(hf_writer_outer(w, HF_OUTER_HEAD, head, 0, 1), DR_EUSAGE);
    CHECK_TRAIL("lm_head.weight was written already");
    CHECK_OK(hf_writer_finish(w));
    hf_writer_close(w);
    out = opened(dir);
    if (out != NULL) {
        CHECK_EQ_INT(hf_tensor_count(out), hf_tensor_count(m) + 1);
        CHECK(json_is_false(
            json_object_get(hf_model_config_json(out), "tie_word_embeddings")));
        check_tables(out, embed, head);
        check_rest(m, out);
        const dr_tensor *t = hf_tensor_find(out, "lm_head.weight");
        CHECK(t->dtype == hf_tensor_find(out, "model.embed_tokens.weight")->dtype);
        CHECK(dtype == DR_DTYPE_COUNT || t->dtype == dtype);
    }
    hf_model_close(out);
    hf_model_close(m);
    if (shard == 0)
        return;
    json_t *index = NULL;
    CHECK(!dr_exists(dr_path_join(&arena, dir, "model.safetensors")));
    CHECK_OK(
        dr_json_read(&index, dr_path_join(&arena, dir, "model.safetensors.index.json")));
    CHECK(json_object_get(json_object_get(index, "weight_map"), "lm_head.weight") != NULL);
    json_decref(index);
}

/* A model whose head is its own keeps its place; its rows can be given, too. */
static void test_own_head(void)
{
    hf_model *m = opened(GOLDEN "llama"), *out = NULL;
    const char *dir = tmp_dir(&arena, "own");
    hf_writer *w = NULL;

    if (m == NULL || !CHECK(!hf_model_config(m)->tied) ||
        !CHECK_OK(hf_writer_open(&w, dir, m, NULL)))
        return;
    const float *embed = table(m, 0), *head = table(m, 1);
    hf_writer_untie(w);
    give(w, m, HF_OUTER_EMBED, embed);
    give(w, m, HF_OUTER_HEAD, head);
    CHECK_OK(hf_writer_finish(w));
    hf_writer_close(w);
    out = opened(dir);
    if (out != NULL) {
        CHECK_EQ_INT(hf_tensor_count(out), hf_tensor_count(m));
        check_tables(out, embed, head);
        check_rest(m, out);
    }
    hf_model_close(out);
    hf_model_close(m);
}

/* What is not given, or given in part, is told; nothing is taken from elsewhere. */
static void test_wrong(void)
{
    hf_model *m = opened(GOLDEN "qwen2");
    hf_writer *w = NULL;

    if (m == NULL)
        return;
    const float *v = table(m, 0);
    CHECK_OK(hf_writer_open(&w, tmp_dir(&arena, "tied"), m, NULL));
    CHECK_STATUS(hf_writer_outer(w, HF_OUTER_HEAD, v, 0, 1), DR_EUSAGE);
    CHECK_TRAIL("the head of a tied model is its embedding");
    hf_writer_close(w);
    CHECK_OK(hf_writer_open(&w, tmp_dir(&arena, "nothing"), m, NULL));
    hf_writer_untie(w);
    CHECK_STATUS(hf_writer_finish(w), DR_EUSAGE);
    CHECK_TRAIL("lm_head.weight was not given, and is not in the source");
    hf_writer_close(w);
    CHECK_OK(hf_writer_open(&w, tmp_dir(&arena, "part"), m, NULL));
    CHECK_OK(hf_writer_outer(w, HF_OUTER_EMBED, v, 0, 2));
    CHECK_STATUS(hf_writer_finish(w), DR_EUSAGE);
    CHECK_TRAIL("model.embed_tokens.weight: 2 of its rows were given");
    hf_writer_close(w);
    hf_model_close(m);
}

/* A tied model as a GGUF file, whose tensors have names and types of its own. */
static const char *as_gguf(void)
{
    static const char config[] =
        "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", "
        "\"hidden_size\": 32, \"intermediate_size\": 48, \"num_hidden_layers\": 2, "
        "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": 300, "
        "\"tie_word_embeddings\": true}";
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json"};
    const char *dir = make_model(&arena, "gguf", config, DR_DTYPE_F16);
    const char *path = dr_path_join(&arena, dir, "model.gguf");
    hf_gguf_report r = {0};

    for (size_t i = 0; i < DR_COUNT(names); i++)
        CHECK_OK(dr_copy_file(
            dr_path_join(&arena, dir, names[i]),
            dr_arena_printf(&arena, DRUPE_SOURCE_DIR "/tests/cli/toy/%s", names[i])));
    hf_model *m = opened(dir);
    if (m != NULL)
        CHECK_OK(hf_gguf_write(path, m, HF_GGUF_F16, "test", &r));
    hf_model_close(m);
    return path;
}

int main(void)
{
    untie(GOLDEN "qwen2", "plain", 0, DR_DTYPE_COUNT);
    untie(GOLDEN "qwen2", "shards", 4000, DR_DTYPE_COUNT);
    untie(GOLDEN "qwen2", "f32", 4000, DR_DTYPE_F32);
    untie(as_gguf(), "from_gguf", 0, DR_DTYPE_COUNT);
    test_own_head();
    test_wrong();
    dr_arena_release(&arena);
    return check_done();
}
