// expect: non_canonical_pointer; cannot be an address; load
__attribute__((noipa)) static int load(int *at) { return *at; }
int main(void) { return load((int *)0x8000123456789abc); }
