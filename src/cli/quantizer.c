/*
 * quantizer.c - the options that choose a quantizer, for the verbs that run one: quantize,
 * and auto-opt and optimize, where the export follows in the same run.
 *
 * An implementation is what Olive calls the program behind a pass.  Here it is the same
 * algorithm as that program's, in its layout: olive's own, AutoAWQ's, AutoGPTQ's.
 */
#include <string.h>

#include "cli/cli_impl.h"

/* behind them: refused */
enum { AWQ, BEST, GPTQ, HQQ, KQUANT, K_QUANT, RTN, QUAROT, ALGORITHMS };
const char *const cli_algorithms[] = {
    "awq",    "best",      "gptq", "hqq",    "kquant",   "k_quant", "rtn",
    "quarot", "spinquant", "lpbq", "seqmse", "adaround", NULL};
static const char *const passes[] = {"AutoAWQQuantizer", "Best",   "Gptq", "Hqq",
                                     "KQuant",           "KQuant", "Rtn",  "QuaRot"};

enum { OLIVE, AUTOAWQ, AUTOGPTQ, ROTATION, IMPLEMENTATIONS }; /* likewise */
const char *const cli_implementations[] = {"olive",     "awq",   "autogptq", "quarot",
                                           "bnb",       "ort",   "nvmo",     "inc",
                                           "spinquant", "aimet", NULL};
const char *const cli_layouts[] = {"awq", "gptq", "olive", "compressed-tensors", NULL};
const char *const cli_mixes[] = {"k_quant_down", "k_quant_mixed", "k_quant_last", "snr",
                                 "snr_relative", "iqe",           "iqe_relative", NULL};

static dr_status refuse_algorithm(const char *name)
{
    bool rotates = strcmp(name, "spinquant") == 0;
    dr_status st =
        dr_fail(DR_EUSAGE, "--algorithm %s is not supported yet: %s", name,
                rotates ? "rotations are not trained"
                        : "AIMET's algorithms are for graphs with rounded values");

    dr_hint("the nearest is --algorithm %s", rotates ? "quarot" : "gptq");
    return st;
}

/* Which algorithms of ours an implementation has. */
static bool implements(int implementation, int algorithm)
{
    switch (implementation) {
    case OLIVE:
        return algorithm == RTN || algorithm == KQUANT || algorithm == K_QUANT ||
               algorithm == GPTQ;
    case AUTOAWQ:
        return algorithm == AWQ;
    case AUTOGPTQ:
        return algorithm == GPTQ;
    case ROTATION:
        return algorithm == QUAROT;
    default:
        return false;
    }
}

static dr_status check_implementation(const cli_quantizer *q)
{
    static const char *const nearest[] = {"--algorithm rtn, kquant or gptq",
                                          "--algorithm awq", "--algorithm gptq",
                                          "--algorithm quarot"};
    const char *name = cli_implementations[q->implementation];
    dr_status st = DR_OK;

    if (q->implementation >= IMPLEMENTATIONS) {
        st = dr_fail(DR_EUSAGE, "--implementation %s is not supported: %s", name,
                     "its checkpoints or graphs are not made here");
        dr_hint("the nearest is --implementation olive");
    } else if (!implements(q->implementation, q->algorithm)) {
        st = dr_fail(DR_EUSAGE, "--implementation %s has no %s", name,
                     cli_algorithms[q->algorithm]);
        dr_hint("it is for %s; drupe's own needs no --implementation",
                nearest[q->implementation]);
    }
    return st;
}

bool cli_quantizer_rotates(const cli_quantizer *q)
{
    return q->algorithm == QUAROT;
}

dr_status cli_quantizer_check(const cli_quantizer *q)
{
    if (q->algorithm >= ALGORITHMS)
        return refuse_algorithm(cli_algorithms[q->algorithm]);
    if (q->exact && q->algorithm != AWQ && q->algorithm != GPTQ)
        return dr_fail(DR_EUSAGE, "--exact belongs to --algorithm awq and gptq, not to %s",
                       cli_algorithms[q->algorithm]);
    return q->implementation >= 0 ? check_implementation(q) : DR_OK;
}

static void set_symmetric(json_t *config, int algorithm, bool symmetric)
{
    if (algorithm == AWQ)
        json_object_set_new(config, "zero_point", json_boolean(!symmetric));
    else
        json_object_set_new(config, "sym", json_boolean(symmetric));
}

/* The very algorithm of AutoAWQ, of Olive or of AutoGPTQ. */
static void set_exact(json_t *config, const cli_quantizer *q)
{
    if (q->algorithm == AWQ)
        json_object_set_new(config, "exact", json_true());
    if (q->algorithm != GPTQ)
        return;
    json_object_set_new(config, "minmax", json_true());
    json_object_set_new(config, "prescale", json_false());
    json_object_set_new(config, "bias_correction", json_false());
    json_object_set_new(config, "desc_act",
                        json_boolean(q->group_size == -1 && q->implementation != AUTOGPTQ));
}

dr_status cli_quantizer_between(json_t *config, const cli_quantizer *q, bool rows)
{
    const char *key = q->algorithm == AWQ ? "q_group_size" : "group_size";
    const json_t *size = json_object_get(config, key);
    dr_status st = DR_OK;

    if (cli_quantizer_rotates(q)) {
        st = dr_fail(DR_EUSAGE, "--algorithm quarot rounds nothing; a quantizer has to "
                                "come between it and an export");
        dr_hint("run quantize --algorithm quarot, then this with --algorithm gptq on its "
                "result");
        return st;
    }
    if (q->algorithm == AWQ ||
        q->lm_head) /* awq's layout has one grid, gptq's no odd head */
        json_object_set_new(config, "format", json_string("olive"));
    if (!rows)
        return DR_OK;
    if (size != NULL && json_integer_value(size) != -1)
        return dr_fail(DR_EUSAGE,
                       "--group_size %d: weights for this provider have a scale an output; "
                       "nearest: -1",
                       (int)json_integer_value(size));
    json_object_set_new(config, key, json_integer(-1));
    return DR_OK;
}

dr_status cli_quantizer_config(json_t **out, const char **pass, const cli_quantizer *q,
                               const cli_verb *verb, const void *config,
                               const unsigned char *given)
{
    static const char *const rows[] = {
        "format", "lm_head", "embeds",   "modules_to_not_convert", "overrides",
        "mixed",  "ratio",   "max_size", "distill_steps",          "distill_learning_rate"};
    static const cli_key seed = {"seed", "random_seed"};
    cli_key keys[DR_COUNT(rows)];
    size_t n = 0;
    dr_status st = DR_OK;

    DR_TRY(cli_quantizer_check(q));
    if (cli_quantizer_rotates(q)) {
        *pass = passes[q->algorithm];
        DR_TRY(cli_pass_config(out, verb->params, verb->params_count, config, given, &seed,
                               1));
        goto done;
    }
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        if (dr_param_find(verb->params, verb->params_count, rows[i]) != NULL)
            keys[n++] = (cli_key){rows[i], NULL};
    }
    DR_TRY(cli_pass_config(out, verb->params, verb->params_count, config, given, keys, n));
    *pass = passes[q->algorithm];
    bool row = dr_param_find(verb->params, verb->params_count, "group_size") != NULL;
    bool asked = dr_param_given(verb->params, verb->params_count, given, "group_size");
    if (row ? asked : q->group_size != 0)
        json_object_set_new(*out, q->algorithm == AWQ ? "q_group_size" : "group_size",
                            json_integer(q->group_size));
    if (q->bits != 0)
        json_object_set_new(*out, "bits", json_integer(q->bits));
    if (q->symmetric)
        set_symmetric(*out, q->algorithm, true);
    if (q->exact || q->implementation >= 0)
        set_exact(*out, q);
    if (q->implementation == OLIVE && json_object_get(*out, "format") == NULL)
        json_object_set_new(*out, "format", json_string("olive"));
done:
    return st;
}
