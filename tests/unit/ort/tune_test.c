/*
 * tune_test.c - settings of sessions: threads that a session has are those of the process
 * (/proc), and timing hands back a time for each run.
 */
#include <dirent.h>

#include "check.h"
#include "ort/ort.h"
#include "ort_fixture.h"

#define TEXT DRUPE_SOURCE_DIR "/tests/golden/rewrite/text/model.onnx"

/* Threads of this process. */
static int threads_now(void)
{
    DIR *d = opendir("/proc/self/task");
    int n = -2; /* . and .. */

    while (d != NULL && readdir(d) != NULL)
        n++;
    if (d != NULL)
        (void)closedir(d);
    return n;
}

static int threads_of(const ort_settings *set)
{
    ort_session *s = NULL;
    int before = threads_now(), more = -1;

    if (CHECK_OK(ort_session_open_set(&s, TEXT, set)))
        more = threads_now() - before;
    ort_session_close(s);
    return more;
}

static void test_threads(void)
{
    const ort_settings one = {.intra_threads = 1, .level = -1};
    const ort_settings four = {.intra_threads = 4, .level = 0};
    const ort_settings beside = {
        .intra_threads = 1, .inter_threads = 3, .parallel = true, .level = 99};

    (void)threads_of(&one);            /* what the library itself starts */
    CHECK_EQ_INT(threads_of(&one), 0); /* the caller's own */
    CHECK_EQ_INT(threads_of(&four), 3);
    CHECK_EQ_INT(threads_of(&beside), 2);
}

static void test_times(void)
{
    const ort_settings list[] = {{.intra_threads = 1, .level = 99},
                                 {.intra_threads = 2, .level = 0}};
    ort_tune_request q = {.model_path = TEXT,
                          .list = list,
                          .count = 2,
                          .warmup = 1,
                          .repeats = 3,
                          .tokens = 4};
    double seconds[2 * 2 * 3 + 1];

    for (size_t i = 0; i < 13; i++)
        seconds[i] = -1;
    if (CHECK_OK(ort_tune(seconds, &q)))
        for (size_t i = 0; i < 12; i++)
            CHECK(seconds[i] > 0 && seconds[i] < 10);
    CHECK(seconds[12] < 0); /* no more than that */
    q.model_path = "/no/model.onnx";
    dr_trail_clear();
    CHECK_STATUS(ort_tune(seconds, &q), DR_EIO);
    CHECK_TRAIL("/no/model.onnx: no such file");
}

int main(void)
{
    if (fixture_has_ort()) {
        test_threads();
        test_times();
    } else {
        SKIP("no onnxruntime");
    }
    return check_done();
}
