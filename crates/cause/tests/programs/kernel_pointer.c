// expect: bad_pointer; belongs to the kernel; load
__attribute__((noipa)) static int load(int *at) { return *at; }
int main(void) { return load((int *)0xffffffff81000000); }
