/*
 * hub_net.c - requests to the hub.
 *
 * The token is sent to the endpoint's own host only: a HEAD that is redirected elsewhere
 * (the storage behind large files) gives the address back, and the GET to it is made
 * without.  From an https endpoint nothing is fetched over plain http.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "hf/hub_impl.h"
#include "net/net.h"

enum { TRIES = 3, HEADERS = 8 };

struct hub_net {
    const hub_env *env;        /* borrowed */
    net_client *client;        /* owned */
    const char *authorized[2]; /* the token's header */
};

dr_status hub_net_open(hub_net **out, const hub_env *env)
{
    hub_net *n = dr_calloc(1, sizeof(*n));
    dr_status st = DR_OK;

    *out = NULL;
    n->env = env;
    DR_TRY(net_open(&n->client, env->ca_file, 0));
    if (env->token != NULL)
        n->authorized[0] = dr_arena_printf(env->a, "Authorization: Bearer %s", env->token);
    *out = n;
    n = NULL;
done:
    hub_net_close(n);
    return st;
}

void hub_net_close(hub_net *n)
{
    if (n == NULL)
        return;
    net_close(n->client);
    free(n);
}

/* ---- requests ---- */

static bool at_endpoint(const hub_net *n, const char *url)
{
    size_t len = strlen(n->env->endpoint);

    return strncmp(url, n->env->endpoint, len) == 0 &&
           (url[len] == '/' || url[len] == '\0');
}

/* One request, with the headers that matter here. */
static dr_status ask(hub_net *n, hub_reply *r, net_request q)
{
    const net_slot slots[HEADERS] = {
        {"etag", r->etag},
        {"x-linked-etag", r->linked_etag},
        {"content-length", r->length},
        {"x-linked-size", r->linked_size},
        {"content-range", r->range},
        {"x-repo-commit", r->commit},
        {"location", r->location},
        {"x-error-code", r->error_code},
    };
    net_reply reply = {0};

    q.headers = at_endpoint(n, q.url) ? n->authorized : NULL;
    q.tls_only = strncmp(n->env->endpoint, "https://", 8) == 0;
    q.slots = slots;
    q.slot_count = HEADERS;
    dr_status st = net_do(n->client, &reply, &q);
    r->status = reply.status;
    return st;
}

dr_status hub_net_get(hub_net *n, hub_reply *r, const char *url, dr_buf *body)
{
    dr_status st = DR_OK;

    for (int i = 0; i < TRIES; i++) {
        if (i > 0)
            DR_TRY(net_wait(i - 1));
        dr_buf_reset(body);
        /* Redirects: renamed repositories. */
        st = ask(n, r, (net_request){.url = url, .body = body, .follow = true});
        if (!net_may_help(st, r->status))
            break;
    }
done:
    return st;
}

/* The URL that a redirect within the endpoint leads to; NULL: it leads elsewhere. */
static const char *inner_location(const hub_net *n, const hub_reply *r)
{
    if (r->location[0] == '/' && r->location[1] != '/') {
        const char *host = strstr(n->env->endpoint, "://") + 3;
        size_t len = strcspn(host, "/") + (size_t)(host - n->env->endpoint);

        return dr_arena_printf(n->env->a, "%.*s%s", (int)len, n->env->endpoint,
                               r->location);
    }
    return at_endpoint(n, r->location) ? dr_arena_strdup(n->env->a, r->location) : NULL;
}

static dr_status head_once(hub_net *n, hub_reply *r, const char *url)
{
    dr_status st = DR_OK;

    for (int hop = 0; hop <= NET_REDIRECTS; hop++) {
        DR_TRY(ask(n, r, (net_request){.method = "HEAD", .url = url}));
        if (r->status < 300 || r->status > 399)
            goto done;
        const char *next = inner_location(n, r);
        /* A redirect to storage says all about the file, even within the host. */
        if (next == NULL || (r->linked_etag[0] != '\0' && r->linked_size[0] != '\0'))
            goto done;
        url = next;
    }
    DR_FAIL(DR_EIO, "%s: more than %d redirects", url, NET_REDIRECTS);
done:
    return st;
}

dr_status hub_net_head(hub_net *n, hub_reply *r, const char *url)
{
    dr_status st = DR_OK;

    for (int i = 0; i < TRIES; i++) {
        if (i > 0)
            DR_TRY(net_wait(i - 1));
        st = head_once(n, r, url);
        if (!net_may_help(st, r->status))
            break;
    }
done:
    return st;
}

dr_status hub_net_file(hub_net *n, hub_reply *r, const char *url, net_file *file)
{
    return ask(n, r, (net_request){.url = url, .file = file, .follow = true});
}
