/*
 * auto_search.c - auto-opt with targets: a workflow file that nobody has to write.
 *
 * Candidates are quantizers by bits and group, each exported for GenAI with and without an
 * 8-bit head.  Targets are its goals.  Where quality has a limit the fastest wins, else the
 * one whose KL to the input is least.  --dry_run prints the file.
 */
#include <stdlib.h>
#include <string.h>

#include "cli/cli_impl.h"
#include "core/json.h"

enum { SAMPLES = 16 };

const char *const cli_searches[] = {"exhaustive", "tpe", "random", NULL};

bool cli_is_search(const cli_targets *t)
{
    return t->target_latency > 0 || t->target_throughput > 0 || t->max_degradation > 0 ||
           t->max_size != NULL || t->max_memory != NULL || t->enable_search >= 0;
}

/* One quantizer, groups as a choice. */
static void add_way(json_t *list, const char *pass, const char *group, const json_t *bits,
                    json_t *groups)
{
    json_t *j = json_pack("{s:s, s:o}", "type", pass, group, groups);

    if (bits != NULL)
        json_object_set(j, "bits", (json_t *)(uintptr_t)bits);
    json_array_append_new(list, j);
}

static json_t *all_ways(int bits)
{
    json_t *both = bits > 0 ? json_pack("[i]", bits) : json_pack("[ii]", 4, 8);
    json_t *list = json_array();

    add_way(list, "Rtn", "group_size", both, json_pack("[iii]", 32, 64, 128));
    add_way(list, "Hqq", "group_size", both, json_pack("[iii]", 32, 64, 128));
    if (bits != 8)
        add_way(list, "AutoAWQQuantizer", "q_group_size", NULL,
                json_pack("[iii]", 32, 64, 128));
    add_way(list, "Gptq", "group_size", both, json_pack("[iii]", 32, 64, 128));
    json_decref(both);
    return list;
}

/* goal NULL: none. */
static json_t *figure(const char *name, int priority, const char *goal, double value)
{
    json_t *j = json_pack("{s:s, s:i}", "name", name, "priority", priority);

    if (goal != NULL)
        json_object_set_new(j, "goal",
                            json_pack("{s:s, s:f}", "type", goal, "value", value));
    return j;
}

static json_t *timed(const char *name, const char *type, json_t *sub)
{
    return json_pack("{s:s, s:s, s:[o], s:{s:i, s:i}, s:{s:i, s:i}}", "name", name, "type",
                     type, "sub_types", sub, "user_config", "prompt_tokens", 64,
                     "new_tokens", 16, "metric_config", "warmup_num", 2, "repeat_test_num",
                     12);
}

static json_t *sized(const char *name, const char *type, uint64_t limit)
{
    return json_pack("{s:s, s:s, s:[o]}", "name", name, "type", type, "sub_types",
                     figure("bytes", -1, limit > 0 ? "threshold" : NULL, (double)limit));
}

static dr_status metrics_of(json_t **out, const cli_targets *t)
{
    const bool fastest = t->max_degradation > 0;
    uint64_t size = 0, memory = 0;
    json_t *list = json_array();
    dr_status st = DR_OK;

    *out = list;
    if (t->max_size != NULL)
        DR_TRY(dr_parse_size(&size, t->max_size, "--max_size"));
    if (t->max_memory != NULL)
        DR_TRY(dr_parse_size(&memory, t->max_memory, "--max_memory"));
    json_array_append_new(
        list, json_pack("{s:s, s:s, s:s, s:[o, o]}", "name", "quality", "type", "accuracy",
                        "data_config", "judge", "sub_types",
                        figure("kl", fastest ? 2 : 1, NULL, 0),
                        figure("perplexity", -1, fastest ? "percent-max-degradation" : NULL,
                               t->max_degradation)));
    json_array_append_new(list, timed("speed", "throughput",
                                      figure("decode", fastest ? 1 : 2,
                                             t->target_throughput > 0 ? "threshold" : NULL,
                                             t->target_throughput)));
    if (t->target_latency > 0)
        json_array_append_new(list,
                              timed("first_token", "latency",
                                    figure("p50", -1, "threshold", t->target_latency)));
    json_array_append_new(list, sized("size", "size_on_disk", size));
    if (memory > 0)
        json_array_append_new(list, sized("memory", "peak_memory", memory));
done:
    return st;
}

static json_t *strategy_of(const cli_targets *t)
{
    static const char *const samplers[] = {"sequential", "tpe", "random"};
    const int which = t->enable_search < 0 ? 1 : t->enable_search;
    const int most = t->search_samples > 0 ? t->search_samples : which == 0 ? 0 : SAMPLES;
    json_t *j = json_pack("{s:s, s:i, s:i}", "sampler", samplers[which], "seed", t->seed,
                          "max_samples", most);

    if (t->max_time > 0)
        json_object_set_new(j, "max_time", json_integer(t->max_time));
    return j;
}

static dr_status workflow_of(json_t **out, const cli_targets *t, const cli_model *m,
                             const char *quantizer, json_t *config, int bits,
                             json_t *export)
{
    json_t *metrics = NULL, *ways = NULL;
    dr_status st = DR_OK;

    DR_TRY(metrics_of(&metrics, t));
    if (quantizer != NULL) {
        json_object_set_new(config, "type", json_string(quantizer));
        ways = json_incref(config);
    } else {
        ways = all_ways(bits);
    }
    json_object_set_new(export, "type", json_string("ModelBuilder"));
    json_object_set_new(export, "use_ort_genai", json_true());
    if (json_object_get(export, "matmul_mixed_precision") == NULL)
        json_object_set_new(export, "matmul_mixed_precision",
                            json_pack("[n, s]", "last_matmul:int8"));
    *out = json_pack(
        "{s:{s:s, s:s}, s:[{s:s, s:{s:i}}], s:{s:{s:O}}, s:{s:O, s:O}, s:o, s:s, s:s}",
        "input_model", "type", "HfModel", "model_path", m->model_name_or_path,
        "data_configs", "name", "judge", "pre_process_data_config", "max_samples", 8,
        "evaluators", "targets", "metrics", metrics, "passes", "quantize", ways, "export",
        export, "search_strategy", strategy_of(t), "evaluator", "targets", "output_dir",
        m->output_path);
done:
    json_decref(metrics);
    json_decref(ways);
    return st;
}

dr_status cli_search(const cli_common *c, const cli_targets *t, const cli_model *m,
                     const char *quantizer, json_t *quantizer_config, int bits,
                     json_t *export)
{
    json_t *file = NULL, *report = NULL;
    drupe_result *r = NULL;
    char *text = NULL;
    dr_status st = DR_OK;

    DR_TRY(workflow_of(&file, t, m, quantizer, quantizer_config, bits, export));
    text = json_dumps(file, JSON_INDENT(2));
    if (m->dry_run) {
        DR_TRY(cli_write(text, strlen(text)));
        DR_TRY(cli_write("\n", 1));
        goto done;
    }
    const drupe_workflow w = {.config = "auto-opt",
                              .text = text,
                              .cache_dir = t->cache_dir,
                              .threads = c->threads,
                              .own_log_level = true};
    DR_TRY((dr_status)drupe_run_workflow(&r, &w));
    DR_TRY(cli_print(c, r));
    report = json_loads(drupe_result_json(r), 0, NULL);
    if (json_is_false(json_object_get(report, "goals_met"))) {
        st = dr_fail(DR_EUNSUPPORTED, "no candidate meets all targets");
        dr_hint("the best of the others is kept, with report.html: %s", m->output_path);
    }
done:
    free(text);
    json_decref(file);
    json_decref(report);
    json_decref(quantizer_config);
    json_decref(export);
    drupe_result_free(r);
    return st;
}
