/*
 * api_generate.c - text from an exported model: our tokenizer and template, the runtime's
 * loop.
 */
#include <stdlib.h>
#include <string.h>

#include "api/drupe_impl.h"
#include "core/file.h"
#include "core/json.h"
#include "onnx/onnx.h"
#include "ort/ort.h"

enum { NEW_TOKENS = 128 };

const char *api_genai_folder(dr_arena *a, const char *dir)
{
    const char *inside = dr_path_join(a, dir, "model");

    if (dr_is_file(dr_path_join(a, dir, "genai_config.json")))
        return dir;
    if (dr_is_file(dr_path_join(a, inside, "genai_config.json")))
        return inside;
    return NULL;
}

/* A file for this model; the runtimes only say which name they did not find. */
static dr_status check_adapter(dr_arena *a, const char *folder, const char *adapter)
{
    const char *model = NULL;
    dr_status st = DR_OK;

    DR_TRY(flow_onnx_graph(a, &model, folder));
    DR_TRY(onnx_adapter_fits(adapter, model));
done:
    return st;
}

/* Text as it becomes certain, to the caller. */
typedef struct {
    tok_stream *stream;
    dr_buf pending, all;
    drupe_text_fn on_text;
    void *ctx;
    size_t limit, seen;
    dr_status st;
} listener;

static bool flush(listener *l)
{
    bool go_on = true;

    if (l->pending.len > 0) {
        l->st = dr_buf_add(&l->all, l->pending.data, l->pending.len);
        go_on =
            l->st == DR_OK && (l->on_text == NULL || l->on_text(l->ctx, l->pending.data));
        dr_buf_reset(&l->pending);
    }
    return go_on;
}

static bool on_token(void *ctx, int32_t id)
{
    listener *l = ctx;

    l->st = tok_stream_add(l->stream, id, &l->pending);
    l->seen++;
    return l->st == DR_OK && flush(l) && l->seen < l->limit;
}

/* Plain text begins as its tokenizer begins one (Gemma without <bos> is another model),
 * unless it does so already.  Templates write what they want. */
static dr_status add_begin(tok_ids *ids, const tok_tokenizer *tok, const dr_buf *text)
{
    tok_ids whole = {0};
    dr_status st = DR_OK;

    DR_TRY(tok_encode(tok, &whole, text->data, text->len, true));
    if (whole.count > ids->count && whole.ids[0] != ids->ids[0]) {
        DR_TRY(tok_ids_add(ids, 0));
        memmove(ids->ids + 1, ids->ids, (ids->count - 1) * sizeof(*ids->ids));
        ids->ids[0] = whole.ids[0];
    }
done:
    tok_ids_release(&whole);
    return st;
}

static dr_status make_prompt(tok_ids *ids, const tok_tokenizer *tok,
                             const drupe_generation *g)
{
    tok_message messages[2];
    size_t n = 0;
    dr_buf text;
    dr_status st = DR_OK;

    dr_buf_init(&text, (size_t)64 << 20);
    if (g->chat) {
        if (g->system != NULL)
            messages[n++] = (tok_message){"system", g->system};
        messages[n++] = (tok_message){"user", g->prompt};
        DR_TRY(tok_chat(tok, &text, messages, n, true));
    } else {
        DR_TRY(dr_buf_adds(&text, g->prompt));
    }
    DR_TRY(tok_encode(tok, ids, text.data, text.len, false));
    if (ids->count == 0)
        DR_FAIL(DR_EUSAGE, "the prompt is empty");
    if (!g->chat)
        DR_TRY(add_begin(ids, tok, &text));
done:
    dr_buf_release(&text);
    return st;
}

static dr_status tell(drupe_result *r, const listener *l, const ort_generate_stats *s,
                      const int32_t *ids, size_t count)
{
    double rate = s->decode_s > 0 && s->new_tokens > 1
                      ? (double)(s->new_tokens - 1) / s->decode_s
                      : 0;
    json_t *list = json_array();
    dr_status st = DR_OK;

    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, json_integer(ids[i]));
    json_object_set_new(r->report, "text", json_stringn(l->all.data, l->all.len));
    json_object_set_new(r->report, "ids", list);
    api_set_int(r->report, "prompt_tokens", s->prompt_tokens);
    api_set_int(r->report, "new_tokens", s->new_tokens);
    json_object_set_new(r->report, "load_seconds", json_real(s->load_s));
    json_object_set_new(r->report, "first_token_seconds", json_real(s->prefill_s));
    json_object_set_new(r->report, "tokens_per_second", json_real(rate));
    DR_TRY(dr_buf_addf(&r->text,
                       "loaded in %.2f s; first token after %.3f s (%zu tokens of prompt); "
                       "%zu tokens, %.1f tokens/s\n",
                       s->load_s, s->prefill_s, s->prompt_tokens, s->new_tokens, rate));
done:
    return st;
}

/* How long it may get: the prompt, new tokens, the context. */
static dr_status set_limits(ort_generate_options *o, listener *l, const drupe_generation *g,
                            const char *folder, size_t prompt_count)
{
    dr_arena a = {0};
    const char *path = dr_path_join(&a, folder, "genai_config.json");
    json_t *config = NULL;
    int64_t context = 0;
    dr_status st = DR_OK;

    DR_TRY(dr_json_read(&config, path));
    DR_TRY(dr_json_int(dr_json_get(config, "model"), "context_length", &context, path));
    o->max_length = g->max_length;
    l->limit = g->max_new_tokens > 0 ? (size_t)g->max_new_tokens : SIZE_MAX;
    if (g->max_length > 0)
        goto done;
    if (g->max_new_tokens <= 0)
        l->limit = NEW_TOKENS;
    o->max_length = (int)(prompt_count + l->limit);
    if (g->max_new_tokens <= 0 && context > 0 && o->max_length > context)
        o->max_length = (int)context;
done:
    json_decref(config);
    dr_arena_release(&a);
    return st;
}

static dr_status find_folder(const char **folder, dr_arena *a, const char *model)
{
    dr_status st = DR_OK;

    if (!dr_exists(model))
        return dr_fail(DR_EUSAGE, "%s: no such folder", model);
    *folder = api_genai_folder(a, model);
    if (*folder == NULL) {
        st = dr_fail(DR_EUSAGE, "%s: no genai_config.json in it, nor in its model folder",
                     model);
        dr_hint("make one with: drupe auto-opt -m MODEL --use_ort_genai");
    }
    return st;
}

/* The runtime's loop over our ids; l hears the text. */
static dr_status run(drupe_result *r, listener *l, const char *folder, const tok_ids *ids,
                     const ort_generate_options *o)
{
    ort_generator *gen = NULL;
    ort_generate_stats stats = {0};
    int32_t *new_ids = NULL;
    size_t new_count = 0;
    dr_status st = DR_OK;

    DR_TRYF(ort_generator_open(&gen, folder, o), "loading %s", folder);
    DR_TRY(
        ort_generate(gen, ids->ids, ids->count, on_token, l, &new_ids, &new_count, &stats));
    DR_TRY(l->st);
    DR_TRY(tok_stream_end(l->stream, &l->pending));
    (void)flush(l);
    DR_TRY(l->st);
    DR_TRY(tell(r, l, &stats, new_ids, new_count));
done:
    ort_generator_close(gen);
    free(new_ids);
    return st;
}

static dr_status generate(drupe_result *r, listener *l, const drupe_generation *g)
{
    ort_generate_options o = {.do_sample = g->do_sample,
                              .temperature = g->temperature,
                              .top_p = g->top_p,
                              .top_k = g->top_k,
                              .seed = g->seed,
                              .share_buffer = -1,
                              .threads = g->threads};
    const char *folder = NULL;
    tok_tokenizer *tok = NULL;
    tok_ids ids = {0};
    dr_arena a = {0};
    dr_status st = DR_OK;

    DR_TRY(find_folder(&folder, &a, g->model));
    if (g->adapter != NULL)
        DR_TRY(flow_onnx_adapter(&a, &o.adapter_path, folder, g->adapter));
    if (o.adapter_path != NULL)
        DR_TRY(check_adapter(&a, folder, o.adapter_path));
    DR_TRY(tok_open(&tok, folder));
    DR_TRY(make_prompt(&ids, tok, g));
    DR_TRY(set_limits(&o, l, g, folder, ids.count));
    DR_TRY(tok_stream_open(&l->stream, tok));
    DR_TRY(run(r, l, folder, &ids, &o));
done:
    tok_stream_close(l->stream);
    tok_ids_release(&ids);
    tok_close(tok);
    dr_arena_release(&a);
    return st;
}

drupe_status drupe_generate(drupe_result **out, const drupe_generation *g,
                            drupe_text_fn on_text, void *ctx)
{
    listener l = {.on_text = on_text, .ctx = ctx};
    drupe_result *r = api_result_new();
    dr_status st = DR_OK;

    *out = NULL;
    dr_trail_clear();
    dr_buf_init(&l.pending, (size_t)1 << 20);
    dr_buf_init(&l.all, (size_t)256 << 20);
    DR_TRY(generate(r, &l, g));
    api_result_seal(r);
    *out = r;
    r = NULL;
done:
    drupe_result_free(r);
    dr_buf_release(&l.pending);
    dr_buf_release(&l.all);
    return (drupe_status)st;
}
