// expect: bad_call; stack; run
__attribute__((noipa)) static int run(int (*step)(int)) { return step(1) + 1; }
int main(void) { volatile char code[64]; code[0] = (char)0xc3; return run((int (*)(int))(void *)code); }
