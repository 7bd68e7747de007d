/* A token bucket in one word: the time, in nanoseconds, at which it is full again (the generic cell rate algorithm, ITU-T I.371,
 * "virtual scheduling"). All CPUs share a bucket without a lock. */
#pragma once
#include "kernel.h"

/* What a bucket holds. `depth_ns` is what the burst takes to refill; it is `interval_ns` or more. */
struct bound {
    u64 interval_ns;
    u64 depth_ns;
};
_Static_assert(sizeof(struct bound) == 16, "user space writes it");

/* Tries against other CPUs. Who loses them all is refused: so many come at once only in a flood. */
#define TAKE_TRIES 4

/* Whether there is a token to take, so far. */
static inline int bucket_has(const u64 *bucket, const struct bound *bound, u64 now_ns)
{
    u64 full_ns = *(const volatile u64 *)bucket;
    return full_ns <= now_ns || full_ns - now_ns + bound->interval_ns <= bound->depth_ns;
}

/* Takes a token; 0 if there was none. */
static inline int bucket_take(u64 *bucket, const struct bound *bound, u64 now_ns)
{
#pragma unroll
    for (int i = 0; i < TAKE_TRIES; i++) {
        u64 was_ns = *(volatile u64 *)bucket;
        u64 full_ns = (was_ns > now_ns ? was_ns : now_ns) + bound->interval_ns;
        if (full_ns - now_ns > bound->depth_ns)
            return 0;
        if (__sync_val_compare_and_swap(bucket, was_ns, full_ns) == was_ns)
            return 1;
    }
    return 0;
}
