/*
 * store_server.c - a web server of a folder (tests/store_server.h), for programs that are
 * killed: store_server FOLDER PORT-FILE.  It ends with its standard input.
 */
#include "store_server.h"

int main(int argc, char **argv)
{
    char line[32], rest[64];

    if (argc != 3 || !shop_start(argv[1], SERVE_WEB))
        return 2;
    const int n = snprintf(line, sizeof(line), "%d\n", shop.port);
    if (dr_write_file(argv[2], line, (size_t)n) != DR_OK)
        return 2;
    while (read(STDIN_FILENO, rest, sizeof(rest)) > 0)
        ;
    shop_stop();
    return 0;
}
