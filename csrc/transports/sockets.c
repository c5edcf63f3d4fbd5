/* The hold that a transport has on the socket object whose descriptor it uses: as with asyncio's
 * socket files, a close() by the caller leaves the descriptor open until the transport ends.
 * libuv aborts the process when a descriptor that it polls is gone, and a number that is used
 * again would be read and written in the place of the socket. For streams and datagrams.
 */

#include "transports/transports.h"


int
socket_hold(PyObject *sock)
{
    PyObject *refs = PyObject_GetAttrString(sock, "_io_refs");
    if (refs == NULL) { /* no socket.socket */
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
            return -1;
        }
        PyErr_Clear();
        return 0;
    }
    long count = PyLong_AsLong(refs);
    Py_DECREF(refs);
    PyObject *more = count == -1 && PyErr_Occurred() ? NULL : PyLong_FromLong(count + 1);
    int status = more == NULL ? -1 : PyObject_SetAttrString(sock, "_io_refs", more);
    Py_XDECREF(more);
    return status < 0 ? -1 : 1;
}

int
socket_let_go(PyObject *sock)
{
    PyObject *result = PyObject_CallMethod(sock, "_decref_socketios", NULL);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}
