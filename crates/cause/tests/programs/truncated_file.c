// expect: mapped_file; has no data; records; scan
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
__attribute__((noipa)) static int scan(volatile char *file, int n) { int s = 0; for (int i = 0; i < n; i++) s += file[i]; return s; }
int main(void) {
    int file = open("records", O_RDWR | O_CREAT, 0600);
    if (ftruncate(file, 8192)) return 1;
    char *map = mmap(0, 8192, 3, MAP_SHARED, file, 0);
    if (ftruncate(file, 100)) return 1;
    return scan(map, 8192);
}
