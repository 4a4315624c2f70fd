/*
 * api_tokenizer_test.c - ids and pieces of a tokenizer.json, wherever its folder is.
 */
#include "api_fixture.h"
#include "unit/data/toy_tok.h"

static dr_arena arena;

static void encodes(const char *model)
{
    static const int32_t want[] = {TOY_USER, 257, ' ', TOY_BLANK};
    drupe_tokenizer *t = NULL;
    int32_t *ids = NULL;
    size_t n = 0;

    if (!CHECK_DRUPE(drupe_tokenizer_open(&t, model), DRUPE_OK))
        return;
    CHECK_DRUPE(drupe_tokenizer_encode(t, &ids, &n, "<|user|>the \n\n", 14, false),
                DRUPE_OK);
    if (CHECK_EQ_INT(n, 4))
        CHECK_MEM(ids, want, sizeof(want));
    free(ids);
    CHECK_DRUPE(drupe_tokenizer_encode(t, &ids, &n, "", 0, false), DRUPE_OK);
    CHECK_EQ_INT(n, 0);
    free(ids);
    CHECK_STR(drupe_tokenizer_piece(t, 257), "the");
    CHECK_STR(drupe_tokenizer_piece(t, TOY_USER), "<|user|>");
    CHECK(drupe_tokenizer_piece(t, 100000) == NULL);
    CHECK(drupe_tokenizer_piece(t, -1) == NULL);
    drupe_tokenizer_close(t);
}

static void fails(const char *model, drupe_status want, const char *text)
{
    drupe_tokenizer *t = NULL;

    CHECK_DRUPE(drupe_tokenizer_open(&t, model), want);
    CHECK_ERROR(text);
    CHECK(t == NULL);
}

int main(void)
{
    const char *dir = in_tmp(&arena, "toy/model");
    const char *file = dr_path_join(&arena, dir, "tokenizer.json");
    json_t *j = toy_json();

    CHECK_OK(dr_make_dirs(dir));
    CHECK_OK(dr_json_write(file, j));
    json_decref(j);
    encodes(dir);
    CHECK_OK(dr_write_file(dr_path_join(&arena, dir, "genai_config.json"), "{}", 2));
    encodes(in_tmp(&arena, "toy")); /* a result, by its model/ */

    CHECK_OK(dr_write_file(file, "{\"model\":\n {}", 12));
    fails(dir, DRUPE_EFORMAT, "tokenizer.json:2:");
    static const char other[] = "{\"model\": {\"type\": \"Other\"}}";
    CHECK_OK(dr_write_file(file, other, sizeof(other) - 1));
    fails(dir, DRUPE_EUNSUPPORTED, "Other");
    fails(TINY, DRUPE_EIO, "tokenizer.json");
    drupe_tokenizer_close(NULL);
    dr_arena_release(&arena);
    return check_done();
}
