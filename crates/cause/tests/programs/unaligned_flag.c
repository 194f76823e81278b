// expect: unaligned_access; multiple of 4; load
// machine: x86_64
__attribute__((noipa)) static int load(char *at) { return *(volatile int *)at; }
int main(void) { static char list[64] __attribute__((aligned(16))); __asm__ volatile("pushf; orl $0x40000, (%rsp); popf"); return load(list + 1); }
