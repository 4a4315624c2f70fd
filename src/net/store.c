/*
 * store.c - a place for objects: its URL, tries, and what an answer means.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "core/log.h"
#include "core/mem.h"
#include "net/store_impl.h"

enum {
    TRIES = 4,
    PROGRESS_BYTES = 1 << 20, /* what counts as progress of a transfer */
    RETRY_AFTER_S = 30,       /* the most that a server may ask for */
    PAGE_BYTES = 16 << 20,    /* of a listing */
    LISTED = 1 << 20,         /* names of a listing */
    CODE_BYTES = 64,
};

/* ---- the URL ---- */

/* NULL when unset or empty. */
static const char *env_of(const char *name)
{
    const char *v = getenv(name);

    return v != NULL && *v != '\0' ? v : NULL;
}

/* A header's value: nothing but printable characters. */
static dr_status secret_of(const char **out, const char *name)
{
    const char *v = env_of(name);

    *out = NULL;
    for (size_t i = 0; v != NULL && v[i] != '\0'; i++)
        if (v[i] <= ' ' || v[i] > '~')
            return dr_fail(DR_EUSAGE, "%s holds a character that no credential has", name);
    *out = v;
    return DR_OK;
}

static const char *decoded(dr_arena *a, const char *s)
{
    char *out = dr_arena_strdup(a, s), *to = out;

    for (; *s != '\0'; s++) {
        unsigned c = 0;
        if (*s == '%' && isxdigit((unsigned char)s[1]) && isxdigit((unsigned char)s[2]) &&
            sscanf(s + 1, "%2x", &c) == 1 && c != 0) {
            *to++ = (char)c;
            s += 2;
        } else {
            *to++ = *s;
        }
    }
    *to = '\0';
    return out;
}

static const char *without_slashes(dr_arena *a, const char *s, size_t n)
{
    while (n > 0 && s[n - 1] == '/')
        n--;
    return dr_arena_strndup(a, s, n);
}

/* scheme://[user:password@]host[:port][/path][?query] */
static dr_status split_web(net_store *s, const char *url)
{
    dr_arena *a = &s->arena;
    const size_t scheme = (size_t)(strstr(url, "://") - url) + 3;
    const size_t authority = strcspn(url + scheme, "/?#");
    const char *path = url + scheme + authority;
    const size_t path_bytes = strcspn(path, "?#");
    const char *host = dr_arena_strndup(a, url + scheme, authority);
    const char *at = strrchr(host, '@');
    const bool tls = strncmp(url, "https:", 6) == 0;

    s->base = dr_arena_strndup(a, url, scheme + authority);
    s->path = without_slashes(a, path, path_bytes);
    s->query = path[path_bytes] == '?'
                   ? dr_arena_strndup(a, path + path_bytes + 1,
                                      strcspn(path + path_bytes + 1, "#"))
                   : "";
    host = at != NULL ? at + 1 : host;
    const char *port = strrchr(host, ':');
    const bool usual = port != NULL && strcmp(port, tls ? ":443" : ":80") == 0;
    s->host = usual ? dr_arena_strndup(a, host, (size_t)(port - host)) : host;
    s->name = dr_arena_printf(a, "%.*s%s%s", (int)scheme, url, host, s->path);
    if (*host == '\0')
        return dr_fail(DR_EUSAGE, "shared cache \"%s\": no host", s->name);
    for (const char *p = url; *p != '\0'; p++)
        if (*p <= ' ' || *p > '~')
            return dr_fail(DR_EUSAGE,
                           "shared cache \"%s\": a character that no URL has: write it "
                           "as %%XX",
                           s->name);
    return DR_OK;
}

/* Whether every part of the decoded path is a plain name. */
static dr_status check_within(const net_store *s, const char *what, const char *path)
{
    return dr_is_safe_path(path)
               ? DR_OK
               : dr_fail(DR_EUSAGE, "shared cache %s: expected %s, found \"%s\"", s->name,
                         what, path);
}

/* From "container/prefix", not encoded, below `above` ("" or "/account" of an emulator). */
static dr_status set_place(net_store *s, const char *above, const char *place,
                           const char *what)
{
    dr_arena *a = &s->arena;
    const char *slash = strchr(place, '/');
    const size_t first = slash != NULL ? (size_t)(slash - place) : strlen(place);
    dr_status st = DR_OK;

    DR_TRY(check_within(s, what, place));
    s->root = dr_arena_printf(a, "%s/%s", above,
                              store_escaped(a, dr_arena_strndup(a, place, first), false));
    s->path = dr_arena_printf(a, "%s/%s", above, store_escaped(a, place, true));
    s->within = slash != NULL ? dr_arena_printf(a, "%s/", slash + 1) : "";
done:
    return st;
}

static dr_status azure_secrets(net_store *s)
{
    dr_arena *a = &s->arena;
    const char *sas = NULL;
    const net_to_sign none = {.method = "", .path = "", .headers = (const char *[]){NULL}};
    dr_status st = DR_OK;

    DR_TRY(secret_of(&sas, "AZURE_STORAGE_SAS_TOKEN"));
    DR_TRY(secret_of(&s->key, "AZURE_STORAGE_KEY"));
    if (*s->query == '\0' && sas != NULL)
        s->query = dr_arena_strdup(a, sas + (*sas == '?'));
    if (*s->query != '\0')
        s->key = NULL;
    if (s->key != NULL && net_sign_shared_key(a, &none, s->account, s->key) == NULL)
        DR_FAIL(DR_EUSAGE, "AZURE_STORAGE_KEY is no base64");
done:
    return st;
}

/* https://ACCOUNT.blob.core.windows.net/CONTAINER/PREFIX */
static dr_status open_blob_url(net_store *s, const char *url)
{
    dr_status st = DR_OK;

    DR_TRY(split_web(s, url));
    s->kind = STORE_AZURE;
    s->account = dr_arena_strndup(&s->arena, s->host, strcspn(s->host, "."));
    DR_TRY(set_place(s, "", decoded(&s->arena, *s->path == '/' ? s->path + 1 : s->path),
                     "a container behind the host"));
    DR_TRY(azure_secrets(s));
done:
    return st;
}

/* azure://ACCOUNT/CONTAINER/PREFIX?SAS, at the usual host or at an endpoint */
static dr_status open_azure(net_store *s, const char *url)
{
    const char *endpoint = env_of("AZURE_STORAGE_SERVICE_ENDPOINT");
    net_store parts = {.kind = STORE_AZURE};
    dr_status st = DR_OK;

    DR_TRY(split_web(s, url));
    parts = *s;
    s->account = s->host;
    if (endpoint == NULL)
        endpoint =
            dr_arena_printf(&s->arena, "https://%s.blob.core.windows.net", s->account);
    if (strncmp(endpoint, "https://", 8) != 0 && strncmp(endpoint, "http://", 7) != 0)
        DR_FAIL(DR_EUSAGE, "AZURE_STORAGE_SERVICE_ENDPOINT: %s is no http or https address",
                endpoint);
    DR_TRY(split_web(s, endpoint));
    const char *above = s->path;
    s->kind = STORE_AZURE;
    s->query = parts.query;
    s->name = parts.name;
    DR_TRY(set_place(s, above,
                     decoded(&s->arena, *parts.path == '/' ? parts.path + 1 : parts.path),
                     "a container behind the account"));
    DR_TRY(azure_secrets(s));
done:
    return st;
}

/* s3://BUCKET/PREFIX: at Amazon the bucket is in the host, at other endpoints in the
 * path */
static dr_status open_s3(net_store *s, const char *url)
{
    dr_arena *a = &s->arena;
    const char *endpoint = env_of("AWS_ENDPOINT_URL_S3"), *place = NULL, *bucket = NULL;
    dr_status st = DR_OK;

    DR_TRY(split_web(s, url));
    const char *name = s->name;
    bucket = s->host;
    place = dr_arena_printf(a, "%s%s", bucket, decoded(a, s->path));
    if (*s->query != '\0')
        DR_FAIL(DR_EUSAGE, "shared cache %s: what is behind the ? is for no one", name);
    DR_TRY(secret_of(&s->id, "AWS_ACCESS_KEY_ID"));
    DR_TRY(secret_of(&s->secret, "AWS_SECRET_ACCESS_KEY"));
    DR_TRY(secret_of(&s->session, "AWS_SESSION_TOKEN"));
    if ((s->id == NULL) != (s->secret == NULL))
        DR_FAIL(DR_EUSAGE,
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY belong together, and one of "
                "them is not set");
    s->region = env_of("AWS_REGION");
    if (s->region == NULL)
        s->region = env_of("AWS_DEFAULT_REGION");
    if (s->region == NULL)
        s->region = "us-east-1";
    if (!dr_is_safe_path(s->region) || strchr(s->region, '/') != NULL)
        DR_FAIL(DR_EUSAGE, "AWS_REGION: \"%s\" is no region", s->region);
    if (endpoint == NULL)
        endpoint = env_of("AWS_ENDPOINT_URL");
    /* A name with a dot is in no certificate. */
    const bool in_host = endpoint == NULL && strchr(bucket, '.') == NULL;
    if (endpoint == NULL)
        endpoint = dr_arena_printf(a, "https://%s%ss3.%s.amazonaws.com",
                                   in_host ? bucket : "", in_host ? "." : "", s->region);
    if (strncmp(endpoint, "https://", 8) != 0 && strncmp(endpoint, "http://", 7) != 0)
        DR_FAIL(DR_EUSAGE, "AWS_ENDPOINT_URL: %s is no http or https address", endpoint);
    DR_TRY(split_web(s, endpoint));
    s->kind = STORE_S3;
    s->name = name;
    s->query = "";
    DR_TRY(set_place(s, s->path, place, "a bucket"));
    if (in_host) {
        s->path += strlen(s->root);
        s->root = "";
    }
done:
    return st;
}

static dr_status open_web(net_store *s, const char *url)
{
    dr_status st = DR_OK;

    DR_TRY(split_web(s, url));
    s->kind = STORE_WEB;
    s->root = s->within = "";
    DR_TRY(secret_of(&s->token, "DRUPE_SHARED_CACHE_TOKEN"));
done:
    return st;
}

static dr_status open_dir(net_store *s, const char *url)
{
    const bool file = strncmp(url, "file://", 7) == 0;

    s->kind = STORE_DIR;
    s->dir = file ? decoded(&s->arena, url + 7) : dr_arena_strdup(&s->arena, url);
    s->name = s->dir;
    if (*s->dir == '\0' || (file && *s->dir != '/'))
        return dr_fail(DR_EUSAGE, "shared cache \"%s\": expected a folder%s", url,
                       file ? " from the root on, file:///..." : "");
    if (dr_is_file(s->dir))
        return dr_fail(DR_EUSAGE, "shared cache %s: it is a file", s->dir);
    return DR_OK;
}

/* The seconds of DRUPE_SHARED_CACHE_TIMEOUT. */
static dr_status read_timeout(net_store *s)
{
    const char *text = env_of("DRUPE_SHARED_CACHE_TIMEOUT");
    char *end = NULL;
    const long n = text != NULL ? strtol(text, &end, 10) : 0;

    if (text != NULL && (*end != '\0' || n < 1 || n > 3600))
        return dr_fail(DR_EUSAGE,
                       "DRUPE_SHARED_CACHE_TIMEOUT: expected 1 to 3600 seconds, found %s",
                       text);
    s->stall_s = (int)n;
    return DR_OK;
}

dr_status net_store_open(net_store **out, const char *url)
{
    net_store *s = dr_calloc(1, sizeof(*s));
    const char *scheme = strstr(url, "://");
    const size_t n = scheme != NULL ? (size_t)(scheme - url) : 0;
    const bool web = (n == 4 && strncmp(url, "http", n) == 0) ||
                     (n == 5 && strncmp(url, "https", n) == 0);
    dr_status st = DR_OK;

    *out = NULL;
    s->query = "";
    DR_TRY(read_timeout(s));
    if (web) {
        const char *host = url + n + 3, *blob = strstr(host, ".blob.core.");
        const bool azure = blob != NULL && (size_t)(blob - host) < strcspn(host, "/?#");
        DR_TRY(azure ? open_blob_url(s, url) : open_web(s, url));
    } else if (n == 2 && strncmp(url, "s3", n) == 0) {
        DR_TRY(open_s3(s, url));
    } else if (n == 5 && strncmp(url, "azure", n) == 0) {
        DR_TRY(open_azure(s, url));
    } else if (scheme == NULL || (n == 4 && strncmp(url, "file", n) == 0)) {
        DR_TRY(open_dir(s, url));
    } else {
        DR_FAIL(DR_EUSAGE,
                "shared cache: expected a folder, file://, http://, https://, azure:// or "
                "s3://, found %.*s://",
                (int)n, url);
    }
    *out = s;
    s = NULL;
done:
    net_store_close(s);
    return st;
}

void net_store_close(net_store *s)
{
    if (s == NULL)
        return;
    net_close(s->client);
    dr_arena_release(&s->arena);
    free(s);
}

const char *net_store_name(const net_store *s)
{
    return s->name;
}

bool net_store_lists(const net_store *s)
{
    return s->kind != STORE_WEB;
}

bool net_store_is_out(const net_store *s)
{
    return s->out;
}

/* ---- requests ---- */

/* A folder that cannot be read is out: a disk that is not there any more. */
static dr_status noted(net_store *s, dr_status st)
{
    s->out = s->out || st == DR_EIO;
    return st;
}

static bool is_good(long status)
{
    return status >= 200 && status <= 299;
}

/* "<Code>NoSuchBucket</Code>" of an answer, if it is a plain word; else "". */
static void code_of(char code[CODE_BYTES], const net_reply *r)
{
    const char *at = strstr(r->error, "<Code>");
    size_t n = 0;

    code[0] = '\0';
    if (at == NULL)
        return;
    at += 6;
    while (isalnum((unsigned char)at[n]))
        n++;
    if (n > 0 && n < CODE_BYTES - 4 && at[n] == '<')
        (void)snprintf(code, CODE_BYTES, ", %.*s", (int)n, at);
}

/* An answer that is not what was hoped for.  Who may not read may not do anything; who may
 * not write may read; and S3 says AccessDenied of what is not there, too. */
static dr_status refused(net_store *s, const net_request *q, const net_reply *r)
{
    char code[CODE_BYTES];

    code_of(code, r);
    if (r->status == 401 || r->status == 403 || r->status == 407) {
        s->out = s->out || (q->method == NULL && strstr(code, "AccessDenied") == NULL);
        dr_status st =
            dr_fail(DR_EIO, "%s: not let in (status %ld%s)", q->shown, r->status, code);
        dr_hint("credentials come from the environment: see docs/WORKFLOWS.md");
        return st;
    }
    if (r->status == 416)
        return dr_fail(DR_EFORMAT, "%s: it is shorter than was announced", q->shown);
    return dr_fail(DR_EIO, "%s: the server answered %ld%s", q->shown, r->status, code);
}

/* As long as the server asks for (whole seconds), else longer from try to try. */
static dr_status wait(int tries, const char *after)
{
    const long s = isdigit((unsigned char)*after) ? strtol(after, NULL, 10) : 0;
    dr_status st = DR_OK;

    if (s <= 0)
        return net_wait(tries);
    for (long ms = 0; ms < (s < RETRY_AFTER_S ? s : RETRY_AFTER_S) * 1000; ms += 100) {
        DR_TRY(dr_cancelled_check());
        (void)usleep(100 * 1000);
    }
done:
    return st;
}

static bool is_whole(const net_request *q)
{
    return q->file == NULL || q->file->have >= q->file->size;
}

/* Tries until there is an answer that another try would not better; q: where bodies go and
 * come from. */
static dr_status ask(net_store *s, net_reply *r, net_request *q, store_ask what,
                     dr_arena *a, char length[NET_HEADER_MAX])
{
    char after[NET_HEADER_MAX] = "", other[NET_HEADER_MAX];
    const net_slot slots[] = {{"retry-after", after},
                              {"content-length", length != NULL ? length : other}};
    dr_status st = DR_OK;

    if (s->client == NULL)
        DR_TRY(net_open(&s->client, net_ca_file(), s->stall_s));
    q->slots = slots;
    q->slot_count = DR_COUNT(slots);
    for (int i = 0; i < TRIES; i++) {
        const uint64_t from = q->file != NULL ? q->file->have : 0;
        if (i > 0)
            DR_TRY(wait(i - 1, after));
        if (q->body != NULL)
            dr_buf_reset(q->body);
        what.have = from;
        store_request(q, a, s, &what); /* a signature is of its minute */
        dr_trail_clear();
        st = net_do(s->client, r, q);
        if (st == DR_OK && is_good(r->status) && !is_whole(q))
            st = dr_fail(DR_EIO, "%s: %llu of %llu bytes came", q->shown,
                         (unsigned long long)q->file->have,
                         (unsigned long long)q->file->size);
        if (!net_may_help(st, r->status))
            break;
        if (q->file != NULL && q->file->have > from + PROGRESS_BYTES)
            i = 0;
        dr_log(DR_INFO, "%s: %s", q->shown,
               st != DR_OK ? dr_trail_get()->frames[0].text : "the server is busy");
    }
    s->out = s->out || (st == DR_EIO && r->status == 0) ||
             (st == DR_OK && net_may_help(st, r->status));
done:
    return st;
}

dr_status net_store_size(net_store *s, bool *there, uint64_t *bytes, const char *name)
{
    char length[NET_HEADER_MAX] = "", *end = NULL;
    net_request q = {0};
    net_reply r = {0};
    dr_arena a = {0};
    dr_status st = DR_OK;

    *there = false;
    *bytes = 0;
    if (s->kind == STORE_DIR)
        return noted(s, store_dir_size(s, there, bytes, name));
    DR_TRY(ask(s, &r, &q, (store_ask){.method = "HEAD", .name = name}, &a, length));
    if (r.status == 404 || r.status == 410)
        goto done;
    if (!is_good(r.status))
        DR_TRY(refused(s, &q, &r));
    *bytes = strtoull(length, &end, 10);
    if (!isdigit((unsigned char)length[0]) || *end != '\0')
        DR_FAIL(DR_EIO, "%s: its size is not said", q.shown);
    *there = true;
done:
    dr_arena_release(&a);
    return st;
}

/* A body; *there false: there is none. */
static dr_status get(net_store *s, bool *there, net_request *q, const char *name,
                     const char *const *query)
{
    net_reply r = {0};
    dr_arena a = {0};
    dr_status st = DR_OK;

    DR_TRY(ask(s, &r, q, (store_ask){.method = "GET", .name = name, .query = query}, &a,
               NULL));
    *there = is_good(r.status);
    if (!*there && r.status != 404 && r.status != 410)
        DR_TRY(refused(s, q, &r));
done:
    q->shown = NULL;
    dr_arena_release(&a);
    return st;
}

dr_status net_store_read(net_store *s, bool *there, dr_buf *body, const char *name)
{
    net_request q = {.body = body};

    *there = false;
    return s->kind == STORE_DIR ? noted(s, store_dir_read(s, there, body, name))
                                : get(s, there, &q, name, NULL);
}

dr_status net_store_get(net_store *s, bool *there, net_file *f, const char *name)
{
    net_request q = {.file = f};

    *there = false;
    return s->kind == STORE_DIR ? noted(s, store_dir_get(s, there, f, name))
                                : get(s, there, &q, name, NULL);
}

/* WebDAV wants the folders of a name to be there. */
static dr_status make_folders(net_store *s, const char *name, dr_arena *a)
{
    const char *whole = dr_arena_printf(a, "%s/%s", s->path, name);
    dr_status st = DR_OK;

    for (const char *p = strchr(whole + 1, '/'); p != NULL; p = strchr(p + 1, '/')) {
        net_store folder = *s; /* its own place, for one request */
        net_request q = {0};
        net_reply r = {0};
        folder.path = dr_arena_strndup(a, whole, (size_t)(p - whole));
        const char *last = strrchr(folder.path, '/');
        const char *own = dr_arena_printf(a, "%s/", last + 1);
        folder.path = dr_arena_strndup(a, folder.path, (size_t)(last - folder.path));
        DR_TRY(ask(&folder, &r, &q, (store_ask){.method = "MKCOL", .name = own}, a, NULL));
    }
done:
    return st;
}

dr_status net_store_put(net_store *s, const char *name, const net_object *o)
{
    net_request q = {.send = true,
                     .data = o->data,
                     .send_fd = o->fd,
                     .from = o->from,
                     .size = o->size,
                     .sent = o->sent,
                     .sent_ctx = o->ctx};
    const store_ask what = {
        .method = "PUT", .name = name, .sha = o->sha, .length = o->size};
    net_reply r = {0};
    dr_arena a = {0};
    dr_status st = DR_OK;

    if (s->kind == STORE_DIR)
        return store_dir_put(s, name, o);
    DR_TRY(ask(s, &r, &q, what, &a, NULL));
    if (s->kind == STORE_WEB && (r.status == 404 || r.status == 409)) {
        DR_TRY(make_folders(s, name, &a));
        DR_TRY(ask(s, &r, &q, what, &a, NULL));
    }
    if (!is_good(r.status))
        DR_TRY(refused(s, &q, &r));
done:
    dr_arena_release(&a);
    return st;
}

dr_status net_store_delete(net_store *s, const char *name)
{
    net_request q = {0};
    net_reply r = {0};
    dr_arena a = {0};
    dr_status st = DR_OK;

    if (s->kind == STORE_DIR)
        return store_dir_delete(s, name);
    DR_TRY(ask(s, &r, &q, (store_ask){.method = "DELETE", .name = name}, &a, NULL));
    if (!is_good(r.status) && r.status != 404)
        DR_TRY(refused(s, &q, &r));
done:
    dr_arena_release(&a);
    return st;
}

/* ---- listings ---- */

/* What stands between <tag> and </tag> from *at on, which moves behind it; NULL: no
 * more. */
static const char *element(dr_arena *a, const char **at, const char *tag)
{
    const char *open = dr_arena_printf(a, "<%s>", tag);
    const char *close = dr_arena_printf(a, "</%s>", tag);
    const char *from = strstr(*at, open);
    const char *to = from != NULL ? strstr(from, close) : NULL;

    if (to == NULL)
        return NULL;
    from += strlen(open);
    *at = to + strlen(close);
    return dr_arena_strndup(a, from, (size_t)(to - from));
}

/* The names of a page, which are behind the last slash: ours need no escapes. */
static dr_status take_page(const net_store *s, dr_arena *a, const char *xml,
                           const char ***names, size_t *count, size_t *room)
{
    const char *at = xml, *text;

    while ((text = element(a, &at, s->kind == STORE_S3 ? "Key" : "Name")) != NULL) {
        if (*count == LISTED)
            return dr_fail(DR_EFORMAT, "%s: more than %d names", s->name, LISTED);
        if (*count == *room) {
            const char **more = dr_arena_alloc(a, 2 * *room + 64, sizeof(*more));
            if (*count > 0)
                memcpy(more, *names, *count * sizeof(*more));
            *names = more;
            *room = 2 * *room + 64;
        }
        (*names)[(*count)++] = dr_path_base(text);
    }
    return DR_OK;
}

dr_status net_store_list(net_store *s, dr_arena *a, const char ***names, size_t *count,
                         const char *in)
{
    const bool s3 = s->kind == STORE_S3;
    const char *prefix =
        dr_arena_printf(a, "%s%s/", s->within != NULL ? s->within : "", in);
    const char *next = NULL;
    size_t room = 0;
    dr_buf page;
    dr_status st = DR_OK;

    *names = NULL;
    *count = 0;
    if (s->kind == STORE_DIR)
        return store_dir_list(s, a, names, count, in);
    if (s->kind == STORE_WEB)
        return dr_fail(DR_EUNSUPPORTED, "%s: a web server has no listing", s->name);
    dr_buf_init(&page, PAGE_BYTES);
    do {
        const char *azure[] = {"comp",
                               "list",
                               next != NULL ? "marker" : "prefix",
                               next != NULL ? next : prefix,
                               next != NULL ? "prefix" : "restype",
                               next != NULL ? prefix : "container",
                               next != NULL ? "restype" : NULL,
                               "container",
                               NULL};
        const char *first[] = {"list-type", "2", "prefix", prefix, NULL};
        const char *later[] = {
            "continuation-token", next, "list-type", "2", "prefix", prefix, NULL};
        net_request q = {.body = &page};
        bool there = false;
        DR_TRY(get(s, &there, &q, NULL, !s3 ? azure : next != NULL ? later : first));
        if (!there)
            DR_FAIL(DR_EIO, "%s: no such %s", s->name, s3 ? "bucket" : "container");
        DR_TRY(take_page(s, a, page.data, names, count, &room));
        const char *at = page.data;
        next = element(a, &at, s3 ? "NextContinuationToken" : "NextMarker");
    } while (next != NULL && *next != '\0');
done:
    dr_buf_release(&page);
    return st;
}
