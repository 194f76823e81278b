// expect: null_pointer; tried to write 4 bytes through a null pointer; store
__attribute__((noipa)) static void store(int *at, int value) { *at = value; }
int main(int n, char **w) { (void)w; store(n > 9 ? &n : 0, 7); return 0; }
