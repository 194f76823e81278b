// expect: null_call; called a function through a null pointer; order
#include <stdlib.h>
__attribute__((noipa)) static void order(int *list, int n) { qsort(list, n, sizeof *list, 0); __asm__ volatile(""); }
int main(void) { int list[] = {3, 1, 2}; order(list, 3); return list[0]; }
