/*
 * str_format_test.c - templates as Python's str.format fills them.
 */
#include "check.h"

#include "data/data.h"

static const char *const names[] = {"prompt", "response", "tags", "a b"};
static const char *const values[] = {"What {is} it?", "caf\xc3\xa9", NULL, "x"};

static dr_buf out;

static dr_status format(const char *template_text, bool decode_escapes)
{
    dr_buf_reset(&out);
    dr_trail_clear();
    return data_format(&out, template_text, decode_escapes, names, values, DR_COUNT(names));
}

static void gives(const char *template_text, const char *want)
{
    if (CHECK_OK(format(template_text, true)))
        CHECK_STR(out.data, want);
}

static void fails(const char *template_text, dr_status want, const char *text)
{
    CHECK_STATUS(format(template_text, true), want);
    CHECK_TRAIL(text);
}

static void test_fields(void)
{
    gives("", "");
    gives("plain", "plain");
    gives("{prompt}", "What {is} it?"); /* values are not looked at again */
    gives("{response}{response}", "caf\xc3\xa9"
                                  "caf\xc3\xa9");
    gives("<|user|>\\n{prompt}<|end|>\\n<|assistant|>\\n{response}<|end|>",
          "<|user|>\nWhat {is} it?<|end|>\n<|assistant|>\ncaf\xc3\xa9<|end|>");
    gives("{a b}", "x");
}

static void test_braces(void)
{
    gives("{{}}", "{}");
    gives("{{prompt}}", "{prompt}");
    gives("{{{prompt}}}", "{What {is} it?}");
    gives("}}{{", "}{");
    fails("a } b", DR_EFORMAT, "a single } at \"} b\"");
    fails("a { b", DR_EFORMAT, "a { has no }: \"{ b\"");
    fails("{", DR_EFORMAT, "a { has no }");
    fails("{}", DR_EFORMAT, "{} names no column");
    fails("{prompt}}", DR_EFORMAT, "a single }");
}

static void test_columns(void)
{
    fails("{promt}", DR_EFORMAT, "no column \"promt\"; columns: prompt, response");
    CHECK_TRAIL("did you mean {prompt}?");
    fails("{0}", DR_EFORMAT, "no column \"0\"");
    fails("{ prompt }", DR_EFORMAT, "no column \" prompt \"");
    fails("{tags}", DR_EUNSUPPORTED, "{tags} is a list or an object, not text");
    fails("{prompt!r}", DR_EUNSUPPORTED, "{prompt!r}: only {column} is supported, not !");
    fails("{prompt:>10}", DR_EUNSUPPORTED, "not :");
    fails("{prompt.x}", DR_EUNSUPPORTED, "not .");
    fails("{prompt[0]}", DR_EUNSUPPORTED, "not [");
}

static void test_escapes(void)
{
    gives("a\\nb\\tc\\\\n", "a\nb\tc\\n");
    gives("\\'\\\"\\r\\a\\b\\f\\v", "'\"\r\a\b\f\v");
    gives("\\x41\\u00e9\\u20AC\\U0001f642", "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x99\x82");
    gives("\\d\\{{", "\\d\\{"); /* unknown escapes stay */
    gives("end\\", "end\\");
    gives("caf\xc3\xa9\\n", "caf\xc3\xa9\n"); /* UTF-8 stays UTF-8 */
    fails("\\x4", DR_EUSAGE, "\\x needs 2 hexadecimal digits");
    fails("\\u12G4", DR_EUSAGE, "\\u needs 4 hexadecimal digits");
    fails("\\ud800", DR_EUSAGE, "no character");
    fails("\\U00110000", DR_EUSAGE, "no character");
    fails("\\x00", DR_EUSAGE, "no character");
    fails("\\N{DASH}", DR_EUNSUPPORTED, "\\N");
    fails("\\101", DR_EUNSUPPORTED, "\\1");
    if (CHECK_OK(format("a\\nb", false)))
        CHECK_STR(out.data, "a\\nb");
    gives("\\x7bprompt\\x7d", "What {is} it?"); /* escapes first, as Olive's command line */
}

static void test_limits(void)
{
    static char big[1 << 20];

    memset(big, 'x', sizeof(big) - 1);
    CHECK_OK(format(big, true));
    CHECK_EQ_INT(out.len, sizeof(big) - 1);
    static char field[400] = "{";
    memset(field + 1, 'y', 300);
    field[301] = '}';
    fails(field, DR_EFORMAT, "names no column");
}

int main(void)
{
    dr_buf_init(&out, (size_t)4 << 20);
    test_fields();
    test_braces();
    test_columns();
    test_escapes();
    test_limits();
    dr_buf_release(&out);
    return check_done();
}
