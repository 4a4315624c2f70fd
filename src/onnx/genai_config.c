/*
 * genai_config.c - genai_config.json and the tokenizer beside a model.
 *
 * ONNX Runtime GenAI refuses a file with a key that it does not know, so only keys are
 * written that 0.5 and 0.18 both know.
 *
 * 1. max_length is capped: with a shared buffer GenAI allocates the cache of all of it
 *    before the first token, gigabytes for a context of 131072.
 * 2. sliding_window is not written: it would shrink the cache to the window, which only
 *    models with window layers throughout stand; attention itself has the window.
 * 3. Threads are ONNX Runtime's choice, one for each core: left out, GenAI takes half of
 *    what the system shows, which is half the speed where no core shows twice (a
 *    Phi-3.5-mini's shape on 16 such cores: 25 tokens/s, 38 with this).
 * 4. GenAI refuses a model.type that it does not know, too, and does with most of them the
 *    same: for older runtimes a family that GenAI 0.5 has no word for is called `llama`.
 * 5. The generation may end at any token that config, generation_config or the tokenizer
 *    call the end: instruct models differ in which of them they fill in.
 */
#include <string.h>

#include "core/json.h"
#include "onnx/build_impl.h"

enum { MAX_LENGTH = 4096 };

/* ---- end of sequence ---- */

typedef struct {
    int64_t id[HF_EOS_MAX + 1];
    size_t count;
} token_set;

static void add_token(token_set *t, int64_t id)
{
    for (size_t i = 0; i < t->count; i++) {
        if (t->id[i] == id)
            return;
    }
    if (t->count < DR_COUNT(t->id))
        t->id[t->count++] = id;
}

/* The id of a token in tokenizer.json; -1: it has none. */
static int64_t token_id(const json_t *tokenizer, const char *text)
{
    const json_t *added = json_object_get(tokenizer, "added_tokens"), *entry;
    const json_t *vocab = json_object_get(json_object_get(tokenizer, "model"), "vocab");
    size_t i;

    json_array_foreach(added, i, entry)
    {
        const char *content = json_string_value(json_object_get(entry, "content"));
        if (content != NULL && strcmp(content, text) == 0)
            return json_integer_value(json_object_get(entry, "id"));
    }
    const json_t *id = json_object_get(vocab, text); /* of a BPE; a Unigram has a list */
    return json_is_integer(id) ? json_integer_value(id) : -1;
}

/* tokenizer_config.json: "eos_token" is a text or an object with one. */
static dr_status tokenizer_eos(token_set *t, const hf_model *m, onnx_report *report)
{
    json_t *tokenizer = NULL, *config = NULL;
    dr_status st = hf_model_tokenizer(m, &tokenizer, &config);

    if (st == DR_EUNSUPPORTED) { /* a folder without one: what config says must do */
        onnx_note(report, "the model has no tokenizer.json, so there is none here");
        dr_trail_clear();
        return DR_OK;
    }
    if (st != DR_OK)
        return st;
    const json_t *eos = json_object_get(config, "eos_token");
    const char *text = json_string_value(eos);
    if (text == NULL)
        text = json_string_value(json_object_get(eos, "content"));
    int64_t id = text != NULL ? token_id(tokenizer, text) : -1;
    if (id >= 0)
        add_token(t, id);
    json_decref(tokenizer);
    json_decref(config);
    return st;
}

static json_t *tokens_json(const token_set *t)
{
    if (t->count == 1)
        return json_integer(t->id[0]);
    json_t *list = json_array();
    for (size_t i = 0; i < t->count; i++)
        (void)json_array_append_new(list, json_integer(t->id[i]));
    return list;
}

/* ---- the file ---- */

static void put(json_t *o, const char *key, json_t *value)
{
    DR_BUG_IF(json_object_set_new(o, key, value) != 0);
}

/* [{"cuda": {"enable_cuda_graph": "0"}}]; on a processor there is none. */
static json_t *provider_json(const hf_config *c, const onnx_options *o)
{
    const onnx_target *t = onnx_target_of(o->provider);
    bool two = c->rope.kind == HF_ROPE_LONGROPE && c->rope.original_max < c->max_position;
    json_t *list = json_array(), *options = json_object(), *entry = json_object();
    char offset[32];

    if (t->option != NULL) {
        put(options, t->option, json_string(o->cuda_graph ? "1" : t->option_value));
        if (o->provider == ONNX_WEBGPU)
            put(options, "validationMode", json_string("basic"));
        if (o->provider == ONNX_TRT_RTX && two) {
            (void)snprintf(offset, sizeof(offset), "%lld", (long long)c->rope.original_max);
            put(options, "multi_rotary_cache_concat_offset", json_string(offset));
        }
        put(entry, t->short_name, json_incref(options));
        DR_BUG_IF(json_array_append(list, entry) != 0);
    }
    json_decref(options);
    json_decref(entry);
    return list;
}

static json_t *decoder_json(const hf_config *c, const onnx_options *opts)
{
    json_t *o = json_object(), *options = json_object();
    json_t *in = json_object(), *out = json_object();

    put(options, "intra_op_num_threads", json_integer(0));
    put(options, "log_id", json_string("onnxruntime-genai"));
    put(options, "provider_options", provider_json(c, opts));
    if (opts->exclude_embeds)
        put(in, "inputs_embeds", json_string("inputs_embeds"));
    else
        put(in, "input_ids", json_string("input_ids"));
    put(in, "attention_mask", json_string("attention_mask"));
    if (onnx_target_of(opts->provider)->split_qkv)
        put(in, "position_ids", json_string("position_ids"));
    put(in, "past_key_names", json_string("past_key_values.%d.key"));
    put(in, "past_value_names", json_string("past_key_values.%d.value"));
    if (!opts->exclude_lm_head)
        put(out, "logits", json_string("logits"));
    if (opts->exclude_lm_head || opts->include_hidden_states)
        put(out, "hidden_states", json_string("hidden_states"));
    put(out, "present_key_names", json_string("present.%d.key"));
    put(out, "present_value_names", json_string("present.%d.value"));

    put(o, "session_options", options);
    put(o, "filename", json_string("model.onnx"));
    put(o, "head_size", json_integer(c->head_dim));
    put(o, "hidden_size", json_integer(c->hidden));
    put(o, "inputs", in);
    put(o, "outputs", out);
    put(o, "num_attention_heads", json_integer(c->heads));
    put(o, "num_hidden_layers", json_integer(c->layers));
    put(o, "num_key_value_heads", json_integer(c->kv_heads));
    return o;
}

/* model.type: see 4 above. */
static const char *genai_word(const hf_config *c, const onnx_options *o)
{
    static const char *const old[] = {"llama", "mistral", "gemma", "gemma2",
                                      "phi",   "phi3",    "qwen2"};

    if (o->min_ort_minor == 0 || o->min_ort_minor >= ONNX_SINCE_WORDS)
        return c->genai_type;
    for (size_t i = 0; i < DR_COUNT(old); i++)
        if (strcmp(old[i], c->genai_type) == 0)
            return c->genai_type;
    return "llama";
}

static json_t *model_json(const hf_config *c, const onnx_options *opts,
                          const token_set *eos)
{
    json_t *o = json_object();
    int64_t pad = c->pad >= 0 ? c->pad : eos->id[0];

    if (c->bos >= 0)
        put(o, "bos_token_id", json_integer(c->bos));
    put(o, "context_length", json_integer(c->max_position));
    put(o, "decoder", decoder_json(c, opts));
    if (eos->count > 0)
        put(o, "eos_token_id", tokens_json(eos));
    put(o, "pad_token_id", json_integer(pad));
    put(o, "type", json_string(genai_word(c, opts)));
    put(o, "vocab_size", json_integer(c->vocab));
    return o;
}

/* How to choose tokens: what generation_config.json says, where it says it. */
static json_t *search_json(const json_t *generation, int64_t max_length)
{
    static const char *const numbers[] = {"temperature", "top_p", "repetition_penalty"};
    json_t *o = json_object();
    json_t *sample = json_object_get(generation, "do_sample");
    json_t *top_k = json_object_get(generation, "top_k");

    put(o, "do_sample", json_boolean(json_is_true(sample)));
    put(o, "max_length", json_integer(max_length));
    put(o, "past_present_share_buffer", json_true());
    for (size_t i = 0; i < DR_COUNT(numbers); i++) {
        json_t *v = json_object_get(generation, numbers[i]);
        if (json_is_number(v) && json_number_value(v) > 0)
            put(o, numbers[i], json_real(json_number_value(v)));
    }
    if (json_is_integer(top_k) && json_integer_value(top_k) > 0)
        put(o, "top_k", json_incref(top_k));
    return o;
}

dr_status onnx_genai_write(const hf_model *m, const char *dir, const onnx_options *o,
                           onnx_report *report)
{
    const hf_config *c = hf_model_config(m);
    int64_t max_length = o->max_length;
    dr_arena arena = {0};
    token_set eos = {0};
    json_t *root = json_object();
    dr_status st = DR_OK;

    if (max_length > c->max_position)
        DR_FAIL(DR_EUSAGE, "max_length %lld is beyond the model's context of %lld",
                (long long)max_length, (long long)c->max_position);
    if (max_length <= 0)
        max_length = c->max_position < MAX_LENGTH ? c->max_position : MAX_LENGTH;
    if (max_length < c->max_position)
        onnx_note(report, "genai_config.json: max_length is %lld of a context of %lld",
                  (long long)max_length, (long long)c->max_position);
    for (int i = 0; i < c->eos_count; i++)
        add_token(&eos, c->eos[i]);
    DR_TRY(tokenizer_eos(&eos, m, report));
    put(root, "model", model_json(c, o, &eos));
    put(root, "search", search_json(hf_model_generation_json(m), max_length));
    DR_TRY(dr_json_write(dr_path_join(&arena, dir, "genai_config.json"), root));
    DR_TRYF(hf_model_copy_side_files(m, dir), "copying the tokenizer");
done:
    json_decref(root);
    dr_arena_release(&arena);
    return st;
}
