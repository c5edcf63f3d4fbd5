/* The life of a handle: a callback with its arguments and context is made from a free list, waits
 * for its turn, runs or is cancelled, and goes back there. What Python sees of it beside
 * cancel() is in handle_type.c.
 *
 * A handle that nobody but the loop holds is not tracked by the cycle collector: whatever it
 * refers to is given up when it ran or was cancelled, and until then the loop's own traverse
 * answers for it. That saves two list operations per callback, and the collector's visits to
 * thousands of timers. A timer whose caller keeps the handle is tracked (timers.c, `fresh`).
 */

#include "core/context.h"
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

/* The context in which a callback is to run that none was given to. */
static inline PyObject *
handle_find_context(LoopObject *loop, HandleObject *handle)
{
    if (unlikely(loop->thread_id == 0)) {
        return PyContext_CopyCurrent(); /* a loop that may never run holds nothing for others */
    }
    handle->flags |= HANDLE_SHARES_CONTEXT;
    return contexts_share(loop);
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
    handle->context = context != NULL ? Py_NewRef(context) : handle_find_context(loop, handle);
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
    }
}

/* Somebody may look at it, or it has to stay as the callback leaves it. Takes over `context`. */
static void
handle_own_context(HandleObject *handle, PyObject *context)
{
    handle->flags &= ~HANDLE_SHARES_CONTEXT;
    Py_SETREF(handle->context, context);
}

PyObject *
handle_claim_context(HandleObject *handle)
{
    if (handle->flags & HANDLE_SHARES_CONTEXT) {
        PyObject *copy = PyContext_Copy(handle->context);
        if (copy == NULL) {
            return NULL;
        }
        handle_own_context(handle, copy);
    }
    return Py_NewRef(handle->context);
}

HandleObject *
handle_new_kept(LoopObject *loop, PyObject *callback, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *context = PyContext_CopyCurrent();
    if (context == NULL) {
        return NULL;
    }
    HandleObject *handle =
        handle_new(loop, loop->state->HandleType, callback, args, nargs, context);
    Py_DECREF(context);
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

/* The context that it runs in, for handle_leave_context(); NULL with an exception. */
static inline PyObject *
handle_enter_context(LoopObject *loop, HandleObject *handle)
{
    if (!(handle->flags & HANDLE_SHARES_CONTEXT)) {
        return context_enter(loop, handle->context);
    }
    PyObject *own = contexts_take(loop, handle->context);
    if (unlikely(own == NULL || PyContext_Enter(own) < 0)) {
        Py_XDECREF(own);
        return NULL;
    }
    if (unlikely(Py_REFCNT(handle) > 1 || handle->weakrefs != NULL)) {
        handle_own_context(handle, Py_NewRef(own)); /* somebody can look at it */
    }
    return own;
}

static inline PyObject *
handle_leave_context(LoopObject *loop, HandleObject *handle, PyObject *entered, PyObject *result)
{
    if (!(handle->flags & HANDLE_SHARES_CONTEXT)) {
        return context_leave(entered, result);
    }
    if (unlikely(PyContext_Exit(entered) < 0)) {
        Py_CLEAR(result);
    }
    if (unlikely(result == NULL)) {
        handle_own_context(handle, entered); /* the failure is reported with it */
    }
    else {
        contexts_give_back(loop, handle->context, entered);
    }
    return result;
}

int
handle_run(LoopObject *loop, HandleObject *handle)
{
    PyObject *entered = handle_enter_context(loop, handle);
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
    result = handle_leave_context(loop, handle, entered, result);
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
    Py_VISIT(handle->context);
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
    Py_CLEAR(handle->context);
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
    Py_CLEAR(handle->context);
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
