/*
 * registry_test.c - the list of passes and the table of each: defaults are valid, values to
 * search can be set, advice names parameters that there are.
 */
#include "check.h"

#include "core/json.h"
#include "pass/pass.h"

static dr_arena arena;

static void *defaults(const pass_def *p)
{
    void *config = dr_arena_alloc(&arena, 1, p->config_size);

    dr_params_defaults(p->params, p->params_count, config);
    return config;
}

/* Every value of the row's search list, set and validated. */
static void try_search(const pass_def *p, const dr_param *row)
{
    json_t *list = NULL;

    CHECK_OK(dr_json_parse(&list, row->search, strlen(row->search), row->name));
    CHECK(json_is_array(list) && json_array_size(list) > 0);
    for (size_t i = 0; i < json_array_size(list); i++) {
        void *config = defaults(p);
        CHECK_OK(
            dr_param_set_json(row, config, json_array_get(list, i), row->name, &arena));
        if (p->validate != NULL)
            CHECK_OK(p->validate(config, NULL));
    }
    json_decref(list);
}

static void try_row(const pass_def *p, const dr_param *row)
{
    CHECK(strchr(row->name, '-') == NULL);
    CHECK(dr_param_find(p->params, p->params_count, row->name) ==
          row); /* no other before */
    if (row->type == DR_PARAM_REFUSED) {
        CHECK(row->refused != NULL);
        if (row->nearest != NULL) {
            const dr_param *near = dr_param_find(p->params, p->params_count, row->nearest);
            CHECK(near != NULL && near->type != DR_PARAM_REFUSED);
        }
        return;
    }
    CHECK(row->help != NULL && row->help[0] != '\0');
    if (row->search != NULL)
        try_search(p, row);
}

static void try_pass(const pass_def *p)
{
    void *config = defaults(p);
    json_t *j = NULL, *again = NULL;
    void *copy = defaults(p);

    CHECK(p->name != NULL && p->summary != NULL && p->version >= 1 && p->run != NULL);
    CHECK(pass_find(p->name) == p);
    if (p->validate != NULL)
        CHECK_OK(p->validate(config, NULL));
    for (size_t i = 0; i < p->params_count; i++)
        try_row(p, &p->params[i]);
    /* what drupe.json holds gives the same config again */
    CHECK_OK(dr_params_json(&j, p->params, p->params_count, config));
    CHECK_OK(
        dr_params_from_json(p->params, p->params_count, copy, j, p->name, NULL, &arena));
    CHECK_OK(dr_params_json(&again, p->params, p->params_count, copy));
    CHECK(json_equal(j, again));
    json_decref(j);
    json_decref(again);
}

int main(void)
{
    size_t n = 0;
    const pass_def *const *list = pass_list(&n);

    CHECK(n >= 7);
    for (size_t i = 0; i < n; i++) {
        try_pass(list[i]);
        for (size_t j = 0; j < i; j++)
            CHECK(list[i]->params != list[j]->params);
    }
    CHECK(pass_find("autoawqquantizer") == pass_find("AutoAWQQuantizer"));
    CHECK(pass_find("RTN") != NULL);
    CHECK(pass_find("") == NULL);
    CHECK(pass_find("Rt") == NULL);
    dr_arena_release(&arena);
    return check_done();
}
