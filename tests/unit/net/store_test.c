/*
 * store_test.c - objects at a folder, a web server, Azure's blobs and S3, on a server
 * of the test's own: what is put comes back, by pieces, through faults; what cannot be
 * is said without secrets.
 */
#include <fcntl.h>

#include "check.h"
#include "core/file.h"
#include "core/log.h"
#include "store_server.h"

enum { BIG = 3 << 20 };

static dr_arena arena;
static char big[BIG];
static char big_sha[DR_SHA256_HEX];

static const char *in_tmp(const char *name)
{
    return dr_path_join(&arena, check_tmp(), name);
}

static void fresh(serve_kind kind)
{
    (void)memset(&shop.wrong, 0, sizeof(shop.wrong));
    shop.kind = kind;
    shop.requests = shop.gets = shop.puts = shop.heads = shop.refused = 0;
    CHECK_OK(dr_remove_tree(shop.root));
    CHECK_OK(dr_make_dirs(shop.root));
}

static void set(const char *name, const char *value)
{
    if (value != NULL)
        CHECK(setenv(name, value, 1) == 0);
    else
        CHECK(unsetenv(name) == 0);
}

static net_store *open_store(const char *url)
{
    net_store *s = NULL;

    dr_trail_clear();
    CHECK_OK(net_store_open(&s, url));
    return s;
}

static const char *at(const char *path)
{
    return dr_arena_printf(&arena, "http://127.0.0.1:%d%s", shop.port, path);
}

static dr_status put_text(net_store *s, const char *name, const char *text)
{
    char sha[DR_SHA256_HEX];

    dr_sha256(sha, text, strlen(text));
    const net_object o = {.data = text, .size = strlen(text), .sha = sha};
    return net_store_put(s, name, &o);
}

/* The object as text; "" when there is none. */
static const char *text_of(net_store *s, const char *name)
{
    const char *text = "";
    bool there = false;
    dr_buf b;

    dr_buf_init(&b, 1 << 20);
    if (CHECK_OK(net_store_read(s, &there, &b, name)) && there)
        text = dr_arena_strdup(&arena, b.data);
    dr_buf_release(&b);
    return text;
}

/* Gets the big object from `have` on into a file of its own; its hash there. */
static dr_status get_big(net_store *s, const char *name, uint64_t have, uint64_t size)
{
    const char *path = in_tmp("got");
    const int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    net_file f = {.fd = fd, .base = 7, .size = size, .have = have};
    char sha[DR_SHA256_HEX];
    bool there = false;
    dr_map m = {0};

    CHECK(fd >= 0 && pwrite(fd, "1234567", 7, 0) == 7);
    CHECK(pwrite(fd, big, (size_t)have, 7) == (ssize_t)have);
    dr_trail_clear();
    dr_status st = net_store_get(s, &there, &f, name);
    (void)close(fd);
    if (st != DR_OK)
        return st;
    CHECK(there);
    CHECK_OK(dr_map_open(&m, path));
    if (CHECK_EQ_INT(m.size, 7 + size)) {
        dr_sha256(sha, m.data + 7, m.size - 7);
        CHECK_STR(sha, big_sha);
        CHECK_MEM(m.data, "1234567", 7);
    }
    dr_map_close(&m);
    return DR_OK;
}

static void put_big(net_store *s, const char *name)
{
    const char *path = in_tmp("big");
    char sha[DR_SHA256_HEX];

    CHECK_OK(dr_write_file(path, big, BIG));
    const int fd = open(path, O_RDONLY);
    const net_object o = {.fd = fd, .from = 0, .size = BIG, .sha = big_sha};
    CHECK_OK(net_store_put(s, name, &o));
    dr_sha256(sha, big + 100, 1000);
    const net_object part = {.fd = fd, .from = 100, .size = 1000, .sha = sha};
    CHECK_OK(net_store_put(s, "content/part", &part));
    (void)close(fd);
}

/* Everything that a place must be able to do. */
static void all_of(const char *url)
{
    net_store *s = open_store(url);
    const char **names = NULL;
    uint64_t bytes = 0;
    size_t count = 0;
    bool there = true;

    if (s == NULL)
        return;
    if (CHECK_OK(net_store_size(s, &there, &bytes, "entries/a.json")))
        CHECK(!there);
    CHECK_STR(text_of(s, "entries/a.json"), "");
    CHECK_OK(put_text(s, "entries/a.json", "{}"));
    CHECK_OK(put_text(s, "entries/a.json", "{\"a\": 1}"));
    CHECK_STR(text_of(s, "entries/a.json"), "{\"a\": 1}");
    if (CHECK_OK(net_store_size(s, &there, &bytes, "entries/a.json")))
        CHECK(there && bytes == 8);
    put_big(s, "content/big");
    CHECK_OK(get_big(s, "content/big", 0, BIG));
    CHECK_OK(get_big(s, "content/big", 12345, BIG));
    if (CHECK_OK(net_store_size(s, &there, &bytes, "content/part")))
        CHECK(there && bytes == 1000);
    for (int i = 0; i < 5; i++)
        CHECK_OK(put_text(s, dr_arena_printf(&arena, "entries/%d.json", i), "x"));
    if (net_store_lists(s)) {
        if (CHECK_OK(net_store_list(s, &arena, &names, &count, "entries")) &&
            CHECK_EQ_INT(count, 6)) {
            CHECK_STR(names[0], "0.json");
            CHECK_STR(names[5], "a.json");
        }
        CHECK_OK(net_store_list(s, &arena, &names, &count, "nothing"));
        CHECK_EQ_INT(count, 0);
    } else {
        CHECK_STATUS(net_store_list(s, &arena, &names, &count, "entries"), DR_EUNSUPPORTED);
    }
    CHECK_OK(net_store_delete(s, "entries/a.json"));
    CHECK_OK(net_store_delete(s, "entries/a.json"));
    CHECK_STR(text_of(s, "entries/a.json"), "");
    CHECK_EQ_INT(shop.refused, 0);
    CHECK(!net_store_is_out(s));
    if (shop.refused > 0)
        (void)printf("  %s\n", shop.said);
    net_store_close(s);
}

static void test_kinds(void)
{
    fresh(SERVE_WEB);
    all_of(in_tmp("folder/of/store"));
    all_of(dr_arena_printf(&arena, "file://%s", in_tmp("a%20folder")));
    CHECK(dr_is_dir(in_tmp("a folder/entries")));
    all_of(at(""));
    all_of(at("/some/path/"));
    shop.wrong.folders = true; /* as WebDAV */
    all_of(at("/dav"));
    all_of(at(""));
    CHECK(dr_is_dir(dr_path_join(&arena, shop.root, "dav/entries")));
    set("AZURE_STORAGE_SERVICE_ENDPOINT", at("/" STORE_ACCOUNT));
    set("AZURE_STORAGE_KEY", STORE_KEY);
    fresh(SERVE_AZURE);
    all_of("azure://" STORE_ACCOUNT "/box");
    all_of("azure://" STORE_ACCOUNT "/box/pre%20fix/deep/");
    set("AZURE_STORAGE_KEY", NULL);
    all_of("azure://" STORE_ACCOUNT "/other?sig=s%2Becret");
    set("AZURE_STORAGE_SAS_TOKEN", "?sig=s%2Becret");
    all_of("azure://" STORE_ACCOUNT "/third");
    set("AZURE_STORAGE_SAS_TOKEN", NULL);
    set("AWS_ENDPOINT_URL", at(""));
    set("AWS_ACCESS_KEY_ID", STORE_ID);
    set("AWS_SECRET_ACCESS_KEY", STORE_SECRET);
    set("AWS_SESSION_TOKEN", "session");
    set("AWS_REGION", "eu-north-1");
    fresh(SERVE_S3);
    all_of("s3://bucket");
    all_of("s3://bucket/a%20pre+fix/x");
}

/* ---- faults ---- */

static void test_busy(void)
{
    net_store *s = open_store(at("/p"));
    double began = dr_now_s();

    fresh(SERVE_WEB);
    put_big(s, "content/big");
    shop.wrong.status = 503;
    shop.wrong.failures = 2;
    CHECK_STR(text_of(s, "content/none"), "");
    CHECK(dr_now_s() - began > 1); /* it waited between the tries */
    shop.wrong.status = 429;
    shop.wrong.failures = 1;
    shop.wrong.retry_after = "2";
    began = dr_now_s();
    CHECK_OK(put_text(s, "x", "y"));
    CHECK(dr_now_s() - began > 1.9);
    shop.wrong.retry_after = NULL;
    CHECK(!net_store_is_out(s));
    shop.wrong.status = 500;
    shop.wrong.failures = 100;
    dr_trail_clear();
    CHECK_STATUS(put_text(s, "x", "y"), DR_EIO);
    CHECK_TRAIL("/p/x: the server answered 500");
    CHECK(net_store_is_out(s));
    net_store_close(s);
}

static void test_broken(void)
{
    net_store *s = open_store(at("/p"));

    fresh(SERVE_WEB);
    put_big(s, "content/big");
    shop.wrong.cut_at = 1500000;
    shop.wrong.cuts = 1;
    shop.requests = 0;
    CHECK_OK(get_big(s, "content/big", 0, BIG));
    CHECK_STR(shop.lines[1], "GET /p/content/big 1500000"); /* goes on there */
    shop.wrong.no_range = true;
    shop.wrong.cuts = 1;
    CHECK_OK(get_big(s, "content/big", 0, BIG));
    shop.wrong.no_range = false;
    shop.wrong.cut_at = 1000;
    shop.wrong.cuts = 100;
    CHECK_STATUS(get_big(s, "content/big", 0, BIG), DR_EIO);
    shop.wrong.cuts = 0;
    shop.wrong.longer = 1;
    CHECK_STATUS(get_big(s, "content/big", 0, BIG), DR_EFORMAT);
    CHECK_TRAIL("more than the announced");
    CHECK_STATUS(get_big(s, "content/big", 0, BIG - 1), DR_EFORMAT);
    CHECK_STATUS(get_big(s, "content/part", 0, BIG), DR_EFORMAT);
    CHECK_TRAIL("it is shorter than was announced");
    shop.wrong.put_drops = 1;
    CHECK_OK(put_text(s, "y", "a text that is sent twice"));
    CHECK_STR(text_of(s, "y"), "a text that is sent twice");
    net_store_close(s);
}

static void test_slow(void)
{
    set("DRUPE_SHARED_CACHE_TIMEOUT", "1");
    net_store *s = open_store(at("/p"));

    fresh(SERVE_WEB);
    put_big(s, "content/big");
    shop.wrong.stalls = 1;
    CHECK_OK(get_big(s, "content/big", 0, BIG));
    net_store_close(s);
    set("DRUPE_SHARED_CACHE_TIMEOUT", NULL);
}

/* ---- what cannot be ---- */

static void refused(const char *url, const char *message)
{
    net_store *s = NULL;

    dr_trail_clear();
    if (CHECK_STATUS(net_store_open(&s, url), DR_EUSAGE) && !CHECK_TRAIL(message))
        (void)printf("  of %s\n", url);
    net_store_close(s);
}

static void test_refused(void)
{
    refused("ftp://host/x", "found ftp://");
    refused("http://", "no host");
    refused("http:///path", "no host");
    refused("https://host/a b", "a character that no URL has");
    refused("file://relative", "expected a folder from the root on");
    refused("", "expected a folder");
    refused("https://acct.blob.core.windows.net", "a container behind the host");
    refused("https://acct.blob.core.windows.net/a/../b", "a container behind the host");
    refused("azure://acct", "a container behind the account");
    refused("s3://bucket/../x", "expected a bucket");
    refused("s3://bucket/x?y=z", "behind the ?");
    set("AWS_SECRET_ACCESS_KEY", NULL);
    refused("s3://bucket", "belong together");
    set("AWS_SECRET_ACCESS_KEY", "a\nb");
    refused("s3://bucket", "a character that no credential has");
    set("AWS_SECRET_ACCESS_KEY", STORE_SECRET);
    set("AZURE_STORAGE_KEY", "****");
    refused("azure://acct/box", "no base64");
    set("AZURE_STORAGE_KEY", NULL);
    set("DRUPE_SHARED_CACHE_TIMEOUT", "0");
    refused("/tmp", "expected 1 to 3600 seconds, found 0");
    set("DRUPE_SHARED_CACHE_TIMEOUT", NULL);
    CHECK_OK(dr_write_file(in_tmp("file"), "x", 1));
    refused(in_tmp("file"), "it is a file");
}

static bool says(const char *text)
{
    const dr_trail *t = dr_trail_get();

    for (int i = 0; i < t->count; i++)
        if (strstr(t->frames[i].text, text) != NULL)
            return true;
    return strstr(t->hint, text) != NULL;
}

/* A place that lets nobody in: said, without what was tried. */
static void test_secrets(void)
{
    net_store *s = NULL;
    bool there = false;
    dr_buf b;

    fresh(SERVE_AZURE);
    set("AZURE_STORAGE_SERVICE_ENDPOINT", at("/" STORE_ACCOUNT));
    s = open_store("azure://" STORE_ACCOUNT "/box?sig=Hidden1");
    CHECK_STR(net_store_name(s), "azure://" STORE_ACCOUNT "/box");
    dr_trail_clear();
    CHECK_STATUS(put_text(s, "y", "z"), DR_EIO);
    CHECK_TRAIL("not let in (status 403, AuthenticationFailed)");
    CHECK(!says("Hidden1"));
    CHECK(!net_store_is_out(s)); /* it may be for reading */
    dr_trail_clear();
    dr_buf_init(&b, 1 << 20);
    CHECK_STATUS(net_store_read(s, &there, &b, "y"), DR_EIO);
    CHECK_TRAIL("not let in (status 403, AuthenticationFailed)");
    CHECK(net_store_is_out(s));
    dr_buf_release(&b);
    net_store_close(s);
    shop.kind = SERVE_WEB;
    shop.wrong.status = 401;
    shop.wrong.failures = 100;
    s = open_store(
        dr_arena_printf(&arena, "http://me:Hidden2@127.0.0.1:%d/x?t=Hidden3", shop.port));
    dr_trail_clear();
    CHECK_STATUS(put_text(s, "y", "z"), DR_EIO);
    CHECK_TRAIL("/x/y: not let in (status 401)");
    CHECK(!says("Hidden"));
    net_store_close(s);
    shop_stop();
    s = open_store(
        dr_arena_printf(&arena, "http://me:Hidden2@127.0.0.1:%d/x?t=Hidden3", shop.port));
    dr_trail_clear();
    CHECK_STATUS(put_text(s, "y", "z"), DR_EIO); /* nobody is there any more */
    CHECK(!says("Hidden"));
    CHECK(net_store_is_out(s));
    net_store_close(s);
}

/* To a web server: a token of the environment, or who the URL says. */
static void test_credentials(void)
{
    net_store *s = NULL;

    fresh(SERVE_WEB);
    set("DRUPE_SHARED_CACHE_TOKEN", "abc");
    s = open_store(at("/x"));
    CHECK_OK(put_text(s, "y", "z"));
    CHECK_STR(shop.authorization, "Bearer abc");
    net_store_close(s);
    set("DRUPE_SHARED_CACHE_TOKEN", NULL);
    s = open_store(dr_arena_printf(&arena, "http://me:pw@127.0.0.1:%d/x", shop.port));
    CHECK_STR(net_store_name(s), at("/x"));
    CHECK_STR(text_of(s, "y"), "z");
    CHECK_STR(shop.authorization, "Basic bWU6cHc=");
    net_store_close(s);
    s = open_store(at("/x"));
    CHECK_STR(text_of(s, "y"), "z");
    CHECK_STR(shop.authorization, "");
    net_store_close(s);
}

int main(void)
{

    if (!shop_can_be_reached()) {
        SKIP("libcurl is not installed");
        return check_done();
    }
    for (size_t i = 0; i < BIG; i++)
        big[i] = (char)(i * 2654435761u >> 11);
    dr_sha256(big_sha, big, BIG);
    if (!CHECK(shop_start(in_tmp("served"), SERVE_WEB)))
        return check_done();
    test_kinds();
    test_credentials();
    test_busy();
    test_broken();
    test_slow();
    test_refused();
    test_secrets(); /* ends the server */
    dr_arena_release(&arena);
    return check_done();
}
