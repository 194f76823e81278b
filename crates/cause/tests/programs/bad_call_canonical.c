// expect: bad_call; through a bad pointer; run
__attribute__((noipa)) static int run(int (*step)(int)) { return step(1) + 1; }
int main(void) { return run((int (*)(int))0x4141414141414141); }
