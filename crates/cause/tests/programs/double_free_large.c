// expect: double_free; already free; release
#include <stdlib.h>
__attribute__((noipa)) static void release(void *block) { free(block); __asm__ volatile(""); }
int main(void) { void *block = malloc(5000), *other = malloc(5000); release(block); release(block); return other == 0; }
