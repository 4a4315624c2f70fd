/*
 * gguf_tokenizer.c - tokenizer.json and tokenizer_config.json rebuilt from a GGUF's keys.
 *
 * tokenizer.ggml.model says which kind: "gpt2" is byte-level BPE, whose tokens and merges
 * are stored as tokenizer.json has them, "llama" is SentencePiece BPE with byte fallback,
 * whose merges follow from the scores.  Both keep each token's id.
 *
 * What must hold:
 *   1. Tokens that the file marks control, unknown or user-defined are added tokens: they
 *      are found whole in a text before anything else.  None are normalized.
 *   2. Rows that only fill the embedding up ([PAD151665], unused) are no tokens.
 *   3. No default of a tokenizer class may creep in: bos, eos, unk and pad are always said,
 *      null for none.
 */
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "hf/gguf_impl.h"

enum {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN,
    TOKEN_CONTROL,
    TOKEN_USER,
    TOKEN_UNUSED,
    TOKEN_BYTE
};

typedef struct {
    const gguf_file *g;
    size_t count;
    gguf_text *tokens;          /* arena */
    const gguf_key *types;      /* borrowed; NULL: none */
    const gguf_key *scores;     /* borrowed; NULL: none */
    const gguf_key *merges;     /* borrowed; NULL: none */
    const gguf_pretok *pre;     /* NULL: SentencePiece */
    int64_t bos, eos, unk, pad; /* -1: none */
    bool add_bos, add_eos, add_space;
    json_t *vocab; /* borrowed from the tokenizer being built */
} maker;

static int type_of(const maker *t, size_t i)
{
    return t->types ? gguf_i32_at(t->types, i) : TOKEN_NORMAL;
}

static bool text_is(gguf_text t, const char *s)
{
    return strlen(s) == t.len && memcmp(t.text, s, t.len) == 0;
}

/* ---- reading the keys ---- */

static dr_status same_count(const maker *t, const gguf_key *k)
{
    if (k == NULL || k->count == t->count)
        return DR_OK;
    return dr_fail(DR_EFORMAT, "%s: %s: %zu elements for %zu tokens", t->g->path, k->key,
                   k->count, t->count);
}

static dr_status read_tokens(maker *t)
{
    const gguf_file *g = t->g;
    const gguf_key *tokens = NULL;
    void *list = NULL;
    dr_status st = DR_OK;

    DR_TRY(gguf_array(g, "tokenizer.ggml.tokens", GGUF_STRING, &tokens));
    if (tokens == NULL)
        DR_FAIL(DR_EFORMAT, "%s: tokenizer.ggml.tokens is missing", g->path);
    t->count = tokens->count;
    DR_TRY(dr_arena_big(&g->m->arena, &list, t->count, sizeof(gguf_text), "gguf tokens"));
    t->tokens = list;
    gguf_cursor c = gguf_strings(g, tokens);
    for (size_t i = 0; i < t->count; i++)
        t->tokens[i] = gguf_next_string(&c);
    DR_TRY(gguf_array(g, "tokenizer.ggml.token_type", GGUF_I32, &t->types));
    DR_TRY(same_count(t, t->types));
    DR_TRY(gguf_array(g, "tokenizer.ggml.scores", GGUF_F32, &t->scores));
    DR_TRY(same_count(t, t->scores));
    DR_TRY(gguf_array(g, "tokenizer.ggml.merges", GGUF_STRING, &t->merges));
    int64_t count = (int64_t)t->count;
    DR_TRY(gguf_token_id(g, "bos_token_id", count, &t->bos));
    DR_TRY(gguf_token_id(g, "eos_token_id", count, &t->eos));
    DR_TRY(gguf_token_id(g, "unknown_token_id", count, &t->unk));
    DR_TRY(gguf_token_id(g, "padding_token_id", count, &t->pad));
done:
    return st;
}

/* The kind, and how text is cut. */
static dr_status read_kind(maker *t)
{
    const char *kind = NULL, *pre = "default";
    dr_status st = DR_OK;

    DR_TRY(gguf_str(t->g, "tokenizer.ggml.model", &kind));
    if (kind == NULL)
        DR_FAIL(DR_EFORMAT, "%s: tokenizer.ggml.model is missing", t->g->path);
    if (strcmp(kind, "gpt2") == 0) {
        DR_TRY(gguf_str(t->g, "tokenizer.ggml.pre", &pre));
        t->pre = gguf_pretok_find(pre);
        if (t->pre == NULL) {
            st = dr_fail(DR_EUNSUPPORTED, "%s: tokenizer.ggml.pre: %s is not supported",
                         t->g->path, pre);
            dr_hint("supported: %s", gguf_pretok_names(&t->g->m->arena));
            return st;
        }
        if (t->merges == NULL)
            DR_FAIL(DR_EFORMAT, "%s: tokenizer.ggml.merges is missing", t->g->path);
    } else if (strcmp(kind, "llama") != 0) {
        st = dr_fail(DR_EUNSUPPORTED, "%s: tokenizer.ggml.model: %s is not supported",
                     t->g->path, kind);
        dr_hint("supported: gpt2 (byte-level BPE), llama (SentencePiece BPE)");
        return st;
    } else if (t->scores == NULL && t->merges == NULL) {
        DR_FAIL(DR_EFORMAT, "%s: tokenizer.ggml.scores is missing", t->g->path);
    }
    /* What files leave unsaid is what llama.cpp takes. */
    t->add_bos = t->pre ? t->pre->add_bos : true;
    t->add_space = t->pre == NULL;
    DR_TRY(gguf_bool(t->g, "tokenizer.ggml.add_bos_token", &t->add_bos));
    DR_TRY(gguf_bool(t->g, "tokenizer.ggml.add_eos_token", &t->add_eos));
    DR_TRY(gguf_bool(t->g, "tokenizer.ggml.add_space_prefix", &t->add_space));
    t->add_bos = t->add_bos && t->bos >= 0;
    t->add_eos = t->add_eos && t->eos >= 0;
done:
    return st;
}

/* ---- model ---- */

/* A row that only fills the embedding up to a round size, named by its number. */
static bool is_filler(const maker *t, size_t i)
{
    char name[32];

    if (type_of(t, i) != TOKEN_UNUSED)
        return false;
    (void)snprintf(name, sizeof(name), "[PAD%zu]", i);
    return text_is(t->tokens[i], name);
}

static dr_status add_vocab(maker *t)
{
    for (size_t i = 0; i < t->count; i++) {
        gguf_text s = t->tokens[i];

        if (is_filler(t, i))
            continue;
        const json_t *old = json_object_getn(t->vocab, s.text, s.len);
        if (old != NULL)
            dr_log(DR_WARNING, "%s: token %zu has the text of token %lld, which it hides",
                   t->g->path, i, (long long)json_integer_value(old));
        if (json_object_setn_new(t->vocab, s.text, s.len, json_integer((json_int_t)i)) != 0)
            return dr_fail(DR_EFORMAT, "%s: tokenizer.ggml.tokens: token %zu is not UTF-8",
                           t->g->path, i);
    }
    return DR_OK;
}

/* SentencePiece without stored merges: normal pieces are what merging makes. */
static dr_status add_scored(const maker *t, json_t *merges)
{
    void *list = NULL;
    size_t n = 0;
    dr_status st = DR_OK;

    DR_BUG_IF(t->scores == NULL); /* read_kind asked for them */
    DR_TRY(dr_big_alloc(&list, t->count, sizeof(gguf_scored), "gguf pieces"));
    gguf_scored *pieces = list;
    for (size_t i = 0; i < t->count; i++)
        if (type_of(t, i) == TOKEN_NORMAL)
            pieces[n++] =
                (gguf_scored){t->tokens[i], (uint32_t)i, gguf_f32_at(t->scores, i)};
    DR_TRY(gguf_scored_merges(t->g, pieces, n, t->vocab, merges));
done:
    dr_big_free(list);
    return st;
}

static json_t *token_text(const maker *t, int64_t id)
{
    if (id < 0)
        return json_null();
    json_t *s = json_stringn(t->tokens[id].text, t->tokens[id].len);
    DR_BUG_IF(s == NULL); /* add_vocab found it to be UTF-8 */
    return s;
}

static dr_status put_model(maker *t, json_t *tokenizer)
{
    bool spm = t->pre == NULL;
    json_t *model = json_object(), *merges = json_array();
    dr_status st = DR_OK;

    gguf_put(tokenizer, "model", model);
    gguf_put(model, "type", json_string("BPE"));
    gguf_put(model, "dropout", json_null());
    t->vocab = json_object();
    gguf_put(model, "vocab", t->vocab);
    gguf_put(model, "merges", merges);
    DR_TRY(add_vocab(t));
    gguf_put(model, "unk_token", spm ? token_text(t, t->unk) : json_null());
    gguf_put(model, "continuing_subword_prefix", json_null());
    gguf_put(model, "end_of_word_suffix", json_null());
    gguf_put(model, "fuse_unk", json_boolean(spm));
    gguf_put(model, "byte_fallback", json_boolean(spm));
    gguf_put(model, "ignore_merges", json_boolean(!spm && t->pre->ignore_merges));
    if (t->merges != NULL)
        DR_TRY(gguf_stored_merges(t->g, t->merges, t->vocab, merges));
    else
        DR_TRY(add_scored(t, merges));
done:
    return st;
}

/* ---- added tokens ---- */

/* Qwen's tokens for code, which read like special ones (so that llama.cpp's converter marks
 * them control) but are not: they are kept when ids are turned to text. */
static bool is_plain_control(const maker *t, size_t i)
{
    static const char *const names[] = {
        "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>",
        "<|fim_pad|>",    "<|repo_name|>",  "<|file_sep|>",
    };

    if (t->pre == NULL || strcmp(t->pre->name, "qwen2") != 0)
        return false;
    for (size_t j = 0; j < DR_COUNT(names); j++)
        if (text_is(t->tokens[i], names[j]))
            return true;
    return false;
}

/* Phi-3's tokens swallow the spaces after them, but for three. */
static bool strips_right(const maker *t, size_t i)
{
    return t->g->family == HF_ARCH_PHI3 && t->pre == NULL &&
           !text_is(t->tokens[i], "<unk>") && !text_is(t->tokens[i], "<s>") &&
           !text_is(t->tokens[i], "<|endoftext|>");
}

/* NULL: not an added token. */
static json_t *added_token(const maker *t, size_t i)
{
    int type = type_of(t, i);
    int64_t id = (int64_t)i;
    bool special = type == TOKEN_CONTROL || type == TOKEN_UNKNOWN || id == t->bos ||
                   id == t->eos || id == t->unk || id == t->pad;

    if (!special && type != TOKEN_USER)
        return NULL;
    return json_pack("{s:o, s:b, s:b, s:b, s:b, s:b}", "content", token_text(t, id),
                     "single_word", 0, "lstrip", 0, "rstrip", strips_right(t, i),
                     "normalized", 0, "special", special && !is_plain_control(t, i));
}

/* The list of tokenizer.json, and the same by id for tokenizer_config.json. */
static void put_added(const maker *t, json_t *tokenizer, json_t *config)
{
    json_t *list = json_array(), *by_id = json_object();
    char key[32];

    for (size_t i = 0; i < t->count; i++) {
        json_t *token = added_token(t, i);

        if (token == NULL)
            continue;
        json_t *row = json_pack("{s:I}", "id", (json_int_t)i);
        DR_BUG_IF(json_object_update(row, token) != 0);
        (void)json_array_append_new(list, row);
        (void)snprintf(key, sizeof(key), "%zu", i);
        gguf_put(by_id, key, token);
    }
    gguf_put(tokenizer, "added_tokens", list);
    gguf_put(config, "added_tokens_decoder", by_id);
}

/* ---- post-processor ---- */

static json_t *special_step(const maker *t, int64_t id, int type_id)
{
    return json_pack("{s:{s:o, s:i}}", "SpecialToken", "id", token_text(t, id), "type_id",
                     type_id);
}

static void add_sequence(const maker *t, json_t *steps, const char *name, int type_id)
{
    if (t->add_bos)
        (void)json_array_append_new(steps, special_step(t, t->bos, type_id));
    (void)json_array_append_new(
        steps, json_pack("{s:{s:s, s:i}}", "Sequence", "id", name, "type_id", type_id));
    if (t->add_eos)
        (void)json_array_append_new(steps, special_step(t, t->eos, type_id));
}

/* bos and eos around a text, where the model wants them. */
static void put_template(const maker *t, json_t *tokenizer)
{
    json_t *single = json_array(), *pair = json_array(), *specials = json_object();
    const int64_t ids[2] = {t->add_bos ? t->bos : -1, t->add_eos ? t->eos : -1};

    add_sequence(t, single, "A", 0);
    add_sequence(t, pair, "A", 0);
    add_sequence(t, pair, "B", 1);
    for (int i = 0; i < 2; i++) {
        if (ids[i] < 0)
            continue;
        gguf_text s = t->tokens[ids[i]];
        json_t *row = json_pack("{s:o, s:[I], s:[o]}", "id", token_text(t, ids[i]), "ids",
                                (json_int_t)ids[i], "tokens", token_text(t, ids[i]));
        DR_BUG_IF(json_object_setn_new(specials, s.text, s.len, row) != 0);
    }
    gguf_put(tokenizer, "post_processor",
             json_pack("{s:s, s:o, s:o, s:o}", "type", "TemplateProcessing", "single",
                       single, "pair", pair, "special_tokens", specials));
}

/* ---- tokenizer_config.json ---- */

/*
 * The class whose algorithm this is.  Gemma's is named, since GenAI 0.18 merges its pieces
 * otherwise for PreTrainedTokenizerFast (9 of 3079 texts differed, 1 does under this name);
 * transformers 4 and 5 give the same ids for both.
 */
static const char *class_name(const maker *t)
{
    hf_arch f = t->g->family;

    if (t->pre != NULL)
        return t->pre->class_name;
    return f == HF_ARCH_GEMMA || f == HF_ARCH_GEMMA2 || f == HF_ARCH_GEMMA3
               ? "GemmaTokenizer"
               : "PreTrainedTokenizerFast";
}

static dr_status put_config(const maker *t, json_t *config)
{
    const char *chat = NULL;
    dr_status st = DR_OK;

    DR_TRY(gguf_str(t->g, "tokenizer.chat_template", &chat));
    gguf_put(config, "tokenizer_class", json_string(class_name(t)));
    gguf_put(config, "bos_token", token_text(t, t->bos));
    gguf_put(config, "eos_token", token_text(t, t->eos));
    gguf_put(config, "unk_token", token_text(t, t->unk));
    gguf_put(config, "pad_token", token_text(t, t->pad));
    gguf_put(config, "add_bos_token", json_boolean(t->add_bos));
    gguf_put(config, "add_eos_token", json_boolean(t->add_eos));
    gguf_put(config, "add_prefix_space", json_boolean(t->add_space));
    gguf_put(config, "clean_up_tokenization_spaces", json_false());
    gguf_put(config, "model_max_length",
             json_incref(json_object_get(t->g->m->config, "max_position_embeddings")));
    if (chat != NULL)
        gguf_put(config, "chat_template", json_string(chat));
done:
    return st;
}

dr_status gguf_make_tokenizer(gguf_file *g)
{
    maker t = {.g = g};
    json_t *tokenizer = json_object(), *config = json_object();
    dr_status st = DR_OK;

    DR_TRY(read_tokens(&t));
    DR_TRY(read_kind(&t));
    gguf_put(tokenizer, "version", json_string("1.0"));
    gguf_put(tokenizer, "truncation", json_null());
    gguf_put(tokenizer, "padding", json_null());
    gguf_put(tokenizer, "added_tokens", json_null());
    if (t.pre != NULL)
        gguf_pretok_put(tokenizer, t.pre);
    else
        gguf_metaspace_put(tokenizer, t.add_space);
    gguf_put(tokenizer, "post_processor", json_null());
    if (t.add_bos || t.add_eos)
        put_template(&t, tokenizer);
    DR_TRY(put_model(&t, tokenizer));
    put_added(&t, tokenizer, config);
    DR_TRY(put_config(&t, config));
    g->m->tokenizer = json_incref(tokenizer);
    g->m->tokenizer_config = json_incref(config);
done:
    json_decref(tokenizer);
    json_decref(config);
    return st;
}
