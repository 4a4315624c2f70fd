/*
 * cuda_lt.c - float and bf16 products by cuBLASLt, which is looked for at run time.
 *
 * The library's heuristics choose a kernel from shapes, strides and alignment; what it
 * chose is kept for the next product that is alike.  Split sums inside are added in a
 * fixed order (atomics are not allowed), so the same product has the same bytes.
 */
#include <cublasLt.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "nn/cuda/cuda_impl.h"

enum { WORKSPACE = 64 << 20, PLANS = 1024, PATH_ROOM = 4096 };

/* The functions of the library that are called. */
#define LT_FUNCTIONS(F)                                                                    \
    F(cublasLtCreate)                                                                      \
    F(cublasLtDestroy)                                                                     \
    F(cublasLtMatmul)                                                                      \
    F(cublasLtMatmulAlgoGetHeuristic)                                                      \
    F(cublasLtMatmulDescCreate)                                                            \
    F(cublasLtMatmulDescDestroy)                                                           \
    F(cublasLtMatmulDescSetAttribute)                                                      \
    F(cublasLtMatmulPreferenceCreate)                                                      \
    F(cublasLtMatmulPreferenceDestroy)                                                     \
    F(cublasLtMatmulPreferenceSetAttribute)                                                \
    F(cublasLtMatrixLayoutCreate)                                                          \
    F(cublasLtMatrixLayoutDestroy)                                                         \
    F(cublasLtMatrixLayoutSetAttribute)

typedef struct {
#define MEMBER(f) __typeof__(&f) f;
    LT_FUNCTIONS(MEMBER)
#undef MEMBER
} functions;

/* What a product's kernel depends on. */
typedef struct {
    uint64_t m, n, k, lda, ldb, ldc, count, next_a, next_b, next_c;
    uint32_t a_align, b_align, c_align, form; /* form: transposes and type */
} shape;

typedef struct {
    shape s;
    cublasLtMatmulDesc_t op;        /* owned */
    cublasLtMatrixLayout_t a, b, c; /* owned */
    cublasLtMatmulAlgo_t algo;
} plan;

struct cu_lt {
    functions f;
    cublasLtHandle_t handle; /* owned */
    void *workspace;         /* owned */
    plan *plans[PLANS];      /* owned: by hash, next free place behind */
    size_t count;
};

void *cu_library(const char *name)
{
    const char *list = getenv("DRUPE_LIB_PATH");
    char path[PATH_ROOM];
    void *lib = NULL;

    for (const char *at = list; at != NULL && *at != '\0' && lib == NULL;) {
        size_t n = strcspn(at, ":");
        (void)snprintf(path, sizeof(path), "%.*s/%s", (int)n, at, name);
        lib = n > 0 ? dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE) : NULL;
        at += n + (at[n] == ':');
    }
    return lib != NULL ? lib : dlopen(name, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
}

static void *open_library(void)
{
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12"};
    char path[PATH_ROOM];
    void *lib = NULL;

    for (size_t i = 0; i < DR_COUNT(names) && lib == NULL; i++) {
        (void)snprintf(path, sizeof(path), "/usr/local/cuda/lib64/%s", names[i]);
        lib = cu_library(names[i]);
        lib = lib != NULL ? lib : dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    }
    return lib;
}

void cu_lt_preload(void)
{
    (void)open_library();
}

static dr_status find_functions(functions *f)
{
    void *lib = open_library();
    union {
        void *object;
        void (*fn)(void);
    } symbol;
    const char *missing = NULL;

    if (lib == NULL) {
        dr_status st =
            dr_fail(DR_EUNSUPPORTED, "cuda: libcublasLt.so.13 (or .12) was not found");
        dr_hint("it comes with CUDA and with pip's nvidia-cublas; DRUPE_LIB_PATH may name "
                "its folder");
        return st;
    }
#define FIND(name)                                                                         \
    symbol.object = dlsym(lib, #name);                                                     \
    f->name = (__typeof__(f->name))symbol.fn;                                              \
    missing = symbol.object == NULL ? #name : missing;
    LT_FUNCTIONS(FIND)
#undef FIND
    if (missing != NULL)
        return dr_fail(DR_EUNSUPPORTED, "cuda: libcublasLt has no %s", missing);
    return DR_OK;
}

static dr_status check(cublasStatus_t err, const char *what)
{
    if (err == CUBLAS_STATUS_SUCCESS)
        return DR_OK;
    return dr_fail(DR_EDEVICE, "cuda: cublasLt: %s: error %d", what, (int)err);
}

dr_status cu_lt_open(cu_lt **out)
{
    cu_lt *lt = dr_calloc(1, sizeof(*lt));
    dr_status st = DR_OK;

    DR_TRY(find_functions(&lt->f));
    DR_TRY(check(lt->f.cublasLtCreate(&lt->handle), "opening"));
    DR_TRY(cu_check((int)cudaMalloc(&lt->workspace, WORKSPACE), "workspace of products"));
    *out = lt;
    lt = NULL;
done:
    cu_lt_close(lt);
    return st;
}

static void plan_release(const functions *f, plan *p)
{
    if (p->a != NULL)
        (void)f->cublasLtMatrixLayoutDestroy(p->a);
    if (p->b != NULL)
        (void)f->cublasLtMatrixLayoutDestroy(p->b);
    if (p->c != NULL)
        (void)f->cublasLtMatrixLayoutDestroy(p->c);
    if (p->op != NULL)
        (void)f->cublasLtMatmulDescDestroy(p->op);
}

static void plan_free(const functions *f, plan *p)
{
    if (p == NULL)
        return;
    plan_release(f, p);
    free(p);
}

static void forget(cu_lt *lt)
{
    for (size_t i = 0; i < PLANS; i++) {
        plan_free(&lt->f, lt->plans[i]);
        lt->plans[i] = NULL;
    }
    lt->count = 0;
}

void cu_lt_close(cu_lt *lt)
{
    if (lt == NULL)
        return;
    forget(lt);
    if (lt->handle != NULL)
        (void)lt->f.cublasLtDestroy(lt->handle);
    (void)cudaFree(lt->workspace);
    free(lt);
}

static uint32_t alignment(const void *p)
{
    uintptr_t bits = (uintptr_t)p | 256;

    return (uint32_t)(bits & (~bits + 1));
}

static shape shape_of(const cu_gemm *g)
{
    return (shape){.m = g->m,
                   .n = g->n,
                   .k = g->k,
                   .lda = g->lda,
                   .ldb = g->ldb,
                   .ldc = g->ldc,
                   .count = g->count,
                   .next_a = g->next_a,
                   .next_b = g->next_b,
                   .next_c = g->next_c,
                   .a_align = alignment(g->a),
                   .b_align = alignment(g->b),
                   .c_align = alignment(g->c),
                   .form = g->ta + 2u * g->tb + 4u * g->bf16 + 8u * g->to_bf16};
}

/* Of count matrices, each `next` values behind the one before. */
static dr_status several(const functions *f, cublasLtMatrixLayout_t layout, size_t count,
                         size_t next)
{
    const int32_t n = (int32_t)count;
    const int64_t by = (int64_t)next;
    dr_status st = DR_OK;

    if (count == 0)
        return DR_OK;
    DR_TRY(check(f->cublasLtMatrixLayoutSetAttribute(
                     layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &n, sizeof(n)),
                 "layout"));
    DR_TRY(check(f->cublasLtMatrixLayoutSetAttribute(
                     layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &by, sizeof(by)),
                 "layout"));
done:
    return st;
}

static dr_status describe(const functions *f, plan *p, const cu_gemm *g)
{
    const cublasOperation_t ta = g->ta ? CUBLAS_OP_T : CUBLAS_OP_N,
                            tb = g->tb ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cudaDataType_t type = g->bf16 ? CUDA_R_16BF : CUDA_R_32F,
                         to = g->to_bf16 ? CUDA_R_16BF : CUDA_R_32F;
    dr_status st = DR_OK;

    DR_TRY(check(f->cublasLtMatmulDescCreate(&p->op, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                 "describing a product"));
    DR_TRY(check(f->cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSA, &ta,
                                                   sizeof(ta)),
                 "transposing"));
    DR_TRY(check(f->cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSB, &tb,
                                                   sizeof(tb)),
                 "transposing"));
    DR_TRY(check(f->cublasLtMatrixLayoutCreate(&p->a, type, g->ta ? g->k : g->m,
                                               g->ta ? g->m : g->k, (int64_t)g->lda),
                 "layout"));
    DR_TRY(check(f->cublasLtMatrixLayoutCreate(&p->b, type, g->tb ? g->n : g->k,
                                               g->tb ? g->k : g->n, (int64_t)g->ldb),
                 "layout"));
    DR_TRY(check(f->cublasLtMatrixLayoutCreate(&p->c, to, g->m, g->n, (int64_t)g->ldc),
                 "layout"));
    DR_TRY(several(f, p->a, g->count, g->next_a));
    DR_TRY(several(f, p->b, g->count, g->next_b));
    DR_TRY(several(f, p->c, g->count, g->next_c));
done:
    return st;
}

static dr_status choose(cu_lt *lt, plan *p, size_t room)
{
    const uint32_t schemes =
        CUBLASLT_REDUCTION_SCHEME_MASK & ~(uint32_t)CUBLASLT_REDUCTION_SCHEME_INPLACE;
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t size;
    } wishes[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room, sizeof(room)},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof(schemes)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &p->s.a_align, sizeof(uint32_t)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &p->s.b_align, sizeof(uint32_t)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &p->s.c_align, sizeof(uint32_t)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &p->s.c_align, sizeof(uint32_t)},
    };
    cublasLtMatmulPreference_t pref = NULL;
    cublasLtMatmulHeuristicResult_t found;
    int count = 0;
    dr_status st = DR_OK;

    DR_TRY(check(lt->f.cublasLtMatmulPreferenceCreate(&pref), "preferences"));
    for (size_t i = 0; i < DR_COUNT(wishes); i++)
        DR_TRY(check(lt->f.cublasLtMatmulPreferenceSetAttribute(
                         pref, wishes[i].name, wishes[i].value, wishes[i].size),
                     "preferences"));
    DR_TRY(check(lt->f.cublasLtMatmulAlgoGetHeuristic(lt->handle, p->op, p->a, p->b, p->c,
                                                      p->c, pref, 1, &found, &count),
                 "choosing a kernel"));
    if (count == 0)
        DR_FAIL(DR_EDEVICE, "cuda: cublasLt has no kernel for %zu x %zu x %zu",
                (size_t)p->s.m, (size_t)p->s.n, (size_t)p->s.k);
    p->algo = found.algo;
done:
    if (pref != NULL)
        (void)lt->f.cublasLtMatmulPreferenceDestroy(pref);
    return st;
}

static size_t hash(const shape *s)
{
    const unsigned char *p = (const unsigned char *)s;
    uint64_t h = 1469598103934665603u;

    for (size_t i = 0; i < sizeof(*s); i++)
        h = (h ^ p[i]) * 1099511628211u;
    return (size_t)(h % PLANS);
}

static dr_status plan_of(const plan **out, cu_lt *lt, const cu_gemm *g)
{
    const shape s = shape_of(g);
    plan *p = NULL;
    dr_status st = DR_OK;

    if (lt->count > PLANS / 2)
        forget(lt);
    size_t i = hash(&s);
    while (lt->plans[i] != NULL && memcmp(&lt->plans[i]->s, &s, sizeof(s)) != 0)
        i = (i + 1) % PLANS;
    *out = lt->plans[i];
    if (*out != NULL)
        return DR_OK;
    p = dr_calloc(1, sizeof(*p));
    p->s = s;
    DR_TRY(describe(&lt->f, p, g));
    DR_TRY(choose(lt, p, WORKSPACE));
    lt->plans[i] = p;
    lt->count++;
    *out = p;
    p = NULL;
done:
    plan_free(&lt->f, p);
    return st;
}

/* With `room` bytes of lt's workspace. */
static dr_status multiply(const cu_lt *lt, cu_stream s, const plan *p, const cu_gemm *g,
                          size_t room)
{
    const float alpha = g->minus ? -1.0f : 1.0f, beta = g->acc ? 1.0f : 0.0f;

    return check(lt->f.cublasLtMatmul(lt->handle, p->op, &alpha, g->a, p->a, g->b, p->b,
                                      &beta, g->c, p->c, g->c, p->c, &p->algo,
                                      room > 0 ? lt->workspace : NULL, room, s),
                 "a product");
}

dr_status cu_lt_run(cu_lt *lt, cu_stream s, const cu_gemm *g)
{
    const plan *p = NULL;
    dr_status st = DR_OK;

    DR_TRY(plan_of(&p, lt, g));
    DR_TRY(multiply(lt, s, p, g, WORKSPACE));
done:
    return st;
}

dr_status cu_lt_try(cu_lt *lt, cu_stream s, const void *a, const void *b, void *c, size_t n)
{
    const cu_gemm g = {.bf16 = true,
                       .m = n,
                       .n = n,
                       .k = n,
                       .lda = n,
                       .ldb = n,
                       .ldc = n,
                       .a = a,
                       .b = b,
                       .c = c};
    plan p = {.s = shape_of(&g)};
    dr_status st = DR_OK;

    DR_TRY(describe(&lt->f, &p, &g));
    DR_TRY(choose(lt, &p, 0));
    DR_TRY(multiply(lt, s, &p, &g, 0));
done:
    plan_release(&lt->f, &p);
    return st;
}
