/* Reading the context of a program. */
#pragma once
#include "kernel.h"

/* Reads one field of the context, of 4 bytes. In C the compiler would join the reads of both sides or families into one from an
 * address that it computes, which the verifier refuses. */
#define FIELD(context, field)                                                                          \
    ({                                                                                                 \
        u32 value;                                                                                     \
        asm volatile("%0 = *(u32 *)(%1 + %2)"                                                          \
                     : "=r"(value)                                                                     \
                     : "r"(context), "i"(__builtin_offsetof(typeof(*(context)), field)));              \
        value;                                                                                         \
    })
