// expect: bad_return; return address; overwritten
// flags: -fno-stack-protector -D_FORTIFY_SOURCE=0
#include <string.h>
__attribute__((noipa)) static void put(char *to, int n) { for (int i = 0; i < n; i++) to[i] = 'A'; }
__attribute__((noipa)) static int copy(int n) { char name[8]; put(name, n); return name[0]; }
int main(void) { return copy(64); }
