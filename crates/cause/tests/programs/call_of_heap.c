// expect: bad_call; not code; run
#include <stdlib.h>
__attribute__((noipa)) static int run(int (*step)(int)) { return step(1) + 1; }
int main(void) { char *block = malloc(64); block[0] = (char)0xc3; return run((int (*)(int))(void *)block); }
