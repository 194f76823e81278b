// expect: bad_pointer; nothing is mapped; use
#include <sys/mman.h>
__attribute__((noipa)) static int use(int *list) { return list[10]; }
int main(void) { int *list = mmap(0, 1 << 20, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); munmap(list, 1 << 20); return use(list); }
