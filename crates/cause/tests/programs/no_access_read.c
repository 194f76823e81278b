// expect: no_access_memory; without any access; look
#include <sys/mman.h>
__attribute__((noipa)) static int look(int *at) { return *at; }
int main(void) { return look(mmap(0, 4096, 0, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)); }
