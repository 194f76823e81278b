// expect: bad_call; not code; run
static int data[64] = {1, 2, 3};
__attribute__((noipa)) static int run(int (*step)(int)) { return step(1) + 1; }
int main(void) { return run((int (*)(int))(void *)(data + 8)); }
