/*
 * hash.h - SHA-256 and HMAC, from nettle, and a checksum as fast as memory.
 */
#ifndef DRUPE_CORE_HASH_H
#define DRUPE_CORE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

enum { DR_SHA256_HEX = 65, DR_HMAC_BYTES = 32 };

void dr_sha256(char hex[DR_SHA256_HEX], const void *data, size_t n);
/* HMAC-SHA-256 (RFC 2104); and as digits, of text under a key, which is text, too. */
void dr_hmac(unsigned char mac[DR_HMAC_BYTES], const void *key, size_t key_bytes,
             const void *data, size_t n);
void dr_hmac_sha256(char hex[DR_SHA256_HEX], const char *key, const char *text);
/* 256 bits that nobody can guess, from the system.  DR_EIO: it gives none. */
DR_MUST_USE dr_status dr_secret(char hex[DR_SHA256_HEX]);
/* Of a whole file, read through; DR_EIO names the file. */
DR_MUST_USE dr_status dr_sha256_file(char hex[DR_SHA256_HEX], const char *path);
/* Of what comes piece by piece: begin, add as often as liked, end, which frees it. */
typedef struct dr_hash dr_hash;
dr_hash *dr_hash_begin(void);
void dr_hash_add(dr_hash *h, const void *data, size_t n);
void dr_hash_end(char hex[DR_SHA256_HEX], dr_hash *h);
/* Of the SHA-256 of a file's parts of 4 MiB, which all processors take: another value than
 * the one of the whole file, the same for any number of processors. */
DR_MUST_USE dr_status dr_sha256_parts(char hex[DR_SHA256_HEX], const char *path);

/* For what was written badly, not for what was changed on purpose.  Two blocks of one size
 * that differ in one aligned word of 8 bytes never have the same. */
uint64_t dr_checksum(const void *data, size_t n);
/* Of the checksums of a file's parts, likewise. */
DR_MUST_USE dr_status dr_checksum_parts(uint64_t *sum, const char *path);

#endif
