// expect: bad_pointer; 0xffffffffffffffff; first
__attribute__((noipa)) static int first(char *at) { return *at; }
int main(void) { return first((char *)-1); }
