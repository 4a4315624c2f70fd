/*
 * recover_test.c - adapters from the error of rounding against a second computation: the
 * eigenvectors of E H E^T by Jacobi's rotations in double, where recover.c has singular
 * vectors of E times a Cholesky factor of H by Lanczos' steps.
 */
#include "quant/gptq_impl.h"
#include "quant/quant_recover.h"
#include "quant_fixture.h"

enum { D = 64, INNER = 96, LAYERS = 2, TOKENS = 80, RANK = 3 };
static const double DAMPING = 0.01; /* recover.c's share of the mean of H's diagonal */

static const fix_shape shape = {false, false, D, INNER, 4, 2, LAYERS, 96};

/* a[n][n], symmetric, becomes its eigenvalues on the diagonal; rows of v the vectors. */
static void jacobi(double *a, double *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        v[i * n + i] = 1;
    for (int sweep = 0; sweep < 12; sweep++) {
        for (size_t p = 0; p < n; p++) {
            for (size_t q = p + 1; q < n; q++) {
                double off = a[p * n + q];
                double angle = 0.5 * atan2(2 * off, a[q * n + q] - a[p * n + p]);
                double c = cos(angle), s = sin(angle);
                for (size_t k = 0; k < n; k++) {
                    double x = a[k * n + p], y = a[k * n + q];
                    a[k * n + p] = c * x - s * y;
                    a[k * n + q] = s * x + c * y;
                }
                for (size_t k = 0; k < n; k++) {
                    double x = a[p * n + k], y = a[q * n + k];
                    a[p * n + k] = c * x - s * y;
                    a[q * n + k] = s * x + c * y;
                    x = v[p * n + k], y = v[q * n + k];
                    v[p * n + k] = c * x - s * y;
                    v[q * n + k] = s * x + c * y;
                }
            }
        }
    }
}

/* m[n][n] = e h e^T with e[n][k]. */
static double *in_metric(const double *e, const double *h, size_t n, size_t k)
{
    double *eh = dr_calloc(n * k, sizeof(*eh)), *m = dr_calloc(n * n, sizeof(*m));

    for (size_t i = 0; i < n * k; i++)
        for (size_t c = 0; c < k; c++)
            eh[i] += e[i / k * k + c] * h[c * k + i % k];
    for (size_t i = 0; i < n * n; i++)
        for (size_t c = 0; c < k; c++)
            m[i] += eh[i / n * k + c] * e[i % n * k + c];
    free(eh);
    return m;
}

/* The sum of the r largest eigenvalues of m; best[n][k] = U U^T e with their vectors. */
static double project(double *best, double *m, const double *e, size_t n, size_t k,
                      size_t r)
{
    double *v = dr_calloc(n * n, sizeof(*v)), sum = 0;

    jacobi(m, v, n);
    for (size_t i = 0; i < r; i++) {
        size_t top = 0;
        for (size_t j = 1; j < n; j++)
            top = m[j * n + j] > m[top * n + top] ? j : top;
        const double *u = v + top * n;
        sum += m[top * n + top];
        m[top * n + top] = 0;
        for (size_t c = 0; c < k; c++) {
            double along = 0;
            for (size_t j = 0; j < n; j++)
                along += u[j] * e[j * k + c];
            for (size_t j = 0; j < n; j++)
                best[j * k + c] += u[j] * along;
        }
    }
    free(v);
    return sum;
}

static double trace(const double *m, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += m[i * n + i];
    return sum;
}

/* One linear: e its distance from the original, h damped. */
static void check_linear(const hf_lora_module *mod, const double *e, const double *h)
{
    size_t n = mod->n_out, k = mod->n_in, r = (size_t)mod->r;
    double *best = dr_calloc(n * k, sizeof(*best)), *rest = dr_calloc(n * k, sizeof(*rest));
    double *m = in_metric(e, h, n, k), whole = trace(m, n), off = 0, size = 0;
    double won = project(best, m, e, n, k, r);

    CHECK_EQ_INT(mod->r, RANK);
    for (size_t i = 0; i < n * k; i++) {
        double ba = 0;
        for (size_t j = 0; j < r; j++)
            ba += (double)mod->b[i / k * r + j] * (double)mod->a[j * k + i % k];
        rest[i] = e[i] - ba;
        off += (ba - best[i]) * (ba - best[i]);
        size += best[i] * best[i];
    }
    free(m);
    m = in_metric(rest, h, n, k);
    CHECK(won > 0.1 * whole && won < 0.95 * whole); /* a part, or nothing is shown */
    CHECK_NEAR(trace(m, n) / (whole - won), 1, 1e-5);
    CHECK_NEAR(sqrt(off / size), 0, 1e-2); /* vectors near others turn easily */
    free(m);
    free(best);
    free(rest);
}

/* q = the slot's weights disturbed; what recover makes of that. */
static void check_slot(quant_recovery *r, const quant_site *site, const hf_adapter *out,
                       int layer, hf_slot slot)
{
    const hf_config *c = hf_model_config(site->in);
    size_t n = hf_slot_out(c, slot), k = hf_slot_in(c, slot), count = 0, first = out->count;
    const hf_linear *l = quant_slot_linears(site->in, layer, slot, &count);
    uint64_t stream = 1000 + 10 * (uint64_t)layer + (uint64_t)slot;
    float *w = dr_calloc(n * k, sizeof(*w)), *q = fix_normal(n * k, stream, 0.02f);
    float *x = fix_inputs(TOKENS, k, stream + 100), *h32 = fix_gram(x, TOKENS, k);
    double *e = dr_calloc(n * k, sizeof(*e)), *h = dr_calloc(k * k, sizeof(*h)), mean = 0;
    quant_upstream none = {0};

    CHECK_OK(quant_slot_read(site, layer, slot, w, NULL));
    for (size_t i = 0; i < n * k; i++) {
        q[i] += w[i];
        e[i] = (double)w[i] - (double)q[i];
    }
    for (size_t i = 0; i < k; i++)
        mean += (double)h32[i * k + i] / (double)k;
    for (size_t i = 0; i < k * k; i++)
        h[i] = (double)h32[i] + (i % (k + 1) == 0 ? DAMPING * mean : 0);
    memcpy(w, q, n * k * sizeof(*w));
    CHECK_OK(quant_recover_inputs(r, &none, layer, slot));
    CHECK_OK(quant_recover_slot(r, &none, w, h32, layer, slot));
    CHECK_EQ_INT(out->count, first + count);
    for (size_t i = 0; i < count; i++) {
        const hf_lora_module *mod = &out->modules[first + i];
        double off = 0;
        CHECK_STR(mod->module, l[i].path);
        check_linear(mod, e + l[i].row0 * k, h);
        for (size_t j = 0; j < mod->n_out * k; j++) { /* w goes on with B A in it */
            double ba = 0;
            for (size_t t = 0; t < RANK; t++)
                ba += (double)mod->b[j / k * RANK + t] * (double)mod->a[t * k + j % k];
            off = fmax(off, fabs((double)q[l[i].row0 * k + j] + ba -
                                 (double)w[l[i].row0 * k + j]));
        }
        CHECK_NEAR(off, 0, 1e-6);
    }
    free(w);
    free(q);
    free(x);
    free(h32);
    free(e);
    free(h);
}

int main(void)
{
    dr_arena a = {0};
    const char *path = fix_model(&a, "recover", &shape);
    const quant_recover_options o = {.r = RANK};
    quant_site site = {0};
    hf_adapter out = {0};
    quant_recovery *r = NULL;
    hf_model *m = NULL, *original = NULL;

    CHECK_OK(nn_device_open(&site.dev, "cpu", 2));
    CHECK_OK(hf_model_open(&m, path));
    CHECK_OK(hf_model_open(&original, path));
    site.in = m;
    CHECK_OK(quant_recovery_open(&r, &site, original, &o, &out));
    CHECK(quant_recovery_empty(r));
    for (int layer = 0; layer < LAYERS; layer++)
        for (int slot = 0; slot < HF_SLOT_COUNT; slot++)
            check_slot(r, &site, &out, layer, (hf_slot)slot);
    CHECK(!quant_recovery_empty(r));
    quant_recovery_close(r);
    hf_adapter_release(&out);
    hf_model_close(original);
    hf_model_close(m);
    nn_device_close(site.dev);
    dr_arena_release(&a);
    return check_done();
}
