/*
 * goals_test.c - goals and their order by Olive's own functions (tools/oracle/
 * goal_goldens.py): limits to the bit, figures at a limit and beside it, who wins.
 */
#include "check.h"
#include "core/json.h"
#include "search/search.h"

enum { FIGURES = 8, ROWS = 16 };

static search_goal_kind kind_of(const char *name)
{
    static const char *const names[] = {"none",
                                        "threshold",
                                        "min-improvement",
                                        "percent-min-improvement",
                                        "max-degradation",
                                        "percent-max-degradation"};
    size_t i = 0;

    while (i < DR_COUNT(names) && strcmp(names[i], name) != 0)
        i++;
    CHECK(i > 0 && i < DR_COUNT(names));
    return (search_goal_kind)i;
}

static double number(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static void check_limit(const json_t *c)
{
    const search_goal goal = {kind_of(json_string_value(json_object_get(c, "kind"))),
                              number(c, "value")};
    const bool higher = json_is_true(json_object_get(c, "higher_is_better"));
    search_figure f = {higher, 1, true,
                       search_goal_limit(goal, higher, number(c, "baseline"))};
    const json_t *met = json_object_get(c, "met");
    json_t *v;
    size_t i;

    CHECK_NEAR(f.limit, number(c, "limit"), 0);
    json_array_foreach(json_object_get(c, "figures"), i, v)
    {
        CHECK_EQ_INT(search_limit_met(&f, json_number_value(v)),
                     json_is_true(json_array_get(met, i)));
    }
}

static void check_order(const json_t *c)
{
    search_figure f[FIGURES];
    double values[ROWS * FIGURES];
    const json_t *figures = json_object_get(c, "figures"),
                 *rows = json_object_get(c, "rows");
    const json_t *met = json_object_get(c, "met"), *best = json_object_get(c, "best");
    const size_t count = json_array_size(figures), n = json_array_size(rows);
    size_t order[ROWS], good = 0, want = 0;

    if (!CHECK(count <= FIGURES && n <= ROWS && n > 0))
        return;
    for (size_t k = 0; k < count; k++) {
        const json_t *one = json_array_get(figures, k);
        f[k] = (search_figure){json_is_true(json_object_get(one, "higher_is_better")),
                               (int)number(one, "priority"),
                               json_object_get(one, "goal") != NULL, number(one, "goal")};
    }
    for (size_t i = 0; i < n; i++) {
        want += json_is_true(json_array_get(met, i));
        for (size_t k = 0; k < count; k++)
            values[i * count + k] =
                json_number_value(json_array_get(json_array_get(rows, i), k));
    }
    const search_table t = {values, NULL, n, f, count};
    search_order(order, &good, &t);
    CHECK_EQ_INT(good, want);
    for (size_t k = 0; k < count; k++)
        CHECK_NEAR(values[order[0] * count + k], json_number_value(json_array_get(best, k)),
                   0);
}

int main(void)
{
    json_t *all = NULL, *c;
    size_t i;

    if (!CHECK_OK(dr_json_read(&all, DRUPE_SOURCE_DIR "/tests/golden/goals.json")))
        return check_done();
    CHECK_EQ_INT(json_array_size(json_object_get(all, "limits")), 300);
    CHECK_EQ_INT(json_array_size(json_object_get(all, "orders")), 40);
    json_array_foreach(json_object_get(all, "limits"), i, c)
    {
        check_limit(c);
    }
    json_array_foreach(json_object_get(all, "orders"), i, c)
    {
        check_order(c);
    }
    json_decref(all);
    return check_done();
}
