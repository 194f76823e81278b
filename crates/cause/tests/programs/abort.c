// expect: abort; called `abort`; give_up
#include <stdlib.h>
__attribute__((noipa)) static void give_up(int n) { if (n) abort(); }
int main(int n, char **w) { (void)w; give_up(n); return 0; }
