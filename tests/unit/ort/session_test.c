/*
 * session_test.c - models in ONNX Runtime against what they compute by hand, with and
 * without an adapter.
 */
#include "check.h"
#include "ort/ort.h"
#include "ort_fixture.h"

static char add_path[4200], lora_path[4200], adapter_path[4200], wrong_path[4200];

static ort_value floats(const char *name, float *data, int64_t d0, int64_t d1)
{
    ort_value v = {
        .name = name, .dtype = DR_DTYPE_F32, .ndim = d1 > 0 ? 2 : 1, .data = data};

    v.dims[0] = d0;
    v.dims[1] = d1;
    v.bytes = (size_t)(d0 * (d1 > 0 ? d1 : 1)) * sizeof(float);
    return v;
}

static void test_add(void)
{
    static const char *const names[] = {"z"};
    float x[] = {1, 2, 3}, y[] = {10, 20, 30};
    const float z[] = {11, 22, 33};
    const ort_value in[] = {floats("x", x, 3, 0), floats("y", y, 3, 0)};
    ort_session *s = NULL;
    ort_value out = {0}, declared = {0};
    bool optional = true;

    if (!CHECK_OK(ort_session_open(&s, add_path, 1, true)))
        return;
    CHECK_EQ_INT(ort_session_input_count(s), 2);
    CHECK_STR(ort_session_input_name(s, 1), "y");
    CHECK_EQ_INT(ort_session_output_count(s), 1);
    CHECK_STR(ort_session_output_name(s, 0), "z");
    CHECK_OK(ort_session_input(s, 0, &declared, &optional));
    CHECK(!optional);
    CHECK_EQ_INT(declared.dtype, DR_DTYPE_F32);
    CHECK_EQ_INT(declared.ndim, 1);
    CHECK_EQ_INT(declared.dims[0], -1);
    if (CHECK_OK(ort_session_run(s, in, 2, names, &out, 1))) {
        CHECK_EQ_INT(out.dims[0], 3);
        CHECK_EQ_INT(out.bytes, sizeof(z));
        CHECK_MEM(out.data, z, sizeof(z));
    }
    ort_session_close(s); /* what came out outlives its session */
    CHECK_NEAR(out.data ? (double)((float *)out.data)[2] : 0, 33, 0);
    ort_values_release(&out, 1);
    CHECK(out.data == NULL);
}

static void test_empty(void)
{
    static const char *const names[] = {"z"};
    ort_value in[] = {floats("x", NULL, 0, 0), floats("y", NULL, 0, 0)};
    ort_session *s = NULL;
    ort_value out = {0};

    if (!CHECK_OK(ort_session_open(&s, add_path, 1, false)))
        return;
    if (CHECK_OK(ort_session_run(s, in, 2, names, &out, 1)))
        CHECK_EQ_INT(out.bytes, 0);
    ort_values_release(&out, 1);
    ort_session_close(s);
}

static void test_refusals(void)
{
    static const char *const names[] = {"z"}, *const no_names[] = {"q"};
    float x[] = {1, 2, 3};
    ort_value in[] = {floats("x", x, 3, 0), floats("y", x, 3, 0)};
    ort_session *s = NULL;
    ort_value out = {0};
    char text_path[4200];

    CHECK_STATUS(ort_session_open(&s, "/no/such/model.onnx", 0, true), DR_EIO);
    CHECK_TRAIL("/no/such/model.onnx");
    (void)snprintf(text_path, sizeof(text_path), "%s/text.onnx", check_tmp());
    FILE *f = fopen(text_path, "w");
    (void)fputs("this is no model\n", f);
    (void)fclose(f);
    CHECK_STATUS(ort_session_open(&s, text_path, 0, true), DR_EDEVICE);
    CHECK_TRAIL("text.onnx");
    CHECK(s == NULL);

    if (!CHECK_OK(ort_session_open(&s, add_path, 1, true)))
        return;
    in[1].bytes = 8;
    CHECK_STATUS(ort_session_run(s, in, 2, names, &out, 1), DR_EUSAGE);
    CHECK_TRAIL("input y");
    in[1].bytes = 12;
    CHECK_STATUS(ort_session_run(s, in, 1, names, &out, 1), DR_EDEVICE);
    CHECK_STATUS(ort_session_run(s, in, 2, no_names, &out, 1), DR_EDEVICE);
    CHECK(out.data == NULL);
    CHECK_OK(ort_session_run(s, in, 2, names, &out, 1));
    ort_values_release(&out, 1);
    ort_session_close(s);
}

/* y = x W + (x A) B; a NULL: without the second term. */
static void expect(float y[4], const float x[6], const float *a, const float *b, int r)
{
    for (int m = 0; m < 2; m++) {
        for (int n = 0; n < FIXTURE_N; n++) {
            float sum = 0;
            for (int k = 0; k < FIXTURE_K; k++)
                sum += x[m * FIXTURE_K + k] * fixture_w[k * FIXTURE_N + n];
            for (int i = 0; a != NULL && i < r; i++)
                for (int k = 0; k < FIXTURE_K; k++)
                    sum += x[m * FIXTURE_K + k] * a[k * r + i] * b[i * FIXTURE_N + n];
            y[m * FIXTURE_N + n] = sum;
        }
    }
}

static void run_lora(ort_session *s, const float *a, const float *b, int r)
{
    static const char *const names[] = {"y"};
    float x[] = {1, -1, 2, 0.5F, 3, -2}, y[4];
    const ort_value in = floats("x", x, 2, FIXTURE_K);
    ort_value out = {0};

    expect(y, x, a, b, r);
    if (!CHECK_OK(ort_session_run(s, &in, 1, names, &out, 1)))
        return;
    CHECK_EQ_INT(out.bytes, sizeof(y));
    for (int i = 0; i < 4 && out.bytes == sizeof(y); i++)
        CHECK_NEAR((double)((float *)out.data)[i], (double)y[i], 1e-5);
    ort_values_release(&out, 1);
}

static void test_lora(const float *a, const float *b, int r)
{
    static const char *const names[] = {"y"};
    float x[] = {1, 1, 1};
    const ort_value in = floats("x", x, 1, FIXTURE_K);
    ort_session *s = NULL;
    ort_value v = {0};
    bool optional = false;

    if (!CHECK_OK(ort_session_open(&s, lora_path, 1, true)))
        return;
    CHECK_EQ_INT(ort_session_input_count(s), 3);
    CHECK_STR(ort_session_input_name(s, 0), "x");
    CHECK_OK(ort_session_input(s, 0, &v, &optional));
    CHECK(!optional);
    CHECK_EQ_INT(v.dims[1], FIXTURE_K);
    CHECK_OK(ort_session_input(s, 1, &v, &optional));
    CHECK(optional);
    run_lora(s, NULL, NULL, 0);
    CHECK_OK(ort_session_adapter(s, adapter_path));
    run_lora(s, a, b, r);
    CHECK_OK(ort_session_adapter(s, NULL));
    run_lora(s, NULL, NULL, 0);

    CHECK_STATUS(ort_session_adapter(s, "/no/such.onnx_adapter"), DR_EIO);
    CHECK_STATUS(ort_session_adapter(s, lora_path), DR_EDEVICE);
    CHECK_TRAIL("lora.onnx");
    CHECK_OK(ort_session_adapter(s, wrong_path));
    CHECK_STATUS(ort_session_run(s, &in, 1, names, &v, 1), DR_EDEVICE);
    CHECK_TRAIL("with the adapter");
    CHECK_TRAIL("is no input of this model");
    CHECK_OK(ort_session_adapter(s, adapter_path));
    run_lora(s, a, b, r);
    ort_session_close(s);
}

int main(void)
{
    static const float a[] = {1, 0.5F, -1, 2, 0.25F, 3}, b[] = {2, -1, 0.5F, 4};
    static const fixture_param params[] = {{"lora_A", {FIXTURE_K, 2}, a},
                                           {"lora_B", {2, FIXTURE_N}, b}};

    if (!fixture_has_ort()) {
        SKIP("no ONNX Runtime here");
        return check_done();
    }
    (void)snprintf(add_path, sizeof(add_path), "%s/add.onnx", check_tmp());
    (void)snprintf(lora_path, sizeof(lora_path), "%s/lora.onnx", check_tmp());
    (void)snprintf(adapter_path, sizeof(adapter_path), "%s/a.onnx_adapter", check_tmp());
    (void)snprintf(wrong_path, sizeof(wrong_path), "%s/wrong.onnx_adapter", check_tmp());
    fixture_add(add_path);
    fixture_lora(lora_path);
    fixture_adapter(adapter_path, params, 2);
    fixture_wrong_adapter(wrong_path);
    test_add();
    test_empty();
    test_refusals();
    test_lora(a, b, 2);
    return check_done();
}
