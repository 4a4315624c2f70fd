/*
 * data_options.c - data options that make sense together, before anything long begins.
 */
#include <string.h>

#include "core/file.h"
#include "core/param.h"
#include "data/row_impl.h"

dr_status data_files_split(dr_arena *a, char ***paths, size_t *count,
                           const char *data_files)
{
    size_t max = 1, n = 0;
    dr_status st = DR_OK;

    for (const char *p = data_files; *p; p++)
        max += *p == ',';
    *paths = dr_arena_alloc(a, max, sizeof(char *));
    for (char *p = dr_arena_strdup(a, data_files), *next; p != NULL; p = next) {
        next = strchr(p, ',');
        if (next != NULL)
            *next++ = '\0';
        if (*p == '\0')
            DR_FAIL(DR_EUSAGE, "data_files: an empty name in \"%s\"", data_files);
        (*paths)[n++] = p;
    }
    *count = n;
done:
    return st;
}

/* ---- strategies ---- */

static const char *const strategies[] = {[DATA_JOIN] = "join",
                                         [DATA_JOIN_RANDOM] = "join-random",
                                         [DATA_JOIN_SLIDING_WINDOW] = "join-sliding-window",
                                         [DATA_LINE_BY_LINE] = "line-by-line",
                                         [DATA_LINE_BY_LINE_RANDOM] = "line-by-line-random",
                                         [DATA_PACKING] = "packing"};

const char *data_strategy_name(data_strategy s)
{
    return strategies[s];
}

dr_status data_strategy_named(data_strategy *out, const char *name)
{
    dr_status st = DR_OK;

    *out = DATA_JOIN;
    if (name == NULL)
        return DR_OK;
    for (size_t i = 0; i < DR_COUNT(strategies); i++) {
        if (strcmp(name, strategies[i]) == 0) {
            *out = (data_strategy)i;
            return DR_OK;
        }
    }
    st = dr_fail(DR_EUSAGE, "strategy \"%s\" is not known", name);
    const char *near = dr_nearest(name, strategies, DR_COUNT(strategies));
    dr_hint(near != NULL ? "did you mean %s?" : "the plain one is %s",
            near != NULL ? near : "join");
    return st;
}

/* ---- options ---- */

void data_hint_parquet(const char *path)
{
    dr_hint("convert it and give --data_name json: python -c \"import pandas; "
            "pandas.read_parquet('%s').to_json('data.jsonl', orient='records', "
            "lines=True)\"",
            path);
}

static dr_status check_name(const char *name, const char *files)
{
    static const char *const kinds[] = {"parquet", "arrow", "pandas", "xml", "webdataset"};
    dr_status st = DR_OK;

    if (name == NULL || strcmp(name, "json") == 0 || strcmp(name, "csv") == 0 ||
        strcmp(name, "text") == 0)
        return DR_OK;
    for (size_t i = 0; i < DR_COUNT(kinds); i++) {
        if (strcmp(name, kinds[i]) != 0)
            continue;
        st = dr_fail(DR_EUSAGE, "data_name %s: json, csv and text are read", name);
        if (i == 0)
            data_hint_parquet(files != NULL ? files : "data.parquet");
        else
            dr_hint("convert it to JSON lines and give --data_name json");
        return st;
    }
    st =
        dr_fail(DR_EUSAGE, "data_name \"%s\": data sets of the hub are not read yet", name);
    dr_hint("download it and give --data_name json --data_files FILE (json, csv, text)");
    return st;
}

static dr_status check_files(const char *data_files)
{
    dr_arena a = {0};
    char **paths = NULL;
    size_t count = 0;
    dr_status st = DR_OK;

    DR_TRY(data_files_split(&a, &paths, &count, data_files));
    for (size_t i = 0; i < count; i++) {
        if (dr_is_file(paths[i]))
            continue;
        if (strstr(paths[i], "://") != NULL)
            DR_FAIL(DR_EUSAGE, "data_files: %s: only local files are read", paths[i]);
        st = dr_fail(DR_EIO, "data_files: %s: %s", paths[i],
                     dr_exists(paths[i]) ? "is not a file" : "no such file");
        if (strpbrk(paths[i], "*?[") != NULL)
            dr_hint("patterns are not expanded; name the files, with commas between");
        goto done;
    }
done:
    dr_arena_release(&a);
    return st;
}

/* What goes with a strategy and with text of the model's own. */
static dr_status check_how(const data_options *o)
{
    bool sliding = o->strategy == DATA_JOIN_SLIDING_WINDOW;
    dr_status st = DR_OK;

    if (sliding && o->stride == 0)
        DR_FAIL(DR_EUSAGE, "strategy join-sliding-window needs stride");
    if (!sliding && o->stride > 0)
        DR_FAIL(DR_EUSAGE, "stride belongs to strategy join-sliding-window, not to %s",
                data_strategy_name(o->strategy));
    if (sliding && o->max_seq_len > 0 && o->stride > o->max_seq_len)
        DR_FAIL(DR_EUSAGE,
                "stride %zu is more than max_seq_len %zu: text between blocks "
                "would be lost",
                o->stride, o->max_seq_len);
    if (o->random_seed > 0 && !o->self_written && o->strategy != DATA_JOIN_RANDOM &&
        o->strategy != DATA_LINE_BY_LINE_RANDOM)
        DR_FAIL(DR_EUSAGE, "random_seed: strategy %s draws nothing",
                data_strategy_name(o->strategy));
    if (o->self_written && o->data_name != NULL)
        DR_FAIL(DR_EUSAGE, "calibration_source self: the model writes the text; leave "
                           "data_name out");
    if (o->self_written && (o->strategy != DATA_JOIN || o->add_special_tokens))
        DR_FAIL(DR_EUSAGE, "calibration_source self: strategy and add_special_tokens are "
                           "for rows of files");
done:
    return st;
}

dr_status data_check(const data_options *o)
{
    int ways = (o->text_field != NULL) + (o->text_template != NULL) + o->use_chat_template;
    bool text = o->data_name != NULL && strcmp(o->data_name, "text") == 0;
    size_t from = 0, end = 0;
    dr_status st = DR_OK;

    if (ways > 1)
        DR_FAIL(DR_EUSAGE,
                "text_field, text_template and use_chat_template: only one of them");
    DR_TRY(check_name(o->data_name, o->data_files));
    if (o->data_name != NULL && o->data_files == NULL)
        DR_FAIL(DR_EUSAGE, "data_name %s needs data_files", o->data_name);
    if (o->data_name == NULL && o->data_files != NULL)
        DR_FAIL(DR_EUSAGE, "data_files needs data_name: json, csv or text");
    if (o->data_name == NULL && o->split != NULL)
        DR_FAIL(DR_EUSAGE, "split %s needs data_name and data_files", o->split);
    DR_TRY(data_split_rows(&from, &end, o->split, 100));
    if (o->data_name == NULL && ways > 0)
        DR_FAIL(DR_EUSAGE, "text_field, text_template and use_chat_template need data_name "
                           "and data_files");
    if (text && o->use_chat_template)
        DR_FAIL(DR_EUSAGE, "use_chat_template needs a column \"messages\", which data_name "
                           "text has not");
    if (text && o->text_field != NULL && strcmp(o->text_field, "text") != 0)
        DR_FAIL(DR_EUSAGE, "text_field %s: the one column of data_name text is called text",
                o->text_field);
    if (o->answers_only && o->text_template == NULL && !o->use_chat_template)
        DR_FAIL(DR_EUSAGE, "completion_only_loss needs text_template or use_chat_template: "
                           "a text alone does not say what is answered");
    if (o->answers_only && o->text_template != NULL &&
        o->text_template[data_answer_field(o->text_template)] == '\0')
        DR_FAIL(DR_EUSAGE, "completion_only_loss: no column in text_template \"%s\"",
                o->text_template);
    DR_TRY(check_how(o));
    if (o->use_chat_template && o->add_special_tokens)
        DR_FAIL(DR_EUSAGE, "add_special_tokens: the chat template writes its own");
    if (o->data_files != NULL)
        DR_TRY(check_files(o->data_files));
done:
    return st;
}
