/*
 * fixed.c - which verbs' runs make graphs of fixed shapes (NpuModelBuilder), and which of
 * any shape (ModelBuilder): the provider decides.
 */
#include <strings.h>

#include "cli/cli_impl.h"

/* The providers whose graphs have them, by NpuModelBuilder's names. */
static const char *const fixed_providers[][2] = {
    {CLI_OPENVINO, "openvino"},
    {CLI_QNN, "qnn"},
    {CLI_VITISAI, "vitisai"},
};

const char *cli_fixed_provider(const char *name)
{
    for (size_t i = 0; name != NULL && i < DR_COUNT(fixed_providers); i++) {
        if (strcasecmp(name, fixed_providers[i][0]) == 0 ||
            strcasecmp(name, fixed_providers[i][1]) == 0)
            return fixed_providers[i][0];
    }
    return NULL;
}

dr_status cli_refuse_given(const dr_param *params, size_t count, const unsigned char *given,
                           const char *const *names, size_t n, const char *why)
{
    for (size_t i = 0; i < n; i++) {
        if (dr_param_given(params, count, given, names[i]))
            return dr_fail(DR_EUSAGE, "--%s has no effect %s", names[i], why);
    }
    return DR_OK;
}
