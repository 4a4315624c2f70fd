/*
 * json_tool.c - for cases: reads one JSON value from standard input.
 *
 *   json_tool keys       the object's keys in their order
 *   json_tool get a 0 b  what lies at a, element 0, b: a string bare, else as JSON
 *
 * Exit 1: not one JSON value (anything else on stdout would make it so), or nothing there.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int print_keys(json_t *v)
{
    const char *key, *mark = "";
    json_t *member;

    if (!json_is_object(v))
        return 1;
    json_object_foreach(v, key, member)
    {
        (void)printf("%s%s", mark, key);
        mark = " ";
    }
    (void)printf("\n");
    return 0;
}

static int print_value(json_t *v, int argc, char **argv)
{
    for (int i = 0; i < argc && v != NULL; i++)
        v = json_is_array(v) ? json_array_get(v, strtoul(argv[i], NULL, 10))
                             : json_object_get(v, argv[i]);
    if (v == NULL)
        return 1;
    if (json_is_string(v)) {
        (void)printf("%s\n", json_string_value(v));
        return 0;
    }
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    if (text != NULL)
        (void)printf("%s\n", text);
    free(text);
    return text == NULL;
}

int main(int argc, char **argv)
{
    json_error_t err;
    json_t *v = json_loadf(stdin, JSON_DECODE_ANY, &err);
    int rc = 1;

    if (v == NULL)
        (void)printf("not JSON: %d:%d: %s\n", err.line, err.column, err.text);
    else if (argc > 1 && strcmp(argv[1], "keys") == 0)
        rc = print_keys(v);
    else if (argc > 1 && strcmp(argv[1], "get") == 0)
        rc = print_value(v, argc - 2, argv + 2);
    json_decref(v);
    return rc;
}
