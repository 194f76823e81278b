// expect: invalid_free; not a memory block; release
#include <stdlib.h>
__attribute__((noipa)) static void release(char *block) { free(block); __asm__ volatile(""); }
int main(void) { char *block = malloc(100); release(block + 8); return 0; }
