/*
 * tok.c - opening a tokenizer: which part of which file says what, and the questions that
 * need no work.
 *
 * tokenizer.json is the tokenizer.  tokenizer_config.json names the special tokens (a
 * string, or an object with content) and may hold chat templates (one, or a list of them by
 * name, "default" counting); special_tokens_map.json fills in names that it lacks.  The
 * file chat_template.jinja goes before the configuration's, as in transformers.
 * `truncation` and `padding` are left aside, which is what transformers does with them.
 */
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/mem.h"
#include "tok/tok_impl.h"

enum { TEMPLATE_MAX = 1 << 20, CONFIG_MAX = 1 << 28 };

/* ---- special tokens and the template ---- */

/* A special token's text: "<s>" or {"content": "<s>"}; NULL: none. */
static const char *token_text(const json_t *config, const char *name)
{
    const json_t *v = json_object_get(config, name);

    return json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
}

static int32_t token_id(const tok_tokenizer *t, const char *name)
{
    const char *text = json_string_value(json_object_get(t->specials, name));

    return text != NULL ? tok_id(t, text) : -1;
}

/* Every *_token of the configuration that has a text, for templates. */
static void collect_specials(tok_tokenizer *t, const json_t *config)
{
    const char *key = NULL;
    json_t *value = NULL;

    json_object_foreach((json_t *)(uintptr_t)config, key, value)
    {
        const size_t n = strlen(key);
        const char *text = token_text(config, key);
        if (text != NULL && n > 6 && strcmp(key + n - 6, "_token") == 0 &&
            json_object_set_new(t->specials, key, json_string(text)) != 0)
            dr_oom(strlen(text));
    }
}

static char *config_template(const json_t *config)
{
    const json_t *v = json_object_get(config, "chat_template"), *item = NULL;
    size_t i = 0;

    if (json_is_string(v))
        return dr_strdup(json_string_value(v));
    json_array_foreach(v, i, item)
    {
        const char *name = json_string_value(json_object_get(item, "name"));
        const char *text = json_string_value(json_object_get(item, "template"));
        if (name != NULL && text != NULL && strcmp(name, "default") == 0)
            return dr_strdup(text);
    }
    return NULL;
}

static void read_config(tok_tokenizer *t, const json_t *config)
{
    const char *bos = NULL, *eos = NULL;

    t->specials = json_object();
    if (t->specials == NULL)
        dr_oom(1);
    collect_specials(t, config);
    t->bos = token_id(t, "bos_token");
    t->eos = token_id(t, "eos_token");
    t->pad = token_id(t, "pad_token");
    t->unk = token_id(t, "unk_token");
    if (t->unk < 0)
        t->unk = t->model.unk;
    bos = json_string_value(json_object_get(t->specials, "bos_token"));
    eos = json_string_value(json_object_get(t->specials, "eos_token"));
    t->bos_text = dr_strdup(bos != NULL ? bos : "");
    t->eos_text = dr_strdup(eos != NULL ? eos : "");
    t->chat_template = config_template(config);
}

/* ---- opening and closing ---- */

static void set_size(tok_tokenizer *t)
{
    t->size = t->model.vocab.size;
    for (size_t i = 0; i < t->added.count; i++)
        if ((size_t)t->added.list[i].id >= t->size)
            t->size = (size_t)t->added.list[i].id + 1;
}

static dr_status open_parts(tok_tokenizer *t, const json_t *j, const char *where)
{
    const char *version = "1.0";
    dr_status st = DR_OK;

    if (!json_is_object(j))
        DR_FAIL(DR_EFORMAT, "%s: expected an object, found %s", where, dr_json_type(j));
    DR_TRY(dr_json_str(j, "version", &version, where));
    if (strcmp(version, "1.0") != 0)
        DR_FAIL(DR_EUNSUPPORTED, "%s: version \"%s\"; 1.0 is known", where, version);
    DR_TRY(tok_normals_open(&t->normals, json_object_get(j, "normalizer"), where));
    DR_TRY(tok_ops_open(&t->ops, json_object_get(j, "pre_tokenizer"), where));
    DR_TRY(tok_model_open(&t->model, json_object_get(j, "model"), where));
    DR_TRY(tok_addeds_open(t, json_object_get(j, "added_tokens"), where));
    DR_TRY(tok_post_open(&t->post, json_object_get(j, "post_processor"), where));
    DR_TRY(tok_stages_open(&t->stages, json_object_get(j, "decoder"), where));
    if (t->ops.count > 0 && t->ops.list[t->ops.count - 1].kind == TOK_OP_BYTES) {
        t->ops.count--;
        t->model.map_bytes = true;
    }
    t->wants_head = tok_ops_want_head(&t->ops);
    set_size(t);
done:
    return st;
}

dr_status tok_open_json(tok_tokenizer **out, const json_t *tokenizer, const json_t *config,
                        const char *where)
{
    tok_tokenizer *t = dr_calloc(1, sizeof(*t));
    dr_status st = DR_OK;

    *out = NULL;
    t->works = dr_calloc(1, sizeof(*t->works));
    (void)pthread_mutex_init(&t->works->lock, NULL);
    DR_TRY(open_parts(t, tokenizer, where));
    read_config(t, config);
    *out = t;
    t = NULL;
done:
    tok_close(t);
    return st;
}

void tok_close(tok_tokenizer *t)
{
    if (t == NULL)
        return;
    for (tok_work *w = t->works->idle, *next = NULL; w != NULL; w = next) {
        next = w->next;
        tok_work_free(w);
    }
    (void)pthread_mutex_destroy(&t->works->lock);
    free(t->works);
    tok_model_release(&t->model);
    tok_addeds_release(&t->added);
    tok_normals_release(&t->normals);
    tok_ops_release(&t->ops);
    tok_post_release(&t->post);
    tok_stages_release(&t->stages);
    free(t->bos_text);
    free(t->eos_text);
    free(t->chat_template);
    json_decref(t->specials);
    free(t);
}

/*
 * A file of the folder as JSON; an absent one is an empty object.  Integers are read as
 * reals: transformers writes model_max_length 10^30, which dr_json_read refuses.
 */
static dr_status read_part(json_t **out, dr_arena *a, const char *dir, const char *name)
{
    const size_t flags = JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL;
    const char *path = dr_path_join(a, dir, name);
    json_error_t err;
    dr_buf text;
    dr_status st = DR_OK;

    dr_buf_init(&text, CONFIG_MAX);
    DR_TRY(dr_is_file(path) ? dr_read_file(&text, path) : dr_buf_adds(&text, "{}"));
    *out = json_loadb(text.data, text.len, flags, &err);
    if (*out == NULL)
        DR_FAIL(DR_EFORMAT, "%s:%d:%d: not JSON: %s", path, err.line, err.column, err.text);
    if (!json_is_object(*out))
        DR_FAIL(DR_EFORMAT, "%s: expected an object, found %s", path, dr_json_type(*out));
done:
    dr_buf_release(&text);
    return st;
}

static dr_status read_template_file(tok_tokenizer *t, dr_arena *a, const char *dir)
{
    const char *path = dr_path_join(a, dir, "chat_template.jinja");
    dr_buf text;
    dr_status st = DR_OK;

    dr_buf_init(&text, TEMPLATE_MAX);
    if (!dr_is_file(path))
        return DR_OK;
    DR_TRYF(dr_read_file(&text, path), "reading the chat template");
    free(t->chat_template);
    t->chat_template = dr_strndup(text.data, text.len);
done:
    dr_buf_release(&text);
    return st;
}

dr_status tok_open(tok_tokenizer **out, const char *dir)
{
    json_t *tokenizer = NULL, *config = NULL, *map = NULL;
    tok_tokenizer *t = NULL;
    dr_arena a = {0};
    dr_status st = DR_OK;

    *out = NULL;
    const char *path = dr_path_join(&a, dir, "tokenizer.json");
    DR_TRYF(dr_json_read(&tokenizer, path), "opening the tokenizer of %s", dir);
    DR_TRY(read_part(&config, &a, dir, "tokenizer_config.json"));
    DR_TRY(read_part(&map, &a, dir, "special_tokens_map.json"));
    if (json_object_update_missing(config, map) != 0)
        dr_oom(1);
    DR_TRY(tok_open_json(&t, tokenizer, config, path));
    DR_TRY(read_template_file(t, &a, dir));
    *out = t;
    t = NULL;
done:
    tok_close(t);
    json_decref(tokenizer);
    json_decref(config);
    json_decref(map);
    dr_arena_release(&a);
    return st;
}

/* ---- questions ---- */

size_t tok_vocab_size(const tok_tokenizer *t)
{
    return t->size;
}

const char *tok_piece(const tok_tokenizer *t, int32_t id)
{
    const tok_added *added = tok_addeds_get(&t->added, id);
    tok_str piece = {0};

    if (added != NULL)
        return added->content;
    return tok_vocab_piece(&t->model.vocab, id, &piece) ? piece.s : NULL;
}

int32_t tok_id(const tok_tokenizer *t, const char *piece)
{
    const size_t n = strlen(piece);
    const int32_t id = tok_addeds_find(&t->added, piece, n);

    return id >= 0 ? id : tok_vocab_find(&t->model.vocab, piece, n);
}

bool tok_is_special(const tok_tokenizer *t, int32_t id)
{
    const tok_added *added = tok_addeds_get(&t->added, id);

    return added != NULL && added->special;
}

int32_t tok_bos(const tok_tokenizer *t)
{
    return t->bos;
}

int32_t tok_eos(const tok_tokenizer *t)
{
    return t->eos;
}

int32_t tok_pad(const tok_tokenizer *t)
{
    return t->pad;
}

int32_t tok_unk(const tok_tokenizer *t)
{
    return t->unk;
}

const char *tok_bos_text(const tok_tokenizer *t)
{
    return t->bos_text;
}

const char *tok_eos_text(const tok_tokenizer *t)
{
    return t->eos_text;
}

bool tok_has_chat_template(const tok_tokenizer *t)
{
    return t->chat_template != NULL;
}
