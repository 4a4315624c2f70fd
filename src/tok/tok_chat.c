/*
 * tok_chat.c - messages through the model's chat template.
 *
 * The names that a template finds are those that transformers gives it: messages,
 * add_generation_prompt, tools and documents (None), and every special token under its
 * name (bos_token, ...).  A template is parsed anew for each rendering: that costs less
 * than the rendering, and a tokenizer stays as it was opened.
 */
#include <string.h>

#include "core/mem.h"
#include "tok/jinja_impl.h"
#include "tok/tok_impl.h"

static dr_status set_name(jinja *j, const char *name, jinja_value v)
{
    jinja_text t = {0};
    dr_status st = DR_OK;

    DR_TRY(jinja_copy(j, &t, name, strlen(name)));
    DR_TRY(jinja_set(j, &j->root, t, v));
done:
    return st;
}

static dr_status set_all(jinja *j, const json_t *names)
{
    const char *key = NULL;
    json_t *item = NULL;
    jinja_value v = {0};
    dr_status st = DR_OK;

    json_object_foreach((json_t *)(uintptr_t)names, key, item)
    {
        DR_TRY(jinja_from_json(j, &v, item, 0));
        DR_TRY(set_name(j, key, v));
    }
done:
    return st;
}

static dr_status render(jinja *j, const tok_tokenizer *t, const json_t *messages,
                        const json_t *extra, bool add_generation_prompt)
{
    const jinja_value none = {.type = JINJA_NONE};
    jinja_tokens tokens = {0};
    jinja_node *tree = NULL;
    jinja_value v = {0};
    dr_buf source;
    dr_status st = DR_OK;

    dr_buf_init(&source, JINJA_OUTPUT_MAX);
    DR_TRY(tok_utf8_lossy(&source, t->chat_template, strlen(t->chat_template)));
    DR_TRY(jinja_lex(j, &tokens, source.data, source.len));
    DR_TRY(jinja_parse(j, &tree, &tokens));
    DR_TRY(jinja_from_json(j, &v, messages, 0));
    DR_TRY(set_all(j, t->specials));
    DR_TRY(set_name(j, "messages", v));
    DR_TRY(set_name(j, "tools", none));
    DR_TRY(set_name(j, "documents", none));
    DR_TRY(set_name(j, "add_generation_prompt", jinja_bool(add_generation_prompt)));
    DR_TRY(set_all(j, extra));
    DR_TRY(jinja_run(j, tree));
done:
    dr_buf_release(&source);
    return st;
}

dr_status tok_chat_json(const tok_tokenizer *t, dr_buf *out, const json_t *messages,
                        const json_t *extra, bool add_generation_prompt)
{
    dr_arena arena = {0};
    dr_buf text;
    jinja j = {.arena = &arena, .out = &text, .line = 1};
    dr_status st = DR_OK;

    dr_buf_init(&text, JINJA_OUTPUT_MAX);
    dr_buf_init(&j.scratch, JINJA_OUTPUT_MAX);
    j.scope = &j.root;
    if (t->chat_template == NULL)
        DR_FAIL(DR_EUNSUPPORTED, "this model has no chat template");
    if (!json_is_array(messages))
        DR_FAIL(DR_EUSAGE, "chat messages: expected an array, found %s",
                dr_json_type(messages));
    DR_TRY(render(&j, t, messages, extra, add_generation_prompt));
    DR_TRY(dr_buf_add(out, text.data, text.len));
done:
    dr_buf_release(&text);
    dr_buf_release(&j.scratch);
    dr_arena_release(&arena);
    return st;
}

/* Text of the caller as a JSON string: ill-formed bytes become U+FFFD. */
static dr_status put_text(json_t *object, const char *key, const char *s)
{
    dr_buf clean;
    dr_status st = DR_OK;

    dr_buf_init(&clean, JINJA_OUTPUT_MAX);
    DR_TRY(tok_utf8_lossy(&clean, s, strlen(s)));
    if (json_object_set_new(object, key, json_stringn(clean.data, clean.len)) != 0)
        dr_oom(clean.len);
done:
    dr_buf_release(&clean);
    return st;
}

dr_status tok_chat(const tok_tokenizer *t, dr_buf *out, const tok_message *messages,
                   size_t count, bool add_generation_prompt)
{
    json_t *list = json_array();
    dr_status st = DR_OK;

    for (size_t i = 0; i < count; i++) {
        json_t *message = json_object();
        if (message == NULL || json_array_append_new(list, message) != 0)
            dr_oom(1);
        DR_TRY(put_text(message, "role", messages[i].role));
        DR_TRY(put_text(message, "content", messages[i].content));
    }
    DR_TRY(tok_chat_json(t, out, list, NULL, add_generation_prompt));
done:
    json_decref(list);
    return st;
}
