/*
 * workflow_test.c - workflow files: what is refused and where, what a run leaves, what the
 * cache gives back, which candidate wins.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "flow_fixture.h"

static dr_arena arena;
static int file_count;

/* A file of that name's kind in the test's folder. */
static const char *put(const char *name, const char *text)
{
    const char *path = in_tmp(&arena, dr_arena_printf(&arena, "%d-%s", file_count++, name));

    CHECK_OK(dr_write_file(path, text, strlen(text)));
    return path;
}

static dr_status run_file(flow_result *r, const char *file, const char *out, bool plan)
{
    const flow_workflow_options o = {.config = file,
                                     .model = TINY,
                                     .output = in_tmp(&arena, out),
                                     .cache_dir = in_tmp(&arena, "cache"),
                                     .dry_run = plan};

    dr_trail_clear();
    return flow_workflow(r, &o);
}

/* ---- errors ---- */

static void refused(const char *name, const char *text, const char *message)
{
    flow_result r;

    if (!CHECK_STATUS(run_file(&r, put(name, text), "refused", false), DR_EUSAGE))
        (void)printf("  of %s\n", text);
    CHECK_TRAIL(message);
    nothing_at(&arena, in_tmp(&arena, "refused"));
    flow_result_release(&r);
}

static void test_refused(void)
{
    refused("a.yaml", "passses: {q: {type: Rtn}}", "yaml:1:1: passses: no key of workflow");
    CHECK_TRAIL("did you mean \"passes\"?");
    refused("a.yaml", "passes:\n  q: {type: Rtnn}\n",
            "yaml:2:7: passes.q.type: no pass is");
    CHECK_TRAIL("did you mean \"Rtn\"?");
    refused("a.json", "{\"passes\": {\"q\": {\"type\": \"Rtn\",\n \"bit\": 4}}}",
            "json:2:2: passes.q.bit: no parameter of Rtn is called \"bit\"");
    refused("a.json", "{\"passes\": {\"q\": {\"type\": \"Rtn\",\n \"bits\": \"4\"}}}",
            "json:2:10: passes.q.bits: expected an integer, found a string");
    refused("a.yaml", "passes:\n  q:\n    type: Rtn\n    bits: [4, 9]\n",
            "passes.q.bits: expected 2 to 8, found 9");
    refused("a.yaml", "passes:\n  q: {type: Rtn, bits: [4, 8]}\n",
            "a list of values needs a search_strategy");
    refused("a.yaml", "passes: {q: [{type: Rtn}, {type: Hqq}]}\n",
            "alternatives need a search_strategy");
    refused("a.yaml", "passes: {q: {type: Rtn, bits: 5}}\n",
            "bits: expected 2, 3, 4 or 8, found 5");
    refused("a.yaml", "passes: {q: {type: Rtn, data_config: x}}\n", "Rtn reads no data");
    refused("a.yaml", "passes: {q: {type: Gptq, data_config: x}}\n",
            "no data set of data_configs is called \"x\"");
    refused(
        "a.yaml", "passes: {b: {type: ModelBuilder}, q: {type: Rtn}}\n",
        "Rtn takes a Hugging Face model, and ModelBuilder before it gives an ONNX model");
    refused("a.yaml", "passes: {}\n", "one pass at least");
    refused("a.yaml", "output_dir: x\n", "workflow needs \"passes\"");
    refused("a.yaml", "passes: {q: {bits: 4}}\n", "passes.q: pass needs \"type\"");
    refused("a.yaml", "passes: [1]\n", "expected an object of names, found an array");
    refused("a.yaml", "passes: {q: {type: Rtn}}\nengine: {evaluate_input_model: 1}\n",
            "yaml:2:32: engine.evaluate_input_model: expected true or false");
    refused("a.yaml", "passes: {q: {type: Rtn}}\nsearch_strategy: {sampler: tpee}\n",
            "did you mean tpe?");
    refused("a.yaml", "passes: {q: {type: Rtn}}\nsearch_strategy: true\n",
            "a search needs an evaluator with a figure that has a priority");
    refused("a.yaml", "passes: {q: {type: Rtn}}\nsearch_strategy: {max_samples: -1}\n",
            "expected 0 to 1000000, found -1");
    refused("a.yaml", "passes: {q: {type: Rtn}}\nsearch_strategy: {task_timeout: 0}\n",
            "expected 0.001 to 1000000000, found 0");
    refused("a.yaml",
            "passes: {q: {type: Rtn}}\nevaluator: {metrics: [{name: s, type: size_on_disk, "
            "user_config: {parallel: true}}]}\n",
            "parallel: it belongs to a custom metric");
#define PACK(text) "passes: {q: {type: Rtn}}\npackaging_config: " text "\n"
    refused("a.yaml", PACK("{type: AzureMLData}"), "AzureMLData is not supported: nothing");
    refused("a.yaml", PACK("{type: Dockerfile}"), "Dockerfile is not supported: an image");
    refused("a.yaml", PACK("{type: Zipfiles}"), "expected Zipfile, found \"Zipfiles\"");
    refused("a.yaml", PACK("{config: {export_in_mlflow_format: true}}"),
            "packaging_config.config.export_in_mlflow_format: export_in_mlflow_format is "
            "not supported");
    refused("a.yaml", PACK("{include_runtime_packages: 1}"),
            "expected false, found an int");
    refused("a.yaml", PACK("{name: a/b}"), "\"a/b\" is no name of a file");
    refused("a.yaml", PACK("{name: ''}"), "\"\" is no name of a file");
    refused("a.yaml", PACK("[{name: a}, {type: zipfile, name: a}]"),
            "yaml:2:32: packaging_config[1]: two packages are called a");
    refused("a.yaml",
            "passes: {q: {type: Rtn}}\nsystems: {s: {type: LocalSystem}}\ntarget: t\n",
            "no system is called \"t\"");
    refused("a.yaml",
            "passes: {q: {type: Rtn}}\nsystems: {s: {type: AzureML}}\ntarget: s\n",
            "systems.s.type: AzureML is not supported: passes run on this machine");
}

static void test_refused_flows(void)
{
#define TWO "passes: {a: {type: Rtn}, b: {type: ModelBuilder}}\n"
    refused("a.yaml", TWO "pass_flows: [[a], [c]]\nsearch_strategy: true\n",
            "yaml:2:20: pass_flows[1][0]: no pass of this file is called \"c\"");
    refused("a.yaml", TWO "pass_flows: [[a], [a, b]]\n",
            "several flows need a search_strategy");
    refused("a.yaml", TWO "pass_flows: [[b, a]]\n", "Rtn takes a Hugging Face model, and");
    refused("a.yaml", TWO "pass_flows: [[a, a]]\n", "a is in this flow twice");
    refused("a.yaml", TWO "pass_flows: []\n", "expected a list of lists of passes");
    refused("a.yaml", TWO "pass_flows: [a]\n", "pass_flows[0]: expected a list of passes");
    refused("a.yaml", "pass_flows: [[a]]\n", "flows of passes, and there are no passes");
    refused("a.yaml", TWO "auto_optimizer_config: {}\n", "passes are named; auto_opt");
    refused("a.yaml", "auto_optimizer_config: {opt_level: 1}\n", "there is one level: 0");
    refused("a.yaml", "auto_optimizer_config: {precisions: [fp32, int9]}\n",
            "precisions[1]: no precision is called \"int9\"");
    refused("a.yaml", "auto_optimizer_config: {excluded_passes: ModelBuildr}\n",
            "did you mean \"ModelBuilder\"?");
    refused("a.yaml", "auto_optimizer_config: {excluded_passes: ModelBuilder}\n",
            "no pass makes such a model for cpu on cpu");
    refused("a.yaml", "auto_optimizer_config: {precisions: fp16}\n",
            "no pass makes such a model for cpu on cpu");
    refused("a.yaml", "auto_optimizer_config: {disable_auto_optimizer: true}\n",
            "disable_auto_optimizer is not supported: a workflow has one pass at least");
    refused("a.yaml", "auto_optimizer_config: {precisions: [fp32, int4]}\n",
            "(auto_optimizer_config):");
    CHECK_TRAIL("several flows need a search_strategy");
    refused("a.yaml", "auto_optimizer_config: {}\ndata_configs: [{name: a}, {name: b}]\n",
            "one data set at most");
}

static void test_refused_metrics(void)
{
#define EV(text)                                                                           \
    "passes: {q: {type: Rtn}}\nevaluator: e\nevaluators: {e: {metrics: [" text "]}}\n"
    refused("a.yaml", "passes: {q: {type: Rtn}}\nevaluator: e\n",
            "no evaluator is called \"e\"");
    refused("a.yaml", EV("{name: a, type: accuracy}"), "no sub_types");
    refused("a.yaml", EV("{name: a, type: accuracy, sub_types: [{name: perplexit}]}"),
            "no figure of accuracy is called \"perplexit\"");
    CHECK_TRAIL("did you mean \"perplexity\"?");
    refused("a.yaml", EV("{name: a, type: accuracy, sub_types: [{name: f1_scor}]}"),
            "no figure of accuracy is called \"f1_scor\"");
    refused("a.yaml", EV("{name: a, type: accuracy, sub_types: [{name: kl}, {name: wer}]}"),
            "kl is of a text, and wer of questions with a target: make two metrics");
    refused("a.yaml",
            EV("{name: a, type: accuracy, sub_types: [{name: kl}], metric_config: "
               "{average: macro}}"),
            "an average is of questions with choices");
    refused(
        "a.yaml",
        EV("{name: a, type: accuracy, sub_types: [{name: kl, higher_is_better: true}]}"),
        "kl is better when it is lower");
    refused("a.yaml",
            EV("{name: a, type: accuracy, sub_types: [{name: kl, priority: 1}, {name: "
               "perplexity, priority: 1}]}"),
            "a-kl has priority 1, too");
    refused("a.yaml", EV("{name: l, type: latency, sub_types: [{name: avg}]}"),
            "ONNX models are timed, and the pass q gives another one");
    refused("a.yaml", EV("{name: c, type: custom, sub_types: [{name: x}]}"),
            "a custom metric needs user_config with a command");
    refused("a.yaml",
            EV("{name: c, type: custom, user_config: {user_script: x.py}, sub_types: "
               "[{name: x}]}"),
            "user_script is not supported: code in Python is never run");
    refused("a.yaml",
            EV("{name: a, type: accuracy, sub_types: [{name: kl, goal: {type: "
               "max-degradation, value: 1}}]}") "evaluate_input_model: false\n",
            "max-degradation counts from the input model");
    refused("a.yaml", EV("{name: a, type: accuracy, sub_types: [{name: accuracy_score}]}"),
            "accuracy_score is of questions with choices: it needs user_config.task");
#undef EV
}

/* ---- forms ---- */

static char *plan_of(const char *name, const char *text)
{
    flow_result r;
    char *plan = NULL;

    if (CHECK_OK(run_file(&r, put(name, text), "planned", true)))
        plan = dr_arena_strdup(&arena, r.text.data);
    flow_result_release(&r);
    nothing_at(&arena, in_tmp(&arena, "planned"));
    return plan;
}

/* Both eras, JSON and YAML, flat and nested, one meaning. */
static void test_forms(void)
{
    const char *now =
        plan_of("now.json", "{\"input_model\": {\"type\": \"HfModel\", \"model_path\": "
                            "\"m\"}, \"passes\": {\"q\": [{\"type\": \"rtn\", \"bits\": "
                            "[4, 8], \"sym\": \"SEARCHABLE_VALUES\"}, {\"type\": "
                            "\"HQQ\"}]}, \"search_strategy\": {\"sampler\": \"random\", "
                            "\"max_samples\": 3, \"seed\": 5}, \"evaluator\": \"e\", "
                            "\"evaluators\": {\"e\": {\"metrics\": [{\"name\": \"s\", "
                            "\"type\": \"size_on_disk\", \"sub_types\": [{\"name\": "
                            "\"bytes\", \"priority\": 1}]}]}}}");
    const char *then = plan_of(
        "then.yaml",
        "input_model:\n  type: hfmodel\n  config: {model_path: m}\n"
        "evaluators:\n  e:\n    metrics:\n    - name: s\n      type: size_on_disk\n"
        "      sub_types: [{name: bytes, priority: 1}]\n"
        "passes:\n  q:\n  - type: Rtn\n    config: {bits: [4, 8], sym: SEARCHABLE_VALUES}\n"
        "  - type: Hqq\n"
        "engine:\n  evaluator: e\n  search_strategy:\n    search_algorithm: random\n"
        "    search_algorithm_config: {num_samples: 3, seed: 5}\n");

    CHECK_STR(now, then);
    CHECK(now != NULL && strstr(now, "search space   5 points") != NULL);
    CHECK(now != NULL && strstr(now, "candidates     3\n") != NULL);
}

/* A plan has the need of each pass on a model that is here. */
static void test_estimates(void)
{
    flow_result r;

    if (!CHECK_OK(run_file(&r,
                           put("need.yaml", "passes:\n  q: {type: Rtn, group_size: 32}\n"
                                            "  b: {type: ModelBuilder}\n"),
                           "planned", true)))
        return;
    const json_t *list = json_object_get(r.report, "estimates");
    CHECK_EQ_INT(json_array_size(list), 2);
    const json_t *first = json_array_get(list, 0);
    CHECK_STR(json_string_value(json_object_get(first, "type")), "Rtn");
    CHECK(json_integer_value(json_object_get(first, "memory_bytes")) > 0);
    CHECK(strstr(r.text.data, "estimate       Rtn: ") != NULL);
    flow_result_release(&r);
}

/* What finetune --save_config_file writes is a workflow: packing, a checkpoint to go on
 * from, the type of operands. */
static void test_training_forms(void)
{
    static const char data[] = "data_configs: [{name: d, pre_process_data_config: "
                               "{strategy: packing, max_seq_len: 16}}]\n";
    json_t *config = json_of("{\"torch_dtype\": \"float32\"}"), *j = NULL;
    const flow_step step = {"LoRA", config};
    flow_spec o = {.model = TINY,
                   .output = in_tmp(&arena, "tuned"),
                   .steps = &step,
                   .step_count = 1,
                   .data = {.strategy = DATA_PACKING, .max_seq_len = 16},
                   .resume = "true",
                   .dry_run = true};
    flow_result r;
    char *plan =
        plan_of("train.yaml",
                dr_arena_printf(&arena,
                                "%spasses:\n  t: {type: LoRA, train_data_config: d, "
                                "resume_from_checkpoint: true, torch_dtype: float32}\n",
                                data));

    CHECK(plan != NULL && strstr(plan, "LoRA {\"torch_dtype\":\"float32\"}") != NULL);
    if (CHECK_OK(flow_run(&r, &o))) {
        char *text = json_dumps(json_object_get(r.report, "workflow"), 0);
        const char *saved = put("saved.json", text);
        plan = plan_of("saved.json", text);
        CHECK(plan != NULL && strstr(plan, "LoRA {\"torch_dtype\":\"float32\"}") != NULL);
        if (CHECK_OK(dr_json_read(&j, saved)))
            CHECK_STR(json_string_value(json_object_get(
                          json_object_get(json_object_get(j, "passes"), "lora"),
                          "resume_from_checkpoint")),
                      "true");
        free(text);
    }
    flow_result_release(&r);
    refused("a.yaml",
            dr_arena_printf(&arena, "%spasses: {q: {type: Gptq, data_config: d}}\n", data),
            "passes.q.data_config: strategy packing is of trainings");
    refused("a.yaml", "passes: {q: {type: Rtn, resume_from_checkpoint: true}}\n",
            "no parameter of Rtn is called \"resume_from_checkpoint\"");
    refused("a.yaml", "passes: {m: {type: SelectiveMixedPrecision}}\n",
            "SelectiveMixedPrecision writes nothing: a quantizer comes after it");
    refused("a.yaml", "passes: {q: {type: LoRA, resume_from_checkpoint: 7}}\n",
            "expected true, or a checkpoint's folder");
    refused("a.yaml", "passes: {q: {type: LoRA, torch_dtype: float16}}\n",
            "expected float32, bfloat16 or int8");
    json_decref(config);
    json_decref(j);
}

static void test_schema(void)
{
    json_t *j = flow_workflow_schema();
    const json_t *rows = json_object_get(j, "properties");

    CHECK(json_is_object(json_object_get(rows, "passes")));
    CHECK(json_object_get(rows, "plot_pareto_frontier") == NULL);  /* refused */
    CHECK_EQ_INT(json_array_size(json_object_get(j, "oneOf")), 2); /* passes, or auto */
    json_decref(j);
}

/* ---- auto_optimizer_config ---- */

#define GRAPH DRUPE_SOURCE_DIR "/tests/golden/rewrite/text"

static bool has_flow(const json_t *flows, const json_t *want)
{
    json_t *one;
    size_t i;

    json_array_foreach((json_t *)(uintptr_t)flows, i, one)
    {
        if (json_equal(one, want))
            return true;
    }
    return false;
}

/* What it stands for is Olive's template (tools/oracle/auto_flows.py). */
static void check_auto(const json_t *c)
{
    const char *text = dr_arena_printf(
        &arena,
        "auto_optimizer_config: {precisions: %s}\nsearch_strategy: true\nevaluator: "
        "{metrics: [{name: s, type: size_on_disk, sub_types: [{name: bytes, priority: "
        "1}]}]}\ntarget: {type: LocalSystem, accelerators: [{device: %s, "
        "execution_providers: [%s]}]}\n%s",
        json_string_value(json_object_get(c, "precision")),
        json_string_value(json_object_get(c, "device")),
        json_string_value(json_object_get(c, "provider")),
        json_is_true(json_object_get(c, "data")) ? "data_configs: [{name: d}]\n" : "");
    const flow_workflow_options o = {.config = put("auto.yaml", text),
                                     .model = GRAPH,
                                     .output = in_tmp(&arena, "auto"),
                                     .cache_dir = in_tmp(&arena, "cache"),
                                     .dry_run = true};
    const json_t *want = json_object_get(c, "flows");
    flow_result r;
    json_t *one;
    size_t i;

    if (CHECK_OK(flow_workflow(&r, &o))) {
        const json_t *flows = json_object_get(r.report, "flows");
        CHECK_EQ_INT(json_array_size(flows), json_array_size(want));
        json_array_foreach(want, i, one)
        {
            if (!CHECK(has_flow(flows, one)))
                (void)printf("  of %s\n", text);
        }
    }
    flow_result_release(&r);
}

static void test_auto(void)
{
    json_t *cases = NULL, *c;
    size_t i;

    if (!CHECK_OK(
            dr_json_read(&cases, DRUPE_SOURCE_DIR "/tests/golden/workflows-auto.json")))
        return;
    CHECK_EQ_INT(json_array_size(cases), 32);
    json_array_foreach(cases, i, c)
    {
        check_auto(c);
    }
    json_decref(cases);
}

/* ---- runs ---- */

static int64_t reported(const flow_result *r, const char *key)
{
    return json_integer_value(json_object_get(r->report, key));
}

static const char chain[] = "passes:\n  q: {type: Rtn, group_size: 32}\n"
                            "  b: {type: ModelBuilder}\n";

static void test_chain(void)
{
    const char *file = put("chain.yaml", chain), *out = in_tmp(&arena, "out");
    json_t *config = json_of("{\"group_size\": 32}"), *j = NULL;
    const flow_step steps[] = {{"Rtn", config}, {"ModelBuilder", NULL}};
    const flow_spec o = {.model = TINY,
                         .output = in_tmp(&arena, "straight"),
                         .steps = steps,
                         .step_count = 2};
    flow_result r;

    if (!CHECK_OK(run_file(&r, file, "out", false)))
        return;
    CHECK_EQ_INT(reported(&r, "steps"), 2);
    CHECK_EQ_INT(reported(&r, "steps_cached"), 0);
    flow_result_release(&r);
    /* the same bytes as one run of both passes */
    CHECK_OK(flow_run(&r, &o));
    flow_result_release(&r);
    char *model = tree_of(&arena, dr_path_join(&arena, out, "model"));
    CHECK(model[0] != '\0');
    CHECK_STR(model, tree_of(&arena, dr_path_join(&arena, o.output, "model")));
    if (CHECK_OK(dr_json_read(&j, dr_path_join(&arena, out, "drupe.json"))))
        CHECK_EQ_INT(json_array_size(json_object_get(j, "passes")), 2);
    json_decref(j);
    const char *left[] = {"footprint.json", "output_footprint.json", "run_history.txt",
                          "model_config.json"};
    for (size_t i = 0; i < DR_COUNT(left); i++)
        CHECK(dr_is_file(dr_path_join(&arena, out, left[i])));
    CHECK(!dr_exists(dr_path_join(&arena, out, "metrics.json"))); /* nothing was judged */
    /* again: all of it from the cache, the same bytes */
    CHECK_OK(run_file(&r, file, "out", false));
    CHECK_EQ_INT(reported(&r, "steps_cached"), 2);
    flow_result_release(&r);
    CHECK_STR(model, tree_of(&arena, dr_path_join(&arena, out, "model")));
    json_decref(config);
}

/* A result that somebody changes is a hard link of the entry: the entry is made anew. */
static void test_changed_entry(void)
{
    const char *file = put("chain.yaml", chain), *out = in_tmp(&arena, "out");
    const char *data = dr_path_join(&arena, out, "model/model.onnx.data");
    char *model = tree_of(&arena, dr_path_join(&arena, out, "model"));
    FILE *f = fopen(data, "r+b");
    flow_result r;

    CHECK(f != NULL && fputc('x', f) == 'x' && fclose(f) == 0);
    CHECK_OK(run_file(&r, file, "out", false));
    CHECK_EQ_INT(reported(&r, "steps_cached"), 1);
    flow_result_release(&r);
    CHECK_STR(model, tree_of(&arena, dr_path_join(&arena, out, "model")));
}

/* What decides the bytes is in the key: another value, another input, no wrong hit. */
static void test_keys(void)
{
    const char *other = copy_tiny(&arena, "other");
    const char *weights = dr_path_join(&arena, other, "model.safetensors");
    flow_workflow_options o = {.config = put("chain.yaml", chain),
                               .model = other,
                               .output = in_tmp(&arena, "out-other"),
                               .cache_dir = in_tmp(&arena, "cache")};
    struct stat s;
    flow_result r;

    CHECK_OK(flow_workflow(&r, &o)); /* the same contents elsewhere: the same model */
    CHECK_EQ_INT(reported(&r, "steps_cached"), 2);
    flow_result_release(&r);
    CHECK_OK(run_file(&r, put("c.yaml", "passes: {q: {type: Rtn, group_size: 16}}\n"), "o2",
                      false));
    CHECK_EQ_INT(reported(&r, "steps_cached"), 0);
    flow_result_release(&r);
    FILE *f = fopen(weights, "r+b"); /* one weight is another one */
    CHECK(f != NULL && stat(weights, &s) == 0 && fseek(f, s.st_size / 2, SEEK_SET) == 0 &&
          fputc('7', f) == '7' && fclose(f) == 0);
    CHECK_OK(flow_workflow(&r, &o));
    CHECK_EQ_INT(reported(&r, "steps_cached"), 0);
    flow_result_release(&r);
}

/* ---- searches ---- */

#define COMMAND                                                                            \
    "{name: mine, type: custom, sub_types: [{name: x, priority: 1, higher_is_better: "     \
    "false%s}], user_config: {command: [sh, -c, \"%s\"]}}"

static const char *search_file(const char *passes, const char *strategy, const char *goal,
                               const char *script)
{
    const char *metric = dr_arena_printf(&arena, COMMAND, goal, script);

    return put("search.yaml",
               dr_arena_printf(&arena,
                               "passes: %s\nsearch_strategy: {%s}\nevaluator: e\n"
                               "evaluators: {e: {metrics: [%s]}}\n",
                               passes, strategy, metric));
}

static const json_t *candidate(const flow_result *r, size_t i, const char *key)
{
    return json_object_get(json_array_get(json_object_get(r->report, "candidates"), i),
                           key);
}

static int64_t chosen(const flow_result *r, size_t i, const char *key)
{
    return json_integer_value(json_object_get(candidate(r, i, "choices"), key));
}

/* The size of the weights, by a program. */
static const char by_size[] =
    "p=$(sed -n 's/.*model_path[^/]*\\\\(\\\\/.*\\\\)\\\\\\\",/\\\\1/p'); "
    "test -d $p/model && p=$p/model; "
    "n=$(stat -c %%s $p/model.safetensors); echo {\\\\\\\"x\\\\\\\": $n}";

static void test_search(void)
{
    const char *script = dr_arena_printf(&arena, by_size);
    const char *passes = "{q: {type: Rtn, bits: [8, 2, 4], group_size: [16, 32]}}";
    flow_result r;

    if (!CHECK_OK(run_file(&r, search_file(passes, "output_model_num: 2", "", script),
                           "searched", false)))
        return;
    CHECK_EQ_INT(json_array_size(json_object_get(r.report, "candidates")), 6);
    CHECK_EQ_INT(chosen(&r, 0, "q.bits"), 2); /* the smallest: few bits, long groups */
    CHECK_EQ_INT(chosen(&r, 0, "q.group_size"), 32);
    CHECK_EQ_INT(chosen(&r, 5, "q.bits"), 8);
    CHECK_EQ_INT(chosen(&r, 5, "q.group_size"), 16);
    CHECK(dr_is_file(in_tmp(&arena, "searched/metrics.json")));
    CHECK(dr_is_file(in_tmp(&arena, "searched/input_model_metrics.json")));
    CHECK(dr_is_file(in_tmp(&arena, "searched/candidates/2/model/model.safetensors")));
    CHECK(!dr_exists(in_tmp(&arena, "searched/candidates/3")));
    flow_result_release(&r);
    /* a goal that the first candidate meets ends it */
    CHECK_OK(
        run_file(&r,
                 search_file(passes, "stop_when_goals_met: true",
                             ", goal: {type: percent-min-improvement, value: 1}", script),
                 "stopped", false));
    CHECK_EQ_INT(json_array_size(json_object_get(r.report, "candidates")), 1);
    CHECK_EQ_INT(reported(&r, "steps_cached"), 1);
    flow_result_release(&r);
    /* none meets it: the best all the same, and it is said */
    CHECK_OK(run_file(&r,
                      search_file(passes, "max_samples: 3, sampler: tpe, seed: 2",
                                  ", goal: {type: threshold, value: 1}", script),
                      "missed", false));
    CHECK_EQ_INT(json_array_size(json_object_get(r.report, "candidates")), 3);
    CHECK(json_is_false(json_object_get(r.report, "goals_met")));
    flow_result_release(&r);
}

/* One that fails is recorded, and the others go on; if all do, the first one's error. */
static void test_failures(void)
{
    const char *script = dr_arena_printf(&arena, by_size);
    flow_result r;

    if (CHECK_OK(run_file(
            &r, search_file("{q: {type: Rtn, bits: [5, 4]}}", "seed: 1", "", script),
            "failing", false))) {
        CHECK_EQ_INT(chosen(&r, 0, "q.bits"), 4);
        const char *error = json_string_value(candidate(&r, 1, "error"));
        CHECK(error != NULL && strstr(error, "found 5") != NULL);
    }
    flow_result_release(&r);
    CHECK_STATUS(
        run_file(&r, search_file("{q: {type: Rtn, bits: [4, 8]}}", "seed: 1", "", "exit 3"),
                 "refused", false),
        DR_EDEVICE);
    CHECK_TRAIL("sh ended with status 3");
    nothing_at(&arena, in_tmp(&arena, "refused"));
    flow_result_release(&r);
}

/* Each pass on the best before it: the sum of points, not their product, is tried. */
static void test_pass_by_pass(void)
{
    const char *metric =
        "{name: s, type: size_on_disk, sub_types: [{name: bytes, priority: "
        "1}]}";
    const char *file = put(
        "by.yaml",
        dr_arena_printf(&arena,
                        "passes:\n  q: {type: Rtn, bits: [4, 8], group_size: [16, 32]}\n"
                        "  b: {type: ModelBuilder, prune_lm_head: [false, true]}\n"
                        "search_strategy: {execution_order: pass-by-pass}\nevaluator: e\n"
                        "evaluators: {e: {metrics: [%s]}}\n",
                        metric));
    flow_result r;

    if (CHECK_OK(run_file(&r, file, "by", false))) {
        CHECK_EQ_INT(json_array_size(json_object_get(r.report, "candidates")), 2);
        CHECK_EQ_INT(reported(&r, "steps"), 6);
    }
    flow_result_release(&r);
}

/* ---- the cache's folder ---- */

static void test_cache_dir(void)
{
    flow_workflow_options o = {.config = put("chain.yaml", chain),
                               .model = TINY,
                               .output = in_tmp(&arena, "never"),
                               .cache_dir = check_tmp()}; /* holds other files */
    flow_result r;

    CHECK_STATUS(flow_workflow(&r, &o), DR_EUSAGE);
    CHECK_TRAIL("it holds files that are not a cache's");
    flow_result_release(&r);
    nothing_at(&arena, o.output);
    o.cache_dir = in_tmp(&arena, "cache");
    o.config = put("clean.yaml", dr_arena_printf(&arena, "clean_cache: true\n%s", chain));
    o.output = in_tmp(&arena, "out");
    CHECK_OK(flow_workflow(&r, &o));
    CHECK_EQ_INT(reported(&r, "steps_cached"), 0);
    flow_result_release(&r);
}

/* Listed, verified, brought below a size; what is taken away is made anew. */
static void test_tools(void)
{
    const char *dir = in_tmp(&arena, "tools-cache");
    const flow_workflow_options o = {.config = put("chain.yaml", chain),
                                     .model = TINY,
                                     .output = in_tmp(&arena, "tools-out"),
                                     .cache_dir = dir};
    flow_cache_options look = {.dir = dir, .verify = true};
    flow_result r;
    char **names = NULL;
    size_t count = 0;

    CHECK_STATUS(flow_look_at_cache(&r, &look), DR_EUSAGE);
    CHECK_TRAIL("no such folder");
    flow_result_release(&r);
    CHECK_OK(flow_workflow(&r, &o));
    flow_result_release(&r);
    CHECK_OK(flow_look_at_cache(&r, &look));
    CHECK_EQ_INT(json_array_size(json_object_get(r.report, "entries")), 2);
    CHECK_EQ_INT(reported(&r, "broken"), 0);
    double bytes = json_number_value(json_object_get(r.report, "bytes"));
    flow_result_release(&r);
    /* another byte, the same times: only hashing finds it */
    CHECK_OK(dr_list_dir(&arena, dr_path_join(&arena, dir, "runs"), &names, &count));
    const char *first = dr_path_join(&arena, dr_path_join(&arena, dir, "runs"), names[0]);
    const char *file = dr_path_join(&arena, first, "drupe.json");
    struct stat s;
    CHECK(stat(file, &s) == 0);
    FILE *f = fopen(file, "r+b");
    CHECK(f != NULL && fputc('x', f) == 'x' && fclose(f) == 0);
    const struct timespec times[2] = {s.st_atim, s.st_mtim};
    CHECK(utimensat(AT_FDCWD, file, times, 0) == 0);
    CHECK_OK(flow_look_at_cache(&r, &look));
    CHECK_EQ_INT(reported(&r, "broken"), 1);
    CHECK_EQ_INT(reported(&r, "taken_away"), 1);
    CHECK(!dr_exists(first));
    flow_result_release(&r);
    CHECK_OK(flow_workflow(&r, &o));
    CHECK_EQ_INT(reported(&r, "steps_cached"), 1);
    flow_result_release(&r);
    look = (flow_cache_options){.dir = dir, .max_bytes = (uint64_t)bytes - 1};
    CHECK_OK(flow_look_at_cache(&r, &look));
    CHECK_EQ_INT(json_array_size(json_object_get(r.report, "entries")), 1);
    CHECK(json_number_value(json_object_get(r.report, "bytes")) < bytes);
    flow_result_release(&r);
    look = (flow_cache_options){.dir = dir, .clear = true};
    CHECK_OK(flow_look_at_cache(&r, &look));
    CHECK_EQ_INT(json_array_size(json_object_get(r.report, "entries")), 0);
    flow_result_release(&r);
}

int main(void)
{
    test_tools();
    test_refused();
    test_refused_flows();
    test_refused_metrics();
    test_auto();
    test_forms();
    test_training_forms();
    test_estimates();
    test_schema();
    test_chain();
    test_changed_entry();
    test_keys();
    test_search();
    test_failures();
    test_pass_by_pass();
    test_cache_dir();
    dr_arena_release(&arena);
    return check_done();
}
