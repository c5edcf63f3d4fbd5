/* Finding Python's OpenSSL, and proving that it was found. Nothing about the layout of a
 * CPython object is assumed:
 *   1. `_ssl` itself is asked for the functions: its own libraries are searched, no others,
 *      and the version must be the one that `ssl` tells.
 *   2. A hook on the creation of SSL objects, put into that library, must be called when
 *      SSLContext.wrap_bio() runs: it is the library in use, and the hook's argument is the
 *      SSL * of the object just made. Exactly one word of that object must hold it, and the
 *      same word in three more objects.
 *   3. Two such objects shake hands in memory and exchange data through the direct engine.
 * Whatever fails, the portable engine serves.
 */

#include "tls/openssl.h"
#include "core/core.h"
#include "tls/engine.h"
#include "tls/tls.h"

#include <dlfcn.h>

#define CRYPTO_EX_INDEX_SSL 0

OpenSSL openssl;


/* ---- the library ---------------------------------------------------------------------- */

static const char *
openssl_load(const char *path, unsigned long version)
{
    static atomic_bool busy;
    static atomic_bool loaded;
    const char *reason = NULL;
    while (atomic_exchange(&busy, true)) {
        /* another interpreter of this process is at it */
    }
    void *library = NULL;
    if (!atomic_load(&loaded)) {
        library = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
        if (library == NULL) {
            reason = "the ssl module's own library is not loaded";
            goto done;
        }
#define X(name, result, parameters)                                                              \
    if ((*(void **)&openssl.name = dlsym(library, #name)) == NULL) {                             \
        reason = "OpenSSL has no function " #name;                                               \
        goto done;                                                                               \
    }
        OPENSSL_FUNCTIONS(X)
#undef X
    }
    if (openssl.OpenSSL_version_num() != version) {
        reason = "the OpenSSL that was found is not the ssl module's";
        goto done;
    }
    if (!atomic_load(&loaded)) {
        openssl.bio_method = direct_new_bio_method();
        if (openssl.bio_method == NULL) {
            reason = "OpenSSL has no memory left";
            goto done;
        }
        atomic_store(&loaded, true);
    }

done:
    if (library != NULL) {
        dlclose(library); /* _ssl, which Python never unloads, keeps it */
    }
    atomic_store(&busy, false);
    return reason;
}

/* ---- where the SSL * lies ------------------------------------------------------------- */

static _Thread_local void *newest_ssl;

static void
ssl_was_made(void *parent, void *Py_UNUSED(ptr), void *Py_UNUSED(ad), int Py_UNUSED(index),
             long Py_UNUSED(argl), void *Py_UNUSED(argp))
{
    newest_ssl = parent;
}

/* The word of `sslsocket` that holds `ssl`; 0 unless there is exactly one. */
static Py_ssize_t
offset_of_ssl(PyObject *sslsocket, void *ssl)
{
    Py_ssize_t found = 0;
    Py_ssize_t size = Py_TYPE(sslsocket)->tp_basicsize;
    for (Py_ssize_t offset = sizeof(PyObject); offset + (Py_ssize_t)sizeof(void *) <= size;
         offset += sizeof(void *)) {
        if (*(void **)((char *)sslsocket + offset) == ssl) {
            if (found != 0) {
                return 0;
            }
            found = offset;
        }
    }
    return found;
}

/* Makes an SSLObject and looks into it. -1: exception set. */
static int
prove_layout(CoreState *state, PyObject *context, bool server_side, OpenSSLProof *proof,
             const char **reason)
{
    TLSEngine engine = {0};
    PyObject *sslsocket = NULL;
    newest_ssl = NULL;
    int status = engine_open(&engine, state, context, server_side, Py_None);
    if (status == 0) {
        sslsocket = PyObject_GetAttr(engine.sslobj, state->str__sslobj);
        status = sslsocket == NULL ? -1 : 0;
    }
    if (status == 0) {
        Py_ssize_t offset = newest_ssl == NULL ? 0 : offset_of_ssl(sslsocket, newest_ssl);
        if (newest_ssl == NULL) {
            *reason = "the ssl module uses another OpenSSL";
        }
        else if (!Py_IS_TYPE(engine.sslobj, (PyTypeObject *)state->ssl_object_type) || offset == 0
                 || (proof->ssl_offset != 0 && proof->ssl_offset != offset)
                 || (proof->sslsocket_type != NULL
                     && !Py_IS_TYPE(sslsocket, proof->sslsocket_type))) {
            *reason = "the ssl module's objects are laid out in an unknown way";
        }
        else {
            proof->ssl_offset = offset;
            Py_XSETREF(proof->sslsocket_type, (PyTypeObject *)Py_NewRef(Py_TYPE(sslsocket)));
        }
    }
    Py_XDECREF(sslsocket);
    engine_close(&engine);
    return status;
}

/* ---- a connection in memory ----------------------------------------------------------- */

/* Hands over what `from` wants to be sent. */
static int
carry(TLSEngine *from, TLSEngine *to)
{
    int status = from->out.size == 0 ? 0 : to->kind->feed(to, from->out.data, from->out.size);
    if (status == 0) {
        status = engine_keep(to);
    }
    from->out.size = 0;
    return status;
}

static int
shake_hands(CoreState *state, TLSEngine *client, TLSEngine *server)
{
    int left = TLS_AGAIN, right = TLS_AGAIN;
    for (int round = 0; round < 10 && (left == TLS_AGAIN || right == TLS_AGAIN); round++) {
        if (left == TLS_AGAIN) {
            left = engine_call(client, state->str_do_handshake);
        }
        if (carry(client, server) < 0) {
            return -1;
        }
        if (right == TLS_AGAIN) {
            right = engine_call(server, state->str_do_handshake);
        }
        if (carry(server, client) < 0) {
            return -1;
        }
        if (left == TLS_FAILED || right == TLS_FAILED) {
            return -1;
        }
    }
    return left == TLS_END && right == TLS_END ? 0 : -1;
}

static bool
message_arrives(TLSEngine *from, TLSEngine *to)
{
    static const char message[] = "one end to the other";
    char answer[64];
    return from->kind->write(from, message, sizeof(message)) == (Py_ssize_t)sizeof(message)
           && carry(from, to) == 0 && to->kind->bound(to) >= sizeof(message)
           && to->kind->read(to, answer, sizeof(answer)) == (Py_ssize_t)sizeof(message)
           && memcmp(answer, message, sizeof(message)) == 0 && to->kind->pending(to) == 0
           && to->kind->read(to, answer, sizeof(answer)) == TLS_AGAIN;
}

static int
prove_by_use(CoreState *state, PyObject *client_context, PyObject *server_context,
             const char **reason)
{
    TLSEngine client = {0}, server = {0};
    int status = engine_open(&client, state, client_context, false, Py_None);
    if (status == 0) {
        status = engine_open(&server, state, server_context, true, Py_None);
    }
    if (status == 0
        && (client.kind != &tls_direct || server.kind != &tls_direct
            || shake_hands(state, &client, &server) < 0 || !message_arrives(&client, &server)
            || !message_arrives(&server, &client))
        && !PyErr_Occurred()) {
        *reason = "a connection in memory did not work";
    }
    engine_close(&client);
    engine_close(&server);
    return PyErr_Occurred() ? -1 : 0;
}

/* ---- the proof ------------------------------------------------------------------------ */

static void
openssl_forget(OpenSSLProof *proof)
{
    proof->ssl_offset = 0;
    Py_CLEAR(proof->sslsocket_type);
    Py_CLEAR(proof->read);
    Py_CLEAR(proof->write);
}

static int
prove(CoreState *state, PyObject *client, PyObject *server, const char **reason)
{
    OpenSSLProof found = {0};
    int index =
        openssl.CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_SSL, 0, NULL, ssl_was_made, NULL, NULL);
    if (index < 0) {
        *reason = "OpenSSL takes no hook";
        return 0;
    }
    int status = 0;
    for (int i = 0; i < 4 && status == 0 && *reason == NULL; i++) {
        status = prove_layout(state, i % 2 ? server : client, i % 2, &found, reason);
    }
    openssl.CRYPTO_free_ex_index(CRYPTO_EX_INDEX_SSL, index);
    if (status == 0 && *reason == NULL) {
        found.read = PyObject_GetAttr(state->ssl_object_type, state->str_read);
        found.write = PyObject_GetAttr(state->ssl_object_type, state->str_write);
        status = found.read == NULL || found.write == NULL ? -1 : 0;
    }
    if (status < 0 || *reason != NULL) {
        openssl_forget(&found);
        return status;
    }
    state->openssl_proof = found;
    status = prove_by_use(state, client, server, reason);
    if (status < 0 || *reason != NULL) {
        openssl_forget(&state->openssl_proof);
    }
    return status;
}

void *
openssl_ssl_of(CoreState *state, PyObject *sslobj)
{
    OpenSSLProof *proof = &state->openssl_proof;
    void *ssl = NULL;
    if (proof->ssl_offset == 0 || !Py_IS_TYPE(sslobj, (PyTypeObject *)state->ssl_object_type)) {
        return NULL;
    }
    /* Somebody who replaces the methods wants them to be called. */
    PyObject *read = PyObject_GetAttr(state->ssl_object_type, state->str_read);
    PyObject *write = PyObject_GetAttr(state->ssl_object_type, state->str_write);
    PyObject *sslsocket = PyObject_GetAttr(sslobj, state->str__sslobj);
    if (sslsocket != NULL && read == proof->read && write == proof->write
        && Py_IS_TYPE(sslsocket, proof->sslsocket_type)) {
        ssl = *(void **)((char *)sslsocket + proof->ssl_offset);
    }
    Py_XDECREF(read);
    Py_XDECREF(write);
    Py_XDECREF(sslsocket);
    return PyErr_Occurred() ? NULL : ssl;
}

/* ---- Python-facing -------------------------------------------------------------------- */

PyObject *
openssl_py_prove(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    CoreState *state = LOOP(self)->state;
    const char *reason = NULL;
    if (nargs != 4) {
        PyErr_SetString(PyExc_TypeError, "_prove_openssl(path, version, client, server)");
        return NULL;
    }
    unsigned long version = PyLong_AsUnsignedLong(args[1]);
    PyObject *path = NULL;
    if (PyErr_Occurred() || state_import_tls(state) < 0
        || !PyUnicode_FSConverter(args[0], &path)) {
        return NULL;
    }
    openssl_forget(&state->openssl_proof);
    reason = openssl_load(PyBytes_AS_STRING(path), version);
    Py_DECREF(path);
    if (reason == NULL && prove(state, args[2], args[3], &reason) < 0) {
        return NULL;
    }
    return reason == NULL ? Py_NewRef(Py_None) : PyUnicode_FromString(reason);
}

PyObject *
openssl_py_forget(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    openssl_forget(&LOOP(self)->state->openssl_proof);
    Py_RETURN_NONE;
}
