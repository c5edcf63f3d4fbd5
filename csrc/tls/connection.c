/* The life of a TLS connection: handshake, shutdown, errors, the end. States, order of calls
 * and messages are asyncio's.
 */

#include "tls/connection.h"
#include "transports/protocol.h"


const char tls_feed_failed[] = "Fatal error: protocol.buffer_updated() call failed.";


/* ---- helpers -------------------------------------------------------------------------- */

/* logger.debug(format, tls protocol, argument, exc_info=exc); both of these may be NULL. */
static COLD void
tls_log(TLSObject *tls, const char *format, PyObject *argument, PyObject *exc)
{
    CoreState *state = tls->loop->state;
    PyObject *self = tls->protocol != NULL ? (PyObject *)tls->protocol : (PyObject *)tls;
    PyObject *debug = PyObject_GetAttr(state->logger, state->str_debug);
    PyObject *args = argument != NULL ? Py_BuildValue("(sOO)", format, self, argument)
                                      : Py_BuildValue("(sO)", format, self);
    PyObject *kwargs = exc == NULL ? NULL : Py_BuildValue("{OO}", state->str_exc_info, exc);
    PyObject *result = NULL;
    if (debug != NULL && args != NULL && !PyErr_Occurred()) {
        result = PyObject_Call(debug, args, kwargs);
    }
    if (result == NULL) {
        PyErr_WriteUnraisable(self);
    }
    Py_XDECREF(debug);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    Py_XDECREF(result);
}

int
tls_set_app_protocol(TLSObject *tls, PyObject *protocol)
{
    int buffered = protocol_is_buffered(tls->loop->state, protocol);
    if (buffered < 0) {
        return -1;
    }
    tls->flags = buffered ? tls->flags | TLS_BUFFERED : tls->flags & ~TLS_BUFFERED;
    Py_CLEAR(tls->feed);
    Py_XSETREF(tls->app_protocol, Py_NewRef(protocol));
    return 0;
}

static HandleObject *
tls_start_timer(TLSObject *tls, double seconds, handle_native native)
{
    LoopObject *loop = tls->loop;
    double now;
    HandleObject *timer =
        handle_new(loop, loop->state->TimerHandleType, (PyObject *)tls, NULL, 0, NULL);
    if (timer != NULL) {
        timer->native = native;
        if (loop_clock(loop, &now) == 0) {
            timer->when = now + seconds;
            if (timers_push(loop, timer) == 0) {
                return timer;
            }
        }
        Py_DECREF(timer);
    }
    return NULL;
}

static void
tls_stop_timer(TLSObject *tls, HandleObject **timer)
{
    if (*timer != NULL) {
        if (handle_cancel(*timer) < 0) {
            PyErr_WriteUnraisable((PyObject *)tls);
        }
        Py_CLEAR(*timer);
    }
}

/* ---- the transport below -------------------------------------------------------------- */

void
tls_call_lower(TLSObject *tls, PyObject *name)
{
    PyObject *lower = Py_XNewRef(tls->lower);
    if (lower == NULL) {
        return;
    }
    PyObject *result = PyObject_CallMethodNoArgs(lower, name);
    if (result == NULL) {
        loop_report_raised(tls->loop, "the transport under TLS failed", "transport", lower,
                           "protocol", (PyObject *)tls->protocol);
    }
    Py_XDECREF(result);
    Py_DECREF(lower);
}

static void
tls_force_close_lower(TLSObject *tls, PyObject *exc)
{
    CoreState *state = tls->loop->state;
    PyObject *lower = Py_XNewRef(tls->lower);
    if (lower == NULL) {
        return;
    }
    if (tls->stream != NULL) {
        stream_force_close(tls->stream, exc);
        Py_DECREF(lower);
        return;
    }
    PyObject *method = NULL, *result = NULL;
    int found = PyObject_GetOptionalAttr(lower, state->str__force_close, &method);
    if (found > 0) {
        result = PyObject_CallOneArg(method, exc != NULL ? exc : Py_None);
    }
    else if (found == 0) {
        result = PyObject_CallMethodNoArgs(lower, state->str_abort);
    }
    if (result == NULL) {
        loop_report_raised(tls->loop, "the transport under TLS failed", "transport", lower,
                           "protocol", (PyObject *)tls->protocol);
    }
    Py_XDECREF(method);
    Py_XDECREF(result);
    Py_DECREF(lower);
}

static PyObject *
tls_close_lower(LoopObject *Py_UNUSED(loop), PyObject *owner, PyObject *Py_UNUSED(arg))
{
    TLSObject *tls = TLS(owner);
    if (tls->stream != NULL) {
        stream_close(tls->stream);
    }
    else {
        tls_call_lower(tls, tls->loop->state->str_close);
    }
    Py_RETURN_NONE;
}

/* ---- errors --------------------------------------------------------------------------- */

COLD void
tls_fatal(TLSObject *tls, const char *message)
{
    LoopObject *loop = tls->loop;
    if (exception_leaves_loop()) {
        loop_leave_with_exception(loop);
        return;
    }
    if (tls->flags & TLS_FAILING) {
        PyErr_Clear(); /* sending what was written before the failure failed: that one counts */
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *lower = Py_XNewRef(tls->lower);
    tls->flags |= TLS_FAILING;
    tls_force_close_lower(tls, exc);
    tls->flags &= ~TLS_FAILING;
    if (PyErr_GivenExceptionMatches(exc, PyExc_OSError)) {
        if (loop->debug) {
            PyObject *text = PyUnicode_FromString(message);
            tls_log(tls, "%r: %s", text, exc);
            Py_XDECREF(text);
        }
    }
    else if (message == tls_feed_failed
             || !PyErr_GivenExceptionMatches(exc, loop->state->asyncio_cancelled_error)) {
        if (loop_report(loop, Py_NewRef(exc), message, "transport", lower, "protocol",
                        (PyObject *)tls->protocol)
            < 0) {
            loop_leave_with_exception(loop);
        }
    }
    Py_XDECREF(lower);
    Py_XDECREF(exc);
}

void
tls_abort(TLSObject *tls, PyObject *exc)
{
    tls->state = TLS_UNWRAPPED;
    tls_force_close_lower(tls, exc);
}

/* ---- the handshake -------------------------------------------------------------------- */

/* With the exception raised. */
static COLD void
handshake_failed(TLSObject *tls)
{
    PyObject *exc = PyErr_GetRaisedException();
    bool certificate = PyErr_GivenExceptionMatches(exc, tls->loop->state->ssl_certificate_error);
    tls_stop_timer(tls, &tls->handshake_timer);
    tls->state = TLS_UNWRAPPED;
    tls_send_out(tls); /* the alert tells the peer what was wrong */
    PyErr_SetRaisedException(Py_NewRef(exc));
    tls_fatal(tls, certificate ? "SSL handshake failed on verifying the certificate"
                               : "SSL handshake failed");
    loop_wake_waiter(tls->loop, &tls->waiter, exc, (PyObject *)tls);
    Py_DECREF(exc);
}

static COLD void
log_handshake_time(TLSObject *tls)
{
    double now = 0;
    if (loop_clock(tls->loop, &now) < 0) {
        PyErr_WriteUnraisable((PyObject *)tls);
        return;
    }
    PyObject *milliseconds = PyFloat_FromDouble((now - tls->handshake_start) * 1e3);
    tls_log(tls, "%r: SSL handshake took %.1f ms", milliseconds, NULL);
    Py_XDECREF(milliseconds);
}

/* The entries of get_extra_info() that are known now. */
static int
remember_session(TLSObject *tls)
{
    CoreState *state = tls->loop->state;
    PyObject *sslobj = tls->engine.sslobj;
    PyObject *methods[] = {state->str_getpeercert, state->str_cipher, state->str_compression};
    PyObject *names[] = {state->str_peercert, state->str_cipher, state->str_compression};
    for (int i = 0; i < 3; i++) {
        PyObject *value = PyObject_CallMethodNoArgs(sslobj, methods[i]);
        if (value == NULL || PyDict_SetItem(tls->extra, names[i], value) < 0) {
            Py_XDECREF(value);
            return -1;
        }
        Py_DECREF(value);
    }
    return PyDict_SetItem(tls->extra, state->str_ssl_object, sslobj);
}

/* The user's protocol hears of the connection; -1: it has raised, and the connection failed. */
static int
tell_app_made(TLSObject *tls)
{
    PyObject *protocol = Py_NewRef(tls->app_protocol); /* it may put another in its place */
    PyObject *result = NULL;
    tls->app_state = TLS_APP_MADE;
    if (streams_adopt(tls->loop, protocol, &tls->feed) == 0) {
        result = PyObject_CallMethodOneArg(protocol, tls->loop->state->str_connection_made,
                                           (PyObject *)tls);
    }
    Py_DECREF(protocol);
    if (result == NULL) {
        tls_fatal(tls, tls_feed_failed);
        return -1;
    }
    Py_DECREF(result);
    return 0;
}

static void
handshake_done(TLSObject *tls)
{
    tls_stop_timer(tls, &tls->handshake_timer);
    tls->state = TLS_WRAPPED;
    if (remember_session(tls) < 0) {
        handshake_failed(tls);
        return;
    }
    if (tls->loop->debug) {
        log_handshake_time(tls);
    }
    if (tls->app_state == TLS_APP_MADE) {
        tls->flags |= TLS_READ_HELD;
    }
    else if (tell_app_made(tls) < 0) {
        return;
    }
    loop_wake_waiter(tls->loop, &tls->waiter, NULL, (PyObject *)tls);
    if (tls->backlog > 0) {
        tls_want_flush(tls);
    }
    else {
        tls_send_out(tls);
    }
    /* start_tls() returns first: its caller cannot answer before it knows the new transport. */
    if (!(tls->flags & TLS_READ_HELD)) {
        tls_read(tls);
    }
    else if (tls_read_later(tls) < 0) {
        tls_fatal(tls, tls_feed_failed);
    }
}

static void
do_handshake(TLSObject *tls)
{
    CoreState *state = tls->loop->state;
    int result = engine_call(&tls->engine, state->str_do_handshake);
    if (unlikely(tls->state != TLS_DO_HANDSHAKE && result != TLS_FAILED)) {
        return; /* lost meanwhile, in a loop that an sni_callback ran */
    }
    switch (result) {
    case TLS_END:
        handshake_done(tls);
        break;
    case TLS_AGAIN:
        tls_send_out(tls);
        break;
    default:
        if (PyErr_ExceptionMatches(state->ssl_error)) {
            handshake_failed(tls);
        }
        else {
            tls_fatal(tls, tls_feed_failed);
        }
    }
}

static PyObject *
handshake_timed_out(LoopObject *Py_UNUSED(loop), PyObject *owner, PyObject *Py_UNUSED(arg))
{
    TLSObject *tls = TLS(owner);
    if (tls->state == TLS_DO_HANDSHAKE) {
        PyErr_Format(PyExc_ConnectionAbortedError,
                     "SSL handshake is taking longer than %S seconds: aborting the connection",
                     tls->handshake_timeout);
        tls_fatal(tls, "Fatal error on transport");
    }
    Py_RETURN_NONE;
}

static int
set_context(TLSObject *tls)
{
    PyObject *context;
    if (tls->stream != NULL) {
        context = Py_NewRef(tls->stream->context);
    }
    else if (Py_IS_TYPE(tls->lower, tls->loop->state->TLSTransportType)) {
        context = Py_XNewRef(TLS(tls->lower)->context);
    }
    else {
        context = PyContext_CopyCurrent();
    }
    Py_XSETREF(tls->context, context);
    return context == NULL ? -1 : 0;
}

void
tls_connection_made(TLSObject *tls, PyObject *lower)
{
    Py_XSETREF(tls->lower, Py_NewRef(lower));
    tls->stream = Py_IS_TYPE(lower, tls->loop->state->StreamType) ? STREAM(lower) : NULL;
    if (set_context(tls) < 0) {
        tls_fatal(tls, tls_feed_failed);
        return;
    }
    if (tls->loop->debug) {
        tls_log(tls, "%r starts SSL handshake", NULL, NULL);
        if (loop_clock(tls->loop, &tls->handshake_start) < 0) {
            PyErr_WriteUnraisable((PyObject *)tls);
        }
    }
    tls->state = TLS_DO_HANDSHAKE;
    tls->handshake_timer =
        tls_start_timer(tls, PyFloat_AsDouble(tls->handshake_timeout), handshake_timed_out);
    if (tls->handshake_timer == NULL) {
        tls_fatal(tls, tls_feed_failed);
        return;
    }
    do_handshake(tls);
}

/* ---- shutdown ------------------------------------------------------------------------- */

COLD void
tls_call_eof_received(TLSObject *tls)
{
    LoopObject *loop = tls->loop;
    if (tls->app_state != TLS_APP_MADE) {
        return;
    }
    tls->app_state = TLS_APP_EOF;
    PyObject *protocol = Py_NewRef(tls->app_protocol);
    PyObject *result = context_call_method(tls->context, protocol, loop->state->str_eof_received);
    int keep_open = result == NULL ? -1 : PyObject_IsTrue(result);
    Py_XDECREF(result);
    Py_DECREF(protocol);
    if (keep_open > 0) {
        result = PyObject_CallMethod(
            loop->state->logger, "warning", "s",
            "returning true from eof_received() has no effect when using ssl");
        keep_open = result == NULL ? -1 : 0;
        Py_XDECREF(result);
    }
    if (keep_open < 0) {
        tls_fatal(tls, "Error calling eof_received()");
    }
}

static PyObject *
shutdown_timed_out(LoopObject *loop, PyObject *owner, PyObject *Py_UNUSED(arg))
{
    TLSObject *tls = TLS(owner);
    if (tls->state == TLS_FLUSHING || tls->state == TLS_SHUTDOWN) {
        PyObject *exc = PyObject_CallFunction(loop->state->asyncio_timeout_error, "s",
                                              "SSL shutdown timed out");
        if (exc == NULL) {
            return NULL;
        }
        tls_force_close_lower(tls, exc);
        Py_DECREF(exc);
    }
    Py_RETURN_NONE;
}

/* It runs until connection_lost. */
static int
start_shutdown_timer(TLSObject *tls)
{
    if (tls->shutdown_timer == NULL) {
        tls->shutdown_timer = tls_start_timer(tls, tls->shutdown_timeout, shutdown_timed_out);
    }
    return tls->shutdown_timer != NULL ? 0 : -1;
}

/* Data that the peer had sent before it heard of the goodbye is not wanted, and in OpenSSL's way
 * to its goodbye. */
static COLD int
say_goodbye(TLSObject *tls)
{
    if (tls_discard(tls) < 0) {
        return TLS_FAILED;
    }
    tls_control_reading(tls); /* what had stopped it is gone */
    return engine_call(&tls->engine, tls->loop->state->str_unwrap);
}

static COLD void
do_shutdown(TLSObject *tls)
{
    CoreState *state = tls->loop->state;
    int status = TLS_END;
    if (!(tls->flags & TLS_EOF_RECEIVED)) {
        status = say_goodbye(tls);
    }
    if (status == TLS_AGAIN) {
        tls_send_out(tls);
        return;
    }
    if (status == TLS_FAILED) {
        bool expected = PyErr_ExceptionMatches(state->ssl_error);
        tls_stop_timer(tls, &tls->shutdown_timer);
        tls_fatal(tls, expected ? "Fatal error on transport" : tls_feed_failed);
        return;
    }
    tls_send_out(tls);
    tls_call_eof_received(tls);
    /* The transport below sends what it holds before it closes: a peer that does not read
     * could delay that for ever. */
    if (start_shutdown_timer(tls) < 0
        || loop_call_native(tls->loop, tls_close_lower, (PyObject *)tls, NULL, NULL) < 0) {
        tls_fatal(tls, tls_feed_failed);
    }
}

static COLD void
do_flush(TLSObject *tls)
{
    if (!tls_read(tls) || tls->state != TLS_FLUSHING) {
        return; /* its callbacks went further, or have not been called for all */
    }
    tls_flush_all(tls);
    if (tls->state == TLS_FLUSHING) {
        tls->state = TLS_SHUTDOWN;
        do_shutdown(tls);
    }
}

COLD void
tls_start_shutdown(TLSObject *tls)
{
    bool waits = tls->state == TLS_FLUSHING && (tls->flags & TLS_DISCARDING);
    if (tls->state != TLS_DO_HANDSHAKE && tls->state != TLS_WRAPPED && !waits) {
        return;
    }
    tls->flags |= TLS_CLOSED;
    if (tls->state == TLS_DO_HANDSHAKE) {
        tls_abort(tls, NULL);
        return;
    }
    Py_INCREF(tls);
    tls->state = TLS_FLUSHING;
    if (start_shutdown_timer(tls) < 0) {
        tls_fatal(tls, tls_feed_failed);
    }
    else {
        do_flush(tls);
    }
    Py_DECREF(tls);
}

/* ---- what the transport below tells --------------------------------------------------- */

static PyObject *
read_again(LoopObject *Py_UNUSED(loop), PyObject *owner, PyObject *Py_UNUSED(arg))
{
    TLSObject *tls = TLS(owner);
    tls->flags &= ~TLS_READ_HELD;
    if (tls->state != TLS_DO_HANDSHAKE) {
        tls_advance(tls);
        if (engine_keep(&tls->engine) < 0) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

int
tls_read_later(TLSObject *tls)
{
    return loop_call_native(tls->loop, read_again, (PyObject *)tls, NULL, tls->context);
}

void
tls_advance(TLSObject *tls)
{
    switch (tls->state) {
    case TLS_WRAPPED:
        tls_read(tls);
        break;
    case TLS_DO_HANDSHAKE:
        do_handshake(tls);
        break;
    case TLS_FLUSHING:
        do_flush(tls);
        break;
    case TLS_SHUTDOWN:
        do_shutdown(tls);
        break;
    case TLS_UNWRAPPED:
        break;
    }
}

void
tls_received(TLSObject *tls, const char *data, size_t size)
{
    TLSEngine *engine = &tls->engine;
    if (unlikely(tls->state == TLS_UNWRAPPED)) {
        return;
    }
    if (unlikely(engine->kind->feed(engine, data, size) < 0)) {
        tls_fatal(tls, tls_feed_failed);
        return;
    }
    tls_advance(tls);
    if (unlikely(engine_keep(engine) < 0)) {
        engine->in_size = 0;
        tls_fatal(tls, tls_feed_failed);
    }
}

COLD bool
tls_eof_received(TLSObject *tls)
{
    tls->flags |= TLS_EOF_RECEIVED;
    if (tls->loop->debug) {
        tls_log(tls, "%r received EOF", NULL, NULL);
    }
    switch (tls->state) {
    case TLS_DO_HANDSHAKE:
        PyErr_SetNone(PyExc_ConnectionResetError);
        handshake_failed(tls);
        break;
    case TLS_WRAPPED:
        tls->state = TLS_FLUSHING;
        if (tls->flags & (TLS_READ_PAUSED | TLS_READ_HELD)) {
            return true; /* what has arrived is delivered when reading goes on */
        }
        do_flush(tls);
        return tls->state == TLS_FLUSHING; /* interrupted: likewise */
    case TLS_FLUSHING:
        tls_flush_all(tls);
        tls->state = TLS_SHUTDOWN;
        do_shutdown(tls);
        break;
    case TLS_SHUTDOWN:
        do_shutdown(tls);
        break;
    case TLS_UNWRAPPED:
        break;
    }
    return false;
}

/* The user's connection_lost(exc) has a turn of its own, as in asyncio. */
static int
tls_lose_app(TLSObject *tls, PyObject *exc)
{
    LoopObject *loop = tls->loop;
    HandleObject *handle = NULL;
    int status = -1;
    PyObject *method = PyObject_GetAttr(tls->app_protocol, loop->state->str_connection_lost);
    if (method != NULL) {
        handle = handle_new(loop, loop->state->HandleType, method, &exc, 1, NULL);
        Py_DECREF(method);
    }
    if (handle != NULL) {
        status = loop_make_ready(loop, handle);
    }
    return status;
}

/* asyncio's transport forgets its protocol in the second close(): with that goes all of the
 * ssl module's, though a cycle of the user's may keep the transport itself. Not below a nested
 * run, where an operation of the engine may be on the C stack. */
static void
tls_let_go(TLSObject *tls)
{
    CoreState *state = tls->loop->state;
    if (tls->loop->run_depth > 1) {
        return;
    }
    if (PyDict_SetItem(tls->extra, state->str_sslcontext, Py_None) < 0
        || PyDict_SetItem(tls->extra, state->str_ssl_object, Py_None) < 0) {
        PyErr_WriteUnraisable((PyObject *)tls);
    }
    engine_close(&tls->engine);
}

void
tls_connection_lost(TLSObject *tls, PyObject *exc)
{
    bool on_stream = tls->stream != NULL;
    tls->flags |= TLS_CLOSED;
    tls->writes_after_loss++;
    tls_drop_backlog(tls);
    tls_buffer_free(&tls->engine.out);
    if (tls->state != TLS_DO_HANDSHAKE
        && (tls->app_state == TLS_APP_MADE || tls->app_state == TLS_APP_EOF)) {
        tls->app_state = TLS_APP_LOST;
        if (tls_lose_app(tls, exc) < 0) {
            loop_report_raised(tls->loop, "connection_lost() not called", "transport",
                               (PyObject *)tls, NULL, NULL);
        }
    }
    tls->state = TLS_UNWRAPPED;
    tls->stream = NULL;
    Py_CLEAR(tls->lower);
    Py_CLEAR(tls->feed);
    Py_CLEAR(tls->app_protocol);
    loop_wake_waiter(tls->loop, &tls->waiter, exc == Py_None ? NULL : exc, (PyObject *)tls);
    tls_stop_timer(tls, &tls->shutdown_timer);
    tls_stop_timer(tls, &tls->handshake_timer);
    if (on_stream && (tls->flags & TLS_CLOSED_AGAIN)) {
        tls_let_go(tls);
    }
}
