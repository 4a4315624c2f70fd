/*
 * nn_mem.h - memory of a device: a part of nn.h, which includes it.
 *
 * A device with memory of its own (cuda) takes pointers of both kinds in every operation:
 * what is in its own memory is used there, what is in the host's is copied to it and back
 * by the operation.  So every caller is right with host memory; one that runs many
 * operations on the same values keeps them in memory from nn_mem_new, which the host must
 * not touch but through nn_copy and nn_zero.  On other devices that memory is the host's.
 */
#ifndef DRUPE_NN_NN_MEM_H
#define DRUPE_NN_NN_MEM_H

#include <stdbool.h>
#include <stddef.h>

#include "core/status.h"

typedef struct nn_device nn_device; /* as in nn.h */

/*
 * What a block holds.  NN_MEM_BF16: floats that may be rounded to bf16: weights whose file
 * has no more; activations of a device whose products round.
 */
typedef enum { NN_MEM_FLOAT, NN_MEM_BF16 } nn_mem_kind;

/* Do the device's products round their operands to bf16? */
bool nn_device_rounds(const nn_device *dev);

/* Has the device memory of its own? */
bool nn_mem_apart(const nn_device *dev);
/* Bytes of it that are free; 0: it has none. */
size_t nn_mem_room(nn_device *dev);

/* floats of them, zeroed, 64-byte aligned; dev NULL: the host's.  DR_ENOMEM names `what`
 * and the bytes. */
DR_MUST_USE dr_status nn_mem_new(nn_device *dev, float **out, size_t floats,
                                 nn_mem_kind kind, const char *what);
/* p may be NULL; dev is the one of nn_mem_new. */
void nn_mem_free(nn_device *dev, void *p);
/* Of the host's memory what p holds is lost, and the system may have it meanwhile. */
void nn_mem_idle(nn_device *dev, float *p, size_t floats);

/* dst = src, bytes of memory of either kind; a copy from the device waits for it. */
DR_MUST_USE dr_status nn_copy(nn_device *dev, void *dst, const void *src, size_t bytes);
/* dst[count], floats of either side, = bf16 values of the host's, as files have them. */
DR_MUST_USE dr_status nn_copy_bf16(nn_device *dev, float *dst, const void *src,
                                   size_t count);
DR_MUST_USE dr_status nn_zero(nn_device *dev, void *dst, size_t bytes);

#endif
