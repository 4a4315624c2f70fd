/*
 * npu_genai.c - genai_config.json for graphs of fixed shapes with a windowed cache: ORT
 * GenAI's type "decoder-pipeline", a stage for prompts and one for single tokens.
 *
 * It is the plain file (genai_config.c) with other members.  GenAI fills the last window of
 * a prompt from the left with pad_token_id, and hides every token of that id: it must be
 * one that no prompt has, which the model's own pad (often its end of text) is not.
 */
#include <string.h>

#include "core/json.h"
#include "core/mem.h"
#include "onnx/build_impl.h"
#include "onnx/npu_impl.h"

static void put(json_t *o, const char *key, json_t *value)
{
    DR_BUG_IF(json_object_set_new(o, key, value) != 0);
}

/* ---- a token that no prompt has ---- */

static bool is_end(const json_t *model, int64_t id)
{
    const json_t *eos = json_object_get(model, "eos_token_id"), *one;
    size_t i;

    if (json_integer_value(json_object_get(model, "bos_token_id")) == id)
        return true;
    if (json_is_integer(eos))
        return json_integer_value(eos) == id;
    json_array_foreach(eos, i, one)
    {
        if (json_integer_value(one) == id)
            return true;
    }
    return false;
}

/* A special token that ends nothing and is not in the chat template; -1: there is none. */
static int64_t unused_token(const json_t *tokenizer, const json_t *config,
                            const json_t *model, int64_t vocab)
{
    const json_t *added = json_object_get(tokenizer, "added_tokens"), *entry;
    const char *chat = json_string_value(json_object_get(config, "chat_template"));
    size_t i;

    json_array_foreach(added, i, entry)
    {
        const char *text = json_string_value(json_object_get(entry, "content"));
        int64_t id = json_integer_value(json_object_get(entry, "id"));
        if (text == NULL || !json_is_true(json_object_get(entry, "special")) ||
            id >= vocab || is_end(model, id) ||
            (chat != NULL && strstr(chat, text) != NULL))
            continue;
        return id;
    }
    return -1;
}

static dr_status choose_pad(json_t *model, const hf_model *m, onnx_report *report)
{
    json_t *tokenizer = NULL, *config = NULL;
    dr_status st = DR_OK;

    DR_TRYF(hf_model_tokenizer(m, &tokenizer, &config),
            "reading the tokenizer, which genai_config.json needs");
    const int64_t id = unused_token(tokenizer, config, model, hf_model_config(m)->vocab);
    if (id >= 0)
        put(model, "pad_token_id", json_integer(id));
    else
        onnx_note(report,
                  "no special token is unused: prompts must not have the pad token");
done:
    json_decref(tokenizer);
    json_decref(config);
    return st;
}

/* ---- stages ---- */

static void add_cache(json_t *list, const char *name, int layers)
{
    static const char *const what[2] = {"key", "value"};

    for (int i = 0; i < 2 * layers; i++)
        (void)json_array_append_new(list,
                                    json_sprintf("%s.%d.%s", name, i / 2, what[i % 2]));
}

static json_t *stage(const char *name, const char *file, int layers, bool prompt)
{
    static const char *const ids[] = {"input_ids", "attention_mask", "position_ids"};
    json_t *in = json_array(), *out = json_array();
    json_t *s = json_object(), *named = json_object();

    for (size_t i = 0; i < DR_COUNT(ids); i++)
        (void)json_array_append_new(in, json_string(ids[i]));
    add_cache(in, "past_key_values", layers);
    (void)json_array_append_new(out, json_string("logits"));
    add_cache(out, "present", layers);
    put(s, "filename", json_string(file));
    put(s, "inputs", in);
    put(s, "outputs", out);
    put(s, "run_on_prompt", json_boolean(prompt));
    put(s, "run_on_token_gen", json_boolean(!prompt));
    put(named, name, s);
    return named;
}

static json_t *window(const onnx_npu_options *o)
{
    json_t *w = json_object();

    put(w, "window_size", json_integer(o->sequence));
    put(w, "pad_value", json_integer(0));
    put(w, "alignment", json_string("right"));
    put(w, "slide_key_value_cache", json_true());
    put(w, "slide_inputs", json_true());
    return w;
}

/* [{"QNN": {...}}]: what the provider is told, in words of its own. */
static json_t *provider(const char *name)
{
    json_t *list = json_array(), *one = json_object(), *options = json_object();

    if (strcmp(name, "QNN") == 0) {
        put(options, "backend_type", json_string("htp"));
        put(options, "htp_performance_mode", json_string("burst"));
        put(options, "htp_graph_finalization_optimization_mode", json_string("3"));
    }
    put(one, name, options);
    (void)json_array_append_new(list, one);
    return list;
}

dr_status npu_genai_write(const hf_model *m, const char *dir, const onnx_npu_options *o,
                          const char *prompt, const char *token, onnx_report *report)
{
    const int layers = hf_model_config(m)->layers;
    const onnx_options plain = {.max_length = o->total};
    dr_arena arena = {0};
    json_t *root = NULL, *pipeline = json_array();
    dr_status st = DR_OK;

    DR_TRY(onnx_genai_write(m, dir, &plain, report));
    const char *path = dr_path_join(&arena, dir, "genai_config.json");
    DR_TRY(dr_json_read(&root, path));
    json_t *model = json_object_get(root, "model");
    json_t *decoder = json_object_get(model, "decoder");
    DR_TRY(choose_pad(model, m, report));
    put(model, "type", json_string("decoder-pipeline"));
    put(model, "context_length", json_integer(o->total));
    put(json_object_get(root, "search"), "past_present_share_buffer", json_false());
    (void)json_object_del(decoder, "filename");
    put(json_object_get(decoder, "inputs"), "position_ids", json_string("position_ids"));
    if (o->provider != NULL)
        put(json_object_get(decoder, "session_options"), "provider_options",
            provider(o->provider));
    put(decoder, "sliding_window", window(o));
    (void)json_array_append_new(pipeline, stage("prompt", prompt, layers, true));
    (void)json_array_append_new(pipeline, stage("token", token, layers, false));
    put(decoder, "pipeline", json_incref(pipeline));
    DR_TRY(dr_json_write(path, root));
    onnx_note(report,
              "genai_config.json is for onnxruntime-genai 0.9 to 0.16: 0.17 and 0.18 "
              "give stages with fixed shapes another cache (its issue 2603)");
done:
    json_decref(pipeline);
    json_decref(root);
    dr_arena_release(&arena);
    return st;
}
