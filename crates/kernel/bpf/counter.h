/* Counters: a map with a cell for each CPU, so that counting needs no lock. */
#pragma once
#include "kernel.h"

#define COUNTERS(name, number)               \
    struct {                                 \
        uint(type, MAP_TYPE_PERCPU_ARRAY);   \
        uint(max_entries, number);           \
        type(key, u32);                      \
        type(value, u64);                    \
    } name SEC(".maps")

static inline void count_many(void *counters, u32 which, u64 many)
{
    u64 *cell = map_lookup(counters, &which);
    if (cell)
        *cell += many;
}

static inline void count(void *counters, u32 which)
{
    count_many(counters, which, 1);
}
