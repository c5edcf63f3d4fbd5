/* Python's own OpenSSL, found at run time: the functions that direct.c calls, and the proof
 * that they work on the objects of the `ssl` module. No header of OpenSSL is needed and the
 * extension is not linked to it; the prototypes below are OpenSSL's public ABI since 1.1.1.
 */
#ifndef UVLOOP_CLONE_TLS_OPENSSL_H
#define UVLOOP_CLONE_TLS_OPENSSL_H

#include "state.h"

typedef void (*openssl_ex_new)(void *parent, void *ptr, void *ad, int index, long argl,
                               void *argp);

/* X(name, result, parameters) */
#define OPENSSL_FUNCTIONS(X)                                                                     \
    X(OpenSSL_version_num, unsigned long, (void))                                                \
    X(SSL_read, int, (void *ssl, void *data, int size))                                          \
    X(SSL_write, int, (void *ssl, const void *data, int size))                                   \
    X(SSL_get_error, int, (const void *ssl, int result))                                         \
    X(SSL_get_shutdown, int, (const void *ssl))                                                  \
    X(SSL_pending, int, (const void *ssl))                                                       \
    X(SSL_has_pending, int, (const void *ssl))                                                   \
    X(SSL_set_bio, void, (void *ssl, void *reader, void *writer))                                \
    X(SSL_ctrl, long, (void *ssl, int command, long number, void *pointer))                      \
    X(ERR_peek_error, unsigned long, (void))                                                     \
    X(ERR_clear_error, void, (void))                                                             \
    X(BIO_new, void *, (const void *method))                                                     \
    X(BIO_get_data, void *, (void *bio))                                                         \
    X(BIO_set_data, void, (void *bio, void *data))                                               \
    X(BIO_set_init, void, (void *bio, int init))                                                 \
    X(BIO_set_flags, void, (void *bio, int flags))                                               \
    X(BIO_clear_flags, void, (void *bio, int flags))                                             \
    X(BIO_get_new_index, int, (void))                                                            \
    X(BIO_meth_new, void *, (int type, const char *name))                                        \
    X(BIO_meth_set_read, int, (void *method, int (*function)(void *, char *, int)))              \
    X(BIO_meth_set_write, int, (void *method, int (*function)(void *, const char *, int)))       \
    X(BIO_meth_set_ctrl, int, (void *method, long (*function)(void *, int, long, void *)))       \
    X(CRYPTO_get_ex_new_index, int,                                                              \
      (int class_index, long argl, void *argp, openssl_ex_new on_new, void *on_dup,              \
       void *on_free))                                                                           \
    X(CRYPTO_free_ex_index, int, (int class_index, int index))

/* Of the process, like the library: filled once and never changed after that. */
typedef struct {
#define X(name, result, parameters) result(*name) parameters;
    OPENSSL_FUNCTIONS(X)
#undef X
    void *bio_method; /* of direct.c */
} OpenSSL;

extern OpenSSL openssl;

/* The `SSL *` of an SSLObject that the direct engine may take over; NULL where it may not. */
void *openssl_ssl_of(CoreState *state, PyObject *sslobj);

#endif
