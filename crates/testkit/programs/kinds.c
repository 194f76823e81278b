/* Processes of many kinds that die of SIGSEGV: kinds KIND [SIZE]. Exits with 77 where the kernel does
   not offer what the kind needs. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MADV_COLD
#define MADV_COLD 20
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#define MADV_GUARD_INSTALL_ 102
#ifndef IORING_TIMEOUT_MULTISHOT
#define IORING_TIMEOUT_MULTISHOT (1u << 6)
#endif
#define MIB (1u << 20)
#define PAGE 4096u

static size_t size = 8 * MIB;

static void need(int there) {
    if (!there) perror("needs more than this machine has"), exit(77);
}

static char *map(size_t length, int protection, int flags, int file, off_t offset) {
    char *found = mmap(0, length, protection, flags, file, offset);
    need(found != MAP_FAILED);
    return found;
}

static char *own(size_t length) {
    return map(length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

/* Every third page stays as it was. */
static char *touch(char *at, size_t length) {
    uint64_t state = 88172645463325252u;
    for (size_t page = 0; page < length / PAGE; page++)
        if (page % 3)
            for (size_t i = 0; i < PAGE; i += 64) {
                state ^= state << 13, state ^= state >> 7, state ^= state << 17;
                memcpy(at + page * PAGE + i, &state, 8);
            }
    return at;
}

static int file_of(size_t length) {
    char name[] = "/tmp/cdh-kind-XXXXXX";
    int file = mkstemp(name);
    need(file >= 0 && !unlink(name) && !ftruncate(file, length));
    char *at = map(length, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    touch(at, length), munmap(at, length);
    return file;
}

static void *wait_for_ever(void *unused) {
    (void)unused;
    for (;;) pause();
    return 0;
}

static void *crash_alone(void *unused) {
    (void)unused;
    usleep(50000);
    *(volatile int *)0 = 1;
    return 0;
}

static void write_file(const char *name, const char *text) {
    int file = open(name, O_WRONLY);
    need(file >= 0 && write(file, text, strlen(text)) > 0);
    close(file);
}

static void threads(int count) {
    pthread_attr_t small;
    pthread_t thread;
    pthread_attr_init(&small), pthread_attr_setstacksize(&small, 128 << 10);
    for (int i = 0; i < count; i++) need(!pthread_create(&thread, &small, wait_for_ever, 0));
}

static int ring;
static void *poll_ring(void *unused) {
    (void)unused;
    for (;;) syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, 0, 0);
    return 0;
}

/* A ring whose timeout comes back every few milliseconds as task work of this process. */
static void use_ring(long microseconds) {
    struct io_uring_params parameters = {0};
    ring = syscall(SYS_io_uring_setup, 64, &parameters);
    need(ring >= 0);
    char *rings = map(parameters.sq_off.array + 64 * 4, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQ_RING);
    struct io_uring_sqe *entries = (void *)map(64 * sizeof *entries, PROT_READ | PROT_WRITE,
                                               MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQES);
    static struct __kernel_timespec each;
    each.tv_sec = microseconds / 1000000, each.tv_nsec = microseconds % 1000000 * 1000;
    struct io_uring_sqe *entry = &entries[0];
    memset(entry, 0, sizeof *entry);
    entry->opcode = IORING_OP_TIMEOUT;
    entry->addr = (uintptr_t)&each, entry->len = 1;
    entry->timeout_flags = IORING_TIMEOUT_MULTISHOT;
    unsigned *array = (void *)(rings + parameters.sq_off.array);
    unsigned *tail = (void *)(rings + parameters.sq_off.tail);
    array[0] = 0;
    __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
    need(syscall(SYS_io_uring_enter, ring, 1, 0, 0, 0, 0) == 1);
    pthread_t thread;
    need(!pthread_create(&thread, 0, poll_ring, 0));
}

static void own_user_namespace(void) {
    char text[64];
    int uid = getuid(), gid = getgid();
    need(!unshare(CLONE_NEWUSER));
    write_file("/proc/self/setgroups", "deny");
    snprintf(text, sizeof text, "1000 %d 1", uid), write_file("/proc/self/uid_map", text);
    snprintf(text, sizeof text, "1000 %d 1", gid), write_file("/proc/self/gid_map", text);
}

static void allow_everything(void) {
    struct sock_filter allow = {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
    struct sock_fprog program = {1, &allow};
    need(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    need(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
}

static void own_faults(char *at, size_t length) {
    int fault = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    need(fault >= 0);
    struct uffdio_api api = {.api = UFFD_API};
    need(!ioctl(fault, UFFDIO_API, &api));
    struct uffdio_register missing = {{(uintptr_t)at, length}, UFFDIO_REGISTER_MODE_MISSING, 0};
    need(!ioctl(fault, UFFDIO_REGISTER, &missing));
}

int main(int count, char **words) {
    struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
    setrlimit(RLIMIT_CORE, &unlimited);
    const char *kind = count > 1 ? words[1] : "";
    if (count > 2) size = strtoull(words[2], 0, 10) * MIB;
#define IS(name) (!strcmp(kind, name))
    if (IS("plain")) {
        touch(own(size), size);
    } else if (IS("threads")) {
        touch(own(size), size), threads(64);
    } else if (IS("leader-gone")) {
        pthread_t thread;
        touch(own(size), size);
        need(!pthread_create(&thread, 0, crash_alone, 0));
        pthread_exit(0);
    } else if (IS("huge-transparent")) {
        char *at = own(size + 2 * MIB);
        at += 2 * MIB - (uintptr_t)at % (2 * MIB);
        madvise(at, size, MADV_HUGEPAGE), touch(at, size);
    } else if (IS("huge-explicit") || IS("huge-explicit-shared")) {
        int shared = IS("huge-explicit") ? MAP_PRIVATE : MAP_SHARED;
        char *at = map(8 * MIB, PROT_READ | PROT_WRITE, shared | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
        at[0] = 1, at[4 * MIB + 5] = 2;
        write_file("/proc/self/coredump_filter", "0x7f");
    } else if (IS("dont-dump")) {
        madvise(touch(own(size), size), size / 2, MADV_DONTDUMP);
    } else if (IS("wipe-on-fork")) {
        madvise(touch(own(size), size), size / 2, MADV_WIPEONFORK);
        madvise(touch(own(size), size), size / 2, MADV_DONTFORK);
    } else if (IS("shared")) {
        touch(map(size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), size);
    } else if (IS("shared-of-another")) {
        /* Touched by another process only: not in our own page tables. */
        char *at = map(size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (!fork()) touch(at, size), _exit(0);
        wait(0);
    } else if (IS("shared-sparse")) {
        char *at = map(64 * size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        at[0] = 1, at[33 * size] = 2;
    } else if (IS("sysv")) {
        int id = shmget(IPC_PRIVATE, size, IPC_CREAT | 0600);
        need(id >= 0);
        char *at = shmat(id, 0, 0);
        shmctl(id, IPC_RMID, 0);
        need(at != (void *)-1), touch(at, size);
    } else if (IS("memfd")) {
        int file = memfd_create("of\nours", 0);
        need(file >= 0 && !ftruncate(file, size));
        touch(map(size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0), size);
        map(size - PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, PAGE)[PAGE] = 5;
    } else if (IS("memfd-cut")) {
        int file = memfd_create("cut", 0);
        need(file >= 0 && !ftruncate(file, size));
        touch(map(size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0), size);
        need(!ftruncate(file, size / 2));
    } else if (IS("file-private") || IS("file-written") || IS("file-shared") || IS("file-cut")) {
        int flags = IS("file-shared") ? MAP_SHARED : MAP_PRIVATE, file = file_of(size);
        char *at = map(size, PROT_READ | PROT_WRITE, flags, file, 0);
        if (IS("file-written")) touch(at + PAGE, size / 2);
        if (IS("file-cut")) at[3] = 1, need(!ftruncate(file, size / 2));
        /* Files belong to the core only if the filter says so. */
        write_file("/proc/self/coredump_filter", "0x3f");
    } else if (IS("no-access")) {
        mprotect(touch(own(size), size), size / 2, PROT_NONE);
        own(size), mprotect(own(size), size, PROT_NONE);
    } else if (IS("write-only")) {
        mprotect(touch(own(size), size), size, PROT_WRITE);
    } else if (IS("execute-only")) {
        mprotect(touch(own(size), size), size, PROT_EXEC);
    } else if (IS("locked")) {
        mlock(touch(own(MIB), MIB), MIB);
    } else if (IS("locked-on-fault")) {
        char *at = own(size);
        syscall(SYS_mlock2, at, size, 1), touch(at, size / 2);
    } else if (IS("freed")) {
        madvise(touch(own(size), size), size, MADV_FREE);
        madvise(touch(own(size), size), size / 2, MADV_DONTNEED);
    } else if (IS("cold")) {
        madvise(touch(own(size), size), size, MADV_COLD);
        madvise(touch(own(size), size), size, MADV_PAGEOUT);
    } else if (IS("guard")) {
        char *at = touch(own(size), size);
        need(!madvise(at + size / 4, size / 4, MADV_GUARD_INSTALL_));
    } else if (IS("mergeable")) {
        char *at = own(size);
        memset(at, 7, size), madvise(at, size, MADV_MERGEABLE), usleep(100000);
    } else if (IS("grows-down")) {
        char *at = map(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN, -1, 0);
        touch(at, size);
    } else if (IS("many-mappings")) {
        int wanted = count > 2 ? atoi(words[2]) : 70000;
        char *at = own((size_t)wanted * PAGE);
        for (int i = 0; i < wanted; i += 2) {
            if (!(i % 64)) at[(size_t)i * PAGE] = 1;
            need(!mprotect(at + (size_t)i * PAGE, PAGE, PROT_READ));
        }
    } else if (IS("filter-none")) {
        touch(own(size), size), write_file("/proc/self/coredump_filter", "0x0");
    } else if (IS("filter-all")) {
        touch(own(size), size), map(size, PROT_READ, MAP_PRIVATE, file_of(size), 0);
        write_file("/proc/self/coredump_filter", "0x1ff");
    } else if (IS("not-dumpable-again")) {
        touch(own(size), size), prctl(PR_SET_DUMPABLE, 0), prctl(PR_SET_DUMPABLE, 1);
    } else if (IS("root-only")) {
        /* With fs.suid_dumpable=2, a change of identity makes it dumpable for root only. */
        touch(own(size), size), need(!setresgid(65534, 65534, 65534) && !setresuid(65534, 65534, 65534));
    } else if (IS("user-namespace")) {
        touch(own(size), size), own_user_namespace();
    } else if (IS("chroot")) {
        touch(own(size), size), need(!chroot("/proc/self/fdinfo") && !chdir("/"));
    } else if (IS("seccomp")) {
        touch(own(size), size), allow_everything();
    } else if (IS("io-uring")) {
        touch(own(size), size), use_ring(60000000), usleep(20000);
    } else if (IS("io-uring-busy")) {
        touch(own(size), size), use_ring(count > 3 ? atol(words[3]) : 5000), usleep(20000);
    } else if (IS("userfault")) {
        char *at = own(size);
        own_faults(touch(at, size / 2), size);
    } else if (IS("userfault-shared")) {
        char *at = map(size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        own_faults(touch(at, size / 2), size);
    } else if (IS("vfork-child")) {
        touch(own(size), size);
        if (!vfork()) *(volatile int *)0 = 1;
        wait(0), exit(0);
    } else if (IS("zero-device")) {
        int zero = open("/dev/zero", O_RDWR);
        touch(map(size, PROT_READ | PROT_WRITE, MAP_PRIVATE, zero, 0), size);
        touch(map(size, PROT_READ | PROT_WRITE, MAP_SHARED, zero, 0), size);
    } else if (IS("stack-deep")) {
        volatile char deep[6 * MIB];
        for (size_t i = 0; i < sizeof deep; i += 3 * PAGE) deep[i] = 1;
        *(volatile int *)0 = deep[0];
    } else if (IS("killed-by-sender")) {
        touch(own(size), size), raise(SIGABRT);
    } else {
        fprintf(stderr, "kinds: no such kind: %s\n", kind);
        return 2;
    }
    *(volatile int *)0 = 1;
    return 0;
}
