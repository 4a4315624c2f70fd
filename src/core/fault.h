/*
 * fault.h - faults to order, for tests: DR_FAULT=io:n fails the n-th file operation,
 * DR_FAULT=big:n the n-th block sized by a model, DR_FAULT=kill:n raises SIGKILL at the
 * n-th file operation.  Without the variable nothing is counted.
 */
#ifndef DRUPE_CORE_FAULT_H
#define DRUPE_CORE_FAULT_H

#include <stdbool.h>

typedef enum { DR_FAULT_IO, DR_FAULT_BIG } dr_fault;

/* Counts one operation of this kind; true when it is the one that must fail. */
bool dr_fault_hit(dr_fault kind);

#endif
