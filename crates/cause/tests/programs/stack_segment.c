// expect: non_canonical_pointer; cannot be an address; load
// machine: x86_64
__attribute__((noipa)) static long load(long at) { long found; __asm__ volatile("push %%rbp; mov %1, %%rbp; mov (%%rbp), %0; pop %%rbp" : "=&r"(found) : "r"(at)); return found; }
int main(void) { return (int)load(0x7000123456789abc); }
