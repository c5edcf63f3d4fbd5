/* loop.metrics(): what the loop has done and what it holds. The counters are kept where things
 * happen (LoopCounters in core.h), at an addition each; what is open is counted when asked for.
 * Any thread that holds the GIL may ask. */

#include "core/metrics.h"
#include "io/io.h"
#include "transports/transports.h"


typedef struct {
    CoreState *state;
    Py_ssize_t streams, datagrams, descriptors;
} OpenCounts;

static void
metrics_count_open(PyObject *user, void *arg)
{
    OpenCounts *open = arg;
    PyTypeObject *type = Py_TYPE(user);
    if (type == open->state->StreamType) {
        open->streams++;
    }
    else if (type == open->state->DatagramType) {
        open->datagrams++;
    }
    else if (type != open->state->ReadPipeType && type != open->state->WritePipeType
             && !PyType_IsSubtype(type, open->state->ServerBaseType)) {
        /* a pipe that has nothing to write is watched by nobody; servers are counted elsewhere */
        open->descriptors++;
    }
}

PyObject *
metrics_py_get(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    LoopObject *loop = LOOP(self);
    const LoopCounters *counters = &loop->counters;
    OpenCounts open = {.state = loop->state};
    watchers_each(loop, metrics_count_open, &open);
    uint64_t run_ns = counters->run_ns, idle_ns = counters->idle_ns, now = uv_hrtime();
    if (loop->run_depth > 0) {
        run_ns += now - counters->run_began;
    }
    if (loop->released != NULL) { /* it waits, and another thread asks */
        idle_ns += now - counters->wait_began;
    }
    uint64_t busy_ns = run_ns > idle_ns ? run_ns - idle_ns : 0; /* waits of guests' nested runs */
    return Py_BuildValue(
        "(KKKddnnnnnnnKK)", (unsigned long long)loop->turn, (unsigned long long)counters->polls,
        (unsigned long long)counters->callbacks, (double)busy_ns * 1e-9, (double)idle_ns * 1e-9,
        (Py_ssize_t)loop->ready.count, (Py_ssize_t)(loop->timers.count - loop->timers.cancelled),
        open.streams, listeners_count(loop), open.datagrams, counters->pipes, open.descriptors,
        (unsigned long long)counters->bytes_received, (unsigned long long)counters->bytes_sent);
}
