// expect: resource_limit; CPU time; spin
#include <sys/resource.h>
__attribute__((noipa)) static void spin(volatile unsigned long *n) { for (;;) ++*n; }
int main(void) { struct rlimit l = {1, 5}; setrlimit(RLIMIT_CPU, &l); volatile unsigned long n = 0; spin(&n); }
