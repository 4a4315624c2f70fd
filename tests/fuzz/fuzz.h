/*
 * fuzz.h - what a fuzz target is written with: a folder of this process for the files that
 * a reader wants by path, and uses of what came out of a reader.
 *
 * A target is one LLVMFuzzerTestOneInput.  It writes the input where the reader looks for
 * it, opens it through the room's door, uses what it got and releases it: a status is fine
 * whatever it is; what must not be is a crash, a leak, undefined behaviour, more time than
 * fuzz_begin gives or more memory than the limits in tools/fuzz.  Targets keep nothing from
 * one input to the next but files that stay the same.
 */
#ifndef DRUPE_TESTS_FUZZ_H
#define DRUPE_TESTS_FUZZ_H

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/buf.h"
#include "core/file.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(__clang__)
enum { FUZZ_SECONDS = 12 }; /* sanitizers are about six times as slow */
#else
enum { FUZZ_SECONDS = 2 };
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline void fuzz_too_slow(int signal_number)
{
    static const char text[] = "fuzz: an input takes too long\n";

    (void)signal_number;
    (void)!write(STDERR_FILENO, text, sizeof(text) - 1);
    abort();
}

/* The first call of a target: so much processor time does an input have.  A clock on the
 * wall would say more about what else the machine does. */
static inline void fuzz_begin(void)
{
    const struct itimerval limit = {.it_value = {.tv_sec = FUZZ_SECONDS}};

    if (signal(SIGPROF, fuzz_too_slow) == SIG_ERR ||
        setitimer(ITIMER_PROF, &limit, NULL) != 0) {
        perror("fuzz_begin");
        exit(2);
    }
}

static char fuzz_dir_path[64]; /* empty until fuzz_dir() */

static inline void fuzz_remove_dir(void)
{
    if (dr_remove_tree(fuzz_dir_path) != DR_OK)
        (void)fprintf(stderr, "%s: left behind\n", fuzz_dir_path);
}

/* A folder in memory, where the system has one, for this process. */
static inline const char *fuzz_dir(void)
{
    if (fuzz_dir_path[0] != '\0')
        return fuzz_dir_path;
    (void)snprintf(fuzz_dir_path, sizeof(fuzz_dir_path), "%s/drupe-fuzz-XXXXXX",
                   access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (mkdtemp(fuzz_dir_path) == NULL || atexit(fuzz_remove_dir) != 0) {
        perror(fuzz_dir_path);
        exit(2);
    }
    return fuzz_dir_path;
}

/* The folder's file of this name ("model.safetensors"); path[256] is filled. */
static inline const char *fuzz_path(char *path, const char *name)
{
    (void)snprintf(path, 256, "%s/%s", fuzz_dir(), name);
    return path;
}

/* Writes it, without the sync that a result's file has. */
static inline void fuzz_put(const char *name, const void *data, size_t size)
{
    char path[256];
    int fd = open(fuzz_path(path, name), O_WRONLY | O_CREAT | O_TRUNC, 0600);

    if (fd < 0 || write(fd, data, size) != (ssize_t)size || close(fd) != 0) {
        perror(path);
        exit(2);
    }
}

static inline void fuzz_drop(const char *name)
{
    char path[256];

    (void)unlink(fuzz_path(path, name));
}

/* A file of tests/ that a target needs beside its input. */
static inline void fuzz_put_file(const char *name, const char *source)
{
    char path[512];
    dr_buf b;

    (void)snprintf(path, sizeof(path), DRUPE_SOURCE_DIR "/tests/%s", source);
    dr_buf_init(&b, 1 << 20);
    if (dr_read_file(&b, path) != DR_OK) {
        (void)fprintf(stderr, "%s: cannot be read\n", path);
        exit(2);
    }
    fuzz_put(name, b.data, b.len);
    dr_buf_release(&b);
}

#endif
