/* Descriptors that the user watches: one uv_poll per descriptor with a reader and a writer
 * handle, in a table indexed by descriptor. The sock_* operations wait here as well.
 *
 * A watcher outlives the handles of sock_* operations: one that waits again for the same
 * socket finds it still polled and pays no system call. Polling without anybody waiting ends
 * before the next poll (watchers_settle), so a descriptor closed meanwhile cannot keep the loop
 * awake; until then the socket object is held, so that a new socket with the old one's number
 * is told apart. A reader or writer that is removed is no longer polled at once.
 *
 * The table also knows which transport uses a descriptor, for asyncio's RuntimeError, and which
 * server listens on it.
 */

#include "io/io.h"
#include "core/ready.h"

#include <fcntl.h>


typedef struct Watcher {
    uv_poll_t poll;
    LoopObject *loop;
    HandleObject *handles[2]; /* by direction */
    int polled;               /* uv events asked for */
    bool unsettled;           /* is in the list below */
    bool started;             /* libuv has not told the kernel yet */
    bool drained;             /* in this turn: see watchers_set_drained() */
    PyObject *owner;          /* the socket that it is still polled for, or NULL */
    PyObject *file; /* given to add_reader(): kept, and known when it is closed; or NULL */
    struct Watcher *next_unsettled;
} Watcher;

typedef struct {
    Watcher *watcher;
    PyObject *transport; /* or server; borrowed */
} WatcherSlot;

typedef struct WatcherTable {
    size_t size;
    Watcher *unsettled;
    WatcherSlot slots[];
} WatcherTable;

static const int uv_events[2] = {UV_READABLE, UV_WRITABLE};


/* ---- the table ------------------------------------------------------------------------ */

static inline WatcherSlot *
table_slot(LoopObject *loop, int fd)
{
    WatcherTable *table = loop->watchers;
    return table != NULL && (size_t)fd < table->size ? &table->slots[fd] : NULL;
}

static WatcherSlot *
table_grow_to(LoopObject *loop, int fd)
{
    WatcherSlot *slot = table_slot(loop, fd);
    if (slot != NULL) {
        return slot;
    }
    if (fcntl(fd, F_GETFD) < 0) { /* any number may be given: no table is made for that */
        PyErr_SetFromErrno(PyExc_OSError);
        return NULL;
    }
    WatcherTable *old = loop->watchers;
    size_t old_size = old != NULL ? old->size : 0;
    size_t size = old_size ? old_size : 64;
    while (size <= (size_t)fd) {
        size *= 2;
    }
    WatcherTable *table = PyMem_Realloc(old, sizeof(*table) + size * sizeof(WatcherSlot));
    if (table == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    if (old == NULL) {
        table->unsettled = NULL;
    }
    memset(table->slots + old_size, 0, (size - old_size) * sizeof(WatcherSlot));
    table->size = size;
    loop->watchers = table;
    return &table->slots[fd];
}

/* ---- polling -------------------------------------------------------------------------- */

static void watcher_fired(uv_poll_t *poll, int status, int events);

static inline int
watcher_wanted(Watcher *watcher)
{
    return (watcher->handles[WATCH_READ] != NULL ? UV_READABLE : 0)
           | (watcher->handles[WATCH_WRITE] != NULL ? UV_WRITABLE : 0);
}

static void
watcher_unsettle(Watcher *watcher)
{
    WatcherTable *table = watcher->loop->watchers;
    if (!watcher->unsettled) {
        watcher->unsettled = true;
        watcher->next_unsettled = table->unsettled;
        table->unsettled = watcher;
    }
}

static void
watcher_poll(Watcher *watcher, int events)
{
    watcher->polled = events;
    watcher->started = events != 0;
    if (events == 0) {
        uv_poll_stop(&watcher->poll);
    }
    else {
        uv_poll_start(&watcher->poll, events, watcher_fired);
        watcher_unsettle(watcher);
    }
}

static void
watcher_poll_wanted(Watcher *watcher)
{
    int wanted = watcher_wanted(watcher);
    if (wanted != watcher->polled) {
        watcher_poll(watcher, wanted);
    }
}

static void watcher_notify(Watcher *watcher, int direction);

/* libuv aborts the process when the kernel refuses to poll: a descriptor closed since it was
 * asked for must not get there. Operations that wait for it run now and get their error. */
static void
watcher_check_open(Watcher *watcher)
{
    uv_os_fd_t fd;
    watcher->started = false;
    if (uv_fileno((uv_handle_t *)&watcher->poll, &fd) < 0 || fcntl(fd, F_GETFD) >= 0) {
        return;
    }
    watcher_poll(watcher, 0);
    LoopObject *loop = watcher->loop;
    for (int direction = 0; direction < 2; direction++) {
        /* What was notified may have run the loop, and the watcher be gone. */
        WatcherSlot *slot = table_slot(loop, (int)fd);
        HandleObject *handle =
            slot != NULL && slot->watcher == watcher ? watcher->handles[direction] : NULL;
        if (handle != NULL && (handle->flags & HANDLE_DIRECT)) {
            watcher_notify(watcher, direction);
        }
    }
}

void
watchers_settle(LoopObject *loop)
{
    /* Giving up a socket may run anything: the table is looked up each time. */
    while (loop->watchers != NULL && loop->watchers->unsettled != NULL) {
        Watcher *watcher = loop->watchers->unsettled;
        loop->watchers->unsettled = watcher->next_unsettled;
        watcher->unsettled = false;
        watcher->drained = false;
        watcher_poll_wanted(watcher);
        PyObject *owner = watcher->owner;
        watcher->owner = NULL;
        if (watcher->started) {
            watcher_check_open(watcher);
        }
        Py_XDECREF(owner);
    }
}

static void
watcher_notify(Watcher *watcher, int direction)
{
    LoopObject *loop = watcher->loop;
    HandleObject *handle = watcher->handles[direction];
    if (handle == NULL) {
        watcher_unsettle(watcher);
        return;
    }
    Py_INCREF(handle);
    if (handle->flags & HANDLE_DIRECT) {
        uint8_t outer = handle_begin(handle); /* its owner may end the watch from within */
        PyObject *result = handle->native(loop, handle->callback, NULL);
        handle_end(handle, outer);
        if (result == NULL) {
            loop_report_raised(loop, "Exception in an I/O callback", NULL, NULL, NULL, NULL);
        }
        Py_XDECREF(result);
        handle_release_call(handle);
        Py_DECREF(handle);
    }
    else if (ready_push(&loop->arrived, (PyObject *)handle) < 0) {
        Py_DECREF(handle);
        loop_report_raised(loop, "I/O callback lost", NULL, NULL, NULL, NULL);
    }
}

static void
watcher_fired(uv_poll_t *poll, int status, int events)
{
    Watcher *watcher = poll->data;
    loop_enter_python(watcher->loop);
    if (status < 0) {
        /* An error or hang-up wakes both sides: their next system call tells them. */
        events = UV_READABLE | UV_WRITABLE;
    }
    /* A callback that runs at once may close its file and open another of that number. */
    if (events & UV_READABLE) {
        watcher_notify(watcher, WATCH_READ);
    }
    if ((events & UV_WRITABLE) && !uv_is_closing((uv_handle_t *)poll)) {
        watcher_notify(watcher, WATCH_WRITE);
    }
    if (status < 0 && !uv_is_closing((uv_handle_t *)poll)) {
        /* libuv stopped the poll; whoever still waits goes on waiting. */
        watcher_poll(watcher, watcher_wanted(watcher));
    }
}

static Watcher *
watcher_new(LoopObject *loop, int fd)
{
    Watcher *watcher = PyMem_Calloc(1, sizeof(*watcher));
    if (watcher == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    int err = uv_poll_init(&loop->uv, &watcher->poll, fd);
    if (err < 0) {
        PyMem_Free(watcher);
        raise_uv_error(err);
        return NULL;
    }
    watcher->poll.data = watcher;
    watcher->loop = loop;
    return watcher;
}

static void
watcher_free_parked(PyObject *capsule)
{
    PyMem_Free(PyCapsule_GetPointer(capsule, NULL));
}

static void
watcher_closed(uv_handle_t *handle)
{
    LoopObject *loop = ((Watcher *)handle->data)->loop;
    loop_enter_python(loop);
    if (likely(loop->uv_depth <= 1)) {
        PyMem_Free(handle->data);
        return;
    }
    /* A callback of it may be on the C stack, below a nested run. */
    PyObject *capsule = PyCapsule_New(handle->data, NULL, watcher_free_parked);
    if (capsule == NULL) {
        PyErr_WriteUnraisable((PyObject *)loop);
        return;
    }
    turn_release_later(loop, capsule);
}

static void
watcher_close(LoopObject *loop, WatcherSlot *slot)
{
    Watcher *watcher = slot->watcher;
    slot->watcher = NULL;
    if (watcher->unsettled) {
        Watcher **link = &loop->watchers->unsettled;
        while (*link != watcher) {
            link = &(*link)->next_unsettled;
        }
        *link = watcher->next_unsettled;
    }
    for (int direction = 0; direction < 2; direction++) {
        HandleObject *handle = watcher->handles[direction];
        watcher->handles[direction] = NULL;
        if (handle != NULL) {
            handle_finish(handle);
            Py_DECREF(handle);
        }
    }
    PyObject *owner = watcher->owner;
    PyObject *file = watcher->file;
    watcher->owner = watcher->file = NULL;
    uv_close((uv_handle_t *)&watcher->poll, watcher_closed);
    Py_XDECREF(owner);
    Py_XDECREF(file);
}

/* ---- what others use ------------------------------------------------------------------ */

int
fd_from_object(PyObject *object)
{
    if (PyLong_Check(object)) {
        long fd = PyLong_AsLong(object);
        if (fd < 0 || fd > INT32_MAX) {
            if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_OverflowError)) {
                PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %S", object);
            }
            return -1;
        }
        return (int)fd;
    }
    PyObject *number = PyObject_CallMethod(object, "fileno", NULL);
    if (number == NULL || !PyLong_Check(number)) {
        Py_XDECREF(number);
        if (number != NULL || PyErr_ExceptionMatches(PyExc_AttributeError)
            || PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Format(PyExc_ValueError, "Invalid file object: %R", object);
        }
        return -1;
    }
    int fd = fd_from_object(number);
    Py_DECREF(number);
    return fd;
}

int
fd_from_file(LoopObject *loop, PyObject *file)
{
    PyObject *number = PyObject_CallMethodNoArgs(file, loop->state->str_fileno);
    int fd = number == NULL ? -1 : fd_from_object(number);
    Py_XDECREF(number);
    return fd;
}

int
watchers_check_free(LoopObject *loop, int fd)
{
    WatcherSlot *slot = table_slot(loop, fd);
    if (slot != NULL && slot->transport != NULL) {
        bool listens = PyObject_TypeCheck(slot->transport, loop->state->ServerBaseType);
        PyErr_Format(PyExc_RuntimeError,
                     listens ? "File descriptor %d is used by server %R, which listens on it"
                             : "File descriptor %d is used by transport %R",
                     fd, slot->transport);
        return -1;
    }
    return 0;
}

int
watchers_claim(LoopObject *loop, int fd, PyObject *transport)
{
    WatcherSlot *slot = table_grow_to(loop, fd);
    if (slot == NULL) {
        return -1;
    }
    if (slot->watcher != NULL) {
        watcher_close(loop, slot); /* a left-over of the descriptor's former life */
    }
    table_slot(loop, fd)->transport = transport; /* a destructor may have moved the table */
    return 0;
}

void
watchers_release(LoopObject *loop, int fd, PyObject *transport)
{
    WatcherSlot *slot = table_slot(loop, fd);
    if (slot != NULL && slot->transport == transport) {
        slot->transport = NULL;
    }
}

int
watchers_set(LoopObject *loop, int fd, int direction, HandleObject *handle, PyObject *owner)
{
    WatcherSlot *slot = table_grow_to(loop, fd);
    if (slot == NULL) {
        return -1;
    }
    Watcher *watcher = slot->watcher;
    if (watcher == NULL) {
        watcher = watcher_new(loop, fd);
        if (watcher == NULL) {
            return -1;
        }
        slot = table_slot(loop, fd);
        slot->watcher = watcher;
    }
    PyObject *former = NULL;
    if (watcher->owner != owner) {
        watcher_poll_wanted(watcher); /* what is still polled may be another file's */
        former = watcher->owner;
        watcher->owner = NULL;
    }
    HandleObject *old = watcher->handles[direction];
    watcher->handles[direction] = (HandleObject *)Py_NewRef(handle);
    if (!(watcher->polled & uv_events[direction]) || old != NULL) {
        watcher_poll(watcher, watcher->polled | uv_events[direction]);
    }
    if (old != NULL) {
        if (unlikely(handle_cancel(old) < 0)) { /* debug mode: its repr. The new one is set */
            loop_report_raised(loop, "Exception in cancelling a callback", NULL, NULL, NULL,
                               NULL);
        }
        old->loop = NULL;
        Py_DECREF(old);
    }
    Py_XDECREF(former);
    return 0;
}

int
watchers_unset(LoopObject *loop, int fd, int direction, PyObject *owner)
{
    WatcherSlot *slot = table_slot(loop, fd);
    Watcher *watcher = slot != NULL ? slot->watcher : NULL;
    if (watcher == NULL || watcher->handles[direction] == NULL) {
        return 0;
    }
    HandleObject *handle = watcher->handles[direction];
    watcher->handles[direction] = NULL;
    if (owner == NULL) {
        watcher_poll_wanted(watcher);
    }
    else {
        Py_XSETREF(watcher->owner, Py_NewRef(owner));
        watcher_unsettle(watcher);
    }
    PyObject *file = NULL;
    if (watcher->handles[!direction] == NULL) {
        file = watcher->file;
        watcher->file = NULL;
    }
    int status = handle_cancel(handle);
    handle->loop = NULL;
    Py_DECREF(handle);
    Py_XDECREF(file); /* last: it may be closed by that */
    return status < 0 ? -1 : 1;
}

static inline Watcher *
watcher_still_polled(LoopObject *loop, int fd, PyObject *owner)
{
    WatcherSlot *slot = fd < 0 ? NULL : table_slot(loop, fd);
    Watcher *watcher = slot != NULL ? slot->watcher : NULL;
    bool polled = watcher != NULL && watcher->owner == owner && (watcher->polled & UV_READABLE);
    return polled ? watcher : NULL;
}

void
watchers_set_drained(LoopObject *loop, int fd, PyObject *owner)
{
    Watcher *watcher = watcher_still_polled(loop, fd, owner);
    if (watcher != NULL && watcher->unsettled) { /* settling ends it */
        watcher->drained = true;
    }
}

bool
watchers_is_drained(LoopObject *loop, int fd, PyObject *owner)
{
    Watcher *watcher = watcher_still_polled(loop, fd, owner);
    return watcher != NULL && watcher->drained;
}

void
watchers_close(LoopObject *loop)
{
    WatcherTable *table = loop->watchers;
    for (size_t fd = 0; table != NULL && fd < table->size; fd++) {
        if (table->slots[fd].watcher != NULL) {
            watcher_close(loop, &table->slots[fd]);
        }
    }
}

void
watchers_free(LoopObject *loop)
{
    PyMem_Free(loop->watchers);
    loop->watchers = NULL;
}

void
watchers_each(LoopObject *loop, void (*found)(PyObject *user, void *arg), void *arg)
{
    WatcherTable *table = loop->watchers;
    for (size_t fd = 0; table != NULL && fd < table->size; fd++) {
        WatcherSlot *slot = &table->slots[fd];
        HandleObject *handle = NULL;
        if (slot->watcher != NULL) {
            HandleObject **handles = slot->watcher->handles;
            handle = handles[WATCH_READ] != NULL ? handles[WATCH_READ] : handles[WATCH_WRITE];
        }
        if (slot->transport != NULL) {
            found(slot->transport, arg);
        }
        else if (handle != NULL && handle->callback != NULL) {
            found(handle->callback, arg);
        }
    }
}

int
watchers_traverse(LoopObject *loop, visitproc visit, void *arg)
{
    WatcherTable *table = loop->watchers;
    for (size_t fd = 0; table != NULL && fd < table->size; fd++) {
        if (table->slots[fd].watcher != NULL) {
            Py_VISIT(table->slots[fd].watcher->handles[WATCH_READ]);
            Py_VISIT(table->slots[fd].watcher->handles[WATCH_WRITE]);
            Py_VISIT(table->slots[fd].watcher->owner);
            Py_VISIT(table->slots[fd].watcher->file);
        }
    }
    return 0;
}

/* ---- Python methods ------------------------------------------------------------------- */

/* As asyncio's selectors: a socket that is watched and held by nobody else stays open. */
static void
watchers_keep_file(LoopObject *loop, int fd, HandleObject *handle, int direction, PyObject *file)
{
    WatcherSlot *slot = table_slot(loop, fd);
    Watcher *watcher = slot != NULL ? slot->watcher : NULL;
    if (watcher != NULL && watcher->handles[direction] == handle) { /* no destructor undid it */
        Py_XSETREF(watcher->file, Py_NewRef(file));
    }
}

static PyObject *
watchers_add(PyObject *self, PyObject *const *args, Py_ssize_t nargs, int direction,
             const char *method)
{
    LoopObject *loop = LOOP(self);
    if (nargs < 2) {
        PyErr_Format(PyExc_TypeError, "%s() takes at least 2 arguments (%zd given)", method,
                     nargs);
        return NULL;
    }
    int fd = fd_from_object(args[0]);
    if (fd < 0 || loop_check_closed(loop) < 0 || watchers_check_free(loop, fd) < 0) {
        return NULL;
    }
    HandleObject *handle = handle_new_kept(loop, args[1], args + 2, nargs - 2);
    if (handle == NULL) {
        return NULL;
    }
    int status = watchers_set(loop, fd, direction, handle, NULL);
    if (status < 0) {
        handle_finish(handle);
    }
    else if (!PyLong_Check(args[0])) {
        watchers_keep_file(loop, fd, handle, direction, args[0]);
    }
    Py_DECREF(handle);
    turn_poll_next(loop);
    return status < 0 ? NULL : Py_NewRef(Py_None);
}

/* A file that was closed before its watch ended has no number any more: as asyncio's selectors.
 */
static COLD int
watchers_find_closed(LoopObject *loop, PyObject *file)
{
    WatcherTable *table = loop->watchers;
    for (size_t fd = 0; table != NULL && fd < table->size; fd++) {
        if (table->slots[fd].watcher != NULL && table->slots[fd].watcher->file == file) {
            PyErr_Clear();
            return (int)fd;
        }
    }
    return -1;
}

static PyObject *
watchers_remove(PyObject *self, PyObject *file, int direction)
{
    LoopObject *loop = LOOP(self);
    int fd = fd_from_object(file);
    if (fd < 0 && PyErr_ExceptionMatches(PyExc_ValueError)) {
        fd = watchers_find_closed(loop, file);
    }
    if (fd < 0 || watchers_check_free(loop, fd) < 0) {
        return NULL;
    }
    if (loop->closed) {
        Py_RETURN_FALSE;
    }
    int removed = watchers_unset(loop, fd, direction, NULL);
    return removed < 0 ? NULL : PyBool_FromLong(removed);
}

PyObject *
watchers_py_add_reader(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    return watchers_add(self, args, nargs, WATCH_READ, "add_reader");
}

PyObject *
watchers_py_remove_reader(PyObject *self, PyObject *file)
{
    return watchers_remove(self, file, WATCH_READ);
}

PyObject *
watchers_py_add_writer(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    return watchers_add(self, args, nargs, WATCH_WRITE, "add_writer");
}

PyObject *
watchers_py_remove_writer(PyObject *self, PyObject *file)
{
    return watchers_remove(self, file, WATCH_WRITE);
}
