// expect: heap_corruption; allocator; overwritten
#include <stdlib.h>
#include <string.h>
__attribute__((noipa)) static void fill(char *block, int n) { memset(block, 'A', n); }
__attribute__((noipa)) static void *more(int n) { return malloc(n); }
int main(void) { char *block = malloc(24); fill(block, 64); return more(2000) == 0; }
