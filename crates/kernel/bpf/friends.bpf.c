/* Friends: what one end of a connection within this host sends is put straight into the other end's queue, and the connection's
 * handshake, end and reset stay TCP's. docs/friends.md tells for whom, and how a connection comes to it and goes back.
 *
 * Three rules keep the bytes in order and none lost:
 *
 *  1. A direction turns from TCP only when the other end has read everything that came by TCP. From then on nothing is on its way
 *     but what we queue.
 *  2. It may turn to TCP at any message: the kernel's receive looks at our queue first, so TCP's bytes come after ours.
 *  3. Nobody is taken out of the map of sockets once a byte has gone past TCP, for the kernel would throw away what is unread. */
#include "context.h"
#include "friends_maps.h"
#include "friends_tap.h"
#include "socket.h"

/* A queued message costs about 1 KiB of the kernel's memory, however short it is; the receive buffer counts its bytes alone. */
#define QUEUED_MAX 1024

/* When the kernel calls (linux/bpf.h, BPF_SOCK_OPS_*_CB), and what has to be asked for. */
enum { ACTIVE_ESTABLISHED = 4, PASSIVE_ESTABLISHED = 5, STATE_CHANGED = 10, LISTENING = 11, ROUND_TRIP = 12 };
enum { WATCH_ROUND_TRIPS = 8, WATCH_STATE = 4 };
enum { STORAGE_CREATE = 1, REDIRECT_INGRESS = 1 };

static inline struct control *control(void)
{
    u32 only = 0;
    return map_lookup(&friends_control, &only);
}

static inline int is_off(void)
{
    struct control *found = control();
    return !found || found->off;
}

/* ---- who becomes friends: called by the kernel's TCP ---- */

static inline int is_loopback(u32 v4)
{
    return (v4 & ntohl(0xff000000)) == ntohl(0x7f000000);
}

/* Reads which end it is; 0 unless both ends are on this host for certain: two addresses of 127.0.0.0/8, or the same address twice,
 * which no packet from elsewhere has (RFC 1122, 3.2.1.3). A link-local address may be on two links. */
static inline int load_end(struct bpf_sock_ops *ops, struct end *end)
{
    u32 family = FIELD(ops, family);
    if (family == AF_INET) {
        u32 local = FIELD(ops, local_ip4), remote = FIELD(ops, remote_ip4);
        if (local != remote && !(is_loopback(local) && is_loopback(remote)))
            return 0;
        address_v4(&end->local, local);
        address_v4(&end->remote, remote);
    } else if (family == AF_INET6) {
        struct address local = { { FIELD(ops, local_ip6[0]), FIELD(ops, local_ip6[1]), FIELD(ops, local_ip6[2]),
                                   FIELD(ops, local_ip6[3]) } };
        struct address remote = { { FIELD(ops, remote_ip6[0]), FIELD(ops, remote_ip6[1]), FIELD(ops, remote_ip6[2]),
                                    FIELD(ops, remote_ip6[3]) } };
        int is_mapped = local.words[0] == 0 && local.words[1] == 0 && local.words[2] == ntohl(0xffff);
        int is_same = local.words[0] == remote.words[0] && local.words[1] == remote.words[1] &&
                      local.words[2] == remote.words[2] && local.words[3] == remote.words[3];
        if (!is_same && !(is_mapped && is_loopback(local.words[3]) && is_loopback(remote.words[3])))
            return 0;
        if ((local.words[0] & ntohl(0xffc00000)) == ntohl(0xfe800000))
            return 0;
        end->local = local;
        end->remote = remote;
    } else {
        return 0;
    }
    end->namespace = netns_cookie(ops);
    end->local_port = FIELD(ops, local_port);
    end->remote_port = ntohl(FIELD(ops, remote_port));
    end->padding = 0;
    return 1;
}

static inline struct direction *direction_of(struct bpf_sock_ops *ops, u64 flags)
{
    struct bpf_sock *sock = ops->sk;
    return sock ? storage_of(&friends_directions, sock, 0, flags) : 0;
}

/* What the other end of a direction shows. */
static inline struct shared *other_of(const struct direction *direction)
{
    struct end turned;
    turn(&direction->own, &turned);
    return map_lookup(&friends_ends, &turned);
}

static inline struct tcp_sock *tcp_of(struct bpf_sock_ops *ops)
{
    struct bpf_sock *sock = ops->sk;
    return sock ? tcp_sock_of(sock) : 0;
}

static inline u64 sock_of(struct bpf_sock_ops *ops)
{
    return (u64)tcp_of(ops);
}

/* The kernel is to call for this socket from now on. Answers what wasn't asked for before: other programs may have asked as well. */
static inline u32 watch(struct bpf_sock_ops *ops, u32 what)
{
    u32 asked = FIELD(ops, bpf_sock_ops_cb_flags);
    sock_ops_watch(ops, asked | what);
    return what & ~asked;
}

/* A server begins to listen: whatever was known of its port is over. */
static inline void note_listener(struct bpf_sock_ops *ops)
{
    struct port port = { .namespace = netns_cookie(ops), .number = FIELD(ops, local_port) };
    map_delete(&friends_servers, &port);
}

/* Remembers how a server was seen to wait for a connection that it has accepted. One is enough against all. */
static inline void note_accepted(const struct end *end, enum waiting waits)
{
    struct port port = { .namespace = end->namespace, .number = end->local_port };
    u32 *known = map_lookup(&friends_servers, &port);
    u32 seen = waits;
    if (!known)
        map_update(&friends_servers, &port, &seen, ANY);
    else if (*known == WAITS_NOT)
        *known = waits;
}

/* Forgets a connection that this socket had before (connect(2) with AF_UNSPEC), and with it what it hadn't read. */
static inline void forget(struct direction *direction)
{
    if (direction->role == DIALLED || direction->role == ACCEPTED) {
        map_delete(&friends_ends, &direction->own);
        map_delete(&friends_sockets, &direction->name);
    }
    direction->role = NOBODY;
}

static inline enum counter make_friend(struct bpf_sock_ops *ops, const struct end *end, enum role role)
{
    struct direction *direction = direction_of(ops, STORAGE_CREATE);
    if (!direction)
        return NO_ROOM;
    direction->own = *end;
    direction->name = (struct name){ socket_cookie(ops), ktime_ns() };
    /* In one store: the verifier takes no half of a pointer's. */
    *(volatile u64 *)&direction->tcp = 0;
    direction->is_bypassed = direction->is_settled = direction->queued = direction->why = direction->skipped = 0;
    struct shared shared = { .name = direction->name };
    if (map_update(&friends_ends, &direction->own, &shared, ANY))
        return NO_ROOM;
    struct shared *kept = map_lookup(&friends_ends, &direction->own);
    if (kept)
        kept->tcp = tcp_of(ops);
    long error = sock_hash_update(ops, &friends_sockets, &direction->name, ANY);
    if (error) {
        map_delete(&friends_ends, &direction->own);
        return error == -E2BIG ? NO_ROOM : NO_KERNEL;
    }
    direction->role = role;
    watch(ops, WATCH_STATE | WATCH_ROUND_TRIPS);
    tap_event(direction, sock_of(ops), role == DIALLED ? TAP_DIALLED : TAP_ACCEPTED);
    return FRIENDS;
}

/* Whether anything speaks against a connection to a server's port, whichever end is asked. */
static inline enum counter objection(struct bpf_sock_ops *ops, const struct port *port)
{
    struct control *found = control();
    if (!found || found->off)
        return NO_OFF;
    u16 number = port->number;
    if (found->ports_listed && !map_lookup(&friends_ports, &number))
        return NO_PORT;
    struct bpf_sock *sock = ops->sk;
    if (!sock || sock->bound_dev_if)
        return NO_DEVICE;
    u32 *known = map_lookup(&friends_servers, port);
    if (!known)
        return NO_UNKNOWN;
    if (*known == WAITS_NOT)
        return FRIENDS;
    return *known == WAITS ? NO_SERVER : NO_SERVER_EDGES;
}

/* The end that dialled is established first. It says why a connection isn't made friends. */
static inline void meet_dialled(struct bpf_sock_ops *ops, const struct end *end)
{
    struct port port = { .namespace = end->namespace, .number = end->remote_port };
    enum counter verdict = objection(ops, &port);
    if (verdict == FRIENDS) {
        enum waiting waits = waiting_of(tcp_of(ops));
        if (waits == WAITS_NOT)
            verdict = make_friend(ops, end, DIALLED);
        else
            verdict = waits == WAITS_FOR_EDGES ? NO_EDGES : NO_BLOCKING;
    }
    count(&friends_counters, verdict);
}

static inline void meet_accepted(struct bpf_sock_ops *ops, const struct end *end)
{
    struct port port = { .namespace = end->namespace, .number = end->local_port };
    enum counter verdict = objection(ops, &port);
    if (verdict == NO_UNKNOWN) {
        struct direction *direction = direction_of(ops, STORAGE_CREATE);
        if (direction) {
            direction->own = *end;
            direction->role = WITNESS;
            direction->watched = watch(ops, WATCH_ROUND_TRIPS);
        }
        return;
    }
    struct end other;
    turn(end, &other);
    if (verdict != FRIENDS || !map_lookup(&friends_ends, &other))
        return;
    count(&friends_counters, make_friend(ops, end, ACCEPTED));
}

static inline void meet(struct bpf_sock_ops *ops, int has_dialled)
{
    struct direction *before = direction_of(ops, 0);
    if (before)
        forget(before);
    struct end end;
    if (!load_end(ops, &end))
        return;
    if (has_dialled)
        meet_dialled(ops, &end);
    else
        meet_accepted(ops, &end);
}

/* Takes both ends out of the map, unless a byte has gone past TCP. Each side says first what it is about to do, and then looks at
 * what the other has said (as in settle): so never do both go ahead. */
static inline void leave(struct direction *direction, u64 sock)
{
    struct end turned;
    turn(&direction->own, &turned);
    struct shared *own = map_lookup(&friends_ends, &direction->own);
    struct shared *other = map_lookup(&friends_ends, &turned);
    if (!own)
        return;
    __sync_lock_test_and_set(&own->leaving, 1);
    if (other)
        __sync_lock_test_and_set(&other->leaving, 1);
    if (*(volatile u64 *)&own->bypassed || (other && *(volatile u64 *)&other->bypassed))
        return;
    map_delete(&friends_sockets, &direction->name);
    if (other)
        map_delete(&friends_sockets, &other->name);
    map_delete(&friends_ends, &turned);
    map_delete(&friends_ends, &direction->own);
    direction->role = NOBODY;
    tap_event(direction, sock, TAP_LEFT);
    count(&friends_counters, NO_LONGER);
}

/* What this end has sent by TCP has been acknowledged: by now its program has told the kernel how it waits. A socket in the map that
 * waits in its calls may be woken for nothing and fail with EAGAIN; one that waits for edges would not hear of the turn from our queue
 * to TCP's. So both leave, as early as we learn of it. */
static inline void observe(struct bpf_sock_ops *ops)
{
    struct direction *direction = direction_of(ops, 0);
    if (!direction || direction->role == NOBODY || direction->is_settled)
        return;
    enum waiting waits = waiting_of(tcp_of(ops));
    if (direction->role != DIALLED && waits != NOT_ACCEPTED)
        note_accepted(&direction->own, waits);
    if (direction->role == WITNESS) {
        direction->role = NOBODY;
        sock_ops_watch(ops, FIELD(ops, bpf_sock_ops_cb_flags) & ~direction->watched);
        return;
    }
    /* Between accept(2) and fcntl(2) the end that accepted may seem to wait: it is asked when it has sent something itself. */
    if (waits == WAITS_NOT && direction->role == ACCEPTED) {
        struct shared *other = other_of(direction);
        if (other)
            waits = waiting_of(other->tcp);
    }
    if (waits == WAITS || waits == WAITS_FOR_EDGES)
        leave(direction, sock_of(ops));
}

/* A side ends, or the connection is reset: from these states it closes in no other way. */
static inline void tap_state(struct bpf_sock_ops *ops)
{
    struct direction *direction = direction_of(ops, 0);
    if (!direction || (direction->role != DIALLED && direction->role != ACCEPTED))
        return;
    u32 from = FIELD(ops, args[0]), to = FIELD(ops, args[1]);
    if (to == TCP_STATE_FIN_WAIT1 || to == TCP_STATE_LAST_ACK)
        tap_event(direction, sock_of(ops), TAP_ENDED);
    else if (to == TCP_STATE_CLOSE && (from == TCP_STATE_ESTABLISHED || from == TCP_STATE_FIN_WAIT1 || from == TCP_STATE_CLOSE_WAIT))
        tap_event(direction, sock_of(ops), TAP_RESET);
}

/* Whether the program itself ends a connection that nobody has ended (connect(2) with AF_UNSPEC): its socket may go on to another. The kernel notes an
 * error before it closes for one, and an end before it closes for that. */
static inline int disconnects(struct bpf_sock_ops *ops, const struct tcp_sock *tcp)
{
    u32 from = FIELD(ops, args[0]);
    return (from == TCP_STATE_ESTABLISHED || from == TCP_STATE_FIN_WAIT1 || from == TCP_STATE_CLOSE_WAIT) && SOCK(tcp).sk_err == 0;
}

/* The connection is over. What is unread is kept for its reader, but where that gives the connection up, as TCP's bytes are thrown away
 * then. */
static inline void part(struct bpf_sock_ops *ops)
{
    struct direction *direction = direction_of(ops, 0);
    if (!direction || (direction->role != DIALLED && direction->role != ACCEPTED))
        return;
    map_delete(&friends_ends, &direction->own);
    struct tcp_sock *tcp = tcp_of(ops);
    if (!tcp || unread(tcp) == 0 || disconnects(ops, tcp))
        forget(direction);
}

SEC("sockops")
int midmile_friends(struct bpf_sock_ops *ops)
{
    switch (FIELD(ops, op)) {
    case LISTENING:
        note_listener(ops);
        break;
    case ACTIVE_ESTABLISHED:
        meet(ops, 1);
        break;
    case PASSIVE_ESTABLISHED:
        meet(ops, 0);
        break;
    case ROUND_TRIP:
        observe(ops);
        break;
    case STATE_CHANGED:
        tap_state(ops);
        if (FIELD(ops, args[1]) == TCP_STATE_CLOSE)
            part(ops);
        break;
    }
    return 1;
}

/* ---- which way a message goes: called in send(2) of a friend ---- */

/* Whether an option of either end asks for what the bypass can't do. `own` sends, `other` is to receive. */
static inline enum counter option_against(const struct tcp_sock *own, const struct tcp_sock *other)
{
    if (SOCK(other).sk_rcvlowat > 1)
        return TCP_LOW_WATER;
    u64 flags = SOCK(other).__sk_common.skc_flags;
    if (flags & FLAG(SOCK_RCVTSTAMP) || SOCK(other).sk_tsflags || SOCK(own).sk_tsflags)
        return TCP_TIMESTAMPS;
    if (flags & FLAG(SOCK_URGINLINE))
        return TCP_URGENT;
    if (SOCK(own).__sk_common.skc_flags & FLAG(SOCK_ZEROCOPY))
        return TCP_ZEROCOPY;
    if (SOCK(own).sk_max_pacing_rate != ~0UL)
        return TCP_PACED;
    if (BITS(other, tcp_sock, recvmsg_inq))
        return TCP_INQ;
    if (SOCK(other).sk_peek_off >= 0)
        return TCP_PEEK_OFF;
    if (own->inet_conn.icsk_ulp_ops || other->inet_conn.icsk_ulp_ops)
        return TCP_LAYER;
    return BYPASS;
}

/* Whether the open file of the other end speaks against it. */
static inline enum counter file_against(const struct tcp_sock *other)
{
    const struct socket *socket = SOCK(other).sk_socket;
    const struct file *file = socket ? socket->file : 0;
    /* A socket that was closed has none any more. */
    if (!file)
        return SOCK(other).__sk_common.skc_state == TCP_STATE_ESTABLISHED ? TCP_UNACCEPTED : TCP_GONE;
    if (!(file->f_flags & O_NONBLOCK))
        return TCP_BLOCKING;
    if (file->f_owner)
        return TCP_URGENT;
    if (is_edge_triggered(socket))
        return TCP_EDGES;
    const struct address_space *mapping = file->f_mapping;
    return mapping && mapping->i_mmap.rb_root.rb_node ? TCP_ZEROCOPY : BYPASS;
}

/* Whether everything sent by TCP so far has been read. `own` is the sender's and locked, so nothing is added meanwhile. */
static inline int is_read(const struct tcp_sock *own, const struct tcp_sock *other)
{
    u32 sent = own->write_seq;
    return own->snd_una == sent && other->rcv_nxt == sent && other->copied_seq == sent;
}

/* The first byte is about to go past TCP: from then on nobody leaves the map. An end that waits has to leave, so it sends by TCP until
 * observe() has seen it. Says what it is about to do, and then looks whether the ends are just being taken out (see leave). */
static inline enum counter settle(struct direction *direction, const struct tcp_sock *own_tcp)
{
    enum waiting waits = waiting_of(own_tcp);
    if (waits != WAITS_NOT)
        return waits == WAITS_FOR_EDGES ? TCP_EDGES : TCP_BLOCKING;
    struct shared *own = map_lookup(&friends_ends, &direction->own);
    struct shared *other = other_of(direction);
    if (!own || !other)
        return TCP_ALONE;
    __sync_lock_test_and_set(&own->bypassed, 1);
    if (*(volatile u64 *)&own->leaving || *(volatile u64 *)&other->leaving) {
        /* Both may have seen each other, and neither has gone ahead: then they leave at the next acknowledgement. */
        __sync_lock_test_and_set(&own->bypassed, 0);
        return TCP_BLOCKING;
    }
    direction->is_settled = 1;
    return BYPASS;
}

/* Whether there's room for a message with the other end. */
static inline enum counter room(struct direction *direction, const struct tcp_sock *other)
{
    int waiting = unread(other);
    if (waiting >= SOCK(other).sk_rcvbuf)
        return TCP_FULL;
    if (waiting == 0)
        direction->queued = 0;
    return ++direction->queued > QUEUED_MAX ? TCP_MESSAGES : BYPASS;
}

/* Whether what is sent may still reach the other end. The kernel asks that of what goes by TCP alone. */
static inline int may_send(const struct tcp_sock *own)
{
    u8 state = SOCK(own).__sk_common.skc_state;
    return state == TCP_STATE_ESTABLISHED || state == TCP_STATE_CLOSE_WAIT;
}

/* By which way a message goes: BYPASS, or why by TCP. */
static inline enum counter way(struct direction *direction, const struct tcp_sock *own)
{
    if (is_off())
        return TCP_OFF;
    if (!may_send(own))
        return TCP_ENDED;
    if (!direction->tcp) {
        struct shared *found = other_of(direction);
        if (!found)
            return TCP_ALONE;
        direction->other = found->name;
        direction->tcp = found->tcp;
    }
    const struct tcp_sock *other = direction->tcp;
    if (!other)
        return TCP_ALONE;
    if (!direction->is_bypassed && !is_read(own, other))
        return TCP_BEHIND;
    enum counter verdict = file_against(other);
    if (verdict == BYPASS)
        verdict = option_against(own, other);
    if (verdict == BYPASS && !direction->is_settled)
        verdict = settle(direction, own);
    /* Who waits for edges from now on isn't told of TCP's bytes behind ours, and who looks (MSG_PEEK) for more of them than there is of ours sees none of
     * them: first it has to have read those. */
    int is_of_reader = verdict == TCP_EDGES || verdict == TCP_LOW_WATER || verdict == TCP_PEEK_OFF;
    if (is_of_reader && direction->is_bypassed && unread(other))
        verdict = BYPASS;
    return verdict == BYPASS ? room(direction, other) : verdict;
}

static inline void book(struct direction *direction, enum counter verdict, u32 bytes)
{
    if (verdict == BYPASS) {
        count(&friends_counters, MESSAGES);
        count_many(&friends_counters, BYTES, bytes);
        if (!direction->is_bypassed)
            count(&friends_counters, RETURNS);
        direction->is_bypassed = 1;
        direction->why = 0;
        direction->skipped += bytes;
        return;
    }
    direction->is_bypassed = 0;
    if (verdict == TCP_BEHIND || verdict == direction->why)
        return;
    direction->why = verdict;
    count(&friends_counters, verdict);
}

SEC("sk_msg")
int midmile_friends_send(struct sk_msg_md *msg)
{
    struct bpf_sock *sock = msg->sk;
    struct direction *direction = sock ? storage_of(&friends_directions, sock, 0, 0) : 0;
    struct tcp_sock *own = sock ? tcp_sock_of(sock) : 0;
    if (!direction || !own)
        return SK_PASS;
    enum counter verdict = way(direction, own);
    if (verdict == BYPASS && msg_redirect(msg, &friends_sockets, &direction->other, REDIRECT_INGRESS) != SK_PASS)
        verdict = TCP_GONE;
    u64 watched_ns = tap_watches(&direction->own);
    if (watched_ns) {
        struct tapped head = { .at_ns = watched_ns,
                               .end = direction->own,
                               .place = tap_place(direction, (u64)own),
                               .what = verdict == BYPASS ? TAP_PAST_TCP : TAP_BY_TCP };
        tap_message(msg, &head);
    }
    book(direction, verdict, FIELD(msg, size));
    return SK_PASS;
}

char _license[] SEC("license") = "Dual MIT/GPL";
