/* The Loop type: one table with every method that C serves, room by room. Behaviour lives in
 * the rooms; this file names it, and gives it to uvloop_clone.Loop, a Python subclass of this
 * type and of asyncio.AbstractEventLoop. */

#include "core/core.h"
#include "core/executor.h"
#include "core/handoff.h"
#include "core/loop.h"
#include "core/metrics.h"
#include "core/named.h"
#include "core/pollhook.h"
#include "core/run.h"
#include "core/schedule.h"
#include "core/signals.h"
#include "core/tasks.h"
#include "io/io.h"
#include "tls/tls.h"
#include "transports/transports.h"

#define FAST(function) (PyCFunction)(void (*)(void))(function)
#define METH_FAST (METH_FASTCALL | METH_KEYWORDS)

#if PY_VERSION_HEX >= 0x030D0300
#define CREATE_TASK_SIGNATURE "create_task($self, coro, **kwargs)"
#elif PY_VERSION_HEX >= 0x030B0000
#define CREATE_TASK_SIGNATURE "create_task($self, coro, *, name=None, context=None)"
#else
#define CREATE_TASK_SIGNATURE "create_task($self, coro, *, name=None)"
#endif

/* asyncio's are Python functions: what may be named there may be named here. */
NAMED_ONE(tasks_py_set_factory, "set_task_factory", "factory")
NAMED_ONE(loop_py_run_until_complete, "run_until_complete", "future")
NAMED_ONE(loop_py_set_debug, "set_debug", "enabled")
NAMED_ONE(watchers_py_remove_reader, "remove_reader", "fd")
NAMED_ONE(watchers_py_remove_writer, "remove_writer", "fd")
NAMED_METHOD(watchers_py_add_reader, "add_reader", 2, 2, "fd", "callback")
NAMED_METHOD(watchers_py_add_writer, "add_writer", 2, 2, "fd", "callback")
NAMED_METHOD(sockop_py_recv, "sock_recv", 2, 2, "sock", "n")
NAMED_METHOD(sockop_py_recv_into, "sock_recv_into", 2, 2, "sock", "buf")
NAMED_METHOD(sockop_py_recvfrom, "sock_recvfrom", 2, 2, "sock", "bufsize")
NAMED_METHOD(sockop_py_recvfrom_into, "sock_recvfrom_into", 2, 3, "sock", "buf", "nbytes")
NAMED_METHOD(sockop_py_sendall, "sock_sendall", 2, 2, "sock", "data")
NAMED_METHOD(sockop_py_sendto, "sock_sendto", 3, 3, "sock", "data", "address")
NAMED_METHOD(sockop_py_accept, "sock_accept", 1, 1, "sock")


static PyObject *loop_py_own_methods(PyObject *type, PyObject *ignored);

static PyMethodDef loop_methods[] = {
    /* core/schedule.c */
    {"call_soon", FAST(schedule_py_call_soon), METH_FAST,
     PyDoc_STR("call_soon($self, callback, *args, context=None)\n--\n\n"
               "Call callback(*args) in the next turn of the loop; returns a Handle.")},
    {"call_soon_threadsafe", FAST(schedule_py_call_soon_threadsafe), METH_FAST,
     PyDoc_STR("call_soon_threadsafe($self, callback, *args, context=None)\n--\n\n"
               "call_soon() from any thread; wakes the loop.")},
    {"call_later", FAST(schedule_py_call_later), METH_FAST,
     PyDoc_STR("call_later($self, delay, callback, *args, context=None)\n--\n\n"
               "Call callback(*args) after `delay` seconds; returns a TimerHandle.")},
    {"call_at", FAST(schedule_py_call_at), METH_FAST,
     PyDoc_STR("call_at($self, when, callback, *args, context=None)\n--\n\n"
               "Call callback(*args) at the time `when`, in seconds of loop.time().")},
    {"time", schedule_py_time, METH_NOARGS,
     PyDoc_STR("time($self, /)\n--\n\nThe monotonic clock in seconds.")},

    /* core/tasks.c */
    {"create_future", tasks_py_create_future, METH_NOARGS,
     PyDoc_STR("create_future($self, /)\n--\n\nA new asyncio.Future of this loop.")},
    {"create_task", FAST(tasks_py_create_task), METH_FAST,
     PyDoc_STR(CREATE_TASK_SIGNATURE "\n--\n\nRun a coroutine as an asyncio.Task.")},
    {"set_task_factory", NAMED(tasks_py_set_factory),
     PyDoc_STR("set_task_factory($self, factory)\n--\n\n"
               "Let factory(loop, coro, **kwargs) make the tasks; None: asyncio.Task.")},
    {"get_task_factory", tasks_py_get_factory, METH_NOARGS,
     PyDoc_STR("get_task_factory($self, /)\n--\n\nThe task factory, or None.")},

    /* core/executor.c, core/handoff.c */
    {"_handoff", handoff_py_get, METH_NOARGS, NULL},
    {"_executor_call", FAST(executor_py_call), METH_FASTCALL, NULL},

    /* core/run.c */
    {"run_forever", loop_py_run_forever, METH_NOARGS,
     PyDoc_STR("run_forever($self, /)\n--\n\nRun until stop() is called.")},
    {"run_until_complete", NAMED(loop_py_run_until_complete),
     PyDoc_STR("run_until_complete($self, future)\n--\n\n"
               "Run until the awaitable is done; returns its result or raises its exception.")},
    {"stop", loop_py_stop, METH_NOARGS,
     PyDoc_STR("stop($self, /)\n--\n\nLet the run end after the current turn.")},
    {"is_running", loop_py_is_running, METH_NOARGS,
     PyDoc_STR("is_running($self, /)\n--\n\nTrue while the loop runs.")},
    {"allow_nested", FAST(loop_py_allow_nested), METH_FASTCALL,
     PyDoc_STR("allow_nested($self, enabled=True, /)\n--\n\n"
               "Let run_until_complete() and run_forever() be called while the loop runs.")},

    /* core/loop.c */
    {"close", loop_py_close, METH_NOARGS,
     PyDoc_STR("close($self, /)\n--\n\nFree everything; what is still queued is dropped.")},
    {"is_closed", loop_py_is_closed, METH_NOARGS,
     PyDoc_STR("is_closed($self, /)\n--\n\nTrue after close().")},
    {"get_debug", loop_py_get_debug, METH_NOARGS,
     PyDoc_STR("get_debug($self, /)\n--\n\nTrue in debug mode.")},
    {"set_debug", NAMED(loop_py_set_debug),
     PyDoc_STR("set_debug($self, enabled)\n--\n\nSwitch debug mode.")},
    {"_metrics", metrics_py_get, METH_NOARGS, NULL},
    {"_share_uv", loop_py_share_uv, METH_NOARGS, NULL},
    {"_release_later", loop_py_release_later, METH_O, NULL},
    {"_leave_with", loop_py_leave_with, METH_O, NULL},
    {"_check_closed", loop_py_check_closed, METH_NOARGS, NULL},
    {"_check_callback", loop_py_check_callback, METH_VARARGS, NULL},

    /* core/pollhook.c */
    {"_set_poll_hook", pollhook_py_set, METH_O, NULL},
    {"_poll", pollhook_py_poll, METH_O, NULL},

    /* core/signals.c */
    {"_set_signal_handle", FAST(signals_py_set_handle), METH_FASTCALL, NULL},
    {"_get_signal_handles", signals_py_get_handles, METH_NOARGS, NULL},
    {"_set_outer_wakeup", signals_py_set_outer, METH_O, NULL},
    {"_let_go_signal_handle", signals_py_let_go, METH_O, NULL},

    /* io/watchers.c */
    {"add_reader", NAMED(watchers_py_add_reader),
     PyDoc_STR("add_reader($self, fd, callback, *args)\n--\n\n"
               "Call callback(*args) whenever `fd` is ready for reading.")},
    {"remove_reader", NAMED(watchers_py_remove_reader),
     PyDoc_STR("remove_reader($self, fd)\n--\n\n"
               "Stop watching `fd` for reading; False if it was not watched.")},
    {"add_writer", NAMED(watchers_py_add_writer),
     PyDoc_STR("add_writer($self, fd, callback, *args)\n--\n\n"
               "Call callback(*args) whenever `fd` is ready for writing.")},
    {"remove_writer", NAMED(watchers_py_remove_writer),
     PyDoc_STR("remove_writer($self, fd)\n--\n\n"
               "Stop watching `fd` for writing; False if it was not watched.")},

    /* io/sockop.c */
    {"sock_recv", NAMED(sockop_py_recv),
     PyDoc_STR("sock_recv($self, sock, n)\n--\n\nReceive up to `n` bytes from a "
               "non-blocking socket.")},
    {"sock_recv_into", NAMED(sockop_py_recv_into),
     PyDoc_STR("sock_recv_into($self, sock, buf)\n--\n\nReceive into a writable buffer; the "
               "number of bytes.")},
    {"sock_recvfrom", NAMED(sockop_py_recvfrom),
     PyDoc_STR(
         "sock_recvfrom($self, sock, bufsize)\n--\n\nReceive a datagram; (bytes, address).")},
    {"sock_recvfrom_into", NAMED(sockop_py_recvfrom_into),
     PyDoc_STR("sock_recvfrom_into($self, sock, buf, nbytes=0)\n--\n\nReceive a datagram into a "
               "buffer; (number of bytes, address).")},
    {"sock_sendall", NAMED(sockop_py_sendall),
     PyDoc_STR("sock_sendall($self, sock, data)\n--\n\nSend all of `data`.")},
    {"sock_sendto", NAMED(sockop_py_sendto),
     PyDoc_STR("sock_sendto($self, sock, data, address)\n--\n\nSend a datagram; the number of "
               "bytes sent.")},
    {"sock_accept", NAMED(sockop_py_accept),
     PyDoc_STR(
         "sock_accept($self, sock)\n--\n\nAccept a connection; (non-blocking socket, address).")},
    {"_sock_connect", FAST(sockop_py_connect), METH_FASTCALL, NULL},
    {"_sock_sendfile", FAST(sockop_py_sendfile), METH_FASTCALL, NULL},

    /* io/dns.c */
    {"_resolve_literal", (PyCFunction)(void (*)(void))dns_py_resolve_literal, METH_FASTCALL,
     NULL},

    /* transports/ */
    {"_connect_stream", FAST(connect_py_make), METH_FASTCALL, NULL},
    {"_stream_transport", KEYWORDS(stream_py_make), NULL},
    {"_datagram_transport", KEYWORDS(datagram_py_make), NULL},
    {"_read_pipe_transport", KEYWORDS(pipe_py_make_reader), NULL},
    {"_write_pipe_transport", KEYWORDS(pipe_py_make_writer), NULL},
    {"_make_tls", KEYWORDS(tls_py_make), NULL},
    {"_prove_openssl", FAST(openssl_py_prove), METH_FASTCALL, NULL},
    {"_forget_openssl", openssl_py_forget, METH_NOARGS, NULL},
    {"_start_listening", FAST(listener_py_start), METH_FASTCALL, NULL},
    {"_stop_listening", listener_py_stop, METH_O, NULL},

    {"_own_methods", loop_py_own_methods, METH_NOARGS | METH_CLASS, NULL},
    {NULL},
};

/* Gives the subclass each method that it inherits from here for its own: the interpreter is
 * quicker to call a method whose type is the very type of the object. */
static PyObject *
loop_py_own_methods(PyObject *type, PyObject *Py_UNUSED(ignored))
{
    PyObject *module = loop_defining_module((PyTypeObject *)type);
    if (module == NULL) {
        return NULL;
    }
    CoreState *state = PyModule_GetState(module);
    int status = 0;
    for (PyMethodDef *def = loop_methods; status == 0 && def->ml_name != NULL; def++) {
        PyObject *found = PyObject_GetAttrString(type, def->ml_name), *own = NULL;
        if (found == NULL) {
            status = -1;
        }
        else if (Py_IS_TYPE(found, &PyMethodDescr_Type)
                 && PyDescr_TYPE(found) == state->LoopType) {
            own = PyDescr_NewMethod((PyTypeObject *)type, def);
            status = own == NULL ? -1 : PyObject_SetAttrString(type, def->ml_name, own);
        }
        Py_XDECREF(found);
        Py_XDECREF(own);
    }
    Py_DECREF(module);
    return status < 0 || state_take_loop_methods(state, type) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyMemberDef loop_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(LoopObject, weakrefs), READONLY, NULL},
    {"_running_handle", T_OBJECT, offsetof(LoopObject, current_handle), READONLY, NULL},
    {"busy_poll_duration", T_DOUBLE, offsetof(LoopObject, lookout.duration), 0,
     PyDoc_STR("Seconds for which a busy loop polls without waiting before it sleeps (default "
               "0.00002); 0: it sleeps at once.")},
    {"slow_callback_duration", T_DOUBLE, offsetof(LoopObject, slow_callback_duration), 0,
     PyDoc_STR("Seconds from which debug mode reports a callback as slow.")},
    {NULL},
};

static PyType_Slot loop_slots[] = {
    {Py_tp_doc, "The C half of uvloop_clone.Loop."},
    {Py_tp_new, loop_new},
    {Py_tp_dealloc, loop_dealloc},
    {Py_tp_finalize, loop_finalize},
    {Py_tp_traverse, loop_traverse},
    {Py_tp_clear, loop_clear},
    {Py_tp_repr, loop_repr},
    {Py_tp_setattro, loop_setattro},
    {Py_tp_methods, loop_methods},
    {Py_tp_members, loop_members},
    {0, NULL},
};

PyType_Spec loop_spec = {
    .name = "uvloop_clone._core.Loop",
    .basicsize = sizeof(LoopObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = loop_slots,
};

PyObject *
loop_defining_module(PyTypeObject *type)
{
    for (; type != NULL; type = type->tp_base) {
        if (type->tp_dealloc == loop_dealloc && (type->tp_flags & Py_TPFLAGS_HEAPTYPE)) {
            return Py_XNewRef(PyType_GetModule(type));
        }
    }
    PyErr_SetString(PyExc_SystemError, "not a Loop type");
    return NULL;
}
