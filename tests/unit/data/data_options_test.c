/*
 * data_options_test.c - options that contradict or lack each other are refused before a
 * file is opened.
 */
#include "check.h"

#include "core/file.h"
#include "data/data.h"

static dr_arena arena;

static void refused(data_options o, dr_status want, const char *text)
{
    dr_trail_clear();
    CHECK_STATUS(data_check(&o), want);
    CHECK_TRAIL(text);
}

int main(void)
{
    const char *a = dr_path_join(&arena, check_tmp(), "a.jsonl");
    const char *both = dr_arena_printf(&arena, "%s,%s", a, a);

    CHECK_OK(dr_write_file(a, "{}\n", 3));
    CHECK_OK(data_check(&(data_options){0}));
    CHECK_OK(data_check(&(data_options){.add_special_tokens = true, .max_seq_len = 8}));
    CHECK_OK(data_check(&(data_options){.data_name = "json", .data_files = both}));
    CHECK_OK(data_check(
        &(data_options){.data_name = "text", .data_files = a, .text_template = "{text}"}));
    CHECK_OK(data_check(
        &(data_options){.data_name = "text", .data_files = a, .text_field = "text"}));

    refused((data_options){.data_name = "json"}, DR_EUSAGE, "json needs data_files");
    refused((data_options){.data_files = a}, DR_EUSAGE, "data_files needs data_name");
    refused((data_options){.text_field = "x"}, DR_EUSAGE, "need data_name");
    refused((data_options){.use_chat_template = true}, DR_EUSAGE, "need data_name");
    refused((data_options){.data_name = "json",
                           .data_files = a,
                           .text_field = "x",
                           .text_template = "{x}"},
            DR_EUSAGE, "only one of them");
    refused((data_options){.data_name = "json",
                           .data_files = a,
                           .use_chat_template = true,
                           .add_special_tokens = true},
            DR_EUSAGE, "the chat template writes its own");
    refused((data_options){.data_name = "text", .data_files = a, .use_chat_template = true},
            DR_EUSAGE, "which data_name text has not");
    refused((data_options){.data_name = "text", .data_files = a, .text_field = "x"},
            DR_EUSAGE, "is called text");

    refused((data_options){.data_name = "parquet", .data_files = a}, DR_EUSAGE,
            "data_name parquet: json, csv and text are read");
    refused((data_options){.data_name = "parquet", .data_files = a}, DR_EUSAGE,
            "a.jsonl').to_json('data.jsonl', orient='records', lines=True)");
    CHECK_OK(data_check(&(data_options){.data_name = "csv", .data_files = a}));
    refused((data_options){.strategy = DATA_JOIN_SLIDING_WINDOW}, DR_EUSAGE,
            "needs stride");
    refused((data_options){.random_seed = 3}, DR_EUSAGE, "strategy join draws nothing");
    CHECK_OK(data_check(&(data_options){.random_seed = 3, .self_written = true}));
    refused((data_options){.stride = 3}, DR_EUSAGE,
            "stride belongs to strategy join-sliding-window, not to join");
    refused(
        (data_options){.strategy = DATA_JOIN_SLIDING_WINDOW, .stride = 9, .max_seq_len = 8},
        DR_EUSAGE, "stride 9 is more than max_seq_len 8");
    refused((data_options){.self_written = true, .data_name = "json", .data_files = a},
            DR_EUSAGE, "the model writes the text");
    refused((data_options){.self_written = true, .strategy = DATA_LINE_BY_LINE}, DR_EUSAGE,
            "are for rows of files");
    refused((data_options){.data_name = "Salesforce/wikitext"}, DR_EUSAGE,
            "data sets of the hub are not read yet");
    refused((data_options){.data_name = "json", .data_files = "no/such.jsonl"}, DR_EIO,
            "data_files: no/such.jsonl: no such file");
    refused((data_options){.data_name = "json", .data_files = check_tmp()}, DR_EIO,
            "is not a file");
    refused((data_options){.data_name = "json", .data_files = "data/*.jsonl"}, DR_EIO,
            "patterns are not expanded");
    refused((data_options){.data_name = "json", .data_files = "https://x/a.jsonl"},
            DR_EUSAGE, "only local files are read");
    refused((data_options){.data_name = "json",
                           .data_files = dr_arena_printf(&arena, "%s,,%s", a, a)},
            DR_EUSAGE, "an empty name");
    dr_arena_release(&arena);
    return check_done();
}
