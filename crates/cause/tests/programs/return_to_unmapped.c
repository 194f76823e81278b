// expect: bad_return|bad_jump; 0x123456789000
// flags: -fno-stack-protector -D_FORTIFY_SOURCE=0
__attribute__((noipa)) static void put(long *to, int n) { for (int i = 0; i < n; i++) to[i] = 0x123456789000; }
__attribute__((noipa)) static int copy(int n) { long name[2]; put(name, n); return (int)name[0]; }
int main(void) { return copy(9); }
