// expect: bad_pointer; nothing is mapped; fill
__attribute__((noipa)) static void fill(int *list, long n) { for (long i = 0; i < n; i++) list[i] = 7; }
int main(void) { static int list[16]; fill(list, 100000000); return list[3]; }
