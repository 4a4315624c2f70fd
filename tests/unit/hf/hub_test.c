/*
 * hub_test.c - hf_resolve: local names, and downloads from a hub of the test's own.
 *
 * Every test that downloads starts with an empty cache, unless it says otherwise.
 */
#include <dlfcn.h>
#include <sys/stat.h>

#include "check.h"
#include "core/arena.h"
#include "core/file.h"
#include "core/log.h"
#include "hf/hf.h"
#include "hub_server.h"

enum { WEIGHTS = 300000 };

static const char config[] = "{\"model_type\": \"llama\"}";
static char weights[WEIGHTS];
static dr_arena arena;

static const char *in_tmp(const char *name)
{
    return dr_path_join(&arena, check_tmp(), name);
}

static const char *cached(const char *name)
{
    return dr_path_join(&arena, in_tmp("home/hub/models--org--tiny"), name);
}

static void put_file(const char *path, const char *text)
{
    const char *dir = dr_arena_strndup(&arena, path, (size_t)(strrchr(path, '/') - path));

    CHECK_OK(dr_make_dirs(dir));
    CHECK_OK(dr_write_file(path, text, strlen(text)));
}

static void fresh(void)
{
    CHECK_OK(dr_remove_tree(in_tmp("home")));
    (void)memset(&hub.wrong, 0, sizeof(hub.wrong));
    hub.requests = hub.file_gets = hub.cdn_gets = 0;
    hub.token_at_cdn = hub.token_at_endpoint = false;
}

static dr_status get(const char **path, const char *name)
{
    hub.requests = 0;
    return hf_resolve(&arena, path, name);
}

static void refused(const char *name, dr_status want, const char *text)
{
    const char *path = NULL;

    if (!CHECK_STATUS(get(&path, name), want) || !CHECK_TRAIL(text))
        (void)printf("  %s: wanted: %s\n", name, text);
    CHECK(path == NULL);
}

static bool same(const char *path, const char *data, size_t n)
{
    dr_buf b = {0};

    dr_buf_init(&b, 1 << 24);
    bool ok = dr_read_file(&b, path) == DR_OK && b.len == n && memcmp(b.data, data, n) == 0;
    dr_buf_release(&b);
    return ok;
}

/* ---- local names ---- */

static void test_local(void)
{
    const char *path = NULL;

    put_file(in_tmp("plain/config.json"), "{}");
    put_file(in_tmp("some.gguf"), "GGUF");
    put_file(in_tmp("notes.txt"), "x");
    put_file(in_tmp("holder/model/config.json"), "{}");
    CHECK_OK(dr_make_dirs(in_tmp("empty")));
    if (CHECK_OK(hf_resolve(&arena, &path, in_tmp("plain"))))
        CHECK_STR(path, in_tmp("plain"));
    if (CHECK_OK(hf_resolve(&arena, &path, in_tmp("some.gguf"))))
        CHECK_STR(path, in_tmp("some.gguf"));
    if (CHECK_OK(hf_resolve(&arena, &path, in_tmp("holder"))))
        CHECK_STR(path, in_tmp("holder/model"));
    refused(in_tmp("empty"), DR_EFORMAT, "holds neither config.json");
    refused(in_tmp("notes.txt"), DR_EUSAGE, "expected a folder or a .gguf file");
    refused("", DR_EUSAGE, "empty");
    refused("nothing-of-that-name", DR_EUSAGE, "no such file or folder, and no hub id");
    refused("models/missing.gguf", DR_EUSAGE, "no such file or folder");
    refused("./org/tiny", DR_EUSAGE, "no such file or folder");
    refused("org/../tiny", DR_EUSAGE, "no such file or folder");
    refused("org/tiny@../../x", DR_EUSAGE, "no such file or folder");
    refused("azureml://registries/x", DR_EUNSUPPORTED, "azureml:// locations");
    refused("s3://bucket/x", DR_EUNSUPPORTED, "s3:// locations");
    refused("https://example.com/org/tiny", DR_EUNSUPPORTED, "https:// locations");
    refused("https://huggingface.co/tiny", DR_EUSAGE, "names no model");
}

static void test_model_config(void)
{
    const char *path = NULL;
    char *text = NULL;

    put_file(in_tmp("plain/config.json"), "{}");
    put_file(in_tmp("beside/model_config.json"),
             "{\"type\": \"HfModel\", \"config\": {\"model_path\": \"model\"}}");
    put_file(in_tmp("beside/model/config.json"), "{}");
    if (CHECK_OK(hf_resolve(&arena, &path, in_tmp("beside"))))
        CHECK_STR(path, in_tmp("beside/model"));
    if (CHECK_OK(hf_resolve(&arena, &path, in_tmp("beside/model_config.json"))))
        CHECK_STR(path, in_tmp("beside/model"));
    text = dr_arena_printf(&arena,
                           "{\"type\": \"hfmodel\", \"config\": {\"model_path\": \"%s\"}}",
                           in_tmp("beside"));
    put_file(in_tmp("chain/model_config.json"), text);
    if (CHECK_OK(hf_resolve(&arena, &path, in_tmp("chain"))))
        CHECK_STR(path, in_tmp("beside/model"));
    put_file(in_tmp("loop/model_config.json"),
             "{\"type\": \"HfModel\", \"config\": {\"model_path\": \".\"}}");
    CHECK(chdir(in_tmp("loop")) == 0);
    refused(in_tmp("loop"), DR_EFORMAT, "model_config.json lead here");
    CHECK(chdir("/") == 0);
    put_file(in_tmp("onnx/model_config.json"),
             "{\"type\": \"ONNXModel\", \"config\": {\"model_path\": \"model.onnx\"}}");
    refused(in_tmp("onnx"), DR_EUNSUPPORTED, "type is ONNXModel");
    put_file(in_tmp("none/model_config.json"), "{\"type\": \"HfModel\", \"config\": {}}");
    refused(in_tmp("none"), DR_EFORMAT, "config.model_path is missing");
}

/* ---- downloads ---- */

static void test_download(void)
{
    const char *path = NULL;
    char target[4096] = "";

    fresh();
    if (!CHECK_OK(get(&path, "org/tiny")))
        return;
    CHECK_STR(path, cached("snapshots/" COMMIT));
    CHECK(same(cached("snapshots/" COMMIT "/config.json"), config, strlen(config)));
    CHECK(same(cached("snapshots/" COMMIT "/model.safetensors"), weights, WEIGHTS));
    CHECK(same(cached("refs/main"), COMMIT, 40));
    CHECK(!dr_exists(cached("snapshots/" COMMIT "/pytorch_model.bin")));
    CHECK(!dr_exists(cached("snapshots/" COMMIT "/onnx/model.onnx")));
    CHECK(!dr_exists(cached("snapshots/" COMMIT "/consolidated.safetensors")));
    ssize_t n = readlink(cached("snapshots/" COMMIT "/model.safetensors"), target, 4095);
    CHECK(n > 0);
    CHECK_STR(target, dr_arena_printf(&arena, "../../blobs/%s",
                                      hub_file("model.safetensors")->etag));
    CHECK(hub.token_at_endpoint);
    CHECK(!hub.token_at_cdn);
    CHECK_EQ_INT(hub.file_gets, 2);
    CHECK_EQ_INT(hub.cdn_gets, 1);

    /* Again: one question, no answers. */
    CHECK_OK(get(&path, "org/tiny"));
    CHECK_EQ_INT(hub.requests, 1);
    CHECK_EQ_INT(hub.cdn_gets, 1);
    /* By commit: not even the question. */
    CHECK_OK(get(&path, "org/tiny@" COMMIT));
    CHECK_EQ_INT(hub.requests, 0);
    CHECK_STR(path, cached("snapshots/" COMMIT));
}

/* A repository without safetensors: PyTorch's own file, or its shards with their index. */
static void test_torch(void)
{
    static const char index[] =
        "{\"weight_map\": {\"a\": \"pytorch_model-00001-of-00001.bin\"}}";
    served *st = hub_file("model.safetensors");
    served *other = hub_file("consolidated.safetensors");
    served *bin = hub_file("pytorch_model.bin");
    const char *path = NULL;

    fresh();
    st->name = "notes.txt";
    other->name = "more.txt";
    if (CHECK_OK(get(&path, "org/tiny")))
        CHECK(same(cached("snapshots/" COMMIT "/pytorch_model.bin"), weights, WEIGHTS));
    CHECK(!dr_exists(cached("snapshots/" COMMIT "/notes.txt")));
    CHECK_OK(get(&path, "org/tiny@" COMMIT));
    CHECK_EQ_INT(hub.requests, 0);

    fresh();
    st->name = "pytorch_model-00001-of-00001.bin";
    hub_set(other, "pytorch_model.bin.index.json", index, strlen(index), false);
    bin->name = "training.bin";
    if (CHECK_OK(get(&path, "org/tiny")))
        CHECK(same(cached("snapshots/" COMMIT "/pytorch_model-00001-of-00001.bin"), weights,
                   WEIGHTS));
    CHECK(!dr_exists(cached("snapshots/" COMMIT "/training.bin")));
    CHECK_OK(get(&path, "org/tiny@" COMMIT));
    CHECK_EQ_INT(hub.requests, 0);

    st->name = "model.safetensors";
    bin->name = "pytorch_model.bin";
    hub_set(other, "consolidated.safetensors", weights, WEIGHTS, true);
}

static void test_links(void)
{
    const char *path = NULL;
    const char *base = dr_arena_printf(&arena, "http://127.0.0.1:%d/org/tiny", hub.port);

    fresh();
    CHECK_OK(get(&path, dr_arena_printf(&arena, "%s/tree/v1?x=y", base)));
    CHECK(strstr(hub.lines[0], "/revision/v1 ") != NULL);
    CHECK(same(cached("refs/v1"), COMMIT, 40));
    CHECK_OK(get(&path, "https://huggingface.co/org/tiny/"));
    CHECK_STR(path, cached("snapshots/" COMMIT));
    CHECK_OK(get(&path, "org/tiny@refs/pr/1"));
    CHECK(strstr(hub.lines[0], "/revision/refs%2Fpr%2F1 ") != NULL);
    CHECK_OK(get(&path, "org/tiny/q/a.gguf"));
    CHECK_STR(path, cached("snapshots/" COMMIT "/q/a.gguf"));
    CHECK(same(path, "GGUF", 4));
    CHECK_OK(get(&path, dr_arena_printf(&arena, "%s/blob/main/q/a.gguf", base)));
    CHECK_STR(path, cached("snapshots/" COMMIT "/q/a.gguf"));
    refused("org/tiny/q/b.gguf", DR_EIO, "no file q/b.gguf in it");
}

static void test_resume(void)
{
    const char *path = NULL;
    const char *part = dr_arena_printf(
        &arena, "%s.incomplete",
        cached(dr_arena_printf(&arena, "blobs/%s", hub_file("model.safetensors")->etag)));
    uint64_t size = 0;

    /* Broken off once: the same run goes on from there. */
    fresh();
    hub.wrong.cuts = 1;
    hub.wrong.cut_at = 100000;
    CHECK_OK(get(&path, "org/tiny"));
    CHECK(same(cached("snapshots/" COMMIT "/model.safetensors"), weights, WEIGHTS));
    CHECK_EQ_INT(hub.cdn_gets, 2);
    CHECK(strstr(hub.lines[hub.requests - 2], " 100000") != NULL ||
          strstr(hub.lines[hub.requests - 1], " 100000") != NULL);

    /* Broken off for good: the next run goes on from there. */
    fresh();
    hub.wrong.cuts = 3;
    hub.wrong.cut_at = 50000;
    refused("org/tiny", DR_EIO, "downloading model.safetensors of org/tiny");
    CHECK_OK(dr_file_size(&size, part));
    CHECK_EQ_INT(size, 150000);
    CHECK(!dr_exists(cached("refs/main")));
    hub.wrong.cuts = 0;
    CHECK_OK(get(&path, "org/tiny"));
    CHECK(same(cached("snapshots/" COMMIT "/model.safetensors"), weights, WEIGHTS));
    CHECK(!dr_exists(part));

    /* A server that starts again from the beginning. */
    fresh();
    hub.wrong.cuts = 1;
    hub.wrong.cut_at = 100000;
    hub.wrong.no_range = true;
    CHECK_OK(get(&path, "org/tiny"));
    CHECK(same(cached("snapshots/" COMMIT "/model.safetensors"), weights, WEIGHTS));
}

static void test_wrong_bytes(void)
{
    const char *path = NULL;
    const char *blob =
        cached(dr_arena_printf(&arena, "blobs/%s", hub_file("model.safetensors")->etag));

    fresh();
    hub.wrong.bytes = true;
    refused("org/tiny", DR_EIO, "the content has SHA-256");
    CHECK(!dr_exists(blob));
    CHECK(!dr_exists(dr_arena_printf(&arena, "%s.incomplete", blob)));
    CHECK(!dr_exists(cached("snapshots/" COMMIT "/model.safetensors")));
    hub.wrong.bytes = false;
    CHECK_OK(get(&path, "org/tiny"));
}

static void test_refusals(void)
{
    fresh();
    hub.wrong.status = 401;
    refused("org/tiny", DR_EIO, "HTTP 401");
    refused("org/tiny", DR_EIO, "HF_TOKEN");
    hub.wrong.status = 403;
    hub.wrong.error_code = "GatedRepo";
    refused("org/tiny", DR_EIO, "GatedRepo");
    refused("org/tiny", DR_EIO, "licence");
    CHECK_EQ_INT(hub.requests, 1); /* not tried again */
    refused("org/other", DR_EIO, "org/other: the hub does not have the model (HTTP 404)");
    hub.wrong.status = 404;
    hub.wrong.error_code = "RevisionNotFound";
    refused("org/tiny@v9", DR_EIO, "no revision v9");
    fresh();
    hub.wrong.sibling = "../../evil.safetensors";
    refused("org/tiny", DR_EFORMAT, "../../evil.safetensors");
    hub.wrong.sibling = "/etc/evil.safetensors";
    refused("org/tiny", DR_EFORMAT, "/etc/evil.safetensors");
    fresh();
    hub.wrong.etag = "../../../evil";
    refused("org/tiny", DR_EFORMAT, "the ETag names no content");
    fresh();
    hub.wrong.huge = true;
    refused("org/tiny", DR_EIO, "MB are to come");
    CHECK_EQ_INT(hub.file_gets, 0);
}

static void test_flaky(void)
{
    const char *path = NULL;

    fresh();
    hub.wrong.failures = 2;
    CHECK_OK(get(&path, "org/tiny"));
    fresh();
    hub.wrong.failures = 1000;
    refused("org/tiny", DR_EIO, "HTTP 503");
    CHECK_EQ_INT(hub.requests, 3);
}

static void test_offline(void)
{
    const char *path = NULL;

    fresh();
    CHECK_OK(get(&path, "org/tiny"));
    CHECK(setenv("HF_HUB_OFFLINE", "1", 1) == 0);
    CHECK_OK(get(&path, "org/tiny"));
    CHECK_EQ_INT(hub.requests, 0);
    CHECK_STR(path, cached("snapshots/" COMMIT));
    refused("org/other", DR_EIO, "HF_HUB_OFFLINE is set");
    CHECK(unlink(cached("snapshots/" COMMIT "/model.safetensors")) == 0);
    refused("org/tiny", DR_EIO, "model.safetensors is not in the cache");
    CHECK(unsetenv("HF_HUB_OFFLINE") == 0);
    CHECK_OK(get(&path, "org/tiny")); /* the blob is there: only the link is made */
    CHECK_EQ_INT(hub.cdn_gets, 1);
}

/* After the server has gone: what the cache has, else an error within seconds. */
static void test_gone(void)
{
    const char *path = NULL;
    double start = 0;

    fresh();
    CHECK_OK(get(&path, "org/tiny"));
    hub_stop();
    CHECK_OK(get(&path, "org/tiny"));
    CHECK_STR(path, cached("snapshots/" COMMIT));
    start = dr_now_s();
    refused("org/other", DR_EIO, "org/other is no local folder");
    CHECK(dr_now_s() - start < 20);
}

static bool have_curl(void)
{
    void *lib = dlopen("libcurl.so.4", RTLD_NOW);

    return lib != NULL || dlopen("libcurl-gnutls.so.4", RTLD_NOW) != NULL;
}

static void environment(void)
{
    static const char *const unwanted[] = {
        "http_proxy",     "https_proxy",
        "HTTP_PROXY",     "HTTPS_PROXY",
        "all_proxy",      "ALL_PROXY",
        "HF_HUB_CACHE",   "HUGGINGFACE_HUB_CACHE",
        "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE",
        "HF_TOKEN_PATH",  "HUGGING_FACE_HUB_TOKEN",
        "XDG_CACHE_HOME", "HF_HUB_DISABLE_IMPLICIT_TOKEN",
    };

    for (size_t i = 0; i < DR_COUNT(unwanted); i++)
        (void)unsetenv(unwanted[i]);
    (void)setenv("HF_HOME", in_tmp("home"), 1);
    (void)setenv("HF_TOKEN", "secret", 1);
    (void)setenv("HF_ENDPOINT", dr_arena_printf(&arena, "http://127.0.0.1:%d/", hub.port),
                 1);
}

int main(void)
{
    for (size_t i = 0; i < WEIGHTS; i++)
        weights[i] = (char)(i * 2654435761U >> 13);
    hub_add("config.json", config, strlen(config), false);
    hub_add("tokenizer.json", "{}", 2, false);
    hub_add("model.safetensors", weights, WEIGHTS, true);
    hub_add("consolidated.safetensors", weights, WEIGHTS, true);
    hub_add("pytorch_model.bin", weights, WEIGHTS, true);
    hub_add("onnx/model.onnx", weights, WEIGHTS, true);
    hub_add("q/a.gguf", "GGUF", 4, true);
    hub_add("README.md", "x", 1, false);
    if (!hub_start()) {
        perror("127.0.0.1");
        return 2;
    }
    environment();
    test_local();
    test_model_config();
    if (have_curl()) {
        test_download();
        test_torch();
        test_links();
        test_resume();
        test_wrong_bytes();
        test_refusals();
        test_flaky();
        test_offline();
        test_gone();
    } else {
        hub_stop();
        refused("org/tiny", DR_EUNSUPPORTED, "libcurl4");
        SKIP("libcurl.so.4 is not installed");
    }
    dr_arena_release(&arena);
    return check_done();
}
