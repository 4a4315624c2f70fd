/*
 * shared_cache.c - entries fetched from a shared place, and sent to it.
 *
 *   fetch   manifest, checked; each file into DIR/incoming, hashed while it comes; renamed
 *           into KEY.tmp; that exchanged with KEY, and KEY.json written: the entry is there
 *   send    contents that the place has not, then the manifest
 *
 * The place is a help and never a condition: what cannot be fetched is made, and what
 * cannot be sent stays here, with one line that says so.  A place that is out is not
 * asked again in this run.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/param.h"
#include "flow/shared_cache_impl.h"

enum {
    PART_BYTES = 256 << 20, /* below what every server takes in one piece */
    LEAST_PART_BYTES = 1 << 10,
    PIECE_BYTES = 1 << 20,
    DISK_RESERVE_BYTES = 64 << 20,
};

struct cache_shared {
    net_store *store; /* owned */
    bool update;
    bool out; /* and said so */
    uint64_t part_bytes;
    char id[DR_SHA256_HEX]; /* of the place's name */
    json_t *known;          /* owned: a content's id to a file of this cache that has it */
    json_t *bad; /* owned: keys of entries that are not as they should be there */
};

/* ---- opening ---- */

dr_status cache_share_with(flow_cache *c, const char *url, bool update)
{
    cache_shared *s = dr_calloc(1, sizeof(*s));
    const char *part = getenv("DRUPE_SHARED_CACHE_PART"), *name = NULL;
    dr_arena a = {0};
    dr_status st = DR_OK;

    s->update = update;
    s->known = json_object();
    s->bad = json_object();
    s->part_bytes = PART_BYTES;
    c->shared = s;
    if (part != NULL && *part != '\0')
        DR_TRY(dr_parse_size(&s->part_bytes, part, "DRUPE_SHARED_CACHE_PART"));
    if (s->part_bytes < LEAST_PART_BYTES)
        DR_FAIL(DR_EUSAGE, "DRUPE_SHARED_CACHE_PART: expected %d bytes or more, found %s",
                LEAST_PART_BYTES, part);
    DR_TRY(net_store_open(&s->store, url));
    name = net_store_name(s->store);
    dr_sha256(s->id, name, strlen(name));
    if (c->dir != NULL) {
        DR_TRY(dr_make_dirs(dr_path_join(&a, c->dir, "incoming")));
        DR_TRY(dr_make_dirs(dr_path_join(&a, c->dir, "shared")));
    }
done:
    dr_arena_release(&a);
    return st;
}

void cache_share_end(flow_cache *c)
{
    cache_shared *s = c->shared;

    if (s == NULL)
        return;
    net_store_close(s->store);
    json_decref(s->known);
    json_decref(s->bad);
    free(s);
    c->shared = NULL;
}

/* One line for what went wrong, which ends here; a cancelled run goes on being one. */
static dr_status forgive(cache_shared *s, dr_status st, const char *what, const char *more)
{
    const dr_trail *t = dr_trail_get();

    if (st == DR_OK || st == DR_ECANCELLED)
        return st;
    const bool out = net_store_is_out(s->store);
    dr_tell("shared cache: %s%s: %s%s%s", what, out ? ", and it is not asked again" : more,
            t->count > 0 ? t->frames[0].text : "failed", t->hint[0] != '\0' ? "; " : "",
            t->hint);
    s->out = s->out || out;
    dr_trail_clear();
    return DR_OK;
}

/* ---- what is known to be there ---- */

static const char *marker_of(dr_arena *a, const flow_cache *c, const char *key)
{
    return dr_arena_printf(a, "%s/shared/%s", c->dir, key);
}

static bool is_marked(const flow_cache *c, const char *key)
{
    dr_arena a = {0};
    const char *path = marker_of(&a, c, key);
    dr_buf b;
    bool same = false;

    dr_buf_init(&b, 4096);
    if (dr_is_file(path) && dr_read_file(&b, path) == DR_OK)
        same = strcmp(b.data, c->shared->id) == 0;
    dr_trail_clear();
    dr_buf_release(&b);
    dr_arena_release(&a);
    return same;
}

static dr_status set_mark(const flow_cache *c, const char *key)
{
    dr_arena a = {0};
    dr_status st = dr_write_file(marker_of(&a, c, key), c->shared->id, DR_SHA256_HEX - 1);

    dr_arena_release(&a);
    return st;
}

/* ---- fetching a file ---- */

/* A file that is coming. */
typedef struct {
    flow_cache *c;
    const char *key;
    const shared_manifest *m;
    const shared_file *f;
    int fd;
    dr_hash *hash; /* of the part that is coming; owned */
    dr_progress *progress;
    uint64_t before; /* bytes of the entry before this part */
} coming;

static void on_bytes(void *ctx, uint64_t at, const void *data, size_t n)
{
    coming *g = ctx;
    char unused[DR_SHA256_HEX];

    if (at == 0) { /* the first time, or again from the beginning */
        dr_hash_end(unused, g->hash);
        g->hash = dr_hash_begin();
    }
    dr_hash_add(g->hash, data, n);
    dr_progress_step(g->progress, (size_t)(g->before + at + n), NULL);
}

/* DIR/incoming/ID.part, locked: one process at a time gets a content. */
static dr_status open_part(int *fd, const char *path)
{
    struct stat by_name, by_fd;
    dr_status st = DR_OK;

    for (;;) {
        *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (*fd < 0)
            DR_FAIL(DR_EIO, "%s: cannot create: %s", path, strerror(errno));
        while (flock(*fd, LOCK_EX) != 0) {
            if (errno != EINTR)
                DR_FAIL(DR_EIO, "%s: cannot lock: %s", path, strerror(errno));
            DR_TRY(dr_cancelled_check());
        }
        if (stat(path, &by_name) == 0 && fstat(*fd, &by_fd) == 0 &&
            by_name.st_ino == by_fd.st_ino && by_name.st_dev == by_fd.st_dev)
            break;
        (void)close(*fd); /* another process had it, and has moved it away */
        *fd = -1;
    }
done:
    return st;
}

static uint64_t size_of(int fd)
{
    struct stat s;

    return fstat(fd, &s) == 0 ? (uint64_t)s.st_size : 0;
}

/* Bytes of a file into the hash. */
static dr_status hash_range(dr_hash *h, int fd, uint64_t from, uint64_t n)
{
    char *piece = dr_calloc(PIECE_BYTES, 1);
    dr_status st = DR_OK;

    while (n > 0) {
        const size_t want = n < PIECE_BYTES ? (size_t)n : PIECE_BYTES;
        const ssize_t got = pread(fd, piece, want, (off_t)from);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            DR_FAIL(DR_EIO, "cannot read it: %s",
                    got < 0 ? strerror(errno) : "the file is shorter now");
        dr_hash_add(h, piece, (size_t)got);
        from += (uint64_t)got;
        n -= (uint64_t)got;
        DR_TRY(dr_cancelled_check());
    }
done:
    free(piece);
    return st;
}

/* *good: what is at the part's place now is what it should be. */
static dr_status try_part(bool *good, coming *g, size_t i, uint64_t have)
{
    const uint64_t bytes = shared_part_bytes(g->m, g->f, i);
    net_file to = {.fd = g->fd,
                   .base = i * g->m->part_bytes,
                   .size = bytes,
                   .have = have,
                   .saw = on_bytes,
                   .ctx = g};
    char sha[DR_SHA256_HEX];
    bool there = true;
    dr_arena a = {0};
    dr_status st = DR_OK;

    g->hash = dr_hash_begin();
    DR_TRY(hash_range(g->hash, g->fd, to.base, have));
    if (have < bytes)
        DR_TRY(net_store_get(g->c->shared->store, &there, &to,
                             shared_content_name(&a, g->f->parts[i])));
    if (!there)
        DR_FAIL(DR_EFORMAT, "%s: its content is not there", g->f->path);
done:
    dr_hash_end(sha, g->hash);
    g->hash = NULL;
    *good = st == DR_OK && strcmp(sha, g->f->parts[i]) == 0;
    dr_arena_release(&a);
    return st;
}

static dr_status get_part(coming *g, size_t i)
{
    const uint64_t base = i * g->m->part_bytes, bytes = shared_part_bytes(g->m, g->f, i);
    const uint64_t size = size_of(g->fd);
    const uint64_t old = size > base ? size - base : 0;
    uint64_t have = old < bytes ? old : bytes;
    bool good = false;
    dr_status st = DR_OK;

    DR_TRY(try_part(&good, g, i, have));
    for (int again = have > 0; !good && again; again--) { /* what was there was bad */
        if (ftruncate(g->fd, (off_t)base) != 0)
            DR_FAIL(DR_EIO, "cannot start the file again: %s", strerror(errno));
        have = 0;
        DR_TRY(try_part(&good, g, i, 0));
    }
    if (!good)
        DR_FAIL(DR_EFORMAT, "%s: its content is not what its SHA-256 says", g->f->path);
    g->before += bytes;
    dr_progress_step(g->progress, (size_t)g->before, NULL);
done:
    if (st == DR_EFORMAT) /* nothing of it is of use */
        (void)ftruncate(g->fd, (off_t)base);
    return st;
}

/* A file of this cache with the same content, if there is one that still has it. */
static bool place_known(const flow_cache *c, const shared_file *f, const char *to)
{
    const char *path = json_string_value(json_object_get(c->shared->known, f->id));
    char sha[DR_SHA256_HEX];
    bool good = path != NULL && f->part_count == 1 && !f->executable && !f->places &&
                dr_is_file(path) && dr_sha256_file(sha, path) == DR_OK &&
                strcmp(sha, f->parts[0]) == 0 && dr_place_file(to, path, NULL) == DR_OK;

    dr_trail_clear();
    return good;
}

/* The text with this cache's folder in it; the part has done its duty. */
static dr_status place_text(const coming *g, const char *to, const char *part)
{
    dr_arena a = {0};
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, 2 * SHARED_PLACES_BYTES);
    DR_TRY(shared_place_in(&b, part, cache_folder(&a, g->c, g->key)));
    DR_TRY(dr_write_file(to, b.data, b.len));
    (void)unlink(part);
done:
    dr_buf_release(&b);
    dr_arena_release(&a);
    return st;
}

static dr_status get_file(coming *g, const char *dir)
{
    dr_arena a = {0};
    const char *to = dr_path_join(&a, dir, g->f->path);
    const char *part = dr_arena_printf(&a, "%s/incoming/%s.part", g->c->dir, g->f->id);
    dr_status st = DR_OK;

    g->fd = -1;
    DR_TRY(dr_make_dirs(dr_path_dir(&a, to)));
    if (place_known(g->c, g->f, to)) {
        g->before += g->f->bytes;
        goto done;
    }
    DR_TRY(open_part(&g->fd, part));
    for (size_t i = 0; i < g->f->part_count; i++)
        DR_TRY(get_part(g, i));
    if (ftruncate(g->fd, (off_t)g->f->bytes) != 0 ||
        fchmod(g->fd, g->f->executable ? 0755 : 0644) != 0)
        DR_FAIL(DR_EIO, "%s: %s", part, strerror(errno));
    if (g->f->places) {
        DR_TRY(place_text(g, to, part));
        goto done;
    }
    DR_TRY(dr_rename(to, part));
    json_object_set_new(g->c->shared->known, g->f->id, json_string(to));
done:
    if (g->fd >= 0)
        (void)close(g->fd);
    dr_arena_release(&a);
    return st;
}

/* ---- fetching an entry ---- */

static dr_status read_manifest(bool *there, shared_manifest *m, dr_arena *a,
                               const cache_shared *s, const char *key)
{
    const char *name = shared_entry_name(a, key);
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, SHARED_MANIFEST_BYTES);
    DR_TRY(net_store_read(s->store, there, &b, name));
    if (*there)
        DR_TRY(shared_parse(m, a, b.data, b.len, key,
                            dr_arena_printf(a, "%s/%s", net_store_name(s->store), name)));
done:
    dr_buf_release(&b);
    return st;
}

/* All files into KEY.tmp, which becomes KEY. */
static dr_status get_files(flow_cache *c, const char *key, const shared_manifest *m,
                           const char *label)
{
    dr_arena a = {0};
    const char *folder = cache_folder(&a, c, key);
    coming g = {.c = c, .key = key, .m = m};
    dr_progress progress = {0};
    dr_outdir *out = NULL;
    const uint64_t room = dr_disk_free(c->dir);
    dr_status st = DR_OK;

    if (room < DISK_RESERVE_BYTES || room - DISK_RESERVE_BYTES < m->bytes)
        DR_FAIL(DR_EIO, "%llu MB are to come, %s has %llu MB free",
                (unsigned long long)(m->bytes >> 20), c->dir,
                (unsigned long long)(room >> 20));
    DR_TRY(dr_remove_tree(folder));
    DR_TRY(dr_outdir_open(&out, folder));
    g.progress = &progress;
    dr_progress_begin(&progress, label, "bytes", (size_t)m->bytes);
    for (size_t i = 0; i < m->count; i++) {
        g.f = &m->files[i];
        DR_TRY(get_file(&g, dr_outdir_tmp(out)));
    }
    DR_TRY(dr_outdir_commit(out));
    for (size_t i = 0; i < m->count; i++) /* they have moved */
        if (!m->files[i].places)
            json_object_set_new(c->shared->known, m->files[i].id,
                                json_string(dr_path_join(&a, folder, m->files[i].path)));
done:
    if (progress.label != NULL)
        dr_progress_end(&progress);
    dr_outdir_close(out);
    dr_arena_release(&a);
    return st;
}

static dr_status fetch(bool *got, flow_cache *c, const char *key, json_t *info)
{
    const char *pass = json_string_value(json_object_get(info, "pass"));
    shared_manifest m = {.count = 0};
    bool there = false;
    dr_arena a = {0};
    dr_status st = DR_OK;

    DR_TRY(read_manifest(&there, &m, &a, c->shared, key));
    if (!there)
        goto done;
    DR_TRY(get_files(c, key, &m,
                     dr_arena_printf(&a, "fetching %s", pass != NULL ? pass : "an entry")));
    json_object_set_new(info, "seconds", json_real(m.seconds));
    DR_TRY(cache_seal(c, key, info));
    *got = true;
    dr_log(DR_INFO, "%s: from the shared cache, %.1f MB", pass, (double)m.bytes / 1e6);
    DR_TRY(set_mark(c, key));
done:
    if (st == DR_EFORMAT)
        json_object_set_new(c->shared->bad, key, json_true());
    dr_arena_release(&a);
    return st;
}

dr_status cache_fetch(bool *got, flow_cache *c, const char *key, json_t *info)
{
    const char *pass = json_string_value(json_object_get(info, "pass"));
    dr_arena a = {0};
    dr_status st = DR_OK;

    *got = false;
    if (c->shared == NULL || c->shared->out)
        return DR_OK;
    st = fetch(got, c, key, info);
    st = forgive(c->shared, st,
                 dr_arena_printf(&a, "%s is not taken from there", pass ? pass : key), "");
    dr_arena_release(&a);
    return st;
}

/* ---- sending ---- */

/* An entry on its way. */
typedef struct {
    flow_cache *c;
    shared_manifest m;
    bool force; /* what is there is not right */
    dr_progress progress;
    uint64_t before;
    dr_arena a;
} going;

static void on_sent(void *ctx, uint64_t bytes)
{
    going *g = ctx;

    dr_progress_step(&g->progress, (size_t)(g->before + bytes), NULL);
}

/* What a file has for others: what is on disk, or (data) the text with ${entry}. */
typedef struct {
    int fd;
    const char *data;
    uint64_t size;
} source;

static dr_status hash_part(char sha[DR_SHA256_HEX], const source *from, uint64_t at,
                           uint64_t n)
{
    dr_hash *h = dr_hash_begin();
    dr_status st = DR_OK;

    if (from->data != NULL)
        dr_hash_add(h, from->data + at, (size_t)n);
    else
        st = hash_range(h, from->fd, at, n);
    dr_hash_end(sha, h);
    return st;
}

static dr_status send_part(going *g, const source *from, uint64_t at, uint64_t bytes,
                           const char *sha)
{
    net_store *store = g->c->shared->store;
    const char *name = shared_content_name(&g->a, sha);
    const net_object o = {.data = from->data != NULL ? from->data + at : NULL,
                          .fd = from->fd,
                          .from = at,
                          .size = bytes,
                          .sha = sha,
                          .sent = on_sent,
                          .ctx = g};
    uint64_t has = 0;
    bool there = false;
    dr_status st = DR_OK;

    if (!g->force)
        DR_TRY(net_store_size(store, &there, &has, name));
    if (!there || has != bytes)
        DR_TRY(net_store_put(store, name, &o));
    g->before += bytes;
    dr_progress_step(&g->progress, (size_t)g->before, NULL);
done:
    return st;
}

static dr_status send_parts(going *g, shared_file *f, const source *from)
{
    dr_status st = DR_OK;

    f->bytes = from->size;
    f->part_count = (size_t)((f->bytes + g->m.part_bytes - 1) / g->m.part_bytes);
    f->parts = dr_arena_alloc(&g->a, f->part_count + 1, sizeof(*f->parts));
    for (size_t i = 0; i < f->part_count; i++) {
        const uint64_t at = i * g->m.part_bytes, bytes = shared_part_bytes(&g->m, f, i);
        char *sha = dr_arena_alloc(&g->a, DR_SHA256_HEX, 1);
        DR_TRY(hash_part(sha, from, at, bytes));
        f->parts[i] = sha;
        DR_TRY(send_part(g, from, at, bytes, sha));
    }
    shared_content_id(f);
done:
    return st;
}

static dr_status send_file(going *g, shared_file *f, const char *path, const char *key)
{
    source from = {.fd = -1};
    struct stat s = {0};
    dr_buf text;
    dr_status st = DR_OK;

    dr_buf_init(&text, 2 * SHARED_PLACES_BYTES);
    if (shared_has_places(f->path))
        DR_TRY(shared_place_out(&text, &f->places, path, key));
    from.fd = open(path, O_RDONLY | O_CLOEXEC);
    if (from.fd < 0 || fstat(from.fd, &s) != 0)
        DR_FAIL(DR_EIO, "%s: %s", path, strerror(errno));
    f->executable = (s.st_mode & S_IXUSR) != 0;
    from.size = f->places ? text.len : (uint64_t)s.st_size;
    from.data = f->places ? text.data : NULL;
    DR_TRYF(send_parts(g, f, &from), "%s", path);
    if (!f->places)
        json_object_set_new(g->c->shared->known, f->id, json_string(path));
done:
    if (from.fd >= 0)
        (void)close(from.fd);
    dr_buf_release(&text);
    return st;
}

static dr_status send_entry(going *g, const char *key, const json_t *says)
{
    const json_t *list = json_object_get(says, "files");
    const char *folder = cache_folder(&g->a, g->c, key);
    const char *name = shared_entry_name(&g->a, key);
    char sha[DR_SHA256_HEX];
    dr_buf text;
    dr_status st = DR_OK;

    dr_buf_init(&text, SHARED_MANIFEST_BYTES);
    g->m.count = json_array_size(list);
    g->m.part_bytes = g->c->shared->part_bytes;
    g->m.pass = json_string_value(json_object_get(says, "pass"));
    g->m.seconds = json_number_value(json_object_get(says, "seconds"));
    if (g->m.count > SHARED_FILES)
        DR_FAIL(DR_EUNSUPPORTED, "%zu files, and %d can be shared", g->m.count,
                SHARED_FILES);
    g->m.files = dr_arena_alloc(&g->a, g->m.count + 1, sizeof(*g->m.files));
    for (size_t i = 0; i < g->m.count; i++) {
        shared_file *f = &g->m.files[i];
        f->path = json_string_value(json_object_get(json_array_get(list, i), "name"));
        DR_TRY(send_file(g, f, dr_path_join(&g->a, folder, f->path), key));
    }
    DR_TRY(shared_text(&text, &g->m, key));
    dr_sha256(sha, text.data, text.len);
    const net_object o = {.data = text.data, .size = text.len, .sha = sha};
    DR_TRY(net_store_put(g->c->shared->store, name, &o));
    DR_TRY(set_mark(g->c, key));
done:
    dr_buf_release(&text);
    return st;
}

static dr_status send_it(flow_cache *c, const char *key)
{
    going g = {.c = c, .force = json_object_get(c->shared->bad, key) != NULL};
    uint64_t has = 0, total = 0;
    bool there = false;
    json_t *says = NULL, *file;
    size_t i;
    dr_status st = DR_OK;

    if (!g.force && is_marked(c, key))
        goto done;
    if (!g.force)
        DR_TRY(
            net_store_size(c->shared->store, &there, &has, shared_entry_name(&g.a, key)));
    if (there) {
        DR_TRY(set_mark(c, key));
        goto done;
    }
    DR_TRY(
        dr_json_read(&says, dr_arena_printf(&g.a, "%s.json", cache_folder(&g.a, c, key))));
    json_array_foreach(json_object_get(says, "files"), i, file) total +=
        (uint64_t)json_integer_value(json_object_get(file, "bytes"));
    dr_progress_begin(&g.progress, "sharing", "bytes", (size_t)total);
    st = send_entry(&g, key, says);
    dr_progress_end(&g.progress);
    DR_TRY(st);
    (void)json_object_del(c->shared->bad, key);
done:
    json_decref(says);
    dr_arena_release(&g.a);
    return st;
}

dr_status cache_send(flow_cache *c, const char *key)
{
    dr_arena a = {0};
    dr_status st = DR_OK;

    if (c->shared == NULL || !c->shared->update || c->shared->out)
        return DR_OK;
    st = send_it(c, key);
    if (st != DR_OK) /* who may not write, or fails at it, does so with the next one */
        c->shared->update = false;
    st = forgive(c->shared, st, dr_arena_printf(&a, "%.16s is not sent there", key),
                 ", and nothing more in this run");
    dr_arena_release(&a);
    return st;
}

/* ---- figures ---- */

static const char *figures_name(dr_arena *a, const char *key)
{
    return dr_arena_printf(a, "figures/%s.json", key);
}

dr_status cache_fetch_figures(json_t **out, flow_cache *c, const char *key)
{
    dr_arena a = {0};
    bool there = false;
    dr_buf b;
    dr_status st = DR_OK;

    *out = NULL;
    if (c->shared == NULL || c->shared->out)
        return DR_OK;
    dr_buf_init(&b, SHARED_FIGURES_BYTES);
    st = net_store_read(c->shared->store, &there, &b, figures_name(&a, key));
    if (st == DR_OK && there)
        st = dr_json_parse(out, b.data, b.len, net_store_name(c->shared->store));
    st = forgive(c->shared, st, "figures are not taken from there", "");
    dr_buf_release(&b);
    dr_arena_release(&a);
    return st;
}

dr_status cache_send_figures(flow_cache *c, const char *key, const json_t *figures)
{
    char *text = NULL, sha[DR_SHA256_HEX];
    dr_arena a = {0};
    dr_status st = DR_OK;

    if (c->shared == NULL || !c->shared->update || c->shared->out)
        return DR_OK;
    text = json_dumps(figures, JSON_SORT_KEYS);
    DR_BUG_IF(text == NULL);
    dr_sha256(sha, text, strlen(text));
    const net_object o = {.data = text, .size = strlen(text), .sha = sha};
    st = net_store_put(c->shared->store, figures_name(&a, key), &o);
    if (st != DR_OK)
        c->shared->update = false;
    st = forgive(c->shared, st, "figures are not sent there",
                 ", and nothing more in this run");
    free(text);
    dr_arena_release(&a);
    return st;
}
