// expect: null_pointer; through a null pointer; first
__attribute__((noipa)) static int first(int *list) { return *list; }
int main(void) { return first(0); }
