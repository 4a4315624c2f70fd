/*
 * family_model GOLDEN DIR [SPELLING] - a tiny model of tests/golden/families as a folder;
 * SPELLING of its config.json: 5 (default), 4 or old.
 */
#include "family.h"

int main(int argc, char **argv)
{
    dr_arena arena = {0};

    if (argc < 3 || argc > 4) {
        (void)fprintf(stderr, "usage: family_model GOLDEN DIR [5|4|old]\n");
        return 2;
    }
    json_t *golden = family_golden(&arena, argv[1]);
    const json_t *configs = json_object_get(golden, "configs");
    const json_t *config = json_object_get(configs, argc == 4 ? argv[3] : "5");
    if (CHECK(config != NULL)) {
        CHECK_OK(dr_make_dirs(argv[2]));
        CHECK_OK(dr_json_write(dr_path_join(&arena, argv[2], "config.json"), config));
        family_weights(&arena, argv[2], golden, 1);
    }
    json_decref(golden);
    dr_arena_release(&arena);
    return check_failed > 0;
}
