/*
 * rope.c - rotary position embedding: its config keys in all spellings, and the tables.
 *
 * transformers 4 writes rope_theta and rope_scaling at the top of config.json, transformers
 * 5 one object rope_parameters that holds both; either may say `type` for rope_type, and
 * Phi-3 has said "su" and "yarn" for longrope.  What is absent follows transformers 5.
 *
 * The tables follow transformers' float32 arithmetic operation by operation: torch computes
 * `scalar / tensor` as reciprocal times scalar, converts Python numbers to float first, and
 * rounds after each operation.  pow, cos and sin are taken in double and rounded once,
 * which is the correct rounding; torch's own vector functions differ from that by one unit
 * in the last place in about one value of 25, and from machine to machine.
 *
 * Longrope: Ding et al. 2024, arXiv:2402.13753; attention_factor as in transformers.
 */
#include "hf/config_impl.h"

#include <math.h>
#include <string.h>

#include "core/json.h"
#include "hf/family_impl.h"

enum { ROTARY_MAX = 2 * HF_ROPE_HALF_MAX };

/* ---- config ---- */

/* A member that is not null and not an empty object. */
static const json_t *member(const json_t *o, const char *key)
{
    const json_t *v = dr_json_get(o, key);

    return json_is_object(v) && json_object_size(v) == 0 ? NULL : v;
}

/*
 * The objects that have rope_type and its factors, of the rope and of the local one (NULL:
 * none).  key: their name, for messages.  One for each kind of layer: transformers 5.
 */
static dr_status rope_objects(const json_t *of[2], const char **key, const hf_config *c,
                              const json_t *config, const char *where)
{
    static const char *const names[2] = {"full_attention", "sliding_attention"};
    const json_t *o = member(config, "rope_parameters");
    bool nested = dr_json_get(o, names[0]) != NULL || dr_json_get(o, names[1]) != NULL;
    dr_status st = DR_OK;

    *key = "rope_parameters";
    if (nested && hf_family_of(c->arch)->theta_local == 0)
        DR_FAIL(DR_EUNSUPPORTED,
                "%s: rope_parameters: parameters per layer type are not supported for %s",
                where, c->arch_name);
    if (nested) {
        of[0] = dr_json_get(o, names[0]);
        of[1] = dr_json_get(o, names[1]);
    } else {
        if (member(config, "rope_scaling") != NULL || o == NULL) {
            *key = "rope_scaling";
            o = member(config, "rope_scaling");
        }
        of[0] = o;
    }
    for (int i = 0; i < 2; i++) {
        if (of[i] != NULL && !json_is_object(of[i]))
            DR_FAIL(DR_EFORMAT, "%s: %s%s%s: expected an object, found %s", where, *key,
                    nested ? ": " : "", nested ? names[i] : "", dr_json_type(of[i]));
    }
done:
    return st;
}

static dr_status rope_kind(hf_rope *r, const json_t *o, const char *key, hf_arch arch,
                           const char *where)
{
    static const struct {
        const char *name;
        hf_rope_kind kind;
    } kinds[] = {
        {"default", HF_ROPE_DEFAULT}, {"linear", HF_ROPE_LINEAR},
        {"llama3", HF_ROPE_LLAMA3},   {"longrope", HF_ROPE_LONGROPE},
        {"su", HF_ROPE_LONGROPE},     {"yarn", HF_ROPE_YARN},
        {"dynamic", HF_ROPE_DEFAULT}, /* within max_position_embeddings it is that */
    };
    const char *name = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_json_str(o, "rope_type", &name, where));
    if (name == NULL)
        DR_TRY(dr_json_str(o, "type", &name, where));
    if (name == NULL)
        name = "default";
    if (arch == HF_ARCH_PHI3 && strcmp(name, "yarn") == 0)
        name = "longrope"; /* early Phi-3 files; transformers reads them so */
    for (size_t i = 0; i < DR_COUNT(kinds); i++) {
        if (strcmp(kinds[i].name, name) == 0) {
            r->kind = kinds[i].kind;
            goto done;
        }
    }
    st =
        dr_fail(DR_EUNSUPPORTED, "%s: %s: rope type %s is not supported", where, key, name);
    dr_hint("supported: default, dynamic, linear, llama3, longrope, yarn");
done:
    return st;
}

/* A number that must be there and lie in [min, max]. */
static dr_status need_real(double *out, const json_t *o, const char *key, double min,
                           double max, const char *where)
{
    dr_status st = DR_OK;

    *out = 0;
    if (dr_json_get(o, key) == NULL)
        DR_FAIL(DR_EFORMAT, "%s: rope: %s is missing", where, key);
    DR_TRY(dr_json_real(o, key, out, where));
    if (*out < min || *out > max)
        DR_FAIL(DR_EFORMAT, "%s: rope: %s: %g is not between %g and %g", where, key, *out,
                min, max);
done:
    return st;
}

/* short_factor and long_factor: one positive number for each pair of rotated values. */
static dr_status factor_list(dr_arena *a, const float **out, const json_t *o,
                             const char *key, int rotary_dim, const char *where)
{
    const json_t *list = dr_json_get(o, key);
    size_t n = (size_t)rotary_dim / 2;
    dr_status st = DR_OK;

    if (list == NULL)
        DR_FAIL(DR_EFORMAT, "%s: rope: %s is missing", where, key);
    if (!json_is_array(list))
        DR_FAIL(DR_EFORMAT, "%s: rope: %s: expected an array, found %s", where, key,
                dr_json_type(list));
    if (json_array_size(list) != n)
        DR_FAIL(DR_EFORMAT,
                "%s: rope: %s: expected %zu numbers (half of the rotary size), "
                "found %zu",
                where, key, n, json_array_size(list));
    float *f = dr_arena_alloc(a, n, sizeof(float));
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        f[i] = json_is_number(v) ? (float)json_number_value(v) : -1.0f;
        if (!(f[i] > 0) || isinf(f[i]))
            DR_FAIL(DR_EFORMAT, "%s: rope: %s: number %zu is not above zero", where, key,
                    i);
    }
    *out = f;
done:
    return st;
}

/* original_max_position_embeddings: Phi-3 has it at the top, and there it wins. */
static dr_status original_max(hf_rope *r, const hf_config *c, const json_t *config,
                              const json_t *o, const char *where)
{
    static const char key[] = "original_max_position_embeddings";
    int64_t n = c->max_position;
    dr_status st = DR_OK;

    if (c->arch == HF_ARCH_PHI3)
        n = 4096; /* Phi3Config's default */
    else
        DR_TRY(dr_json_int(o, key, &n, where));
    DR_TRY(dr_json_int(config, key, &n, where));
    if (n < 2 || n > HF_POSITION_MAX)
        DR_FAIL(DR_EFORMAT, "%s: %s: %lld is not between 2 and %lld", where, key,
                (long long)n, (long long)HF_POSITION_MAX);
    r->original_max = n;
done:
    return st;
}

static dr_status longrope(dr_arena *a, hf_rope *r, const hf_config *c, const json_t *config,
                          const json_t *o, const char *where)
{
    double factor = 0;
    dr_status st = DR_OK;

    DR_TRY(original_max(r, c, config, o, where));
    DR_TRY(factor_list(a, &r->short_factor, o, "short_factor", r->rotary_dim, where));
    DR_TRY(factor_list(a, &r->long_factor, o, "long_factor", r->rotary_dim, where));
    if (dr_json_get(o, "factor") != NULL)
        DR_TRY(need_real(&factor, o, "factor", 1e-6, 1e6, where));
    else
        factor = (double)c->max_position / (double)r->original_max;
    r->factor = factor;
    if (dr_json_get(o, "attention_factor") != NULL)
        DR_TRY(need_real(&r->attention_factor, o, "attention_factor", 1e-6, 1e6, where));
    else if (factor > 1)
        r->attention_factor = sqrt(1 + log(factor) / log((double)r->original_max));
done:
    return st;
}

static dr_status llama3(hf_rope *r, const hf_config *c, const json_t *config,
                        const json_t *o, const char *where)
{
    dr_status st = DR_OK;

    DR_TRY(original_max(r, c, config, o, where));
    DR_TRY(need_real(&r->factor, o, "factor", 1e-6, 1e6, where));
    DR_TRY(need_real(&r->low_freq_factor, o, "low_freq_factor", 1e-6, 1e6, where));
    DR_TRY(need_real(&r->high_freq_factor, o, "high_freq_factor", 1e-6, 1e6, where));
    if (r->high_freq_factor <= r->low_freq_factor)
        DR_FAIL(DR_EFORMAT, "%s: rope: high_freq_factor %g is not above low_freq_factor %g",
                where, r->high_freq_factor, r->low_freq_factor);
done:
    return st;
}

/* A number that may be null or 0, which mean dflt. */
static dr_status may_real(double *out, const json_t *o, const char *key, double dflt,
                          const char *where)
{
    *out = 0;
    dr_status st = dr_json_real(o, key, out, where);
    if (st == DR_OK && (*out < 0 || *out > 1e6))
        st = dr_fail(DR_EFORMAT, "%s: rope: %s: %g is not between 0 and 1e6", where, key,
                     *out);
    *out = *out == 0 ? dflt : *out;
    return st;
}

static double yarn_mscale(double factor, double weight)
{
    return factor <= 1 ? 1 : 0.1 * weight * log(factor) + 1;
}

/* The pair that turns so many times within the length of the training. */
static double yarn_pair(const hf_rope *r, double turns)
{
    double pi = acos(-1.0), length = (double)r->original_max;

    return r->rotary_dim * log(length / (turns * 2 * pi)) / (2 * log(r->theta));
}

/* Peng et al. 2023, arXiv:2309.00071. */
static dr_status yarn(hf_rope *r, const hf_config *c, const json_t *config, const json_t *o,
                      const char *where)
{
    double mscale = 0, mscale_all = 0;
    bool truncate = true;
    dr_status st = DR_OK;

    DR_TRY(original_max(r, c, config, o, where));
    if (dr_json_get(o, "factor") != NULL)
        DR_TRY(need_real(&r->factor, o, "factor", 1e-6, 1e6, where));
    else
        r->factor = (double)c->max_position / (double)r->original_max;
    DR_TRY(may_real(&r->beta_fast, o, "beta_fast", 32, where));
    DR_TRY(may_real(&r->beta_slow, o, "beta_slow", 1, where));
    DR_TRY(may_real(&mscale, o, "mscale", 0, where));
    DR_TRY(may_real(&mscale_all, o, "mscale_all_dim", 0, where));
    DR_TRY(dr_json_bool(o, "truncate", &truncate, where));
    r->attention_factor = yarn_mscale(r->factor, 1);
    if (mscale > 0 && mscale_all > 0)
        r->attention_factor =
            yarn_mscale(r->factor, mscale) / yarn_mscale(r->factor, mscale_all);
    if (dr_json_get(o, "attention_factor") != NULL)
        DR_TRY(need_real(&r->attention_factor, o, "attention_factor", 1e-6, 1e6, where));
    if (!(r->theta > 1))
        DR_FAIL(DR_EFORMAT, "%s: rope_theta: %g is not above 1, as yarn needs it", where,
                r->theta);
    double low = yarn_pair(r, r->beta_fast), high = yarn_pair(r, r->beta_slow);
    r->ramp_low = fmax(truncate ? floor(low) : low, 0);
    r->ramp_high = fmin(truncate ? ceil(high) : high, r->rotary_dim - 1);
    if (r->ramp_low == r->ramp_high)
        r->ramp_high += 0.001;
done:
    return st;
}

/* partial_rotary_factor: the share of head_dim that is rotated. */
static dr_status rotary_dim(hf_rope *r, const hf_config *c, const json_t *config,
                            const json_t *o, const char *where)
{
    double dflt = hf_family_of(c->arch)->partial_rotary, share = dflt > 0 ? dflt : 1;
    dr_status st = DR_OK;

    DR_TRY(dr_json_real(config, "partial_rotary_factor", &share, where));
    if (o != NULL)
        DR_TRY(dr_json_real(o, "partial_rotary_factor", &share, where));
    if (!(share > 0) || share > 1)
        DR_FAIL(DR_EFORMAT, "%s: partial_rotary_factor: %g is not above 0 and at most 1",
                where, share);
    r->rotary_dim = (int)((double)c->head_dim * share);
    if (r->rotary_dim < 2 || r->rotary_dim % 2 != 0)
        DR_FAIL(DR_EUNSUPPORTED,
                "%s: partial_rotary_factor: %g of a head of %d is %d, "
                "which is not an even number",
                where, share, c->head_dim, r->rotary_dim);
    if (r->rotary_dim != c->head_dim && dflt == 0)
        DR_FAIL(DR_EUNSUPPORTED, "%s: partial_rotary_factor: %g is not supported for %s",
                where, share, c->arch_name);
done:
    return st;
}

/* theta_key: where the theta is at the top of config.json; o, key: see rope_objects. */
static dr_status parse_one(dr_arena *a, hf_rope *r, const hf_config *c,
                           const json_t *config, const char *theta_key, const json_t *o,
                           const char *key, const char *where)
{
    dr_status st = DR_OK;

    DR_TRY(dr_json_real(config, theta_key, &r->theta, where));
    if (o != NULL) {
        DR_TRY(dr_json_real(o, "rope_theta", &r->theta, where));
        DR_TRY(rope_kind(r, o, key, c->arch, where));
    }
    if (!(r->theta >= 1) || r->theta > 1e12)
        DR_FAIL(DR_EFORMAT, "%s: %s: %g is not between 1 and 1e12", where, theta_key,
                r->theta);
    DR_TRY(rotary_dim(r, c, config, o, where));
    if (r->kind == HF_ROPE_LINEAR)
        DR_TRY(need_real(&r->factor, o, "factor", 1e-6, 1e6, where));
    else if (r->kind == HF_ROPE_LLAMA3)
        DR_TRY(llama3(r, c, config, o, where));
    else if (r->kind == HF_ROPE_YARN)
        DR_TRY(yarn(r, c, config, o, where));
    else if (r->kind == HF_ROPE_LONGROPE)
        DR_TRY(longrope(a, r, c, config, o, where));
done:
    return st;
}

dr_status hf_rope_parse(dr_arena *a, hf_config *c, const json_t *config, const char *where)
{
    const hf_family *f = hf_family_of(c->arch);
    const json_t *of[2] = {NULL, NULL};
    const char *key = NULL;
    dr_status st = DR_OK;

    c->rope = (hf_rope){
        .theta = f->theta > 0 ? f->theta : 10000, .factor = 1, .attention_factor = 1};
    c->rope_local = (hf_rope){.theta = f->theta_local, .factor = 1, .attention_factor = 1};
    DR_TRY(rope_objects(of, &key, c, config, where));
    DR_TRY(parse_one(a, &c->rope, c, config, "rope_theta", of[0], key, where));
    if (f->theta_local > 0)
        DR_TRY(parse_one(a, &c->rope_local, c, config, "rope_local_base_freq", of[1], key,
                         where));
done:
    return st;
}

/* ---- tables ---- */

static float llama3_freq(const hf_rope *r, float freq)
{
    float old = (float)r->original_max;
    float low_wave = (float)((double)r->original_max / r->low_freq_factor);
    float high_wave = (float)((double)r->original_max / r->high_freq_factor);
    float factor = (float)r->factor;
    float wave = 1.0f / freq * (float)(2 * 3.14159265358979323846);

    if (wave > low_wave)
        return freq / factor;
    if (wave < high_wave)
        return freq;
    float smooth = (1.0f / wave * old - (float)r->low_freq_factor) /
                   (float)(r->high_freq_factor - r->low_freq_factor);
    return (1.0f - smooth) * freq / factor + smooth * freq;
}

/* p: the reciprocal of the i-th frequency. */
static float yarn_freq(const hf_rope *r, int i, float p)
{
    float ramp = ((float)i - (float)r->ramp_low) / (float)(r->ramp_high - r->ramp_low);
    float keep = 1.0f - fminf(fmaxf(ramp, 0.0f), 1.0f);

    return 1.0f / ((float)r->factor * p) * (1.0f - keep) + 1.0f / p * keep;
}

/* freq[rotary_dim/2]: radians a position. */
static void frequencies(const hf_rope *r, bool long_rope, float *freq)
{
    const float *ext = long_rope ? r->long_factor : r->short_factor;

    for (int i = 0; i < r->rotary_dim / 2; i++) {
        float e = (float)(2 * i) / (float)r->rotary_dim;
        float p = (float)pow((double)(float)r->theta, (double)e);
        if (r->kind == HF_ROPE_LONGROPE)
            p = ext[i] * p;
        freq[i] = 1.0f / p;
        if (r->kind == HF_ROPE_LINEAR)
            freq[i] /= (float)r->factor;
        else if (r->kind == HF_ROPE_LLAMA3)
            freq[i] = llama3_freq(r, freq[i]);
        else if (r->kind == HF_ROPE_YARN)
            freq[i] = yarn_freq(r, i, p);
    }
}

void hf_rope_tables(const hf_rope *r, bool long_rope, size_t rows, float *cos_out,
                    float *sin_out)
{
    float freq[ROTARY_MAX / 2];
    size_t half = (size_t)r->rotary_dim / 2;
    float scale = (float)r->attention_factor;

    DR_BUG_IF(half > DR_COUNT(freq));
    frequencies(r, long_rope, freq);
    for (size_t pos = 0; pos < rows; pos++) {
        for (size_t i = 0; i < half; i++) {
            double angle = (double)((float)pos * freq[i]);
            cos_out[pos * half + i] = (float)cos(angle) * scale;
            sin_out[pos * half + i] = (float)sin(angle) * scale;
        }
    }
}
