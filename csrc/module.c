/* The extension module uvloop_clone._core: its definition and nothing else. */

#include "state.h"

static int
core_exec(PyObject *module)
{
    if (state_init(PyModule_GetState(module), module) < 0) {
        return -1;
    }
    /* By this uvloop_clone.ffi sees that it is bound to the same libuv. */
    PyObject *address = PyLong_FromVoidPtr((void *)(uintptr_t)&uv_loop_init);
    if (address == NULL || PyModule_AddObjectRef(module, "_libuv_address", address) < 0) {
        Py_XDECREF(address);
        return -1;
    }
    Py_DECREF(address);
    return PyModule_AddStringConstant(module, "libuv_version", uv_version_string());
}

static int
core_traverse(PyObject *module, visitproc visit, void *arg)
{
    return state_traverse(PyModule_GetState(module), visit, arg);
}

static int
core_clear(PyObject *module)
{
    state_clear(PyModule_GetState(module));
    return 0;
}

static void
core_free(void *module)
{
    core_clear((PyObject *)module);
}

static PyModuleDef_Slot core_slots[] = {
    {Py_mod_exec, core_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "uvloop_clone._core",
    .m_doc = "The event loop in C on libuv; uvloop_clone gives it its public names.",
    .m_size = sizeof(CoreState),
    .m_slots = core_slots,
    .m_traverse = core_traverse,
    .m_clear = core_clear,
    .m_free = core_free,
};

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&core_module);
}
