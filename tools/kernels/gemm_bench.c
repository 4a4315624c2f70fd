/*
 * gemm_bench.c - nn's products beside oneDNN's, which lost: src/nn/cpu/gemm.c is as fast as
 * one dnnl_sgemm call and faster than dnnl_sgemm on tiles that any number of threads can
 * share with the same bytes.  Figures and the verdict: gemm.md.
 *
 *     cc -O2 -D_GNU_SOURCE -Isrc tools/kernels/gemm_bench.c -o /tmp/gemm_bench \
 *         build/src/nn/libdrupe_nn.a build/src/hf/libdrupe_hf.a \
 *         build/src/core/libdrupe_core.a -ljansson -lpcre2-8 -lnettle -lm -ldl -lpthread
 *     /tmp/gemm_bench path/to/libdnnl.so.3
 *
 * One thread; processor time, best of many, so that a busy machine disturbs little.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "nn/nn.h"

typedef int (*sgemm_fn)(char ta, char tb, long m, long n, long k, float alpha,
                        const float *a, long lda, const float *b, long ldb, float beta,
                        float *c, long ldc);

typedef struct {
    long m, n, k;
    float *a, *b, *c;
    sgemm_fn sgemm;
    nn_device *dev;
    long tile; /* of oneDNN; 0: one call */
} product;

static double processor_s(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void once(const product *p)
{
    if (p->sgemm == NULL) {
        if (nn_matmul_nt(p->dev, p->c, p->a, p->b, NULL, (size_t)p->m, (size_t)p->n,
                         (size_t)p->k, (size_t)p->n, false) != DR_OK)
            exit(1);
        return;
    }
    long tm = p->tile > 0 ? p->tile : p->m, tn = p->tile > 0 ? p->tile : p->n;
    for (long i = 0; i < p->m; i += tm)
        for (long j = 0; j < p->n; j += tn)
            (void)p->sgemm('N', 'T', p->m - i < tm ? p->m - i : tm,
                           p->n - j < tn ? p->n - j : tn, p->k, 1.0f, p->a + i * p->k, p->k,
                           p->b + j * p->k, p->k, 0.0f, p->c + i * p->n + j, p->n);
}

static double gflops(const product *p)
{
    double work = 2e-9 * (double)p->m * (double)p->n * (double)p->k, best = 1e9;
    int times = (int)(100.0 / work) + 3;

    for (int i = 0; i < times; i++) {
        double from = processor_s();
        once(p);
        double took = processor_s() - from;
        best = took < best ? took : best;
    }
    return work / best;
}

static float *numbers(long count)
{
    float *x = aligned_alloc(64, ((size_t)count * sizeof(*x) + 63) / 64 * 64);

    for (long i = 0; x != NULL && i < count; i++)
        x[i] = (float)(i * 2654435761u % 1000) / 1000.0f - 0.5f;
    return x;
}

int main(int argc, char **argv)
{
    static const long shapes[][3] = {{1024, 576, 1536}, {1024, 1536, 576},
                                     {1024, 3072, 576}, {512, 960, 576},
                                     {1024, 64, 576},   {2048, 2048, 2048}};
    static const char *const kinds[] = {"cpu", "cpu:avx2", "cpu:plain"};
    void *onednn = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    void *omp = dlopen("libgomp.so.1", RTLD_NOW | RTLD_LOCAL);
    union {
        void *p;
        sgemm_fn sgemm;
        void (*threads)(int);
    } sym = {omp != NULL ? dlsym(omp, "omp_set_num_threads") : NULL};

    if (sym.p != NULL)
        sym.threads(1);
    sym.p = onednn != NULL ? dlsym(onednn, "dnnl_sgemm") : NULL;
    for (size_t i = 0; i < DR_COUNT(shapes); i++) {
        product p = {.m = shapes[i][0], .n = shapes[i][1], .k = shapes[i][2]};
        p.a = numbers(p.m * p.k);
        p.b = numbers(p.n * p.k);
        p.c = numbers(p.m * p.n);
        (void)printf("%ld x %ld x %ld:", p.m, p.n, p.k);
        for (size_t k = 0; k < DR_COUNT(kinds); k++) {
            if (nn_device_open(&p.dev, kinds[k], 1) != DR_OK)
                continue;
            (void)printf("  %s %.0f", kinds[k], gflops(&p));
            nn_device_close(p.dev);
        }
        p.sgemm = sym.sgemm;
        for (p.tile = 0; p.sgemm != NULL && p.tile <= 512; p.tile += 256)
            (void)printf("  onednn %ld %.0f", p.tile, gflops(&p));
        (void)printf("\n");
        (void)fflush(stdout);
        free(p.a);
        free(p.b);
        free(p.c);
    }
    return 0;
}
