// expect: resource_limit; larger than its limit
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>
__attribute__((noipa)) static long save(int file) { static char data[4096]; long all = 0; for (int i = 0; i < 9; i++) all += write(file, data, sizeof data); return all; }
int main(void) { int file = open("/proc/self/cwd/out", O_CREAT | O_WRONLY, 0600); struct rlimit l = {8192, RLIM_INFINITY}; setrlimit(RLIMIT_FSIZE, &l); return (int)save(file); }
