/* Opens the congestion window of the legs in a map, before their first byte. docs/kernel.md tells why and for whom. */
#include "address.h"
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
    struct address address;
    u16 port; /* host order */
    u8 side;
    u8 padding[5];
};
_Static_assert(sizeof(struct leg) == 32, "src/window/leg.rs asserts the same");

enum counter { OPENED, REFUSED, COUNTERS_MAX };

/* Segments that the window of a leg is opened to. */
struct {
    uint(type, MAP_TYPE_HASH);
    uint(max_entries, LEGS_MAX);
    type(key, struct leg);
    type(value, u32);
} window_segments SEC(".maps");

COUNTERS(window_counters, COUNTERS_MAX);

/* Reads one field of the context. In C the compiler would join the reads of both sides or families into one from an address that
 * it computes, which the verifier refuses. */
#define FIELD(context, field)                                                                          \
    ({                                                                                                 \
        u32 value;                                                                                     \
        asm volatile("%0 = *(u32 *)(%1 + %2)"                                                          \
                     : "=r"(value)                                                                     \
                     : "r"(context), "i"(__builtin_offsetof(struct bpf_sock_ops, field)));             \
        value;                                                                                         \
    })

static inline void leg_remote(struct bpf_sock_ops *ops, u32 family, struct leg *leg)
{
    leg->side = DIALLED;
    leg->port = ntohl(FIELD(ops, remote_port));
    if (family == AF_INET) {
        address_v4(&leg->address, FIELD(ops, remote_ip4));
        return;
    }
    leg->address.words[0] = FIELD(ops, remote_ip6[0]);
    leg->address.words[1] = FIELD(ops, remote_ip6[1]);
    leg->address.words[2] = FIELD(ops, remote_ip6[2]);
    leg->address.words[3] = FIELD(ops, remote_ip6[3]);
}

static inline void leg_local(struct bpf_sock_ops *ops, u32 family, struct leg *leg)
{
    leg->side = ACCEPTED;
    leg->port = FIELD(ops, local_port);
    if (family == AF_INET) {
        address_v4(&leg->address, FIELD(ops, local_ip4));
        return;
    }
    leg->address.words[0] = FIELD(ops, local_ip6[0]);
    leg->address.words[1] = FIELD(ops, local_ip6[1]);
    leg->address.words[2] = FIELD(ops, local_ip6[2]);
    leg->address.words[3] = FIELD(ops, local_ip6[3]);
}

/* The segments for a leg: its own, else those of the wildcard of its kind of address. */
static inline u32 *segments_of(struct leg *leg)
{
    u32 *segments = map_lookup(&window_segments, leg);
    if (segments)
        return segments;
    if (leg->address.words[0] == 0 && leg->address.words[1] == 0 && leg->address.words[2] == ntohl(0xffff))
        address_v4(&leg->address, 0);
    else
        __builtin_memset(&leg->address, 0, sizeof(leg->address));
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
