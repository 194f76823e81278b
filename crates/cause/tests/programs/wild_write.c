// expect: bad_pointer; tried to write 8 bytes at 0x5000deadbeef; save
__attribute__((noipa)) static void save(long *at) { *at = 5; }
int main(void) { save((long *)0x5000deadbeef); return 0; }
