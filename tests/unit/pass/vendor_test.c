/*
 * vendor_test.c - programs of vendors, which are small scripts here: found in an SDK or in
 * PATH, given their arguments as they are, judged by how they end and what they leave.
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log.h"
#include "pass/vendor_impl.h"
#include "pass_fixture.h"

static dr_arena arena;
static const pass_def in_path = {.name = "Tried", .program = "ovc"};
static const pass_def of_sdk = {.name = "TriedSdk", .program = "qnn-model-lib-generator"};

static void script(const char *path, const char *text)
{
    const char *all = dr_arena_printf(&arena, "#!/bin/sh\n%s\n", text);

    CHECK_OK(dr_make_dirs(dr_path_dir(&arena, path)));
    CHECK_OK(dr_write_file(path, all, strlen(all)));
    CHECK(chmod(path, 0700) == 0);
}

static dr_status run(const pass_def *d, const char *words, const char *output)
{
    dr_buf text;
    const pass_job job = {.def = d, .arena = &arena, .text = &text, .out_dir = check_tmp()};
    const char *const outputs[] = {output, NULL};
    vendor_args args = vendor_args_new(&arena);
    dr_status st = DR_OK;

    dr_trail_clear();
    dr_buf_init(&text, 1 << 16);
    DR_TRY(vendor_arg_words(&args, words, "words"));
    DR_TRY(vendor_run(
        &job, &args,
        &(vendor_work){.dir = check_tmp(), .outputs = output != NULL ? outputs : NULL}));
done:
    dr_buf_release(&text);
    return st;
}

static const char *content(const char *name)
{
    dr_buf b;

    dr_buf_init(&b, 1 << 16);
    CHECK_OK(dr_read_file(&b, in_tmp(&arena, name)));
    const char *text = dr_arena_strdup(&arena, b.data);
    dr_buf_release(&b);
    return text;
}

static const char *frame(int i)
{
    return dr_trail_get()->count > i ? dr_trail_get()->frames[i].text : "";
}

static void found(void)
{
    pass_program p;
    char one[DR_SHA256_HEX], two[DR_SHA256_HEX];

    (void)setenv("PATH", in_tmp(&arena, "nowhere"), 1);
    (void)unsetenv("QNN_SDK_ROOT");
    CHECK_EQ_INT(run(&in_path, NULL, NULL), DR_EUNSUPPORTED);
    CHECK_STR(frame(0), "Tried runs ovc, which is not installed: looked for it in PATH");
    CHECK_STR(dr_trail_get()->hint, "install it: pip install openvino");
    CHECK_EQ_INT(run(&of_sdk, NULL, NULL), DR_EUNSUPPORTED);
    CHECK_STR(frame(0), "TriedSdk runs qnn-model-lib-generator, which is not installed: "
                        "looked for it in PATH (QNN_SDK_ROOT is not set)");
    /* in a Python environment: another package beside it is another program */
    script(in_tmp(&arena, "env/bin/ovc"), "exit 0");
    (void)setenv("PATH", in_tmp(&arena, "env/bin"), 1);
    (void)pass_program_find(&p, &arena, &in_path, NULL);
    CHECK_STR(p.path, in_tmp(&arena, "env/bin/ovc"));
    CHECK_OK(pass_program_identity(one, &p));
    CHECK_OK(pass_program_identity(two, &p));
    CHECK_STR(one, two);
    CHECK_OK(dr_make_dirs(
        in_tmp(&arena, "env/lib/python3.11/site-packages/openvino-1.0.dist-info")));
    CHECK_OK(pass_program_identity(two, &p));
    CHECK(strcmp(one, two) != 0);
    script(in_tmp(&arena, "env/bin/ovc"), "exit 1");
    CHECK_OK(pass_program_identity(one, &p));
    CHECK(strcmp(one, two) != 0);
    /* not a program */
    CHECK(chmod(p.path, 0600) == 0);
    (void)pass_program_find(&p, &arena, &in_path, NULL);
    CHECK(p.path == NULL);
}

static void in_an_sdk(void)
{
    const char *root = in_tmp(&arena, "sdk");
    const char *bin = in_tmp(&arena, "sdk/bin/x86_64-linux-clang/qnn-model-lib-generator");
    pass_program p;
    char one[DR_SHA256_HEX], two[DR_SHA256_HEX];

    if (sysconf(_SC_NPROCESSORS_ONLN) < 1)
        return;
#if defined(__x86_64__)
    script(bin, "echo \"$PATH\" >path; echo \"$LD_LIBRARY_PATH\" >lib; "
                "echo \"$PYTHONPATH $SDK_ROOT\" >python");
    script(in_tmp(&arena, "sdk/olive-pyenv/bin/python3"), "exit 0");
    (void)setenv("QNN_SDK_ROOT", root, 1);
    (void)setenv("PATH", "/usr/bin:/bin", 1);
    (void)setenv("LD_LIBRARY_PATH", "/had", 1);
    CHECK_OK(run(&of_sdk, NULL, NULL));
    CHECK_STR(content("path"),
              dr_arena_printf(&arena,
                              "%s/olive-pyenv/bin:%s/bin/x86_64-linux-clang:"
                              "/usr/bin:/bin\n",
                              root, root));
    CHECK_STR(content("lib"),
              dr_arena_printf(&arena, "%s/lib/x86_64-linux-clang:/had\n", root));
    CHECK_STR(content("python"), dr_arena_printf(&arena, "%s/lib/python %s\n", root, root));
    (void)pass_program_find(&p, &arena, &of_sdk, NULL);
    CHECK_OK(pass_program_identity(one, &p));
    CHECK_OK(dr_write_file(in_tmp(&arena, "sdk/sdk.yaml"), "v: 2\n", 5));
    CHECK_OK(pass_program_identity(two, &p));
    CHECK(strcmp(one, two) != 0);
#else
    (void)root;
    (void)bin;
    (void)p;
    (void)one;
    (void)two;
#endif
    (void)unsetenv("QNN_SDK_ROOT");
    (void)unsetenv("LD_LIBRARY_PATH");
}

static void ended(void)
{
    const char *ovc = in_tmp(&arena, "bin/ovc");

    (void)setenv("PATH", dr_arena_printf(&arena, "%s:/usr/bin:/bin", in_tmp(&arena, "bin")),
                 1);
    script(ovc, "for a in \"$@\"; do echo \"<$a>\"; done >said");
    CHECK_OK(run(&in_path, " a  'b c' d\\ e \"f 'g'\" '$(touch x)' ", "said"));
    CHECK_STR(content("said"), "<a>\n<b c>\n<d e>\n<f 'g'>\n<$(touch x)>\n");
    CHECK_EQ_INT(run(&in_path, "a 'b", NULL), DR_EUSAGE);
    CHECK_STR(frame(0), "words: a quote has no end in a 'b");

    script(ovc, "i=0; while [ $i -lt 9 ]; do echo line $i >&2; i=$((i + 1)); done; exit 3");
    CHECK_EQ_INT(run(&in_path, NULL, NULL), DR_EDEVICE);
    CHECK_STR(frame(0), "ovc failed with status 3");
    CHECK_STR(frame(1), "ovc: line 3"); /* the last six */
    CHECK_STR(frame(6), "ovc: line 8");

    script(ovc, "echo working; kill -9 $$");
    CHECK_EQ_INT(run(&in_path, NULL, NULL), DR_EDEVICE);
    CHECK_STR(frame(0), "ovc was killed by signal 9 (Killed)");
    CHECK_STR(frame(1), "ovc: working");

    script(ovc, "exit 0");
    CHECK_EQ_INT(run(&in_path, NULL, "absent.xml"), DR_EDEVICE);
    CHECK_STR(frame(0), "ovc ended with status 0 and wrote no absent.xml");
    script(ovc, ": >empty.xml");
    CHECK_EQ_INT(run(&in_path, NULL, "empty.xml"), DR_EDEVICE);
    CHECK_STR(frame(0), "ovc left empty.xml empty");

    script(ovc, "exec /nonexistent");
    CHECK_EQ_INT(run(&in_path, NULL, NULL), DR_EDEVICE);
    CHECK_OK(dr_write_file(ovc, "#!/nonexistent\n", 15)); /* no interpreter */
    CHECK(chmod(ovc, 0700) == 0);
    CHECK_EQ_INT(run(&in_path, NULL, NULL), DR_EDEVICE);
    CHECK_STR(frame(0),
              dr_arena_printf(&arena, "%s cannot be run: No such file or directory", ovc));
}

/* What it started does not outlive it, and is not waited for. */
static void left_behind(void)
{
    script(in_tmp(&arena, "bin/ovc"), "(sleep 30; echo late >late) & echo $! >pid");
    const double began = dr_now_s();
    CHECK_OK(run(&in_path, NULL, "pid"));
    CHECK(dr_now_s() - began < 20);
    const int pid = (int)strtol(content("pid"), NULL, 10);
    for (int i = 0; i < 100 && kill(pid, 0) == 0; i++)
        (void)usleep(20000);
    char state[64] = "";
    FILE *f = fopen(dr_arena_printf(&arena, "/proc/%d/stat", pid), "r");
    if (f != NULL) { /* a zombie, where nothing reaps it */
        (void)!fgets(state, sizeof(state), f);
        (void)fclose(f);
        CHECK(strstr(state, ") Z") != NULL);
    }
}

static void stop(int signal)
{
    (void)signal;
    dr_cancel();
}

/* The last one: a cancelled process stays so. */
static void cancelled(void)
{
    script(in_tmp(&arena, "bin/ovc"),
           "trap '' TERM; echo $$ >pid; while :; do sleep 1; done");
    (void)signal(SIGALRM, stop);
    (void)alarm(1);
    const double began = dr_now_s();
    CHECK_EQ_INT(run(&in_path, NULL, NULL), DR_ECANCELLED);
    CHECK(dr_now_s() - began < 20);
    CHECK(kill((pid_t)strtol(content("pid"), NULL, 10), 0) != 0);
}

int main(void)
{
    found();
    in_an_sdk();
    ended();
    left_behind();
    cancelled();
    dr_arena_release(&arena);
    return check_done();
}
