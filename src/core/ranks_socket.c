/*
 * ranks_socket.c - ranks of one host without MPI: for tests, and for whoever has no mpirun.
 *
 * DRUPE_RANKS=ID/COUNT/PATH: rank 0 listens at the socket PATH, the others connect.  A
 * gather goes through rank 0, which gets every part and sends all of them to each.  A rank
 * that dies closes its connection, which rank 0 sees, and the others that rank 0 ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/ranks_impl.h"

enum { MOST = 64, POLL_MS = 50 };

typedef struct {
    int listener;
    int peers[MOST]; /* of rank 0: by rank; of the others: [0] */
    struct sockaddr_un at;
} sockets;

static dr_status gone(const dr_ranks *r, size_t peer, const char *what)
{
    return dr_fail(DR_EDEVICE, "ranks: %s: rank %zu of %zu has ended", what, peer,
                   r->count);
}

/* Waits until fd may be read or written. */
static dr_status ready(const dr_ranks *r, int fd, short events, double start, size_t peer,
                       const char *what)
{
    struct pollfd p = {.fd = fd, .events = events};
    dr_status st = DR_OK;

    while (poll(&p, 1, POLL_MS) <= 0)
        DR_TRY(ranks_pause(r, start, peer, what));
done:
    return st;
}

/* All of it, one way. */
static dr_status move(const dr_ranks *r, size_t peer, void *data, size_t bytes, bool out,
                      const char *what)
{
    const sockets *s = r->state;
    int fd = s->peers[peer];
    double start = dr_now_s();
    dr_status st = DR_OK;

    for (char *at = data; bytes > 0;) {
        DR_TRY(ready(r, fd, out ? POLLOUT : POLLIN, start, peer, what));
        ssize_t n = out ? send(fd, at, bytes, MSG_NOSIGNAL) : recv(fd, at, bytes, 0);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n <= 0)
            DR_TRY(gone(r, peer, what));
        at += n;
        bytes -= (size_t)n;
    }
done:
    return st;
}

/* The others of rank 0, which say who they are. */
static dr_status accept_all(dr_ranks *r, sockets *s)
{
    double start = dr_now_s();
    uint32_t id = 0;
    dr_status st = DR_OK;

    s->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)unlink(s->at.sun_path);
    if (s->listener < 0 ||
        bind(s->listener, (const struct sockaddr *)&s->at, sizeof(s->at)) != 0 ||
        listen(s->listener, MOST) != 0)
        DR_FAIL(DR_EIO, "DRUPE_RANKS: %s: %s", s->at.sun_path, strerror(errno));
    for (size_t n = 1; n < r->count; n++) {
        size_t missing = 1;
        while (missing < r->count && s->peers[missing] >= 0)
            missing++;
        DR_TRY(ready(r, s->listener, POLLIN, start, missing, "starting"));
        int fd = accept(s->listener, NULL, NULL);
        if (fd < 0 || recv(fd, &id, sizeof(id), MSG_WAITALL) != sizeof(id) || id == 0 ||
            id >= r->count || s->peers[id] >= 0)
            DR_FAIL(DR_EDEVICE, "DRUPE_RANKS: %s: not one of %zu ranks", s->at.sun_path,
                    r->count);
        s->peers[id] = fd;
    }
done:
    return st;
}

static dr_status connect_first(dr_ranks *r, sockets *s)
{
    uint32_t id = (uint32_t)r->id;
    double start = dr_now_s();
    dr_status st = DR_OK;

    for (;;) {
        s->peers[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (s->peers[0] < 0)
            DR_FAIL(DR_EIO, "DRUPE_RANKS: %s", strerror(errno));
        if (connect(s->peers[0], (const struct sockaddr *)&s->at, sizeof(s->at)) == 0)
            break;
        (void)close(s->peers[0]);
        s->peers[0] = -1;
        DR_TRY(ranks_pause(r, start, 0, "starting"));
    }
    DR_TRY(move(r, 0, &id, sizeof(id), true, "starting"));
done:
    return st;
}

static dr_status open_sockets(dr_ranks *r)
{
    sockets *s = dr_calloc(1, sizeof(*s));
    const char *text = getenv("DRUPE_RANKS");
    int used = 0;
    dr_status st = DR_OK;

    r->state = s;
    s->listener = -1;
    for (size_t i = 0; i < MOST; i++)
        s->peers[i] = -1;
    if (sscanf(text, "%2zu/%2zu/%n", &r->id, &r->count, &used) != 2 || used == 0 ||
        r->count < 2 || r->count > MOST || r->id >= r->count || text[used] == '\0' ||
        strlen(text + used) >= sizeof(s->at.sun_path))
        DR_FAIL(DR_EUSAGE, "DRUPE_RANKS: expected ID/COUNT/PATH, found \"%s\"", text);
    r->local = r->id;
    r->local_count = r->count;
    s->at.sun_family = AF_UNIX;
    (void)snprintf(s->at.sun_path, sizeof(s->at.sun_path), "%s", text + used);
    DR_TRY(r->id == 0 ? accept_all(r, s) : connect_first(r, s));
done:
    return st;
}

static dr_status gather(dr_ranks *r, void *all, const void *mine, size_t bytes,
                        const char *what)
{
    char *to = all;
    dr_status st = DR_OK;

    memmove(to + r->id * bytes, mine, bytes);
    if (r->id > 0) {
        DR_TRY(move(r, 0, to + r->id * bytes, bytes, true, what));
        DR_TRY(move(r, 0, to, r->count * bytes, false, what));
        return DR_OK;
    }
    for (size_t k = 1; k < r->count; k++)
        DR_TRY(move(r, k, to + k * bytes, bytes, false, what));
    for (size_t k = 1; k < r->count; k++)
        DR_TRY(move(r, k, to, r->count * bytes, true, what));
done:
    return st;
}

static dr_status check(const dr_ranks *r, const char *what)
{
    const sockets *s = r->state;

    for (size_t k = 0; k < r->count; k++) {
        struct pollfd p = {.fd = s->peers[k]};
        if (p.fd >= 0 && poll(&p, 1, 0) == 1 && (p.revents & (POLLHUP | POLLERR)) != 0)
            return gone(r, k, what);
    }
    return DR_OK;
}

/* The process ends: that is what the others see. */
static void abort_all(dr_ranks *r, int status)
{
    (void)r;
    (void)status;
}

static void close_sockets(dr_ranks *r)
{
    sockets *s = r->state;

    for (size_t i = 0; s != NULL && i < MOST; i++)
        if (s->peers[i] >= 0)
            (void)close(s->peers[i]);
    if (s != NULL && s->listener >= 0) {
        (void)close(s->listener);
        (void)unlink(s->at.sun_path);
    }
    free(s);
}

const ranks_backend ranks_socket = {open_sockets, gather, check, abort_all, close_sockets};
