/*
 * api_doctor_test.c - what this machine offers, with and without runtimes; the hub's cache
 * where Python's library has it.
 */
#include "api_fixture.h"

static dr_arena arena;

static json_t *doctor(void)
{
    drupe_result *r = NULL;
    json_t *j = NULL;

    if (CHECK_DRUPE(drupe_doctor(&r), DRUPE_OK)) {
        CHECK(strstr(drupe_result_text(r), "hub cache      ") != NULL);
        j = report_of(r);
    }
    drupe_result_free(r);
    return j;
}

static void cache_is(const char *want)
{
    json_t *j = doctor();

    CHECK_STR(text_at(j, "hub_cache"), want);
    json_decref(j);
}

int main(void)
{
    static const char *const unset[] = {"HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE",
                                        "XDG_CACHE_HOME"};
    json_t *j = doctor();

    CHECK(int_at(j, "processors") >= 1);
    CHECK(int_at(j, "memory_available_bytes") > 0);
    CHECK(int_at(j, "free_disk_bytes") > 0);
    CHECK(text_at(j, "device") != NULL);
    CHECK(json_is_array(json_object_get(j, "instructions")));
    CHECK(json_is_boolean(json_object_get(json_object_get(j, "onnxruntime"), "found")));
    CHECK(
        json_is_boolean(json_object_get(json_object_get(j, "onnxruntime_genai"), "found")));
    json_decref(j);

    for (size_t i = 0; i < DR_COUNT(unset); i++)
        CHECK(unsetenv(unset[i]) == 0);
    CHECK(setenv("HOME", "/home/u", 1) == 0);
    cache_is("/home/u/.cache/huggingface/hub");
    CHECK(setenv("XDG_CACHE_HOME", "/x", 1) == 0);
    cache_is("/x/huggingface/hub");
    CHECK(setenv("HF_HOME", "~/hf", 1) == 0);
    cache_is("/home/u/hf/hub");
    CHECK(setenv("HF_HUB_CACHE", check_tmp(), 1) == 0);
    cache_is(check_tmp());
    j = doctor();
    CHECK(json_is_true(json_object_get(j, "hub_cache_exists")));
    json_decref(j);
    dr_arena_release(&arena);
    return check_done();
}
