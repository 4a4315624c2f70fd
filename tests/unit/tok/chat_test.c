/*
 * chat_test.c - chat templates: tests/golden/tok/chat.json (rendered by transformers'
 * Jinja), what a template may not do, and that no cut or changed template crashes.
 */
#include <sys/resource.h>

#include "core/log.h"
#include "toy.h"

#define EMPTY "{'model': {'vocab': {'<s>': 0, '</s>': 1}, 'merges': []}}"

static tok_tokenizer *with_template(const char *source)
{
    json_t *spec = toy_json(EMPTY);
    json_t *config = json_pack("{s:s, s:s, s:s}", "bos_token", "<s>", "eos_token", "</s>",
                               "chat_template", source);
    tok_tokenizer *t = NULL;

    CHECK(config != NULL);
    CHECK_OK(tok_open_json(&t, spec, config, "chat"));
    json_decref(spec);
    json_decref(config);
    return t;
}

static void check_golden(const json_t *all, const json_t *c)
{
    const char *name = json_string_value(json_object_get(c, "template"));
    const char *source = json_string_value(json_object_get(c, "source"));
    const char *want = json_string_value(json_object_get(c, "text"));
    const char *says = json_string_value(json_object_get(c, "says"));
    const char *names = json_string_value(json_object_get(c, "names"));
    const json_t *messages =
        json_array_get(json_object_get(all, "talks"),
                       (size_t)json_integer_value(json_object_get(c, "talk")));
    json_t *extra = json_deep_copy(json_object_get(all, "names"));
    dr_buf out;

    if (source == NULL)
        source = json_string_value(json_object_get(json_object_get(all, "models"), name));
    CHECK_EQ_INT(
        json_object_update(extra, json_object_get(json_object_get(all, "sets"), names)), 0);
    dr_buf_init(&out, 1 << 26);
    tok_tokenizer *t = with_template(source);
    const dr_status st =
        tok_chat_json(t, &out, messages, extra, json_is_true(json_object_get(c, "prompt")));
    const bool ok = want != NULL ? st == DR_OK && strcmp(out.data, want) == 0 : st != DR_OK;
    if (!CHECK(ok)) {
        (void)printf("  %s: %s\n  found    <%s>\n  expected <%s>\n", name,
                     json_object_get(c, "source") != NULL ? source : "",
                     st == DR_OK ? out.data : "error", want != NULL ? want : "error");
        if (st != DR_OK)
            check_print_trail();
    }
    if (says != NULL && says[0] != '\0')
        CHECK_TRAIL(says);
    tok_close(t);
    dr_buf_release(&out);
    json_decref(extra);
}

static void test_goldens(void)
{
    json_t *all = NULL;
    const json_t *c = NULL;
    size_t i = 0;

    if (!CHECK_OK(dr_json_read(&all, DRUPE_SOURCE_DIR "/tests/golden/tok/chat.json")))
        return;
    const json_t *cases = json_object_get(all, "cases");
    CHECK(json_array_size(cases) > 100);
    json_array_foreach(cases, i, c) check_golden(all, c);
    json_decref(all);
}

static dr_status chat(const char *source, dr_buf *out)
{
    tok_tokenizer *t = with_template(source);
    const tok_message messages[] = {{"user", "h\xFFi"}, {"assistant", "yo"}};

    dr_buf_reset(out);
    const dr_status st = tok_chat(t, out, messages, 2, true);
    tok_close(t);
    return st;
}

static void test_door(void)
{
    dr_buf out;

    dr_buf_init(&out, 1 << 26);
    CHECK_OK(
        chat("{{ bos_token }}{% for m in messages %}{{ m.role }}:{{ m['content'] }}\n"
             "{% endfor %}{% if add_generation_prompt %}>{% endif %}{{ tools is none }}",
             &out));
    CHECK_STR(out.data, "<s>user:h\xEF\xBF\xBDi\nassistant:yo\n>True");
    CHECK_STATUS(chat("{{ raise_exception('only system') }}", &out), DR_EUSAGE);
    CHECK_TRAIL("only system");
    CHECK_STATUS(chat("a\nb\n{% import 'x' %}", &out), DR_EUNSUPPORTED);
    CHECK_TRAIL("line 3");
    CHECK_OK(
        chat("{{ strftime_now('%Y-%m-%d %H:%M:%S %b %B %a %A %y %j %I %p %%') }}", &out));
    CHECK(out.len > 40 && out.data[4] == '-');
    CHECK_STATUS(chat("{{ strftime_now('%c') }}", &out), DR_EUNSUPPORTED);
    CHECK_EQ_INT(out.len, 0);

    tok_tokenizer *t = toy_open(EMPTY, NULL);
    CHECK_STATUS(tok_chat(t, &out, NULL, 0, true), DR_EUNSUPPORTED);
    tok_close(t);
    t = toy_open(EMPTY, "{'chat_template': [{'name': 'rag', 'template': 'r'}, {'name': "
                        "'default', 'template': 'd'}]}");
    CHECK_OK(tok_chat(t, &out, NULL, 0, true));
    CHECK_STR(out.data, "d");
    tok_close(t);
    dr_buf_release(&out);
}

/* Deep, long and endless templates end with an error. */
static void test_bounds(void)
{
    dr_buf out, source;

    dr_buf_init(&out, 1 << 26);
    dr_buf_init(&source, 1 << 24);
    for (int kind = 0; kind < 6; kind++) {
        static const char *const head[] = {"{{ ", "{{ ", "{{ x", "{{ 1", "", "{{ not "};
        static const char *const one[] = {"(", "[", "[0]", "+1", "{% if 1 %}", "not "};
        dr_buf_reset(&source);
        CHECK_OK(dr_buf_adds(&source, head[kind]));
        for (int i = 0; i < 100000; i++)
            CHECK_OK(dr_buf_adds(&source, one[kind]));
        CHECK_OK(dr_buf_adds(&source, kind == 5 ? " 1 }}" : kind == 4 ? "" : " }}"));
        const dr_status st = chat(source.data, &out);
        CHECK(kind == 5 ? st == DR_OK : st != DR_OK);
    }
    dr_buf_release(&out);
    dr_buf_release(&source);
}

#define X15 "{% set s = 'x' * 3000 * 5000 %}{% set h = 'x' * 3000 * 2000 %}"

/*
 * What would take hours or all memory ends soon, with the limit by name.  The seconds are
 * many times what it takes here, and few against what it would take.
 */
static void test_bombs(void)
{
    static const struct {
        const char *source, *says;
    } bombs[] = {
        {"{{ range(10**9) }}", "steps"},
        {"{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
         "more than"},
        {"{% for a in range(3000) %}{% for b in range(5000) %}{{ a }}{% endfor %}{% endfor "
         "%}",
         "steps"},
        {"{% set ns = namespace(l=[]) %}{% for i in range(300) %}{% set ns.l = [ns.l] %}"
         "{% endfor %}{{ ns.l }}",
         "nest deeper than 200"},
        {"{% set ns = namespace(l=[]) %}{% for i in range(100) %}{% set ns.l = [ns.l, "
         "ns.l] "
         "%}{% endfor %}{{ ns.l }}",
         "more than"},
        {"{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = ns.l + ns.l "
         "%}{% endfor %}",
         "more than"},
        {"{% macro m(k) %}{{ m(k + 1) }}{% endmacro %}{{ m(0) }}", "too deep"},
        {"{% macro m(k) %}" X15 "{{ s }}{{ m(k + 1) }}{% endmacro %}{{ m(0) }}",
         "more than"},
        {X15 "{% macro m(k) %}{{ s }}{{ m(k + 1) }}{% endmacro %}{{ m(0) }}", "more than"},
        {"{% set s = 'x' * 10**18 %}", "times"},
        {"{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s "
         "%}{% endfor %}",
         "bytes"},
        {X15 "{% for i in range(9) %}{{ s }}{% endfor %}", "bytes"},
        {X15 "{% set t = h ~ 'y' %}{{ (t ~ h).rfind(t) }}", "steps"},
        {X15 "{{ s.rsplit(h ~ 'y') }}", "steps"},
        {X15 "{% set c = 'y' * 3000 * 400 ~ 'x' %}{{ s.strip(c) }}", "steps"},
        {X15
         "{% set t = s[1:] ~ 'x' %}{% for i in range(900000) %}{% if s == t %}{% endif %}"
         "{% if s < t %}{% endif %}{% endfor %}",
         "steps"},
        {X15 "{% for i in range(900000) %}{% if s.startswith(h) %}{% endif %}{% endfor %}",
         "steps"},
        {X15 "{% for i in range(900000) %}{% if 'z' in s %}{% endif %}{% endfor %}",
         "steps"},
        {X15 "{% for i in range(900000) %}{% if s|upper|length %}{% endif %}{% endfor %}",
         "more than"},
        {"{{ (-1) ** 10**18 }}{{ 2 ** 10**18 }}", "64 bits"},
        {"{{ 'a'|indent(10**12) }}{{ 'a\nb'|indent(10**12) }}", "bytes"},
        {"{{ [1]|tojson(indent=10**9) }}", "indent"},
        {"{{ range(40000)|map('string')|unique|list|length }}", "steps"},
        {"{{ range(40000)|sort(reverse=true) }}", "steps"},
        {"{% set ns = namespace() %}{% set ns.a = ns %}{{ ns.a == ns }}{% set ns.l = [ns] "
         "%}"
         "{{ ns.l|tojson }}",
         "namespace"},
    };
    struct rusage use = {0};
    dr_buf out;

    dr_buf_init(&out, 1 << 26);
    for (size_t i = 0; i < DR_COUNT(bombs); i++) {
        const double start = dr_now_s();
        const dr_status st = chat(bombs[i].source, &out);
        const double took = dr_now_s() - start;
        if (!CHECK(st == DR_EFORMAT || st == DR_EUNSUPPORTED) || !CHECK(took < 60.0))
            (void)printf("  %.1f s: %s\n", took, bombs[i].source);
        CHECK_TRAIL(bombs[i].says);
        if (getenv("CHAT_TEST_TIMES") != NULL)
            (void)printf("%6.2f s %s\n", took, bombs[i].source);
    }
    CHECK_EQ_INT(getrusage(RUSAGE_SELF, &use), 0);
    CHECK(use.ru_maxrss < 1 << 20); /* KiB; a sanitizer's own memory included */
    if (getenv("CHAT_TEST_TIMES") != NULL)
        (void)printf("%ld MiB at most\n", use.ru_maxrss / 1024);
    dr_buf_release(&out);
}

typedef struct {
    size_t ok, failed;
} tally;

/* Nothing comes out of a template that fails, and the error says what it is about. */
static void try_broken(const char *source, dr_buf *out, tally *t)
{
    if (chat(source, out) == DR_OK) {
        t->ok++;
        return;
    }
    t->failed++;
    CHECK_EQ_INT(out->len, 0);
    CHECK_TRAIL("chat template");
}

/* Every golden template cut short, and with one character replaced. */
static void test_broken(void)
{
    tally cut = {0}, noisy = {0};
    static const char noise[] = "{}%#-\"'(|.\\";
    json_t *all = NULL;
    const char *name = NULL;
    json_t *source = NULL;
    dr_buf out;

    dr_buf_init(&out, 1 << 26);
    if (!CHECK_OK(dr_json_read(&all, DRUPE_SOURCE_DIR "/tests/golden/tok/chat.json")))
        return;
    json_object_foreach(json_object_get(all, "models"), name, source)
    {
        char *text = dr_strdup(json_string_value(source));
        const size_t n = strlen(text);
        for (size_t i = 0; i < n; i += 7) {
            const char kept = text[i];
            if ((unsigned char)kept >= 0x80)
                continue; /* half a character is no template */
            text[i] = noise[i / 7 % (sizeof(noise) - 1)];
            try_broken(text, &out, &noisy);
            text[i] = '\0';
            try_broken(text, &out, &cut);
            text[i] = kept;
        }
        free(text);
    }
    /* Nearly every cut leaves something open; much of the noise is inside strings. */
    CHECK(cut.ok + cut.failed > 3000 && cut.failed > 9 * cut.ok);
    CHECK(noisy.ok > 300 && noisy.failed > 300);
    json_decref(all);
    dr_buf_release(&out);
}

int main(void)
{
    test_goldens();
    test_door();
    test_bounds();
    test_bombs();
    test_broken();
    return check_done();
}
