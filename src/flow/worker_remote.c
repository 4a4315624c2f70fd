/*
 * worker_remote.c - a worker that a launcher has begun (`drupe worker`, or a rank of
 * mpirun's): it comes to the run's port, shows that it knows the secret, reads the workflow
 * as the run has, and is a guard from then on.
 *
 * It ends with 0 whatever a task has done: mpirun would end all others otherwise.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#ifdef __linux__
#    include <sched.h>
#endif

#include "core/file.h"
#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/pool.h"
#include "flow/workers_impl.h"

enum { CONNECT_MS = 3000, AGAIN_MS = 200 };

void remote_proof(char hex[DR_SHA256_HEX], const char *secret, const char *who,
                  const char *a, const char *b)
{
    char *text = dr_asprintf("%s %s %s", who, a, b);

    dr_hmac_sha256(hex, secret, text);
    free(text);
}

bool remote_same(const char *a, const char *b)
{
    unsigned char differ = 0;

    if (strlen(a) != strlen(b))
        return false;
    for (size_t i = 0; a[i] != '\0'; i++)
        differ |= (unsigned char)(a[i] ^ b[i]);
    return differ == 0;
}

/* ---- to the port ---- */

/* "1.2.3.4:5"; -1: nobody is there. */
static int connect_to(const char *address)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    const char *colon = strrchr(address, ':');
    char host[INET_ADDRSTRLEN] = "";
    int fd = -1, failed = 0;
    socklen_t n = sizeof(failed);

    if (colon == NULL || (size_t)(colon - address) >= sizeof(host))
        return -1;
    memcpy(host, address, (size_t)(colon - address));
    at.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
    if (inet_pton(AF_INET, host, &at.sin_addr) != 1)
        return -1;
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    (void)fcntl(fd, F_SETFL, O_NONBLOCK);
    struct pollfd p = {fd, POLLOUT, 0};
    const bool now = connect(fd, (const void *)&at, sizeof(at)) == 0;
    if (!now && (errno != EINPROGRESS || poll(&p, 1, CONNECT_MS) != 1 ||
                 getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &n) != 0 || failed != 0)) {
        (void)close(fd);
        return -1;
    }
    (void)fcntl(fd, F_SETFL, 0);
    line_keep_alive(fd);
    return fd;
}

/* One line, or NULL: the other side is gone. */
static json_t *hear(int fd, dr_buf *said)
{
    json_t *line = line_take(said);

    while (line == NULL && dr_cancelled_check() == DR_OK && line_receive(fd, said))
        line = line_take(said);
    dr_trail_clear();
    return line;
}

/* ---- what it shows ---- */

static void cpus_hex(char hex[2 * WORKER_CPU_BYTES + 1])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char bits[WORKER_CPU_BYTES] = {0};
    size_t n = 0;
    bool known = false;

#ifdef __linux__
    cpu_set_t set;
    known = sched_getaffinity(0, sizeof(set), &set) == 0;
    for (size_t i = 0; known && i < 8 * sizeof(bits) && i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &set))
            bits[i / 8] |= (unsigned char)(1U << i % 8);
#endif
    for (int i = 0; !known && i < dr_cpu_count() && i < 8 * WORKER_CPU_BYTES; i++)
        bits[i / 8] |= (unsigned char)(1U << i % 8);
    for (size_t i = 0; i < sizeof(bits); i++) {
        hex[2 * i] = digits[bits[i] >> 4];
        hex[2 * i + 1] = digits[bits[i] & 15];
        n = bits[i] != 0 ? 2 * i + 2 : n;
    }
    hex[n] = '\0';
}

static dr_status show(int fd, run *r, const char *secret, const char *a, const char *b)
{
    char proof[DR_SHA256_HEX], cpus[2 * WORKER_CPU_BYTES + 1], host[256] = "";
    uint64_t memory = 0, disk = 0;
    dr_status st = DR_OK;

    DR_TRY(flow_limits(&memory, &disk, "."));
    DR_TRY(run_describe_isa(r));
    remote_proof(proof, secret, "worker", a, b);
    cpus_hex(cpus);
    (void)gethostname(host, sizeof(host) - 1);
    json_t *line =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:I}", "nonce", b, "proof", proof,
                  "drupe", DRUPE_VERSION, "isa", r->isa, "host", host, "cpus", cpus,
                  "cpu_count", dr_cpu_count(), "memory", (json_int_t)memory);
    (void)line_send(fd, line);
    json_decref(line);
done:
    return st;
}

/* ---- the job ---- */

static const char *text_of(const json_t *j, const char *key)
{
    return json_string_value(json_object_get(j, key));
}

/* The cache is the run's own, not one of this host that is called the same. */
static dr_status check_mark(const run *r, const char *secret, const char *name)
{
    char want[DR_SHA256_HEX];
    dr_arena a = {0};
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, 4096);
    dr_hmac_sha256(want, secret, "cache");
    const char *path = dr_arena_printf(&a, "%s/locks/%s", r->cache.dir, name);
    if (!dr_is_file(path) || dr_read_file(&b, path) != DR_OK || !remote_same(b.data, want))
        DR_FAIL(DR_EUSAGE, "cache_dir %s is another folder here; workers need a shared one",
                r->cache.dir);
done:
    dr_buf_release(&b);
    dr_arena_release(&a);
    return st;
}

/* The run's, or one of this host, where both send what they make to the place `shared`. */
static dr_status open_cache(run *r, const char *dir, const char *secret, const char *mark,
                            const char *shared)
{
    dr_status st = DR_OK;

    r->cache = (flow_cache){.dir = dir};
    if (shared == NULL && !dr_is_dir(dir))
        DR_FAIL(DR_EUSAGE, "cache_dir %s is not here; workers need a shared one", dir);
    st = check_mark(r, secret, mark);
    if (st != DR_OK && shared != NULL) {
        dr_trail_clear();
        st = cache_open(&r->cache, dir);
    }
    DR_TRY(st);
    if (shared != NULL)
        DR_TRY(cache_share_with(&r->cache, shared, true));
done:
    return st;
}

/* r borrows from the job. */
static dr_status begin(run *r, flow_workflow_options *o, const json_t *job,
                       const char *secret)
{
    const json_t *in = json_object_get(job, "input");
    const char *folder = text_of(job, "folder"), *cache = text_of(job, "cache");
    const char *id = text_of(in, "id"), *mark = text_of(job, "mark");
    char *text = json_dumps(json_object_get(job, "workflow"), JSON_COMPACT);
    dr_status st = DR_OK;

    *o = (flow_workflow_options){.config = text_of(job, "name"),
                                 .text = text,
                                 .model = text_of(job, "model"),
                                 .output = text_of(job, "output")};
    if (text == NULL || folder == NULL || cache == NULL || mark == NULL || id == NULL ||
        strlen(id) != DR_SHA256_HEX - 1 || o->config == NULL || text_of(in, "path") == NULL)
        DR_FAIL(DR_EFORMAT, "the run's job is not whole");
    dr_log_level((dr_level)json_integer_value(json_object_get(job, "log_level")));
    if (chdir(folder) != 0)
        DR_FAIL(DR_EUSAGE, "the run's folder %s: %s", folder, strerror(errno));
    DR_TRY(open_cache(r, cache, secret, mark, text_of(job, "shared")));
    DR_TRY(workflow_read(&r->w, o->config, text, o->model, o->output));
    r->input =
        (run_model){.path = text_of(in, "path"),
                    .adapters = text_of(in, "adapters"),
                    .kind = (pass_kind)json_integer_value(json_object_get(in, "kind"))};
    memcpy(r->input.id, id, DR_SHA256_HEX);
    if (!dr_exists(r->input.path))
        DR_FAIL(DR_EUSAGE, "the model %s is not here", r->input.path);
done:
    free(text);
    o->text = NULL;
    return st;
}

/* The trail's first line, to the run, which says it. */
static void refuse(int fd)
{
    const dr_trail *t = dr_trail_get();
    json_t *line =
        json_pack("{s:s}", "refused", t->count > 0 ? t->frames[0].text : "it failed");

    (void)line_send(fd, line);
    json_decref(line);
}

/* Behind the nonces; *met: the other side has shown that it is the run. */
static dr_status work(bool *met, run *r, int fd, dr_buf *said, const char *secret,
                      const char *a, const char *b)
{
    flow_workflow_options o = {0};
    char proof[DR_SHA256_HEX];
    json_t *answer = NULL;
    dr_status st = DR_OK;

    DR_TRY(show(fd, r, secret, a, b));
    answer = hear(fd, said);
    remote_proof(proof, secret, "run", a, b);
    const char *shown = text_of(answer, "proof"), *refused = text_of(answer, "refused");
    *met = shown != NULL && remote_same(proof, shown);
    if (!*met)
        goto done;
    if (json_is_true(json_object_get(answer, "over"))) /* it needs no workers any more */
        goto done;
    if (refused != NULL) /* the run has said why */
        DR_FAIL(DR_EUSAGE, "the run does not take this worker: %s", refused);
    r->o = &o;
    st = begin(r, &o, json_object_get(answer, "job"), secret);
    if (st != DR_OK) {
        refuse(fd);
        goto done;
    }
    json_t *ready = json_pack("{s:b}", "ready", true);
    (void)line_send(fd, ready);
    json_decref(ready);
    worker_guard(r, fd, said);
done:
    json_decref(answer);
    return st;
}

static dr_status talk(bool *met, int fd, const char *secret)
{
    const struct timeval soon = {30, 0}, ever = {0, 0};
    run r = {.owned = json_array()};
    char b[DR_SHA256_HEX];
    json_t *first = NULL;
    dr_buf said;
    dr_status st = DR_OK;

    dr_buf_init(&said, WORKER_LINE_BYTES);
    DR_TRY(dr_secret(b));
    first = hear(fd, &said); /* for as long as the run prepares itself */
    const char *a = text_of(first, "nonce");
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &soon, sizeof(soon));
    if (a != NULL && strlen(a) == DR_SHA256_HEX - 1)
        st = work(met, &r, fd, &said, secret, a, b);
    else
        *met = false;
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &ever, sizeof(ever));
done:
    json_decref(first);
    dr_buf_release(&said);
    cache_close(&r.cache);
    json_decref(r.owned);
    workflow_release(&r.w);
    dr_arena_release(&r.arena);
    return st;
}

dr_status remote_work(bool *met, const char *addresses, const char *secret, double wait_s)
{
    const double began = dr_now_s();
    dr_arena a = {0};
    dr_status st = DR_OK;

    *met = false;
    while (!*met) {
        char *rest = NULL;
        for (char *one = strtok_r(dr_arena_strdup(&a, addresses), ",", &rest);
             one != NULL && !*met; one = strtok_r(NULL, ",", &rest)) {
            const int fd = connect_to(one);
            if (fd < 0)
                continue;
            st = talk(met, fd, secret);
            (void)close(fd);
            if (*met) { /* what went wrong the run knows, and has said */
                dr_trail_clear();
                st = DR_OK;
            }
            DR_TRY(st);
        }
        if (!*met && dr_now_s() - began >= wait_s)
            break;
        if (!*met) {
            (void)usleep(AGAIN_MS * 1000);
            DR_TRY(dr_cancelled_check());
        }
    }
done:
    dr_arena_release(&a);
    return st;
}

/* For a launcher whose run has a queue before it, or a large model to hash. */
static const double first_s = 60;

dr_status flow_worker(void)
{
    const char *value = getenv("DRUPE_WORKER");
    const char *at = value != NULL ? strchr(value, '@') : NULL;
    char *secret = at != NULL ? dr_strndup(value, (size_t)(at - value)) : NULL;
    char *addresses = at != NULL ? dr_strdup(at + 1) : NULL;
    bool met = false;
    dr_status st = DR_OK;

    if (at == NULL) {
        st = dr_fail(DR_EUSAGE, "DRUPE_WORKER is not set to \"SECRET@address:port,...\"");
        dr_hint("a run's launcher begins workers; nobody else has to");
        goto done;
    }
    (void)unsetenv("DRUPE_WORKER"); /* not for what it begins */
    (void)setenv("DRUPE_ALONE", "1", 1);
    DR_TRY(remote_work(&met, addresses, secret, first_s));
    if (!met)
        DR_FAIL(DR_EDEVICE, "no run is at %s, or none with this secret", addresses);
done:
    free(secret);
    free(addresses);
    return st;
}
