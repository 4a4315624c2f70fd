/*
 * workflow_schema.c - the keys of a workflow file: Olive's, of both eras.
 *
 * TO ADD a key: a row here, and where it is read (workflow.c and workflow_*.c).  A key of
 * Olive that drupe cannot honour is a refused row with the reason: nothing is accepted and
 * left unused.
 */
#include <string.h>

#include "flow/workflow_impl.h"

#define REFUSED(name, why)                                                                 \
    {                                                                                      \
        .key = name, .kind = WF_REFUSED, .help = why                                       \
    }
#define OBJECT(id, title)                                                                  \
    static const wf_object id = {title, id##_rows, DR_COUNT(id##_rows), .nested = false}
/* One whose keys may also stand in a "config" of it. */
#define NESTED(id, title)                                                                  \
    static const wf_object id = {title, id##_rows, DR_COUNT(id##_rows), .nested = true}

static const char no_python[] = "code in Python is never run";

/* ---- data ---- */

static const char *const strategies[] = {
    "join",    "join-random", "join-sliding-window", "line-by-line", "line-by-line-random",
    "packing", NULL};
static const char *const containers[] = {"HuggingfaceContainer", "DataContainer", NULL};

static const wf_row load_rows[] = {
    {"type", WF_WORD,
     .words = (const char *const[]){"huggingface_dataset", "local_dataset", NULL},
     .help = "files alone are read"},
    {"data_name", WF_STR, .help = "json, csv or text: of data_files"},
    {"data_files", WF_STRS, .help = "paths; in a list or with commas between"},
    {"split", WF_STR, .help = "rows of the files: train, \"train[:90%]\""},
    {"trust_remote_code", WF_BOOL,
     .help = "code of data sets is never run, whatever it says"},
    REFUSED("subset", "only files are read, which have no subsets"),
    REFUSED("data_dir", "name the files in data_files"),
    REFUSED("label_cols", "models are text generators"),
    REFUSED("params", "its members stand beside it"),
};
OBJECT(load, "load_dataset_config");

static const wf_row self_rows[] = {
    {"temperature", WF_NUM, .min = 0, .max = 100, .help = "0: always the likeliest token"},
};
OBJECT(self, "self_written");

static const wf_row pre_rows[] = {
    {"type", WF_WORD,
     .words = (const char *const[]){"text_generation_huggingface_pre_process",
                                    "huggingface_pre_process", NULL},
     .help = "text becomes blocks of tokens"},
    {"text_cols", WF_STRS, .help = "the column with the text"},
    {"text_template", WF_STR, .help = "text from columns: \"{prompt}\\n{response}\""},
    {"chat_template", WF_BOOL,
     .help = "the model's own, over messages or prompt, response"},
    {"completion_only_loss", WF_BOOL, .help = "of trainings: answers alone have a loss"},
    {"strategy", WF_WORD, .words = strategies, .help = "how rows become blocks"},
    {"stride", WF_INT, .min = 1, .max = 1 << 20, .help = "of join-sliding-window"},
    {"random_seed", WF_INT, .min = 0, .max = 2147483647, .help = "of what is drawn"},
    {"add_special_tokens", WF_BOOL, .help = "begin and end of text around each row"},
    {"max_seq_len", WF_INT, .min = 2, .max = 1 << 20, .help = "tokens a block"},
    {"max_samples", WF_INT, .min = 1, .max = 1 << 24, .help = "blocks"},
    {"self_written", WF_OBJECT, .of = &self, .help = "the model writes the text: no files"},
    REFUSED("source_max_len", "call it max_seq_len"),
    REFUSED("corpus_strategy", "call it strategy"),
    REFUSED("dataset_type", "text is what models are given"),
    REFUSED("pad_to_max_len",
            "blocks are padded where needed, and padding is not computed on"),
    REFUSED("padding_side", "padding is not computed on"),
    REFUSED("drop_short_sequences", "short rows are used"),
    REFUSED("use_attention_mask", "padding is not computed on"),
    REFUSED("message_col", "the column is messages"),
    REFUSED("joiner", "rows are joined by blank lines"),
    REFUSED("model_name", "the tokenizer is the model's"),
    REFUSED("processing_batch_size", "rows are not batched"),
    REFUSED("random_retries", "a row is drawn until one is long enough"),
};
OBJECT(pre, "pre_process_data_config");

static const wf_row loader_rows[] = {
    {"batch_size", WF_INT, .min = 1, .max = 1, .help = "blocks are run one by one"},
    REFUSED("type", "there is one loader"),
};
OBJECT(loader, "dataloader_config");

static const wf_row data_rows[] = {
    {"name", WF_STR, .help = "letters, digits and _"},
    {"type", WF_WORD, .words = containers, .help = "where data comes from"},
    {"load_dataset_config", WF_OBJECT, .of = &load, .help = "what is read"},
    {"pre_process_data_config", WF_OBJECT, .of = &pre, .help = "how it becomes tokens"},
    {"dataloader_config", WF_OBJECT, .of = &loader, .help = "how blocks are handed out"},
    REFUSED("post_process_data_config", "what a model gives needs no step after it"),
    REFUSED("user_script", no_python),
    REFUSED("script_dir", no_python),
    REFUSED("components", "they are keys of their own: load_dataset_config and so on"),
};
OBJECT(data, "data_config");

/* ---- models and systems ---- */

static const char *const model_types[] = {"HfModel",       "ONNXModel", "CompositeModel",
                                          "OpenVINOModel", "QNNModel",  NULL};
static const char *const model_formats[] = {"QNN.CPP", "QNN.LIB", "QNN.SERIALIZED.BIN",
                                            NULL};
static const char *const model_tasks[] = {"text-generation", "text-generation-with-past",
                                          NULL};

static const wf_row load_kwargs_rows[] = {
    {"trust_remote_code", WF_BOOL,
     .help = "code in model folders is never run, whatever it says"},
    REFUSED("torch_dtype", "weights are read as they are stored"),
    REFUSED("attn_implementation", "there is one"),
    REFUSED("quantization_config", "add a pass that quantizes"),
};
OBJECT(load_kwargs, "load_kwargs");

static const wf_row model_rows[] = {
    {"type", WF_WORD, .words = model_types,
     .help = "HfModel, ONNXModel, OpenVINOModel, QNNModel, or CompositeModel: a folder of "
             "graphs"},
    {"model_path", WF_STR, .required = true,
     .help = "folder, GGUF file, hub id, or an earlier result"},
    {"model_file_format", WF_WORD, .words = model_formats,
     .help = "of a QNNModel: what the first pass is to take"},
    {"onnx_file_name", WF_STR, .help = "the graph's file in the folder"},
    {"adapter_path", WF_STR, .help = "PEFT folder"},
    {"task", WF_WORD, .words = model_tasks, .help = "what the model does"},
    {"load_kwargs", WF_OBJECT, .of = &load_kwargs,
     .help = "how transformers would load it"},
    REFUSED("model_components", "name their folder in model_path"),
    REFUSED("model_component_names", "they are the files' names"),
    REFUSED("io_config", "inputs and outputs follow from the model"),
    REFUSED("model_attributes", "they follow from the model"),
    REFUSED("generative", "every supported model is one"),
    REFUSED("model_script", no_python),
    REFUSED("script_dir", no_python),
    REFUSED("model_loader", no_python),
    REFUSED("dummy_inputs_func", no_python),
    REFUSED("hf_config", "the model's folder has it"),
    REFUSED("inference_settings", "sessions have their defaults"),
    REFUSED("test_model_path", "the model itself is run"),
    REFUSED("test_model_config", "the model itself is run"),
};
NESTED(model, "input_model");

static const char *const devices[] = {"cpu", "gpu", "npu", NULL};

static const wf_row accelerator_rows[] = {
    {"device", WF_WORD, .words = devices, .help = "what exports are made for"},
    {"execution_providers", WF_STRS, .help = "one: what exports are made for"},
    REFUSED("memory", "set DRUPE_MEMORY_LIMIT"),
};
OBJECT(accelerator, "accelerator");

static const char no_other[] = "passes run on this machine, in this program";
static const wf_refusal system_types[] = {{"AzureML", no_other},
                                          {"Docker", no_other},
                                          {"PythonEnvironment", no_other},
                                          {"IsolatedORT", no_other},
                                          {NULL, NULL}};

static const wf_row machine_rows[] = {
    {"type", WF_WORD, .required = true, .words = (const char *const[]){"LocalSystem", NULL},
     .refused = system_types, .help = "this machine"},
    {"accelerators", WF_LIST, .of = &accelerator, .help = "one"},
    REFUSED("hf_token", "set HF_TOKEN"),
};
NESTED(machine, "system");

/* ---- evaluators ---- */

static const char *const goals[] = {
    "threshold",       "min-improvement",         "percent-min-improvement",
    "max-degradation", "percent-max-degradation", NULL};

static const wf_row goal_rows[] = {
    {"type", WF_WORD, .required = true, .words = goals, .help = "what value means"},
    {"value", WF_NUM, .required = true, .help = "in the figure's unit, or percent"},
};
OBJECT(goal, "goal");

static const char *const averages[] = {"binary", "macro", "micro", "weighted", NULL};

static const wf_row metric_config_rows[] = {
    {"warmup_num", WF_INT, .min = 0, .max = 10000, .help = "runs before the clock (10)"},
    {"repeat_test_num", WF_INT, .min = 1, .max = 100000, .help = "runs on the clock (20)"},
    {"sleep_num", WF_NUM, .min = 0, .max = 60, .help = "seconds between runs (0)"},
    {"task", WF_WORD, .words = (const char *const[]){"binary", "multiclass", NULL},
     .help = "of f1_score, precision, recall: binary is of the second choice"},
    {"average", WF_WORD, .words = averages,
     .help = "of the same (macro; of two choices binary)"},
    REFUSED("num_classes", "it is how many choices there are"),
};
OBJECT(metric_config, "metric_config");

static const wf_row sub_rows[] = {
    {"name", WF_STR, .required = true, .help = "of the figure"},
    {"priority", WF_INT, .min = -1, .max = 1000, .help = "1 is the first; -1: none"},
    {"higher_is_better", WF_BOOL, .help = "of a custom figure"},
    {"goal", WF_OBJECT, .of = &goal, .help = "what a model must reach"},
    {"metric_config", WF_OBJECT, .of = &metric_config, .help = "how it is measured"},
};
OBJECT(sub, "sub_type");

static const wf_row user_rows[] = {
    {"command", WF_STRS, .help = "of custom: a program and its arguments"},
    {"parallel", WF_BOOL,
     .help = "of custom: workers run it, for several models at a time"},
    {"task", WF_STR, .help = "of accuracy: JSON lines of questions, instead of a text"},
    {"max_new_tokens", WF_INT, .min = 1, .max = 1 << 20,
     .help = "of exact_match and wer: tokens of an answer (32)"},
    {"prompt_tokens", WF_INT, .min = 1, .max = 1 << 20,
     .help = "of latency and throughput: tokens of the prompt (64)"},
    {"new_tokens", WF_INT, .min = 2, .max = 1 << 20,
     .help = "of throughput: tokens that are generated (16)"},
    REFUSED("user_script", no_python),
    REFUSED("script_dir", no_python),
    REFUSED("evaluate_func", no_python),
    REFUSED("metric_func", no_python),
    REFUSED("io_bind", "there is one way to bind"),
    REFUSED("shared_kv_buffer", "genai_config.json says it"),
    REFUSED("inference_settings", "sessions have their defaults"),
    REFUSED("run_kwargs", "sessions have their defaults"),
};
OBJECT(user, "user_config");

static const char *const metric_types[] = {
    "accuracy", "latency", "throughput", "size_on_disk", "peak_memory", "custom", NULL};

static const wf_row metric_rows[] = {
    {"name", WF_STR, .required = true, .help = "of the metric"},
    {"type", WF_WORD, .required = true, .words = metric_types, .help = "what is measured"},
    {"backend", WF_WORD,
     .words = (const char *const[]){"torch_metrics", "huggingface_metrics", NULL},
     .help = "figures are computed here, by the same definitions"},
    {"sub_types", WF_LIST, .of = &sub, .help = "its figures"},
    {"user_config", WF_OBJECT, .of = &user, .help = "how it is measured"},
    {"metric_config", WF_OBJECT, .of = &metric_config,
     .help = "the same for all sub_types"},
    {"data_config", WF_REF, .of = &data, .help = "of accuracy: the text"},
    REFUSED("sample_log_num", "samples are not logged"),
    REFUSED("sample_log_dir", "samples are not logged"),
};
OBJECT(metric, "metric");

static const wf_row evaluator_rows[] = {
    {"name", WF_STR, .help = "of the evaluator"},
    {"type", WF_WORD,
     .words = (const char *const[]){"OnnxEvaluator", "PyTorchEvaluator", NULL},
     .help = "follows from the model"},
    {"metrics", WF_LIST, .required = true, .of = &metric, .help = "what is measured"},
    REFUSED("tasks", "their data sets are on the net; accuracy_score reads a file"),
    REFUSED("user_script", no_python),
    REFUSED("script_dir", no_python),
};
NESTED(evaluator, "evaluator");

/* ---- passes and the search ---- */

static const wf_row pass_rows[] = {
    {"type", WF_STR, .required = true, .help = "the pass's name, in any case"},
    {"config", WF_ANY, .help = "its parameters, which may also stand beside it"},
    {"host", WF_REF, .of = &machine, .help = "where it runs: this machine"},
    REFUSED("evaluator", "one evaluator judges all: name it in the engine's evaluator"),
};
static const wf_object pass_ = {"pass", pass_rows, DR_COUNT(pass_rows), .open = true};

static const char *const samplers[] = {"sequential", "random",     "tpe",
                                       "nsga2",      "exhaustive", NULL};

static const wf_row algorithm_rows[] = {
    {"num_samples", WF_INT, .min = 1, .max = 1000000, .help = "candidates"},
    {"seed", WF_INT, .min = 0, .max = 2147483647, .help = "of what is drawn"},
    {"multivariate", WF_BOOL, .help = "tpe: parameters are drawn together"},
    {"group", WF_BOOL, .help = "tpe: by what is set together"},
    REFUSED("with_replacement", "a candidate is tried once"),
};
OBJECT(algorithm, "search_algorithm_config");

static const wf_row strategy_rows[] = {
    {"execution_order", WF_WORD,
     .words = (const char *const[]){"joint", "pass-by-pass", NULL},
     .help = "all passes at once, or each on the best before it"},
    {"sampler", WF_WORD, .words = samplers, .help = "how candidates are drawn"},
    {"search_algorithm", WF_WORD, .words = samplers, .help = "older name of sampler"},
    {"search_algorithm_config", WF_OBJECT, .of = &algorithm, .help = "older form"},
    {"max_samples", WF_INT, .min = 0, .max = 1000000, .help = "candidates; 0: all"},
    {"seed", WF_INT, .min = 0, .max = 2147483647, .help = "of what is drawn"},
    {"multivariate", WF_BOOL, .help = "tpe: parameters are drawn together"},
    {"group", WF_BOOL, .help = "tpe: by what is set together"},
    {"output_model_num", WF_INT, .min = 1, .max = 1000, .help = "models that are kept"},
    {"stop_when_goals_met", WF_BOOL, .help = "the first candidate with all goals ends it"},
    {"max_iter", WF_INT, .min = 1, .max = 1000000, .help = "candidates"},
    {"max_time", WF_NUM, .min = 1e-3, .max = 1e9, .help = "seconds"},
    {"num_workers", WF_INT, .min = 0, .max = 256,
     .help = "processes that make models; 0: by processors and memory"},
    {"launcher", WF_WORD, .words = (const char *const[]){"local", "mpirun", "slurm", NULL},
     .help = "who begins them: this process, or a program that knows other hosts"},
    {"launcher_args", WF_STRS, .help = "arguments of mpirun or srun"},
    {"task_timeout", WF_NUM, .min = 1e-3, .max = 1e9,
     .help = "seconds that a worker may take for a candidate"},
    {"include_pass_params", WF_BOOL,
     .help = "false: lists of values take the pass's default"},
};
OBJECT(strategy, "search_strategy");

/* ---- the engine and the file ---- */

static const char no_azure[] = "nothing is sent to AzureML; take the Zipfile";

static const wf_refusal package_types[] = {
    {"AzureMLModels", no_azure},
    {"AzureMLData", no_azure},
    {"AzureMLDeployment", no_azure},
    {"Dockerfile", "an image begins with one of a registry; take the Zipfile"},
    {NULL, NULL}};
static const char no_mlflow[] = "MLflow's own package writes that form";

static const wf_row package_rows[] = {
    {"type", WF_WORD, .words = (const char *const[]){"Zipfile", NULL},
     .refused = package_types, .help = "an archive beside the result"},
    {"name", WF_STR, .help = "of the archive, without .zip (OutputModels)"},
    {"export_in_mlflow_format", WF_OFF, .help = no_mlflow},
    {"include_runtime_packages", WF_OFF, .help = "they would come from the net"},
    REFUSED("include_sample_code", "Olive has none any more"),
};
NESTED(package, "packaging_config");

static const wf_row cache_rows[] = {
    {"cache_dir", WF_STR, .help = "folder"},
    {"clean_cache", WF_BOOL, .help = "empty it first"},
    {"clean_evaluation_cache", WF_BOOL, .help = "forget figures first"},
    {"shared_cache", WF_STR, .help = "a folder or URL that has entries for others, too"},
    {"account_name", WF_STR, .help = "the same as Azure's blobs, with container_name"},
    {"container_name", WF_STR, .help = "of account_name"},
    {"enable_shared_cache", WF_BOOL, .help = "use it (true where it is named)"},
    {"update_shared_cache", WF_BOOL, .help = "send what is made there (true)"},
};
OBJECT(cache, "cache_config");

static const wf_row automatic_rows[] = {
    {"opt_level", WF_INT, .help = "there is one: 0"},
    {"precisions", WF_STRS, .help = "fp32, fp16, int8, int4: what the result may be of"},
    {"excluded_passes", WF_STRS, .help = "passes that are not tried"},
    {"disable_auto_optimizer", WF_OFF, .help = "a workflow has one pass at least"},
};
OBJECT(automatic, "auto_optimizer_config");

/* They may stand at the top or in "engine". */
#define ENGINE_ROWS                                                                        \
    {"search_strategy", WF_SEARCH, .of = &strategy,                                        \
     .help = "how the best model is found"},                                               \
        {"host", WF_REF, .of = &machine, .help = "where passes run: this machine"},        \
        {"target", WF_REF, .of = &machine, .help = "what models are made for"},            \
        {"evaluator", WF_REF, .of = &evaluator, .help = "what judges models"},             \
        {"evaluate_input_model", WF_BOOL, .help = "judge the input, too (true)"},          \
        {"output_dir", WF_STR, .help = "folder for the result"},                           \
        {"cache_config", WF_OBJECT, .of = &cache, .help = "the cache"},                    \
        {"cache_dir", WF_STR, .help = "the cache's folder (.drupe-cache)"},                \
        {"clean_cache", WF_BOOL, .help = "empty it first"},                                \
        {"clean_evaluation_cache", WF_BOOL, .help = "forget figures first"},               \
        {"no_artifacts", WF_BOOL, .help = "no footprints and tables in output_dir"},       \
        {"log_severity_level", WF_INT, .min = 0, .max = 4,                                 \
         .help = "0 debug to 4 critical"},                                                 \
        {"packaging_config", WF_SOME, .of = &package,                                      \
         .help = "archives of the best models"},                                           \
        REFUSED("plot_pareto_frontier", "the table says it"),                              \
        {"enable_shared_cache", WF_BOOL, .help = "use cache_config's shared cache"},       \
        REFUSED("ort_log_severity_level", "the runtime is quiet"),                         \
        REFUSED("ort_py_log_severity_level", no_python),                                   \
        REFUSED("log_to_file", "messages go to standard error")

static const wf_row engine_rows[] = {ENGINE_ROWS};
OBJECT(engine, "engine");

static const wf_row workflow_rows[] = {
    {"workflow_id", WF_STR, .help = "a name for reports"},
    {"input_model", WF_OBJECT, .of = &model, .help = "what passes begin with"},
    {"systems", WF_MAP, .of = &machine, .help = "machines by name"},
    {"data_configs", WF_NAMED, .of = &data, .help = "data sets by name"},
    {"evaluators", WF_NAMED, .of = &evaluator, .help = "evaluators by name"},
    {"passes", WF_MAPS, .of = &pass_, .help = "steps, in order"},
    {"pass_flows", WF_FLOWS, .help = "several ways through passes, by their names"},
    {"auto_optimizer_config", WF_OBJECT, .of = &automatic,
     .help = "passes by device, provider and precision, where none are named"},
    {"engine", WF_OBJECT, .of = &engine, .help = "the keys below, in older files"},
    ENGINE_ROWS,
    REFUSED("data_root", "name files by their paths"),
    REFUSED("azureml_client", "nothing is run on AzureML"),
    REFUSED("workflow_host", "nothing is run elsewhere"),
    REFUSED("builds", "run a file for each"),
};
const wf_object wf_workflow = {"workflow", workflow_rows, DR_COUNT(workflow_rows),
                               .nested = false};
