/*
 * workers_test.c - what a search and its workers say to each other, line by line; how
 * workers of a host share its processors; which process of several a run is.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/mem.h"
#include "flow/workers_impl.h"

#include "check.h"

/* Python: hmac.new(b"secret", b"worker 1 2", "sha256").hexdigest() */
static const char python_says[] =
    "e0444fb0c056d3e6cdfd1729245af8e4f6c58f9c3fd7884903bf07f615152f13";

static void test_lines(void)
{
    int ends[2] = {-1, -1};
    json_t *j = json_pack("{s:[i, s]}", "steps", 7, "a\nb"); /* one line all the same */
    json_t *got = NULL;
    dr_buf b;

    dr_buf_init(&b, 64);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    CHECK(line_send(ends[0], j) && line_send(ends[0], j));
    CHECK(line_receive(ends[1], &b));
    for (int i = 0; i < 2; i++) { /* two that have come at once */
        got = line_take(&b);
        CHECK(json_equal(got, j));
        json_decref(got);
    }
    CHECK(line_take(&b) == NULL);
    CHECK(send(ends[0], "{\"a\"", 4, 0) == 4 && line_receive(ends[1], &b));
    CHECK(line_take(&b) == NULL); /* half a line */
    CHECK(send(ends[0], ": 1}\noops\n\n", 11, 0) == 11 && line_receive(ends[1], &b));
    got = line_take(&b);
    CHECK_EQ_INT(json_integer_value(json_object_get(got, "a")), 1);
    json_decref(got);
    for (int i = 0; i < 2; i++) { /* what is no JSON is said to be nothing */
        got = line_take(&b);
        CHECK(json_is_null(got));
        json_decref(got);
    }
    char much[65];
    memset(much, 'x', sizeof(much));
    CHECK(send(ends[0], much, sizeof(much), 0) == sizeof(much));
    CHECK(!line_receive(ends[1], &b)); /* more than there is room for */
    (void)close(ends[0]);
    CHECK(!line_receive(ends[1], &b));
    CHECK(!line_send(ends[1], j));
    (void)close(ends[1]);
    dr_buf_release(&b);
    json_decref(j);
}

/* A worker of a host with the processors of `cpus`. */
static worker on(const char *host, unsigned cpus, int count)
{
    worker w = {.state = WORKER_READY, .host = dr_strdup(host), .cpu_count = count};

    for (size_t i = 0; i < sizeof(cpus); i++)
        w.cpus[i] = (unsigned char)(cpus >> 8 * i & 255);
    return w;
}

static void test_threads(void)
{
    worker list[] = {
        on("a", 0xffff, 16), on("a", 0xffff, 16), on("a", 0xffff, 16), /* a third each */
        on("b", 0x000f, 4),  on("b", 0xfff0, 12),                      /* bound apart */
        on("c", 0xffff, 4),  on("c", 0xffff, 4), /* a container with a quota of 4 */
        on("d", 0x0001, 1),  on("d", 0x0001, 1), /* more workers than processors */
        on("a", 0xffff, 16),
    };
    const int expected[] = {5, 5, 5, 4, 12, 2, 2, 1, 1};
    const int limited[] = {2, 2, 2, 3, 3, 2, 2, 1, 1}; /* --threads 6 */
    run_workers all = {.list = list, .count = DR_COUNT(list), .room = DR_COUNT(list)};
    flow_workflow_options o = {0};
    run r = {.o = &o, .workers = &all};

    list[9].state = WORKER_ASKED; /* not one of them yet */
    for (size_t i = 0; i < DR_COUNT(expected); i++)
        CHECK_EQ_INT(remote_threads(&r, &list[i]), expected[i]);
    o.threads = 6;
    for (size_t i = 0; i < DR_COUNT(limited); i++)
        CHECK_EQ_INT(remote_threads(&r, &list[i]), limited[i]);
    for (size_t i = 0; i < DR_COUNT(list); i++)
        free(list[i].host);
}

static void test_proofs(void)
{
    char mine[DR_SHA256_HEX], other[DR_SHA256_HEX];

    remote_proof(mine, "secret", "worker", "1", "2");
    CHECK_STR(mine, python_says);
    CHECK(remote_same(mine, python_says));
    remote_proof(other, "secret", "run", "1", "2"); /* one cannot be handed back */
    CHECK(!remote_same(mine, other));
    CHECK(!remote_same(mine, "") && !remote_same("", mine));
}

static const char *const variables[] = {"OMPI_COMM_WORLD_RANK",
                                        "OMPI_COMM_WORLD_SIZE",
                                        "PMIX_NAMESPACE",
                                        "PMI_RANK",
                                        "PMI_SIZE",
                                        "SLURM_PROCID",
                                        "SLURM_STEP_ID",
                                        "SLURM_STEP_NUM_TASKS",
                                        "SLURM_JOB_ID",
                                        "SLURM_NTASKS",
                                        "DRUPE_ALONE"};

static run_ranks ranks_with(const flow_workflow_options *o, const char *settings)
{
    char *text = dr_strdup(settings), *rest = NULL;

    for (size_t i = 0; i < DR_COUNT(variables); i++)
        (void)unsetenv(variables[i]);
    for (char *one = strtok_r(text, " ", &rest); one != NULL;
         one = strtok_r(NULL, " ", &rest)) {
        char *equals = strchr(one, '=');
        *equals = '\0';
        (void)setenv(one, equals + 1, 1);
    }
    run_ranks k = ranks_of(o);
    free(text);
    return k;
}

static void test_ranks(void)
{
    const flow_workflow_options o = {.config = "f.json", .launched = true};
    const flow_workflow_options other = {.config = "g.json", .launched = true};
    const flow_workflow_options library = {.config = "f.json"};
    const char mpi[] = "OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=4 PMIX_NAMESPACE=n";
    run_ranks k = ranks_with(&o, mpi), first;

    CHECK_EQ_INT(k.rank, 2);
    CHECK_EQ_INT(k.size, 4);
    CHECK_STR(getenv("DRUPE_ALONE"), "1"); /* for what it begins */
    CHECK_EQ_INT(ranks_of(&o).size, 0);
    first =
        ranks_with(&o, "OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=4 PMIX_NAMESPACE=n");
    CHECK_STR(first.id, k.id); /* they meet */
    first =
        ranks_with(&o, "OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=4 PMIX_NAMESPACE=m");
    CHECK(strcmp(first.id, k.id) != 0);
    CHECK(strcmp(ranks_with(&other, mpi).id, k.id) != 0);
    CHECK_EQ_INT(ranks_with(&library, mpi).size, 0); /* an MPI program that calls drupe */
    CHECK_EQ_INT(ranks_with(&o, "").size, 0);
    CHECK(getenv("DRUPE_ALONE") == NULL);
    CHECK_EQ_INT(
        ranks_with(&o, "OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=1 PMIX_NAMESPACE=n")
            .size,
        0);
    k = ranks_with(&o,
                   "SLURM_PROCID=3 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=5 SLURM_JOB_ID=7");
    CHECK_EQ_INT(k.rank, 3);
    CHECK_EQ_INT(k.size, 5);
    /* a script of sbatch's is one, whatever its job has */
    CHECK_EQ_INT(ranks_with(&o, "SLURM_PROCID=0 SLURM_NTASKS=5 SLURM_JOB_ID=7").size, 0);
}

int main(void)
{
    test_lines();
    test_threads();
    test_proofs();
    test_ranks();
    return check_done();
}
