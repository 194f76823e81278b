// expect: division_by_zero; by zero; share
__attribute__((noipa)) static unsigned long share(unsigned long sum, unsigned long *count) { return sum % *count; }
int main(int n, char **w) { (void)w; unsigned long zero = n - 1; return (int)share(7, &zero); }
