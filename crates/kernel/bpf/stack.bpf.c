/* Hands packets for chosen addresses and ports to AF_XDP sockets, and nothing else: all other frames go on to the kernel, ARP, neighbour
 * discovery and fragments among them. docs/user-stack.md tells what for. */
#include "counter.h"
#include "packet.h"

/* Addresses whose packets are taken at most, and receive queues that may have a socket. */
#define ADDRESSES_MAX 256
#define QUEUES_MAX 256
/* Ports of TCP and then those of UDP, a bit each; src/redirect.rs writes them as words of 8 bytes. */
#define PORTS 65536
#define PORT_WORDS (2 * PORTS / 64)

enum counter { TAKEN, ASTRAY, COUNTERS_MAX };

struct {
    uint(type, MAP_TYPE_ARRAY);
    uint(max_entries, PORT_WORDS);
    type(key, u32);
    type(value, u64);
} stack_ports SEC(".maps");

struct {
    uint(type, MAP_TYPE_HASH);
    uint(max_entries, ADDRESSES_MAX);
    type(key, struct address);
    type(value, u32);
} stack_addresses SEC(".maps");

/* The socket of each receive queue. A packet that comes by a queue without one goes on to the kernel. */
struct {
    uint(type, MAP_TYPE_XSKMAP);
    uint(max_entries, QUEUES_MAX);
    type(key, u32);
    type(value, u32);
} stack_sockets SEC(".maps");

COUNTERS(stack_counters, COUNTERS_MAX);

struct ethernet { /* IEEE 802.3, 3.1.1 */
    u8 destination[6];
    u8 source[6];
    u16 type;
};
_Static_assert(sizeof(struct ethernet) == 14, "IEEE 802.3");

/* The part that TCP and UDP have in common. */
struct ports {
    u16 source;
    u16 destination;
};

static inline int is_port_taken(u8 protocol, u16 port)
{
    if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
        return 0;
    u32 bit = port + (protocol == IPPROTO_UDP ? PORTS : 0);
    u32 word = bit / 64;
    const u64 *ports = map_lookup(&stack_ports, &word);
    return ports && *ports >> bit % 64 & 1;
}

SEC("xdp")
int midmile_stack(struct xdp_md *context)
{
    const char *at = (const char *)(u64)context->data;
    const char *end = (const char *)(u64)context->data_end;
    const struct ethernet *ethernet = (const void *)at;
    if (at + sizeof(*ethernet) > end)
        return XDP_PASS;
    at += sizeof(*ethernet);

    struct address to;
    u8 protocol;
    if (ethernet->type == ntohs(ETHERTYPE_IPV4)) {
        const struct ipv4 *ip = (const void *)at;
        if (at + sizeof(*ip) > end || ip->fragment & ntohs(IPV4_FRAGMENTED))
            return XDP_PASS;
        u32 bytes = (ip->version_length & 0x0f) * 4;
        if (ip->version_length >> 4 != 4 || bytes < sizeof(*ip))
            return XDP_PASS;
        protocol = ip->protocol;
        address_v4(&to, ip->destination);
        at += bytes;
    } else if (ethernet->type == ntohs(ETHERTYPE_IPV6)) {
        const struct ipv6 *ip = (const void *)at;
        if (at + sizeof(*ip) > end || (ip->version_class_flow & 0xf0) != 0x60)
            return XDP_PASS;
        protocol = ip->next_header;
        to = ip->destination;
        at += sizeof(*ip);
    } else {
        return XDP_PASS;
    }

    const struct ports *ports = (const void *)at;
    if (at + sizeof(*ports) > end || !is_port_taken(protocol, ntohs(ports->destination)))
        return XDP_PASS;
    if (!map_lookup(&stack_addresses, &to))
        return XDP_PASS;
    u32 queue = context->rx_queue_index;
    if (!map_lookup(&stack_sockets, &queue)) {
        count(&stack_counters, ASTRAY);
        return XDP_PASS;
    }
    count(&stack_counters, TAKEN);
    return redirect_map(&stack_sockets, queue, XDP_PASS);
}

char _license[] SEC("license") = "Dual MIT/GPL";
