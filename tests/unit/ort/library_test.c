/*
 * library_test.c - where the runtimes are found, what is said when one is missing, broken,
 * something else or too old; and GenAI 0.5, on a stand-in with its manners.
 *
 * Run with the argument `probe` it only tells what it finds: a copy of it does so from a
 * folder that no library is near.
 */
#include <sys/stat.h>

#include "check.h"
#include "core/file.h"
#include "ort/ort.h"

static const char *place(const char *name)
{
    static char path[4][4400];
    static int next;
    char *p = path[next++ & 3];

    (void)snprintf(p, sizeof(path[0]), "%s/%s", check_tmp(), name);
    return p;
}

/* A folder with the library under this name. */
static void library_in(const char *dir, const char *target, const char *name)
{
    char path[4500];

    CHECK_OK(dr_make_dirs(dir));
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    CHECK(symlink(target, path) == 0);
}

static void search_in(const char *dir)
{
    CHECK(setenv("DRUPE_LIB_PATH", dir, 1) == 0);
}

static int probe(void)
{
    dr_arena a = {0};
    ort_info info = {0};

    ort_probe(&a, &info);
    (void)printf("%d %d\n", info.ort_found, info.genai_found);
    (void)printf("%s\n", info.why != NULL ? info.why : "-");
    dr_arena_release(&a);
    return 0;
}

/* Nothing in DRUPE_LIB_PATH, beside the program or in the loader's folders. */
static void test_missing(void)
{
    const char *deep = place("1/2/3/4/5/6/bin"), *dirs = place("lib1");
    char exe[4500], command[9500], line[2048] = "";

    CHECK_OK(dr_make_dirs(deep));
    (void)snprintf(exe, sizeof(exe), "%s/library_test", deep);
    if (!CHECK_OK(dr_copy_file(exe, "/proc/self/exe")) || !CHECK(chmod(exe, 0755) == 0))
        return;
    (void)snprintf(command, sizeof(command), "DRUPE_LIB_PATH=%s:/no/such/lib2 %s probe",
                   dirs, exe);
    FILE *f = popen(command, "r");
    if (!CHECK(f != NULL))
        return;
    CHECK(fgets(line, sizeof(line), f) != NULL);
    if (strcmp(line, "1 0\n") == 0 || strcmp(line, "1 1\n") == 0) {
        SKIP("the system has an ONNX Runtime of its own");
    } else {
        CHECK_STR(line, "0 0\n");
        CHECK(fgets(line, sizeof(line), f) != NULL);
        CHECK(strstr(line, "ONNX Runtime was not found: no libonnxruntime.so.1 in ") !=
              NULL);
        CHECK(strstr(line, dirs) != NULL);
        CHECK(strstr(line, "/no/such/lib2") != NULL);
        CHECK(strstr(line, "the loader's folders") != NULL);
    }
    (void)pclose(f);
}

static void expect_refusal(const char *text)
{
    ort_session *s = NULL;
    dr_arena a = {0};
    ort_info info = {0};

    CHECK_STATUS(ort_session_open(&s, "/proc/self/exe", 0, true), DR_EDEVICE);
    CHECK_TRAIL(text);
    CHECK_TRAIL("DRUPE_LIB_PATH");
    ort_probe(&a, &info);
    CHECK(!info.ort_found && !info.genai_found);
    CHECK(info.why != NULL && strstr(info.why, text) != NULL);
    dr_arena_release(&a);
}

static void test_broken(void)
{
    const char *text = place("text"), *none = place("none"), *old = place("old");
    ort_check_request q = {.dir = check_tmp()};
    ort_check_result r = {0};
    char path[4500];

    CHECK_OK(dr_make_dirs(text));
    (void)snprintf(path, sizeof(path), "%s/libonnxruntime.so", text);
    CHECK_OK(dr_write_file(path, "this is a text\n", 15));
    search_in(text);
    expect_refusal("/text/libonnxruntime.so: cannot be loaded");
    CHECK_OK(ort_check(&r, &q));
    CHECK(!r.checked);
    CHECK(strstr(r.why, "cannot be loaded") != NULL);

    library_in(none, FAKE_NONE, "libonnxruntime.so.1");
    search_in(none);
    expect_refusal("this is not ONNX Runtime: no OrtGetApiBase in it");

    library_in(old, FAKE_ORT_OLD, "libonnxruntime.so.1");
    search_in(old);
    expect_refusal("ONNX Runtime 1.17.3 is too old, 1.20 or later is needed");
}

static void test_wrong_genai(void)
{
    const char *dir = place("wrong-genai");
    dr_arena a = {0};
    ort_info info = {0};

    library_in(dir, FAKE_ORT, "libonnxruntime.so.1");
    library_in(dir, FAKE_NONE, "libonnxruntime-genai.so");
    search_in(dir);
    ort_probe(&a, &info);
    CHECK(info.ort_found && !info.genai_found);
    CHECK_STR(info.ort_version, "1.20.0");
    CHECK(info.why != NULL && strstr(info.why, "no OgaResultGetError in it") != NULL);
    dr_arena_release(&a);
}

/* ---- GenAI 0.5 ---- */

static const char *model_dir(const char *name)
{
    static const char config[] = "{\"model\":{\"eos_token_id\":[28]}}";
    const char *dir = place(name);
    char path[4500];

    (void)snprintf(path, sizeof(path), "%s/genai_config.json", dir);
    CHECK_OK(dr_make_dirs(dir));
    CHECK_OK(dr_write_file(path, config, sizeof(config) - 1));
    return dir;
}

static void generate(ort_generator *g, int32_t last, const int32_t *want, size_t want_count)
{
    const int32_t prompt[] = {1, 2, last};
    int32_t *ids = NULL;
    size_t count = 0;

    if (!CHECK_OK(ort_generate(g, prompt, 3, NULL, NULL, &ids, &count, NULL)))
        return;
    if (CHECK_EQ_INT(count, want_count) && count > 0)
        CHECK_MEM(ids, want, count * sizeof(*ids));
    free(ids);
}

static void test_generation(void)
{
    static const int32_t chain[] = {23, 22, 17, 24, 27}, ending[] = {5}, seven[] = {7, 7};
    static const int32_t abc[] = {1, 2, 3};
    const char *dir = model_dir("model");
    ort_generator *g = NULL;
    ort_generate_options o = {.max_length = 8, .seed = 3, .share_buffer = 1, .threads = 2};
    int32_t *ids = NULL;
    size_t count = 0;

    if (!CHECK_OK(ort_generator_open(&g, dir, &o)))
        return;
    generate(g, 4, chain, 5);
    generate(g, 26, ending, 1); /* 28 follows and is not handed out */
    if (CHECK_OK(ort_generator_encode(g, "abc", &ids, &count)) && CHECK_EQ_INT(count, 3))
        CHECK_MEM(ids, abc, sizeof(abc));
    free(ids);
    ort_generator_close(g);

    o.adapter_path = "/proc/self/exe";
    o.max_length = 5;
    if (CHECK_OK(ort_generator_open(&g, dir, &o)))
        generate(g, 4, seven, 2);
    ort_generator_close(g);
    CHECK_STATUS(ort_generator_open(&g, model_dir("refuse"), NULL), DR_EDEVICE);
    CHECK_TRAIL("refuse: no such model type");
}

static void test_check(void)
{
    static const char *const adapters[] = {"genai_config.json"}, *const texts[] = {"abc"};
    static const int32_t abc[] = {1, 2, 3}, *const ids[] = {abc};
    static const size_t counts[] = {3};
    ort_check_request q = {.dir = model_dir("model2"),
                           .genai = true,
                           .adapter_files = adapters,
                           .adapter_count = 1,
                           .texts = texts,
                           .ids = ids,
                           .id_counts = counts,
                           .text_count = 1};
    ort_check_result r = {0};

    CHECK_OK(ort_check(&r, &q));
    CHECK(r.checked);
    q.dir = model_dir("crash");
    CHECK_STATUS(ort_check(&r, &q), DR_EDEVICE);
    CHECK_TRAIL("crashed on it with SIGSEGV: ");
    if (getenv("QEMU_LD_PREFIX") == NULL) /* an emulator would have the last word */
        CHECK_TRAIL("SIGSEGV: last words");
    q.dir = model_dir("hang");
    q.timeout_s = 0.5;
    CHECK_STATUS(ort_check(&r, &q), DR_EDEVICE);
    CHECK_TRAIL("was not done after");
    CHECK(r.seconds >= 0.5 && r.seconds < 60);
}

static void test_old_genai(void)
{
    const char *dir = place("genai05");
    dr_arena a = {0};
    ort_info info = {0};

    library_in(dir, FAKE_ORT, "libonnxruntime.so");
    library_in(dir, FAKE_OGA, "libonnxruntime-genai.so");
    search_in(dir);
    ort_probe(&a, &info);
    CHECK(info.ort_found && info.genai_found);
    CHECK_STR(info.genai_version, "0.5 or earlier");
    CHECK(info.why == NULL);
    CHECK_EQ_INT(info.provider_count, 0);
    dr_arena_release(&a);
    test_generation();
    test_check();
}

/* A wheel's folder: the library under its whole version, a provider beside it. */
static void test_wheel(void)
{
    const char *dir = place("wheel");
    ort_session *s = NULL;
    dr_arena a = {0};
    ort_info info = {0};
    bool wholly = false;

    library_in(dir, FAKE_ORT, "libonnxruntime.so.1.20.0");
    library_in(dir, FAKE_NONE, "libonnxruntime_providers_qnn.so");
    search_in(dir);
    ort_probe(&a, &info);
    CHECK(info.ort_found);
    CHECK_STR(info.ort_path, dr_path_join(&a, dir, "libonnxruntime.so.1.20.0"));
    if (CHECK_EQ_INT(info.plugin_count, 1)) {
        CHECK_STR(info.plugins[0].name, "QNNExecutionProvider");
        CHECK_STR(info.plugins[0].path,
                  dr_path_join(&a, dir, "libonnxruntime_providers_qnn.so"));
    }
    /* a runtime from before plugins */
    CHECK_STATUS(
        ort_session_open_on(&s, info.plugins[0].path, 1, "QNNExecutionProvider", &wholly),
        DR_EDEVICE);
    CHECK_TRAIL("provider QNNExecutionProvider needs onnxruntime 1.22, this is 1.20.0");
    dr_arena_release(&a);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "probe") == 0)
        return probe();
    test_missing();
    test_broken();
    test_wheel();
    test_wrong_genai();
    test_old_genai();
    return check_done();
}
