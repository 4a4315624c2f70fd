/*
 * flow_impl.h - the engine's parts: what a run needs, what it leaves behind.
 */
#ifndef DRUPE_FLOW_FLOW_IMPL_H
#define DRUPE_FLOW_FLOW_IMPL_H

#include "flow/flow.h"
#include "pass/pass.h"

/* Refuses a run that cannot fit: DR_ENOMEM or DR_EIO with both figures.  The limits are the
 * machine's, or lower ones from DRUPE_MEMORY_LIMIT and DRUPE_DISK_LIMIT (bytes, or with K, M
 * or G). */
DR_MUST_USE dr_status flow_check_resources(const pass_need *need, const char *output);

/* A hash of a model folder's or file's content that costs milliseconds: small files whole,
 * of large ones the size, head, tail and 64 places between. */
DR_MUST_USE dr_status flow_fingerprint(char hex[65], const char *path);

/* drupe.json: what made the folder.  No time, no path of this machine. */
DR_MUST_USE dr_status flow_write_footprint(const char *dir, const flow_spec *spec,
                                           const char *input_hash, const json_t *steps);

#endif
