/*
 * check_test.c - the check before a commit: what passes, what is refused and in which
 * words.  (Children that crash or hang are in library_test.c.)
 */
#include "check.h"
#include "core/file.h"
#include "core/log.h"
#include "core/pool.h"
#include "ort/ort.h"
#include "ort_fixture.h"

static char root[4200];

static const char *in_root(const char *name)
{
    static char path[4][4400];
    static int next;
    char *p = path[next++ & 3];

    (void)snprintf(p, sizeof(path[0]), "%s/%s", root, name);
    return p;
}

static void test_plain(void)
{
    static const char *const good[] = {"good.onnx_adapter"};
    static const char *const both[] = {"good.onnx_adapter", "wrong.onnx_adapter"};
    static const float a[] = {1, 2, 3}, b[] = {1, -1};
    static const fixture_param params[] = {{"lora_A", {FIXTURE_K, 1}, a},
                                           {"lora_B", {1, FIXTURE_N}, b}};
    ort_check_request q = {.dir = root, .model_file = "lora.onnx"};
    ort_check_result r = {0};
    ort_session *s = NULL;

    fixture_lora(in_root("lora.onnx"));
    fixture_nan(in_root("nan.onnx"));
    fixture_dims(in_root("model.onnx"));
    fixture_adapter(in_root("good.onnx_adapter"), params, 2);
    fixture_wrong_adapter(in_root("wrong.onnx_adapter"));

    CHECK_OK(ort_check(&r, &q));
    CHECK(r.checked);
    CHECK(r.seconds > 0 && r.peak_bytes > 1 << 20);
    q.adapter_files = good;
    q.adapter_count = 1;
    /* with a session of the parent's open, and its threads */
    CHECK_OK(ort_session_open(&s, in_root("lora.onnx"), 2, true));
    CHECK_OK(ort_check(&r, &q));
    CHECK(r.checked);
    ort_session_close(s);
    q.adapter_files = both;
    q.adapter_count = 2;
    CHECK_STATUS(ort_check(&r, &q), DR_EDEVICE);
    CHECK(r.checked);
    CHECK_TRAIL("running with wrong.onnx_adapter");
    CHECK_TRAIL("is no input of this model");

    q = (ort_check_request){.dir = root}; /* model.onnx */
    CHECK_OK(ort_check(&r, &q));
    CHECK(r.checked);
    q.model_file = "nan.onnx";
    CHECK_STATUS(ort_check(&r, &q), DR_EDEVICE);
    CHECK_TRAIL("element 0 of output y is not finite");
    q.model_file = "absent.onnx";
    CHECK_STATUS(ort_check(&r, &q), DR_EIO);
    q.dir = "/no/such/folder";
    CHECK_STATUS(ort_check(&r, &q), DR_EIO);
}

static void test_genai(void)
{
    static const int32_t first[] = {27, 26, 2}, second[] = {1, 0}, other[] = {27, 2, 26};
    static const char *const texts[] = {"ab c", "ba"};
    static const int32_t *const ids[] = {first, second}, *const other_ids[] = {first,
                                                                               other};
    static const size_t counts[] = {3, 2}, long_counts[] = {3, 1};
    static const char *const adapters[] = {"seven.onnx_adapter", "nine.onnx_adapter"};
    static const char *const wrong[] = {"seven.onnx_adapter", "wrong.onnx_adapter"};
    ort_check_request q = {.genai = true,
                           .adapter_files = adapters,
                           .adapter_count = 2,
                           .texts = texts,
                           .ids = ids,
                           .id_counts = counts,
                           .text_count = 2};
    ort_check_result r = {0};

    q.dir = in_root("genai");
    fixture_genai(q.dir, false);
    fixture_genai_adapter(in_root("genai/seven.onnx_adapter"), 7);
    fixture_genai_adapter(in_root("genai/nine.onnx_adapter"), 9);
    fixture_wrong_adapter(in_root("genai/wrong.onnx_adapter"));
    CHECK_OK(ort_check(&r, &q));
    CHECK(r.checked);
    q.adapter_files = wrong;
    CHECK_STATUS(ort_check(&r, &q), DR_EDEVICE);
    CHECK_TRAIL("generating with wrong.onnx_adapter");
    q.adapter_count = 0;
    q.ids = other_ids;
    CHECK_STATUS(ort_check(&r, &q), DR_EDEVICE);
    CHECK_TRAIL("the tokenizers differ on \"ba\": id 0 is 1 by GenAI, 27 by drupe");
    q.ids = ids;
    q.id_counts = long_counts;
    CHECK_STATUS(ort_check(&r, &q), DR_EDEVICE);
    CHECK_TRAIL("id 1 is 0 by GenAI, nothing by drupe (2 and 1 ids in all)");
    CHECK_TRAIL("comparing ids of text 2 of 2");
    CHECK_TRAIL("tokenizer.json");

    q = (ort_check_request){.genai = true, .dir = in_root("genai-nan")};
    fixture_genai(q.dir, true);
    CHECK_STATUS(ort_check(&r, &q), DR_EDEVICE);
    CHECK_TRAIL("is not finite");
    CHECK_TRAIL("generating without an adapter");
    CHECK_OK(dr_write_file(in_root("genai-nan/model.onnx"), "nothing", 7));
    CHECK_STATUS(ort_check(&r, &q), DR_EDEVICE);
    CHECK_TRAIL("loading the model");
}

static dr_status idle(void *ctx, size_t task, int worker)
{
    (void)ctx, (void)task, (void)worker;
    return DR_OK;
}

int main(void)
{
    ort_check_request q = {.dir = root};
    ort_check_result r = {0};
    dr_pool *pool = NULL;

    (void)snprintf(root, sizeof(root), "%s", check_tmp());
    /* the parent has threads, as it has when a pass ends */
    CHECK_OK(dr_pool_open(&pool, 3));
    CHECK_OK(dr_pool_run(pool, 8, idle, NULL));
    if (fixture_has_ort()) {
        test_plain();
    } else {
        SKIP("no ONNX Runtime here");
        CHECK_OK(ort_check(&r, &q));
        CHECK(!r.checked);
        CHECK(strstr(r.why, "was not found") != NULL);
    }
    if (fixture_has_genai())
        test_genai();
    else
        SKIP("no ONNX Runtime GenAI here");
    dr_cancel();
    CHECK_STATUS(ort_check(&r, &q), DR_ECANCELLED);
    dr_pool_close(pool);
    return check_done();
}
