/*
 * shared_cache_test.c - a cache that two machines share: the second one finds what the
 * first one made, whatever the place is; what is broken there is made anew and healed,
 * and never a wrong hit.  Two machines are two cache folders; the place is a server of
 * the test's own.
 */
#include <fcntl.h>

#include "flow_fixture.h"
#include "store_server.h"

static dr_arena arena;
static const char *workflow, *made; /* made: its result by a cache of its own */

static void set(const char *name, const char *value)
{
    if (value != NULL)
        CHECK(setenv(name, value, 1) == 0);
    else
        CHECK(unsetenv(name) == 0);
}

/* A clean place, and no caches here. */
static void fresh(serve_kind kind)
{
    (void)memset(&shop.wrong, 0, sizeof(shop.wrong));
    shop.kind = kind;
    shop.requests = shop.gets = shop.puts = shop.heads = shop.refused = 0;
    shop.sent = shop.received = 0;
    CHECK_OK(dr_remove_tree(shop.root));
    CHECK_OK(dr_make_dirs(shop.root));
    CHECK_OK(dr_remove_tree(in_tmp(&arena, "one")));
    CHECK_OK(dr_remove_tree(in_tmp(&arena, "two")));
}

static const char *at(const char *path)
{
    return dr_arena_printf(&arena, "http://127.0.0.1:%d%s", shop.port, path);
}

/* What a run says on stderr goes there. */
static const char *said;

static void listen_to(int *old)
{
    const char *path = in_tmp(&arena, "said");
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    (void)fflush(stderr);
    *old = dup(STDERR_FILENO);
    CHECK(fd >= 0 && *old >= 0 && dup2(fd, STDERR_FILENO) >= 0);
    (void)close(fd);
}

static void listened(int old)
{
    dr_buf b;

    (void)fflush(stderr);
    CHECK(dup2(old, STDERR_FILENO) >= 0);
    (void)close(old);
    dr_buf_init(&b, 1 << 20);
    CHECK_OK(dr_read_file(&b, in_tmp(&arena, "said")));
    said = dr_arena_strdup(&arena, b.data);
    dr_buf_release(&b);
}

static bool is_said(const char *text, const char *file, int line)
{
    const bool is = strstr(said, text) != NULL;

    if (!check_that(is, file, line, text))
        (void)printf("  was said: %s\n", said);
    return is;
}
#define CHECK_SAID(text) is_said(text, __FILE__, __LINE__)

/* Runs the workflow; its output must be the one, and so many steps come from a cache. */
static void run(const char *cache, const char *url, bool keep, int cached)
{
    const char *out = in_tmp(&arena, "out");
    const flow_workflow_options o = {.config = workflow,
                                     .model = TINY,
                                     .output = out,
                                     .cache_dir = in_tmp(&arena, cache),
                                     .shared_cache = url,
                                     .keep_shared = keep,
                                     .threads = 1};
    flow_result r;
    int old = -1;

    dr_trail_clear();
    listen_to(&old);
    dr_status st = flow_workflow(&r, &o);
    listened(old);
    if (CHECK_OK(st)) {
        const json_t *n = json_object_get(r.report, "steps_cached");
        CHECK_EQ_INT(json_integer_value(n), cached);
        CHECK_STR(tree_of(&arena, dr_path_join(&arena, out, "model")), made);
    }
    flow_result_release(&r);
}

static void forget(const char *cache)
{
    CHECK_OK(dr_remove_tree(in_tmp(&arena, cache)));
}

enum { STEPS = 2 };

/* ---- two machines ---- */

static void share_at(const char *url)
{
    run("one", url, false, 0);
    CHECK_STR(said, "");
    run("two", url, false, STEPS);
    CHECK_STR(said, "");
    run("two", url, false, STEPS);
    CHECK_STR(said, "");
    CHECK_EQ_INT(shop.refused, 0);
}

static const char *lines_from(int from)
{
    const char *text = "";

    for (int i = from; i < shop.requests; i++)
        text = dr_arena_printf(&arena, "%s%s\n", text, shop.lines[i]);
    return text;
}

static void test_places(void)
{
    fresh(SERVE_WEB);
    share_at(in_tmp(&arena, "folder"));
    fresh(SERVE_WEB);
    share_at(at("/cache"));
    const int before = shop.requests;
    run("two", at("/cache"), false, STEPS); /* what is known to be there is not asked for */
    CHECK_EQ_INT(shop.requests, before);
    /* the folder of a place is one, too: a web server hands it out */
    fresh(SERVE_WEB);
    run("one", dr_path_join(&arena, shop.root, "x"), false, 0);
    run("two", at("/x"), true, STEPS);
    CHECK_EQ_INT(shop.puts, 0);
    set("AZURE_STORAGE_SERVICE_ENDPOINT", at("/" STORE_ACCOUNT));
    set("AZURE_STORAGE_KEY", STORE_KEY);
    fresh(SERVE_AZURE);
    share_at("azure://" STORE_ACCOUNT "/box/x");
    set("AWS_ENDPOINT_URL", at(""));
    set("AWS_ACCESS_KEY_ID", STORE_ID);
    set("AWS_SECRET_ACCESS_KEY", STORE_SECRET);
    set("AWS_SESSION_TOKEN", "session");
    set("AWS_REGION", "eu-north-1");
    fresh(SERVE_S3);
    share_at("s3://bucket/x/y");
}

static int count_of(const char *text, const char *what)
{
    int n = 0;

    for (const char *p = strstr(text, what); p != NULL; p = strstr(p + 1, what))
        n++;
    return n;
}

/* Contents first, then the manifest; nothing twice. */
static void test_order(void)
{
    fresh(SERVE_WEB);
    run("one", at(""), false, 0);
    const char *all = lines_from(0);
    const char *last = strrchr(dr_arena_strndup(&arena, all, strlen(all) - 1), '\n');
    CHECK(last != NULL && strncmp(last, "\nPUT /entries/", 14) == 0);
    CHECK_EQ_INT(count_of(all, "PUT /entries/"), STEPS);
    for (int i = 0; i < shop.requests; i++)
        if (strncmp(shop.lines[i], "PUT ", 4) == 0)
            CHECK_EQ_INT(count_of(all, shop.lines[i]), 1);
    const long bytes = shop.received;
    forget("one");
    CHECK_OK(dr_remove_tree(dr_path_join(&arena, shop.root, "entries")));
    run("one", at(""), false, 0); /* contents are there: manifests alone are sent */
    CHECK(shop.received - bytes < 20000);
    CHECK_EQ_INT(shop.puts, count_of(all, "PUT ") + STEPS);
    /* in pieces of 4 KiB */
    fresh(SERVE_WEB);
    set("DRUPE_SHARED_CACHE_PART", "4K");
    run("one", at(""), false, 0);
    CHECK(shop.puts > 20);
    set("DRUPE_SHARED_CACHE_PART", NULL);
    run("two", at(""), false, STEPS);
    CHECK_STR(said, "");
}

static const char *largest(const char *dir)
{
    char **names = NULL;
    const char *best = "";
    uint64_t most = 0, bytes = 0;
    size_t count = 0;

    CHECK_OK(dr_list_dir(&arena, dir, &names, &count));
    for (size_t i = 0; i < count; i++) {
        const char *path = dr_path_join(&arena, dir, names[i]);
        if (CHECK_OK(dr_file_size(&bytes, path)) && bytes > most) {
            most = bytes;
            best = path;
        }
    }
    return best;
}

static void test_read_only(void)
{
    fresh(SERVE_WEB);
    run("one", at(""), true, 0);
    CHECK_EQ_INT(shop.puts, 0);
    shop.wrong.no_puts = true;
    run("two", at(""), false, 0);
    CHECK_SAID("is not sent there, and nothing more in this run: ");
    CHECK_SAID("the server answered 405");
    CHECK_EQ_INT(count_of(said, "\n"), 1);
    forget("two"); /* who may read alone */
    shop.wrong.no_puts = false;
    run("one", at(""), false, STEPS);
    shop.wrong.status = 403;
    shop.wrong.failures = 1000;
    shop.wrong.only = "PUT";
    CHECK_OK(dr_remove_tree(in_tmp(&arena, "two")));
    CHECK(unlink(largest(dr_path_join(&arena, shop.root, "entries"))) == 0);
    run("two", at(""), false, STEPS - 1);
    CHECK_SAID("not let in (status 403)");
    CHECK_EQ_INT(count_of(said, "\n"), 1);
    forget("two");
    run("two", at(""), true, STEPS - 1);
    CHECK_STR(said, "");
    forget("two");
    shop.wrong.failures = 0;
    run("two", at(""), false, STEPS - 1);
    forget("two");
    run("two", at(""), true, STEPS);
    CHECK_STR(said, "");
}

/* What one machine could not send it sends with the next run that uses it. */
static void test_sent_later(void)
{
    fresh(SERVE_WEB);
    run("one", NULL, false, 0);
    run("one", at(""), false, STEPS);
    run("two", at(""), false, STEPS);
}

/* ---- what is broken ---- */

static void edit(const char *path, bool shorter)
{
    dr_buf b;

    dr_buf_init(&b, 1 << 24);
    CHECK_OK(dr_read_file(&b, path));
    b.data[b.len / 2] ^= 4;
    CHECK_OK(dr_write_file(path, b.data, b.len - shorter));
    dr_buf_release(&b);
}

/* A content or a manifest is changed there: one step is made anew and mended. */
static void broken(const char *folder, bool shorter, const char *message)
{
    const char *path = NULL;

    fresh(SERVE_WEB);
    run("one", at(""), false, 0);
    path = largest(dr_path_join(&arena, shop.root, folder));
    edit(path, shorter);
    run("two", at(""), false, STEPS - 1);
    CHECK_SAID("is not taken from there: ");
    CHECK_SAID(message);
    CHECK_EQ_INT(count_of(said, "\n"), 1);
    forget("two");
    run("two", at(""), false, STEPS);
    CHECK_STR(said, "");
}

static void test_broken(void)
{
    broken("content", false, "its content is not what its SHA-256 says");
    broken("content", true, "it is shorter than was announced");
    fresh(SERVE_WEB);
    run("one", at(""), false, 0);
    CHECK(unlink(largest(dr_path_join(&arena, shop.root, "content"))) == 0);
    run("two", at(""), false, STEPS - 1);
    CHECK_SAID("its content is not there");
    forget("two");
    run("two", at(""), false, STEPS);
    /* at a folder */
    fresh(SERVE_WEB);
    CHECK_OK(dr_remove_tree(in_tmp(&arena, "folder")));
    run("one", in_tmp(&arena, "folder"), false, 0);
    edit(largest(in_tmp(&arena, "folder/content")), true);
    run("two", in_tmp(&arena, "folder"), false, STEPS - 1);
    CHECK_SAID("is not taken from there: ");
    forget("two");
    run("two", in_tmp(&arena, "folder"), false, STEPS);
    CHECK_STR(said, "");
}

static void test_transfers(void)
{
    fresh(SERVE_WEB);
    run("one", at(""), false, 0);
    shop.wrong.cuts = 2; /* broken off, gone on with */
    shop.wrong.cut_at = 5000;
    run("two", at(""), false, STEPS);
    CHECK_STR(said, "");
    forget("two");
    shop.wrong.flips = 1; /* a bit on the way: of the first answer, a manifest */
    run("two", at(""), true, STEPS - 1);
    CHECK_SAID("is not taken from there: ");
    forget("two");
    shop.wrong.status = 500;
    shop.wrong.failures = 2;
    run("two", at(""), true, STEPS);
    CHECK_STR(said, "");
    forget("two");
    shop.wrong.failures = 1000; /* it stays so: asked once */
    run("two", at(""), false, 0);
    CHECK_SAID("it is not asked again");
    CHECK_EQ_INT(count_of(said, "\n"), 1);
    forget("two");
    shop.wrong.failures = 1000;
    shop.wrong.only = "PUT";
    CHECK_OK(dr_remove_tree(shop.root));
    run("two", at(""), false, 0);
    CHECK_SAID("is not sent there, and it is not asked again: ");
    CHECK_EQ_INT(count_of(said, "\n"), 1);
    shop.wrong.failures = 0;
    run("two", at(""), false, STEPS);
    forget("one");
    run("one", at(""), false, STEPS);
}

/* A server that keeps half of what was sent: its size is not the one. */
static void test_half_put(void)
{
    fresh(SERVE_WEB);
    shop.wrong.half_puts = true;
    shop.wrong.put_drops = 4; /* all tries of the first content */
    run("one", at(""), false, 0);
    CHECK_SAID("is not sent there");
    shop.wrong.put_drops = 0;
    run("one", at(""), false, STEPS);
    run("two", at(""), false, STEPS);
    CHECK_STR(said, "");
}

/* A part that a killed run had is gone on with; a bad one is not. */
static void test_resumed(void)
{
    const char *part = NULL;
    dr_buf b;

    fresh(SERVE_WEB);
    run("one", at(""), false, 0);
    shop.wrong.cuts = 1000;
    shop.wrong.cut_at = 9000;
    run("two", at(""), true, 0);
    part = largest(in_tmp(&arena, "two/incoming"));
    dr_buf_init(&b, 1 << 24);
    CHECK(CHECK_OK(dr_read_file(&b, part)) && b.len >= 9000);
    shop.wrong.cuts = 0;
    const int before = shop.requests;
    forget("two/runs");
    run("two", at(""), true, STEPS);
    CHECK(count_of(lines_from(before), dr_arena_printf(&arena, " %zu\n", b.len)) > 0);
    forget("two");
    CHECK_OK(dr_make_dirs(in_tmp(&arena, "two/incoming")));
    b.data[0] ^= 1;
    CHECK_OK(dr_write_file(part, b.data, b.len));
    run("two", at(""), true, STEPS);
    CHECK_STR(said, "");
    dr_buf_release(&b);
}

/* ---- manifests of strangers ---- */

/* A change to the text of all manifests there. */
static void hostile(const char *from, const char *to, const char *message)
{
    char **names = NULL;
    size_t count = 0;
    const char *dir = NULL;

    fresh(SERVE_WEB);
    run("one", at(""), false, 0);
    dir = dr_path_join(&arena, shop.root, "entries");
    CHECK_OK(dr_list_dir(&arena, dir, &names, &count));
    for (size_t i = 0; i < count; i++) {
        const char *path = dr_path_join(&arena, dir, names[i]);
        dr_buf b;
        dr_buf_init(&b, 1 << 24);
        CHECK_OK(dr_read_file(&b, path));
        const char *found = strstr(b.data, from);
        if (CHECK(found != NULL)) {
            const char *text = dr_arena_printf(&arena, "%.*s%s%s", (int)(found - b.data),
                                               b.data, to, found + strlen(from));
            CHECK_OK(dr_write_file(path, text, strlen(text)));
        }
        dr_buf_release(&b);
    }
    run("two", at(""), true, 0);
    CHECK_SAID(message);
    CHECK(!dr_exists(in_tmp(&arena, "two/evil")));
    CHECK(!dr_exists(in_tmp(&arena, "evil")));
    CHECK(!dr_exists("/tmp/drupe-evil"));
}

static void test_hostile(void)
{
    static const char path[] = "\"path\": \"drupe.json\"";

    hostile(path, "\"path\": \"../evil\"", "path is none that may be written");
    hostile(path, "\"path\": \"/tmp/drupe-evil\"", "path is none that may be written");
    hostile(path, "\"path\": \"a/../../evil\"", "path is none that may be written");
    hostile(path, "\"path\": \"a\\u0000b\"", "path is none that may be written");
    hostile(path, "\"path\": \"resume/x\"", "path is none that may be written");
    hostile(path, "\"path\": \"other.json\"", "no drupe.json is in it");
    hostile(path,
            "\"path\": \"drupe.json\", \"bytes\": 0, \"sha256\": []}, {\"path\": \"model\"",
            "model is a file and a folder");
    hostile(path,
            "\"path\": \"drupe.json\", \"bytes\": 0, \"sha256\": []}, {\"path\": "
            "\"drupe.json\"",
            "drupe.json is there twice");
    hostile("\"bytes\": ", "\"bytes\": -", "no size");
    hostile("\"bytes\": ", "\"bytes\": 99999", "parts cannot be");
    hostile("\"part_bytes\": ", "\"part_bytes\": 0, \"x\": ", "no part_bytes");
    hostile("\"key\": \"", "\"key\": \"0", "a manifest of another entry");
    hostile("\"drupe_cache_entry\": 1", "\"drupe_cache_entry\": 2", "of form 2");
    hostile("\"files\": [", "\"files\": [], \"x\": [", "expected 1 to 10000 files");
    hostile("\"sha256\": [", "\"sha256\": [1], \"x\": [", "has no SHA-256");
    hostile("{", "[", "entries/");
}

/* ---- figures ---- */

/* What metrics.json of a run says; the model has a tokenizer. */
static double judged(const char *cache, const char *file, const char *model)
{
    const char *out = in_tmp(&arena, "judged");
    const flow_workflow_options o = {.config = file,
                                     .model = model,
                                     .output = out,
                                     .cache_dir = in_tmp(&arena, cache),
                                     .shared_cache = at("/figures"),
                                     .threads = 1};
    json_t *j = NULL;
    double value = 0;
    flow_result r;

    dr_trail_clear();
    if (CHECK_OK(flow_workflow(&r, &o)) &&
        CHECK_OK(dr_json_read(&j, dr_path_join(&arena, out, "metrics.json"))))
        value =
            json_number_value(json_object_get(json_object_get(j, "a-perplexity"), "value"));
    json_decref(j);
    flow_result_release(&r);
    return value;
}

/* Those of accuracy are shared: what another machine has measured is taken. */
static void test_figures(void)
{
    static const char text[] =
        "passes:\n  q: {type: Rtn, group_size: 32}\n"
        "data_configs:\n- name: d\n  pre_process_data_config: {max_seq_len: 64, "
        "max_samples: 2}\n"
        "evaluators: {e: {metrics: [{name: a, type: accuracy, data_config: d, sub_types: "
        "[{name: perplexity, priority: 1}]}]}}\n"
        "evaluator: e\nevaluate_input_model: false\n";
    const char *file = in_tmp(&arena, "judged.yaml"), *path = NULL;
    const char *model = copy_letters(&arena, "letters");

    fresh(SERVE_WEB);
    CHECK_OK(dr_write_file(file, text, strlen(text)));
    const double value = judged("one", file, model);
    CHECK(value > 1);
    path = largest(dr_path_join(&arena, shop.root, "figures/figures"));
    CHECK_OK(dr_write_file(path, "{\"perplexity\": 1.25}", 20));
    CHECK_NEAR(judged("two", file, model), 1.25, 0);
    forget("two");
    CHECK_OK(dr_write_file(path, "{\"perplexity\": \"low\"}", 21)); /* no figure */
    CHECK_NEAR(judged("two", file, model), value, 0);
    forget("two");
    CHECK_OK(dr_write_file(path, "{", 1));
    CHECK_NEAR(judged("two", file, model), value, 0);
}

int main(void)
{
    static const char text[] =
        "passes:\n  q: {type: Rtn, group_size: 32}\n  b: {type: ModelBuilder}\n";

    if (!shop_can_be_reached()) {
        SKIP("libcurl is not installed");
        return check_done();
    }
    workflow = in_tmp(&arena, "w.yaml");
    CHECK_OK(dr_write_file(workflow, text, strlen(text)));
    const flow_workflow_options own = {.config = workflow,
                                       .model = TINY,
                                       .output = in_tmp(&arena, "own"),
                                       .cache_dir = in_tmp(&arena, "own-cache"),
                                       .threads = 1};
    flow_result r;
    CHECK_OK(flow_workflow(&r, &own));
    flow_result_release(&r);
    made = tree_of(&arena, in_tmp(&arena, "own/model"));
    CHECK(*made != '\0');
    if (!CHECK(shop_start(in_tmp(&arena, "served"), SERVE_WEB)))
        return check_done();
    test_places();
    test_order();
    test_read_only();
    test_sent_later();
    test_broken();
    test_transfers();
    test_half_put();
    test_resumed();
    test_hostile();
    test_figures();
    shop_stop();
    dr_arena_release(&arena);
    return check_done();
}
