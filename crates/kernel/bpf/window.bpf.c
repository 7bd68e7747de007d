/* Opens the congestion window of the legs in a map, before their first byte. docs/kernel.md tells why and for whom. */
#include "context.h"
#include "counter.h"

#define LEGS_MAX 1024

/* When the kernel asks (linux/bpf.h, BPF_SOCK_OPS_*_ESTABLISHED_CB). */
enum { ACTIVE_ESTABLISHED = 4, PASSIVE_ESTABLISHED = 5 };
/* The option (linux/bpf.h, TCP_BPF_IW). */
enum { SOL_TCP = 6, TCP_BPF_IW = 1001 };

/* The side that we have of a connection. */
enum side { DIALLED, ACCEPTED };

/* Which connections: by the remote address where we dialled, by the listener's where we accepted. An unspecified address is a
 * wildcard. A cgroup may span network namespaces, in which the same address is another's: so the namespace belongs to it.
 * src/window/leg.rs writes it. */
struct leg {
    u64 namespace; /* its cookie */
    u64 address[2];
    u64 end; /* two bytes of port in host order, one of side, five of padding */
};
_Static_assert(sizeof(struct leg) == 32, "src/window/leg.rs asserts the same");

/* A leg is written in whole words of 8 bytes: where the loader lacks CAP_PERFMON, Linux 6.1 refuses to let a part of a word on the
 * stack be changed that holds a value which the verifier follows. */
static inline u64 end_of(u16 port, enum side side)
{
    return port | (u64)side << 16;
}

static inline u64 pair(u32 first, u32 second)
{
    return first | (u64)second << 32;
}

/* The third word of an IPv4 address, as a mapped one (RFC 4291, 2.5.5.2). */
#define MAPPED ntohl(0xffff)

enum counter { OPENED, REFUSED, COUNTERS_MAX };

/* Segments that the window of a leg is opened to. */
struct {
    uint(type, MAP_TYPE_HASH);
    uint(max_entries, LEGS_MAX);
    type(key, struct leg);
    type(value, u32);
} window_segments SEC(".maps");

COUNTERS(window_counters, COUNTERS_MAX);

static inline void leg_remote(struct bpf_sock_ops *ops, u32 family, struct leg *leg)
{
    leg->end = end_of(ntohl(FIELD(ops, remote_port)), DIALLED);
    if (family == AF_INET) {
        leg->address[1] = pair(MAPPED, FIELD(ops, remote_ip4));
        return;
    }
    leg->address[0] = pair(FIELD(ops, remote_ip6[0]), FIELD(ops, remote_ip6[1]));
    leg->address[1] = pair(FIELD(ops, remote_ip6[2]), FIELD(ops, remote_ip6[3]));
}

static inline void leg_local(struct bpf_sock_ops *ops, u32 family, struct leg *leg)
{
    leg->end = end_of(FIELD(ops, local_port), ACCEPTED);
    if (family == AF_INET) {
        leg->address[1] = pair(MAPPED, FIELD(ops, local_ip4));
        return;
    }
    leg->address[0] = pair(FIELD(ops, local_ip6[0]), FIELD(ops, local_ip6[1]));
    leg->address[1] = pair(FIELD(ops, local_ip6[2]), FIELD(ops, local_ip6[3]));
}

/* The segments for a leg: its own, else those of the wildcard of its kind of address. */
static inline u32 *segments_of(struct leg *leg)
{
    u32 *segments = map_lookup(&window_segments, leg);
    if (segments)
        return segments;
    int is_mapped = leg->address[0] == 0 && (u32)leg->address[1] == MAPPED;
    leg->address[0] = 0;
    leg->address[1] = is_mapped ? MAPPED : 0;
    return map_lookup(&window_segments, leg);
}

SEC("sockops")
int midmile_window(struct bpf_sock_ops *ops)
{
    u32 op = FIELD(ops, op);
    u32 family = FIELD(ops, family);
    struct leg leg = { .namespace = 0 };
    if (family != AF_INET && family != AF_INET6)
        return 1;
    if (op == ACTIVE_ESTABLISHED)
        leg_remote(ops, family, &leg);
    else if (op == PASSIVE_ESTABLISHED)
        leg_local(ops, family, &leg);
    else
        return 1;
    leg.namespace = netns_cookie(ops);
    u32 *found = segments_of(&leg);
    if (found) {
        int segments = *found;
        long refused = sock_ops_setsockopt(ops, SOL_TCP, TCP_BPF_IW, &segments, sizeof(segments));
        count(&window_counters, refused ? REFUSED : OPENED);
    }
    return 1;
}

char _license[] SEC("license") = "Dual MIT/GPL";
