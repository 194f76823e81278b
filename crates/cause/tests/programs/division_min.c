// expect: division_overflow; by -1; invert
#include <limits.h>
__attribute__((noipa)) static int invert(int value, int by) { return value / by; }
int main(int n, char **w) { (void)w; return invert(INT_MIN, -n); }
