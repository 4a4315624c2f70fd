/*
 * check.c - the check before a commit, in a child process: a runtime that crashes, hangs or
 * eats memory does so there.
 *
 *     parent: fork -> read the report or see the pipe end -> wait4 -> judge
 *     child:  the job -> write the report -> SIGKILL
 *
 * 1. The child is a plain fork and not the program run again, since a library does not know
 *    its program.  Other threads of the parent do not exist in it; glibc hands it malloc,
 *    stdio and the loader unlocked, and it uses nothing else of ours but files.  What could
 *    still block ends at the timeout.
 * 2. The report is plain data.  A trail holds pointers to __FILE__ strings, which mean the
 *    same in parent and child.
 * 3. The child's stdout and stderr go to memory: the last line is told when it crashes, all
 *    of it at log level debug.
 * 4. The child ends by its own SIGKILL, so that none of the parent's exit handlers runs in
 *    it; its report stands, however it ended.
 */
#include "ort/check_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#    include <sys/prctl.h>
#endif

#include "core/log.h"

enum { TIMEOUT_S = 120, POLL_MS = 50, WORDS_MAX = 8192, OPEN_FDS = 4096 };

/* What the child has to say. */
typedef struct {
    dr_status st;
    bool runtime;
    size_t born_bytes; /* resident when it began, the parent's share */
    dr_trail trail;
} report;

/* How the child came to its end. */
typedef struct {
    report rep;
    bool reported;
    int status; /* of wait4 */
    size_t peak_bytes;
    bool timed_out, cancelled;
    char words[WORDS_MAX]; /* the end of what it printed */
} outcome;

/* ---- the child ---- */

static size_t resident_bytes(void)
{
    unsigned long long total = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");

    if (f == NULL)
        return 0;
    if (fscanf(f, "%llu %llu", &total, &resident) != 2)
        resident = 0;
    (void)fclose(f);
    return (size_t)resident * (size_t)sysconf(_SC_PAGESIZE);
}

dr_status check_share(void **out, size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    *out = NULL;
    if (p == MAP_FAILED)
        return dr_fail(DR_ENOMEM, "no memory to share with a child process: %zu bytes: %s",
                       bytes, strerror(errno));
    *out = p;
    return DR_OK;
}

void check_unshare(void *p, size_t bytes)
{
    if (p != NULL)
        (void)munmap(p, bytes);
}

static void write_all(int fd, const void *data, size_t n)
{
    const char *at = data;

    while (n > 0) {
        ssize_t wrote = write(fd, at, n);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return; /* the parent sees a short report */
        at += wrote;
        n -= (size_t)wrote;
    }
}

/*
 * What the parent has open is not for the child: above all the lock of an output folder,
 * which would stay taken after the parent was killed until the child is gone as well.
 * (close_range is not in every libc that this is built for.)
 */
static void close_others(int keep)
{
    for (int fd = STDERR_FILENO + 1; fd < OPEN_FDS; fd++)
        if (fd != keep)
            (void)close(fd);
}

static DR_NORETURN void child_main(const check_job *job, int pipe_fd, int words_fd)
{
    report rep = {0};

    if (words_fd >= 0) {
        (void)dup2(words_fd, STDOUT_FILENO);
        (void)dup2(words_fd, STDERR_FILENO);
    }
    close_others(pipe_fd);
#ifdef __linux__ /* elsewhere it lives until its own end */
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
    rep.born_bytes = resident_bytes();
    dr_trail_clear();
    rep.st = job->run(job->request, &rep.runtime);
    rep.trail = *dr_trail_get();
    write_all(pipe_fd, &rep, sizeof(rep));
    for (;;)
        (void)raise(SIGKILL);
}

/* ---- the parent ---- */

/* Reads until the report is whole, the pipe ends, time is up or the user has enough. */
static void read_report(outcome *o, int fd, double deadline_s)
{
    char *at = (char *)&o->rep;
    size_t have = 0;

    while (have < sizeof(o->rep)) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int ready = poll(&p, 1, POLL_MS);
        if (dr_cancelled_check() != DR_OK) {
            o->cancelled = true;
            return;
        }
        if (ready <= 0) {
            o->timed_out = dr_now_s() > deadline_s;
            if (o->timed_out)
                return;
            continue;
        }
        ssize_t n = read(fd, at + have, sizeof(o->rep) - have);
        if (n == 0 || (n < 0 && errno != EINTR))
            return;
        have += n > 0 ? (size_t)n : 0;
    }
    o->reported = true;
}

/* A child that has reported only has to exit; any other is not waited for. */
static void end_child(outcome *o, pid_t pid)
{
    struct rusage usage = {0};

    if (o->timed_out || o->cancelled)
        (void)kill(pid, SIGKILL);
    while (wait4(pid, &o->status, 0, &usage) < 0 && errno == EINTR)
        continue;
    o->peak_bytes = (size_t)usage.ru_maxrss * 1024;
}

static void read_words(outcome *o, int fd)
{
    off_t size = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;
    off_t from = size > WORDS_MAX - 1 ? size - (WORDS_MAX - 1) : 0;
    ssize_t n = size > 0 ? pread(fd, o->words, WORDS_MAX - 1, from) : 0;

    o->words[n > 0 ? n : 0] = '\0';
    while (n > 0 && (o->words[n - 1] == '\n' || o->words[n - 1] == ' '))
        o->words[--n] = '\0';
}

static const char *last_line(const char *words)
{
    const char *line = strrchr(words, '\n');

    return line != NULL ? line + 1 : words;
}

/* sigabbrev_np is younger than the libc that this is built for. */
static const char *signal_name(int number)
{
    static const struct {
        int number;
        const char *name;
    } names[] = {{SIGSEGV, "SIGSEGV"}, {SIGABRT, "SIGABRT"}, {SIGILL, "SIGILL"},
                 {SIGFPE, "SIGFPE"},   {SIGBUS, "SIGBUS"},   {SIGKILL, "SIGKILL"},
                 {SIGTERM, "SIGTERM"}, {SIGSYS, "SIGSYS"},   {SIGTRAP, "SIGTRAP"}};

    for (size_t i = 0; i < DR_COUNT(names); i++)
        if (names[i].number == number)
            return names[i].name;
    return "a signal";
}

static dr_status judge(const outcome *o, const check_job *job, ort_check_result *out)
{
    const char *line = last_line(o->words);
    const char *sep = line[0] != '\0' ? ": " : "";

    if (o->words[0] != '\0')
        dr_log(DR_DEBUG, "%s: the check printed: %s", job->what, o->words);
    if (o->cancelled)
        return dr_cancelled_check();
    if (o->timed_out)
        return dr_fail(DR_EDEVICE, "%s: the check was not done after %.0f s", job->what,
                       out->seconds);
    if (!o->reported && WIFSIGNALED(o->status)) {
        return dr_fail(DR_EDEVICE, "%s: the runtime crashed on it with %s%s%s", job->what,
                       signal_name(WTERMSIG(o->status)), sep, line);
    }
    if (!o->reported)
        return dr_fail(DR_EDEVICE, "%s: the check ended without a word, status %d%s%s",
                       job->what, WIFEXITED(o->status) ? WEXITSTATUS(o->status) : -1, sep,
                       line);
    if (o->rep.st != DR_OK && !o->rep.runtime) {
        (void)snprintf(out->why, sizeof(out->why), "%s", o->rep.trail.frames[0].text);
        return DR_OK;
    }
    out->checked = true;
    if (o->rep.st != DR_OK)
        dr_trail_set(&o->rep.trail);
    return o->rep.st;
}

dr_status check_start(check_child *c, const check_job *job)
{
    int ends[2] = {-1, -1};
    dr_status st = DR_OK;

    *c = (check_child){.start_s = dr_now_s(), .report_fd = -1, .words_fd = -1};
    c->limit_s = job->timeout_s > 0 ? job->timeout_s : (double)TIMEOUT_S;
    c->words_fd = memfd_create("drupe-check", MFD_CLOEXEC);
    if (pipe2(ends, O_CLOEXEC) != 0)
        DR_FAIL(DR_EIO, "%s: cannot check it: no pipe: %s", job->what, strerror(errno));
    c->pid = fork();
    if (c->pid == 0) {
        (void)close(ends[0]);
        child_main(job, ends[1], c->words_fd);
    }
    if (c->pid < 0)
        DR_FAIL(DR_EIO, "%s: cannot check it: no process: %s", job->what, strerror(errno));
    c->report_fd = ends[0];
    ends[0] = -1;
done:
    for (int i = 0; i < 2; i++)
        if (ends[i] >= 0)
            (void)close(ends[i]);
    if (st != DR_OK && c->words_fd >= 0)
        (void)close(c->words_fd);
    return st;
}

bool check_ended(const check_child *c)
{
    struct pollfd p = {.fd = c->report_fd, .events = POLLIN};

    return poll(&p, 1, 0) > 0;
}

dr_status check_finish(ort_check_result *out, check_child *c, const check_job *job)
{
    outcome o = {0};

    *out = (ort_check_result){0};
    read_report(&o, c->report_fd, c->start_s + c->limit_s);
    end_child(&o, c->pid);
    read_words(&o, c->words_fd);
    (void)close(c->report_fd);
    if (c->words_fd >= 0)
        (void)close(c->words_fd);
    c->pid = 0;
    out->seconds = dr_now_s() - c->start_s;
    if (o.reported && o.peak_bytes > o.rep.born_bytes)
        out->peak_bytes = o.peak_bytes - o.rep.born_bytes;
    return judge(&o, job, out);
}

void check_kill(check_child *c)
{
    outcome o = {.cancelled = true};

    if (c->pid <= 0)
        return;
    end_child(&o, c->pid);
    (void)close(c->report_fd);
    if (c->words_fd >= 0)
        (void)close(c->words_fd);
    c->pid = 0;
}

dr_status check_in_child(ort_check_result *out, const check_job *job)
{
    check_child c;
    dr_status st = DR_OK;

    *out = (ort_check_result){0};
    DR_TRY(check_start(&c, job));
    DR_TRY(check_finish(out, &c, job));
done:
    return st;
}

dr_status ort_check(ort_check_result *out, const ort_check_request *q)
{
    const check_job job = {q->dir, check_folder, q, q->timeout_s};

    return check_in_child(out, &job);
}
