// expect: stack_overflow; is full; local variables of `table`
// flags: -fno-stack-clash-protection
__attribute__((noipa)) static int use(volatile char *p, int n) { for (int i = n; i-- > 0;) p[i] = 1; return p[0]; }
__attribute__((noipa)) static int table(int n) { volatile char all[8388000]; return use(all + sizeof all - n, n); }
int main(void) { return table(8388000); }
