/*
 * trainer_options.c - the Trainer's words for schedules, logs and evaluations.
 */
#include <math.h>
#include <string.h>
#include <strings.h>

#include "core/json.h"
#include "pass/lora_impl.h"

const char *const pass_train_dtypes[] = {"float32", "bfloat16", "int8", NULL};
const char *const pass_trainer_whens[] = {"no", "steps", "epoch", NULL};
const char *const pass_trainer_metrics[] = {"eval_loss", "loss", NULL};

enum { EVAL_STEPS = 500 }; /* the Trainer's logging_steps */

/* ---- lr_scheduler_kwargs ---- */

/* The members that a schedule takes; TAKES_ALL: every one that is not constant. */
typedef struct {
    const char *name;
    size_t offset;
    bool count; /* size_t, else double */
    double min, max;
    unsigned takes; /* bits of train_schedule */
} shape_key;

#define REAL(name, low, high, takes)                                                       \
    {                                                                                      \
#        name, offsetof(train_schedule_shape, name), false, low, high, takes               \
    }
#define COUNT(name, takes)                                                                 \
    {                                                                                      \
#        name, offsetof(train_schedule_shape, name), true, 1, 1e9, takes                   \
    }
#define PLATEAU_COUNT(name)                                                                \
    {                                                                                      \
#        name, offsetof(train_schedule_shape, name), true, 0, 1e9, BIT(PLATEAU)            \
    }
#define BIT(schedule) (1u << TRAIN_##schedule)

static const shape_key shape_keys[] = {
    REAL(num_cycles, 1e-6, 1e6,
         BIT(COSINE) | BIT(COSINE_RESTARTS) | BIT(COSINE_MIN) | BIT(STABLE_DECAY)),
    REAL(power, 1e-6, 100, BIT(POLYNOMIAL)),
    REAL(lr_end, 0, 1000, BIT(POLYNOMIAL)),
    REAL(min_lr, 0, 1000, BIT(COSINE_MIN) | BIT(PLATEAU)),
    REAL(min_lr_ratio, 0, 1, BIT(STABLE_DECAY)),
    COUNT(timescale, BIT(INVERSE_SQRT)),
    COUNT(num_decay_steps, BIT(STABLE_DECAY)),
    REAL(factor, 0, 0.999999, BIT(PLATEAU)),
    REAL(threshold, 0, 1000, BIT(PLATEAU)),
    REAL(eps, 0, 1000, BIT(PLATEAU)),
    PLATEAU_COUNT(patience),
    PLATEAU_COUNT(cooldown),
    /* cosine_with_min_lr's word for the ratio */
    {"min_lr_rate", offsetof(train_schedule_shape, min_lr_ratio), false, 0, 1,
     BIT(COSINE_MIN)}};

static dr_status shape_member(train_schedule_shape *s, train_schedule schedule,
                              const char *name, const json_t *v)
{
    const char *names[DR_COUNT(shape_keys)], *near;
    size_t n = 0;
    dr_status st = DR_OK;

    if (schedule == TRAIN_PLATEAU && strcmp(name, "threshold_mode") == 0) {
        const char *mode = json_string_value(v);
        s->absolute = mode != NULL && strcmp(mode, "abs") == 0;
        if (mode == NULL || (!s->absolute && strcmp(mode, "rel") != 0))
            return dr_fail(DR_EUSAGE, "lr_scheduler_kwargs: threshold_mode: expected rel "
                                      "or abs");
        return DR_OK;
    }
    for (size_t i = 0; i < DR_COUNT(shape_keys); i++) {
        const shape_key *k = &shape_keys[i];
        if ((k->takes >> schedule & 1) == 0)
            continue;
        names[n++] = k->name;
        if (strcmp(k->name, name) != 0)
            continue;
        double value = json_number_value(v);
        if (!json_is_number(v) || value < k->min || value > k->max ||
            (k->count && !json_is_integer(v)))
            return dr_fail(DR_EUSAGE, "lr_scheduler_kwargs: %s: expected %s of %g to %g",
                           name, k->count ? "an integer" : "a number", k->min, k->max);
        if (k->count)
            *(size_t *)((char *)s + k->offset) = (size_t)value;
        else
            *(double *)((char *)s + k->offset) = value;
        return DR_OK;
    }
    st = dr_fail(DR_EUSAGE, "lr_scheduler_kwargs: %s does not take \"%s\"",
                 train_schedule_names[schedule], name);
    near = dr_nearest(name, names, n);
    if (near != NULL || n > 0)
        dr_hint("it takes %s", near != NULL ? near : names[0]);
    return st;
}

static dr_status shape(train_schedule_shape *s, const pass_lora_config *c)
{
    train_schedule schedule = (train_schedule)c->lr_scheduler_type;
    json_t *kwargs = NULL, *v;
    const char *name, *text = c->lr_scheduler_kwargs;
    dr_status st = DR_OK;

    if (text != NULL) {
        DR_TRY(dr_json_parse(&kwargs, text, strlen(text), "lr_scheduler_kwargs"));
        if (!json_is_object(kwargs))
            DR_FAIL(DR_EUSAGE, "lr_scheduler_kwargs: expected an object, found %s",
                    dr_json_type(kwargs));
    }
    json_object_foreach(kwargs, name, v)
    {
        DR_TRY(shape_member(s, schedule, name, v));
    }
    if (schedule == TRAIN_STABLE_DECAY && s->num_decay_steps == 0)
        DR_FAIL(DR_EUSAGE, "warmup_stable_decay needs lr_scheduler_kwargs "
                           "{\"num_decay_steps\": N}");
    if (schedule == TRAIN_COSINE_MIN && s->min_lr == 0 && s->min_lr_ratio == 0)
        DR_FAIL(DR_EUSAGE,
                "cosine_with_min_lr needs lr_scheduler_kwargs {\"min_lr\": RATE} "
                "or {\"min_lr_rate\": SHARE}");
    if (schedule == TRAIN_POLYNOMIAL && !(s->lr_end < c->learning_rate))
        DR_FAIL(DR_EUSAGE, "lr_scheduler_kwargs: lr_end %g is not below learning_rate %g",
                s->lr_end, c->learning_rate);
done:
    json_decref(kwargs);
    return st;
}

/* ---- what goes with what ---- */

static dr_status no_effect(const char *name, const char *with)
{
    return dr_fail(DR_EUSAGE, "%s has no effect with %s", name, with);
}

/* Whole, or a share of all steps. */
static dr_status check_steps(const char *name, double v)
{
    if (v < 1 || v == floor(v))
        return DR_OK;
    return dr_fail(DR_EUSAGE, "%s: expected a whole number or one below 1, found %g", name,
                   v);
}

dr_status pass_trainer_check(const pass_lora_config *c, const dr_param *params,
                             size_t count, const unsigned char *given)
{
    static const char *const stopping[] = {"early_stopping_patience",
                                           "load_best_model_at_end"};
    train_schedule_shape s = TRAIN_SHAPE_DEFAULTS;
    bool never = c->eval_strategy == TRAIN_NEVER;
    dr_status st = DR_OK;

#define GIVEN(name) dr_param_given(params, count, given, name)
    if (GIVEN("logging_steps") && c->logging_strategy != TRAIN_STEPS)
        DR_TRY(no_effect("logging_steps", c->logging_strategy == TRAIN_EPOCH
                                              ? "logging_strategy epoch"
                                              : "logging_strategy no"));
    if (GIVEN("eval_steps") && (never || c->eval_strategy == TRAIN_EPOCH))
        DR_TRY(no_effect("eval_steps", never ? "eval_strategy no" : "eval_strategy epoch"));
    for (size_t i = 0; i < DR_COUNT(stopping) && never; i++)
        if (GIVEN(stopping[i]))
            DR_TRY(no_effect(stopping[i], "eval_strategy no"));
    if (never && c->lr_scheduler_type == TRAIN_PLATEAU)
        DR_FAIL(DR_EUSAGE, "lr_scheduler_type reduce_lr_on_plateau goes by evaluations; "
                           "eval_strategy no has none");
    DR_TRY(check_steps("logging_steps", c->logging_steps));
    DR_TRY(check_steps("eval_steps", c->eval_steps));
    DR_TRY(check_steps("save_steps", c->save_steps));
    if (GIVEN("early_stopping_threshold") && c->early_stopping_patience == 0)
        DR_FAIL(DR_EUSAGE, "early_stopping_threshold needs early_stopping_patience");
    if (GIVEN("metric_for_best_model") && c->early_stopping_patience == 0 &&
        !c->load_best_model_at_end)
        DR_FAIL(DR_EUSAGE, "metric_for_best_model needs load_best_model_at_end or "
                           "early_stopping_patience");
    if (c->save_strategy != TRAIN_STEPS && GIVEN("save_steps"))
        DR_TRY(no_effect("save_steps", c->save_strategy == TRAIN_NEVER
                                           ? "save_strategy no"
                                           : "save_strategy epoch"));
    if (c->save_strategy == TRAIN_NEVER && GIVEN("save_total_limit"))
        DR_TRY(no_effect("save_total_limit", "save_strategy no"));
#undef GIVEN
    DR_TRY(shape(&s, c));
done:
    return st;
}

dr_status pass_trainer_settings(json_t **out, const pass_job *job)
{
    static const char *const free_to_change[] = {
        "logging_steps", "logging_strategy", "logging_first_step", "save_strategy",
        "save_steps",    "save_total_limit", "reference_model"};
    dr_status st = DR_OK;

    DR_TRY(dr_params_json(out, job->def->params, job->def->params_count, job->config));
    for (size_t i = 0; i < DR_COUNT(free_to_change); i++)
        (void)json_object_del(*out, free_to_change[i]);
done:
    return st;
}

static dr_status needs_eval(const char *what)
{
    dr_status st = dr_fail(DR_EUSAGE, "%s needs data to evaluate on", what);

    dr_hint("--eval_split 'train[90%%:]' --train_split 'train[:90%%]', or "
            "--eval_data_files FILE");
    return st;
}

dr_status pass_trainer_options(train_options *o, const pass_job *job,
                               const pass_lora_config *c)
{
    static const char *const of_eval[] = {
        "eval_strategy",           "eval_steps",
        "load_best_model_at_end",  "metric_for_best_model",
        "early_stopping_patience", "early_stopping_threshold",
        "reference_model"};
    const pass_def *d = job->def;
    dr_status st = DR_OK;

    for (size_t i = 0; i < DR_COUNT(of_eval) && job->eval == NULL; i++) {
        if (!dr_param_given(d->params, d->params_count, job->given, of_eval[i]))
            continue;
        DR_TRY(needs_eval(of_eval[i]));
    }
    if (c->lr_scheduler_type == TRAIN_PLATEAU && job->eval == NULL)
        DR_TRY(needs_eval("lr_scheduler_type reduce_lr_on_plateau"));
    DR_TRY(shape(&o->shape, c));
    o->log_when = (train_when)c->logging_strategy;
    o->logging_steps = c->logging_steps;
    o->log_first = c->logging_first_step;
    o->eval_when = c->eval_strategy < 0 ? TRAIN_STEPS : (train_when)c->eval_strategy;
    o->eval_steps = c->eval_steps > 0      ? c->eval_steps
                    : c->logging_steps > 0 ? c->logging_steps
                                           : EVAL_STEPS;
    o->load_best = c->load_best_model_at_end;
    o->patience = (size_t)c->early_stopping_patience;
    o->threshold = c->early_stopping_threshold;
    o->checkpoints = job->checkpoints;
    o->save_when = (train_when)c->save_strategy;
    o->save_steps = c->save_steps;
    o->save_limit = (size_t)c->save_total_limit;
    o->resume = job->resume;
    if (job->resume != NULL && strcasecmp(job->resume, "true") == 0)
        o->resume = job->checkpoints;
done:
    return st;
}
