// expect: read_only_memory; read-only memory; add
#include <sys/mman.h>
__attribute__((noipa)) static void add(volatile int *n) { *n += 1; }
int main(void) { int *page = mmap(0, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); *page = 1; mprotect(page, 4096, 1); add(page); return 0; }
