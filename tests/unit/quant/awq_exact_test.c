/*
 * awq_exact_test.c - the losses of AutoAWQ's candidates on devices with memory of their own
 * against the cpu's, which adds squares by tokens, in floats: by Gram matrices and by
 * tokens, with operands in bf16 and in floats.  The cpu's scales are judged by all.  With a
 * text long enough for candidates to be dropped the choice is that of judging all to the
 * end, on every device.
 */
#include "quant/awq_impl.h"
#include "quant_fixture.h"

/* What one device is asked, and its answers. */
typedef struct {
    const char *path;
    quant_grid grid;
    quant_calib calib;
    float *scales[HF_SLOT_COUNT]; /* owned: the cpu's candidates */
    double loss[HF_SLOT_COUNT][AWQ_CANDIDATES];
    size_t dropped; /* candidates */
} judged;

static size_t best_of(const double *loss)
{
    size_t best = 1;

    for (size_t i = 1; i < AWQ_CANDIDATES; i++)
        best = loss[i] < loss[best] ? i : best;
    return best;
}

/* Those that are not dropped have been judged by no other text. */
static void judge_racing(awq_run *r, judged *j, hf_slot s, const bool *wanted)
{
    double raced[AWQ_CANDIDATES] = {0};
    const size_t best = best_of(j->loss[s]);

    r->judge_to_end = false;
    CHECK_OK(awq_judge(r, s, raced, j->scales[s], wanted));
    r->judge_to_end = true;
    CHECK_EQ_INT(best_of(raced), best);
    for (size_t i = 1; i < AWQ_CANDIDATES; i++)
        j->dropped += isinf(raced[i]);
    CHECK(raced[0] == 0.0);
}

static void judge_slot(awq_run *r, judged *j, hf_slot s)
{
    bool wanted[AWQ_CANDIDATES];
    double again[AWQ_CANDIDATES] = {0};

    for (size_t i = 0; i < AWQ_CANDIDATES; i++)
        wanted[i] = i > 0;
    if (j->scales[s] == NULL) {
        j->scales[s] = dr_calloc(AWQ_CANDIDATES * r->slot[s].k, sizeof(float));
        CHECK_OK(awq_slot_candidates(r, s, j->scales[s]));
    }
    CHECK_OK(awq_judge(r, s, j->loss[s], j->scales[s], wanted));
    CHECK_OK(awq_judge(r, s, again, j->scales[s], wanted));
    CHECK_MEM(again + 1, j->loss[s] + 1, (AWQ_CANDIDATES - 1) * sizeof(*again));
    judge_racing(r, j, s, wanted);
}

static void judge_all(judged *j, nn_device *dev, nn_device *mem)
{
    const quant_awq_options o = {true, true, true};
    hf_model *m = NULL;
    awq_run r = {0};

    if (CHECK_OK(hf_model_open(&m, j->path)) &&
        CHECK_OK(awq_run_open(&r, &(quant_site){.dev = dev, .in = m}, &j->grid, &j->calib,
                              &o, mem)) &&
        CHECK_OK(awq_run_layer(&r, 0))) {
        r.judge_to_end = true;
        for (int s = 0; s < HF_SLOT_COUNT; s++)
            judge_slot(&r, j, (hf_slot)s);
    }
    awq_run_close(&r);
    hf_model_close(m);
}

/* How far losses are from the cpu's at most, and how much dearer the choice is, by slot. */
static void compare(const char *kind, const judged *here, const judged *there, double tol)
{
    static const char *const names[] = {"qkv", "o", "gate_up", "down"};

    for (int s = 0; s < HF_SLOT_COUNT; s++) {
        const double *a = here->loss[s], *b = there->loss[s];
        double far = 0, dearer = a[best_of(b)] / a[best_of(a)] - 1;
        for (size_t i = 1; i < AWQ_CANDIDATES; i++)
            far = fmax(far, fabs(b[i] / a[i] - 1));
        (void)printf("%s %s: losses within %.2g, candidate %zu for %zu, %.2g dearer\n",
                     kind, names[s], far, best_of(b), best_of(a), dearer);
        CHECK(far <= tol);
        CHECK(dearer <= tol / 5);
    }
}

static void test_kind(dr_arena *a, const char *kind, const char *name,
                      const fix_shape *shape, const quant_grid *grid, size_t count,
                      double tol)
{
    judged here = {.path = fix_model(a, name, shape),
                   .grid = *grid,
                   .calib = fix_ids(a, shape, count, 40, 1)};
    judged there = here;
    nn_device *cpu = NULL, *dev = NULL;

    if (CHECK_OK(nn_device_open(&cpu, "cpu", 2)) &&
        CHECK_OK(nn_device_open(&dev, kind, 2))) {
        judge_all(&here, cpu, NULL);
        memcpy(there.scales, here.scales, sizeof(there.scales));
        judge_all(&there, dev, dev);
        (void)printf("%s, %d bits, %zu sequences\n", name, grid->bits, count);
        compare(kind, &here, &there, tol);
        CHECK((here.dropped > 0) == (count > 16));
        CHECK((there.dropped > 0) == (count > 16));
    }
    for (int s = 0; s < HF_SLOT_COUNT; s++)
        free(here.scales[s]);
    nn_device_close(cpu);
    nn_device_close(dev);
    CHECK_OK(dr_remove_tree(here.path));
}

/* rounded: of operands in bf16, whose rounding is a hundredth of 4 bits'. */
static void test_all(dr_arena *a, const char *kind, double floats, double rounded)
{
    static const fix_shape phi = {true, false, 256, 512, 4, 4, 1, 96};
    static const fix_shape qwen = {false, true, 128, 192, 4, 2, 1, 96};
    const quant_grid four = {4, 64, false}, even = {4, 32, true}, eight = {8, 64, false};

    test_kind(a, kind, "phi", &phi, &four, 40, rounded);
    test_kind(a, kind, "phi-few", &phi, &four, 4, rounded); /* too few tokens for a Gram */
    test_kind(a, kind, "qwen", &qwen, &even, 24, rounded);
    test_kind(a, kind, "eight", &phi, &eight, 40, floats);
    test_kind(a, kind, "eight-few", &phi, &eight, 4, floats);
}

int main(void)
{
    nn_device *gpu = NULL;
    dr_arena a = {0};

    test_all(&a, "cpu:apart", 1e-5, 1e-5);
    if (nn_device_open(&gpu, "cuda", 1) == DR_OK)
        test_all(&a, "cuda", 2e-4, 1e-2);
    else
        SKIP("gpu: none to use");
    nn_device_close(gpu);
    dr_arena_release(&a);
    return check_done();
}
