/*
 * selective_test.c - SelectiveMixedPrecision before a quantizer: the same bytes as that
 * one's own row mixed, on the grid of the pass; every parameter counts; what is refused.
 */
#include "flow_fixture.h"

static dr_arena arena;

/* The weights of these steps as a hash; "" and the status after an error. */
static const char *weights(dr_status *st, const char *choice, const char *pass,
                           const char *config)
{
    json_t *const configs[2] = {json_of(choice), json_of(config)};
    const flow_step steps[2] = {{"SelectiveMixedPrecision", configs[0]},
                                {pass, configs[1]}};
    const char *out = in_tmp(&arena, "out");
    const size_t skip = choice == NULL, end = pass == NULL ? 1 : 2;
    char hex[DR_SHA256_HEX] = "";
    flow_result r;

    dr_trail_clear();
    *st = flow_run(&r, &(flow_spec){.model = copy_letters(&arena, "letters"),
                                    .output = out,
                                    .steps = steps + skip,
                                    .step_count = end - skip});
    flow_result_release(&r);
    json_decref(configs[0]);
    json_decref(configs[1]);
    if (*st == DR_OK) {
        CHECK_OK(dr_sha256_file(hex, dr_path_join(&arena, out, "model/model.safetensors")));
        CHECK(!dr_exists(dr_path_join(&arena, out, "step-0")));
        CHECK_OK(dr_remove_tree(out));
    } else {
        nothing_at(&arena, out);
    }
    return dr_arena_strdup(&arena, hex);
}

static const char *made(const char *choice, const char *pass, const char *config)
{
    dr_status st = DR_OK;
    const char *hex = weights(&st, choice, pass, config);

    CHECK_OK(st);
    return hex;
}

static void refused(const char *choice, const char *pass, const char *config,
                    const char *message)
{
    dr_status st = DR_OK;

    (void)weights(&st, choice, pass, config);
    CHECK_STATUS(st, DR_EUSAGE);
    CHECK_TRAIL(message);
}

int main(void)
{
    static const char down[] = "{\"algorithm\": \"k_quant_down\", \"group_size\": 32}";
    const char *one = made(down, "Rtn", NULL);

    CHECK_STR(one, made(NULL, "Rtn", "{\"mixed\": \"k_quant_down\", \"group_size\": 32}"));
    CHECK_STR(one, made(down, "Rtn", "{\"group_size\": 16, \"sym\": true}"));
    static const char *const others[] = {
        "{\"algorithm\": \"k_quant_mixed\", \"group_size\": 32}",
        "{\"algorithm\": \"k_quant_down\", \"group_size\": 16}",
        "{\"algorithm\": \"k_quant_down\", \"group_size\": 32, \"sym\": true}",
        "{\"algorithm\": \"k_quant_down\", \"group_size\": 32, \"bits\": 2}",
        "{\"algorithm\": \"snr\", \"group_size\": 32}",
        "{\"algorithm\": \"snr\", \"group_size\": 32, \"ratio\": 0.3}",
    };
    const char *hashes[DR_COUNT(others) + 1] = {one};
    for (size_t i = 0; i < DR_COUNT(others); i++) {
        hashes[i + 1] = made(others[i], "Rtn", NULL);
        for (size_t k = 0; k <= i; k++)
            CHECK(strcmp(hashes[i + 1], hashes[k]) != 0);
    }
    refused(down, NULL, NULL, "SelectiveMixedPrecision writes nothing");
    refused(down, "ConvertToSafetensors", NULL, "ConvertToSafetensors is none");
    refused(down, "AutoClip", NULL, "chooses for a quantizer");
    refused(down, "AutoAWQQuantizer", NULL, "the awq layout has one setting");
    refused(down, "Rtn", "{\"mixed\": \"snr\"}", "has chosen");
    refused("{\"algorithm\": \"k_quant_down\", \"ratio\": 0.5}", "Rtn", NULL, "ratio");
    refused("{\"algorithm\": \"kld_gradient\"}", "Rtn", NULL, "kld_gradient");
    dr_arena_release(&arena);
    return check_done();
}
