// expect: floating_point; by zero; ratio
// flags: -lm
#define _GNU_SOURCE
#include <fenv.h>
__attribute__((noipa)) static double ratio(double a, double b) { return a / b; }
int main(int n, char **w) { (void)w; feenableexcept(FE_DIVBYZERO); return (int)ratio(n, n - 1); }
