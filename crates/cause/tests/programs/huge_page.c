// expect: huge_pages; made of huge pages; touch
#include <sys/mman.h>
#include <unistd.h>
__attribute__((noipa)) static void touch(volatile char *at) { *at = 1; }
int main(void) {
    char *map = mmap(0, 1ul << 30, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) _exit(77);
    for (unsigned long at = 0; at < 1ul << 30; at += 2 << 20) touch(map + at);
    _exit(77);
}
