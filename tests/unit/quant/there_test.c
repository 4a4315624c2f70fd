/*
 * there_test.c - quantizers on devices with memory and operations of their own, against the
 * cpu: the codes of whole tiny models.  "cpu:apart" faults where the host touches what is
 * the device's, so this holds without a GPU, too.
 */
#include "quant_fixture.h"

typedef enum { AWQ, AWQ_EXACT, GPTQ, GPTQ_PLAIN, BEST, METHODS } method;
/*
 * The share of codes that may differ.  On cpu:apart text goes through by the cpu's own
 * products; a GPU's differ in the last bits, which a near tie of two scales or ranges in so
 * small a model turns into a few codes more, and GPTQ, where one code decides the later
 * ones of its row and of the layers behind it, into many (solve_there_test.c has single
 * steps).  How many, the reference tells, whose sums differ from the cpu's in the same
 * bits: chaotic methods may differ by twice as much more.  awq-exact judges with operands
 * in bf16 there, and takes another one of two scales that are as good.
 */
static const struct {
    const char *name;
    double apart, cuda;
    bool chaotic;
} methods[] = {{"awq", 0.005, 0.03, false},
               {"awq-exact", 0.02, 0.15, false},
               {"gptq", 0.03, 0.03, true},
               {"gptq-plain", 0.03, 0.03, false},
               {"best", 0.03, 0.03, true}};

static dr_status run_method(const quant_site *site, method how, const quant_grid *grid,
                            const quant_calib *calib)
{
    const quant_awq_options awq = {true, true, how == AWQ_EXACT};
    const quant_gptq_options full = {.damp_percent = 0.05,
                                     .desc_act = true,
                                     .prescale = true,
                                     .bias = true,
                                     .upstream = 0.5,
                                     .sweeps = 2};
    const quant_gptq_options plain = {
        .damp_percent = 0.01, .static_groups = true, .minmax = true};

    if (how == BEST)
        return quant_best(site, grid, calib, &full);
    if (how == GPTQ || how == GPTQ_PLAIN)
        return quant_gptq(site, grid, calib, how == GPTQ ? &full : &plain);
    return quant_awq(site, grid, calib, &awq);
}

static dr_status quantize(const char *kind, const char *out, const char *in, method how,
                          const quant_grid *grid, const quant_grid *table,
                          const quant_calib *calib)
{
    const hf_quant format = {HF_QUANT_OLIVE, quant_stored_bits(grid), grid->group_size,
                             grid->symmetric};
    nn_device *dev = NULL;
    hf_model *m = NULL;
    hf_writer *w = NULL;
    dr_status st = DR_OK;

    DR_TRY(nn_device_open(&dev, kind, 2));
    nn_rough_common(dev);
    DR_TRY(hf_model_open(&m, in));
    DR_TRY(dr_make_dirs(out));
    DR_TRY(hf_writer_open(&w, out, m, &format));
    if (nn_mem_apart(dev))
        DR_TRY(hf_writer_behind(w, 3));
    if (table != NULL)
        DR_TRY(hf_writer_format(w, hf_embed_linear(m), &format));
    DR_TRY(run_method(&(quant_site){.dev = dev, .in = m, .out = w, .embed = table}, how,
                      grid, calib));
    DR_TRY(hf_writer_finish(w));
done:
    hf_writer_close(w);
    hf_model_close(m);
    nn_device_close(dev);
    return st;
}

/* The share of codes that differ, of all packed linears. */
static double difference(const char *a, const char *b)
{
    hf_model *m[2] = {NULL, NULL};
    size_t codes = 0, off = 0;

    if (CHECK_OK(hf_model_open(&m[0], a)) && CHECK_OK(hf_model_open(&m[1], b))) {
        for (int layer = 0; layer < hf_model_config(m[0])->layers; layer++) {
            const hf_linear *l[2];
            size_t n = hf_layer_linears(m[0], layer, &l[0]);
            (void)hf_layer_linears(m[1], layer, &l[1]);
            for (size_t i = 0; i < n; i++) {
                dr_qtensor q[2] = {{0}, {0}};
                CHECK_OK(hf_linear_packed(m[0], &l[0][i], &q[0], NULL));
                CHECK_OK(hf_linear_packed(m[1], &l[1][i], &q[1], NULL));
                for (size_t k = 0; k < q[0].rows * q[0].cols; k++, codes++)
                    off += dr_qtensor_code(&q[0], k / q[0].cols, k % q[0].cols) !=
                           dr_qtensor_code(&q[1], k / q[0].cols, k % q[0].cols);
                dr_qtensor_release(&q[0]);
                dr_qtensor_release(&q[1]);
            }
        }
    }
    CHECK(codes > 0);
    hf_model_close(m[0]);
    hf_model_close(m[1]);
    return (double)off / (double)codes;
}

/* Rounded here or there, a model is as close to its original. */
static void same_quality(const char *in, const char *here, const char *there,
                         const quant_calib *calib)
{
    hf_model *m = NULL;

    if (!CHECK_OK(hf_model_open(&m, in)))
        return;
    double a = fix_divergence(m, here, calib), b = fix_divergence(m, there, calib);
    (void)printf("    KL %.3g here, %.3g there\n", a, b);
    CHECK(b <= 1.5 * a + 1e-6);
    hf_model_close(m);
}

static void test_kind(dr_arena *a, const char *kind, const char *name,
                      const fix_shape *shape, const quant_grid *grid, bool table)
{
    const char *in = fix_model(a, name, shape);
    const quant_calib calib = fix_ids(a, shape, 12, 40, 1);

    for (int how = AWQ; how < METHODS; how++) {
        const char *here = dr_arena_printf(a, "%s-%s-here", in, methods[how].name);
        const char *there = dr_arena_printf(a, "%s-%s-there", in, methods[how].name);
        const quant_grid *of = table ? grid : NULL;
        bool gpu = strcmp(kind, "cuda") == 0;
        double share = 1, most = gpu ? methods[how].cuda : methods[how].apart;
        CHECK_OK(quantize("cpu", here, in, (method)how, grid, of, &calib));
        if (gpu && methods[how].chaotic &&
            CHECK_OK(quantize("ref", there, in, (method)how, grid, of, &calib))) {
            most += 2 * difference(here, there);
            CHECK_OK(dr_remove_tree(there));
        }
        if (CHECK_OK(quantize(kind, there, in, (method)how, grid, of, &calib)))
            share = difference(here, there);
        (void)printf("%s, %s, %s, %d bits, group %d: %.4f %% of codes differ (%.4f)\n",
                     kind, name, methods[how].name, grid->bits, grid->group_size,
                     100 * share, 100 * most);
        CHECK(share <= most);
        same_quality(in, here, there, &calib);
        CHECK_OK(dr_remove_tree(here));
        CHECK_OK(dr_remove_tree(there));
    }
}

static void test_all(dr_arena *a, const char *kind)
{
    static const fix_shape llama = {false, false, 64, 128, 4, 2, 2, 96};
    static const fix_shape qwen = {false, true, 64, 96, 4, 1, 2, 96};
    static const fix_shape phi = {true, false, 64, 128, 4, 4, 2, 96};

    test_kind(a, kind, "llama", &llama, &(quant_grid){4, 32, false}, false);
    test_kind(a, kind, "qwen", &qwen, &(quant_grid){4, 32, true}, false);
    test_kind(a, kind, "phi", &phi, &(quant_grid){3, 64, false}, true);
    test_kind(a, kind, "rows", &llama, &(quant_grid){8, -1, false}, false);
}

int main(void)
{
    nn_device *gpu = NULL;
    dr_arena a = {0};

    test_all(&a, "cpu:apart");
    if (nn_device_open(&gpu, "cuda", 1) == DR_OK)
        test_all(&a, "cuda");
    else
        SKIP("gpu: none to use");
    nn_device_close(gpu);
    dr_arena_release(&a);
    return check_done();
}
