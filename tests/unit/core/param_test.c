/*
 * param_test.c - one table, read from argv and JSON and printed back; every way of being
 * wrong has its message.
 */
#include "check.h"

#include "core/json.h"
#include "core/param.h"

struct cfg {
    int q_group_size, seed;
    double lr, ratio;
    bool shuffle, zero_point;
    const char *model_name_or_path, *text;
    int precision, algorithm;
};

static const char *const precisions[] = {"int4", "int8", "fp16", NULL};
static const char *const algorithms[] = {"rtn", "awq", NULL};

static const dr_param params[] = {
    DR_STR(struct cfg, model_name_or_path, .short_name = 'm', .required = true,
           .help = "a Hugging Face folder or the name of a model in the cache"),
    DR_INT(struct cfg, q_group_size, .dflt = "128", .min = -1, .max = 1024,
           .search = "[32, 64, 128]", .help = "inputs that share a scale; -1: a whole row"),
    DR_INT(struct cfg, seed, .help = "seed of all random numbers"),
    DR_FLOAT(struct cfg, lr, .dflt = "1e-4", .min = 0, .max = 1, .help = "learning rate"),
    DR_FLOAT(struct cfg, ratio, .dflt = "0.5", .help = "any number"),
    DR_BOOL(struct cfg, shuffle, .dflt = "true", .help = "shuffle the samples"),
    DR_BOOL(struct cfg, zero_point, .help = "asymmetric grid"),
    DR_STR(struct cfg, text, .dflt = "null", .help = "text"),
    DR_CHOICE(struct cfg, precision, .choices = precisions, .dflt = "int4",
              .short_name = 'p', .help = "what weights are rounded to"),
    DR_CHOICE(struct cfg, algorithm, .choices = algorithms, .hidden = true, .help = "how"),
    DR_REFUSED("use_gpu_split", "drupe runs on one device", "precision"),
};
enum { N = DR_COUNT(params) };

static dr_arena arena;
static unsigned char given[N];

/* Arguments in one string, separated by |. */
static dr_status parse(struct cfg *c, const char *text)
{
    char line[512], *argv[32], *rest = NULL;
    int argc = 0;

    (void)snprintf(line, sizeof(line), "%s", text);
    for (char *s = strtok_r(line, "|", &rest); s != NULL; s = strtok_r(NULL, "|", &rest))
        argv[argc++] = s;
    dr_params_defaults(params, N, c);
    return dr_params_parse_argv(params, N, c, argc, argv, given, &arena);
}

static dr_status parse_m(struct cfg *c, const char *text)
{
    char line[600];

    (void)snprintf(line, sizeof(line), "-m|x|%s", text);
    return parse(c, line);
}

static void test_defaults(void)
{
    struct cfg c;

    memset(&c, 0xff, sizeof(c));
    dr_params_defaults(params, N, &c);
    CHECK(c.model_name_or_path == NULL && c.text == NULL);
    CHECK_EQ_INT(c.q_group_size, 128);
    CHECK_EQ_INT(c.seed, 0);
    CHECK_NEAR(c.lr, 1e-4, 0);
    CHECK(c.shuffle && !c.zero_point);
    CHECK_EQ_INT(c.precision, 0);
    CHECK_EQ_INT(c.algorithm, -1);
}

static void test_argv(void)
{
    struct cfg c;

    CHECK_OK(
        parse(&c, "--model_name_or_path|a/b|--q-group-size=-1|--seed|-5|--lr|.5|-p|fp16"));
    CHECK_STR(c.model_name_or_path, "a/b");
    CHECK_EQ_INT(c.q_group_size, -1);
    CHECK_EQ_INT(c.seed, -5);
    CHECK_NEAR(c.lr, 0.5, 0);
    CHECK_EQ_INT(c.precision, 2);
    CHECK(given[0] && given[1] && given[2] && !given[4] && !given[5]);

    CHECK_OK(parse_m(&c, "--shuffle|False|--zero_point"));
    CHECK(!c.shuffle && c.zero_point);
    CHECK_OK(parse_m(&c, "--shuffle|--zero-point|NO|--seed|1"));
    CHECK(c.shuffle && !c.zero_point && c.seed == 1);
    CHECK_OK(parse_m(&c, "--shuffle=0|--zero_point=yes"));
    CHECK(!c.shuffle && c.zero_point);
    CHECK_OK(parse_m(&c, "--seed|1|--seed=2|--text|- a list|--text|--hello there"));
    CHECK_EQ_INT(c.seed, 2);
    CHECK_STR(c.text, "--hello there");
    CHECK_OK(parse_m(&c, "--text=--x=y"));
    CHECK_STR(c.text, "--x=y");
    CHECK_OK(parse_m(&c, "--text="));
    CHECK_STR(c.text, "");
    CHECK_OK(parse_m(&c, "--text|-"));
    CHECK_STR(c.text, "-");
    CHECK_OK(parse_m(&c, "--ratio|-1e300"));
    CHECK_NEAR(c.ratio, -1e300, 0);
}

static void refuses(const char *args, const char *message, const char *hint)
{
    struct cfg c;

    CHECK_STATUS(parse_m(&c, args), DR_EUSAGE);
    CHECK_STR(dr_trail_get()->frames[0].text, message);
    CHECK_STR(dr_trail_get()->hint, hint);
}

static void test_wrong_argv(void)
{
    struct cfg c;

    refuses("--modle_name_or_path=x", "unknown option --modle_name_or_path",
            "did you mean --model_name_or_path?");
    refuses("--model|x", "unknown option --model", "did you mean --model_name_or_path?");
    refuses("--xyzzy", "unknown option --xyzzy", "");
    refuses("-z", "unknown option -z", "");
    refuses("-mx", "unknown option -mx", "");
    refuses("stray", "unexpected argument \"stray\"", "options are written --name value");
    refuses("--shuffle|maybe", "unexpected argument \"maybe\"",
            "options are written --name value");
    refuses("--", "unexpected argument \"--\"", "options are written --name value");
    refuses("--seed", "--seed: a value is missing", "");
    refuses("--text|--seed|1", "--text: a value is missing before --seed",
            "a value that starts with - is written --text=VALUE");
    refuses("--seed|four", "--seed: expected an integer, found \"four\"", "");
    refuses("--seed|1.5", "--seed: expected an integer, found \"1.5\"", "");
    refuses("--seed|4x", "--seed: expected an integer, found \"4x\"", "");
    refuses("--seed=", "--seed: expected an integer, found \"\"", "");
    refuses("--seed| 4", "--seed: expected an integer, found \" 4\"", "");
    refuses("--seed|2147483648", "--seed: 2147483648 does not fit 32 bits", "");
    refuses("--seed|99999999999999999999",
            "--seed: 99999999999999999999 does not fit 32 bits", "");
    refuses("--q_group_size|1025", "--q_group_size: expected -1 to 1024, found 1025", "");
    refuses("-m|y|--lr|1.5", "--lr: expected 0 to 1, found 1.5", "");
    refuses("--lr|fast", "--lr: expected a number, found \"fast\"", "");
    refuses("--ratio|nan", "--ratio: expected a finite number, found nan", "");
    refuses("--shuffle=maybe", "--shuffle: expected true or false, found \"maybe\"", "");
    refuses("-p|int3", "--precision: expected int4, int8 or fp16, found \"int3\"",
            "did you mean int4?");
    refuses("--use_gpu_split|2",
            "--use_gpu_split is not supported yet: drupe runs on one device",
            "the nearest is --precision");
    CHECK_STATUS(parse(&c, "--seed|1"), DR_EUSAGE);
    CHECK_TRAIL("--model_name_or_path is required");
    CHECK_STATUS(parse(&c, ""), DR_EUSAGE);
}

static dr_status from_json(struct cfg *c, const char *text)
{
    json_t *o = NULL;

    dr_params_defaults(params, N, c);
    CHECK_OK(dr_json_parse(&o, text, strlen(text), "test"));
    dr_status st = dr_params_from_json(params, N, c, o, "w.json", given, &arena);
    json_decref(o); /* strings must outlive it */
    return st;
}

static void test_json(void)
{
    struct cfg c, back;
    json_t *o = NULL;

    CHECK_OK(from_json(&c,
                       "{\"model_name_or_path\": \"m\", \"seed\": 3, \"lr\": 1, \"text\":"
                       " \"t\", \"shuffle\": false, \"precision\": \"int8\","
                       " \"q_group_size\": null}"));
    CHECK_STR(c.model_name_or_path, "m");
    CHECK_EQ_INT(c.seed, 3);
    CHECK_NEAR(c.lr, 1, 0);
    CHECK(!c.shuffle);
    CHECK_EQ_INT(c.precision, 1);
    CHECK_EQ_INT(c.q_group_size, 128);
    CHECK(given[0] && !given[1] && given[2]);

    CHECK_OK(dr_params_json(&o, params, N, &c));
    CHECK_EQ_INT(json_object_size(o), N - 1); /* all but the refused one */
    dr_params_defaults(params, N, &back);
    CHECK_OK(dr_params_from_json(params, N, &back, o, "back", NULL, &arena));
    CHECK_STR(back.text, "t");
    CHECK(back.seed == c.seed && back.lr == c.lr && back.ratio == c.ratio);
    CHECK(back.shuffle == c.shuffle && back.precision == c.precision);
    CHECK_EQ_INT(back.algorithm, -1);
    json_decref(o);

    c.text = "\xff";
    CHECK_STATUS(dr_params_json(&o, params, N, &c), DR_EUSAGE);
    CHECK_TRAIL("text: the value cannot be written");
    CHECK(o == NULL);
}

static void refuses_json(const char *text, const char *message, const char *hint)
{
    struct cfg c;

    CHECK_STATUS(from_json(&c, text), DR_EUSAGE);
    CHECK_STR(dr_trail_get()->frames[0].text, message);
    CHECK_STR(dr_trail_get()->hint, hint);
}

static void test_wrong_json(void)
{
    refuses_json("{\"seeed\": 1}", "w.json: unknown key \"seeed\"",
                 "did you mean \"seed\"?");
    refuses_json("{\"seed\": 1.5}", "w.json: seed: expected an integer, found a number",
                 "");
    refuses_json("{\"seed\": \"1\"}", "w.json: seed: expected an integer, found a string",
                 "");
    refuses_json("{\"lr\": true}", "w.json: lr: expected a number, found true", "");
    refuses_json("{\"lr\": 2}", "w.json: lr: expected 0 to 1, found 2", "");
    refuses_json("{\"shuffle\": 1}",
                 "w.json: shuffle: expected true or false, found an integer", "");
    refuses_json("{\"text\": {}}", "w.json: text: expected a string, found an object", "");
    refuses_json("{\"text\": \"a\\u0000b\"}",
                 "w.json: text: the string has a zero character", "");
    refuses_json("{\"precision\": \"fp17\"}",
                 "w.json: precision: expected int4, int8 or fp16, found \"fp17\"",
                 "did you mean fp16?");
    refuses_json("{\"use_gpu_split\": 1}",
                 "w.json: use_gpu_split is not supported yet: drupe runs on one device",
                 "the nearest is precision");
    refuses_json("{}", "w.json: model_name_or_path is required", "");
    refuses_json("{\"model_name_or_path\": null}", "w.json: model_name_or_path is required",
                 "");
    refuses_json("[]", "w.json: expected an object of parameters, found an array", "");
}

static void test_help(void)
{
    static const char want[] =
        "  -m, --model_name_or_path VALUE  a Hugging Face folder or the name of a model\n"
        "                                  in the cache (required)\n"
        "  --q_group_size VALUE            inputs that share a scale; -1: a whole row\n"
        "                                  (default: 128)\n"
        "  --seed VALUE                    seed of all random numbers\n"
        "  --lr VALUE                      learning rate (default: 1e-4)\n"
        "  --ratio VALUE                   any number (default: 0.5)\n"
        "  --shuffle                       shuffle the samples (default: true)\n"
        "  --zero_point                    asymmetric grid\n"
        "  --text VALUE                    text\n"
        "  -p, --precision VALUE           what weights are rounded to: int4, int8 or\n"
        "                                  fp16 (default: int4)\n";
    static const dr_param wide[] = {
        DR_INT(struct cfg, seed, .help = "short"),
        DR_STR(struct cfg, model_name_or_path, .short_name = 'm', .dflt = "somewhere",
               .help = "long"),
        {.name = "a_name_that_is_longer_than_the_column_of_help",
         .type = DR_PARAM_BOOL,
         .help = "on the next line"},
    };
    dr_buf b;

    dr_buf_init(&b, 10000);
    CHECK_OK(dr_params_help(&b, params, N));
    CHECK_STR(b.data, want);
    dr_buf_reset(&b);
    CHECK_OK(dr_params_help(&b, wide, DR_COUNT(wide)));
    CHECK(strstr(b.data, "column_of_help\n                                  on the") !=
          NULL);
    dr_buf_release(&b);
}

static void test_nearest(void)
{
    static const char *const words[] = {"quantize", "finetune", "generate", "run",
                                        "auto-opt"};
    enum { W = DR_COUNT(words) };

    CHECK_STR(dr_nearest("quantise", words, W), "quantize");
    CHECK_STR(dr_nearest("uqantize", words, W), "quantize");
    CHECK_STR(dr_nearest("Finetune", words, W), "finetune");
    CHECK_STR(dr_nearest("gen", words, W), "generate");
    CHECK_STR(dr_nearest("auto_opt", words, W), "auto-opt");
    CHECK_STR(dr_nearest("rnu", words, W), "run");
    CHECK(dr_nearest("serve", words, W) == NULL);
    CHECK(dr_nearest("", words, W) == NULL);
    CHECK(dr_nearest("run", words, 0) == NULL);
    CHECK(dr_nearest(
              "quantize_quantize_quantize_quantize_quantize_quantize_quantize_quantize",
              words, W) == NULL);
}

/* A list of words, as Olive's nargs="*" takes it. */
static void test_words(void)
{
    struct list {
        const char *names;
        bool last;
    } c;
    static const dr_param rows[] = {
        DR_STR(struct list, names, .words = true, .help = "names"),
        DR_BOOL(struct list, last, .help = "another"),
    };
    char line[] = "--names|a|b,c|d|--last|--names=a b", *argv[8], *rest = NULL;
    int argc = 0;

    for (char *w = strtok_r(line, "|", &rest); w != NULL; w = strtok_r(NULL, "|", &rest))
        argv[argc++] = w;
    dr_params_defaults(rows, 2, &c);
    CHECK_OK(dr_params_parse_argv(rows, 2, &c, 5, argv, NULL, &arena));
    CHECK_STR(c.names, "a,b,c,d");
    CHECK(c.last);
    CHECK_OK(dr_params_parse_argv(rows, 2, &c, 1, argv + 5, NULL, &arena));
    CHECK_STR(c.names, "a b");
    argv[3] = argv[0]; /* without a value before --last */
    CHECK_STATUS(dr_params_parse_argv(rows, 2, &c, 2, argv + 3, NULL, &arena), DR_EUSAGE);
}

int main(void)
{
    test_words();
    test_defaults();
    test_argv();
    test_wrong_argv();
    test_json();
    test_wrong_json();
    test_help();
    test_nearest();
    dr_arena_release(&arena);
    return check_done();
}
