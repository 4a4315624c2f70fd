/*
 * vendor_impl.h - what passes share that run a vendor's program.
 *
 *     vendor_args args = vendor_args_new(job->arena);
 *     vendor_arg(&args, graph);
 *     vendor_argf(&args, "--output_model=%s", file);
 *     vendor_run(job, &args, &(vendor_work){.dir = dir, .outputs = outputs});
 *
 * No shell is between: an argument is one, whatever is in it.
 */
#ifndef DRUPE_PASS_VENDOR_IMPL_H
#define DRUPE_PASS_VENDOR_IMPL_H

#include "pass/pass.h"

typedef struct {
    dr_arena *arena;   /* borrowed */
    const char **list; /* arena; ends with NULL */
    size_t count, room;
} vendor_args;

vendor_args vendor_args_new(dr_arena *a);
void vendor_arg(vendor_args *args, const char *text);
void vendor_argf(vendor_args *args, const char *fmt, ...) DR_PRINTF(2, 3);
/* Words of one text, as a shell would cut them: blanks between, quotes and backslashes;
 * text NULL: none.  DR_EUSAGE: a quote without its end; label: the parameter. */
DR_MUST_USE dr_status vendor_arg_words(vendor_args *args, const char *text,
                                       const char *label);

/* DR_EUSAGE: text has a word that the pass gives itself (names; ends with NULL), or a quote
 * without its end. */
DR_MUST_USE dr_status vendor_check_words(const char *text, const char *label,
                                         const char *const *names);
/* Each of them after `option` (NULL: none): "a,b" as -x a -x b; text NULL: none. */
void vendor_arg_each(vendor_args *args, const char *option, const char *text);

/* Where a program works and what it must leave. */
typedef struct {
    const char *dir;            /* its working folder; NULL: the caller's */
    const char *const *outputs; /* files that are there afterwards and hold something; ends
                                   with NULL */
    const char *outputs_dir;    /* where they are; NULL: dir */
    const char *tmp;            /* a folder for its temporary files, on the same disk as the
                                   result; removed afterwards.  NULL: the system's */
} vendor_work;

/*
 * Runs the program of job->def with these arguments and waits for it.  What it prints is
 * logged as it comes, line by line, at level info; an error has its last lines.
 * DR_EUNSUPPORTED: it is not installed; DR_EDEVICE: it failed, was killed, or left no such
 * file; DR_ECANCELLED: the run was, and the program is ended with all that it started.
 */
DR_MUST_USE dr_status vendor_run(const pass_job *job, const vendor_args *args,
                                 const vendor_work *work);

/* A path as any working folder has it; path exists. */
DR_MUST_USE dr_status vendor_absolute(const char **out, dr_arena *a, const char *path);

/* The folder of a Hugging Face model, absolute.  DR_EUNSUPPORTED: it is a GGUF file, or has
 * adapters. */
DR_MUST_USE dr_status vendor_hf_folder(const char **out, dr_arena *a, const pass_job *job,
                                       const pass_model *in);

/* DR_EUSAGE: name is no file's name alone, or begins with - or a dot. */
DR_MUST_USE dr_status vendor_check_name(const char *name, const char *label);

/* The model's attributes with these members, too, which are released; NULL: a text of them
 * is not UTF-8, DR_EUSAGE. */
DR_MUST_USE dr_status vendor_attributes(const char **out, const pass_job *job,
                                        const pass_model *in, json_t *more);

/* Tables for people and programs: which program made it. */
DR_MUST_USE dr_status vendor_tell(const pass_job *job);

#endif
