// expect: non_canonical_pointer; tried to write; save
__attribute__((noipa)) static void save(long *at) { at[3] = 5; }
int main(void) { save((long *)0xdeadbeefdeadbeef); return 0; }
