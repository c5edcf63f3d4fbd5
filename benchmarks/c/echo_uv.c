/* echo_uv.c - the limit: an echo server in C on libuv, nothing but the echo.
 *
 * What a loop for Python on libuv reaches at best: one shared read buffer,
 * uv_try_write at once, and a copy queued only for what the kernel did not
 * take. Listens on TCP, a Unix path or UDP; prints one line when it is ready
 * (the port, or the path). */

#define _GNU_SOURCE
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
    uv_write_t request;
    char data[];
} write_t;

/* On a page of its own: several CPUs copy out of the kernel several times slower to an address
 * that is 1 to 31 bytes past a page's start. */
static _Alignas(4096) char read_buffer[READ_SIZE];


static void
check(int status, const char *what)
{
    if (status < 0) {
        fprintf(stderr, "echo_uv: %s: %s\n", what, uv_strerror(status));
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
    free(handle);
}


static void
on_written(uv_write_t *request, int status)
{
    if (status < 0 && !uv_is_closing((uv_handle_t *)request->handle)) {
        uv_close((uv_handle_t *)request->handle, on_close);
    }
    free(request);
}


static void
on_read(uv_stream_t *stream, ssize_t nread, const uv_buf_t *in)
{
    uv_buf_t buf;
    write_t *rest;
    int done = 0;

    if (nread == 0) {
        return;
    }
    if (nread < 0) {
        uv_close((uv_handle_t *)stream, on_close);
        return;
    }
    buf = uv_buf_init(in->base, (unsigned int)nread);
    if (uv_stream_get_write_queue_size(stream) == 0) {
        done = uv_try_write(stream, &buf, 1);
        if (done == nread) {
            return;
        }
        if (done < 0) {
            done = 0;
        }
    }
    rest = malloc(sizeof(*rest) + (size_t)(nread - done));
    if (rest == NULL) {
        abort();
    }
    memcpy(rest->data, in->base + done, (size_t)(nread - done));
    buf = uv_buf_init(rest->data, (unsigned int)(nread - done));
    check(uv_write(&rest->request, stream, &buf, 1, on_written), "uv_write");
}


static void
on_connection(uv_stream_t *server, int status)
{
    uv_stream_t *client;

    check(status, "listen");
    client = malloc(sizeof(union uv_any_handle));
    if (client == NULL) {
        abort();
    }
    if (server->type == UV_TCP) {
        check(uv_tcp_init(server->loop, (uv_tcp_t *)client), "uv_tcp_init");
    }
    else {
        check(uv_pipe_init(server->loop, (uv_pipe_t *)client, 0), "uv_pipe_init");
    }
    check(uv_accept(server, client), "uv_accept");
    if (server->type == UV_TCP) {
        uv_tcp_nodelay((uv_tcp_t *)client, 1);
    }
    check(uv_read_start(client, on_alloc, on_read), "uv_read_start");
}


static void
on_datagram(uv_udp_t *udp, ssize_t nread, const uv_buf_t *in, const struct sockaddr *from,
            unsigned flags)
{
    uv_buf_t buf;

    (void)flags;
    if (nread > 0 && from != NULL) {
        buf = uv_buf_init(in->base, (unsigned int)nread);
        uv_udp_try_send(udp, &buf, 1, from);
    }
}


int
main(int argc, char **argv)
{
    uv_loop_t *loop = uv_default_loop();
    struct sockaddr_in address;
    int length = sizeof(address);
    uv_tcp_t tcp;
    uv_pipe_t pipe;
    uv_udp_t udp;

    if (argc < 2) {
        fputs("usage: echo_uv tcp|udp|unix:PATH [CPU]\n", stderr);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* not to outlive the runner */
    if (argc > 2) {
        cpu_set_t set;

        CPU_ZERO(&set);
        CPU_SET(atoi(argv[2]), &set);
        sched_setaffinity(0, sizeof(set), &set);
    }
    uv_ip4_addr("127.0.0.1", 0, &address);
    if (strncmp(argv[1], "unix:", 5) == 0) {
        check(uv_pipe_init(loop, &pipe, 0), "uv_pipe_init");
        check(uv_pipe_bind(&pipe, argv[1] + 5), "bind");
        check(uv_listen((uv_stream_t *)&pipe, BACKLOG, on_connection), "listen");
        printf("%s\n", argv[1] + 5);
    }
    else if (strcmp(argv[1], "udp") == 0) {
        check(uv_udp_init(loop, &udp), "uv_udp_init");
        check(uv_udp_bind(&udp, (struct sockaddr *)&address, 0), "bind");
        check(uv_udp_recv_start(&udp, on_alloc, on_datagram), "uv_udp_recv_start");
        check(uv_udp_getsockname(&udp, (struct sockaddr *)&address, &length), "getsockname");
        printf("%d\n", ntohs(address.sin_port));
    }
    else {
        check(uv_tcp_init(loop, &tcp), "uv_tcp_init");
        check(uv_tcp_bind(&tcp, (struct sockaddr *)&address, 0), "bind");
        check(uv_listen((uv_stream_t *)&tcp, BACKLOG, on_connection), "listen");
        check(uv_tcp_getsockname(&tcp, (struct sockaddr *)&address, &length), "getsockname");
        printf("%d\n", ntohs(address.sin_port));
    }
    fflush(stdout);
    return uv_run(loop, UV_RUN_DEFAULT);
}
