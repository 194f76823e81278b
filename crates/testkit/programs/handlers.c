/* Programs that catch their own crash: `handlers STYLE FAULT` has the fault FAULT and ends by the handler STYLE.
 * STYLE `none` installs no handler. The functions of the crash are the same for all styles.
 *
 * Built with -DNO_TABLES, the handlers are in a file of their own without call frame information.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEPT __attribute__((noinline, noclone))

volatile int sink;
volatile int zero;
int *volatile nowhere;
void (*volatile hook)(void);
static volatile sig_atomic_t entered;

/* The faults. */
KEPT static void fault_null(void) { sink = 1; *(volatile int *)((char *)nowhere + 8) = 3; sink = 2; }
KEPT static void fault_wild(void) { sink = 1; *(volatile int *)0xdead0000beef0000ull = 3; sink = 2; }
KEPT static void fault_const(void) { sink = 1; *(volatile char *)"constant" = 3; sink = 2; }
KEPT static void fault_call(void) { sink = 1; hook(); sink = 2; }
KEPT static void fault_divide(void) { sink = 7 / zero; }
KEPT static void fault_abort(void) { sink = 1; abort(); }
KEPT static void fault_raise(void) { sink = 1; raise(SIGSEGV); sink = 2; }
KEPT static void fault_trap(void) {
    sink = 1;
#ifdef __x86_64__
    __asm__ volatile("int3");
#else
    __asm__ volatile("brk #0");
#endif
    sink = 2;
}
KEPT static void fault_illegal(void) {
    sink = 1;
#ifdef __x86_64__
    __asm__ volatile("ud2");
#else
    __asm__ volatile("udf #0");
#endif
    sink = 2;
}
KEPT static void fault_bus(void) {
    char *page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, memfd_create("short", 0), 0);
    sink = page[4096];
    sink = 2;
}
KEPT static int fault_overflow(int depth) {
    volatile char frame[4096];
    frame[0] = (char)depth;
    return depth < 0 ? depth : fault_overflow(depth + 1) + frame[0];
}
/* A system call that the process may not make: SIGSYS. */
KEPT static void fault_seccomp(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpgid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof code / sizeof *code, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
    sink = (int)syscall(SYS_getpgid, 0);
    sink = 2;
}

KEPT static void work(const char *fault) {
    sink = 3;
    if (!strcmp(fault, "null")) fault_null();
    if (!strcmp(fault, "wild")) fault_wild();
    if (!strcmp(fault, "const")) fault_const();
    if (!strcmp(fault, "call")) fault_call();
    if (!strcmp(fault, "divide")) fault_divide();
    if (!strcmp(fault, "abort")) fault_abort();
    if (!strcmp(fault, "raise")) fault_raise();
    if (!strcmp(fault, "trap")) fault_trap();
    if (!strcmp(fault, "illegal")) fault_illegal();
    if (!strcmp(fault, "bus")) fault_bus();
    if (!strcmp(fault, "overflow")) fault_overflow(0);
    if (!strcmp(fault, "seccomp")) fault_seccomp();
    sink = 4;
}

/* The handlers. */
KEPT static void report(void) {
    void *frames[16];
    backtrace_symbols_fd(frames, backtrace(frames, 16), open("/dev/null", O_WRONLY));
    sink = 5;
}
KEPT static void end_by_default(int number) {
    signal(number, SIG_DFL);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, number);
    sigprocmask(SIG_UNBLOCK, &set, 0);
    raise(number);
    sink = 6;
}
KEPT static void end_by_abort(void) { signal(SIGABRT, SIG_DFL); report(); abort(); }
static void on_abort(int n, siginfo_t *i, void *c) { (void)i; (void)c; end_by_abort(); sink = n; }
static void on_abort_plain(int n) { end_by_abort(); sink = n; }
/* The handler of SIGABRT runs too. */
static void on_abort_handled(int n, siginfo_t *i, void *c) {
    (void)i;
    (void)c;
    if (n == SIGABRT) end_by_default(n);
    else abort();
    sink = n;
}
static void on_reraise(int n, siginfo_t *i, void *c) { (void)i; (void)c; report(); end_by_default(n); sink = n; }
static void on_reraise_plain(int n) { report(); end_by_default(n); sink = n; }
/* Its own fault ends the process: SIGSEGV is blocked. */
KEPT static void crash_in_handler(void) { sink = 1; *(volatile int *)0x10 = 1; sink = 2; }
static void on_crash(int n, siginfo_t *i, void *c) { (void)i; (void)c; crash_in_handler(); sink = n; }
static void on_crash_plain(int n) { crash_in_handler(); sink = n; }
/* Its own fault calls it again. */
static void on_nested(int n, siginfo_t *i, void *c) {
    (void)i;
    (void)c;
    if (!entered++) crash_in_handler();
    end_by_abort();
    sink = n;
}
static void on_alarm(int n) { signal(SIGABRT, SIG_DFL); raise(SIGABRT); sink = n; }
KEPT static void hang(void) { for (;;) sink++; }
/* Hangs, and a timer ends it. */
static void on_hang(int n, siginfo_t *i, void *c) {
    (void)i;
    (void)c;
    struct sigaction action = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &action, 0);
    ualarm(1000, 0);
    hang();
    sink = n;
}
static void on_kill(int n, siginfo_t *i, void *c) {
    (void)i;
    (void)c;
    signal(SIGQUIT, SIG_DFL);
    syscall(SYS_kill, getpid(), SIGQUIT);
    for (;;) pause();
    sink = n;
}
/* Sends the signal to the process, as glog does: the kernel gives it to another thread, where it is not blocked. */
static void on_kill_process(int n, siginfo_t *i, void *c) {
    (void)i;
    (void)c;
    signal(n, SIG_DFL);
    kill(getpid(), n);
    for (;;) pause();
    sink = n;
}
/* A child writes the core, the parent goes on and exits. */
static void on_fork(int n, siginfo_t *i, void *c) {
    (void)i;
    (void)c;
    signal(SIGABRT, SIG_DFL);
    int child = fork();
    if (!child) end_by_abort();
    waitpid(child, 0, 0);
    _exit(n);
}
static void on_return(int n) { sink = n; }
static void on_raise_return(int n) { signal(n, SIG_DFL); raise(n); sink = n; }

static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};

static void install(void (*handler)(int), void (*informed)(int, siginfo_t *, void *), int flags) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_flags = flags | (informed ? SA_SIGINFO : 0);
    if (informed) action.sa_sigaction = informed;
    else action.sa_handler = handler;
    for (size_t n = 0; n < sizeof faults / sizeof *faults; n++) sigaction(faults[n], &action, 0);
}

static int install_style(const char *style) {
    static char stack[256 << 10];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&alternate, 0);
    if (!strcmp(style, "none")) return 0;
    if (!strcmp(style, "abort")) return install(0, on_abort, 0), 0;
    if (!strcmp(style, "abort-plain")) return install(on_abort_plain, 0, 0), 0;
    if (!strcmp(style, "abort-alternate")) return install(0, on_abort, SA_ONSTACK), 0;
    if (!strcmp(style, "abort-plain-alternate")) return install(on_abort_plain, 0, SA_ONSTACK), 0;
    if (!strcmp(style, "abort-handled")) return install(0, on_abort_handled, 0), 0;
    if (!strcmp(style, "reraise")) return install(0, on_reraise, 0), 0;
    if (!strcmp(style, "reraise-plain")) return install(on_reraise_plain, 0, 0), 0;
    if (!strcmp(style, "reraise-nodefer")) return install(on_reraise_plain, 0, SA_NODEFER | SA_ONSTACK), 0;
    if (!strcmp(style, "crash")) return install(0, on_crash, 0), 0;
    if (!strcmp(style, "crash-plain")) return install(on_crash_plain, 0, 0), 0;
    if (!strcmp(style, "crash-alternate")) return install(0, on_crash, SA_ONSTACK), 0;
    if (!strcmp(style, "nested")) return install(0, on_nested, SA_NODEFER), 0;
    if (!strcmp(style, "hang")) return install(0, on_hang, SA_NODEFER), 0;
    if (!strcmp(style, "kill")) return install(0, on_kill, 0), 0;
    if (!strcmp(style, "kill-process")) return install(0, on_kill_process, 0), 0;
    if (!strcmp(style, "fork")) return install(0, on_fork, SA_ONSTACK), 0;
    if (!strcmp(style, "return")) return install(on_return, 0, SA_RESETHAND), 0;
    if (!strcmp(style, "raise-return")) return install(on_raise_return, 0, 0), 0;
    return 1;
}

/* Handlers of signals that are no fault: what they do is the crash. */
static sigjmp_buf back;
static void on_recover(int n) { siglongjmp(back, n); }
KEPT static void wait_for_signal(int number) { sink = 1; raise(number); sink = 2; }
static int other_signal(const char *style) {
    /* An earlier fault that the program survived: the kernel remembers it. */
    signal(SIGSEGV, on_recover);
    if (!sigsetjmp(back, 1)) fault_null();
    signal(SIGSEGV, SIG_DFL);
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = strstr(style, "abort") ? on_abort_plain : on_crash_plain;
    if (strstr(style, "nodefer")) action.sa_flags = SA_NODEFER;
    sigaction(SIGUSR1, &action, 0);
    wait_for_signal(SIGUSR1);
    return 1;
}

static void *run(void *fault) {
    work(fault);
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    if (!strncmp(argv[1], "usr1", 4)) return other_signal(argv[1]);
    if (!strcmp(argv[2], "overflow")) {
        struct rlimit limit = {512 << 10, RLIM_INFINITY};
        setrlimit(RLIMIT_STACK, &limit);
    }
    if (install_style(argv[1])) return 2;
    if (argc > 3) {
        pthread_t thread;
        pthread_create(&thread, 0, run, argv[2]);
        pthread_join(thread, 0);
        return 0;
    }
    work(argv[2]);
    return 0;
}
