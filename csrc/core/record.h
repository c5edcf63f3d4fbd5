/* Records: what is left of a timer whose caller did not keep the handle, while very many wait. A
 * handle is 160 bytes in three cache lines; a record is 40. A handle is made of it again when it
 * is about to run.
 *
 * A record's number stands in the heap and in the ready queue in the place of a handle's address,
 * told from one by being odd.
 */
#ifndef UVLOOP_CLONE_RECORD_H
#define UVLOOP_CLONE_RECORD_H

#include "core/core.h"

static inline bool
record_check(PyObject *item)
{
    return ((uintptr_t)item & 1) != 0;
}

static inline TimerRecord *
record_of(LoopObject *loop, PyObject *item)
{
    return &loop->records.all[(uintptr_t)item >> 1];
}

/* Takes over the reference to `handle`, a timer's that the caller alone holds, and returns its
 * record; NULL without an exception, and nothing taken over, where a record cannot hold it. */
PyObject *record_make(LoopObject *loop, HandleObject *handle);
/* Ends the record and returns the handle that it stands for; NULL with an exception, and the
 * record as it was. */
HandleObject *record_revive(LoopObject *loop, PyObject *item);
/* Gives up what the record refers to. */
void record_drop(LoopObject *loop, PyObject *item);
/* Where none is left, the memory of many is given back. */
void records_trim(LoopObject *loop);
int records_traverse(LoopObject *loop, visitproc visit, void *arg);

#endif
