/* echo_tls.c - the TLS limit: libuv moves the ciphertext, OpenSSL works on a
 * pair of memory BIOs, and nothing else happens.
 *
 * One read event: ciphertext into the read BIO, every record decrypted into a
 * shared buffer and encrypted back, then everything that came out leaves in
 * one write. Prints the port when it is ready. */

#define _GNU_SOURCE
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <uv.h>

#define READ_SIZE (256 * 1024)
#define BACKLOG 4096

typedef struct {
    uv_tcp_t tcp;
    SSL *ssl;
    BIO *in;
    BIO *out;
} conn_t;

typedef struct {
    uv_write_t request;
    char data[];
} write_t;

static SSL_CTX *context;
/* On a page of its own: several CPUs copy out of the kernel several times slower to an address
 * that is 1 to 31 bytes past a page's start. */
static _Alignas(4096) char read_buffer[READ_SIZE];
static _Alignas(4096) char plain_buffer[READ_SIZE];


static void
check(int status, const char *what)
{
    if (status < 0) {
        fprintf(stderr, "echo_tls: %s: %s\n", what, uv_strerror(status));
        exit(1);
    }
}


static void
on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    (void)handle;
    (void)suggested;
    *buf = uv_buf_init(read_buffer, sizeof(read_buffer));
}


static void
on_close(uv_handle_t *handle)
{
    conn_t *c = (conn_t *)handle;

    SSL_free(c->ssl);
    free(c);
}


static void
conn_close(conn_t *c)
{
    if (!uv_is_closing((uv_handle_t *)&c->tcp)) {
        uv_close((uv_handle_t *)&c->tcp, on_close);
    }
}


static void
on_written(uv_write_t *request, int status)
{
    if (status < 0) {
        conn_close((conn_t *)request->handle);
    }
    free(request);
}


/* Send all ciphertext that waits in the write BIO. */
static void
conn_flush(conn_t *c)
{
    char *data;
    long size = BIO_get_mem_data(c->out, &data);
    int done = 0;
    uv_buf_t buf;

    if (size <= 0) {
        return;
    }
    buf = uv_buf_init(data, (unsigned int)size);
    if (uv_stream_get_write_queue_size((uv_stream_t *)&c->tcp) == 0) {
        done = uv_try_write((uv_stream_t *)&c->tcp, &buf, 1);
        if (done < 0) {
            done = 0;
        }
    }
    if (done < size) {
        write_t *rest = malloc(sizeof(*rest) + (size_t)(size - done));

        if (rest == NULL) {
            abort();
        }
        memcpy(rest->data, data + done, (size_t)(size - done));
        buf = uv_buf_init(rest->data, (unsigned int)(size - done));
        check(uv_write(&rest->request, (uv_stream_t *)&c->tcp, &buf, 1, on_written), "uv_write");
    }
    (void)BIO_reset(c->out);
}


static void
on_read(uv_stream_t *stream, ssize_t nread, const uv_buf_t *in)
{
    conn_t *c = (conn_t *)stream;
    int n, error;

    if (nread == 0) {
        return;
    }
    if (nread < 0) {
        conn_close(c);
        return;
    }
    BIO_write(c->in, in->base, (int)nread);
    for (;;) {
        n = SSL_read(c->ssl, plain_buffer, sizeof(plain_buffer));
        if (n <= 0) {
            break;
        }
        SSL_write(c->ssl, plain_buffer, n);
    }
    error = SSL_get_error(c->ssl, n);
    conn_flush(c);
    if (error != SSL_ERROR_WANT_READ) {
        ERR_clear_error();
        conn_close(c);
    }
}


static void
on_connection(uv_stream_t *server, int status)
{
    conn_t *c = calloc(1, sizeof(*c));

    check(status, "listen");
    if (c == NULL) {
        abort();
    }
    check(uv_tcp_init(server->loop, &c->tcp), "uv_tcp_init");
    check(uv_accept(server, (uv_stream_t *)&c->tcp), "uv_accept");
    uv_tcp_nodelay(&c->tcp, 1);
    c->ssl = SSL_new(context);
    c->in = BIO_new(BIO_s_mem());
    c->out = BIO_new(BIO_s_mem());
    if (c->ssl == NULL || c->in == NULL || c->out == NULL) {
        abort();
    }
    SSL_set_bio(c->ssl, c->in, c->out);
    SSL_set_accept_state(c->ssl);
    check(uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read), "uv_read_start");
}


int
main(int argc, char **argv)
{
    uv_loop_t *loop = uv_default_loop();
    struct sockaddr_in address;
    int length = sizeof(address);
    uv_tcp_t server;

    if (argc < 3) {
        fputs("usage: echo_tls CERTIFICATE KEY [CPU]\n", stderr);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* not to outlive the runner */
    if (argc > 3) {
        cpu_set_t set;

        CPU_ZERO(&set);
        CPU_SET(atoi(argv[3]), &set);
        sched_setaffinity(0, sizeof(set), &set);
    }
    context = SSL_CTX_new(TLS_server_method());
    if (context == NULL || SSL_CTX_use_certificate_chain_file(context, argv[1]) != 1
        || SSL_CTX_use_PrivateKey_file(context, argv[2], SSL_FILETYPE_PEM) != 1) {
        fputs("echo_tls: cannot load the certificate or its key\n", stderr);
        return 1;
    }
    uv_ip4_addr("127.0.0.1", 0, &address);
    check(uv_tcp_init(loop, &server), "uv_tcp_init");
    check(uv_tcp_bind(&server, (struct sockaddr *)&address, 0), "bind");
    check(uv_listen((uv_stream_t *)&server, BACKLOG, on_connection), "listen");
    check(uv_tcp_getsockname(&server, (struct sockaddr *)&address, &length), "getsockname");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return uv_run(loop, UV_RUN_DEFAULT);
}
