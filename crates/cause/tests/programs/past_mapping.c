// expect: bad_pointer; sum
#include <sys/mman.h>
__attribute__((noipa)) static int sum(volatile char *list, int n) { int s = 0; for (int i = 0; i < n; i++) s += list[i]; return s; }
int main(void) {
    char *two = mmap(0, 8192, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(two + 4096, 4096);
    return sum(two, 5000);
}
