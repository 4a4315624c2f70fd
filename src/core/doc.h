/*
 * doc.h - files that people write, JSON or YAML, with the place of every key and value.
 *
 * libfyaml reads both; what comes out is jansson's values in a tree of nodes that know
 * their line and column.  Plain words of YAML mean what they mean in Python's reader: yes,
 * no, on and off are bools, ~ is null; 1e-4 is a number.  Anchors, aliases and merges (<<)
 * are resolved.
 *
 * DR_EFORMAT with file, line and column: bad syntax, a key twice, a key that is no text, a
 * second document, NaN and infinities, an unknown tag, more than 64 levels or 100,000
 * values.
 */
#ifndef DRUPE_CORE_DOC_H
#define DRUPE_CORE_DOC_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "core/arena.h"
#include "core/status.h"

typedef struct dr_node dr_node;
struct dr_node {
    const char *key;          /* of a member; NULL: an item of a list, or the top */
    int key_line, key_column; /* from 1; of an item: those of the value */
    int line, column;
    json_t *value;         /* borrowed: lives as long as the document */
    const dr_node *first;  /* members of an object, items of a list; NULL: none */
    const dr_node *next;   /* after this one in what holds it */
    const dr_node *parent; /* NULL: the top */
};

/* {0} is a valid empty one. */
typedef struct {
    const char *name; /* of the file, for messages */
    const dr_node *top;
    dr_arena arena;
} dr_doc;

/* A name that ends in .json is JSON, anything else YAML.  DR_EIO: no such file. */
DR_MUST_USE dr_status dr_doc_read(dr_doc *out, const char *path);
DR_MUST_USE dr_status dr_doc_parse(dr_doc *out, const char *text, size_t n,
                                   const char *name);
void dr_doc_release(dr_doc *d);

/* The member of that key; NULL: there is none, or it is null, or node is no object. */
const dr_node *dr_node_get(const dr_node *node, const char *key);
/* "passes.q.bits", "evaluators.e.metrics[2]"; "" of the top. */
const char *dr_node_path(dr_arena *a, const dr_node *node);
/* "file:12:5: passes.q.bits", at the key's place: what a message begins with. */
const char *dr_node_place(dr_arena *a, const dr_doc *d, const dr_node *node);

/* Starts a trail with DR_EUSAGE and "PLACE: message"; at the value's place. */
dr_status dr_node_fail(const dr_doc *d, const dr_node *node, const char *fmt, ...)
    DR_PRINTF(3, 4);

#endif
