// expect: runtime_check; %n; show
// flags: -D_FORTIFY_SOURCE=2
// builds: O2
#include <stdio.h>
__attribute__((noipa)) static int show(char *format) { int n = 0; printf(format, &n); return n; }
int main(void) { char format[] = "abc%n\n"; return show(format); }
