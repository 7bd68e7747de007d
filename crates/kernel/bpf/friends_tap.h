/* The tap: what friends say to each other, copied to user space while somebody watches. docs/friends.md tells what comes of it. */
#pragma once
#include "context.h"
#include "friends_maps.h"
#include "socket.h"

#define TAP_RING_BYTES (4 << 20)
#define TAP_PORTS_MAX 16

/* Who watches, and until when. A watcher that is killed is forgotten soon: it has to say it anew every now and then.
 * src/friends/tap.rs has the layout. */
struct tap {
    u64 until_ns; /* 0: nobody */
    u64 lost;     /* records that found no room */
    u64 owner[2]; /* for user space alone */
    u64 ports_count; /* 0: all */
    u16 ports[TAP_PORTS_MAX];
};
_Static_assert(sizeof(struct tap) == 72, "src/friends/tap.rs asserts the same");

/* User space writes the first; of the second the program counts what is lost. */
enum { TAP_SWITCH, TAP_COUNTS, TAP_MAX };

struct {
    uint(type, MAP_TYPE_ARRAY);
    uint(max_entries, TAP_MAX);
    type(key, u32);
    type(value, struct tap);
} friends_tap SEC(".maps");

struct {
    uint(type, MAP_TYPE_RINGBUF);
    uint(max_entries, TAP_RING_BYTES);
} friends_tapped SEC(".maps");

/* What happened to a connection; src/friends/tap.rs has the numbers. */
enum tapped_what { TAP_DIALLED, TAP_ACCEPTED, TAP_BY_TCP, TAP_PAST_TCP, TAP_ENDED, TAP_RESET, TAP_LEFT };

/* A record begins so; the bytes follow. */
struct tapped {
    u64 at_ns;
    struct end end; /* whose doing it is */
    u32 place;      /* bytes of the direction before these, counted from anywhere */
    u32 what;
    u32 bytes;   /* that follow */
    u32 message; /* how long it is that begins here; 0 in what goes on */
};
_Static_assert(sizeof(struct tapped) == 72, "src/friends/tap.rs asserts the same");

/* The ring takes records of known sizes alone. A long message is told by several. */
#define TAP_SHORT (256 - sizeof(struct tapped))
#define TAP_MIDDLE (2048 - sizeof(struct tapped))
#define TAP_LONG (16384 - sizeof(struct tapped))
/* The longest message that the kernel makes is of 17 pieces of 32 KiB. */
#define TAP_PIECES_MAX 36

static inline struct tap *tap_of(u32 which)
{
    return map_lookup(&friends_tap, &which);
}

/* Whether somebody watches connections of this end; the time then, else 0. */
static inline u64 tap_watches(const struct end *end)
{
    struct tap *tap = tap_of(TAP_SWITCH);
    if (!tap || !tap->until_ns)
        return 0;
    u64 now_ns = ktime_ns();
    if (now_ns >= tap->until_ns)
        return 0;
    if (!tap->ports_count)
        return now_ns;
    for (u32 i = 0; i < TAP_PORTS_MAX; i++)
        if (i < tap->ports_count && (tap->ports[i] == end->local_port || tap->ports[i] == end->remote_port))
            return now_ns;
    return 0;
}

static inline void tap_lose(void)
{
    struct tap *tap = tap_of(TAP_COUNTS);
    if (tap)
        __sync_fetch_and_add(&tap->lost, 1);
}

/* Bytes of the direction so far, by both ways. */
static inline u32 tap_place(const struct direction *direction, u64 own)
{
    return PEEK(own, tcp_sock, write_seq) + direction->skipped;
}

/* Tells what happened beside bytes. */
static inline void tap_event(const struct direction *direction, u64 own, enum tapped_what what)
{
    u64 now_ns = tap_watches(&direction->own);
    if (!now_ns || !own)
        return;
    struct tapped *record = ring_reserve(&friends_tapped, sizeof(*record), 0);
    if (!record) {
        tap_lose();
        return;
    }
    record->at_ns = now_ns;
    record->end = direction->own;
    record->place = tap_place(direction, own);
    record->what = what;
    record->bytes = record->message = 0;
    ring_submit(record, 0);
}

/* Writes a piece of a message to a record that has room for `room` bytes. `head` is the same of each piece but for its place. */
#define TAP_PIECE(room, head, msg, size)                                                               \
    ({                                                                                                 \
        struct tapped *record = ring_reserve(&friends_tapped, sizeof(*record) + (room), 0);            \
        if (record) {                                                                                  \
            *record = *(head);                                                                         \
            record->bytes = (size);                                                                    \
            if (read_kernel(record + 1, (size), (void *)(msg)->data))                                  \
                record->bytes = 0;                                                                     \
            ring_submit(record, 0);                                                                    \
        }                                                                                              \
        record != 0;                                                                                   \
    })

/* What is told of a message, and the place of its next piece. */
struct tap_telling {
    struct sk_msg_md *msg;
    struct tapped *head;
    u32 size;
};

/* Tells a piece; 1 after the last. */
static long tap_piece(u32 number, struct tap_telling *telling)
{
    struct sk_msg_md *msg = telling->msg;
    struct tapped *head = telling->head;
    u64 start = number * TAP_LONG;
    if (start >= telling->size)
        return 1;
    u64 bytes = telling->size - start;
    if (bytes > TAP_LONG)
        bytes = TAP_LONG;
    /* What is compared below is what is copied, in one register: of two that are equal the verifier of Linux 7.2 bounds one alone. */
    asm volatile("" : "+r"(bytes));
    int told = 0;
    if (!msg_pull(msg, start, start + bytes, 0)) {
        if (bytes <= TAP_SHORT)
            told = TAP_PIECE(TAP_SHORT, head, msg, bytes);
        else if (bytes <= TAP_MIDDLE)
            told = TAP_PIECE(TAP_MIDDLE, head, msg, bytes);
        else
            told = TAP_PIECE(TAP_LONG, head, msg, bytes);
    }
    if (!told)
        tap_lose();
    head->place += bytes;
    head->message = 0;
    return 0;
}

/* Tells a message, piece by piece: the kernel shows what is in one piece of memory, and copies it together where it isn't. */
static inline void tap_message(struct sk_msg_md *msg, struct tapped *head)
{
    struct tap_telling telling = { .msg = msg, .head = head, .size = FIELD(msg, size) };
    head->message = telling.size;
    loop(TAP_PIECES_MAX, tap_piece, &telling, 0);
}
