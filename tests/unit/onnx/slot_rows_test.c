/*
 * slot_rows_test.c - packed modules joined and cut: rows of q, k and v in one matrix, zero
 * points of symmetric modules, large groups as blocks of 256.
 */
#include "check.h"
#include "core/rng.h"
#include "onnx/weight_impl.h"

enum { COLS = 600, ROWS = 8 };

static dr_rng rng;

static void fill(dr_qtensor *q, int bits, int group, size_t rows, bool symmetric)
{
    CHECK_OK(dr_qtensor_new(q, bits, group, rows, COLS, symmetric));
    for (size_t r = 0; r < rows; r++) {
        for (size_t b = 0; b < dr_qtensor_blocks(q); b++) {
            q->scales[r * dr_qtensor_blocks(q) + b] = dr_rng_uniform(&rng) + 0.1f;
            if (!symmetric)
                dr_qtensor_set_zero(q, r, b, (int)dr_rng_below(&rng, 1u << bits));
        }
        for (size_t k = 0; k < COLS; k++)
            dr_qtensor_set_code(q, r, k, (int)dr_rng_below(&rng, 1u << bits));
    }
}

/* Two packed modules of ROWS and 3 rows. */
static void two(onnx_source *s, hf_linear l[2], int bits, int group0, bool sym0, int group1,
                bool sym1)
{
    l[0] = (hf_linear){.path = "q", .n_out = ROWS, .n_in = COLS, .packed = true};
    l[1] = (hf_linear){.path = "k", .row0 = ROWS, .n_out = 3, .n_in = COLS, .packed = true};
    *s = (onnx_source){
        .part = {&l[0], &l[1]}, .part_count = 2, .rows = ROWS + 3, .cols = COLS};
    fill(&s->packed[0], bits, group0, ROWS, sym0);
    fill(&s->packed[1], bits, group1, 3, sym1);
}

/* The joined matrix stands for the same numbers as its parts. */
static void same_values(const onnx_source *s, const onnx_grid *grid)
{
    static float want[COLS], got[COLS];
    dr_qtensor joined;

    CHECK_OK(dr_qtensor_new(&joined, grid->bits, grid->block, 1, COLS, grid->symmetric));
    for (size_t r = 0; r < s->rows; r++) {
        onnx_source_row(s, r, grid, joined.codes, joined.scales, joined.zeros);
        dr_qtensor_to_f32(got, &joined, 0, 1);
        CHECK_OK(onnx_source_read(s, want, r, 1));
        CHECK_MEM(got, want, sizeof(want));
    }
    dr_qtensor_release(&joined);
}

static void joined(int bits, int group, int block)
{
    static const bool kinds[4][2] = {
        {true, true}, {true, false}, {false, true}, {false, false}};
    onnx_source s;
    hf_linear l[2];
    onnx_grid grid;

    for (int i = 0; i < 4; i++) {
        two(&s, l, bits, group, kinds[i][0], group, kinds[i][1]);
        if (CHECK(onnx_source_grid(&s, 0, s.rows, &grid))) {
            CHECK_EQ_INT(grid.bits, bits);
            CHECK_EQ_INT(grid.block, block);
            CHECK(grid.symmetric == (kinds[i][0] && kinds[i][1]));
            same_values(&s, &grid);
        }
        CHECK(onnx_source_packed(&s, 0, s.rows));
        CHECK_STR(onnx_source_name(&s, ROWS - 1), "q");
        CHECK_STR(onnx_source_name(&s, ROWS), "k");
        onnx_source_release(&s);
    }
}

static void apart(void)
{
    onnx_source s;
    hf_linear l[2];
    onnx_grid grid;

    two(&s, l, 4, 32, true, 64, true);
    CHECK(!onnx_source_grid(&s, 0, s.rows, &grid));
    CHECK(onnx_source_grid(&s, 0, ROWS, &grid) && grid.block == 32);
    CHECK(onnx_source_grid(&s, ROWS, 3, &grid) && grid.block == 64);
    dr_qtensor_release(&s.packed[1]); /* one of them as floats */
    CHECK(!onnx_source_grid(&s, 0, s.rows, &grid));
    CHECK(onnx_source_packed(&s, 0, s.rows));
    CHECK(!onnx_source_packed(&s, ROWS, 3));
    onnx_source_release(&s);
}

int main(void)
{
    dr_rng_init(&rng, 3, 1);
    joined(4, 16, 16);
    joined(4, 128, 128);
    joined(4, 512, 256);
    joined(4, 1024, 256); /* a whole row */
    joined(4, 96, 32);
    joined(8, 64, 64);
    joined(2, 64, 64);
    apart();
    return check_done();
}
