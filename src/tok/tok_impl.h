/*
 * tok_impl.h - what the files of tok/ share: text, patterns, vocabulary, the steps of a
 * tokenizer.json in the order in which text passes through them.
 *
 *   text -> added tokens -> normalizers -> added tokens (normalized) -> pre-tokenizer ops
 *        -> model, word by word -> post-processor;     ids -> decoder stages -> text
 *
 * An open tokenizer does not change: whatever encoding needs to scribble on (buffers, the
 * cache of words, PCRE2's match data) is a tok_work, lent from a list under a mutex, so
 * that threads may share one tokenizer.
 */
#ifndef DRUPE_TOK_IMPL_H
#define DRUPE_TOK_IMPL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/json.h"
#include "core/status.h"
#include "tok/tok.h"

enum {
    TOK_ID_LIMIT = 1 << 24,     /* ids and counts of pieces that a file may ask for */
    TOK_STEP_LIMIT = 64,        /* normalizers, ops, decoder stages, each */
    TOK_AROUND_LIMIT = 1 << 12, /* ids that a post-processor puts around a text */
    TOK_GROWTH_BASE = 1 << 12,  /* see tok_growth_max */
    TOK_GROWTH_TIMES = 32,
};
#define TOK_TEXT_MAX ((size_t)1 << 32) /* bytes of any text buffer */
#define TOK_MARK     "\xE2\x96\x81"    /* U+2581, SentencePiece's space */

typedef struct {
    const char *s; /* borrowed, not ended by a zero byte */
    size_t n;
} tok_str;

/* ---- text (tok_text.c) ---- */

typedef enum { TOK_UTF8_OK, TOK_UTF8_BAD, TOK_UTF8_CUT } tok_utf8;

/* One step over n > 0 bytes: a character (OK), a maximal ill-formed part (BAD), or the
 * beginning of a character that the bytes end in (CUT).  Returns its length. */
size_t tok_utf8_step(const char *s, size_t n, tok_utf8 *kind);
bool tok_utf8_valid(const char *s, size_t n);
/* Appends s, each ill-formed part replaced by U+FFFD. */
DR_MUST_USE dr_status tok_utf8_lossy(dr_buf *out, const char *s, size_t n);
/* The next and the last code point of valid text; the length in bytes is returned. */
size_t tok_utf8_get(const char *s, size_t n, uint32_t *cp);
size_t tok_utf8_last(const char *s, size_t n, uint32_t *cp);
size_t tok_utf8_put(char out[4], uint32_t cp);

uint32_t tok_byte_char(unsigned char b); /* GPT-2's table */
int tok_char_byte(uint32_t cp);          /* its inverse; -1: no byte */
/* Appends each byte of s as its character. */
DR_MUST_USE dr_status tok_bytes_map(dr_buf *out, const char *s, size_t n);

uint64_t tok_hash(const char *s, size_t n);

/* ---- classes (tok_unicode.c) ---- */

bool tok_is_space(uint32_t cp);      /* Unicode White_Space */
bool tok_is_word(uint32_t cp);       /* \w as Rust's regex has it */
bool tok_is_numeric(uint32_t cp);    /* N* */
bool tok_is_punct(uint32_t cp);      /* P* of Unicode 8, and ASCII's symbols */
bool tok_is_nonspacing(uint32_t cp); /* Mn of Unicode 8 */
bool tok_is_mark(uint32_t cp);       /* M* of Unicode 9 */
bool tok_is_control(uint32_t cp);    /* Cc, Cf, Co of Unicode 8, but for \t \n \r */
bool tok_is_newer_form(uint32_t cp); /* has a class or mapping newer than Unicode 9 */

/* ---- patterns (tok_pattern.c, tok_regex.c) ---- */

typedef struct {
    void *code; /* owned: pcre2_code; NULL: a literal */
    char *text; /* owned: the literal */
    size_t n;
} tok_pattern;

/* What matching scribbles on; {0} is valid. */
typedef struct {
    void *data, *context, *stack; /* owned: PCRE2's */
} tok_matcher;
void tok_matcher_release(tok_matcher *m);

/* A walk over the matches of a pattern, leftmost first, as Oniguruma's find_iter. */
typedef struct {
    const tok_pattern *pattern; /* borrowed */
    tok_matcher *matcher;       /* borrowed */
    tok_str text;
    size_t at, last_end;
    bool any;
} tok_scan;

/* spec: {"String": s} or {"Regex": r}. */
DR_MUST_USE dr_status tok_pattern_open(tok_pattern *p, const json_t *spec,
                                       const char *where);
DR_MUST_USE dr_status tok_pattern_regex(tok_pattern *p, const char *regex, size_t n,
                                        const char *where);
void tok_pattern_release(tok_pattern *p);
tok_scan tok_scan_begin(const tok_pattern *p, tok_matcher *m, tok_str text);
DR_MUST_USE dr_status tok_scan_next(tok_scan *s, size_t *start, size_t *end, bool *found);
/* Appends text with each match replaced. */
DR_MUST_USE dr_status tok_pattern_replace(dr_buf *out, const tok_pattern *p, tok_matcher *m,
                                          tok_str text, tok_str with);
/* Oniguruma's syntax to PCRE2's.  DR_EUNSUPPORTED names what differs in meaning. */
DR_MUST_USE dr_status tok_regex_translate(dr_buf *out, const char *regex, size_t n,
                                          const char *where);

/* ---- vocabulary and merges (tok_vocab.c, tok_merge.c) ---- */

typedef struct {
    uint32_t at, n; /* in tok_vocab.text */
    int32_t id;
} tok_entry;

typedef struct {
    char *text;               /* owned: pieces, each followed by a zero byte */
    tok_entry *entries;       /* owned */
    uint32_t *by_id;          /* owned: entry + 1; 0: no such id */
    uint32_t *slots;          /* owned: hash table of entry + 1 */
    size_t count, size, mask; /* pieces; highest id + 1; slots - 1 */
    size_t longest;           /* bytes of a piece */
} tok_vocab;

/* pieces: an object of ids; a list: of arrays that begin with a piece, in order of ids. */
DR_MUST_USE dr_status tok_vocab_open(tok_vocab *v, const json_t *pieces, const char *where);
DR_MUST_USE dr_status tok_vocab_open_list(tok_vocab *v, const json_t *pieces,
                                          const char *where);
void tok_vocab_release(tok_vocab *v);
int32_t tok_vocab_find(const tok_vocab *v, const char *s, size_t n); /* -1: none */
bool tok_vocab_piece(const tok_vocab *v, int32_t id, tok_str *piece);

typedef struct {
    uint64_t pair; /* left << 32 | right; TOK_NO_PAIR: free */
    uint32_t rank;
    int32_t id;
} tok_merge;
#define TOK_NO_PAIR UINT64_MAX

typedef struct {
    tok_merge *slots; /* owned */
    size_t mask;
} tok_merges;

DR_MUST_USE dr_status tok_merges_open(tok_merges *m, const json_t *merges,
                                      const tok_vocab *v, size_t prefix_bytes,
                                      const char *where);
void tok_merges_release(tok_merges *m);
const tok_merge *tok_merges_find(const tok_merges *m, int32_t left, int32_t right);

/* ---- tries (tok_trie.c): strings to ids ---- */

typedef struct tok_trie tok_trie;

tok_trie *tok_trie_new(void);
void tok_trie_free(tok_trie *t);
/* s is not empty; a later id of a string replaces an earlier one. */
DR_MUST_USE dr_status tok_trie_put(tok_trie *t, const char *s, size_t n, int32_t id);
/* The longest string that s begins with: its id and length; -1: none. */
int32_t tok_trie_longest(const tok_trie *t, const char *s, size_t n, size_t *length);
/* Whether any string begins with the byte. */
bool tok_trie_starts(const tok_trie *t, char byte);
/* One byte on from a node, the root being 0; false: no string goes on like that.  *id is
 * what the string up to there stands for; -1: nothing. */
bool tok_trie_step(const tok_trie *t, uint32_t *node, char byte, int32_t *id);

/* ---- the model (tok_model.c, tok_bpe.c, tok_unigram.c, tok_wordpiece.c) ---- */

typedef enum {
    TOK_MODEL_BPE,
    TOK_MODEL_UNIGRAM,
    TOK_MODEL_WORDPIECE,
    TOK_MODEL_WORDLEVEL
} tok_model_kind;

typedef struct {
    tok_model_kind kind;
    tok_vocab vocab;
    char *unk_piece; /* owned; NULL: unknown characters vanish (BPE) */
    int32_t unk;     /* -1: unk_piece is not in the vocabulary */
    char *prefix;    /* owned: continuing_subword_prefix */
    bool byte_fallback;
    int32_t byte_id[256]; /* ids of <0xNN> */
    bool map_bytes;       /* words come as raw bytes, to be mapped by GPT-2's table */
    /* BPE */
    tok_merges merges;
    char *suffix; /* owned: end_of_word_suffix */
    bool fuse_unk, ignore_merges, affixes;
    bool cut_marks; /* no merge crosses from another character into U+2581 */
    /* Unigram */
    double *scores; /* owned: by id */
    double unk_score;
    int32_t unk_id;   /* -1: none */
    tok_trie *pieces; /* owned */
    /* WordPiece */
    size_t max_chars; /* longer words are unknown */
} tok_model;

typedef struct tok_work tok_work;

DR_MUST_USE dr_status tok_model_open(tok_model *m, const json_t *spec, const char *where);
void tok_model_release(tok_model *m);
/* Appends the ids of one word. */
DR_MUST_USE dr_status tok_model_word(const tok_model *m, tok_work *w, tok_ids *out,
                                     tok_str word);
/* A text of the specification; stays NULL when it is absent. */
DR_MUST_USE dr_status tok_model_text(char **out, const json_t *spec, const char *key,
                                     const char *where);
/* The unknown piece's id; DR_EFORMAT when the vocabulary has it not. */
DR_MUST_USE dr_status tok_model_add_unk(const tok_model *m, tok_ids *out);
/* The parts of one kind. */
DR_MUST_USE dr_status tok_bpe_open(tok_model *m, const json_t *spec, const char *where);
DR_MUST_USE dr_status tok_bpe_word(const tok_model *m, tok_work *w, tok_ids *out,
                                   tok_str word);
DR_MUST_USE dr_status tok_unigram_open(tok_model *m, const json_t *spec, const char *where);
DR_MUST_USE dr_status tok_unigram_word(const tok_model *m, tok_work *w, tok_ids *out,
                                       tok_str word);
DR_MUST_USE dr_status tok_wordpiece_open(tok_model *m, const json_t *spec,
                                         const char *where);
DR_MUST_USE dr_status tok_wordpiece_word(const tok_model *m, tok_work *w, tok_ids *out,
                                         tok_str word);
DR_MUST_USE dr_status tok_wordlevel_open(tok_model *m, const json_t *spec,
                                         const char *where);
DR_MUST_USE dr_status tok_wordlevel_word(const tok_model *m, tok_ids *out, tok_str word);

/* ---- added tokens (tok_added.c) ---- */

typedef struct {
    char *content; /* owned */
    char *shown;   /* owned: what decoding sees: the normalized content */
    size_t content_n, shown_n;
    int32_t id;
    bool special, lstrip, rstrip, single_word, normalized;
    bool skipped; /* by skip_special */
} tok_added;

typedef struct {
    tok_added *list; /* owned; later entries of an id replace earlier ones */
    size_t count;
    uint32_t *by_id; /* owned: entry + 1 for ids below size */
    size_t size;
    tok_trie *names;        /* owned: content to id */
    tok_trie *raw, *normal; /* owned: for matching; NULL: no such tokens */
} tok_addeds;

typedef struct {
    size_t start, stop;
    int32_t id; /* -1: text between added tokens */
} tok_gap;

DR_MUST_USE dr_status tok_addeds_open(tok_tokenizer *t, const json_t *list,
                                      const char *where);
void tok_addeds_release(tok_addeds *a);
const tok_added *tok_addeds_get(const tok_addeds *a, int32_t id);
int32_t tok_addeds_find(const tok_addeds *a, const char *s, size_t n); /* -1: none */
/* Cuts text at the trie's tokens: calls fn for each part, in order. */
typedef dr_status (*tok_gap_fn)(void *ctx, const tok_gap *gap);
DR_MUST_USE dr_status tok_addeds_cut(const tok_addeds *a, const tok_trie *trie,
                                     tok_str text, tok_gap_fn fn, void *ctx);

/* ---- normalizers (tok_normal.c) ---- */

typedef enum {
    TOK_NORMAL_PREPEND,
    TOK_NORMAL_REPLACE,
    TOK_NORMAL_NFC,
    TOK_NORMAL_NFD,
    TOK_NORMAL_NFKC,
    TOK_NORMAL_NFKD,
    TOK_NORMAL_LOWERCASE,
    TOK_NORMAL_STRIP,
    TOK_NORMAL_BERT,
    TOK_NORMAL_STRIP_ACCENTS,
    TOK_NORMAL_PRECOMPILED
} tok_normal_kind;

/* BertNormalizer (tok_bert.c) */
typedef struct {
    bool clean, chinese, strip, lowercase;
} tok_bert;

DR_MUST_USE dr_status tok_bert_open(tok_bert *b, const json_t *spec, const char *where);
/* These append; out is empty. */
DR_MUST_USE dr_status tok_bert_run(const tok_bert *b, dr_buf *out, tok_str text);
DR_MUST_USE dr_status tok_strip_accents(dr_buf *out, tok_str text);

/* SentencePiece's precompiled_charsmap (tok_charsmap.c) */
typedef struct tok_charsmap tok_charsmap;

DR_MUST_USE dr_status tok_charsmap_open(tok_charsmap **out, const json_t *spec,
                                        const char *where);
void tok_charsmap_free(tok_charsmap *m);
DR_MUST_USE dr_status tok_charsmap_run(const tok_charsmap *m, dr_buf *out, tok_str text);

typedef struct {
    tok_normal_kind kind;
    tok_pattern pattern;
    char *text; /* owned: what is prepended or put in */
    size_t text_n;
    bool left, right;
    tok_bert bert;
    tok_charsmap *charsmap; /* owned */
} tok_normal;

typedef struct {
    tok_normal *list; /* owned */
    size_t count;
} tok_normals;

DR_MUST_USE dr_status tok_normals_open(tok_normals *ns, const json_t *spec,
                                       const char *where);
void tok_normals_release(tok_normals *ns);
bool tok_is_ascii(tok_str text);
/* Append; the form is one of NFC to NFKD.  Characters that Unicode 9 had no form for stay
 * as they are, and part what is beside. */
DR_MUST_USE dr_status tok_unicode_form(tok_normal_kind form, dr_buf *out, tok_str text);
DR_MUST_USE dr_status tok_lowercase(dr_buf *out, tok_str text);
/* *text becomes the normalized text, in buffers of w.  Of its bytes the first *head stem
 * from the first character of the original text; NULL: nobody wants to know. */
DR_MUST_USE dr_status tok_normals_run(const tok_normals *ns, tok_work *w, tok_str *text,
                                      size_t *head);

/* ---- pre-tokenizer (tok_split.c) ---- */

typedef enum {
    TOK_OP_PATTERN,
    TOK_OP_CLASS,
    TOK_OP_SPACE,
    TOK_OP_MARK,
    TOK_OP_BYTES
} tok_op_kind;
typedef enum {
    TOK_CUT_REMOVED,
    TOK_CUT_ISOLATED,
    TOK_CUT_CONTIGUOUS,
    TOK_CUT_WITH_PREVIOUS,
    TOK_CUT_WITH_NEXT
} tok_cut;
typedef enum { TOK_PREPEND_FIRST, TOK_PREPEND_NEVER, TOK_PREPEND_ALWAYS } tok_prepend;

typedef struct {
    tok_op_kind kind;
    tok_pattern pattern;
    bool (*is)(uint32_t cp);
    tok_cut cut;
    bool invert, split;
    tok_prepend prepend;
    char mark[5]; /* Metaspace's character */
} tok_op;

typedef struct {
    tok_op *list; /* owned */
    size_t count;
} tok_ops;

/* A part of a text.  Of its bytes the first `head` stem from the first character of the
 * original text: where there are any, it counts as the text's beginning. */
typedef struct {
    size_t at, n, head;
} tok_span;

typedef struct {
    tok_span *v; /* owned */
    size_t count, cap;
} tok_spans;

DR_MUST_USE dr_status tok_ops_open(tok_ops *ops, const json_t *spec, const char *where);
void tok_ops_release(tok_ops *ops);
/* Cuts text into words; *base and *words are in w. */
DR_MUST_USE dr_status tok_ops_run(const tok_ops *ops, tok_work *w, tok_str text,
                                  size_t head, const char **base, const tok_spans **words);
/* Whether any of them asks for the beginning of the original text. */
bool tok_ops_want_head(const tok_ops *ops);
/* What is left of a head in a part of n bytes from `at` on. */
size_t tok_head_of(size_t head, size_t at, size_t n);
/* Metaspace's fields, for the pre-tokenizer and the decoder. */
DR_MUST_USE dr_status tok_mark_open(char mark[5], tok_prepend *prepend, bool *split,
                                    const json_t *spec, const char *where);

/* ---- post-processor (tok_post.c) ---- */

typedef struct {
    tok_ids before, after; /* around the text */
} tok_post;

DR_MUST_USE dr_status tok_post_open(tok_post *p, const json_t *spec, const char *where);
void tok_post_release(tok_post *p);

/* ---- decoder (tok_decode.c) ---- */

typedef struct tok_stage tok_stage;

typedef struct {
    tok_stage *list; /* owned */
    size_t count;
} tok_stages;

DR_MUST_USE dr_status tok_stages_open(tok_stages *d, const json_t *spec, const char *where);
void tok_stages_release(tok_stages *d);

/* ---- scratch (tok_work.c) ---- */

typedef struct {
    int32_t id, prev, next;
    uint32_t live; /* 0: merged into the symbol before it */
} tok_symbol;

typedef struct {
    uint32_t rank, at;
    int32_t id; /* what the merge makes */
} tok_candidate;

/* Unigram: the best way to an end. */
typedef struct {
    double score;
    uint32_t start; /* of its last piece; TOK_NO_WAY: nothing ends here */
    int32_t id;
} tok_way;
#define TOK_NO_WAY UINT32_MAX

enum { TOK_CACHE_SLOTS = 1 << 14, TOK_CACHE_TEXT = 38, TOK_CACHE_IDS = 6 };

/* A word seen before; 64 bytes, one cache line. */
typedef struct {
    uint8_t n, count;
    char text[TOK_CACHE_TEXT];
    int32_t ids[TOK_CACHE_IDS];
} tok_cached;

struct tok_work {
    tok_work *next; /* owned: the list of idle ones */
    dr_buf clean, normal[2], op[2], word, name;
    tok_spans spans[2], cuts;
    tok_matcher matcher;
    tok_symbol *symbols; /* owned */
    tok_candidate *heap; /* owned */
    tok_way *ways;       /* owned */
    size_t symbols_cap, heap_cap, ways_cap;
    tok_cached *cache; /* owned */
};

/*
 * The most bytes that normalizers in a row may make of n bytes of text, pre-tokenizers of
 * that, decoders of pieces: a file may have 64 of each, and each can double what it gets.
 * What known files do stays below 12 times (NFKC of U+FDFA).
 */
size_t tok_growth_max(size_t n);

tok_work *tok_work_take(const tok_tokenizer *t);
void tok_work_give(const tok_tokenizer *t, tok_work *w);
void tok_work_free(tok_work *w);
void tok_spans_add(tok_spans *s, size_t at, size_t n, size_t head);

/* ---- the whole ---- */

typedef struct {
    pthread_mutex_t lock;
    tok_work *idle; /* owned */
} tok_works;

struct tok_tokenizer {
    tok_model model;
    tok_addeds added;
    tok_normals normals;
    tok_ops ops;
    tok_post post;
    tok_stages stages;
    tok_works *works; /* owned */
    size_t size;      /* highest id + 1 */
    bool wants_head;  /* tok_ops_want_head */
    int32_t bos, eos, pad, unk;
    char *bos_text, *eos_text; /* owned */
    char *chat_template;       /* owned; NULL: none */
    json_t *specials;          /* owned: names of special tokens -> text, for templates */
};

#endif
