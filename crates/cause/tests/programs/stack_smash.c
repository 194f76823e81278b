// expect: stack_smashing; wrote past the end of one of its local variables; copy
// flags: -fstack-protector-all
#include <string.h>
__attribute__((noipa)) static void put(char *to, const char *text) { while ((*to++ = *text++)) {} }
__attribute__((noipa)) static int copy(const char *text) { char name[8]; put(name, text); return name[0]; }
int main(void) { return copy("this text is much longer than eight bytes"); }
