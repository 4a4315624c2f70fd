/*
 * resume.c - pieces of state that survive a kill.
 *
 * A piece has two files, NAME.0 and NAME.1, which are written in turn, in place: so the
 * file system has nothing to make and little to note, and one of the two is whole at any
 * moment.  The piece is the one with the greatest serial of those whose head and parts have
 * their checksums; a file that was being written at the kill, and one whose bits have
 * changed, are passed over.  Numbers are in the machine's own order: a state does not
 * travel.
 */
#include "core/resume.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file_impl.h"
#include "core/log.h"
#include "core/mem.h"

enum { ALIGN = 64 };

typedef struct {
    char magic[8];
    char key[DR_SHA256_HEX - 1];
    uint64_t serial, part_count;
    uint64_t bytes[DR_RESUME_PARTS], sum[DR_RESUME_PARTS];
    uint64_t head_sum; /* of all before it */
} head;

static const char magic[8] = "drupe 1";

enum { NAMES = 8 };

struct dr_resume {
    char *dir;  /* owned */
    char *what; /* owned */
    char key[DR_SHA256_HEX];
    const char *names[NAMES]; /* of pieces that were put */
    uint64_t serials[NAMES];  /* their last ones */
};

static uint64_t aligned(uint64_t n)
{
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

static char *piece_path(const dr_resume *r, const char *name, uint64_t serial)
{
    return dr_asprintf("%s/%s.%d", r->dir, name, (int)(serial & 1));
}

/* ---- reading ---- */

typedef enum { PIECE_BROKEN, PIECE_OTHERS, PIECE_OURS } piece_kind;

/* What a file's head says, and whether its parts are there; not whether they are whole. */
static piece_kind read_head(head *h, const dr_map *map, const char *key)
{
    uint64_t at = aligned(sizeof(*h));

    if (map->size < sizeof(*h))
        return PIECE_BROKEN;
    memcpy(h, map->data, sizeof(*h));
    if (memcmp(h->magic, magic, sizeof(magic)) != 0 || h->part_count > DR_RESUME_PARTS ||
        h->head_sum != dr_checksum(h, offsetof(head, head_sum)))
        return PIECE_BROKEN;
    if (memcmp(h->key, key, sizeof(h->key)) != 0)
        return PIECE_OTHERS;
    for (size_t i = 0; i < h->part_count; i++) {
        if (h->bytes[i] == 0) /* behind the end of the file, when it is the last */
            continue;
        if (h->bytes[i] > map->size || at > map->size - h->bytes[i])
            return PIECE_BROKEN;
        at += aligned(h->bytes[i]);
    }
    return PIECE_OURS;
}

/* The parts where they lie; false: a checksum is not theirs. */
static bool find_parts(dr_part *parts, const head *h, const dr_map *map)
{
    size_t at = aligned(sizeof(*h));

    for (size_t i = 0; i < h->part_count; i++) {
        parts[i] = (dr_part){map->data + (h->bytes[i] > 0 ? at : 0), h->bytes[i]};
        if (dr_checksum(parts[i].data, parts[i].bytes) != h->sum[i])
            return false;
        at += aligned(h->bytes[i]);
    }
    return true;
}

/* One of the two files; false: it is not whole, or another run's. */
static bool open_piece(const dr_resume *r, const char *path, head *h, dr_map *map,
                       dr_part *parts)
{
    const dr_trail before = *dr_trail_get();

    if (!dr_is_file(path) || dr_map_open(map, path) != DR_OK) {
        dr_trail_set(&before);
        return false;
    }
    if (read_head(h, map, r->key) == PIECE_OURS && find_parts(parts, h, map))
        return true;
    dr_map_close(map);
    return false;
}

bool dr_resume_get(const dr_resume *r, const char *name, dr_map *map, dr_part *parts,
                   size_t count)
{
    dr_part found[DR_RESUME_PARTS];
    uint64_t serial = 0;
    bool any = false;

    for (uint64_t i = 0; i < 2; i++) {
        char *path = piece_path(r, name, i);
        dr_map other = {0};
        head h;
        if (open_piece(r, path, &h, &other, found)) {
            bool better = h.part_count == count && (!any || h.serial > serial);
            if (better) {
                if (any)
                    dr_map_close(map);
                *map = other;
                memcpy(parts, found, count * sizeof(*parts));
                serial = h.serial;
                any = true;
            } else {
                dr_map_close(&other);
            }
        }
        free(path);
    }
    return any;
}

/* ---- writing ---- */

/* The serial of the last whole piece, 0 before the first; a file that is not whole does not
 * count, so that the next put goes there. */
static uint64_t *serial_of(dr_resume *r, const char *name)
{
    size_t i = 0;

    while (i < NAMES && r->names[i] != NULL && strcmp(r->names[i], name) != 0)
        i++;
    DR_BUG_IF(i == NAMES);
    if (r->names[i] != NULL)
        return &r->serials[i];
    r->names[i] = name;
    for (uint64_t k = 0; k < 2; k++) {
        char *path = piece_path(r, name, k);
        dr_part parts[DR_RESUME_PARTS];
        dr_map map = {0};
        head h;
        if (open_piece(r, path, &h, &map, parts)) {
            r->serials[i] = h.serial > r->serials[i] ? h.serial : r->serials[i];
            dr_map_close(&map);
        }
        free(path);
    }
    return &r->serials[i];
}

static dr_status write_piece(int fd, const char *path, const head *h, const dr_part *parts)
{
    uint64_t at = aligned(sizeof(*h));
    dr_status st = DR_OK;

    DR_TRY(dr_io_write(fd, path, h, sizeof(*h), 0));
    for (size_t i = 0; i < h->part_count; i++) {
        DR_TRY(dr_io_write(fd, path, parts[i].data, parts[i].bytes, at));
        at += aligned(parts[i].bytes);
    }
    DR_TRY(dr_io_sync(fd, path));
done:
    return st;
}

dr_status dr_resume_put(dr_resume *r, const char *name, const dr_part *parts, size_t count)
{
    uint64_t *last = serial_of(r, name);
    head h = {.serial = *last + 1, .part_count = count};
    char *path = piece_path(r, name, h.serial);
    int fd = -1;
    dr_status st = DR_OK;

    DR_BUG_IF(count > DR_RESUME_PARTS);
    memcpy(h.magic, magic, sizeof(magic));
    memcpy(h.key, r->key, sizeof(h.key));
    for (size_t i = 0; i < count; i++) {
        h.bytes[i] = parts[i].bytes;
        h.sum[i] = dr_checksum(parts[i].data, parts[i].bytes);
    }
    h.head_sum = dr_checksum(&h, offsetof(head, head_sum));
    bool made = !dr_is_file(path);
    fd = dr_io_open(path, O_WRONLY | O_CREAT | O_NOFOLLOW, 0666);
    if (fd < 0)
        DR_TRY(dr_io_fail(path, "create"));
    DR_TRY(write_piece(fd, path, &h, parts));
    st = dr_io_close(fd, path);
    fd = -1;
    DR_TRY(st);
    if (made)
        DR_TRY(dr_io_sync_parent(path));
    *last = h.serial;
done:
    if (fd >= 0)
        (void)close(fd);
    free(path);
    return st;
}

bool dr_resume_keep(dr_resume *r, const char *name, const dr_part *parts, size_t count)
{
    const dr_trail before = *dr_trail_get();

    if (dr_resume_put(r, name, parts, count) == DR_OK)
        return true;
    dr_log(DR_WARNING, "%s: a run that is killed from here on cannot go on later: %s",
           r->what, dr_trail_get()->frames[0].text);
    dr_trail_set(&before);
    return false;
}

bool dr_resume_take(const dr_resume *r, const char *name, void *dst, size_t bytes)
{
    dr_map map = {0};
    dr_part part;

    if (r == NULL || !dr_resume_get(r, name, &map, &part, 1))
        return false;
    bool fits = part.bytes == bytes;
    if (fits)
        memcpy(dst, part.data, bytes);
    dr_map_close(&map);
    return fits;
}

/* ---- the folder ---- */

static bool is_piece(const char *name)
{
    return dr_ends_with(name, ".0") || dr_ends_with(name, ".1");
}

static dr_status look_through(size_t count[3], const dr_resume *r)
{
    dr_arena a = {0};
    char **names = NULL;
    size_t n = 0;
    dr_status st = DR_OK;

    DR_TRY(dr_list_dir(&a, r->dir, &names, &n));
    for (size_t i = 0; i < n; i++) {
        const char *path = dr_path_join(&a, r->dir, names[i]);
        dr_part parts[DR_RESUME_PARTS];
        dr_map map = {0};
        head h;
        if (!is_piece(names[i]) || !dr_is_file(path))
            continue;
        DR_TRY(dr_map_open(&map, path));
        piece_kind kind = read_head(&h, &map, r->key);
        if (kind == PIECE_OURS && !find_parts(parts, &h, &map))
            kind = PIECE_BROKEN;
        count[kind]++;
        dr_map_close(&map);
    }
done:
    dr_arena_release(&a);
    return st;
}

void dr_resume_tell_broken(const dr_resume *r)
{
    dr_tell("%s: the state of a killed run is not whole and is not used", r->what);
}

dr_status dr_resume_open(dr_resume **out, const char *dir, const char key[DR_SHA256_HEX],
                         const char *what)
{
    dr_resume *r = dr_calloc(1, sizeof(*r));
    size_t count[3] = {0};
    dr_status st = DR_OK;

    *out = NULL;
    r->dir = dr_strdup(dir);
    r->what = dr_strdup(what);
    memcpy(r->key, key, DR_SHA256_HEX);
    DR_TRY(dr_make_dirs(dir));
    DR_TRY(look_through(count, r));
    if (count[PIECE_OTHERS] > 0) {
        dr_tell(
            "%s: the state of a killed run with another input, other options or another "
            "version is thrown away",
            what);
        DR_TRY(dr_io_clear_dir(dir));
    } else if (count[PIECE_OURS] == 0) {
        if (count[PIECE_BROKEN] > 0)
            dr_resume_tell_broken(r);
        DR_TRY(dr_io_clear_dir(dir));
    }
    *out = r;
    r = NULL;
done:
    dr_resume_close(r);
    return st;
}

void dr_resume_close(dr_resume *r)
{
    if (r == NULL)
        return;
    free(r->dir);
    free(r->what);
    free(r);
}

const char *dr_resume_dir(const dr_resume *r)
{
    return r->dir;
}
