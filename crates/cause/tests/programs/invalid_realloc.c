// expect: invalid_free; passed `realloc` an address that is not a memory block; grow
#include <stdlib.h>
__attribute__((noipa)) static char *grow(char *block) { char *more = realloc(block, 1000); __asm__ volatile("" : "+r"(more)); return more; }
int main(void) { char *block = malloc(100); return grow(block + 24) == 0; }
