/* What threads do to each other's calls on a connection, both whose ends are this process's. "pass", or what went wrong.
 *
 *   threads receive   a thread that is to be cancelled when it calls recv(2) is, though there's something to receive, and takes none of it
 *   threads send      the same of send(2): nothing is sent
 *   threads answer    a thread that answers again and again ends when it's cancelled, however fast it's asked
 *   threads ids       a thread that waits in recv(2) isn't disturbed by another that changes its group: libc has all threads do so, by a signal */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { EXCHANGES = 60, CHANGES = 300, CHANGE_US = 1000, ASKED = 2000, ASKED_AT_MOST = 200 * 1000 };

static int dialled, accepted;
static sem_t begun, may_go_on;

static void fail(const char *why, long value)
{
    printf("%s: %ld\n", why, value);
    exit(1);
}

static int ask(void)
{
    char byte = '?';
    return send(dialled, &byte, 1, MSG_NOSIGNAL) == 1 && recv(dialled, &byte, 1, 0) == 1;
}

static void *answer_for_ever(void *unused)
{
    char byte;
    while (recv(accepted, &byte, 1, 0) == 1)
        send(accepted, &byte, 1, MSG_NOSIGNAL);
    return unused;
}

static void *answer_some(void *unused)
{
    char byte;
    for (int turn = 0; turn < EXCHANGES; turn++)
        if (recv(accepted, &byte, 1, 0) != 1 || send(accepted, &byte, 1, 0) != 1)
            fail("first answer", errno);
    return unused;
}

static pthread_t thread(void *(*act)(void *))
{
    pthread_t made;
    if (pthread_create(&made, 0, act, 0))
        fail("a thread", errno);
    return made;
}

/* The end, after some exchanges, by which friends are made. */
static void connect_both(void)
{
    int listening = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof(address);
    if (bind(listening, (void *)&address, length) || listen(listening, 1) || getsockname(listening, (void *)&address, &length))
        fail("listen", errno);
    dialled = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(dialled, (void *)&address, length) || (accepted = accept(listening, 0, 0)) < 0)
        fail("connect", errno);
    close(listening);
    pthread_t answering = thread(answer_some);
    for (int turn = 0; turn < EXCHANGES; turn++)
        if (!ask())
            fail("first question", errno);
    pthread_join(answering, 0);
}

/* Where a thread is cancelled that comes from here, it's at its next call. */
static void wait_to_be_cancelled(void)
{
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, 0);
    sem_post(&begun);
    sem_wait(&may_go_on);
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, 0);
}

static void *receive(void *unused)
{
    char bytes[3];
    wait_to_be_cancelled();
    recv(accepted, bytes, sizeof(bytes), 0);
    return unused;
}

static void *give(void *unused)
{
    wait_to_be_cancelled();
    send(dialled, "xyz", 3, 0);
    return unused;
}

static void cancel_at(void *(*act)(void *), ssize_t left)
{
    void *came_to;
    char bytes[8];
    if (send(dialled, "abc", 3, 0) != 3 || recv(accepted, bytes, 3, MSG_PEEK | MSG_WAITALL) != 3)
        fail("there's nothing to receive", errno);
    pthread_t cancelled = thread(act);
    sem_wait(&begun);
    pthread_cancel(cancelled);
    sem_post(&may_go_on);
    if (pthread_join(cancelled, &came_to) || came_to != PTHREAD_CANCELED)
        fail("not cancelled", 0);
    ssize_t there = recv(accepted, bytes, sizeof(bytes), MSG_DONTWAIT);
    if (there != left)
        fail("bytes to receive then", there);
}

static void cancel_who_answers(void)
{
    pthread_t answering = thread(answer_for_ever);
    for (int turn = 0; turn < ASKED; turn++)
        ask();
    pthread_cancel(answering);
    struct timeval limit = { .tv_usec = 300 * 1000 };
    setsockopt(dialled, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    int answered = 0;
    while (ask())
        if (++answered > ASKED_AT_MOST)
            fail("answered by who is cancelled", answered);
    pthread_join(answering, 0);
}

static void *change_ids(void *unused)
{
    for (int turn = 0; turn < CHANGES; turn++) {
        usleep(CHANGE_US);
        if (setegid(getegid()))
            fail("setegid", errno);
    }
    send(dialled, "x", 1, 0);
    return unused;
}

static void handle(int signal)
{
    (void)signal;
}

static void wait_while_ids_change(void)
{
    /* A handler that interrupts calls, of a signal that doesn't come. */
    struct sigaction action = { .sa_handler = handle };
    sigaction(SIGTERM, &action, 0);
    pthread_t changing = thread(change_ids);
    char byte;
    if (recv(accepted, &byte, 1, 0) != 1)
        fail("it's interrupted", errno);
    pthread_join(changing, 0);
}

int main(int count, char **arguments)
{
    const char *what = count > 1 ? arguments[1] : "";
    sem_init(&begun, 0, 0);
    sem_init(&may_go_on, 0, 0);
    connect_both();
    if (!strcmp(what, "receive"))
        cancel_at(receive, 3);
    else if (!strcmp(what, "send"))
        cancel_at(give, 3);
    else if (!strcmp(what, "answer"))
        cancel_who_answers();
    else if (!strcmp(what, "ids"))
        wait_while_ids_change();
    else
        fail("receive, send, answer or ids", count);
    puts("pass");
    return 0;
}
