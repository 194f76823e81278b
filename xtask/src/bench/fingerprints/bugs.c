/* Sixteen bugs: `bugs NUMBER main|thread`. Functions are kept apart as large ones are. */
#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define APART __attribute__((noinline, noclone))
static volatile int sink;
static volatile size_t length = 3000;
struct request { int kind; char *text; struct request *next; };
static struct request empty;
#ifdef V2 /* Another version: other addresses and frames. */
static volatile int history[512];
APART static int audit(int n) { for (int i = 0; i < 512; i++) history[i] += n; return history[n & 7]; }
#define NOTE(n) (sink += audit(n))
#else
#define NOTE(n) (sink = (n))
#endif
APART static char *copy_text(char *to, const char *from) { NOTE(1); *to = *from; NOTE(2); return to; }
APART static void parse_header(struct request *r) { copy_text(r->text, "header"); NOTE(3); }
APART static void parse_body(struct request *r) { copy_text(r->text + 1, "body"); NOTE(4); }
APART static void release(char *p) { free(p); NOTE(5); }
APART static void close_session(void) { char *p = malloc(100); release(p); release(p); NOTE(6); }
APART static void drop_cache(void) { char *p = malloc(2000); release(p + 16); NOTE(7); }
APART static void load_config(int n) { assert(n > 100 && "config"); NOTE(8); }
APART static void check_license(int n) { if (n < 100) abort(); NOTE(9); }
APART static void fill_page(char *to) { static char from[9000]; memcpy(to, from, length); NOTE(10); }
APART static void read_block(void) { fill_page((char *)0x1000); NOTE(11); }
APART static void write_block(void) { fill_page((char *)0x2000); NOTE(12); }
APART static size_t measure(const char *s) { size_t n = strlen(s); NOTE(13); return n; }
APART static void format_name(void) { sink = (int)measure((char *)16); NOTE(14); }
APART static int by_kind(const void *a, const void *b) { int r = ((struct request *)0)->kind; NOTE(15); return r + (a < b); }
APART static void sort_requests(void) { int list[9] = {3, 1, 2}; qsort(list, 9, sizeof *list, by_kind); NOTE(16); }
APART static int odd(int n);
APART static int even(int n) { volatile char b[200]; b[n & 7] = 1; return odd(n + 1) + b[0]; }
APART static int odd(int n) { volatile char b[200]; b[n & 7] = 2; return even(n + 1) + b[0]; }
APART static void count_nodes(void) { sink = even(1); NOTE(17); }
APART static int descend(int n) { volatile char b[300]; b[n & 7] = 1; return descend(n + 1) + b[0]; }
APART static void walk_tree(void) { sink = descend(1); NOTE(18); }
APART static int divide(int a, int b) { NOTE(19); int r = a / b; NOTE(20); return r; }
APART static void average(int n) { sink = divide(100, n); NOTE(21); }
APART static void call_hook(void (*hook)(void)) { hook(); NOTE(22); }
APART static void run_hooks(void) { call_hook((void (*)(void))empty.text); NOTE(23); }
APART static void follow(struct request *r) { while (r) { sink = r->kind; r = r->next; } NOTE(24); }
APART static void scan_queue(void) { struct request r = {0, 0, (struct request *)8}; follow(&r); NOTE(25); }
APART static void trap_state(int n) { if (n < 100) __builtin_trap(); NOTE(26); }
APART static void on_fault(int signal) { (void)signal; abort(); }
APART static void guarded_read(void) { signal(SIGSEGV, on_fault); copy_text(empty.text + 3, "x"); NOTE(27); }
APART static void guarded_sum(void) { signal(SIGSEGV, on_fault); follow((struct request *)24); NOTE(28); }
APART static void dispatch(int n) {
    switch (n) {
    case 0: parse_header(&empty); break;
    case 1: parse_body(&empty); break;
    case 2: close_session(); break;
    case 3: drop_cache(); break;
    case 4: load_config(n); break;
    case 5: check_license(n); break;
    case 6: read_block(); break;
    case 7: write_block(); break;
    case 8: format_name(); break;
    case 9: sort_requests(); break;
    case 10: count_nodes(); break;
    case 11: walk_tree(); break;
    case 12: average(n - 12); break;
    case 13: run_hooks(); break;
    case 14: scan_queue(); break;
    case 15: trap_state(n); break;
    case 16: guarded_read(); break;
    case 17: guarded_sum(); break;
    }
    NOTE(29);
}
APART static void *worker(void *n) { dispatch(*(int *)n); NOTE(30); return 0; }
int main(int argc, char **argv) {
    int n = atoi(argv[1]);
    pthread_t thread;
    if (argc > 2 && !strcmp(argv[2], "thread")) {
        pthread_create(&thread, 0, worker, &n);
        pthread_join(thread, 0);
    } else {
        dispatch(n);
    }
    return sink;
}
