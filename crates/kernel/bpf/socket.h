/* What the kernel knows of a TCP socket beyond its stable interface: read by address, at the places that the running kernel's own
 * type information says (CO-RE). Each type here has the fields that we read and no other.
 *
 * An address may be of a socket that is gone. Then what is read is worthless and nothing worse: read_kernel never faults. Whoever
 * reads has to be right with any value. */
#pragma once
#include "kernel.h"

#define RELOCATED __attribute__((preserve_access_index))

struct rb_node;
struct rb_root {
    struct rb_node *rb_node;
} RELOCATED;
struct rb_root_cached {
    struct rb_root rb_root;
} RELOCATED;
struct address_space {
    struct rb_root_cached i_mmap;
} RELOCATED;
struct list_head {
    struct list_head *next;
} RELOCATED;
struct wait_queue_head {
    struct list_head head;
} RELOCATED;
struct wait_queue_entry {
    struct list_head entry;
} RELOCATED;
struct epoll_event {
    u32 events;
} RELOCATED;
struct epitem {
    struct epoll_event event;
} RELOCATED;
/* How an epoll instance waits for a file. */
struct eppoll_entry {
    struct epitem *base;
    struct wait_queue_entry wait;
    struct wait_queue_head *whead;
} RELOCATED;
struct file {
    struct address_space *f_mapping;
    u32 f_flags;
    void *f_owner; /* Linux 6.12; who is to get signals */
} RELOCATED;
struct socket_wq {
    struct wait_queue_head wait;
} RELOCATED;
struct socket {
    struct file *file;
    struct socket_wq wq; /* who waits for it */
} RELOCATED;
struct sock_common {
    unsigned long skc_flags;
    u8 skc_state;
} RELOCATED;
struct sk_backlog {
    struct {
        int counter;
    } rmem_alloc;
} RELOCATED;
struct sock {
    struct sock_common __sk_common;
    struct sk_backlog sk_backlog;
    int sk_rcvbuf;
    int sk_rcvlowat;
    int sk_peek_off;
    u32 sk_tsflags;
    int sk_err;
    unsigned long sk_max_pacing_rate;
    struct socket *sk_socket;
} RELOCATED;
struct inet_sock {
    struct sock sk;
} RELOCATED;
struct inet_connection_sock {
    struct inet_sock icsk_inet;
    void *icsk_ulp_ops;
} RELOCATED;
struct tcp_sock {
    struct inet_connection_sock inet_conn;
    u32 write_seq;
    u32 snd_una;
    u32 rcv_nxt;
    u32 copied_seq;
    u8 recvmsg_inq : 1;
} RELOCATED;

/* A pointer to a socket that is kept in a map, where the kernel knows its type: its fields, and those of what it points to, are read in place and
 * not by a call. They too read 0 where there's nothing (Linux 6.4, in the storage of sockets). */
#define BY_POINTER __attribute__((btf_type_tag("kptr_untrusted")))

/* What every socket has, of a TCP socket. */
#define SOCK(tcp) ((tcp)->inet_conn.icsk_inet.sk)

/* Numbers that the kernel may change; the values here are replaced. */
enum sock_flags { SOCK_URGINLINE = 9997, SOCK_RCVTSTAMP = 9998, SOCK_ZEROCOPY = 9999 };

enum { O_NONBLOCK = 04000 };
#define EPOLLET (1u << 31)
/* Who waits for a socket and is looked at; of one for which more wait it's taken that some wait for edges. */
#define WAITERS_MAX 4
enum { TCP_STATE_ESTABLISHED = 1, TCP_STATE_FIN_WAIT1 = 4, TCP_STATE_CLOSE = 7, TCP_STATE_CLOSE_WAIT = 8, TCP_STATE_LAST_ACK = 9 };

/* The field of `address`, which is a struct `kind`; 0 where it can't be read. The address is taken first: all that is written within
 * the builtin would be looked up among the kernel's types. */
#define PEEK(address, kind, field)                                                                     \
    ({                                                                                                 \
        struct kind *whole = (struct kind *)(address);                                                 \
        typeof(whole->field) value = 0;                                                                \
        read_kernel(&value, sizeof(value), __builtin_preserve_access_index(&whole->field));            \
        value;                                                                                         \
    })

/* A field of bits, whose width and place differ from kernel to kernel, of what a pointer leads to that the kernel knows the type of. The
 * numbers are clang's: the offset and width of the bytes, and how far to move them left and right. */
#define BITS(pointer, kind, field)                                                                     \
    ({                                                                                                 \
        const void *at = (const void *)(pointer) + __builtin_preserve_field_info(((struct kind *)0)->field, 0); \
        u64 value;                                                                                     \
        switch (__builtin_preserve_field_info(((struct kind *)0)->field, 1)) {                         \
        case 1:                                                                                        \
            value = *(const u8 *)at;                                                                   \
            break;                                                                                     \
        case 2:                                                                                        \
            value = *(const u16 *)at;                                                                  \
            break;                                                                                     \
        case 4:                                                                                        \
            value = *(const u32 *)at;                                                                  \
            break;                                                                                     \
        default:                                                                                       \
            value = *(const u64 *)at;                                                                  \
        }                                                                                              \
        value <<= __builtin_preserve_field_info(((struct kind *)0)->field, 4);                         \
        value >> __builtin_preserve_field_info(((struct kind *)0)->field, 5);                          \
    })

/* The bit of a flag of `enum sock_flags`; clang's number for an enumerator's value is 1. */
#define FLAG(name) (1ul << __builtin_preserve_enum_value(*(typeof(enum sock_flags) *)name, 1))

#define OFFSET(kind, field) __builtin_preserve_field_info(((struct kind *)0)->field, 0)

/* Whether an epoll instance waits for a socket by EPOLLET. Those who wait stand in the list that the kernel walks to wake them: so who sends has it
 * near, other than the file's own list of epoll instances, beside which each system call of a program with threads counts itself. What isn't
 * an epoll instance's doesn't lead back to the list's head, or to nothing that can be read. */
static inline int is_edge_triggered(const struct socket *socket)
{
    u64 head = (u64)socket + OFFSET(socket, wq.wait), end = head + OFFSET(wait_queue_head, head);
    u64 next = (u64)socket->wq.wait.head.next;
#pragma unroll
    for (int i = 0; i < WAITERS_MAX; i++) {
        if (next == end || !next)
            return 0;
        u8 entry[64];
        read_kernel(entry, sizeof(entry), (void *)(next - OFFSET(eppoll_entry, wait.entry)));
        if (*(u64 *)(entry + OFFSET(eppoll_entry, whead)) == head &&
            PEEK(*(u64 *)(entry + OFFSET(eppoll_entry, base)), epitem, event.events) & EPOLLET)
            return 1;
        next = *(u64 *)(entry + OFFSET(eppoll_entry, wait.entry.next));
    }
    return next != end;
}

/* How a program waits for a socket: in its calls, for its edges, or otherwise. */
enum waiting { NOT_ACCEPTED, WAITS_NOT, WAITS, WAITS_FOR_EDGES };

static inline enum waiting waiting_of(const struct tcp_sock *tcp)
{
    const struct socket *socket = tcp ? SOCK(tcp).sk_socket : 0;
    const struct file *file = socket ? socket->file : 0;
    if (!file)
        return NOT_ACCEPTED;
    if (!(file->f_flags & O_NONBLOCK))
        return WAITS;
    return is_edge_triggered(socket) ? WAITS_FOR_EDGES : WAITS_NOT;
}

/* Bytes that wait in a socket to be received, as the kernel charges them. */
static inline int unread(const struct tcp_sock *tcp)
{
    return SOCK(tcp).sk_backlog.rmem_alloc.counter;
}
