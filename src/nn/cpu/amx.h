/*
 * amx.h - AMX's eight tile registers of 16 rows by 64 bytes, as the instructions or, where
 * the compiler is not told to use them, in plain C (Intel's manual, volume 2, tile
 * instructions; all tiles here are of the full size).
 *
 * Register numbers are constants.  A function that uses tiles opens with AMX_REGISTERS, and
 * in it they live: none are left in them for another function to find.  A thread calls
 * amx_enter before and amx_leave after; both are free of charge beside a task.
 *
 * GCC 12's intrinsics do not say that they read memory, hence the fences.
 */
#ifndef DRUPE_NN_CPU_AMX_H
#define DRUPE_NN_CPU_AMX_H

#include <stdint.h>
#include <string.h>

enum { AMX_ROWS = 16, AMX_ROW_BYTES = 64, AMX_COUNT = 8 };

#ifdef __AMX_TILE__
#    include <immintrin.h>

static inline void amx_enter(void)
{
    struct {
        uint8_t palette, start, none[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1};

    for (int i = 0; i < AMX_COUNT; i++) {
        shape.row_bytes[i] = AMX_ROW_BYTES;
        shape.rows[i] = AMX_ROWS;
    }
    __asm__ volatile("" ::"r"(&shape) : "memory");
    _tile_loadconfig(&shape);
}

static inline void amx_leave(void)
{
    _tile_release();
}

#    define AMX_REGISTERS ((void)0)
#    define AMX_FENCE     __asm__ volatile("" ::: "memory")
#    define AMX_ZERO(r)   _tile_zero(r)
#    define AMX_LOAD(r, from, stride)                                                      \
        do {                                                                               \
            AMX_FENCE;                                                                     \
            _tile_loadd(r, from, stride);                                                  \
        } while (0)
#    define AMX_STORE(r, to, stride)                                                       \
        do {                                                                               \
            _tile_stored(r, to, stride);                                                   \
            AMX_FENCE;                                                                     \
        } while (0)
#    define AMX_DPBSSD(c, a, b) _tile_dpbssd(c, a, b)
#    define AMX_DPBF16(c, a, b) _tile_dpbf16ps(c, a, b)

#else

typedef union {
    int8_t bytes[AMX_ROWS][AMX_ROW_BYTES];
    int32_t words[AMX_ROWS][AMX_ROW_BYTES / 4];
    float floats[AMX_ROWS][AMX_ROW_BYTES / 4];
} amx_register;

static inline void amx_enter(void)
{
}

static inline void amx_leave(void)
{
}

static inline void amx_load(amx_register *r, const void *from, size_t stride)
{
    for (size_t i = 0; i < AMX_ROWS; i++)
        memcpy(r->bytes[i], (const char *)from + i * stride, AMX_ROW_BYTES);
}

static inline void amx_store(const amx_register *r, void *to, size_t stride)
{
    for (size_t i = 0; i < AMX_ROWS; i++)
        memcpy((char *)to + i * stride, r->bytes[i], AMX_ROW_BYTES);
}

/* TDPBSSD: each word of c += the four products of a word of its row of a with one of its
 * column of b, for all 16 words. */
static inline void amx_dpbssd(amx_register *c, const amx_register *a, const amx_register *b)
{
    for (size_t i = 0; i < AMX_ROWS; i++)
        for (size_t k = 0; k < AMX_ROWS; k++)
            for (size_t j = 0; j < AMX_ROW_BYTES / 4; j++)
                for (size_t l = 0; l < 4; l++)
                    c->words[i][j] += a->bytes[i][4 * k + l] * b->bytes[k][4 * j + l];
}

/* The floats of the bf16 in a word's lower and in its upper half. */
static inline float amx_lower(int32_t word)
{
    uint32_t bits = (uint32_t)word << 16;
    float v;

    memcpy(&v, &bits, sizeof(v));
    return v;
}

static inline float amx_upper(int32_t word)
{
    uint32_t bits = (uint32_t)word & 0xffff0000;
    float v;

    memcpy(&v, &bits, sizeof(v));
    return v;
}

/* TDPBF16PS: the products of lower and of upper halves, which are exact, are summed apart,
 * and then c += their sum. */
static inline void amx_dpbf16(amx_register *c, const amx_register *a, const amx_register *b)
{
    for (size_t i = 0; i < AMX_ROWS; i++) {
        float even[AMX_ROW_BYTES / 4] = {0}, odd[AMX_ROW_BYTES / 4] = {0};
        for (size_t k = 0; k < AMX_ROWS; k++) {
            float low = amx_lower(a->words[i][k]), high = amx_upper(a->words[i][k]);
            for (size_t j = 0; j < AMX_ROW_BYTES / 4; j++) {
                even[j] += low * amx_lower(b->words[k][j]);
                odd[j] += high * amx_upper(b->words[k][j]);
            }
        }
        for (size_t j = 0; j < AMX_ROW_BYTES / 4; j++)
            c->floats[i][j] += even[j] + odd[j];
    }
}

#    define AMX_REGISTERS             amx_register amx_tile[AMX_COUNT]
#    define AMX_ZERO(r)               memset(&amx_tile[r], 0, sizeof(amx_tile[r]))
#    define AMX_LOAD(r, from, stride) amx_load(&amx_tile[r], from, stride)
#    define AMX_STORE(r, to, stride)  amx_store(&amx_tile[r], to, stride)
#    define AMX_DPBSSD(c, a, b)       amx_dpbssd(&amx_tile[c], &amx_tile[a], &amx_tile[b])
#    define AMX_DPBF16(c, a, b)       amx_dpbf16(&amx_tile[c], &amx_tile[a], &amx_tile[b])
#endif

#endif
