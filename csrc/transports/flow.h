/* What every writing transport has: water marks, writelines(), writes that come too late. */
#ifndef UVLOOP_CLONE_FLOW_H
#define UVLOOP_CLONE_FLOW_H

#include "core/core.h"

#define FLOW_HIGH_WATER (64 * 1024)
#define FLOW_LOW_WATER (FLOW_HIGH_WATER / 4)

/* The arguments of set_write_buffer_limits(high=None, low=None), where no argument at all
 * means `high_default`; -1 with an exception. */
int flow_parse_limits(PyObject *args, PyObject *kwargs, Py_ssize_t high_default, size_t *high,
                      size_t *low);

/* What writelines() writes, as a list or tuple of bytes-like objects; a new reference. */
PyObject *flow_lines(PyObject *lines);

/* A write after the connection was lost: counted in *losses, and from the fifth on asyncio's log
 * is told. -1 with an exception. */
int flow_refuse_write(LoopObject *loop, uint32_t *losses, const char *warning);

#endif
