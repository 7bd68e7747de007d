/* The words of friends.bpf.c: which end, which reason. crates/kernel/src/friends.rs has the same numbers. */
#pragma once
#include "address.h"

/* One end of a connection. IPv4 addresses are mapped ones. A cgroup may span network namespaces, in which the same addresses are
 * another connection's: so the namespace belongs to it. */
struct end {
    u64 namespace; /* its cookie */
    struct address local;
    struct address remote;
    u16 local_port; /* host order, as the other */
    u16 remote_port;
    u32 padding;
};
_Static_assert(sizeof(struct end) == 48, "no hole is a part of a key");

/* The end at the other side. */
static inline void turn(const struct end *end, struct end *other)
{
    other->namespace = end->namespace;
    other->local = end->remote;
    other->remote = end->local;
    other->local_port = end->remote_port;
    other->remote_port = end->local_port;
    other->padding = 0;
}

/* What is counted. The first are figures, then come reasons: why a connection isn't made friends (each once for a connection), and
 * why a direction goes by TCP (each once a stretch by TCP; the same direction may come back). */
enum counter {
    FRIENDS,  /* ends of connections made friends */
    MESSAGES, /* sent past TCP */
    BYTES,
    RETURNS, /* of directions, from TCP */

    NO_OFF,      /* switched off */
    NO_PORT,     /* its port isn't listed */
    NO_DEVICE,   /* bound to a device */
    NO_BLOCKING, /* the end that dialled waits in its calls */
    NO_EDGES,    /* the end that dialled waits for edges */
    NO_UNKNOWN,  /* not known yet how the server waits for its connections */
    NO_SERVER,   /* the server waits in its calls */
    NO_SERVER_EDGES, /* the server waits for edges */
    NO_ROOM,     /* as many friends as there may be */
    NO_KERNEL,   /* the kernel refused, as when another program has the socket in a map */
    NO_LONGER,   /* an end was found to wait so before the first byte went past TCP */

    TCP_OFF,        /* switched off */
    TCP_ALONE,      /* the other end is no friend */
    TCP_UNACCEPTED, /* nobody has accepted the other end yet */
    TCP_BLOCKING,   /* an end waits in its calls */
    TCP_EDGES,      /* the other end waits for edges */
    TCP_FULL,       /* its receive buffer is full */
    TCP_MESSAGES,   /* as many messages wait there as may */
    TCP_LOW_WATER,  /* SO_RCVLOWAT */
    TCP_TIMESTAMPS, /* SO_TIMESTAMP, SO_TIMESTAMPING at either end */
    TCP_INQ,        /* TCP_INQ */
    TCP_PEEK_OFF,   /* SO_PEEK_OFF */
    TCP_URGENT,     /* the other end is ready for urgent data: SO_OOBINLINE, F_SETOWN */
    TCP_ZEROCOPY,   /* SO_ZEROCOPY here, or the other end's socket is mapped */
    TCP_LAYER,      /* a protocol above TCP in the kernel at either end, such as TLS */
    TCP_GONE,       /* the other end closes */
    TCP_ENDED,      /* this end is shut down: the send fails, as TCP alone says */
    TCP_PACED,      /* SO_MAX_PACING_RATE here */

    COUNTERS_MAX,
    TCP_BEHIND = COUNTERS_MAX, /* not counted: the other end hasn't read all that came by TCP */
    BYPASS,                    /* not counted: nothing speaks against it */
};
