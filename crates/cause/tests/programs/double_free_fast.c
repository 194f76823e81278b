// expect: double_free; already free; release
#include <stdlib.h>
__attribute__((noipa)) static void release(void *block) { free(block); __asm__ volatile(""); }
int main(void) {
    void *blocks[9];
    for (int i = 0; i < 9; i++) blocks[i] = malloc(24);
    for (int i = 0; i < 8; i++) release(blocks[i]);
    release(blocks[7]);
    return 0;
}
