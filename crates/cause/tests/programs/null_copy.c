// expect: null_pointer; through a null pointer; fill
#include <string.h>
__attribute__((noipa)) static void fill(char *to, const char *from, unsigned long n) { memcpy(to, from, n); __asm__ volatile(""); }
int main(int n, char **w) { fill(n > 9 ? w[0] : 0, "hello, this text is not short", 20 + n); return 0; }
