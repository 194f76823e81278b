// expect: bad_pointer|no_access_memory; copy
#include <string.h>
__attribute__((noipa)) static void copy(char *to, const char *from, int n) { memcpy(to, from, (unsigned long)n); __asm__ volatile(""); }
int main(int n, char **w) { (void)w; static char to[64], from[64]; copy(to, from, -n); return 0; }
