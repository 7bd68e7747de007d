/* Announces clients' SYNs to user space, before the handshake ends. docs/kernel.md tells why and within which bounds. */
#include "bucket.h"
#include "counter.h"
#include "packet.h"

/* The next classifier is asked: we only look (linux/pkt_cls.h, TC_ACT_UNSPEC; TCX_NEXT has the same value). */
#define PASS (-1)

/* Listeners, connections and sources that are remembered, and bytes for events that wait. */
#define LISTENERS_MAX 1024
#define SEEN_MAX 65536
#define SOURCES_MAX 65536
#define RING_BYTES (256 * 1024)

/* What user space hears of one connection; src/syn/event.rs reads it. Addresses are in network order, all else in host order. */
struct event {
    u64 at_ns; /* CLOCK_MONOTONIC */
    struct syn syn;
    u32 cpu;
    u32 device;
};
_Static_assert(sizeof(struct event) == 56, "src/syn/event.rs asserts the same");
_Static_assert(__builtin_offsetof(struct event, syn.client_port) == 40, "src/syn/event.rs asserts the same");
_Static_assert(__builtin_offsetof(struct event, cpu) == 48, "src/syn/event.rs asserts the same");

/* What user space says; src/syn/config.rs writes it as words of 8 bytes. */
struct config {
    u64 enabled;
    u64 transparent; /* a wildcard listener also takes connections to addresses that aren't this host's */
    struct bound source;
    struct bound all;
};
_Static_assert(sizeof(struct config) == 48, "src/syn/config.rs asserts the same");

/* The key of a listener: unspecified addresses are wildcards. */
struct listener {
    struct address address;
    u16 port;
    u16 padding;
};
_Static_assert(sizeof(struct listener) == 20, "src/syn/config.rs asserts the same");

enum counter { ANNOUNCED, RETRANSMITTED, OVER_SOURCE, OVER_ALL, RING_FULL, TABLE_FULL, COUNTERS_MAX };

struct {
    uint(type, MAP_TYPE_ARRAY);
    uint(max_entries, 1);
    type(key, u32);
    type(value, struct config);
} syn_config SEC(".maps");

struct {
    uint(type, MAP_TYPE_HASH);
    uint(max_entries, LISTENERS_MAX);
    type(key, struct listener);
    type(value, u32);
} syn_listeners SEC(".maps");

/* Connections that were announced. The initial sequence number tells a retransmitted SYN from a new connection. */
struct {
    uint(type, MAP_TYPE_LRU_HASH);
    uint(max_entries, SEEN_MAX);
    type(key, struct syn);
    type(value, u64);
} syn_seen SEC(".maps");

/* A bucket for each source prefix, and one for all. A source that is forgotten begins anew, so these alone don't hold a flood from
 * many prefixes: the one bucket does. */
struct {
    uint(type, MAP_TYPE_LRU_HASH);
    uint(max_entries, SOURCES_MAX);
    type(key, struct address);
    type(value, u64);
} syn_sources SEC(".maps");

struct {
    uint(type, MAP_TYPE_ARRAY);
    uint(max_entries, 1);
    type(key, u32);
    type(value, u64);
} syn_all SEC(".maps");

struct {
    uint(type, MAP_TYPE_RINGBUF);
    uint(max_entries, RING_BYTES);
} syn_events SEC(".maps");

COUNTERS(syn_counters, COUNTERS_MAX);

/* Whether the packet is for this host: a router forwards SYNs to ports that its wildcard listeners have, too. What can't be
 * forwarded is taken for ours. */
static inline int is_local(struct __sk_buff *skb, const struct syn *syn)
{
    enum { NOT_FORWARDED = 4, FORWARDING_DISABLED = 5 };
    struct bpf_fib_lookup question = { .l4_protocol = IPPROTO_TCP, .ifindex = skb->ifindex };
    if (skb->protocol == ntohs(ETHERTYPE_IPV4)) {
        question.family = AF_INET;
        __builtin_memcpy(question.source, &syn->client.words[3], 4);
        __builtin_memcpy(question.destination, &syn->listener.words[3], 4);
    } else {
        question.family = AF_INET6;
        __builtin_memcpy(question.source, &syn->client, 16);
        __builtin_memcpy(question.destination, &syn->listener, 16);
    }
    long answer = fib_lookup(skb, &question, sizeof(question), 0);
    return answer == NOT_FORWARDED || answer == FORWARDING_DISABLED;
}

static inline int is_listened_to(struct __sk_buff *skb, const struct syn *syn, const struct config *config)
{
    struct listener key = { .address = syn->listener, .port = syn->listener_port };
    if (map_lookup(&syn_listeners, &key))
        return 1;
    /* A listener on [::] takes IPv4 as well, unless it is told otherwise; user space puts in both wildcards where it does. */
    if (skb->protocol == ntohs(ETHERTYPE_IPV4))
        address_v4(&key.address, 0);
    else
        __builtin_memset(&key.address, 0, sizeof(key.address));
    return map_lookup(&syn_listeners, &key) && (config->transparent || is_local(skb, syn));
}

/* The source's prefix: /24 of IPv4, /48 of IPv6. */
static inline void prefix_of(const struct __sk_buff *skb, const struct syn *syn, struct address *prefix)
{
    *prefix = syn->client;
    if (skb->protocol == ntohs(ETHERTYPE_IPV4)) {
        prefix->words[3] &= ntohl(0xffffff00);
    } else {
        prefix->words[1] &= ntohl(0xffff0000);
        prefix->words[2] = 0;
        prefix->words[3] = 0;
    }
}

static inline int source_take(const struct address *prefix, const struct bound *bound, u64 now_ns)
{
    u64 *bucket = map_lookup(&syn_sources, prefix);
    if (!bucket) {
        u64 full = 0;
        /* It fails where another CPU was first. */
        map_update(&syn_sources, prefix, &full, NOEXIST);
        bucket = map_lookup(&syn_sources, prefix);
    }
    return bucket && bucket_take(bucket, bound, now_ns);
}

/* Whether the bounds let it through. The source pays first, so that one source can't use up what is for all. But in a flood from
 * everywhere the bucket of all is empty, and no source needs to be remembered. */
static inline int is_within_bounds(const struct __sk_buff *skb, const struct syn *syn, const struct config *config, u64 now_ns)
{
    u32 only = 0;
    u64 *all = map_lookup(&syn_all, &only);
    if (!all || !bucket_has(all, &config->all, now_ns)) {
        count(&syn_counters, OVER_ALL);
        return 0;
    }
    struct address prefix;
    prefix_of(skb, syn, &prefix);
    if (!source_take(&prefix, &config->source, now_ns)) {
        count(&syn_counters, OVER_SOURCE);
        return 0;
    }
    if (!bucket_take(all, &config->all, now_ns)) {
        count(&syn_counters, OVER_ALL);
        return 0;
    }
    return 1;
}

/* Room in the ring comes first, then the mark: a SYN that found no room may be announced when it is sent again. */
static inline void announce(const struct __sk_buff *skb, const struct syn *syn, u64 now_ns)
{
    struct event *event = ring_reserve(&syn_events, sizeof(*event), 0);
    if (!event) {
        count(&syn_counters, RING_FULL);
        return;
    }
    long marked = map_update(&syn_seen, syn, &now_ns, NOEXIST);
    if (marked != 0) {
        ring_discard(event, 0);
        count(&syn_counters, marked == -EEXIST ? RETRANSMITTED : TABLE_FULL);
        return;
    }
    event->at_ns = now_ns;
    event->syn = *syn;
    event->cpu = cpu_number();
    event->device = skb->ifindex;
    ring_submit(event, 0);
    count(&syn_counters, ANNOUNCED);
}

SEC("classifier")
int midmile_syn(struct __sk_buff *skb)
{
    u32 only = 0;
    const struct config *config = map_lookup(&syn_config, &only);
    if (!config || !config->enabled || skb->pkt_type != 0)
        return PASS;
    struct syn syn;
    if (!load_syn(skb, &syn) || !is_listened_to(skb, &syn, config))
        return PASS;
    if (map_lookup(&syn_seen, &syn)) {
        count(&syn_counters, RETRANSMITTED);
        return PASS;
    }
    u64 now_ns = ktime_ns();
    if (is_within_bounds(skb, &syn, config, now_ns))
        announce(skb, &syn, now_ns);
    return PASS;
}

/* fib_lookup is for programs under a licence that the GPL is compatible with. */
char _license[] SEC("license") = "Dual MIT/GPL";
