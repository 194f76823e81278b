// expect: buffer_overflow; than the buffer can hold; label; strcpy
// flags: -D_FORTIFY_SOURCE=2
// builds: O2 static
#include <string.h>
#include <stdio.h>
__attribute__((noipa)) static int label(const char *text) { char name[8]; strcpy(name, text); return puts(name); }
int main(int n, char **w) { (void)w; return label(n > 9 ? "a" : "this text is much longer than eight bytes"); }
