/*
 * template_fuzz.c - a chat template, rendered for a plain talk and for one with tools,
 * calls of them, parts of content and names that templates ask for.
 */
#include "core/json.h"
#include "fuzz/fuzz.h"
#include "tok/tok.h"

static const char small[] = "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"<s>\": 0, "
                            "\"</s>\": 1}, \"merges\": []}}";
static const char config[] = "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\"}";
static const char talk[] =
    "[{\"role\": \"system\", \"content\": \"Be <brief>. \\u00e9\"},"
    " {\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"2+2?\"}]},"
    " {\"role\": \"assistant\", \"content\": \"\", \"reasoning_content\": \"hm\","
    "  \"tool_calls\": [{\"type\": \"function\", \"id\": \"c1\", \"function\":"
    "   {\"name\": \"add\", \"arguments\": {\"a\": 2, \"b\": [2.5, null, true]}}}]},"
    " {\"role\": \"tool\", \"name\": \"add\", \"tool_call_id\": \"c1\", \"content\": "
    "\"4\"},"
    " {\"role\": \"user\", \"content\": \" thanks \\n\"}]";
static const char names[] =
    "{\"enable_thinking\": true, \"documents\": [{\"title\": \"t\", \"text\": \"x\"}],"
    " \"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"add\","
    "  \"description\": \"adds\", \"parameters\": {\"type\": \"object\","
    "  \"properties\": {\"a\": {\"type\": \"number\"}}, \"required\": [\"a\"]}}}]}";

static void render(const tok_tokenizer *t)
{
    const tok_message messages[] = {{"user", "hi \xF0\x9F\x8D\x91"}, {"assistant", "yo"}};
    json_t *list = NULL, *extra = NULL;
    dr_buf out;

    dr_buf_init(&out, (size_t)64 << 20);
    (void)!tok_chat(t, &out, messages, 2, true);
    dr_buf_release(&out);
    dr_buf_init(&out, (size_t)64 << 20);
    if (dr_json_parse(&list, talk, strlen(talk), "talk") == DR_OK &&
        dr_json_parse(&extra, names, strlen(names), "names") == DR_OK)
        (void)!tok_chat_json(t, &out, list, extra, false);
    json_decref(list);
    json_decref(extra);
    dr_buf_release(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tok_tokenizer *t = NULL;

    fuzz_begin();
    fuzz_put("tokenizer.json", small, strlen(small));
    fuzz_put("tokenizer_config.json", config, strlen(config));
    fuzz_put("chat_template.jinja", data, size);
    if (tok_open(&t, fuzz_dir()) == DR_OK && tok_has_chat_template(t))
        render(t);
    tok_close(t);
    return 0;
}
