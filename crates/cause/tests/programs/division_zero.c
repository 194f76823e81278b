// expect: division_by_zero; by zero; average
__attribute__((noipa)) static int average(int sum, int count) { return sum / count; }
int main(int n, char **w) { (void)w; return average(7, n - 1); }
