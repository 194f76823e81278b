/* A 32-bit process without any library, so that no 32-bit one has to be installed: dies of SIGSEGV with
   4 MiB of memory of its own. */
static volatile char memory[4 << 20];

static int call(int number, int first, const void *second) {
    int result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(first), "c"(second) : "memory");
    return result;
}

void _start(void) {
    /* setrlimit(RLIMIT_CORE, infinity) */
    unsigned long unlimited[2] = {-1ul, -1ul};
    call(75, 4, unlimited);
    for (unsigned i = 0, value = 1; i < sizeof memory; i += 8) {
        value = value * 1103515245u + 12345u;
        memory[i] = value >> 16;
    }
    *(volatile int *)0 = 1;
    for (;;) ;
}
