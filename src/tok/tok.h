/*
 * tok.h - tokenizers and chat templates of Hugging Face models.
 *
 * A tokenizer is read from tokenizer.json (+ tokenizer_config.json, special tokens), never
 * from code.  Ids are those of Hugging Face's tokenizers library for the same file; text
 * is UTF-8, and bytes that are not are replaced by U+FFFD as Python's surrogate-free decode
 * does.
 *
 * Supported: models BPE (byte level; SentencePiece style with byte fallback, ignore_merges,
 * fuse_unk), Unigram (byte fallback), WordPiece, WordLevel; normalizers Prepend, Replace,
 * NFC, NFD, NFKC, NFKD, Lowercase, Strip, StripAccents, BertNormalizer, Precompiled,
 * Sequence; pre-tokenizers ByteLevel, Split, Metaspace, Digits, Whitespace,
 * WhitespaceSplit, Punctuation, BertPreTokenizer, CharDelimiterSplit, Sequence;
 * post-processors TemplateProcessing, BertProcessing, RobertaProcessing, ByteLevel,
 * Sequence; decoders ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace, WordPiece,
 * Sequence.  Anything else is DR_EUNSUPPORTED by name.
 */
#ifndef DRUPE_TOK_H
#define DRUPE_TOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/buf.h"
#include "core/json.h"
#include "core/status.h"

typedef struct tok_tokenizer tok_tokenizer;

/* Opens <dir>/tokenizer.json and, when present, tokenizer_config.json and
 * chat_template.jinja.  DR_EIO: no tokenizer.json; DR_EFORMAT, DR_EUNSUPPORTED name the
 * file and the part. */
DR_MUST_USE dr_status tok_open(tok_tokenizer **out, const char *dir);
/* The same from parsed files (a GGUF's tokenizer, rebuilt): config may be NULL.  Both are
 * borrowed for the call only. */
DR_MUST_USE dr_status tok_open_json(tok_tokenizer **out, const json_t *tokenizer,
                                    const json_t *config, const char *where);
void tok_close(tok_tokenizer *t);

typedef struct {
    int32_t *ids; /* owned */
    size_t count;
    size_t cap;
} tok_ids;
void tok_ids_release(tok_ids *ids);
DR_MUST_USE dr_status tok_ids_add(tok_ids *ids, int32_t id);

/*
 * Appends the ids of text[0..n) to out.  add_special: run the post-processor (BOS/EOS), as
 * Python's add_special_tokens=True.  Added tokens inside the text are always recognised.
 */
DR_MUST_USE dr_status tok_encode(const tok_tokenizer *t, tok_ids *out, const char *text,
                                 size_t n, bool add_special);

/* Appends the text of ids to out; skip_special leaves special tokens out. */
DR_MUST_USE dr_status tok_decode(const tok_tokenizer *t, dr_buf *out, const int32_t *ids,
                                 size_t count, bool skip_special);

/*
 * Streaming: feed ids one by one; text comes out as soon as it can no longer change, so
 * that the pieces joined are tok_decode of all ids.
 */
typedef struct tok_stream tok_stream;
DR_MUST_USE dr_status tok_stream_open(tok_stream **out, const tok_tokenizer *t);
void tok_stream_close(tok_stream *s);
/* Whether special tokens are left out, as tok_decode's skip_special; true at the start. */
void tok_stream_skip_special(tok_stream *s, bool skip);
DR_MUST_USE dr_status tok_stream_add(tok_stream *s, int32_t id, dr_buf *out);
DR_MUST_USE dr_status tok_stream_end(tok_stream *s, dr_buf *out);

size_t tok_vocab_size(const tok_tokenizer *t); /* highest id + 1 */
const char *tok_piece(const tok_tokenizer *t,
                      int32_t id); /* as in the file; NULL: no such */
int32_t tok_id(const tok_tokenizer *t, const char *piece); /* -1: no such */
bool tok_is_special(const tok_tokenizer *t, int32_t id);
int32_t tok_bos(const tok_tokenizer *t); /* -1: none */
int32_t tok_eos(const tok_tokenizer *t);
int32_t tok_pad(const tok_tokenizer *t);
int32_t tok_unk(const tok_tokenizer *t);
const char *tok_bos_text(const tok_tokenizer *t); /* "" : none */
const char *tok_eos_text(const tok_tokenizer *t);

/* ---- chat templates ---- */

typedef struct {
    const char *role;    /* "system", "user", "assistant" */
    const char *content; /* UTF-8 */
} tok_message;

bool tok_has_chat_template(const tok_tokenizer *t);
/*
 * Renders the model's own template (Jinja as transformers runs it: trim_blocks,
 * lstrip_blocks; bos_token, eos_token, messages, add_generation_prompt) into out.
 * DR_EUNSUPPORTED: no template, or a construct that is not understood, by name and line.
 * Bounded: at most 16 MiB of output, 256 MiB of values, 2 million steps and 200 levels of
 * values and syntax; DR_EFORMAT names the limit.
 */
DR_MUST_USE dr_status tok_chat(const tok_tokenizer *t, dr_buf *out,
                               const tok_message *messages, size_t count,
                               bool add_generation_prompt);
/*
 * The same for messages as JSON (an array of objects, with tool calls or parts of content
 * where the template knows them).  extra, which may be NULL, is an object of further names
 * for the template: "tools", "documents", "enable_thinking", ...
 * DR_EUSAGE: the template refuses the messages (raise_exception).
 */
DR_MUST_USE dr_status tok_chat_json(const tok_tokenizer *t, dr_buf *out,
                                    const json_t *messages, const json_t *extra,
                                    bool add_generation_prompt);

#endif
