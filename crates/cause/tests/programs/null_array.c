// expect: null_pointer; null pointer; pick
__attribute__((noipa)) static int pick(int *list, long index) { return list[index]; }
int main(void) { return pick(0, 5); }
