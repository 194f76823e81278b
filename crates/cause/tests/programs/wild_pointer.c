// expect: bad_pointer; 0x123456789000; nothing is mapped; load
__attribute__((noipa)) static int load(int *at) { return *at; }
int main(void) { return load((int *)0x123456789000); }
