/* client.c - the load client of the benchmarks: one thread, one epoll set.
 *
 * Every loop and every C limit is measured by this same program, so that what
 * differs between two figures is the server alone. Each connection sends one
 * message, waits for the whole answer, and starts again; the answers that end
 * inside the measured time are counted. The result is one line of JSON.
 *
 * Sockets are watched edge-triggered and once; a connection remembers whether
 * it may be read or written, so that a round trip costs one send, one receive
 * and a share of one epoll_wait. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef NO_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#endif

#define READ_SIZE (256 * 1024)
#define MAX_EVENTS 512
#define PATIENCE 10000000000u   /* ns to wait for a first answer */
#define CHECK_EVERY 61      /* one answer in so many is compared byte by byte */
#define BUCKETS (64 * 16)

enum kind { KIND_TCP, KIND_UNIX, KIND_UDP };

typedef struct {
    int fd;
    bool readable;
    bool writable;
    bool check;         /* compare this answer with the message */
    size_t sent;
    size_t got;
    size_t expect;      /* bytes of the whole answer; 0: not known yet (HTTP) */
    uint64_t started;
    char head[1024];    /* start of an HTTP answer, until its length is known */
#ifndef NO_TLS
    SSL *ssl;
#endif
} conn_t;

static struct {
    enum kind kind;
    const char *host;
    const char *port;
    int connections;
    size_t size;
    double seconds;
    double warm_up;
    int in_flight;
    int cpu;
    bool line, tls, http, hold, wait;
} opt = {
    .connections = 1, .size = 1024, .seconds = 1.0, .warm_up = 0.1,
    .in_flight = 16, .cpu = -1,
};

static char *message;
static size_t message_len;
/* On a page of its own: several CPUs copy out of the kernel several times slower to an address
 * that is 1 to 31 bytes past a page's start. */
static _Alignas(4096) char read_buffer[READ_SIZE];

static uint64_t answers;    /* in the measured time */
static uint64_t total;      /* with the warm-up */
static uint64_t bytes;
static uint64_t histogram[BUCKETS];


static void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

static void
die(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("client: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}


static uint64_t
now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}


/* Latencies: 16 buckets to each power of two of nanoseconds (6% wide). */

static void
histogram_add(uint64_t ns)
{
    int top, index;

    if (ns < 16) {
        ns = 16;
    }
    top = 63 - __builtin_clzll(ns);
    index = top * 16 + (int)((ns >> (top - 4)) & 15);
    histogram[index]++;
}


static double
histogram_quantile(double q)
{
    uint64_t seen = 0, want = (uint64_t)(q * (double)answers);

    for (int i = 0; i < BUCKETS; i++) {
        seen += histogram[i];
        if (histogram[i] && seen >= want) {
            return (double)((uint64_t)(16 + i % 16) << (i / 16 - 4)) / 1e3;
        }
    }
    return 0.0;
}


/* Connecting ------------------------------------------------------------- */

#ifndef NO_TLS
static SSL_CTX *tls_context;

static void
tls_prepare(void)
{
    tls_context = SSL_CTX_new(TLS_client_method());
    if (tls_context == NULL) {
        die("no TLS context");
    }
    SSL_CTX_set_verify(tls_context, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_read_ahead(tls_context, 1);
    SSL_CTX_set_default_read_buffer_len(tls_context, 128 * 1024);
    SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE
                                  | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}


static void
tls_open(conn_t *c)
{
    c->ssl = SSL_new(tls_context);
    if (c->ssl == NULL || !SSL_set_fd(c->ssl, c->fd) || SSL_connect(c->ssl) != 1) {
        die("TLS handshake: %s", ERR_reason_error_string(ERR_peek_error()));
    }
}
#endif


static int
connect_one(void)
{
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_un un;
    } address;
    socklen_t length;
    int fd, one = 1;

    memset(&address, 0, sizeof(address));
    if (opt.kind == KIND_UNIX) {
        address.un.sun_family = AF_UNIX;
        if (strlen(opt.host) >= sizeof(address.un.sun_path)) {
            die("path too long: %s", opt.host);
        }
        strcpy(address.un.sun_path, opt.host);
        length = sizeof(address.un);
    }
    else {
        address.in.sin_family = AF_INET;
        address.in.sin_port = htons((uint16_t)atoi(opt.port));
        if (inet_pton(AF_INET, opt.host, &address.in.sin_addr) != 1) {
            die("not an IPv4 address: %s", opt.host);
        }
        length = sizeof(address.in);
    }
    fd = socket(address.any.sa_family, opt.kind == KIND_UDP ? SOCK_DGRAM : SOCK_STREAM, 0);
    if (fd < 0) {
        die("socket: %s", strerror(errno));
    }
    if (connect(fd, &address.any, length) < 0) {
        die("connect: %s", strerror(errno));
    }
    if (opt.kind == KIND_TCP) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    }
    return fd;
}


static void
set_nonblocking(int fd)
{
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0) {
        die("fcntl: %s", strerror(errno));
    }
}


/* Moving bytes: the count moved, or 0 where the socket has to be waited for. */

static size_t
conn_send(conn_t *c)
{
    ssize_t n;

#ifndef NO_TLS
    if (c->ssl != NULL) {
        n = SSL_write(c->ssl, message + c->sent, (int)(message_len - c->sent));
        if (n > 0) {
            return (size_t)n;
        }
        if (SSL_get_error(c->ssl, (int)n) != SSL_ERROR_WANT_WRITE) {
            die("TLS write failed after %zu bytes", c->sent);
        }
        c->writable = false;
        return 0;
    }
#endif
    n = send(c->fd, message + c->sent, message_len - c->sent, MSG_NOSIGNAL);
    if (n < 0) {
        if (errno != EAGAIN) {
            die("send: %s", strerror(errno));
        }
        c->writable = false;
        return 0;
    }
    if ((size_t)n < message_len - c->sent) {
        c->writable = false;
    }
    return (size_t)n;
}


static size_t
conn_receive(conn_t *c)
{
    size_t want = c->expect ? c->expect - c->got : sizeof(c->head) - c->got;
    ssize_t n;

    if (want > READ_SIZE) {
        want = READ_SIZE;
    }
#ifndef NO_TLS
    if (c->ssl != NULL) {
        n = SSL_read(c->ssl, read_buffer, (int)want);
        if (n > 0) {
            return (size_t)n;
        }
        if (SSL_get_error(c->ssl, (int)n) != SSL_ERROR_WANT_READ) {
            die("TLS read failed after %zu bytes", c->got);
        }
        c->readable = false;
        return 0;
    }
#endif
    n = recv(c->fd, read_buffer, want, 0);
    if (n < 0) {
        if (errno != EAGAIN) {
            die("recv: %s", strerror(errno));
        }
        c->readable = false;
        return 0;
    }
    if (n == 0) {
        die("the server closed the connection after %zu of %zu bytes", c->got, c->expect);
    }
    if ((size_t)n < want || c->got + (size_t)n == c->expect) {
        c->readable = false;
    }
    return (size_t)n;
}


/* The length of an HTTP answer: its head plus Content-Length; 0 if the head is
 * not complete yet. */
static size_t
http_length(conn_t *c)
{
    static const char key[] = "content-length:";
    const char *end = memmem(c->head, c->got, "\r\n\r\n", 4);

    if (end == NULL) {
        if (c->got == sizeof(c->head)) {
            die("HTTP head too long");
        }
        return 0;
    }
    if (c->got < 12 || memcmp(c->head + 8, " 200", 4) != 0) {
        die("HTTP answer is not 200: %.12s", c->head);
    }
    for (const char *p = c->head; p + sizeof(key) < end; p++) {
        if (strncasecmp(p, key, sizeof(key) - 1) == 0) {
            return (size_t)(end + 4 - c->head) + strtoul(p + sizeof(key) - 1, NULL, 10);
        }
    }
    die("HTTP answer without Content-Length");
}


static void
conn_took(conn_t *c, size_t n)
{
    if (opt.http && c->expect == 0) {
        memcpy(c->head + c->got, read_buffer, n);
        c->got += n;
        c->expect = http_length(c);
        if (c->expect != 0 && c->got == c->expect && !opt.tls) {
            c->readable = false;
        }
        return;
    }
    if (c->check && !opt.http && memcmp(message + c->got, read_buffer, n) != 0) {
        die("the echo differs from what was sent");
    }
    c->got += n;
}


static void
conn_pump(conn_t *c)
{
    size_t n;

    for (;;) {
        bool moved = false;

        while (c->writable && c->sent < message_len && (n = conn_send(c)) > 0) {
            c->sent += n;
            moved = true;
        }
        while (c->readable && (c->expect == 0 || c->got < c->expect)
               && (n = conn_receive(c)) > 0) {
            conn_took(c, n);
            moved = true;
        }
        if (c->expect != 0 && c->got == c->expect && c->sent == message_len) {
            uint64_t now = now_ns();

            answers++;
            total++;
            bytes += c->sent + c->got;
            histogram_add(now - c->started);
            c->started = now;
            c->check = total % CHECK_EVERY == 0;
            c->sent = c->got = 0;
            c->expect = opt.http ? 0 : message_len;
            continue;
        }
        if (!moved) {
            return;
        }
    }
}


/* UDP: one connected socket, a fixed number of datagrams in flight. */

static void
udp_send(int fd, int count)
{
    for (int i = 0; i < count; i++) {
        if (send(fd, message, message_len, 0) < 0 && errno != EAGAIN) {
            die("send: %s", strerror(errno));
        }
    }
}


static void
udp_pump(conn_t *c)
{
    ssize_t n;

    for (;;) {
        n = recv(c->fd, read_buffer, READ_SIZE, 0);
        if (n < 0) {
            if (errno == EAGAIN) {
                return;
            }
            die("recv: %s", strerror(errno));
        }
        if ((size_t)n != message_len) {
            die("a datagram of %zd bytes came back, not %zu", n, message_len);
        }
        answers++;
        total++;
        bytes += 2 * message_len;
        udp_send(c->fd, 1);
    }
}


/* Running ---------------------------------------------------------------- */

static void
report(double seconds)
{
    printf("{\"answers\": %llu, \"total\": %llu, \"seconds\": %.6f, \"per_second\": %.3f, "
           "\"bytes_per_second\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f}\n",
           (unsigned long long)answers, (unsigned long long)total, seconds,
           (double)answers / seconds, (double)bytes / seconds, histogram_quantile(0.5), histogram_quantile(0.99));
    fflush(stdout);
}


static void
run(conn_t *conns)
{
    struct epoll_event events[MAX_EVENTS];
    int epfd = epoll_create1(0), lost = 0;
    uint64_t begin = now_ns();
    uint64_t warm = begin + (uint64_t)(opt.warm_up * 1e9);
    uint64_t end = warm + (uint64_t)(opt.seconds * 1e9), now = begin;
    uint64_t answered = 0;
    bool counting = false;

    for (int i = 0; i < opt.connections; i++) {
        conn_t *c = &conns[i];
        struct epoll_event event = {
            .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c,
        };

        if (opt.kind == KIND_UDP) {
            event.events = EPOLLIN;
        }
        if (epoll_ctl(epfd, EPOLL_CTL_ADD, c->fd, &event) < 0) {
            die("epoll_ctl: %s", strerror(errno));
        }
        c->writable = c->check = true;
        c->started = begin;
        c->expect = opt.http ? 0 : message_len;
        if (opt.kind == KIND_UDP) {
            udp_send(c->fd, opt.in_flight);
        }
        else {
            conn_pump(c);
        }
    }
    while (now < end || (answers == 0 && now < end + PATIENCE)) {
        int n = epoll_wait(epfd, events, MAX_EVENTS, 200);

        for (int i = 0; i < n; i++) {
            conn_t *c = events[i].data.ptr;

            if (opt.kind == KIND_UDP) {
                udp_pump(c);
                continue;
            }
            c->readable |= (events[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
            c->writable |= (events[i].events & EPOLLOUT) != 0;
            conn_pump(c);
        }
        now = now_ns();
        if (!counting && now >= warm) {
            counting = true;
            warm = now;
            end = warm + (uint64_t)(opt.seconds * 1e9);
            answers = bytes = 0;
            memset(histogram, 0, sizeof(histogram));
        }
        if (n == 0 && opt.kind == KIND_UDP) {
            if (++lost > 10) {
                die("datagrams get lost");
            }
            udp_send(conns[0].fd, opt.in_flight);  /* datagrams may be lost: start again */
        }
        else if (n == 0 && answers == answered && now - begin > PATIENCE) {
            die("no answer for 200 ms, %.1f s after the start", (double)(now - begin) / 1e9);
        }
        answered = answers;
    }
    report((double)(now - warm) / 1e9);
    close(epfd);
}


/* All connections are open: say so and wait for one byte on stdin, or its end. */
static bool
wait_for_byte(void)
{
    char byte;

    puts("ready");
    fflush(stdout);
    return read(0, &byte, 1) > 0;
}


static void
usage(void)
{
    fputs("usage: client [options] tcp HOST PORT | unix PATH | udp HOST PORT\n"
          "  -c N    connections (1)\n"
          "  -s N    bytes in a message (1024)\n"
          "  -d S    measured seconds (1.0)\n"
          "  -w S    seconds of warm-up before (0.1)\n"
          "  -f N    datagrams in flight (16)\n"
          "  -a N    CPU to run on\n"
          "  -l      messages end with a newline\n"
          "  -t      TLS\n"
          "  -H      HTTP/1.1 GET; the answer's length is its Content-Length\n"
          "  -g      print 'ready' once connected, start with a line on stdin\n"
          "  -o      open the connections, print 'ready', hold them until stdin ends\n",
          stderr);
    exit(2);
}


static void
parse(int argc, char **argv)
{
    int c;

    while ((c = getopt(argc, argv, "c:s:d:w:f:a:ltHog")) != -1) {
        switch (c) {
        case 'c': opt.connections = atoi(optarg); break;
        case 's': opt.size = strtoul(optarg, NULL, 10); break;
        case 'd': opt.seconds = atof(optarg); break;
        case 'w': opt.warm_up = atof(optarg); break;
        case 'f': opt.in_flight = atoi(optarg); break;
        case 'a': opt.cpu = atoi(optarg); break;
        case 'l': opt.line = true; break;
        case 't': opt.tls = true; break;
        case 'H': opt.http = true; break;
        case 'o': opt.hold = true; break;
        case 'g': opt.wait = true; break;
        default: usage();
        }
    }
    argv += optind;
    argc -= optind;
    if (argc == 2 && strcmp(argv[0], "unix") == 0) {
        opt.kind = KIND_UNIX;
    }
    else if (argc == 3 && strcmp(argv[0], "tcp") == 0) {
        opt.kind = KIND_TCP;
    }
    else if (argc == 3 && strcmp(argv[0], "udp") == 0) {
        opt.kind = KIND_UDP;
        opt.connections = 1;
    }
    else {
        usage();
    }
    opt.host = argv[1];
    opt.port = argc == 3 ? argv[2] : NULL;
    if (opt.connections < 1 || opt.size < 1 || opt.seconds <= 0) {
        usage();
    }
}


static void
make_message(void)
{
    if (opt.http) {
        message = strdup("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n\r\n");
        message_len = strlen(message);
        return;
    }
    message = malloc(opt.size);
    message_len = opt.size;
    for (size_t i = 0; i < opt.size; i++) {
        message[i] = (char)('a' + i % 23);
    }
    if (opt.line) {
        message[opt.size - 1] = '\n';
    }
}


int
main(int argc, char **argv)
{
    struct rlimit files;
    conn_t *conns;

    parse(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    if (opt.cpu >= 0) {
        cpu_set_t set;

        CPU_ZERO(&set);
        CPU_SET(opt.cpu, &set);
        sched_setaffinity(0, sizeof(set), &set);
    }
    make_message();
    conns = calloc((size_t)opt.connections, sizeof(conn_t));
    if (conns == NULL || message == NULL) {
        die("out of memory");
    }
    if (opt.tls) {
#ifdef NO_TLS
        die("built without OpenSSL");
#else
        tls_prepare();
#endif
    }
    for (int i = 0; i < opt.connections; i++) {
        conns[i].fd = connect_one();
#ifndef NO_TLS
        if (opt.tls) {
            tls_open(&conns[i]);
        }
#endif
        set_nonblocking(conns[i].fd);
    }
    if (opt.hold) {
        while (wait_for_byte()) {
        }
        return 0;
    }
    if (opt.wait) {
        wait_for_byte();
    }
    run(conns);
    return 0;
}
