/* Addresses: 16 bytes in network order, an IPv4 address as a mapped one (RFC 4291, 2.5.5.2). */
#pragma once
#include "kernel.h"

struct address {
    u32 words[4];
};

static inline void address_v4(struct address *to, u32 v4)
{
    to->words[0] = 0;
    to->words[1] = 0;
    to->words[2] = ntohl(0xffff);
    to->words[3] = v4;
}
