// A service that dies in a way of its own: which one, its name tells.
#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef RELEASE
#define RELEASE "dev"
#endif
// Each release is a build of its own.
const char release[] __attribute__((used)) = RELEASE;

struct order { int id; int *price; struct order *next; };

__attribute__((noinline)) static int total_of(const struct order *order) {
    int sum = 0;
    for (; order; order = order->next) sum += *order->price;
    return sum;
}
__attribute__((noinline)) static int checkout_order(void) {
    struct order order = {7, NULL, NULL};
    return total_of(&order) + 1;
}

// What release 1.4.2 brought, where it is built in: an order without a coupon.
struct coupon { int percent; };
__attribute__((noinline)) static int discount_of(const struct coupon *coupon) { return coupon->percent; }
__attribute__((noinline)) static int apply_coupon(const struct coupon *volatile coupon) {
    return 100 - discount_of(coupon);
}

__attribute__((noinline)) static void settle_account(char *entry) {
    free(entry);
    free(entry);
}
__attribute__((noinline)) static int close_ledger(void) {
    settle_account(malloc(2000));
    return 1;
}

__attribute__((noinline)) static int visit_node(volatile int depth) {
    volatile char page[4096];
    page[depth & 4095] = (char)depth;
    return visit_node(depth + 1) + page[0];
}

static void *wait_for_jobs(void *unused) {
    (void)unused;
    for (;;) pause();
}
__attribute__((noinline)) static void finish_job(int *slot, int value) { *slot = value; }
static void *run_job(void *slot) {
    usleep(20000);
    finish_job(slot, 42);
    return NULL;
}
__attribute__((noinline)) static int run_workers(void) {
    pthread_t threads[6];
    for (int i = 0; i < 5; i++) pthread_create(&threads[i], NULL, wait_for_jobs, NULL);
    pthread_create(&threads[5], NULL, run_job, (void *)0x1000);
    return pthread_join(threads[5], NULL);
}

__attribute__((noinline)) static int mean_of(int sum, volatile int count) { return sum / count; }
__attribute__((noinline)) static int nightly_report(void) { return mean_of(100, 0) + 1; }

__attribute__((noinline)) static int route_request(const char *path) {
    assert(path[0] == '/');
    return 1;
}

__attribute__((noinline)) static int read_entry(const char *entry) { return entry[64]; }
__attribute__((noinline)) static int evict_and_read(void) {
    char *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(page, 4096);
    return read_entry(page) + 1;
}

__attribute__((noinline)) static int read_spool(const char *map) { return map[100]; }
__attribute__((noinline)) static int send_mail(void) {
    int file = memfd_create("spool", 0);
    if (ftruncate(file, 4096)) return 2;
    char *map = mmap(0, 4096, PROT_READ, MAP_SHARED, file, 0);
    if (ftruncate(file, 0)) return 2;
    return read_spool(map) + 1;
}

__attribute__((noinline)) static int decode_image(int format) {
    if (format > 3) __builtin_trap();
    return format;
}

__attribute__((noinline)) static int dispatch(int (*handler)(int)) { return handler(1) + 1; }

__attribute__((noinline)) static void copy_name(char *to, const char *from, volatile int count) {
    for (int i = 0; i < count; i++) ((volatile char *)to)[i] = from[i & 7];
}
__attribute__((noinline)) static int open_session(void) {
    char name[16];
    copy_name(name, "hostname", 40);
    return name[0];
}

int main(int argc, char **argv) {
    const char *slash = strrchr(argv[0], '/');
    const char *name = slash ? slash + 1 : argv[0];
#ifdef COUPON
    if (!strcmp(name, "checkout")) return apply_coupon(NULL) + 1;
#endif
    if (!strcmp(name, "checkout")) return checkout_order();
    if (!strcmp(name, "ledger")) return close_ledger();
    if (!strcmp(name, "indexer")) return visit_node(argc);
    if (!strcmp(name, "worker")) return run_workers();
    if (!strcmp(name, "cron")) return nightly_report();
    if (!strcmp(name, "gateway")) return route_request("api/orders");
    if (!strcmp(name, "cache")) return evict_and_read();
    if (!strcmp(name, "mailer")) return send_mail();
    if (!strcmp(name, "thumbnails")) return decode_image(argc + 8);
    if (!strcmp(name, "router")) return dispatch((int (*)(int))(intptr_t)(argc + 0x10));
    if (!strcmp(name, "session")) return open_session();
    return 3;
}
