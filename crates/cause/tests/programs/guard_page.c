// expect: no_access_memory; without any access; fill
#include <sys/mman.h>
__attribute__((noipa)) static void fill(volatile char *at, int n) { for (int i = 0; i < n; i++) at[i] = 1; }
int main(void) {
    char *two = mmap(0, 8192, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(two + 4096, 4096, 0);
    fill(two, 5000);
    return 0;
}
