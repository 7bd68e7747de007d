/* What does it cost to be woken for whole messages only? See whole-messages.md.
 *
 *   cc -O2 -pthread -o /tmp/whole-messages docs/experiments/whole-messages.c
 *   /tmp/whole-messages plain|lowat-fixed|lowat|sockmap PIECES CONNECTIONS SECONDS     (sockmap as root)
 *
 * Messages of 62 bytes with a length of two bytes in front (DNS over TCP) come by loopback, each in PIECES writes.
 *   plain        epoll, recv what is there
 *   lowat-fixed  SO_RCVLOWAT of 14 bytes, the shortest message of DNS, set once
 *   lowat        SO_RCVLOWAT of what is missing, set whenever a message is cut
 *   sockmap      a BPF stream parser on a sockmap: the socket is readable once a message is whole
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/bpf.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { BODY = 60, MESSAGE = BODY + 2, CONNS_MAX = 4096, SHORTEST = 14 };

static int senders[CONNS_MAX], receivers[CONNS_MAX], conns, pieces;
static volatile int stop;

static void check(int good, const char *what) {
    if (!good) {
        perror(what);
        exit(1);
    }
}

static void pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    check(sched_setaffinity(0, sizeof set, &set) == 0, "pin");
}

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

/* CPU seconds of the whole machine that weren't idle. */
static double busy(void) {
    FILE *stat = fopen("/proc/stat", "r");
    unsigned long long t[8];
    check(stat && fscanf(stat, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", t, t + 1, t + 2, t + 3, t + 4, t + 5, t + 6, t + 7) == 8, "/proc/stat");
    fclose(stat);
    return (t[0] + t[1] + t[2] + t[5] + t[6]) / (double)sysconf(_SC_CLK_TCK);
}

static int load(int type, const struct bpf_insn *insns, unsigned count) {
    static char log[4096];
    union bpf_attr attr = {0};
    attr.prog_type = type;
    attr.insns = (uintptr_t)insns;
    attr.insn_cnt = count;
    attr.license = (uintptr_t)"GPL";
    attr.log_buf = (uintptr_t)log;
    attr.log_size = sizeof log;
    attr.log_level = 1;
    int fd = syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof attr);
    if (fd < 0) {
        fprintf(stderr, "%s\n", log);
    }
    check(fd >= 0, "load");
    return fd;
}

static int sockmap(void) {
    union bpf_attr map = {0};
    map.map_type = BPF_MAP_TYPE_SOCKMAP;
    map.key_size = map.value_size = 4;
    map.max_entries = CONNS_MAX;
    int fd = syscall(SYS_bpf, BPF_MAP_CREATE, &map, sizeof map);
    check(fd >= 0, "sockmap");
    const struct bpf_insn parser[] = {
        /* if (skb->len < 2) return 0; */
        {.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = 6, .src_reg = 1},
        {.code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = 2, .src_reg = 1, .off = offsetof(struct __sk_buff, len)},
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = 0},
        {.code = BPF_JMP | BPF_JLT | BPF_K, .dst_reg = 2, .off = 11, .imm = 2},
        /* if (bpf_skb_load_bytes(skb, 0, fp - 8, 2)) return 0; */
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 2, .imm = 0},
        {.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = 3, .src_reg = 10},
        {.code = BPF_ALU64 | BPF_ADD | BPF_K, .dst_reg = 3, .imm = -8},
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 4, .imm = 2},
        {.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_skb_load_bytes},
        {.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = 7, .src_reg = 0},
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = 0},
        {.code = BPF_JMP | BPF_JNE | BPF_K, .dst_reg = 7, .off = 3, .imm = 0},
        /* return 2 + ntohs(length); */
        {.code = BPF_LDX | BPF_MEM | BPF_H, .dst_reg = 0, .src_reg = 10, .off = -8},
        {.code = BPF_ALU | BPF_END | BPF_TO_BE, .dst_reg = 0, .imm = 16},
        {.code = BPF_ALU64 | BPF_ADD | BPF_K, .dst_reg = 0, .imm = 2},
        {.code = BPF_JMP | BPF_EXIT},
    };
    const struct bpf_insn verdict[] = {
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = SK_PASS},
        {.code = BPF_JMP | BPF_EXIT},
    };
    const int programs[] = {load(BPF_PROG_TYPE_SK_SKB, parser, 16), load(BPF_PROG_TYPE_SK_SKB, verdict, 2)};
    const int kinds[] = {BPF_SK_SKB_STREAM_PARSER, BPF_SK_SKB_STREAM_VERDICT};
    for (int at = 0; at < 2; at++) {
        union bpf_attr attach = {0};
        attach.target_fd = fd;
        attach.attach_bpf_fd = programs[at];
        attach.attach_type = kinds[at];
        check(syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof attach) == 0, "attach");
    }
    return fd;
}

static void add(int map, int key, int socket) {
    union bpf_attr attr = {0};
    attr.map_fd = map;
    attr.key = (uintptr_t)&key;
    attr.value = (uintptr_t)&socket;
    check(syscall(SYS_bpf, BPF_MAP_UPDATE_ELEM, &attr, sizeof attr) == 0, "add to the sockmap");
}

static void connect_all(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    const int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    check(bind(listener, (void *)&at, sizeof at) == 0 && listen(listener, CONNS_MAX) == 0, "listen");
    getsockname(listener, (void *)&at, &len);
    for (int conn = 0; conn < conns; conn++) {
        senders[conn] = socket(AF_INET, SOCK_STREAM, 0);
        check(connect(senders[conn], (void *)&at, sizeof at) == 0, "connect");
        setsockopt(senders[conn], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        receivers[conn] = accept4(listener, 0, 0, SOCK_NONBLOCK);
        check(receivers[conn] >= 0, "accept");
    }
    close(listener);
}

/* A piece of a message on each connection in turn, so that the rest of one comes after pieces of all others. */
static void *send_all(void *nothing) {
    pin(1);
    char message[MESSAGE] = {BODY >> 8, BODY & 255};
    while (!stop) {
        for (int piece = 0; piece < pieces; piece++) {
            const int from = MESSAGE * piece / pieces, to = MESSAGE * (piece + 1) / pieces;
            for (int conn = 0; conn < conns && !stop; conn++) {
                if (send(senders[conn], message + from, to - from, MSG_NOSIGNAL) < 0) {
                    return nothing;
                }
            }
        }
    }
    return nothing;
}

int main(int argc, char **argv) {
    check(argc == 5, "arguments");
    const char *mode = argv[1];
    const double length = atof(argv[4]);
    pieces = atoi(argv[2]);
    conns = atoi(argv[3]);
    check(pieces > 0 && pieces <= MESSAGE && conns > 0 && conns <= CONNS_MAX, "arguments");
    const int dynamic = !strcmp(mode, "lowat"), fixed = !strcmp(mode, "lowat-fixed"), parsed = !strcmp(mode, "sockmap");
    check(dynamic || fixed || parsed || !strcmp(mode, "plain"), "mode");
    connect_all();
    const int epoll = epoll_create1(0), map = parsed ? sockmap() : -1;
    static int held[CONNS_MAX], low[CONNS_MAX];
    for (int conn = 0; conn < conns; conn++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = conn};
        if (parsed) {
            add(map, conn, receivers[conn]);
        }
        if (fixed || dynamic) {
            low[conn] = SHORTEST;
            setsockopt(receivers[conn], SOL_SOCKET, SO_RCVLOWAT, &low[conn], sizeof(int));
        }
        epoll_ctl(epoll, EPOLL_CTL_ADD, receivers[conn], &event);
    }
    pin(0);
    pthread_t sender;
    pthread_create(&sender, 0, send_all, 0);
    usleep(100000);
    unsigned long messages = 0, wakes = 0, calls = 0, begun = 0;
    double since = 0, cpu = 0, machine = 0;
    struct epoll_event events[256];
    char buffer[4096];
    for (;;) {
        const double now = seconds(CLOCK_MONOTONIC);
        if (!begun) {
            begun = 1, messages = wakes = calls = 0;
            since = now, cpu = seconds(CLOCK_THREAD_CPUTIME_ID), machine = busy();
        } else if (now - since > length) {
            break;
        }
        const int count = epoll_wait(epoll, events, 256, 1000);
        calls++;
        for (int at = 0; at < count; at++) {
            const int conn = events[at].data.u32;
            const int got = recv(receivers[conn], buffer, sizeof buffer, 0);
            wakes++, calls++;
            if (got <= 0) {
                check(got < 0 && errno == EAGAIN, "recv");
                continue;
            }
            held[conn] += got;
            messages += held[conn] / MESSAGE;
            held[conn] %= MESSAGE;
            if (dynamic) {
                const int want = held[conn] ? MESSAGE - held[conn] : SHORTEST;
                if (want != low[conn]) {
                    low[conn] = want, calls++;
                    setsockopt(receivers[conn], SOL_SOCKET, SO_RCVLOWAT, &want, sizeof want);
                }
            }
        }
    }
    cpu = seconds(CLOCK_THREAD_CPUTIME_ID) - cpu, machine = busy() - machine;
    stop = 1;
    printf("%-12s pieces %d conns %4d: %8.0f messages/s, receiver %5.2f us/message, machine %5.2f us/message, %.2f wakes, %.2f calls\n", mode,
           pieces, conns, messages / length, cpu / messages * 1e6, machine / messages * 1e6, (double)wakes / messages, (double)calls / messages);
    fflush(stdout);
    _exit(0);
}
