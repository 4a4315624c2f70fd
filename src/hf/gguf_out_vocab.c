/*
 * gguf_out_vocab.c - a tokenizer.json as a GGUF's keys; gguf_tokenizer.c reads them back.
 *
 * Two kinds have a name in llama.cpp: byte-level BPE ("gpt2"), whose merges are stored and
 * whose way to cut text must be one that llama.cpp knows by name (gguf_pretok.c), and BPE
 * with byte fallback, SentencePiece's ("llama").  There a piece has a score, and the best
 * pair is merged first; the list of merges is sorted by those scores, so a piece's score is
 * the place of the first merge that makes it, counted down.
 *
 * Rows of the embedding that no token has are filled up, [PAD128257], unused.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "hf/gguf_out_impl.h"

/* tokenizer.ggml.token_type, as llama.cpp numbers them. */
enum { NORMAL = 1, UNKNOWN, CONTROL, USER, UNUSED, BYTE };
enum { NAMES_MAX = 64 };

struct vocab {
    gguf_out *out;
    const json_t *tokenizer, *config, *model; /* borrowed; config may be NULL */
    size_t count;                             /* rows of the embedding */
    const char **texts;                       /* owned; borrowed texts, NULL: no token */
    size_t *lengths;                          /* owned */
    unsigned char *types;                     /* owned */
    bool pieces;                              /* SentencePiece's */
};

static dr_status refuse(const struct vocab *v, const char *what)
{
    dr_status st = dr_fail(DR_EUNSUPPORTED, "%s: tokenizer.json: %s has no form in GGUF",
                           hf_model_path(v->out->m), what);

    dr_hint("GGUF has byte-level BPE (%s) and SentencePiece's BPE",
            gguf_pretok_names(v->out->a));
    return st;
}

/* ---- tokens ---- */

static dr_status set_token(struct vocab *v, json_int_t id, const json_t *text_of,
                           const char *text, size_t n, int type)
{
    if (text_of != NULL) {
        text = json_string_value(text_of);
        n = json_string_length(text_of);
    }
    if (text == NULL || id < 0 || (uint64_t)id >= v->count)
        return dr_fail(DR_EFORMAT,
                       "%s: tokenizer.json: token %lld, the embedding has %zu rows",
                       hf_model_path(v->out->m), (long long)id, v->count);
    v->texts[id] = text;
    v->lengths[id] = n;
    v->types[id] = (unsigned char)type;
    return DR_OK;
}

static bool is_byte(const char *text)
{
    return strlen(text) == 6 && strncmp(text, "<0x", 3) == 0 && text[5] == '>';
}

static dr_status read_tokens(struct vocab *v)
{
    json_t *vocab = json_object_get(v->model, "vocab"), *id = NULL;
    const json_t *added = dr_json_get(v->tokenizer, "added_tokens");
    const char *unk = json_string_value(json_object_get(v->model, "unk_token"));
    const char *text = NULL;
    size_t n = 0;
    dr_status st = DR_OK;

    json_object_keylen_foreach(vocab, text, n, id)
    {
        int type = v->pieces && is_byte(text) ? BYTE : NORMAL;
        DR_TRY(set_token(v, json_integer_value(id), NULL, text, n, type));
    }
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *t = json_array_get(added, i);
        const json_t *content = json_object_get(t, "content");
        bool special = json_is_true(json_object_get(t, "special"));
        DR_TRY(set_token(v, json_integer_value(json_object_get(t, "id")), content, NULL, 0,
                         special ? CONTROL : USER));
    }
    for (size_t i = 0; v->pieces && unk != NULL && i < v->count; i++)
        if (v->texts[i] != NULL && strcmp(v->texts[i], unk) == 0)
            v->types[i] = UNKNOWN;
done:
    return st;
}

static void put_tokens(struct vocab *v)
{
    char filler[32];

    gguf_out_array(v->out, "tokenizer.ggml.tokens", GGUF_STRING, v->count);
    for (size_t i = 0; i < v->count; i++) {
        (void)snprintf(filler, sizeof(filler), "[PAD%zu]", i);
        if (v->texts[i] != NULL)
            gguf_out_text(v->out, v->texts[i], v->lengths[i]);
        else
            gguf_out_text(v->out, filler, strlen(filler));
    }
    gguf_out_array(v->out, "tokenizer.ggml.token_type", GGUF_I32, v->count);
    for (size_t i = 0; i < v->count; i++)
        gguf_out_raw(v->out, v->texts[i] != NULL ? v->types[i] : UNUSED, 4);
}

/* ---- merges ---- */

/* A merge, "left right" or ["left", "right"]: the bytes of both, and where right begins in
 * `pair`, which ends with a zero. */
static dr_status read_merge(const struct vocab *v, dr_buf *pair, size_t *left,
                            const json_t *merge, size_t i)
{
    const json_t *a = json_array_get(merge, 0), *b = json_array_get(merge, 1);
    const char *text = json_string_value(merge);
    const char *space = text ? strchr(text, ' ') : NULL;
    dr_status st = DR_OK;

    dr_buf_reset(pair);
    if (json_is_string(a) && json_is_string(b) && json_array_size(merge) == 2) {
        DR_TRY(dr_buf_add(pair, json_string_value(a), json_string_length(a)));
        *left = pair->len;
        DR_TRY(dr_buf_add(pair, json_string_value(b), json_string_length(b)));
    } else if (space != NULL) {
        *left = (size_t)(space - text);
        DR_TRY(dr_buf_add(pair, text, *left));
        DR_TRY(dr_buf_adds(pair, space + 1));
    } else {
        DR_FAIL(DR_EFORMAT, "%s: tokenizer.json: merge %zu is no pair",
                hf_model_path(v->out->m), i);
    }
done:
    return st;
}

/* Byte-level: the list as it is. */
static dr_status put_merges(struct vocab *v)
{
    const json_t *merges = dr_json_get(v->model, "merges");
    size_t n = json_array_size(merges), left = 0;
    dr_buf pair;
    dr_status st = DR_OK;

    dr_buf_init(&pair, 1 << 20);
    gguf_out_array(v->out, "tokenizer.ggml.merges", GGUF_STRING, n);
    for (size_t i = 0; i < n; i++) {
        DR_TRY(read_merge(v, &pair, &left, json_array_get(merges, i), i));
        const char *text =
            dr_arena_printf(v->out->a, "%.*s %s", (int)left, pair.data, pair.data + left);
        if (memchr(pair.data, ' ', pair.len) != NULL)
            DR_TRY(refuse(v, "a merge with a space"));
        gguf_out_text(v->out, text, strlen(text));
    }
done:
    dr_buf_release(&pair);
    return st;
}

static void put_float(gguf_out *o, float f)
{
    uint32_t bits = 0;

    memcpy(&bits, &f, sizeof(bits));
    gguf_out_raw(o, bits, 4);
}

/* SentencePiece: scores from the places of the merges. */
static dr_status put_scores(struct vocab *v)
{
    const json_t *merges = dr_json_get(v->model, "merges");
    json_t *vocab = json_object_get(v->model, "vocab");
    float *scores = dr_calloc(v->count, sizeof(float)), place = 0;
    size_t left = 0;
    dr_buf pair;
    dr_status st = DR_OK;

    dr_buf_init(&pair, 1 << 20);
    for (size_t i = 0; i < json_array_size(merges); i++) {
        DR_TRY(read_merge(v, &pair, &left, json_array_get(merges, i), i));
        const json_t *id = json_object_getn(vocab, pair.data, pair.len);
        if (id == NULL)
            DR_FAIL(DR_EFORMAT, "%s: tokenizer.json: merge %zu makes no token",
                    hf_model_path(v->out->m), i);
        float *score = &scores[json_integer_value(id)]; /* read_tokens checked the range */
        if (*score == 0)
            *score = -++place;
    }
    gguf_out_array(v->out, "tokenizer.ggml.scores", GGUF_F32, v->count);
    for (size_t i = 0; i < v->count; i++) {
        bool single = v->texts[i] != NULL && v->types[i] == NORMAL && scores[i] == 0;
        put_float(v->out, single ? -++place : scores[i]);
    }
done:
    free(scores);
    dr_buf_release(&pair);
    return st;
}

/* ---- special tokens ---- */

/* The id of a token by its text; -1: there is none. */
static int64_t id_of(const struct vocab *v, const char *text)
{
    for (size_t i = v->count; text != NULL && i-- > 0;)
        if (v->texts[i] != NULL && strcmp(v->texts[i], text) == 0)
            return (int64_t)i;
    return -1;
}

/* What tokenizer_config.json names, else what config.json numbers; -1: none. */
static int64_t special_id(const struct vocab *v, const char *name)
{
    const json_t *t = dr_json_get(v->config, name);
    const json_t *config = hf_model_config_json(v->out->m), *id = NULL;
    const char *text = json_string_value(t);
    char key[NAMES_MAX];

    if (json_is_object(t))
        text = json_string_value(json_object_get(t, "content"));
    if (text == NULL && strcmp(name, "unk_token") == 0)
        text = json_string_value(json_object_get(v->model, name));
    int64_t found = id_of(v, text);
    (void)snprintf(key, sizeof(key), "%s_id", name);
    id = dr_json_get(config, key);
    if (json_is_array(id))
        id = json_array_get(id, 0);
    if (found < 0 && json_is_integer(id) && json_integer_value(id) >= 0 &&
        (uint64_t)json_integer_value(id) < v->count)
        found = json_integer_value(id);
    return found;
}

/* The template's first and last steps, wherever it stands; NULL: none. */
static const json_t *find_template(const json_t *post)
{
    const char *type = json_string_value(json_object_get(post, "type"));
    const json_t *list = json_object_get(post, "processors");

    if (type != NULL && strcmp(type, "TemplateProcessing") == 0)
        return json_object_get(post, "single");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i);
        type = json_string_value(json_object_get(one, "type"));
        if (type != NULL && strcmp(type, "TemplateProcessing") == 0)
            return json_object_get(one, "single");
    }
    return NULL;
}

static bool is_special_step(const json_t *steps, size_t i)
{
    return json_object_get(json_array_get(steps, i), "SpecialToken") != NULL;
}

static void put_specials(struct vocab *v)
{
    static const struct {
        const char *name, *key;
    } rows[] = {
        {"bos_token", "tokenizer.ggml.bos_token_id"},
        {"eos_token", "tokenizer.ggml.eos_token_id"},
        {"unk_token", "tokenizer.ggml.unknown_token_id"},
        {"pad_token", "tokenizer.ggml.padding_token_id"},
    };
    const hf_config *c = hf_model_config(v->out->m);
    const json_t *steps = find_template(dr_json_get(v->tokenizer, "post_processor"));
    int64_t eos = special_id(v, "eos_token");
    size_t n = json_array_size(steps);

    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        int64_t id = special_id(v, rows[i].name);
        if (id >= 0)
            gguf_out_u32(v->out, rows[i].key, id);
    }
    /* A second token that ends a turn, of which generation_config.json may have many. */
    for (int i = 0; i < c->eos_count; i++) {
        if (c->eos[i] == eos || c->eos[i] < 0 || (size_t)c->eos[i] >= v->count)
            continue;
        gguf_out_u32(v->out, "tokenizer.ggml.eot_token_id", c->eos[i]);
        break;
    }
    gguf_out_bool(v->out, "tokenizer.ggml.add_bos_token",
                  n > 0 && is_special_step(steps, 0));
    gguf_out_bool(v->out, "tokenizer.ggml.add_eos_token",
                  n > 1 && is_special_step(steps, n - 1));
}

/* Does the normalizer put a space before the text? */
static bool adds_space(const json_t *tokenizer)
{
    const json_t *normalizer = dr_json_get(tokenizer, "normalizer");
    const json_t *steps = json_object_get(normalizer, "normalizers");
    const json_t *scheme =
        json_object_get(dr_json_get(tokenizer, "pre_tokenizer"), "prepend_scheme");
    const char *type = json_string_value(scheme);

    if (type != NULL)
        return strcmp(type, "never") != 0;
    for (size_t i = 0; i < json_array_size(steps); i++) {
        type = json_string_value(json_object_get(json_array_get(steps, i), "type"));
        if (type != NULL && strcmp(type, "Prepend") == 0)
            return true;
    }
    return false;
}

/* The template, or a list of them by name. */
static void put_templates(struct vocab *v)
{
    const json_t *t = dr_json_get(v->config, "chat_template");
    const char *names[NAMES_MAX];
    size_t n = 0;

    if (json_is_string(t))
        gguf_out_str(v->out, "tokenizer.chat_template", json_string_value(t));
    for (size_t i = 0; i < json_array_size(t); i++) {
        const json_t *one = json_array_get(t, i);
        const char *name = json_string_value(json_object_get(one, "name"));
        const char *text = json_string_value(json_object_get(one, "template"));
        if (name == NULL || text == NULL || n == NAMES_MAX)
            continue;
        if (strcmp(name, "default") == 0) {
            gguf_out_str(v->out, "tokenizer.chat_template", text);
            continue;
        }
        names[n++] = name;
        gguf_out_str(v->out, dr_arena_printf(v->out->a, "tokenizer.chat_template.%s", name),
                     text);
    }
    if (n == 0)
        return;
    gguf_out_array(v->out, "tokenizer.chat_templates", GGUF_STRING, n);
    for (size_t i = 0; i < n; i++)
        gguf_out_text(v->out, names[i], strlen(names[i]));
}

/* ---- the whole ---- */

static dr_status put_kind(struct vocab *v)
{
    const char *type = json_string_value(json_object_get(v->model, "type")), *why = NULL;
    bool ignore = json_is_true(json_object_get(v->model, "ignore_merges"));
    const gguf_pretok *pre = NULL;
    dr_status st = DR_OK;

    if (type == NULL || strcmp(type, "BPE") != 0)
        return refuse(v,
                      dr_arena_printf(v->out->a, "a %s model", type ? type : "nameless"));
    v->pieces = json_is_true(json_object_get(v->model, "byte_fallback"));
    if (!v->pieces) {
        pre = gguf_pretok_match(v->out->a, v->tokenizer, ignore, &why);
        if (pre == NULL)
            return refuse(v, why);
    }
    gguf_out_str(v->out, "tokenizer.ggml.model", pre ? "gpt2" : "llama");
    gguf_out_str(v->out, "tokenizer.ggml.pre", pre ? pre->name : "default");
    DR_TRY(read_tokens(v));
    put_tokens(v);
    DR_TRY(pre ? put_merges(v) : put_scores(v));
    if (pre == NULL)
        gguf_out_bool(v->out, "tokenizer.ggml.add_space_prefix", adds_space(v->tokenizer));
done:
    return st;
}

dr_status gguf_out_tokenizer(gguf_out *o)
{
    json_t *tokenizer = NULL, *config = NULL;
    struct vocab v = {.out = o, .count = (size_t)hf_model_config(o->m)->vocab};
    dr_status st = DR_OK;

    v.texts = dr_calloc(v.count, sizeof(*v.texts));
    v.lengths = dr_calloc(v.count, sizeof(*v.lengths));
    v.types = dr_calloc(v.count, 1);
    DR_TRY(hf_model_tokenizer(o->m, &tokenizer, &config));
    v.tokenizer = tokenizer;
    v.config = config;
    v.model = dr_json_get(tokenizer, "model");
    DR_TRY(put_kind(&v));
    put_specials(&v);
    put_templates(&v);
done:
    json_decref(tokenizer);
    json_decref(config);
    free(v.texts);
    free(v.lengths);
    free(v.types);
    return st;
}
