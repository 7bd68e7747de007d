/* The maps of friends.bpf.c, and what is in them. */
#pragma once
#include "counter.h"
#include "friends.h"
#include "socket.h"

#define SOCKETS_MAX 65536
#define SERVERS_MAX 4096
#define PORTS_MAX 64

/* User space writes it; src/friends/control.rs has the layout. */
struct control {
    u32 off;
    u32 ports_listed;
    u64 owner[38]; /* whose it is, for user space alone */
};
_Static_assert(sizeof(struct control) == 312, "src/friends/control.rs asserts the same");

struct {
    uint(type, MAP_TYPE_ARRAY);
    uint(max_entries, 1);
    type(key, u32);
    type(value, struct control);
} friends_control SEC(".maps");

/* Servers' ports whose connections may be friends, if they are listed. */
struct {
    uint(type, MAP_TYPE_HASH);
    uint(max_entries, PORTS_MAX);
    type(key, u16);
    type(value, u8);
} friends_ports SEC(".maps");

/* What an end's socket is called among friends' sockets. The name is hashed for each message, and shorter than the end. A socket may have several
 * connections, one after the other: what is sent to one mustn't come to the next. */
struct name {
    u64 cookie;
    u64 since_ns;
};

/* Friends' sockets. src/friends.rs counts by keys of as many bytes. */
struct {
    uint(type, MAP_TYPE_SOCKHASH);
    uint(max_entries, SOCKETS_MAX);
    type(key, struct name);
    type(value, u32);
} friends_sockets SEC(".maps");

/* What both ends of a connection see of each other. */
struct shared {
    struct tcp_sock BY_POINTER *tcp;
    struct name name;
    u64 bypassed; /* a byte has gone past TCP, or is about to */
    u64 leaving;  /* no byte may any more */
};

struct {
    uint(type, MAP_TYPE_HASH);
    uint(max_entries, SOCKETS_MAX);
    uint(map_flags, NO_PREALLOC);
    type(key, struct end);
    type(value, struct shared);
} friends_ends SEC(".maps");

/* What is known of a server, by the port it listens on. */
struct port {
    u64 namespace;
    u64 number;
};

struct {
    uint(type, MAP_TYPE_LRU_HASH);
    uint(max_entries, SERVERS_MAX);
    type(key, struct port);
    type(value, u32); /* enum waiting, of the connections that it has accepted */
} friends_servers SEC(".maps");

/* What a socket is to us. */
enum role { NOBODY, WITNESS, DIALLED, ACCEPTED };

/* Kept with each socket that matters to us: the direction from it to the other end. */
struct direction {
    struct end own;
    struct name name;
    struct name other; /* the other end's, and its socket, once they're known */
    struct tcp_sock BY_POINTER *tcp;
    u32 role;
    u8 is_bypassed; /* the last message went past TCP */
    u8 is_settled;  /* the first has: nobody leaves the map any more */
    u16 why;        /* the reason that was counted last in this stretch by TCP */
    u32 queued;     /* messages since the other end's queue was last seen empty */
    u32 skipped;    /* bytes that went past TCP, modulo 2^32 */
    u32 watched;    /* what the kernel was asked for on a witness's account alone */
};
_Static_assert(sizeof(struct direction) <= 128, "as much as fits the kernel's next size, with what it adds");

struct {
    uint(type, MAP_TYPE_SK_STORAGE);
    uint(map_flags, NO_PREALLOC);
    type(key, int);
    type(value, struct direction);
} friends_directions SEC(".maps");

COUNTERS(friends_counters, COUNTERS_MAX);
