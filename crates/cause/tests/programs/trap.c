// expect: trap; trap; reach
__attribute__((noipa)) static void reach(int n) { if (n) __builtin_trap(); }
int main(int n, char **w) { (void)w; reach(n); return 0; }
