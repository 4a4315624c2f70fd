/*
 * json.h - JSON through jansson: reading with the file's name in every error, typed access
 * that leaves defaults alone, writing.
 *
 * Values are jansson's json_t; json_decref releases.  Getters take the object, a key and
 * `where` (the file, for messages): an absent or null key leaves *out as it is, a value of
 * another type is DR_EFORMAT naming file, key and the type found.
 */
#ifndef DRUPE_CORE_JSON_H
#define DRUPE_CORE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/hash.h"
#include "core/status.h"

DR_MUST_USE dr_status dr_json_parse(json_t **out, const char *text, size_t n,
                                    const char *where);
DR_MUST_USE dr_status dr_json_read(json_t **out, const char *path);
/* Indented by two, keys in insertion order, trailing newline; replaces path whole. */
DR_MUST_USE dr_status dr_json_write(const char *path, const json_t *value);
/* SHA-256 of the value, whatever the order of its keys.  false: it has no text. */
DR_MUST_USE bool dr_json_sha256(char hex[DR_SHA256_HEX], const json_t *value);

DR_MUST_USE dr_status dr_json_int(const json_t *o, const char *key, int64_t *out,
                                  const char *where);
DR_MUST_USE dr_status dr_json_real(const json_t *o, const char *key, double *out,
                                   const char *where);
DR_MUST_USE dr_status dr_json_bool(const json_t *o, const char *key, bool *out,
                                   const char *where);
/* *out borrows from o. */
DR_MUST_USE dr_status dr_json_str(const json_t *o, const char *key, const char **out,
                                  const char *where);
/* An object or array member, NULL when absent or null; borrowed. */
const json_t *dr_json_get(const json_t *o, const char *key);
const char *dr_json_type(const json_t *v); /* "a string", "an object", ... */

#endif
