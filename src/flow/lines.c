/*
 * lines.c - values of JSON as lines over a socket.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "core/json.h"
#include "flow/workers_impl.h"

bool line_send(int fd, const json_t *j)
{
    char *text = json_dumps(j, JSON_COMPACT | JSON_ENCODE_ANY), *at = text;
    size_t left = text != NULL ? strlen(text) + 1 : 0;
    bool good = text != NULL;

    if (good)
        text[left - 1] = '\n'; /* in place of the end */
    while (good && left > 0) {
        ssize_t n = send(fd, at, left, MSG_NOSIGNAL);
        good = n > 0 || (n < 0 && errno == EINTR);
        at += n > 0 ? n : 0;
        left -= n > 0 ? (size_t)n : 0;
    }
    free(text);
    return good;
}

bool line_receive(int fd, dr_buf *b)
{
    char part[4096];
    ssize_t n = recv(fd, part, sizeof(part), 0);

    if (n < 0 && errno == EINTR)
        return true;
    if (n <= 0 || dr_buf_add(b, part, (size_t)n) != DR_OK) {
        dr_trail_clear();
        return false;
    }
    return true;
}

json_t *line_take(dr_buf *b)
{
    char *end = b->len > 0 ? memchr(b->data, '\n', b->len) : NULL;

    if (end == NULL)
        return NULL;
    const size_t n = (size_t)(end - b->data);
    json_t *j = json_loadb(b->data, n, JSON_DECODE_ANY, NULL);
    b->len -= n + 1;
    memmove(b->data, end + 1, b->len);
    return j != NULL ? j : json_null();
}

void line_keep_alive(int fd)
{
    const int on = 1;

    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
#ifdef __linux__
    const int idle = 10, between = 5, count = 3, unacknowledged_ms = 30000;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &between, sizeof(between));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacknowledged_ms,
                     sizeof(unacknowledged_ms));
#endif
}
