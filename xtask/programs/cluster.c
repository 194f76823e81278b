/* The program in the images of `cargo xtask test-cluster`: cluster WORD NOTE [NUMBER]. NOTE names the process for
   whoever looks for it; each of them is a way to die.
     pause NOTE        waits for SIGTERM
     crash NOTE N      crashes after N seconds
     filled NOTE N     fills N MiB, says so, listens on port 8080, and crashes on SIGUSR1. On SIGUSR2 it stops
                       listening and crashes on the SIGTERM that follows: the kubelet's kill finds a dump
     child NOTE N      a child does that; on SIGUSR1 it crashes, and its parent kills it in the middle of its dump
     memory NOTE N     the same, and the parent uses memory until the OOM killer ends somebody
     rate NOTE N       ten processes a second crash for N seconds; prints the pid of each
     bug NOTE N        crashes at once in one of five functions */
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct order { int count; int *price; };

__attribute__((noinline)) static int price_of(const struct order *order) {
    return *order->price * order->count;
}
__attribute__((noinline)) static int total(const struct order *order) {
    return price_of(order) + 1;
}
__attribute__((noinline)) static int checkout(int count) {
    struct order order = {count, 0};
    return total(&order) + 2;
}

#define BUG(name) \
    __attribute__((noinline)) static int name(volatile int *at) { *at = __LINE__; return *at + 1; }
BUG(parse_order)
BUG(stock_of)
BUG(name_of)
BUG(close_session)
BUG(open_session)
static int (*const bugs[])(volatile int *) = {parse_order, stock_of, name_of, close_session, open_session};

static volatile sig_atomic_t wanted;
static void want(int number) { wanted = number; }
static void end(int number) { (void)number; _exit(0); }

/* A heap of objects with a pointer and a random number, which compresses to about an eighth. */
static void fill(size_t mebibytes) {
    size_t size = mebibytes << 20;
    uint64_t *at = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) exit(97);
    uint64_t state = 88172645463325252u;
    for (size_t i = 0; i < size / 8; i += 16) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        at[i] = (uintptr_t)at, at[i + 1] = state, at[i + 2] = 1;
    }
}

static int listener;
static void *answer(void *unused) {
    static const char text[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    for (;;) {
        int connection = accept(listener, 0, 0);
        if (connection < 0) return unused;
        char request[1024];
        if (read(connection, request, sizeof request) > 0 && write(connection, text, sizeof text - 1) < 0) return unused;
        close(connection);
    }
}

static int wait_and_crash(size_t mebibytes, int serves) {
    struct sigaction action = {.sa_handler = want};
    sigaction(SIGUSR1, &action, 0), sigaction(SIGUSR2, &action, 0), sigaction(SIGTERM, &action, 0);
    if (serves) {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(8080)};
        int on = 1;
        listener = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 16)) exit(96);
        pthread_t thread;
        pthread_create(&thread, 0, answer, 0);
    }
    fill(mebibytes);
    puts("filled"), fflush(stdout);
    while (!wanted) usleep(1000);
    if (wanted == SIGTERM) _exit(0);
    if (wanted == SIGUSR2) {
        shutdown(listener, SHUT_RDWR), close(listener);
        while (wanted != SIGTERM) usleep(1000);
    }
    return checkout((int)mebibytes) + 3;
}

static int parent(const char *note, size_t mebibytes, int by_memory) {
    pid_t child = fork();
    if (!child) return wait_and_crash(mebibytes, 0);
    signal(SIGUSR1, want), signal(SIGTERM, end);
    while (!wanted) usleep(1000);
    kill(child, SIGUSR1);
    usleep(300000);
    if (!by_memory) {
        printf("%s: kill -9 %d\n", note, child), fflush(stdout);
        kill(child, SIGKILL);
    }
    while (waitpid(child, 0, WNOHANG) != child) {
        if (!by_memory) {
            usleep(10000);
            continue;
        }
        char *more = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (more != MAP_FAILED) memset(more, 1, 1 << 20);
    }
    return 0;
}

static int rate(int seconds) {
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    for (int number = 0; number < seconds * 10; number++) {
        pid_t child = fork();
        if (!child) return checkout(number) + 4;
        printf("crash %d\n", child), fflush(stdout);
        while (waitpid(-1, 0, WNOHANG) > 0);
        next.tv_nsec += 100000000;
        if (next.tv_nsec >= 1000000000) next.tv_nsec -= 1000000000, next.tv_sec++;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, 0);
    }
    while (waitpid(-1, 0, 0) > 0);
    puts("rate done"), fflush(stdout);
    for (;;) pause();
}

int main(int count, char **words) {
    if (count < 3) return 64;
    const char *word = words[1], *note = words[2];
    int number = count > 3 ? atoi(words[3]) : 0;
    printf("%s starts\n", note), fflush(stdout);
    if (!strcmp(word, "filled")) return wait_and_crash(number, 1);
    if (!strcmp(word, "child") || !strcmp(word, "memory")) return parent(note, number, *word == 'm');
    signal(SIGTERM, end);
    if (!strcmp(word, "rate")) return rate(number);
    if (!strcmp(word, "crash")) {
        sleep(number);
        printf("%s takes order %d\n", note, number), fflush(stdout);
        return checkout(number) + 5;
    }
    if (!strcmp(word, "bug")) return bugs[number % 5](0) + 1;
    for (;;) pause();
}
