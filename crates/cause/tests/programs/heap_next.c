// expect: heap_corruption|invalid_free|double_free; overwritten
#include <stdlib.h>
#include <string.h>
__attribute__((noipa)) static void fill(char *block, int n) { memset(block, 'A', n); }
__attribute__((noipa)) static void release(void *block) { free(block); }
int main(void) { char *a = malloc(2000), *b = malloc(2000), *c = malloc(2000); fill(a, 2100); release(b); return c == 0; }
