/* Dies as it is told: crash [name NAME] [host NAME] [heap MIB|random MIB|sparse MIB|pages MIB] [threads N] [wait] [setuid] [abort|kill SIGNAL|orphan|bug N|race]
   Words are taken in their order; without a last one it writes to address 0. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

static void *wait_for_ever(void *unused) {
    (void)unused;
    for (;;) pause();
}

static char *memory(const char *mebibytes) {
    size_t size = strtoull(mebibytes, 0, 10) << 20;
    char *found = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (found == MAP_FAILED) exit(97);
    return found;
}

static uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
    return *state;
}

/* As heaps are: objects of 64 bytes with a type, a pointer to another one, a small number and a few of
   a thousand words; every eighth page was never used. zstd makes about a quarter of it. */
static void fill(char *at, size_t size, int random) {
    uint64_t state = 88172645463325252u, words[1024];
    for (int i = 0; i < 1024; i++) words[i] = next_random(&state);
    for (size_t i = 0; i + 64 <= size; i += 64) {
        uint64_t object[8], number = next_random(&state);
        if (random) {
            for (int j = 0; j < 8; j++) object[j] = next_random(&state);
        } else if (i / 4096 % 8 == 7) {
            continue;
        } else {
            uint64_t more = next_random(&state);
            object[0] = 0x555555550000u + (number & 15) * 64;
            object[1] = (uintptr_t)at + (number >> 8) % size / 64 * 64;
            object[2] = number >> 60, object[3] = 1;
            for (int j = 0; j < 4; j++) object[4 + j] = words[(more >> (10 * j)) & 1023];
        }
        memcpy(at + i, object, sizeof object);
    }
}

__attribute__((noinline)) static int write_to(volatile int *at) {
    *at = 42;
    return *at + 1;
}

/* Five bugs: each dies in a function of its own. */
#define BUG(name) \
    __attribute__((noinline)) static int name(volatile int *at) { *at = __LINE__; return *at + 1; }
BUG(price_of)
BUG(stock_of)
BUG(name_of)
BUG(parse_order)
BUG(close_session)
static int (*const bugs[])(volatile int *) = {price_of, stock_of, name_of, parse_order, close_session};

/* Becomes another program while the process dies. */
static void *become_another(void *unused) {
    (void)unused;
    char *words[] = {"/bin/true", 0};
    execv(words[0], words);
    return 0;
}

/* When this dies, the thread that ran main is gone. */
static void *crash_later(void *unused) {
    (void)unused;
    prctl(PR_SET_NAME, "orphan");
    usleep(100000);
    write_to(0);
    return 0;
}

int main(int count, char **words) {
    struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
    setrlimit(RLIMIT_CORE, &unlimited);
    for (int i = 1; i < count; i++) {
        const char *word = words[i], *value = i + 1 < count ? words[i + 1] : "";
        if (!strcmp(word, "name")) {
            prctl(PR_SET_NAME, value), i++;
        } else if (!strcmp(word, "host")) {
            if (unshare(CLONE_NEWUTS) || sethostname(value, strlen(value))) return 98;
            i++;
        } else if (!strcmp(word, "heap") || !strcmp(word, "random")) {
            fill(memory(value), strtoull(value, 0, 10) << 20, *word == 'r'), i++;
        } else if (!strcmp(word, "sparse")) {
            memory(value)[4096] = 1, i++;
        } else if (!strcmp(word, "pages")) {
            /* Every page is there, and none says much. */
            size_t size = strtoull(value, 0, 10) << 20;
            char *at = memory(value);
            for (size_t page = 0; page < size; page += 4096) memcpy(at + page, &page, sizeof page);
            i++;
        } else if (!strcmp(word, "threads")) {
            for (long n = strtol(value, 0, 10); n > 0; n--) {
                pthread_t thread;
                if (pthread_create(&thread, 0, wait_for_ever, 0)) return 99;
            }
            i++;
        } else if (!strcmp(word, "wait")) {
            /* Says that it is ready and goes on when its input ends: crashes that happen at once. */
            char line;
            puts("ready"), fflush(stdout);
            while (read(0, &line, 1) > 0) ;
        } else if (!strcmp(word, "setuid")) {
            if (setuid(65534)) return 96;
        } else if (!strcmp(word, "orphan")) {
            pthread_t thread;
            if (pthread_create(&thread, 0, crash_later, 0)) return 99;
            pthread_exit(0);
        } else if (!strcmp(word, "bug")) {
            /* Not the last call of main, which would take its place. */
            return bugs[atoi(value) % 5](0) + 1;
        } else if (!strcmp(word, "race")) {
            pthread_t thread;
            if (pthread_create(&thread, 0, become_another, 0)) return 99;
            usleep(atoi(value)), i++;
        } else if (!strcmp(word, "abort")) {
            abort();
        } else if (!strcmp(word, "kill")) {
            raise(atoi(value)), i++;
        }
    }
    return write_to(0);
}
