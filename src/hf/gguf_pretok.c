/*
 * gguf_pretok.c - how text is cut before BPE: tokenizer.ggml.pre, and SentencePiece's way.
 *
 * A GGUF names the pre-tokenizer of the model it was made from; what that name stood for
 * is known to llama.cpp (src/llama-vocab.cpp) and to the models' own tokenizer.json, from
 * which these rows were taken.  A name that is not here is refused: text cut another way
 * gives other ids, and a model that is fed those answers worse without a word.
 *
 * TO ADD a name: a row in `rows`, with its regex when it has a new one; then
 * tools/oracle/gguf_tokenizer_check.py on a model that has it.
 *
 * tokenizer_class is PreTrainedTokenizerFast, which transformers 4 and 5 load as
 * tokenizer.json has it, unless the class of the model's name cuts the same way:
 * transformers 5 builds the named classes anew; its GPT2Tokenizer knows no Digits and no
 * other regex, its LlamaTokenizer drops the prefix before a space.  ONNX Runtime GenAI
 * 0.18 takes all three for BPE.
 *
 * The decoder of byte-level models is a plain ByteLevel: GenAI takes a sequence with
 * Replace for SentencePiece's and then gives id -1 for every word with a space.
 */
#include <string.h>

#include "hf/gguf_impl.h"

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES       "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define UPPER        "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER        "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define NO_WORD      "[^\\r\\n\\p{L}\\p{N}]?"

static const char llama3_split[] =
    CONTRACTIONS "|" NO_WORD "\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES;
static const char qwen2_split[] =
    CONTRACTIONS "|" NO_WORD "\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES;
static const char gpt4o_split[] =
    NO_WORD UPPER "*" LOWER "+" CONTRACTIONS "?|" NO_WORD UPPER "+" LOWER "*" CONTRACTIONS
                  "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES;
static const char tekken_split[] =
    NO_WORD UPPER "*" LOWER "+|" NO_WORD UPPER "+" LOWER
                  "*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES;

static const gguf_pretok rows[] = {
    {"gpt-2", "GPT2Tokenizer", NULL, .digits = false},
    {"default", "GPT2Tokenizer", NULL, .digits = false},
    {"phi-2", "GPT2Tokenizer", NULL, .digits = false},
    {"smollm", "PreTrainedTokenizerFast", NULL, .digits = true},
    {"starcoder", "PreTrainedTokenizerFast", NULL, .digits = true},
    {"refact", "PreTrainedTokenizerFast", NULL, .digits = true},
    {"codeshell", "PreTrainedTokenizerFast", NULL, .digits = true},
    {"qwen2", "Qwen2Tokenizer", qwen2_split, .nfc = true},
    {"megrez", "Qwen2Tokenizer", qwen2_split, .nfc = true},
    {"deepseek-r1-qwen", "PreTrainedTokenizerFast", qwen2_split, .add_bos = true},
    {"llama-bpe", "PreTrainedTokenizerFast", llama3_split, .ignore_merges = true,
     .add_bos = true},
    {"llama3", "PreTrainedTokenizerFast", llama3_split, .ignore_merges = true,
     .add_bos = true},
    {"llama-v3", "PreTrainedTokenizerFast", llama3_split, .ignore_merges = true,
     .add_bos = true},
    {"falcon3", "PreTrainedTokenizerFast", llama3_split, .ignore_merges = true},
    {"smaug-bpe", "PreTrainedTokenizerFast", llama3_split, .add_bos = true},
    {"dbrx", "PreTrainedTokenizerFast", llama3_split, .digits = false},
    {"gpt-4o", "PreTrainedTokenizerFast", gpt4o_split, .digits = false},
    {"tekken", "PreTrainedTokenizerFast", tekken_split, .ignore_merges = true,
     .add_bos = true},
};

const gguf_pretok *gguf_pretok_find(const char *pre)
{
    for (size_t i = 0; i < DR_COUNT(rows); i++)
        if (strcmp(rows[i].name, pre) == 0)
            return &rows[i];
    return NULL;
}

/* One step of a pre-tokenizer into what it says; false: no row has such a step. */
static bool read_step(gguf_pretok *p, bool *byte_level, const json_t *step)
{
    const char *type = json_string_value(json_object_get(step, "type"));
    const json_t *regex = json_object_get(json_object_get(step, "pattern"), "Regex");
    const char *how = json_string_value(json_object_get(step, "behavior"));

    if (type == NULL || *byte_level)
        return false;
    if (strcmp(type, "Digits") == 0 && p->split == NULL) {
        p->digits = true;
        return json_is_true(json_object_get(step, "individual_digits"));
    }
    if (strcmp(type, "Split") == 0 && p->split == NULL) {
        p->split = json_string_value(regex);
        return p->split != NULL && how != NULL && strcmp(how, "Isolated") == 0 &&
               !json_is_true(json_object_get(step, "invert"));
    }
    if (strcmp(type, "ByteLevel") == 0) {
        *byte_level = true;
        return !json_is_true(json_object_get(step, "add_prefix_space")) &&
               json_is_false(json_object_get(step, "use_regex")) == (p->split != NULL);
    }
    return false;
}

const gguf_pretok *gguf_pretok_match(dr_arena *a, const json_t *tokenizer,
                                     bool ignore_merges, const char **why)
{
    const json_t *normalizer = dr_json_get(tokenizer, "normalizer");
    const json_t *pre = dr_json_get(tokenizer, "pre_tokenizer");
    const json_t *steps = json_object_get(pre, "pretokenizers");
    const char *normal = json_string_value(json_object_get(normalizer, "type"));
    gguf_pretok want = {.ignore_merges = ignore_merges};
    bool byte_level = false;

    *why = "its way to cut text";
    if (normal != NULL && strcmp(normal, "NFC") != 0) {
        *why = dr_arena_printf(a, "its normalizer (%s)", normal);
        return NULL;
    }
    want.nfc = normal != NULL;
    for (size_t i = 0; i < json_array_size(steps); i++)
        if (!read_step(&want, &byte_level, json_array_get(steps, i)))
            return NULL;
    if (steps == NULL && !read_step(&want, &byte_level, pre))
        return NULL;
    for (size_t i = 0; byte_level && i < DR_COUNT(rows); i++) {
        const gguf_pretok *r = &rows[i];
        bool split = r->split == NULL ? want.split == NULL
                                      : want.split && strcmp(r->split, want.split) == 0;
        if (split && r->digits == want.digits && r->nfc == want.nfc &&
            r->ignore_merges == want.ignore_merges)
            return r;
    }
    return NULL;
}

const char *gguf_pretok_names(dr_arena *a)
{
    const char *list = rows[0].name;

    for (size_t i = 1; i < DR_COUNT(rows); i++)
        list = dr_arena_printf(a, "%s, %s", list, rows[i].name);
    return list;
}

static json_t *byte_level(bool use_regex)
{
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                     "trim_offsets", 1, "use_regex", use_regex);
}

void gguf_pretok_put(json_t *tokenizer, const gguf_pretok *pre)
{
    json_t *steps = json_array();

    if (pre->digits)
        (void)json_array_append_new(
            steps, json_pack("{s:s, s:b}", "type", "Digits", "individual_digits", 1));
    if (pre->split != NULL)
        (void)json_array_append_new(
            steps, json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern",
                             "Regex", pre->split, "behavior", "Isolated", "invert", 0));
    (void)json_array_append_new(steps, byte_level(pre->split == NULL));
    gguf_put(tokenizer, "normalizer",
             pre->nfc ? json_pack("{s:s}", "type", "NFC") : json_null());
    gguf_put(tokenizer, "pre_tokenizer",
             json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", steps));
    gguf_put(tokenizer, "decoder", byte_level(true));
}

/* U+2581 stands for a space. */
#define BLANK "\xe2\x96\x81"

static json_t *replace(const char *from, const char *to)
{
    return json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", from,
                     "content", to);
}

void gguf_metaspace_put(json_t *tokenizer, bool add_space_prefix)
{
    json_t *steps = json_array(), *back = json_array();

    if (add_space_prefix)
        (void)json_array_append_new(
            steps, json_pack("{s:s, s:s}", "type", "Prepend", "prepend", BLANK));
    (void)json_array_append_new(steps, replace(" ", BLANK));
    gguf_put(tokenizer, "normalizer",
             json_pack("{s:s, s:o}", "type", "Sequence", "normalizers", steps));
    gguf_put(tokenizer, "pre_tokenizer", json_null());

    (void)json_array_append_new(back, replace(BLANK, " "));
    (void)json_array_append_new(back, json_pack("{s:s}", "type", "ByteFallback"));
    (void)json_array_append_new(back, json_pack("{s:s}", "type", "Fuse"));
    if (add_space_prefix)
        (void)json_array_append_new(back, json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip",
                                                    "content", " ", "start", 1, "stop", 0));
    gguf_put(tokenizer, "decoder",
             json_pack("{s:s, s:o}", "type", "Sequence", "decoders", back));
}
