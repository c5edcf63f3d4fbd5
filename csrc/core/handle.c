/* The life of a handle: a callback with its arguments and context is made from a free list, waits
 * for its turn, runs or is cancelled, and goes back there. What Python sees of it beside
 * cancel() is in handle_type.c.
 *
 * A handle that nobody but the loop holds is not tracked by the cycle collector: whatever it
 * refers to is given up when it ran or was cancelled, and until then the loop's own traverse
 * answers for it. That saves two list operations per callback, and the collector's visits to
 * thousands of timers. A timer whose caller keeps the handle is tracked (timers.c, `fresh`).
 */

#include "core/handle.h"
#include "core/wakeup.h"

/* Each handle beyond these counts towards the collector's next generation-0 pass. */
#define FREE_HANDLES_MAX 4096


static inline int
free_list_index(CoreState *state, PyTypeObject *type)
{
    return type == state->TimerHandleType;
}

static COLD HandleObject *
handle_allocate(PyTypeObject *type)
{
    /* GenericAlloc tracks at once, on every version. */
    HandleObject *handle = (HandleObject *)type->tp_alloc(type, 0);
    if (handle != NULL) {
        PyObject_GC_UnTrack(handle);
    }
    return handle;
}

static inline PyObject *
context_copy_hidden(void)
{
    PyObject *context = PyContext_CopyCurrent();
    if (likely(context != NULL)) {
        PyObject_GC_UnTrack(context);
    }
    return context;
}

static inline void
handle_drop_context(HandleObject *handle)
{
    if (handle->context != NULL) {
        context_show(handle->context);
        Py_CLEAR(handle->context);
    }
}

HandleObject *
handle_new(LoopObject *loop, PyTypeObject *type, PyObject *callback, PyObject *const *args,
           Py_ssize_t nargs, PyObject *context)
{
    CoreState *state = loop->state;
    int list = free_list_index(state, type);
    HandleObject *handle = state->free_handles[list];
    if (likely(handle != NULL)) {
        state->free_handles[list] = handle->next;
        state->free_handle_count[list]--;
        handle->next = NULL;
        Py_INCREF(type);
        _Py_NewReference((PyObject *)handle);
    }
    else if ((handle = handle_allocate(type)) == NULL) {
        return NULL;
    }
    handle->args = handle->inline_args;
    if (unlikely(nargs > HANDLE_INLINE_ARGS)) {
        PyObject **outer = PyMem_Malloc((size_t)(nargs + 1) * sizeof(PyObject *));
        if (outer == NULL) {
            Py_DECREF(handle);
            PyErr_NoMemory();
            return NULL;
        }
        handle->args = outer;
    }
    for (Py_ssize_t i = 0; i < nargs; i++) {
        handle->args[i + 1] = Py_NewRef(args[i]);
    }
    handle->nargs = (uint32_t)nargs;
    handle->callback = Py_NewRef(callback);
    handle->context = context != NULL ? Py_NewRef(context) : context_copy_hidden();
    if (unlikely(handle->context == NULL)) {
        Py_DECREF(handle);
        return NULL;
    }
    handle->loop = loop;
    if (unlikely(loop->debug)) {
        handle->source_traceback = PyObject_CallNoArgs(state->extract_stack);
        if (handle->source_traceback == NULL) {
            Py_DECREF(handle);
            return NULL;
        }
    }
    return handle;
}

void
handle_track(HandleObject *handle)
{
    if (!PyObject_GC_IsTracked((PyObject *)handle)) {
        PyObject_GC_Track(handle);
        context_show(handle->context);
    }
}

PyObject *
handle_share_context(HandleObject *handle)
{
    context_show(handle->context);
    return Py_NewRef(handle->context);
}

HandleObject *
handle_new_kept(LoopObject *loop, PyObject *callback, PyObject *const *args, Py_ssize_t nargs)
{
    HandleObject *handle = handle_new(loop, loop->state->HandleType, callback, args, nargs, NULL);
    if (handle != NULL) {
        handle->flags |= HANDLE_KEEP;
        handle_track(handle);
    }
    return handle;
}

static void
handle_drop_call(HandleObject *handle)
{
    Py_CLEAR(handle->callback);
    PyObject **args = handle->args;
    uint32_t nargs = handle->nargs;
    handle->nargs = 0;
    for (uint32_t i = 1; i <= nargs; i++) {
        Py_CLEAR(args[i]);
    }
    if (unlikely(args != handle->inline_args)) {
        handle->args = handle->inline_args;
        PyMem_Free(args);
    }
}

void
handle_release_call(HandleObject *handle)
{
    if (unlikely((handle->flags & (HANDLE_CANCELLED | HANDLE_RUNNING)) == HANDLE_CANCELLED)) {
        handle_drop_call(handle);
    }
}

/* Whoever still holds a handle that ran may look at its callback, as with asyncio's. As the
 * loop no longer answers for its references, the collector has to. */
void
handle_finish(HandleObject *handle)
{
    handle->loop = NULL;
    if (unlikely(Py_REFCNT(handle) > 1)) {
        handle_track(handle);
    }
}

/* ---- cancelling ----------------------------------------------------------------------- */

/* Whatever still holds the handle may cancel it twice or after it ran: no harm. */
int
handle_cancel(HandleObject *handle)
{
    if (handle->flags & HANDLE_CANCELLED) {
        return 0;
    }
    handle->flags |= HANDLE_CANCELLED;
    int status = 0;
    if (unlikely(handle->loop != NULL && handle->loop->debug)) {
        handle->kept_repr = PyObject_Repr((PyObject *)handle);
        status = handle->kept_repr == NULL ? -1 : 0; /* it is cancelled all the same */
    }
    if (handle->flags & HANDLE_SCHEDULED) {
        handle->loop->timers.cancelled++;
        timers_compact(handle->loop);
    }
    if (!(handle->flags & HANDLE_RUNNING)) {
        handle_drop_call(handle);
    }
    return status;
}

PyObject *
handle_py_cancel(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (HANDLE(self)->flags & HANDLE_THREADSAFE) {
        wakeup_wait_for_run(HANDLE(self));
    }
    if (handle_cancel(HANDLE(self)) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *
handle_py_cancelled(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (HANDLE(self)->flags & HANDLE_THREADSAFE) {
        wakeup_wait_for_run(HANDLE(self));
    }
    return PyBool_FromLong(HANDLE(self)->flags & HANDLE_CANCELLED);
}

/* ---- running -------------------------------------------------------------------------- */

COLD int
handle_report_failure(LoopObject *loop, HandleObject *handle)
{
    if (exception_leaves_loop()) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *text = PyObject_CallOneArg(loop->state->describe_callback, (PyObject *)handle);
    if (text == NULL) {
        PyErr_Clear(); /* a repr that fails must not hide the failure */
        text = PyUnicode_FromString("<unprintable callback>");
    }
    PyObject *message =
        text == NULL ? NULL : PyUnicode_FromFormat("Exception in callback %U", text);
    Py_XDECREF(text);
    return loop_report_text(loop, exc, message, "handle", (PyObject *)handle,
                            handle->source_traceback == NULL ? NULL : "source_traceback",
                            handle->source_traceback);
}

/* A nested run meets a context that an outer frame has entered: run in a copy of it. */
static COLD PyObject *
context_enter_copy(LoopObject *loop, PyObject *context)
{
    if (loop->run_depth < 2 || !PyErr_ExceptionMatches(PyExc_RuntimeError)) {
        return NULL;
    }
    PyErr_Clear();
    PyObject *copy = PyContext_Copy(context);
    if (copy != NULL && PyContext_Enter(copy) < 0) {
        Py_CLEAR(copy);
    }
    return copy;
}

PyObject *
context_enter(LoopObject *loop, PyObject *context)
{
    if (unlikely(PyContext_Enter(context) < 0)) {
        return context_enter_copy(loop, context);
    }
    return Py_NewRef(context);
}

int
context_exit(PyObject *entered)
{
    /* Fails only if the callback left another context entered: that is its error. */
    int status = PyContext_Exit(entered);
    Py_DECREF(entered);
    return status;
}

PyObject *
context_leave(PyObject *entered, PyObject *result)
{
    if (unlikely(context_exit(entered) < 0)) {
        Py_CLEAR(result);
    }
    return result;
}

PyObject *
context_call_method(PyObject *context, PyObject *object, PyObject *name)
{
    bool entered = PyContext_Enter(context) == 0;
    if (!entered) {
        PyErr_Clear();
    }
    PyObject *result = PyObject_CallMethodNoArgs(object, name);
    if (entered && PyContext_Exit(context) < 0) {
        Py_CLEAR(result);
    }
    return result;
}

static inline PyObject *
handle_call(LoopObject *loop, HandleObject *handle)
{
    if (handle->native != NULL) {
        return handle->native(loop, handle->callback, handle->nargs ? handle->args[1] : NULL);
    }
    return PyObject_Vectorcall(handle->callback, handle->args + 1,
                               handle->nargs | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
}

static COLD PyObject *
handle_call_timed(LoopObject *loop, HandleObject *handle)
{
    HandleObject *outer = loop->current_handle;
    loop->current_handle = handle;
    uint64_t start = uv_hrtime();
    PyObject *result = handle_call(loop, handle);
    loop->current_handle = outer;
    double seconds = (double)(uv_hrtime() - start) * 1e-9;
    if (seconds < loop->slow_callback_duration) {
        return result;
    }
    PyObject *failure = result == NULL ? PyErr_GetRaisedException() : NULL;
    PyObject *text = PyObject_CallOneArg(loop->state->describe_handle, (PyObject *)handle);
    PyObject *logged = NULL;
    if (text != NULL) {
        logged = PyObject_CallMethod(loop->state->logger, "warning", "sOd",
                                     "Executing %s took %.3f seconds", text, seconds);
        Py_DECREF(text);
    }
    if (failure != NULL) {
        PyErr_SetRaisedException(failure); /* and no failure of the report */
    }
    else if (logged == NULL) {
        Py_CLEAR(result);
    }
    Py_XDECREF(logged);
    return result;
}

int
handle_run(LoopObject *loop, HandleObject *handle)
{
    context_show(handle->context);
    PyObject *entered = context_enter(loop, handle->context);
    if (unlikely(entered == NULL)) {
        int failed = handle_report_failure(loop, handle);
        if (!(handle->flags & HANDLE_KEEP)) {
            handle_finish(handle);
        }
        return failed;
    }
    uint8_t outer = handle_begin(handle);
    PyObject *result =
        unlikely(loop->debug) ? handle_call_timed(loop, handle) : handle_call(loop, handle);
    handle_end(handle, outer);
    if (unlikely(loop->run_waiters > 0)) {
        wakeup_run_is_over(loop);
    }
    result = context_leave(entered, result);
    int status = 0;
    if (likely(result != NULL)) {
        Py_DECREF(result);
    }
    else {
        status = handle_report_failure(loop, handle);
    }
    if (!(handle->flags & HANDLE_KEEP)) {
        handle_finish(handle);
    }
    handle_release_call(handle);
    return status;
}

/* ---- the collector, and the end ------------------------------------------------------- */

int
handle_traverse(PyObject *self, visitproc visit, void *arg)
{
    HandleObject *handle = HANDLE(self);
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(handle->callback);
    if (handle->context != NULL && context_is_hidden(handle->context)) {
        int result = Py_TYPE(handle->context)->tp_traverse(handle->context, visit, arg);
        if (result != 0) {
            return result;
        }
    }
    else {
        Py_VISIT(handle->context);
    }
    Py_VISIT(handle->source_traceback);
    for (uint32_t i = 1; i <= handle->nargs; i++) {
        Py_VISIT(handle->args[i]);
    }
    return 0;
}

int
handle_visit(HandleObject *handle, visitproc visit, void *arg)
{
    if (PyObject_GC_IsTracked((PyObject *)handle)) {
        Py_VISIT(handle);
        return 0;
    }
    return Py_REFCNT(handle) == 1 ? handle_traverse((PyObject *)handle, visit, arg) : 0;
}

int
handle_clear(PyObject *self)
{
    HandleObject *handle = HANDLE(self);
    handle_drop_call(handle);
    handle_drop_context(handle);
    Py_CLEAR(handle->source_traceback);
    return 0;
}

/* A handle may hold a handle that holds a handle …: from this depth on they wait for the
 * outermost to free them, lest the stack overflows. CPython's trashcan would cost every callback
 * more. */
#define DEALLOC_DEPTH_MAX 50

/* What the handle refers to is given up, and its memory. */
static inline void
handle_free(HandleObject *handle, PyTypeObject *type, CoreState *state)
{
    if (unlikely(handle->weakrefs != NULL)) {
        PyObject_ClearWeakRefs((PyObject *)handle);
    }
    if (likely(handle->args != NULL)) {
        handle_drop_call(handle);
    }
    handle_drop_context(handle);
    Py_CLEAR(handle->source_traceback);
    Py_CLEAR(handle->kept_repr);
    int list = likely(state != NULL) ? free_list_index(state, type) : 0;
    if (likely(state != NULL && state->free_handle_count[list] < FREE_HANDLES_MAX)) {
        handle->flags = 0;
        handle->native = NULL;
        handle->loop = NULL;
        handle->next = state->free_handles[list];
        state->free_handles[list] = handle;
        state->free_handle_count[list]++;
        Py_DECREF(type);
    }
    else {
        compat_free_instance((PyObject *)handle);
    }
}

static COLD void
handles_free_deferred(CoreState *state)
{
    while (state->deferred_handles != NULL) {
        HandleObject *handle = state->deferred_handles;
        state->deferred_handles = handle->next;
        state->handle_dealloc_depth++;
        handle_free(handle, Py_TYPE(handle), state);
        state->handle_dealloc_depth--;
    }
}

void
handle_dealloc(PyObject *self)
{
    HandleObject *handle = HANDLE(self);
    PyTypeObject *type = Py_TYPE(self);
    CoreState *state = state_of_type(type);
    PyObject_GC_UnTrack(self);
    if (unlikely(state == NULL)) {
        handle_free(handle, type, NULL);
        return;
    }
    if (unlikely(state->handle_dealloc_depth >= DEALLOC_DEPTH_MAX)) {
        handle->next = state->deferred_handles;
        state->deferred_handles = handle;
        return;
    }
    state->handle_dealloc_depth++;
    handle_free(handle, type, state);
    if (--state->handle_dealloc_depth == 0 && unlikely(state->deferred_handles != NULL)) {
        handles_free_deferred(state);
    }
}

void
handle_free_list_clear(CoreState *state)
{
    for (int list = 0; list < 2; list++) {
        while (state->free_handles[list] != NULL) {
            HandleObject *handle = state->free_handles[list];
            state->free_handles[list] = handle->next;
            PyObject_GC_Del(handle);
        }
        state->free_handle_count[list] = FREE_HANDLES_MAX; /* what dies later is freed */
    }
}
