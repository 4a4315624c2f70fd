/*
 * module_test.c - what the cuda library adds to a device: why it cannot be opened, memory
 * of its own, weights in bf16, products of operands that are rounded.
 */
#include "nn/nn_impl.h"
#include "nn_check.h"

/* Without the library or a GPU, opening says what is missing. */
static void test_missing(void)
{
    char lib[4096], *was = getenv("DRUPE_LIB_PATH");
    nn_device *dev = NULL;
    FILE *f = NULL;

    was = was != NULL ? dr_strdup(was) : NULL;
    (void)snprintf(lib, sizeof(lib), "%s/libdrupe_cuda.so", check_tmp());
    f = fopen(lib, "w");
    if (CHECK(f != NULL))
        (void)fclose(f);
    (void)setenv("DRUPE_LIB_PATH", check_tmp(), 1);
    CHECK_STATUS(nn_device_open(&dev, "cuda", 1), DR_EUNSUPPORTED);
    CHECK_TRAIL("libdrupe_cuda.so");
    CHECK(dev == NULL);
    if (was != NULL)
        (void)setenv("DRUPE_LIB_PATH", was, 1);
    else
        (void)unsetenv("DRUPE_LIB_PATH");
    free(was);
}

/* On every device: what is copied in comes out, zeros are zeros, parts can be copied. */
static void test_memory(nn_device *dev)
{
    enum { N = 1000 };
    float *x = nn_random(N, 1, 1.0f), *y = dr_calloc(N, sizeof(*y)), *p = NULL, *q = NULL;

    CHECK_OK(nn_mem_new(dev, &p, N, NN_MEM_FLOAT, "a test"));
    CHECK_OK(nn_mem_new(dev, &q, N, NN_MEM_FLOAT, "a test"));
    memset(y, 0xff, N * sizeof(*y));
    CHECK_OK(nn_copy(dev, y, p, N * sizeof(*y)));
    CHECK(y[0] == 0.0f && y[N - 1] == 0.0f);
    CHECK_OK(nn_copy(dev, p, x, N * sizeof(*x)));
    CHECK_OK(nn_copy(dev, q + 7, p + 3, (N - 7) * sizeof(*x)));
    CHECK_OK(nn_add(dev, q + 7, p, N - 7));
    CHECK_OK(nn_zero(dev, q + 500, 10 * sizeof(*x)));
    CHECK_OK(nn_copy(dev, y, q, N * sizeof(*y)));
    CHECK(y[6] == 0.0f && y[7] == x[3] + x[0] && y[N - 1] == x[N - 5] + x[N - 8]);
    CHECK(y[500] == 0.0f && y[509] == 0.0f && y[510] != 0.0f);
    /* one operand of each side */
    CHECK_OK(nn_add(dev, p, x, N));
    CHECK_OK(nn_add(dev, y, p, N));
    CHECK(y[6] == x[6] + x[6]);
    nn_mem_free(dev, p);
    nn_mem_free(dev, q);
    nn_mem_free(dev, NULL);
    free(x);
    free(y);
}

/* A product with a weight in bf16 is that of the rounded weight; a piece of it likewise. */
static void test_weights(nn_device *ref, nn_device *dev, size_t n, size_t k)
{
    enum { M = 37, SKIP_ROWS = 3 };
    float *w = nn_random(n * k, 2, 1.0f), *x = nn_random(M * (n + k), 3, 1.0f), *p = NULL;
    float *want = dr_calloc(M * (n + k), sizeof(*want));
    float *got = dr_calloc(M * (n + k), sizeof(*got));
    size_t rows = n - SKIP_ROWS;

    CHECK_OK(nn_mem_new(dev, &p, n * k, NN_MEM_BF16, "weights"));
    CHECK_OK(nn_copy(dev, p, w, n * k * sizeof(*w)));
    for (size_t i = 0; i < n * k; i++)
        w[i] = nn_rounded(w[i]);
    CHECK_OK(nn_copy(dev, got, p, M * sizeof(*w)));
    CHECK_MEM(got, w, M * sizeof(*w));
    CHECK_OK(nn_matmul_nt(ref, want, x, w, NULL, M, n, k, n, false));
    CHECK_OK(nn_matmul_nt(dev, got, x, p, NULL, M, n, k, n, false));
    CHECK_NEAR(nn_far(got, want, M * n), 0.0, tol_matmul_nt);
    CHECK_OK(nn_matmul_nn(ref, want, x, w + SKIP_ROWS * k, M, k, rows, n, false));
    CHECK_OK(nn_matmul_nn(dev, got, x, p + SKIP_ROWS * k, M, k, rows, n, false));
    CHECK_NEAR(nn_far(got, want, M * k), 0.0, tol_matmul_nn);
    nn_mem_free(dev, p);
    free(w);
    free(x);
    free(want);
    free(got);
}

/* cuda:bf16 multiplies what ref multiplies once its operands are rounded. */
static void test_rounding(nn_device *ref, nn_device *dev)
{
    enum { M = 50, N = 70, K = 333 };
    float *x = nn_random(M * K, 4, 1.0f), *w = nn_random(N * K, 5, 1.0f);
    float want[M * N], got[M * N];

    CHECK_OK(nn_matmul_nt(dev, got, x, w, NULL, M, N, K, N, false));
    for (size_t i = 0; i < M * K; i++)
        x[i] = nn_rounded(x[i]);
    for (size_t i = 0; i < N * K; i++)
        w[i] = nn_rounded(w[i]);
    CHECK_OK(nn_matmul_nt(ref, want, x, w, NULL, M, N, K, N, false));
    CHECK_NEAR(nn_far(got, want, M * N), 0.0, tol_matmul_nt);
    free(x);
    free(w);
}

/* Attention of rounded operands is near that of floats: heads, windows, documents, caps. */
static void test_attention(nn_device *ref, nn_device *dev, nn_attn_shape s)
{
    size_t m = s.b * s.t, wide = m * s.heads * s.head_dim;
    size_t all = m * (s.heads + 2 * s.kv_heads) * s.head_dim;
    float *qkv = nn_random(all, 6, 1.0f), *dout = nn_random(wide, 7, 1.0f);
    float *out[2], *lse[2], *dqkv[2];
    nn_device *const devs[2] = {ref, dev};

    s.scale = 1.0f / sqrtf((float)s.head_dim);
    for (int i = 0; i < 2; i++) {
        out[i] = dr_calloc(wide, sizeof(float));
        lse[i] = dr_calloc(m * s.heads, sizeof(float));
        dqkv[i] = dr_calloc(all, sizeof(float));
        for (size_t k = 0; k < all; k++)
            dqkv[i][k] = NAN;
        CHECK_OK(nn_attention(devs[i], out[i], lse[i], qkv, &s));
        CHECK_OK(nn_attention_back(devs[i], dqkv[i], dout, out[0], lse[0], qkv, &s));
    }
    CHECK_NEAR(nn_far(out[1], out[0], wide), 0, 1e-2);
    CHECK_NEAR(nn_far(lse[1], lse[0], m * s.heads), 0, 1e-2);
    CHECK_NEAR(nn_far(dqkv[1], dqkv[0], all), 0, 1e-2);
    CHECK(nn_far(out[1], out[0], wide) > 1e-6); /* they are rounded */
    for (int i = 0; i < 2; i++) {
        free(out[i]);
        free(lse[i]);
        free(dqkv[i]);
    }
    free(qkv);
    free(dout);
}

static void test_attentions(nn_device *ref, nn_device *dev)
{
    static const size_t dims[] = {8, 32, 64, 80, 96, 104, 128};

    nn_check_heads(ref, dev, test_attention, dims, DR_COUNT(dims));
    test_attention(
        ref, dev,
        (nn_attn_shape){.b = 3, .t = 1, .heads = 2, .kv_heads = 2, .head_dim = 16});
}

static void test_no_memory(nn_device *dev)
{
    float *p = NULL;

    CHECK_STATUS(nn_mem_new(dev, &p, (size_t)1 << 44, NN_MEM_FLOAT, "a universe"),
                 DR_ENOMEM);
    CHECK_TRAIL("a universe");
    CHECK(p == NULL);
    CHECK_OK(nn_mem_new(dev, &p, 64, NN_MEM_FLOAT, "a crumb"));
    nn_mem_free(dev, p);
}

int main(void)
{
    nn_device *ref = NULL, *cuda = NULL, *fast = NULL;

    test_missing();
    CHECK_OK(nn_device_open(&ref, "ref", 1));
    CHECK_EQ_INT(nn_mem_room(ref), 0);
    test_memory(ref);
    if (nn_device_open(&cuda, "cuda", 1) != DR_OK) {
        SKIP("gpu: none to use");
    } else if (CHECK_OK(nn_device_open(&fast, "cuda:bf16", 1))) {
        CHECK(nn_mem_room(cuda) > 0);
        test_memory(cuda);
        test_weights(ref, cuda, 64, 128);
        test_weights(ref, cuda, 131, 77);
        test_rounding(ref, fast);
        test_attentions(ref, fast);
        test_no_memory(cuda);
    }
    nn_device_close(ref);
    nn_device_close(cuda);
    nn_device_close(fast);
    return check_done();
}
