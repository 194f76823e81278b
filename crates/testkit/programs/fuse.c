/* A process that crashes with pages of a file whose server is silent: fuse DEVICE MOUNTPOINT OWNER KIND.
   OWNER is `user` (uid 65534 in a user namespace of its own) or `root` (a mount that everybody may use, as
   s3fs makes them). Serves the file `f`, a copy of this program, until the crash is due, and then answers no
   more reads. Prints "pid N" of the process that is about to crash. Ends, and its mount with it, when
   standard input does. KIND:
     low       a private page at a low address, not in the core
     high      a private page that is in the core (coredump_filter 0x3f)
     head      a mapping whose first page the kernel itself looks at before it writes anything
     library   the whole file, executable, some pages present
     lock      another process holds the lock of the memory, for it reads such a page through /proc/PID/mem
     race      another process shares the memory and exchanges pages of the heap for pages of the file
   Exit status 77: the kernel does not offer what is needed. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char *image;
static size_t size;
static volatile int *silent;
static char path[4096];

static void not_here(const char *what) { perror(what); exit(77); }

static void put(const char *name, const char *text) {
    int file = open(name, O_WRONLY);
    if (file < 0 || write(file, text, strlen(text)) < 0) not_here(name);
    close(file);
}

static void load(void) {
    int file = open("/proc/self/exe", O_RDONLY);
    struct stat found;
    if (file < 0 || fstat(file, &found)) not_here("exe");
    size = (found.st_size + 4095) / 4096 * 4096;
    image = calloc(1, size);
    if (read(file, image, found.st_size) != found.st_size) not_here("exe");
    close(file);
}

static void become_user(void) {
    char text[64];
    if (setgroups(0, 0) || setgid(65534) || setuid(65534)) not_here("setuid");
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS)) not_here("unshare");
    put("/proc/self/setgroups", "deny");
    snprintf(text, sizeof text, "0 %d 1", 65534);
    put("/proc/self/uid_map", text);
    put("/proc/self/gid_map", text);
    mount("none", "/", 0, MS_REC | MS_PRIVATE, 0);
}

static int touch(volatile char *page) { return *page; }

static char *map(int prot, int flags, char *at, off_t offset, size_t length) {
    int file = open(path, O_RDONLY);
    if (file < 0) not_here(path);
    char *page = mmap(at, length, prot, flags | MAP_PRIVATE, file, offset);
    if (page == MAP_FAILED) not_here("mmap");
    close(file);
    return page;
}

/* Somebody else asks for the page, and keeps it locked for as long as there is no answer. */
static void lock_page(char *page) {
    if (!fork()) _exit(touch(page));
    usleep(200000);
}

static char *heap;
static int exchange(void *nothing) {
    (void)nothing;
    int file = open(path, O_RDONLY);
    if (file < 0) return 1;
    for (int page = 0;; page = (page + 1) % (64 << 8)) {
        char *at = heap + page * 4096L;
        mmap(at, 4096, PROT_READ, MAP_PRIVATE | MAP_FIXED, file, 4096);
        if (page % 256 == 0) usleep(1000);
    }
}

static void crash(const char *kind) {
    struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
    setrlimit(RLIMIT_CORE, &all);
    char *page = 0;
    if (!strcmp(kind, "low")) page = map(PROT_READ, MAP_FIXED_NOREPLACE, (char *)0x10000, 4096, 4096);
    else if (!strcmp(kind, "head")) page = map(PROT_READ, 0, 0, 0, 4096);
    else if (!strcmp(kind, "library")) {
        char *all = map(PROT_READ | PROT_EXEC, 0, 0, 0, size);
        for (size_t at = 0; at < size / 2; at += 4096) touch(all + at);
        page = all + size - 4096;
    } else page = map(PROT_READ, 0, 0, 4096, 4096);
    if (!strcmp(kind, "high")) put("/proc/self/coredump_filter", "0x3f");
    *silent = 1;
    lock_page(page);
    if (!strcmp(kind, "lock")) {
        char name[64];
        snprintf(name, sizeof name, "/proc/%d/mem", getpid());
        int memory = open(name, O_RDONLY);
        char byte;
        if (!fork()) _exit(pread(memory, &byte, 1, (off_t)page) < 0);
        usleep(200000);
    }
    if (!strcmp(kind, "race")) {
        heap = mmap(0, 64 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memset(heap, 7, 64 << 20);
        char *stack = malloc(1 << 20);
        clone(exchange, stack + (1 << 20), CLONE_VM | SIGCHLD, 0);
    }
    printf("pid %d\n", getpid());
    fflush(stdout);
    abort();
}

static void serve(int device) {
    static char in[1 << 20], out[(1 << 17) + 64];
    struct pollfd both[2] = {{device, POLLIN, 0}, {0, POLLIN, 0}};
    while (poll(both, 2, -1) >= 0 || errno == EINTR) {
        char byte;
        if (both[1].revents && read(0, &byte, 1) <= 0) return;
        if (!both[0].revents) continue;
        if (read(device, in, sizeof in) < 0) {
            if (errno == ENODEV) return;
            continue;
        }
        struct fuse_in_header *head = (void *)in;
        struct fuse_out_header *answer = (void *)out;
        void *body = out + sizeof *answer;
        size_t length = 0;
        int error = 0;
        memset(out, 0, 256);
        struct fuse_attr attr = {.ino = head->nodeid, .size = size, .mode = S_IFREG | 0755, .nlink = 1,
                                 .blksize = 4096};
        if (head->nodeid == 1) attr.mode = S_IFDIR | 0755;
        switch (head->opcode) {
        case FUSE_INIT: {
            struct fuse_init_out *init = body;
            init->major = 7, init->minor = 31, init->max_write = 65536;
            length = sizeof *init;
            break;
        }
        case FUSE_LOOKUP: {
            struct fuse_entry_out *entry = body;
            attr.ino = 2, attr.mode = S_IFREG | 0755;
            entry->nodeid = 2, entry->attr = attr, entry->attr_valid = entry->entry_valid = 1000;
            length = sizeof *entry;
            break;
        }
        case FUSE_GETATTR: {
            struct fuse_attr_out *found = body;
            found->attr = attr, found->attr_valid = 1000;
            length = sizeof *found;
            break;
        }
        case FUSE_OPEN: {
            struct fuse_open_out *opened = body;
            opened->fh = 1;
            length = sizeof *opened;
            break;
        }
        case FUSE_READ: {
            struct fuse_read_in *wanted = (void *)(in + sizeof *head);
            if (*silent) continue;
            if (wanted->offset < size) {
                length = size - wanted->offset;
                if (length > wanted->size) length = wanted->size;
                memcpy(body, image + wanted->offset, length);
            }
            break;
        }
        case FUSE_FORGET:
        case FUSE_BATCH_FORGET:
            continue;
        case FUSE_RELEASE:
        case FUSE_FLUSH:
            break;
        default:
            error = -ENOSYS;
        }
        answer->unique = head->unique;
        answer->error = error;
        answer->len = sizeof *answer + (error ? 0 : length);
        if (write(device, out, answer->len) < 0 && errno == ENODEV) return;
    }
}

int main(int count, char **words) {
    if (count < 5) return 90;
    const char *owner = words[3];
    load();
    silent = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!strcmp(owner, "user")) become_user();
    else if (unshare(CLONE_NEWNS) || mount("none", "/", 0, MS_REC | MS_SLAVE, 0)) not_here("unshare");
    int device = open(words[1], O_RDWR | O_CLOEXEC);
    if (device < 0) not_here(words[1]);
    char options[128];
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0%s", device,
             strcmp(owner, "user") ? ",allow_other" : "");
    if (mount("fuse", words[2], "fuse", MS_NOSUID | MS_NODEV, options)) not_here("mount");
    snprintf(path, sizeof path, "%s/f", words[2]);
    setpgid(0, 0);
    pid_t child = fork();
    if (!child) {
        close(device);
        crash(words[4]);
    }
    serve(device);
    close(device);
    signal(SIGTERM, SIG_IGN);
    /* The readers that sleep go when the mount does. */
    umount2(words[2], MNT_FORCE | MNT_DETACH);
    kill(child, SIGKILL);
    signal(SIGTERM, SIG_DFL);
    kill(0, SIGKILL);
    return 0;
}
