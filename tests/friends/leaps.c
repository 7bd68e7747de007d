/* A connection at whose ends a signal's handler interrupts each call, many times. "pass", or what went wrong.
 *
 *   leaps leave [above]   the handler leaves the call by siglongjmp(3): what is read is in order, though some may be missing
 *   leaps wait [above]    the same of calls that wait, on many connections, of which no memory stays
 *   leaps cancel          the same of threads that wait, and are cancelled (pthread_cancel(3))
 *   leaps look [above]    it looks at what there is to read (MSG_PEEK), and returns: nothing is missing
 *
 * above: on a stack of its own (sigaltstack(2)). */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EACH_US = 200, LEAPS = 1500, LARGEST = 30000, STEP_MAX = 100 };
enum { CONNECTIONS = 60, WAIT_US = 2000, MAPPINGS_MAX = 4 };
enum { LOOKED_AT_BYTES = 300 * 1000 * 1000 };

static int end;
static int leaves;
static sigjmp_buf place;
static volatile sig_atomic_t inside;

static void fail(const char *why, long value)
{
    printf("%s: %ld\n", why, value);
    exit(1);
}

static void interrupt(int signal)
{
    (void)signal;
    int kept = errno;
    if (leaves && inside) {
        inside = 0;
        siglongjmp(place, 1);
    }
    unsigned char byte;
    if (!leaves)
        recv(end, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    errno = kept;
}

static void begin(int above)
{
    static char stack[1 << 16];
    stack_t own = { .ss_sp = stack, .ss_size = sizeof(stack) };
    if (above && sigaltstack(&own, 0))
        fail("sigaltstack", errno);
    struct sigaction action = { .sa_handler = interrupt, .sa_flags = SA_RESTART | (above ? SA_ONSTACK : 0) };
    sigaction(SIGALRM, &action, 0);
}

/* Signals after so many microseconds, and then each so many; 0: none. */
static void interrupt_each(long us, long again_us)
{
    struct itimerval each = { { 0, again_us }, { 0, us } };
    setitimer(ITIMER_REAL, &each, 0);
}

/* Sizes from 1 to LARGEST. */
static size_t next_size(void)
{
    static unsigned state = 1;
    state = state * 1664525 + 1013904223;
    return 1 + (state >> 8) % LARGEST;
}

/* A write that was answered is followed by one of another byte. */
static void write_and_leave(void)
{
    static unsigned char bytes[LARGEST];
    for (volatile unsigned number = 0;;) {
        memset(bytes, (int)(number & 255), sizeof(bytes));
        size_t size = next_size();
        if (sigsetjmp(place, 1))
            continue;
        inside = 1;
        ssize_t sent = write(end, bytes, size);
        inside = 0;
        if (sent < 0)
            fail("write", errno);
        number++;
    }
}

static void read_and_leave(void)
{
    static unsigned char bytes[LARGEST];
    volatile unsigned char last = 0;
    for (volatile long leaps = 0; leaps < LEAPS;) {
        size_t size = next_size();
        if (sigsetjmp(place, 1)) {
            leaps++;
            continue;
        }
        inside = 1;
        ssize_t got = read(end, bytes, size);
        inside = 0;
        if (got <= 0)
            fail("read", got ? -errno : 0);
        for (ssize_t at = 0; at < got; at++) {
            if ((unsigned char)(bytes[at] - last) > STEP_MAX)
                fail("from the past", bytes[at]);
            last = bytes[at];
        }
    }
}

/* Memory of connections that is mapped. */
static int mappings(void)
{
    char line[4096];
    int count = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof(line), maps))
        count += strstr(line, "/memfd:") != 0;
    if (!maps || fclose(maps))
        fail("maps", errno);
    return count;
}

static void exchange(int dialled);

static void dial_many(const struct sockaddr_in *address)
{
    char byte;
    for (int number = 0; number < CONNECTIONS; number++) {
        end = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(end, (const void *)address, sizeof(*address)))
            fail("connect", errno);
        exchange(1);
        if (read(end, &byte, 1))
            fail("no end", errno);
        close(end);
    }
}

static void wait_and_leave(int listening)
{
    char byte;
    for (volatile int number = 0; number < CONNECTIONS; number++) {
        end = accept(listening, 0, 0);
        exchange(0);
        if (!sigsetjmp(place, 1)) {
            inside = 1;
            interrupt_each(WAIT_US, 0);
            fail("it didn't wait", read(end, &byte, 1));
        }
        close(end);
    }
    if (mappings() > MAPPINGS_MAX)
        fail("mappings", mappings());
}

static void *read_for_ever(void *place_of_end)
{
    char byte;
    fail("it didn't wait", read(*(int *)place_of_end, &byte, 1));
    return 0;
}

static void wait_and_be_cancelled(int listening)
{
    for (int number = 0; number < CONNECTIONS; number++) {
        end = accept(listening, 0, 0);
        exchange(0);
        pthread_t thread;
        void *came_to;
        if (pthread_create(&thread, 0, read_for_ever, &end))
            fail("a thread", errno);
        usleep(number % 2 ? 0 : WAIT_US);
        if (pthread_cancel(thread) || pthread_join(thread, &came_to) || came_to != PTHREAD_CANCELED)
            fail("not cancelled", number);
        close(end);
    }
    if (mappings() > MAPPINGS_MAX)
        fail("mappings", mappings());
}

/* Each byte tells its place. */
static void write_all(void)
{
    static unsigned char bytes[251 + LARGEST];
    for (size_t at = 0; at < sizeof(bytes); at++)
        bytes[at] = at % 251;
    for (long sent = 0; sent < LOOKED_AT_BYTES;) {
        size_t size = next_size();
        if (sent + (long)size > LOOKED_AT_BYTES)
            size = LOOKED_AT_BYTES - sent;
        ssize_t count = write(end, bytes + sent % 251, size);
        if (count < 0)
            fail("write", errno);
        sent += count;
    }
}

static void read_all(void)
{
    static unsigned char bytes[LARGEST];
    for (long read_bytes = 0; read_bytes < LOOKED_AT_BYTES;) {
        ssize_t got = read(end, bytes, next_size());
        if (got <= 0)
            fail("read", got ? -errno : 0);
        for (ssize_t at = 0; at < got; at++)
            if (bytes[at] != (read_bytes + at) % 251)
                fail("not the byte of its place", read_bytes + at);
        read_bytes += got;
    }
}

/* Some exchanges, by which friends are made. */
static void exchange(int dialled)
{
    char bytes[100] = { 0 };
    for (int turn = 0; turn < 60; turn++) {
        if (dialled && write(end, bytes, sizeof(bytes)) != sizeof(bytes))
            fail("first write", errno);
        if (recv(end, bytes, sizeof(bytes), MSG_WAITALL) != sizeof(bytes))
            fail("first read", errno);
        if (!dialled && write(end, bytes, sizeof(bytes)) != sizeof(bytes))
            fail("first answer", errno);
    }
}

static void dial(const char *what, const struct sockaddr_in *address, int above)
{
    if (!strcmp(what, "wait") || !strcmp(what, "cancel")) {
        dial_many(address);
        return;
    }
    end = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(end, (const void *)address, sizeof(*address)))
        fail("connect", errno);
    exchange(1);
    begin(above);
    interrupt_each(EACH_US, EACH_US);
    leaves ? write_and_leave() : write_all();
}

static void answer(const char *what, int listening, int above)
{
    if (!strcmp(what, "cancel")) {
        wait_and_be_cancelled(listening);
        return;
    }
    begin(above);
    if (!strcmp(what, "wait")) {
        wait_and_leave(listening);
        return;
    }
    end = accept(listening, 0, 0);
    exchange(0);
    interrupt_each(EACH_US, EACH_US);
    leaves ? read_and_leave() : read_all();
    interrupt_each(0, 0);
}

int main(int count, char **arguments)
{
    if (count < 2)
        fail("leave, wait, cancel or look", count);
    const char *what = arguments[1];
    leaves = strcmp(what, "look");
    int above = count > 2, listening = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof(address);
    if (bind(listening, (void *)&address, length) || listen(listening, 1) || getsockname(listening, (void *)&address, &length))
        fail("listen", errno);
    pid_t child = fork();
    if (child == 0) {
        dial(what, &address, above);
        exit(0);
    }
    answer(what, listening, above);
    int status = 0;
    if (!strcmp(what, "leave"))
        kill(child, SIGKILL);
    if (waitpid(child, &status, 0) != child || (strcmp(what, "leave") && status))
        fail("the child", status);
    puts("pass");
    return 0;
}
