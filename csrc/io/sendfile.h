/* The kernel's sendfile, as one sock_* operation uses it (sockop.c drives the waiting). */
#ifndef UVLOOP_CLONE_SENDFILE_H
#define UVLOOP_CLONE_SENDFILE_H

#include "core/core.h"

/* One try: sends what the socket takes. `args`: the file's descriptor, the offset to start at,
 * the number of bytes or None for all; *sent: bytes of the earlier tries, and then of this one.
 * Returns the total at the end of it, NULL without an exception when it is to be tried again
 * once the socket is writable. */
PyObject *sendfile_try(CoreState *state, int sock, PyObject *const *args, Py_ssize_t *sent);
/* The end, good or bad: moves the file's position behind what was sent. */
void sendfile_leave_position(PyObject *const *args, Py_ssize_t sent);

#endif
