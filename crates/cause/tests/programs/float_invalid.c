// expect: floating_point; invalid; ratio
// flags: -lm
#define _GNU_SOURCE
#include <fenv.h>
__attribute__((noipa)) static double ratio(double a, double b) { return a / b; }
int main(int n, char **w) { (void)w; feenableexcept(FE_INVALID); return (int)ratio(n - 1, n - 1); }
