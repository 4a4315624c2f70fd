/*
 * input_test.c - what a run starts from: adapters by list, by folder, by model_config.json;
 * inputs that the output would replace; ONNX models.
 */
#include "flow_fixture.h"
#include "hf/hf.h"

static dr_arena arena;

static const char **names, **paths;
static size_t count;

static dr_status parse(const char *text)
{
    dr_trail_clear();
    return flow_parse_adapters(&arena, text, &names, &paths, &count);
}

static void test_parse(void)
{
    if (CHECK_OK(parse("a/b")) && CHECK_EQ_INT(count, 1)) {
        CHECK(names[0] == NULL);
        CHECK_STR(paths[0], "a/b");
    }
    if (CHECK_OK(parse("x=a,y-2=b/c=d")) && CHECK_EQ_INT(count, 2)) {
        CHECK_STR(names[0], "x");
        CHECK_STR(paths[0], "a");
        CHECK_STR(names[1], "y-2");
        CHECK_STR(paths[1], "b/c=d");
    }
    static const struct {
        const char *list, *text;
    } bad[] = {{"", "an empty name or path in \"\""},
               {"x=", "an empty name or path"},
               {"=a", "an empty name or path"},
               {"x=a,", "an empty name or path in \"x=a,\""},
               {"x=a,,y=b", "an empty name or path"},
               {"x=a,x=b", "the name x is given twice"},
               {"a,x=b", "a has no name; several need NAME=PATH each"},
               {"a/b=c", "\"a/b\": a name has no slash"},
               {"..=c", "does not begin with a dot"}};
    for (size_t i = 0; i < DR_COUNT(bad); i++) {
        CHECK_STATUS(parse(bad[i].list), DR_EUSAGE);
        CHECK_TRAIL(bad[i].text);
    }
}

/* A PEFT folder with one module of rank 2. */
static const char *make_adapter(const char *name)
{
    static const char *const targets[] = {"q_proj"};
    static const float a[2 * 32], b[64 * 2];
    static char path[] = "";
    const char *dir = in_tmp(&arena, name);
    hf_lora_module module = {.module = "model.layers.0.self_attn.q_proj",
                             .r = 2,
                             .scale = 1,
                             .n_in = 32,
                             .n_out = 64,
                             .a = a,
                             .b = b};
    const hf_adapter adapter = {
        .path = path, .r = 2, .alpha = 2, .modules = &module, .count = 1};

    CHECK_OK(dr_make_dirs(dir));
    CHECK_OK(hf_adapter_write(&adapter, dir, "base", targets, 1));
    return dir;
}

static bool has(const char *out, const char *name)
{
    return dr_is_file(dr_path_join(&arena, out, name));
}

static void test_adapters(void)
{
    const char *out = in_tmp(&arena, "onnx"), *one = make_adapter("one");
    const char *two =
        make_adapter("two/adapter"); /* as finetune leaves it: two/ is named */
    const char *list =
        dr_arena_printf(&arena, "travel=%s,b=%s", one, in_tmp(&arena, "two"));

    CHECK(two != NULL);
    CHECK_OK(run_pass("ModelBuilder", NULL, (flow_spec){.output = out, .adapters = one}));
    CHECK(has(out, "model/adapter_weights.onnx_adapter"));
    CHECK_OK(run_pass("ModelBuilder", NULL, (flow_spec){.output = out, .adapters = list}));
    CHECK(has(out, "model/travel.onnx_adapter"));
    CHECK(has(out, "model/b.onnx_adapter"));
    CHECK(!has(out, "model/adapter_weights.onnx_adapter"));
    CHECK_STATUS(
        run_pass("ModelBuilder", NULL, (flow_spec){.output = out, .adapters = "x=no/such"}),
        DR_EUSAGE);
    CHECK_TRAIL("no/such: no such folder");
    CHECK_STATUS(run_pass("Rtn", NULL, (flow_spec){.output = out, .adapters = one}),
                 DR_EUSAGE);
    CHECK_TRAIL("has an adapter, which quantizing would leave behind");
    CHECK(has(out, "model/travel.onnx_adapter")); /* the result before stands */
}

/* The folder of an earlier finetune stands for its model and its adapter. */
static void test_model_config(void)
{
    const char *ft = in_tmp(&arena, "ft"), *out = in_tmp(&arena, "from-ft");

    (void)copy_tiny(&arena, "ft/model");
    (void)make_adapter("ft/adapter");
    CHECK_OK(hf_write_model_config(ft, "model", "adapter"));
    CHECK_OK(run_pass("ModelBuilder", NULL, (flow_spec){.model = ft, .output = out}));
    CHECK(has(out, "model/adapter_weights.onnx_adapter"));
    CHECK_STATUS(run_pass("Rtn", NULL, (flow_spec){.model = ft, .output = out}), DR_EUSAGE);
    CHECK_TRAIL("has an adapter");
    const char *base = in_tmp(&arena, "ft/model");
    CHECK_OK(run_pass("Rtn", NULL, (flow_spec){.model = base, .output = out}));
}

static void test_onnx_input(void)
{
    const char *out = in_tmp(&arena, "result"), *again = in_tmp(&arena, "again");
    const char *inner = in_tmp(&arena, "result/model");
    const char *file = in_tmp(&arena, "result/model/model.onnx");

    CHECK_OK(run_pass("ModelBuilder", NULL, (flow_spec){.output = out}));
    const char *models[] = {out, inner, file};
    for (size_t i = 0; i < DR_COUNT(models); i++) {
        CHECK_STATUS(
            run_pass("Rtn", NULL, (flow_spec){.model = models[i], .output = again}),
            DR_EUNSUPPORTED);
        CHECK_TRAIL("is an ONNX model already");
        nothing_at(&arena, again);
    }
}

/* A result never replaces what it is made from. */
static void test_apart(void)
{
    const char *out = in_tmp(&arena, "apart"), *inner = in_tmp(&arena, "apart/model");
    const char *data = in_tmp(&arena, "apart/data.jsonl");

    CHECK_OK(run_pass("Rtn", NULL, (flow_spec){.output = out}));
    const char *before = tree_of(&arena, out);
    CHECK_STATUS(run_pass("ModelBuilder", NULL, (flow_spec){.model = out, .output = out}),
                 DR_EUSAGE);
    CHECK_TRAIL("it holds this run's input");
    CHECK_STATUS(run_pass("ModelBuilder", NULL, (flow_spec){.model = inner, .output = out}),
                 DR_EUSAGE);
    CHECK_TRAIL("it holds this run's input");
    CHECK_STR(tree_of(&arena, out), before);
    CHECK_OK(dr_write_file(data, "{\"text\": \"a\"}\n", 14));
    CHECK_STATUS(run_pass("LoRA", NULL,
                          (flow_spec){.output = out,
                                      .data = {.data_name = "json", .data_files = data}}),
                 DR_EUSAGE);
    CHECK_TRAIL("apart/data.jsonl");
    /* a folder below the input is a folder of its own */
    const char *below = in_tmp(&arena, "apart/model/onnx");
    CHECK_OK(run_pass("ModelBuilder", NULL, (flow_spec){.model = inner, .output = below}));
    CHECK(has(below, "model/model.onnx"));
}

int main(void)
{
    test_parse();
    test_adapters();
    test_model_config();
    test_onnx_input();
    test_apart();
    dr_arena_release(&arena);
    return check_done();
}
