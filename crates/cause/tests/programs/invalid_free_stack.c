// expect: invalid_free|heap_corruption|null_pointer; release
#include <stdlib.h>
#include <string.h>
__attribute__((noipa)) static void release(char *block) { free(block); __asm__ volatile(""); }
int main(void) { char block[200]; memset(block, 1, sizeof block); release(block + 24); return block[3]; }
