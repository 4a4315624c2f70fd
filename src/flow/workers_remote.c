/*
 * workers_remote.c - workers that a launcher has begun, on this host or others, as the run
 * sees them: who comes to its port, what is shown and asked before it gets tasks.
 *
 * A stranger at the port gets a nonce and nothing else: no job without a proof, 20 s to
 * give one, 4 KiB to give it in.  The secret is in the environment of the workers alone.
 * What passes then is neither signed nor encrypted: a cluster's own network is trusted.
 *
 * A worker must be able to make the run's bytes: the same drupe, the same kernels (they are
 * in the cache's keys), the same cache.  That the cache is the same one is tried, not
 * believed: the worker looks for the run's mark in it.  One that has another cache is taken
 * where both send what they make to one place (shared_cache.c).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/file.h"
#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "flow/workers_impl.h"

enum { BACKLOG = 256, STRANGER_BYTES = 4096, SPARE = 32 };

/* ---- the port ---- */

/* Of an interface, as "1.2.3.4:5". */
static void add_address(dr_buf *b, const struct ifaddrs *i, int port, bool loopback)
{
    char text[INET6_ADDRSTRLEN] = "";

    if (i->ifa_addr == NULL || !(i->ifa_flags & IFF_UP) ||
        i->ifa_addr->sa_family != AF_INET ||
        loopback != ((i->ifa_flags & IFF_LOOPBACK) != 0))
        return;
    const struct sockaddr_in *in = (const void *)i->ifa_addr;
    if (inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text)) == NULL ||
        dr_buf_addf(b, "%s%s:%d", b->len > 0 ? "," : "", text, port) != DR_OK)
        dr_trail_clear();
}

/* All of this host's that others may reach; where there is none, the one it has itself. */
static dr_status addresses_of(char **out, int port)
{
    struct ifaddrs *all = NULL;
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, 1 << 16);
    if (getifaddrs(&all) != 0)
        DR_FAIL(DR_EIO, "this host's addresses: %s", strerror(errno));
    for (int loopback = 0; loopback < 2 && b.len == 0; loopback++)
        for (const struct ifaddrs *i = all; i != NULL; i = i->ifa_next)
            add_address(&b, i, port, loopback);
    if (b.len == 0)
        DR_FAIL(DR_EIO, "this host has no address for workers to come to");
    *out = dr_strdup(b.data);
done:
    if (all != NULL)
        freeifaddrs(all);
    dr_buf_release(&b);
    return st;
}

static dr_status open_port(run_workers *all)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY)};
    socklen_t n = sizeof(at);
    dr_status st = DR_OK;

    all->port = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (all->port < 0 || bind(all->port, (const void *)&at, sizeof(at)) != 0 ||
        listen(all->port, BACKLOG) != 0 || getsockname(all->port, (void *)&at, &n) != 0)
        DR_FAIL(DR_EIO, "no port for workers: %s", strerror(errno));
    (void)fcntl(all->port, F_SETFL, O_NONBLOCK);
    DR_TRY(addresses_of(&all->addresses, ntohs(at.sin_port)));
done:
    return st;
}

dr_status remote_listen(run *r, size_t expected)
{
    run_workers *all = dr_calloc(1, sizeof(*all));
    char proof[DR_SHA256_HEX];
    dr_arena a = {0};
    dr_status st = DR_OK;

    r->workers = all;
    all->port = -1;
    all->expected = expected;
    all->room = expected + SPARE;
    all->list = dr_calloc(all->room, sizeof(worker));
    DR_TRY(dr_secret(all->secret));
    DR_TRY(open_port(all));
    dr_hmac_sha256(proof, all->secret, "name"); /* a name that no other run has */
    proof[16] = '\0';
    const char *mark = dr_arena_printf(&a, "%s/locks/run-%s", r->cache.dir, proof);
    all->mark = dr_strdup(mark);
    dr_hmac_sha256(proof, all->secret, "cache");
    DR_TRY(dr_write_file(all->mark, proof, strlen(proof)));
done:
    dr_arena_release(&a);
    return st;
}

void remote_close(run_workers *all)
{
    if (all->port >= 0)
        (void)close(all->port);
    all->port = -1;
    if (all->mark != NULL)
        (void)unlink(all->mark);
    if (all->meeting != NULL)
        (void)unlink(all->meeting);
    free(all->mark);
    free(all->meeting);
    free(all->addresses);
    all->mark = all->meeting = all->addresses = NULL;
}

/* ---- who comes ---- */

/* NULL: there are as many as there may be. */
static worker *free_place(run_workers *all)
{
    for (size_t i = 0; i < all->count; i++)
        if (all->list[i].state == WORKER_GONE)
            return &all->list[i];
    return all->count < all->room ? &all->list[all->count++] : NULL;
}

void remote_accept(run *r)
{
    const int fd = accept(r->workers->port, NULL, NULL);
    worker *w = fd >= 0 ? free_place(r->workers) : NULL;

    if (w == NULL) {
        if (fd >= 0)
            (void)close(fd);
        return;
    }
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    line_keep_alive(fd);
    *w = (worker){.state = WORKER_NEW, .fd = fd, .since_s = dr_now_s()};
    dr_buf_init(&w->said, STRANGER_BYTES);
    if (dr_secret(w->nonce) != DR_OK) {
        dr_trail_clear();
        workers_end(w);
        return;
    }
    json_t *line = json_pack("{s:s, s:s}", "drupe", DRUPE_VERSION, "nonce", w->nonce);
    if (!line_send(fd, line))
        workers_end(w);
    json_decref(line);
}

/* ---- what is shown and asked ---- */

static const char *text_of(const json_t *j, const char *key)
{
    const char *text = json_string_value(json_object_get(j, key));

    return text != NULL ? text : "";
}

static void read_cpus(worker *w, const char *hex)
{
    for (size_t i = 0; i < WORKER_CPU_BYTES && hex[0] != '\0' && hex[1] != '\0'; i++) {
        const char digits[3] = {hex[0], hex[1], '\0'};
        w->cpus[i] = (unsigned char)strtoul(digits, NULL, 16);
        hex += 2;
    }
}

/* What it needs to read the workflow as the run has. */
static json_t *job_of(const run *r)
{
    const flow_workflow_options *o = r->o;
    const char *name = o->config != NULL ? o->config : "";
    char *here = realpath(".", NULL), *cache = realpath(r->cache.dir, NULL);
    int level = DR_DEBUG;

    while (level < DR_CRITICAL && !dr_log_shows((dr_level)level))
        level++;
    json_t *job = json_pack(
        "{s:O, s:s, s:s?, s:s?, s:s, s:s, s:s, s:s?, s:i, s:{s:s, s:s?, s:i, s:s}}",
        "workflow", r->w.doc.top->value, "name",
        dr_ends_with(name, ".json") ? name : "workflow.json", "model", o->model, "output",
        r->w.output_dir, "folder", here, "cache", cache, "mark",
        strrchr(r->workers->mark, '/') + 1, "shared", r->sent_to, "log_level", level,
        "input", "path", r->input.path, "adapters", r->input.adapters, "kind",
        (int)r->input.kind, "id", r->input.id);
    free(here);
    free(cache);
    return job;
}

/* Why it cannot work for this run; NULL: it can. */
static const char *unlike(dr_arena *a, const run *r, const json_t *line)
{
    const char *version = text_of(line, "drupe"), *isa = text_of(line, "isa");

    if (strcmp(version, DRUPE_VERSION) != 0)
        return dr_arena_printf(a, "it is drupe %s, and the run's is %s", version,
                               DRUPE_VERSION);
    if (strcmp(isa, r->isa) != 0)
        return dr_arena_printf(a,
                               "its processor computes with %s, the run's with %s: other "
                               "bytes",
                               isa, r->isa);
    return NULL;
}

static bool first_word(run *r, worker *w, const json_t *line)
{
    const char *b = text_of(line, "nonce"), *host = text_of(line, "host");
    char proof[DR_SHA256_HEX];
    dr_arena a = {0};

    remote_proof(proof, r->workers->secret, "worker", w->nonce, b);
    if (!remote_same(proof, text_of(line, "proof"))) {
        dr_log(DR_WARNING, "somebody came to the port for workers without the secret");
        return false;
    }
    w->host = dr_strdup(host);
    w->said.max = WORKER_LINE_BYTES;
    w->cpu_count = (int)json_integer_value(json_object_get(line, "cpu_count"));
    w->memory = (uint64_t)json_integer_value(json_object_get(line, "memory"));
    read_cpus(w, text_of(line, "cpus"));
    const bool over = r->workers->over;
    const char *why = over ? NULL : unlike(&a, r, line);
    r->workers->came++;
    if (why != NULL)
        dr_tell("a worker on %s is not taken: %s", host, why);
    remote_proof(proof, r->workers->secret, "run", w->nonce, b);
    json_t *answer =
        json_pack("{s:s, s:b, s:s*}", "proof", proof, "over", over, "refused", why);
    if (!over && why == NULL)
        json_object_set_new(answer, "job", job_of(r));
    const bool good = line_send(w->fd, answer) && why == NULL && !over;
    json_decref(answer);
    dr_arena_release(&a);
    w->state = WORKER_ASKED;
    w->since_s = dr_now_s();
    return good;
}

/* How many of its host are ready. */
static size_t beside(const run_workers *all, const worker *w)
{
    size_t n = 0;

    for (size_t i = 0; i < all->count; i++)
        n += all->list[i].state == WORKER_READY && strcmp(all->list[i].host, w->host) == 0;
    return n;
}

static bool second_word(run *r, worker *w, const json_t *line)
{
    run_workers *all = r->workers;
    const uint64_t n = beside(all, w) + 1;

    if (!json_is_true(json_object_get(line, "ready"))) {
        dr_tell("a worker on %s is not taken: %s", w->host, text_of(line, "refused"));
        return false;
    }
    if (w->memory > 0 && n * all->need > w->memory) {
        dr_tell("a worker on %s is not taken: a step takes %.0f MB, there are %.0f, and it "
                "would be number %d there",
                w->host, (double)all->need / 1e6, (double)w->memory / 1e6, (int)n);
        return false;
    }
    w->state = WORKER_READY;
    for (size_t i = 0; i < all->count; i++)
        if (all->list[i].state == WORKER_READY && strcmp(all->list[i].host, w->host) == 0)
            all->list[i].judges =
                w->memory == 0 || 3 * all->input_bytes * (double)n <= (double)w->memory;
    dr_log(DR_INFO, "a worker on %s", w->host);
    return true;
}

bool remote_talk(run *r, worker *w, const json_t *line)
{
    return w->state == WORKER_NEW ? first_word(r, w, line) : second_word(r, w, line);
}

/* ---- processors ---- */

static bool has_cpu(const worker *w, size_t cpu)
{
    return w->cpus[cpu / 8] >> cpu % 8 & 1;
}

/* A processor that k workers may use is a k-th of each; mpirun and srun may have bound each
 * to its own. */
int remote_threads(const run *r, const worker *w)
{
    const run_workers *all = r->workers;
    const int n = (int)beside(all, w), given = r->o->threads;
    double sum = 0;
    int own = 0;

    for (size_t cpu = 0; cpu < 8 * WORKER_CPU_BYTES; cpu++) {
        size_t users = 0;
        if (!has_cpu(w, cpu))
            continue;
        for (size_t i = 0; i < all->count; i++)
            users += all->list[i].state == WORKER_READY &&
                     strcmp(all->list[i].host, w->host) == 0 && has_cpu(&all->list[i], cpu);
        sum += users > 0 ? 1.0 / (double)users : 1;
        own++;
    }
    int share = (int)(sum + 1e-6);
    if (w->cpu_count < own && w->cpu_count / n < share) /* a container's quota */
        share = w->cpu_count / n;
    if (given > 0 && given / n < share)
        share = given / n;
    return share > 1 ? share : 1;
}
