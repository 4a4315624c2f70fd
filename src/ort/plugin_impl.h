/*
 * plugin_impl.h - execution providers in libraries of their own: QNN, OpenVINO, VitisAI.
 */
#ifndef DRUPE_ORT_PLUGIN_IMPL_H
#define DRUPE_ORT_PLUGIN_IMPL_H

#include "ort/api_impl.h"
#include "ort/ort.h"

/* Loads the provider's library into the runtime, once a process.  DR_EDEVICE: the runtime
 * is older than plugins, or there is no such library. */
DR_MUST_USE dr_status plugin_register(ort_runtime *r, const char *provider);
/* The provider for a session; strict: nothing may run elsewhere.  more: options of its own,
 * which go before those that are given by themselves. */
DR_MUST_USE dr_status plugin_append(ort_runtime *r, OrtSessionOptions *o,
                                    const char *provider, bool strict,
                                    const ort_option *more, size_t more_count);

#endif
