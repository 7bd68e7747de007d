/* What our programs use of the kernel's stable BPF interface: types, numbers and helpers, and nothing of this host's headers, so
 * that the objects come out the same everywhere. The numbers are those of include/uapi/linux/bpf.h; the kernel never changes them. */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define inline inline __attribute__((always_inline))

/* Maps are described in BTF: a number is an array's length, a type is what a pointer leads to. */
#define uint(name, number) int(*name)[number]
#define type(name, what) what *name

enum map_type {
    MAP_TYPE_HASH = 1,
    MAP_TYPE_ARRAY = 2,
    MAP_TYPE_PERCPU_ARRAY = 6,
    MAP_TYPE_LRU_HASH = 9,
    MAP_TYPE_XSKMAP = 17,
    MAP_TYPE_SOCKHASH = 18,
    MAP_TYPE_SK_STORAGE = 24,
    MAP_TYPE_RINGBUF = 27,
};

/* Flags of map_update, and of a map that takes memory as it fills. */
enum { ANY = 0, NOEXIST = 1 };
enum { NO_PREALLOC = 1 };

enum { E2BIG = 7, EEXIST = 17 };
enum { AF_INET = 2, AF_INET6 = 10 };
enum { IPPROTO_TCP = 6, IPPROTO_UDP = 17 };

/* The first fields of the context of a tc program; the kernel rewrites reads of them. */
struct __sk_buff {
    u32 len;
    u32 pkt_type; /* 0: for this host */
    u32 mark;
    u32 queue_mapping;
    u32 protocol; /* the EtherType, in network order */
    u32 vlan_present;
    u32 vlan_tci;
    u32 vlan_proto;
    u32 priority;
    u32 ingress_ifindex;
    u32 ifindex;
};

/* The context of an XDP program. The first two are pointers, as the verifier sees them. */
struct xdp_md {
    u32 data;
    u32 data_end;
    u32 data_meta;
    u32 ingress_ifindex;
    u32 rx_queue_index;
};

/* What becomes of a frame. */
enum xdp_action { XDP_PASS = 2 };

/* A socket, as the verifier sees it; the first field. */
struct bpf_sock {
    u32 bound_dev_if; /* 0: to none */
};

/* The first fields of the context of a sock_ops program. */
struct bpf_sock_ops {
    u32 op;
    u32 args[4];
    u32 family;
    u32 remote_ip4; /* network order, as are all addresses */
    u32 local_ip4;
    u32 remote_ip6[4];
    u32 local_ip6[4];
    u32 remote_port; /* network order, in the upper half where the machine is little-endian */
    u32 local_port;  /* host order */
    u32 is_fullsock;
    u32 snd_cwnd;
    u32 srtt_us;
    u32 bpf_sock_ops_cb_flags;
    u32 state;
    u32 figures[19];
    u64 bytes[2];
    struct bpf_sock *sk;
};
_Static_assert(__builtin_offsetof(struct bpf_sock_ops, sk) == 184, "the kernel's place");

/* The context of an sk_msg program: what a socket is about to send. */
struct sk_msg_md {
    u64 data;
    u64 data_end;
    u32 family;
    u32 remote_ip4;
    u32 local_ip4;
    u32 remote_ip6[4];
    u32 local_ip6[4];
    u32 remote_port;
    u32 local_port;
    u32 size;
    struct bpf_sock *sk;
};
_Static_assert(__builtin_offsetof(struct sk_msg_md, sk) == 72, "the kernel's place");

/* What becomes of it. */
enum sk_action { SK_DROP, SK_PASS };

/* The question to fib_lookup, and its answer. */
struct bpf_fib_lookup {
    u8 family;
    u8 l4_protocol;
    u16 sport;
    u16 dport;
    u16 tot_len;
    u32 ifindex;
    u32 flowinfo; /* or the type of service */
    u8 source[16];
    u8 destination[16];
    u16 vlan_proto;
    u16 vlan_tci;
    u8 mac[12];
};
_Static_assert(sizeof(struct bpf_fib_lookup) == 64, "the kernel's size");

/* Helpers are called by their numbers. */
static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static long (*const map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*const map_delete)(void *map, const void *key) = (void *)3;
static u64 (*const ktime_ns)(void) = (void *)5;
static u32 (*const cpu_number)(void) = (void *)8;
static long (*const skb_pull)(struct __sk_buff *skb, u32 bytes) = (void *)39;
static u64 (*const socket_cookie)(void *context) = (void *)46;
static long (*const sock_ops_setsockopt)(struct bpf_sock_ops *ops, int level, int name, void *value, int bytes) = (void *)49;
static long (*const redirect_map)(void *map, u64 key, u64 otherwise) = (void *)51;
static long (*const sock_ops_watch)(struct bpf_sock_ops *ops, int flags) = (void *)59;
static long (*const msg_pull)(struct sk_msg_md *msg, u32 start, u32 end, u64 flags) = (void *)63;
static long (*const skb_load_relative)(const struct __sk_buff *skb, u32 offset, void *to, u32 bytes, u32 start) = (void *)68;
static long (*const fib_lookup)(void *context, struct bpf_fib_lookup *question, int bytes, u32 flags) = (void *)69;
static long (*const sock_hash_update)(struct bpf_sock_ops *ops, void *map, void *key, u64 flags) = (void *)70;
static long (*const msg_redirect)(struct sk_msg_md *msg, void *map, void *key, u64 flags) = (void *)71;
static void *(*const storage_of)(void *map, struct bpf_sock *sock, void *initial, u64 flags) = (void *)107;
static long (*const read_kernel)(void *to, u32 bytes, const void *from) = (void *)113;
static u64 (*const netns_cookie)(void *context) = (void *)122;
static void *(*const ring_reserve)(void *ring, u64 bytes, u64 flags) = (void *)131;
static void (*const ring_submit)(void *record, u64 flags) = (void *)132;
static void (*const ring_discard)(void *record, u64 flags) = (void *)133;
struct tcp_sock;
static struct tcp_sock *(*const tcp_sock_of)(void *sock) = (void *)137;

static long (*const loop)(u32 times, void *step, void *context, u64 flags) = (void *)181;

#define ntohs(number) __builtin_bswap16(number)
#define ntohl(number) __builtin_bswap32(number)
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the objects are built for little-endian machines"
#endif
