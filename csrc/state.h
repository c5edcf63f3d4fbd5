/* The module state: every type, imported object and interned name that the C code uses,
 * plus the free lists. There is one per interpreter. What all interpreters share holds no Python
 * object: OpenSSL's functions (tls/openssl.c), how fast the processor copies
 * (transports/copy_speed.c), definitions of asyncio's methods (core/task_type.c). The lists below
 * are X-macros: a new entry is filled, visited and cleared by state.c without further code.
 */
#ifndef UVLOOP_CLONE_STATE_H
#define UVLOOP_CLONE_STATE_H

#include "compat/compat.h"

/* X(field, spec symbol): our heap types, made from specs that live in the type's own file. */
#define STATE_TYPES(X)                                                                           \
    X(ExecutorCallType, executor_call_spec)                                                      \
    X(HandoffType, handoff_spec)                                                                 \
    X(LoopType, loop_spec)                                                                       \
    X(HandleType, handle_spec)                                                                   \
    X(TimerHandleType, timer_handle_spec)                                                        \
    X(StreamType, stream_spec)                                                                   \
    X(DatagramType, datagram_spec)                                                               \
    X(ReadPipeType, read_pipe_spec)                                                              \
    X(WritePipeType, write_pipe_spec)                                                            \
    X(TLSTransportType, tls_transport_spec)                                                      \
    X(TLSProtocolType, tls_protocol_spec)                                                        \
    X(ServerBaseType, server_base_spec)                                                          \
    X(TaskAwaitType, task_await_spec)                                                            \
    X(WaiterType, waiter_spec)                                                                   \
    X(SockOpType, sockop_spec)                                                                   \
    X(ConnectType, connect_spec)                                                                 \
    X(StreamFeedType, feed_spec)                                                                 \
    X(StreamOperationType, stream_operation_spec)                                                \
    X(StreamReaderType, stream_reader_spec)                                                      \
    X(StreamReaderProtocolType, stream_reader_protocol_spec)                                     \
    X(StreamWriterType, stream_writer_spec)

/* asyncio's own iscoroutinefunction warns since 3.14. */
#if PY_VERSION_HEX >= 0x030E0000
#define ISCOROUTINEFUNCTION_HOME "inspect"
#else
#define ISCOROUTINEFUNCTION_HOME "asyncio.coroutines"
#endif

/* The class of call_soon_threadsafe's handles, private in asyncio. */
#if PY_VERSION_HEX >= 0x030E0000
#define THREADSAFE_HANDLE_CLASS "_ThreadSafeHandle"
#else
#define THREADSAFE_HANDLE_CLASS "Handle"
#endif

#if COMPAT_AWAITED_BY
#define STATE_AWAITED_BY(X)                                                                      \
    X(add_to_awaited_by, "asyncio.futures", "future_add_to_awaited_by")                          \
    X(discard_from_awaited_by, "asyncio.futures", "future_discard_from_awaited_by")
#else
#define STATE_AWAITED_BY(X)
#endif

#if COMPAT_CURRENT_TASKS
#define STATE_CURRENT_TASKS(X) X(current_tasks, "asyncio.tasks", "_current_tasks")
#else
#define STATE_CURRENT_TASKS(X) X(swap_current_task, "asyncio.tasks", "_swap_current_task")
#endif

/* X(field, module, attribute): imported when the extension is. */
#define STATE_IMPORTS(X)                                                                         \
    STATE_AWAITED_BY(X)                                                                          \
    STATE_CURRENT_TASKS(X)                                                                       \
    X(enter_task, "asyncio.tasks", "_enter_task")                                                \
    X(leave_task, "asyncio.tasks", "_leave_task")                                                \
    X(asyncio_handle, "asyncio", "Handle")                                                       \
    X(asyncio_timer_handle, "asyncio", "TimerHandle")                                            \
    X(asyncio_threadsafe_handle, "asyncio.events", THREADSAFE_HANDLE_CLASS)                      \
    X(asyncio_transport, "asyncio", "Transport")                                                 \
    X(asyncio_read_transport, "asyncio", "ReadTransport")                                        \
    X(asyncio_datagram_transport, "asyncio", "DatagramTransport")                                \
    X(asyncio_protocol, "asyncio", "Protocol")                                                   \
    X(asyncio_buffered_protocol, "asyncio", "BufferedProtocol")                                  \
    X(asyncio_future, "asyncio", "Future")                                                       \
    X(asyncio_c_task, "uvloop_clone._format", "C_TASK")                                          \
    X(asyncio_cancelled_error, "asyncio", "CancelledError")                                      \
    X(asyncio_invalid_state, "asyncio", "InvalidStateError")                                     \
    X(futures_cancelled, "concurrent.futures", "CancelledError")                                 \
    X(asyncio_module, "asyncio", NULL)                                                           \
    X(asyncio_tasks, "asyncio.tasks", NULL)                                                      \
    X(ensure_future, "asyncio", "ensure_future")                                                 \
    X(isfuture, "asyncio", "isfuture")                                                           \
    X(iscoroutine, "asyncio", "iscoroutine")                                                     \
    X(iscoroutinefunction, ISCOROUTINEFUNCTION_HOME, "iscoroutinefunction")                      \
    X(extract_stack, "asyncio.format_helpers", "extract_stack")                                  \
    X(transport_socket, "asyncio.trsock", "TransportSocket")                                     \
    X(logger, "asyncio.log", "logger")                                                           \
    X(socket_type, "socket", "socket")                                                           \
    X(af_inet, "socket", "AF_INET")                                                              \
    X(af_inet6, "socket", "AF_INET6")                                                            \
    X(sock_stream, "socket", "SOCK_STREAM")                                                      \
    X(sock_dgram, "socket", "SOCK_DGRAM")                                                        \
    X(sock_raw, "socket", "SOCK_RAW")                                                            \
    X(address_family, "socket", "AddressFamily")                                                 \
    X(socket_kind, "socket", "SocketKind")                                                       \
    X(ssl_socket, "uvloop_clone._format", "SSLSocket")                                           \
    X(socket_kind_member, "uvloop_clone._format", "SOCKET_KIND")                                 \
    X(describe_callback, "uvloop_clone._format", "describe_callback")                            \
    X(describe_handle, "uvloop_clone._format", "describe_handle")                                \
    X(format_handle, "uvloop_clone._format", "format_handle")                                    \
    X(get_asyncgen_hooks, "sys", "get_asyncgen_hooks")                                           \
    X(set_asyncgen_hooks, "sys", "set_asyncgen_hooks")                                           \
    X(get_origin_depth, "sys", "get_coroutine_origin_tracking_depth")                            \
    X(set_origin_depth, "sys", "set_coroutine_origin_tracking_depth")                            \
    X(debug_stack_depth, "asyncio.constants", "DEBUG_STACK_DEPTH")                               \
    X(asyncio_coroutines, "asyncio.coroutines", NULL)                                            \
    X(set_wakeup_fd, "signal", "set_wakeup_fd")                                                  \
    X(sendfile_not_available, "asyncio", "SendfileNotAvailableError")                            \
    X(sendfile_mode, "asyncio.constants", "_SendfileMode")

/* X(field, name): what asyncio's C classes Future and Task have, to be asked without a lookup;
 * task_type_make() takes them. */
#define STATE_FUTURE_METHODS(X)                                                                  \
    X(future_add_done_callback, "add_done_callback")                                             \
    X(future_cancel, "cancel")                                                                   \
    X(future_cancelled, "cancelled")                                                             \
    X(future_done, "done")                                                                       \
    X(future_exception, "exception")                                                             \
    X(future_make_cancelled_error, "_make_cancelled_error")                                      \
    X(future_result, "result")                                                                   \
    X(future_set_exception, "set_exception")                                                     \
    X(future_set_result, "set_result")
#define STATE_FUTURE_ATTRIBUTES(X)                                                               \
    X(future_blocking, "_asyncio_future_blocking")                                               \
    X(future_cancel_message, "_cancel_message")                                                  \
    X(future_log_traceback, "_log_traceback")                                                    \
    X(future_loop, "_loop")
#define STATE_TASK_ATTRIBUTES(X) X(task_coro, "_coro")
#define STATE_OF_ASYNCIO(X)                                                                      \
    STATE_FUTURE_METHODS(X)                                                                      \
    STATE_FUTURE_ATTRIBUTES(X)                                                                   \
    STATE_TASK_ATTRIBUTES(X)

/* X(field, module, attribute): imported with the first TLS connection: a Python without `ssl`
 * has none, and whoever needs none does not wait for it. */
#define STATE_TLS_IMPORTS(X)                                                                     \
    X(ssl_error, "ssl", "SSLError")                                                              \
    X(ssl_want_read, "ssl", "SSLWantReadError")                                                  \
    X(ssl_syscall_error, "ssl", "SSLSyscallError")                                               \
    X(ssl_certificate_error, "ssl", "CertificateError")                                          \
    X(ssl_zero_return_error, "ssl", "SSLZeroReturnError")                                        \
    X(ssl_memory_bio, "ssl", "MemoryBIO")                                                        \
    X(ssl_object_type, "ssl", "SSLObject")                                                       \
    X(asyncio_timeout_error, "asyncio", "TimeoutError")

/* X(name): interned as state->str_<name>. */
#define STATE_NAMES(X)                                                                           \
    X(add_done_callback)                                                                         \
    X(buffer_updated)                                                                            \
    X(call_at)                                                                                   \
    X(call_exception_handler)                                                                    \
    X(call_soon)                                                                                 \
    X(call_soon_threadsafe)                                                                      \
    X(cancel)                                                                                    \
    X(cancelled)                                                                                 \
    X(close)                                                                                     \
    X(connection_lost)                                                                           \
    X(connection_made)                                                                           \
    X(context)                                                                                   \
    X(data_received)                                                                             \
    X(detach)                                                                                    \
    X(done)                                                                                      \
    X(eof_received)                                                                              \
    X(exception)                                                                                 \
    X(fileno)                                                                                    \
    X(finalizer)                                                                                 \
    X(firstiter)                                                                                 \
    X(datagram_received)                                                                         \
    X(error_received)                                                                            \
    X(getpeername)                                                                               \
    X(getsockname)                                                                               \
    X(sendto)                                                                                    \
    X(pipe)                                                                                      \
    X(get_buffer)                                                                                \
    X(get_loop)                                                                                  \
    X(gettimeout)                                                                                \
    X(handle)                                                                                    \
    X(lineno)                                                                                    \
    X(loop)                                                                                      \
    X(message)                                                                                   \
    X(msg)                                                                                       \
    X(name)                                                                                      \
    X(pause_writing)                                                                             \
    X(peername)                                                                                  \
    X(protocol)                                                                                  \
    X(remove_done_callback)                                                                      \
    X(result)                                                                                    \
    X(resume_writing)                                                                            \
    X(run_forever)                                                                               \
    X(send)                                                                                      \
    X(set_exception)                                                                             \
    X(set_name)                                                                                  \
    X(set_result)                                                                                \
    X(setblocking)                                                                               \
    X(socket)                                                                                    \
    X(sockname)                                                                                  \
    X(source_traceback)                                                                          \
    X(stop)                                                                                      \
    X(time)                                                                                      \
    X(transport)                                                                                 \
    X(warn_on_full_buffer)                                                                       \
    X(warning)                                                                                   \
    X(_asyncgen_finalizer_hook)                                                                  \
    X(_asyncgen_firstiter_hook)                                                                  \
    X(eager_start)                                                                               \
    X(throw)                                                                                     \
    X(_asyncio_future_blocking)                                                                  \
    X(_log_destroy_pending)                                                                      \
    X(_nest_patched)                                                                             \
    X(_on_close)                                                                                 \
    X(_on_idle)                                                                                  \
    X(_source_traceback)                                                                         \
    X(Task)                                                                                      \
    X(_executor_failed)                                                                          \
    X(_enter_task)                                                                               \
    X(_get_running_loop)                                                                         \
    X(_is_debug_mode)                                                                            \
    X(_leave_task)                                                                               \
    X(_py_current_task)                                                                          \
    X(_py_enter_task)                                                                            \
    X(_py_leave_task)                                                                            \
    X(_set_running_loop)                                                                         \
    X(current_task)                                                                              \
    X(abort)                                                                                     \
    X(cipher)                                                                                    \
    X(compression)                                                                               \
    X(do_handshake)                                                                              \
    X(get_extra_info)                                                                            \
    X(getpeercert)                                                                               \
    X(pause_reading)                                                                             \
    X(peercert)                                                                                  \
    X(pending)                                                                                   \
    X(read)                                                                                      \
    X(release)                                                                                   \
    X(resume_reading)                                                                            \
    X(ssl_object)                                                                                \
    X(sslcontext)                                                                                \
    X(unwrap)                                                                                    \
    X(wrap_bio)                                                                                  \
    X(_force_close)                                                                              \
    X(_sslobj)                                                                                   \
    X(debug)                                                                                     \
    X(exc_info)                                                                                  \
    X(server_side)                                                                               \
    X(server_hostname)                                                                           \
    X(write)                                                                                     \
    X(_buffer)                                                                                   \
    X(_client_connected_cb)                                                                      \
    X(_connection_lost)                                                                          \
    X(_eof)                                                                                      \
    X(_exception)                                                                                \
    X(_feed)                                                                                     \
    X(_limit)                                                                                    \
    X(_loop)                                                                                     \
    X(_paused)                                                                                   \
    X(_protocol)                                                                                 \
    X(_reader)                                                                                   \
    X(_stream_reader_wr)                                                                         \
    X(_transport)                                                                                \
    X(_waiter)                                                                                   \
    X(create_future)                                                                             \
    X(__class__)                                                                                 \
    X(__dict__)

struct HandleObject;
struct OperationObject;

/* What tls/openssl.c has proven about the `ssl` module. */
typedef struct {
    Py_ssize_t ssl_offset; /* of the SSL * in an `_ssl._SSLSocket`; 0: nothing is proven */
    PyTypeObject *sslsocket_type;
    PyObject *read, *write; /* SSLObject's own methods, as they were then */
} OpenSSLProof;

/* asyncio's stream classes when C may serve their methods: streams/original.c. */
typedef struct {
    unsigned int versions[3]; /* the classes' tp_version_tag when last looked at */
    PyObject *methods;        /* tuple; NULL: not looked at yet */
} StreamOriginals;

typedef struct CoreState {
#define X(field, spec) PyTypeObject *field;
    STATE_TYPES(X)
#undef X
#define X(field, module, attribute) PyObject *field;
    STATE_IMPORTS(X)
    STATE_TLS_IMPORTS(X)
#undef X
#define X(field, name) PyObject *field;
    STATE_OF_ASYNCIO(X)
#undef X
#define X(name) PyObject *str_##name;
    STATE_NAMES(X)
#undef X
    PyTypeObject *TaskType; /* NULL where tasks are asyncio's: core/task.h */

    PyObject *kwnames_loop;     /* ("loop",) for vectorcalls */
    PyObject *kwnames_context;  /* ("context",) */
    PyObject *kwnames_wrap_bio; /* ("server_side", "server_hostname") */
    PyObject *context_alias; /* a "context" that is not interned, such as _asyncio's; or NULL */
    PyObject *empty_tuple;
    PyObject *newline; /* b'\n' */
    PyTypeObject *asyncio_stream_reader, *asyncio_stream_protocol, *asyncio_stream_writer;
    StreamOriginals stream_originals;
    OpenSSLProof openssl_proof;
    /* As C made them: patched when the lookup in the loop's class differs. */
    PyObject *time_method, *call_soon_method;
    /* Free lists of handles, [0] Handle and [1] TimerHandle; see core/handle.c. */
    struct HandleObject *free_handles[2];
    int free_handle_count[2];
    struct HandleObject *deferred_handles; /* freed once the outermost handle is */
    int handle_dealloc_depth;
    struct OperationObject *free_operations; /* streams/operation.c */
    int free_operation_count;
} CoreState;

/* state.c */
int state_init(CoreState *state, PyObject *module);
int state_traverse(CoreState *state, visitproc visit, void *arg);
void state_clear(CoreState *state);
/* From now on `type` is the loop's class as C made it. */
int state_take_loop_methods(CoreState *state, PyObject *type);
/* The STATE_TLS_IMPORTS; -1 with ImportError where Python has no `ssl`. */
int state_import_tls(CoreState *state);
/* state_same_name() for objects that differ; remembers a "context" that is not interned. */
bool state_equal_name(CoreState *state, PyObject *given, PyObject *name);

/* Is the keyword `given` the interned `name`? */
static inline bool
state_same_name(CoreState *state, PyObject *given, PyObject *name)
{
    return likely(given == name || (given == state->context_alias && name == state->str_context))
           || state_equal_name(state, given, name);
}

/* The specs, each defined in its type's file. */
#define X(field, spec) extern PyType_Spec spec;
STATE_TYPES(X)
#undef X

/* The state of the module that a type object of ours was made by; NULL (no exception) when
 * the interpreter goes down and has cleared the type already. */
static inline CoreState *
state_of_type(PyTypeObject *defining_class)
{
    PyObject *module = ((PyHeapTypeObject *)defining_class)->ht_module;
    return module != NULL ? (CoreState *)PyModule_GetState(module) : NULL;
}

#endif
