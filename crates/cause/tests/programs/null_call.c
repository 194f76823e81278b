// expect: null_call; called a function through a null pointer; run
__attribute__((noipa)) static int run(int (*step)(int)) { return step(1) + 1; }
int main(void) { return run(0); }
