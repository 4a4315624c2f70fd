/*
 * sparse_test.c - passes whose result is floats, SparseGPT and AutoClip, on a small model:
 * where zeros and clipped weights are, what stays, what is refused.
 */
#include <math.h>

#include "core/mem.h"
#include "flow_fixture.h"
#include "hf/hf.h"

static dr_arena arena;

static flow_spec spec_of(const char *in, const char *out, int threads)
{
    return (flow_spec){.model = in,
                       .output = in_tmp(&arena, out),
                       .data = {.max_samples = 4, .max_seq_len = 32},
                       .threads = threads};
}

/* Share of zeros of a linear; *most (may be NULL): of four neighbours. */
static double zeros(const hf_model *m, const hf_linear *l, int *least, int *most)
{
    float *w = dr_calloc(l->n_out * l->n_in, sizeof(*w));
    double sum = 0;

    CHECK_OK(hf_linear_read(m, l, w, 0, l->n_out));
    *least = 4;
    *most = 0;
    for (size_t i = 0; i < l->n_out * l->n_in; i += 4) {
        int n = 0;
        for (size_t k = i; k < i + 4; k++)
            n += w[k] == 0.0f;
        sum += n;
        *least = n < *least ? n : *least;
        *most = n > *most ? n : *most;
    }
    free(w);
    return sum / (double)(l->n_out * l->n_in);
}

typedef double (*want_fn)(const hf_linear *l);

static void check_model(const char *out, want_fn want, bool pairs)
{
    const char *dir = dr_path_join(&arena, in_tmp(&arena, out), "model");
    hf_model *m = NULL;
    int least = 0, most = 0;

    if (!CHECK_OK(hf_model_open(&m, dir)))
        return;
    CHECK_EQ_INT(hf_model_quant(m).method, HF_QUANT_NONE);
    for (int i = 0; i < hf_model_config(m)->layers; i++) {
        const hf_linear *l = NULL;
        size_t n = hf_layer_linears(m, i, &l);
        for (size_t k = 0; k < n; k++) {
            double share = zeros(m, &l[k], &least, &most);
            if (want(&l[k]) >= 0)
                CHECK_NEAR(share, want(&l[k]), 1e-9);
            if (pairs && want(&l[k]) > 0)
                CHECK(least == 2 && most == 2);
        }
    }
    hf_model_close(m);
}

static double half(const hf_linear *l)
{
    (void)l;
    return 0.5;
}

static double some(const hf_linear *l)
{
    bool mlp = strstr(l->path, "mlp") != NULL;

    return l->layer == 1 && mlp ? 0.5 : 0;
}

/* O and DOWN are slots of one linear, whose blocks have the share exactly. */
static double quarter(const hf_linear *l)
{
    return l->slot == HF_SLOT_O || l->slot == HF_SLOT_DOWN ? 0.25 : -1;
}

/* Greatest magnitude of a linear. */
static float greatest(const hf_model *m, const hf_linear *l)
{
    float *w = dr_calloc(l->n_out * l->n_in, sizeof(*w)), most = 0;

    CHECK_OK(hf_linear_read(m, l, w, 0, l->n_out));
    for (size_t i = 0; i < l->n_out * l->n_in; i++)
        most = fmaxf(most, fabsf(w[i]));
    free(w);
    return most;
}

/* q, k and v stay; of the others nothing grows and some end is clipped. */
static void check_clipped(const char *in)
{
    hf_model *a = NULL, *b = NULL;
    int clipped = 0;

    CHECK_OK(run_pass("AutoClip", "{\"group_size\": 16, \"bits\": 2, \"sym\": true}",
                      spec_of(in, "clip", 2)));
    if (!CHECK_OK(hf_model_open(&a, in)) ||
        !CHECK_OK(hf_model_open(&b, dr_path_join(&arena, in_tmp(&arena, "clip"), "model"))))
        return;
    for (int i = 0; i < hf_model_config(a)->layers; i++) {
        const hf_linear *la = NULL, *lb = NULL;
        size_t n = hf_layer_linears(a, i, &la);
        CHECK_EQ_INT(hf_layer_linears(b, i, &lb), n);
        for (size_t k = 0; k < n; k++) {
            float before = greatest(a, &la[k]), after = greatest(b, &lb[k]);
            CHECK(la[k].slot == HF_SLOT_QKV ? after == before : after <= before);
            clipped += after < before;
        }
    }
    CHECK(clipped > 0);
    hf_model_close(a);
    hf_model_close(b);
}

int main(void)
{
    const char *in = copy_letters(&arena, "letters");

    CHECK_OK(run_pass("SparseGPT", "{\"sparsity\": [2, 4]}", spec_of(in, "pairs", 1)));
    check_model("pairs", half, true);
    CHECK_OK(run_pass("SparseGPT", "{\"sparsity\": [2, 4]}", spec_of(in, "again", 2)));
    CHECK_STR(tree_of(&arena, dr_path_join(&arena, in_tmp(&arena, "pairs"), "model")),
              tree_of(&arena, dr_path_join(&arena, in_tmp(&arena, "again"), "model")));
    CHECK_OK(run_pass("SparseGPT", "{\"sparsity\": 0.25, \"blocksize\": 32}",
                      spec_of(in, "quarter", 2)));
    check_model("quarter", quarter, false);
    CHECK_OK(run_pass("SparseGPT",
                      "{\"sparsity\": [2, 4], \"min_layer\": 1, \"layer_name_filter\": "
                      "[\"mlp\"]}",
                      spec_of(in, "some", 2)));
    check_model("some", some, true);
    check_clipped(in);
    CHECK_STATUS(run_pass("AutoClip", "{\"max_shrink\": 0.01}", spec_of(in, "no", 1)),
                 DR_EUSAGE);
    CHECK_TRAIL("max_shrink: 0.01 of 20 steps is none");
    static const char *const wrong[][2] = {
        {"{\"sparsity\": 1}", "expected a share below 1 or N,M, found \"1\""},
        {"{\"sparsity\": [4, 2]}", "found \"4,2\""},
        {"{\"sparsity\": [2, 3]}", "found \"2,3\""},
        {"{\"sparsity\": \"most\"}", "found \"most\""},
        {"{\"max_layer\": 2, \"min_layer\": 2}", "leaves no layer"},
        {"{\"min_layer\": 9}", "the model has layers 0 to 1"},
        {"{\"layer_name_filter\": \"nothing\"}", "no module is called nothing"}};
    for (size_t i = 0; i < DR_COUNT(wrong); i++) {
        CHECK_STATUS(run_pass("SparseGPT", wrong[i][0], spec_of(in, "no", 1)), DR_EUSAGE);
        CHECK_TRAIL(wrong[i][1]);
    }
    dr_arena_release(&arena);
    return check_done();
}
