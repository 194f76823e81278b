// expect: trap; trap; add
// flags: -fsanitize=signed-integer-overflow -fsanitize-undefined-trap-on-error
__attribute__((noipa)) static int add(int a, int b) { return a + b; }
int main(int n, char **w) { (void)w; return add(0x7fffffff, n); }
