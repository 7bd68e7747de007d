/* Finds the SYN in a packet. Only what begins a connection is looked at further: all else costs two short reads. */
#pragma once
#include "address.h"

/* EtherTypes (IEEE 802). */
enum { ETHERTYPE_IPV4 = 0x0800, ETHERTYPE_IPV6 = 0x86dd };

struct ipv4 { /* RFC 791, 3.1 */
    u8 version_length; /* the length in words of 4 bytes */
    u8 service;
    u16 bytes;
    u16 id;
    u16 fragment;
    u8 ttl;
    u8 protocol;
    u16 sum;
    u32 source;
    u32 destination;
};
_Static_assert(sizeof(struct ipv4) == 20, "RFC 791");

/* More fragments, or not the first one. */
#define IPV4_FRAGMENTED 0x3fff

struct ipv6 { /* RFC 8200, 3 */
    u32 version_class_flow;
    u16 payload_bytes;
    u8 next_header;
    u8 hops;
    struct address source;
    struct address destination;
};
_Static_assert(sizeof(struct ipv6) == 40, "RFC 8200");

struct tcp { /* RFC 9293, 3.1; the part that we need */
    u16 source;
    u16 destination;
    u32 seq;
    u32 ack;
    u8 offset;
    u8 flags;
    u16 window;
};
_Static_assert(sizeof(struct tcp) == 16, "RFC 9293");

enum { TCP_FIN = 0x01, TCP_SYN = 0x02, TCP_RST = 0x04, TCP_ACK = 0x10 };

/* One connection's beginning. Ports are in host order. */
struct syn {
    struct address client;
    struct address listener;
    u16 client_port;
    u16 listener_port;
    u32 seq;
};
_Static_assert(sizeof(struct syn) == 40, "a key has no padding");

/* Both headers of IPv4 or IPv6 and the part of TCP's that we need, with the longest IPv4 options. */
#define HEADERS_BYTES (14 + 60 + sizeof(struct tcp))
/* Offsets are counted from the network header: the device may have a link header or none. */
#define FROM_NETWORK_HEADER 1

/* Reads from the network header on; 0 if the packet ends before. A driver may have left the headers in a page: the kernel's IP
 * input would fetch them next, so we do. */
static inline int load(struct __sk_buff *skb, u32 offset, void *to, u32 bytes)
{
    if (skb_load_relative(skb, offset, to, bytes, FROM_NETWORK_HEADER) == 0)
        return 1;
    u32 want = skb->len < HEADERS_BYTES ? skb->len : HEADERS_BYTES;
    return skb_pull(skb, want) == 0 && skb_load_relative(skb, offset, to, bytes, FROM_NETWORK_HEADER) == 0;
}

/* Reads the addresses; the offset of the TCP header, or 0 if there is none or it isn't within reach: a fragment, an IPv6
 * extension header. */
static inline u32 load_ipv4(struct __sk_buff *skb, struct syn *syn)
{
    struct ipv4 ip;
    if (!load(skb, 0, &ip, sizeof(ip)) || ip.protocol != IPPROTO_TCP || ip.fragment & ntohs(IPV4_FRAGMENTED))
        return 0;
    u32 bytes = (ip.version_length & 0x0f) * 4;
    if (ip.version_length >> 4 != 4 || bytes < sizeof(ip))
        return 0;
    address_v4(&syn->client, ip.source);
    address_v4(&syn->listener, ip.destination);
    return bytes;
}

static inline u32 load_ipv6(struct __sk_buff *skb, struct syn *syn)
{
    struct ipv6 ip;
    if (!load(skb, 0, &ip, sizeof(ip)) || ip.next_header != IPPROTO_TCP || (ip.version_class_flow & 0xf0) != 0x60)
        return 0;
    syn->client = ip.source;
    syn->listener = ip.destination;
    return sizeof(ip);
}

/* Whether the packet is the first of a TCP connection; then `syn` says which. */
static inline int load_syn(struct __sk_buff *skb, struct syn *syn)
{
    u32 offset = 0;
    if (skb->protocol == ntohs(ETHERTYPE_IPV4))
        offset = load_ipv4(skb, syn);
    else if (skb->protocol == ntohs(ETHERTYPE_IPV6))
        offset = load_ipv6(skb, syn);
    struct tcp tcp;
    if (offset == 0 || !load(skb, offset, &tcp, sizeof(tcp)))
        return 0;
    if ((tcp.flags & (TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK)) != TCP_SYN)
        return 0;
    syn->client_port = ntohs(tcp.source);
    syn->listener_port = ntohs(tcp.destination);
    syn->seq = ntohl(tcp.seq);
    return 1;
}
