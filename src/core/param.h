/*
 * param.h - dr_param, the one table that describes what a user can set.
 *
 * A row ties a name to a field of a config struct.  The table fills in defaults, parses
 * argv and JSON, prints help and JSON (which feeds the cache key), and carries the values
 * to search.  Fields are bool, int, double, const char * and, for a choice, an int index
 * into .choices; a field of another type does not compile.
 *
 *     struct awq { int bits; bool zero_point; };
 *     static const dr_param params[] = {
 *         DR_INT(struct awq, bits, .dflt = "4", .min = 2, .max = 8, .help = "bits"),
 *         DR_BOOL(struct awq, zero_point, .dflt = "true", .help = "asymmetric grid"),
 *         DR_REFUSED("scale_clip", "drupe keeps all scales", "zero_point"),
 *     };
 *
 * .min and .max go together; none of both: any value that the type holds.  A row whose own
 * default does not parse or is out of range is our mistake and aborts at the first use.
 * Every error of a user is DR_EUSAGE, names option and value found, and hints at the
 * nearest name where one is near.
 */
#ifndef DRUPE_CORE_PARAM_H
#define DRUPE_CORE_PARAM_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/buf.h"
#include "core/status.h"

typedef enum {
    DR_PARAM_BOOL,
    DR_PARAM_INT,
    DR_PARAM_FLOAT,
    DR_PARAM_STR,
    DR_PARAM_CHOICE,
    DR_PARAM_REFUSED
} dr_param_type;

/* Every pointer is borrowed and lives as long as the table. */
typedef struct {
    const char *name; /* Olive's spelling, with underscores */
    size_t offset;    /* of the field in the config struct */
    dr_param_type type;
    char short_name; /* 'm' for -m; 0: none */
    bool required;   /* must be given */
    bool hidden;     /* not in the help */
    bool words;      /* of a string: all values up to the next option, commas between */
    bool listed;     /* a string; JSON may write a number, list or object: "a,b", "k=v" */
    bool json;       /* a string of JSON, which JSON may write as an object itself; with
                        listed as a list, too */
    /* As a user would write it; NULL: 0, false, NULL, choice -1.  "null" is NULL for a
     * string and -1 for a choice. */
    const char *dflt;
    double min, max;            /* of numbers; both 0: no limits */
    const char *const *choices; /* ends with NULL */
    const char *search;         /* JSON array of values to search, or NULL */
    const char *help;           /* lower case, no full stop */
    const char *refused;        /* why Olive's option is not supported yet */
    const char *nearest;        /* the option to use instead of a refused one, or NULL */
} dr_param;

/* The field's offset, if it has this type; else no association matches: an error. */
#define DR_FIELD(s, field, ctype) _Generic(((s *)0)->field, ctype : offsetof(s, field))
#define DR_ROW(s, field, ctype, kind, ...)                                                 \
    {                                                                                      \
        .name = #field, .offset = DR_FIELD(s, field, ctype), .type = kind, __VA_ARGS__     \
    }

#define DR_BOOL(s, field, ...)   DR_ROW(s, field, bool, DR_PARAM_BOOL, __VA_ARGS__)
#define DR_INT(s, field, ...)    DR_ROW(s, field, int, DR_PARAM_INT, __VA_ARGS__)
#define DR_FLOAT(s, field, ...)  DR_ROW(s, field, double, DR_PARAM_FLOAT, __VA_ARGS__)
#define DR_STR(s, field, ...)    DR_ROW(s, field, const char *, DR_PARAM_STR, __VA_ARGS__)
#define DR_CHOICE(s, field, ...) DR_ROW(s, field, int, DR_PARAM_CHOICE, __VA_ARGS__)
/* An option of Olive that drupe knows and does not have: name and nearest are strings. */
#define DR_REFUSED(option, reason, instead)                                                \
    {                                                                                      \
        .name = option, .type = DR_PARAM_REFUSED, .refused = reason, .nearest = instead    \
    }

/* Sets every field from its row; strings borrow from the table. */
void dr_params_defaults(const dr_param *params, size_t n, void *cfg);

/* The row of that name (- and _ are the same), NULL when there is none. */
const dr_param *dr_param_find(const dr_param *params, size_t n, const char *name);

/* "4G", "300MB", "12" as bytes (K, M and G are powers of 1024).
 * DR_EUSAGE: it is no such size; label names it. */
DR_MUST_USE dr_status dr_parse_size(uint64_t *out, const char *text, const char *label);

/* Whether the row of that name was set: given as dr_params_parse_argv leaves it, NULL:
 * nothing was; false, too, where there is no such row. */
bool dr_param_given(const dr_param *params, size_t n, const unsigned char *given,
                    const char *name);

/* Set one field from text or JSON; `label` is the name in messages ("--bits").  A JSON null
 * is NULL for a string and leaves every other field as it is. */
DR_MUST_USE dr_status dr_param_set_text(const dr_param *p, void *cfg, const char *text,
                                        const char *label, dr_arena *a);
DR_MUST_USE dr_status dr_param_set_json(const dr_param *p, void *cfg, const json_t *value,
                                        const char *label, dr_arena *a);

/*
 * --name value, --name=value, -m value; --some-name is --some_name.  A bool stands alone or
 * is followed by true, false, 1, 0, yes or no in any case.  A value that starts with - and
 * is no number and has no space needs the form with =.  Given twice, the last one wins.
 * argv has options only, no program and no verb.  given[i] (n of them, may be NULL) is set
 * to 1 for the rows that argv named.  Strings are copied into a.
 */
DR_MUST_USE dr_status dr_params_parse_argv(const dr_param *params, size_t n, void *cfg,
                                           int argc, char *const *argv,
                                           unsigned char *given, dr_arena *a);

/* The members of the object, by type; `where` (a file, a pass) starts every message.  null
 * is a string's "none", but for one that is required; given NULL takes it there, too: what
 * dr_params_json wrote of defaults. */
DR_MUST_USE dr_status dr_params_from_json(const dr_param *params, size_t n, void *cfg,
                                          const json_t *object, const char *where,
                                          unsigned char *given, dr_arena *a);

/* All fields as an object in the order of the table; released with json_decref. */
DR_MUST_USE dr_status dr_params_json(json_t **out, const dr_param *params, size_t n,
                                     const void *cfg);

/* Aligned lines `  -m, --name VALUE   help (default: x)`, at most 80 columns. */
DR_MUST_USE dr_status dr_params_help(dr_buf *b, const dr_param *params, size_t n);

/* The word of the list that was probably meant, NULL when none is near. */
const char *dr_nearest(const char *word, const char *const *list, size_t n);

#endif
